//! The common order flow of the matching benchmarks: file format, generator, the naive book, and the measurement.
//!
//! Nothing of the book uses this module; it is the only one that reads a clock or a float.

mod engine;
mod generate;
mod measure;
mod moving;
#[rustfmt::skip]
#[expect(clippy::pedantic, clippy::unwrap_used, reason = "the flow's own reference, taken as it is but for its path")]
pub mod naive;
mod recorded;
pub mod wl;

pub use engine::{FafnirEngine, KeyedEngine, KeyedOneByOne, OneByOne};
pub use generate::generate;
pub use measure::{Figures, Progress, SHAPES, Shape, measure, replay, replay_in_parts};
pub use moving::{Way, generate_moving};
pub use recorded::{Recorded, replay_recorded};
