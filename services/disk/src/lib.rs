//! What stores on disk are looked through with before they are believed.
//!
//! Plain functions over files, without a runtime, for every store alike: SQLite's write-ahead log before SQLite opens
//! it, the notes of how far a store had come, and small files that are there whole or not at all.

pub mod note;
pub mod wal;
pub mod whole;
