//! A backend that plays given events and keeps the commands: for tests and for replaying a recorded session.

use super::Backend;
use crate::msg::{Cmd, Event};
use std::collections::VecDeque;

/// Commands kept; older ones are dropped.
const COMMANDS_MAX: usize = 10_000;

/// Plays its script, then waits for ever.
#[derive(Debug, Default)]
pub struct Scripted {
    script: VecDeque<Event>,
    /// What was asked for, oldest first.
    pub commands: VecDeque<Cmd>,
}

impl Scripted {
    pub fn new(script: impl IntoIterator<Item = Event>) -> Self {
        Self { script: script.into_iter().collect(), commands: VecDeque::new() }
    }

    pub fn push(&mut self, event: Event) {
        self.script.push_back(event);
    }
}

impl Backend for Scripted {
    fn submit(&mut self, cmd: Cmd) {
        if self.commands.len() >= COMMANDS_MAX {
            self.commands.pop_front();
        }
        self.commands.push_back(cmd);
    }

    async fn next(&mut self) -> Option<Event> {
        match self.script.pop_front() {
            Some(event) => Some(event),
            None => std::future::pending().await,
        }
    }

    fn try_next(&mut self) -> Option<Event> {
        self.script.pop_front()
    }
}
