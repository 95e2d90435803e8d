//! The world behind the terminal: commands in, events out. The screens know it only through these messages.

pub mod live;
pub mod market;
pub mod rpc;
pub mod scripted;
pub mod session;

use crate::msg::{Cmd, Event};

/// Carries out commands and reports what happens.
pub trait Backend {
    /// Starts a command. Never waits; the answer comes as an event.
    fn submit(&mut self, cmd: Cmd);

    /// The next event; none when the backend has ended. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;

    /// An event that is here already.
    fn try_next(&mut self) -> Option<Event>;
}
