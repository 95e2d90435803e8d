//! What the tests of the book share.
#![allow(dead_code, clippy::unwrap_used, reason = "tests: each target uses its part")]

pub mod random;
pub mod reference;

use fafnir_matching::{Slot, What};

/// The event without the book's own slots.
pub fn without_slots(mut what: What) -> What {
    match &mut what {
        What::Accepted { slot, .. }
        | What::Canceled { slot, .. }
        | What::Expired { slot, .. }
        | What::Replaced { slot, .. }
        | What::Reduced { slot, .. }
        | What::Triggered { slot, .. }
        | What::StopMoved { slot, .. }
        | What::Refilled { slot, .. } => *slot = Slot(0),
        What::Trade { maker_slot, .. } | What::Decremented { maker_slot, .. } => *maker_slot = Slot(0),
        _ => {}
    }
    what
}
