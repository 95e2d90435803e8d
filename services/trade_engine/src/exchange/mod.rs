//! The sequencer of the one journal: commands in, durable, stepped by the core, facts out.
//!
//! `journal → step → answer → facts`: nothing of a command leaves before the command is durable. The core's state, its
//! facts and its answers follow from the journal alone.

pub mod message;
pub mod refusal;
pub mod request;
