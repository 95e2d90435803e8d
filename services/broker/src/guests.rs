//! Users that come and go while the broker runs.

use crate::{Error, User};
use tokio::sync::{mpsc, oneshot};

/// Changes that wait for the broker.
const CHANGES_MAX: usize = 256;

/// A change of who may sign in.
pub(crate) enum Guest {
    /// From now on this one may; told once it is so.
    Admit { user: User, done: oneshot::Sender<Result<(), Error>> },
    /// This one may no longer, and its connections end.
    Dismiss { name: String },
}

/// The broker's end: goes into [`Config::guests`](crate::Config::guests).
#[derive(Debug)]
pub struct GuestList(pub(crate) mpsc::Receiver<Guest>);

/// Lets users in besides those of the configuration, and out again.
#[derive(Debug, Clone)]
pub struct Guests(mpsc::Sender<Guest>);

impl Guests {
    /// Both ends.
    pub fn new() -> (Self, GuestList) {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        (Self(sender), GuestList(receiver))
    }

    /// Lets a user sign in from when this returns; one of the same name is replaced. A user of the configuration with
    /// that name wins.
    ///
    /// # Errors
    /// When the user cannot be used or the broker has ended.
    pub async fn admit(&self, user: User) -> Result<(), Error> {
        let (done, is_done) = oneshot::channel();
        let ended = || Error::Task("it is not running".into());
        self.0.send(Guest::Admit { user, done }).await.map_err(|_| ended())?;
        is_done.await.map_err(|_| ended())?
    }

    /// Ends a user and its connections; one who is not there is none the less gone.
    pub async fn dismiss(&self, name: String) {
        // A broker that has ended has nobody signed in.
        let _ = self.0.send(Guest::Dismiss { name }).await;
    }
}
