//! The sequencer of the one journal: commands in, durable, stepped by the core, facts out.
//!
//! `journal → step → answer → facts`: nothing of a command leaves before the command is durable. The core's state, its
//! facts and its answers follow from the journal alone.

pub mod api;
pub mod followers;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod image;
pub mod inbox;
pub mod keeper;
pub mod log;
pub mod message;
pub mod published;
pub mod publisher;
pub mod recorder;
pub mod recovery;
pub mod refusal;
pub mod replay;
pub mod request;
pub mod sequencer;
pub mod snapshot;
pub mod start;

#[cfg(test)]
mod tests;

/// Nobody knows what is on disk: the only safe thing is to end and recover.
pub(crate) fn die(what: &str, e: &dyn std::fmt::Display) -> ! {
    tracing::error!(error = %e, "{what} is lost, the process ends to recover");
    std::process::abort()
}
