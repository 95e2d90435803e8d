//! The facts that auth-service publishes on stream `users`: `users.registered` and `users.deleted`.

use super::domain::NewUser;
use fafnir_platform::{
    bus::USERS,
    db::{Error, Tx, outbox},
};
use fafnir_proto::{
    id::UserId,
    subject::{USER_DELETED, USER_REGISTERED},
    v1,
};
use prost::Message as _;

/// Stores that a user exists.
pub fn registered(tx: &mut dyn Tx, id: UserId, new: &NewUser, now_us: i64) -> Result<(), Error> {
    let fact = v1::UserRegistered {
        user_id: id.to_string(),
        email: new.email_shown.clone(),
        first_name: new.first_name.clone(),
        last_name: new.last_name.clone(),
        time_us: now_us,
    };
    outbox::put(tx, USERS.name, USER_REGISTERED, &format!("registered:{id}"), fact.encode_to_vec(), now_us)
}

/// Stores that a user is gone.
pub fn deleted(tx: &mut dyn Tx, id: UserId, now_us: i64) -> Result<(), Error> {
    let fact = v1::UserDeleted { user_id: id.to_string(), time_us: now_us };
    outbox::put(tx, USERS.name, USER_DELETED, &format!("deleted:{id}"), fact.encode_to_vec(), now_us)
}
