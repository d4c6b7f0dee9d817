//! Watched time, the only clock of decisions: made from a clock that counts suspend, which is an argument.

use std::time::Duration;

use crate::model::Moment;

/// Watched time: it runs with the boot clock while the loop does what it said it would, and stands
/// still while the process or the machine was stopped.
#[derive(Clone, Copy, Debug)]
pub struct WatchedTime {
    now: Moment,
    boot: Duration,
}

/// How watched time went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Now.
    pub now: Moment,
    /// By how much the loop was later than it allowed for, where it was.
    pub late: Option<Duration>,
}

impl WatchedTime {
    /// Goes on from a moment that the journal kept.
    pub fn resume(now: Moment, boot: Duration) -> Self {
        Self { now, boot }
    }

    /// Goes on to `boot`, where the loop meant to do something that takes `expected` at most and
    /// allows for `slack` more. Of a longer time only what was expected was watched.
    pub fn advance(&mut self, boot: Duration, expected: Duration, slack: Duration) -> Advance {
        let elapsed = boot.saturating_sub(self.boot);
        self.boot = boot;
        let late = elapsed.checked_sub(expected).filter(|late| *late > slack);
        self.now = self.now
            + match late {
                Some(_) => expected,
                None => elapsed,
            };
        Advance {
            now: self.now,
            late,
        }
    }

    /// What the boot clock said when it last went on.
    pub fn boot(&self) -> Duration {
        self.boot
    }

    /// The moment up to which watched time has come.
    pub fn now(&self) -> Moment {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let mut watched = WatchedTime::resume(Moment::from_millis(60_000), 100 * SECOND);
        let on_time = watched.advance(110 * SECOND, 10 * SECOND, 5 * SECOND);
        assert_eq!(on_time.now, Moment::from_millis(70_000));
        assert_eq!(on_time.late, None);
        let suspended = watched.advance(3710 * SECOND, 10 * SECOND, 5 * SECOND);
        assert_eq!(suspended.now, Moment::from_millis(80_000));
        assert_eq!(suspended.late, Some(3590 * SECOND));
    }

    #[test]
    fn a_clock_that_runs_back_stands_still() {
        let mut watched = WatchedTime::resume(Moment::ZERO, 100 * SECOND);
        let back = watched.advance(50 * SECOND, 10 * SECOND, 5 * SECOND);
        assert_eq!(back.now, Moment::ZERO);
    }
}
