//! The clock of a recorded market: how fast its time passes, and whether it does.

use fafnir_proto::v1::{PlaybackAction, PlaybackRequest};
use fafnir_rules::{limits::PLAYBACK_SPEED_MILLI, money::parse_scaled};
use std::time::Duration;
use tokio::time::Instant;

const SPEED_DECIMALS: u32 = 3;

/// Where a recording is, and how it goes on.
#[derive(Debug)]
pub struct Playback {
    speed_milli: u32,
    is_paused: bool,
    /// Steps that are done although it is paused.
    allowed: u32,
    /// The recording's time at a moment.
    at_us: i64,
    moment: Instant,
}

impl Playback {
    /// A recording that begins now, at a speed such as `50` or `0.5`.
    pub fn parse(speed: &str) -> Option<Self> {
        let speed = parse_scaled(speed, SPEED_DECIMALS).ok().and_then(|s| u32::try_from(s).ok())?;
        let speed_milli = Some(speed).filter(|speed| PLAYBACK_SPEED_MILLI.contains(speed))?;
        Some(Self { speed_milli, is_paused: false, allowed: 0, at_us: 0, moment: Instant::now() })
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub fn speed_milli(&self) -> u32 {
        self.speed_milli
    }

    /// The recording's time.
    pub fn at_us(&self, now: Instant) -> i64 {
        if self.is_paused {
            return self.at_us;
        }
        let passed =
            now.saturating_duration_since(self.moment).as_micros() * u128::from(self.speed_milli) / 1_000;
        self.at_us.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    /// When a step of this time is due; `None` while it is not.
    pub fn due(&self, step_us: i64, now: Instant) -> Option<Instant> {
        if self.is_paused {
            return (self.allowed > 0).then_some(now);
        }
        let ahead = u64::try_from(step_us.saturating_sub(self.at_us)).unwrap_or(0);
        Some(self.moment + Duration::from_micros(ahead.saturating_mul(1_000) / u64::from(self.speed_milli)))
    }

    /// A step of this time has been done.
    pub fn done(&mut self, step_us: i64, now: Instant) {
        if self.is_paused {
            self.allowed = self.allowed.saturating_sub(1);
            self.at_us = step_us.max(self.at_us);
            self.moment = now;
        }
    }

    /// Does what is asked.
    pub fn hear(&mut self, request: &PlaybackRequest, now: Instant) {
        (self.at_us, self.moment) = (self.at_us(now), now);
        match request.action() {
            PlaybackAction::Unspecified => {}
            PlaybackAction::Pause => self.is_paused = true,
            PlaybackAction::Resume => (self.is_paused, self.allowed) = (false, 0),
            PlaybackAction::Step => {
                self.is_paused = true;
                self.allowed = self.allowed.saturating_add(request.steps);
            }
            PlaybackAction::Speed if PLAYBACK_SPEED_MILLI.contains(&request.speed_milli) => {
                self.speed_milli = request.speed_milli;
            }
            PlaybackAction::Speed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(action: PlaybackAction) -> PlaybackRequest {
        PlaybackRequest { action: action.into(), steps: 2, speed_milli: 100_000 }
    }

    #[test]
    fn time_passes_at_its_speed_and_stands_while_it_is_paused() {
        let mut playback = Playback::parse("50").unwrap();
        let begun = playback.moment;
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(playback.at_us(after(2)), 100_000_000);
        assert_eq!(playback.due(100_000_000, after(0)), Some(after(2)));
        assert_eq!(playback.due(0, after(3)), Some(after(0)), "it is late");
        playback.hear(&ask(PlaybackAction::Pause), after(2));
        assert_eq!((playback.at_us(after(9)), playback.due(0, after(9))), (100_000_000, None));
        playback.hear(&ask(PlaybackAction::Resume), after(10));
        assert_eq!(playback.due(150_000_000, after(10)), Some(after(11)));
        playback.hear(&ask(PlaybackAction::Speed), after(11));
        assert_eq!(playback.at_us(after(12)), 250_000_000);
    }

    #[test]
    fn a_step_is_done_while_everything_else_waits() {
        let mut playback = Playback::parse("1").unwrap();
        let now = playback.moment;
        playback.hear(&ask(PlaybackAction::Step), now);
        for step_us in [5_000_000, 9_000_000] {
            assert_eq!(playback.due(step_us, now), Some(now));
            playback.done(step_us, now);
        }
        assert_eq!((playback.due(10_000_000, now), playback.at_us(now)), (None, 9_000_000));
    }

    #[test]
    fn a_speed_is_a_number_within_its_bounds() {
        for bad in ["", "fast", "0", "0.001", "1001", "-1", "1.0001"] {
            assert!(Playback::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Playback::parse("0.01").unwrap().speed_milli(), 10);
        assert_eq!(Playback::parse("1000").unwrap().speed_milli(), 1_000_000);
    }
}
