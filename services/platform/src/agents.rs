//! Which user ids belong to the simulated market, so that retention and reports tell agents from people.

use fafnir_proto::id::UserId;

/// First bytes of every agent's user id.
const PREFIX: [u8; 4] = *b"agnt";

/// The user id of agent `number`.
pub fn agent_id(number: u32) -> UserId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&PREFIX);
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    UserId::new(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Whether a user is an agent.
pub fn is_agent(user: UserId) -> bool {
    user.uuid().as_bytes().starts_with(&PREFIX)
}
