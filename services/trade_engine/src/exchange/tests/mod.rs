//! Tests of the exchange across its files.

mod end_to_end;
mod support;
