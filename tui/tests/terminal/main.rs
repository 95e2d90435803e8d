//! The terminal as its user sees it: screens, rules, the loop, the real terminal.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of the tests")]

mod common;
mod drive;
mod exchange;
mod ladder;
mod live;
#[cfg(unix)]
mod money;
mod pages;
#[cfg(unix)]
mod pty;
mod random;
mod recording;
mod rules;
mod screens;
mod tickets;
