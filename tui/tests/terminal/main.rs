//! The terminal as its user sees it: screens, rules, the loop, the real terminal.

mod common;
mod drive;
#[cfg(unix)]
mod pty;
mod random;
mod rules;
mod screens;
