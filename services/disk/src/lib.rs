//! What stores on disk are looked through with before they are believed.
//!
//! Plain functions over files, without a runtime, for every store alike: SQLite's write-ahead log before SQLite opens
//! it, and the notes of how far a store had come.

pub mod note;
pub mod wal;
