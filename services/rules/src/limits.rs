//! Limits of what an order may ask for.

/// Most parts in which an iceberg may show its quantity: one command could otherwise refill for ever.
pub const ICEBERG_PARTS_MAX: i64 = 1_000;
