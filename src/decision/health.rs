//! Our own lateness and failures: have we looked well, for long enough, to act?

use std::time::Duration;

use super::policy::Policy;
use crate::model::Moment;

/// Whether we are settled.
#[derive(Clone, Debug)]
pub struct Health {
    since: Moment,
    looks: u32,
    cause: Cause,
}

/// Why we look afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Start,
    Late,
    AllProbesFail,
}

/// How one tick went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Whether it came late by more than [`Policy::lateness_max`]: we were stopped, or starved.
    pub late: bool,
    /// Probes that were good.
    pub good: usize,
    /// Probes that were bad.
    pub bad: usize,
}

impl Health {
    /// Just started, or resumed.
    pub fn start(now: Moment) -> Self {
        Self {
            since: now,
            looks: 0,
            cause: Cause::Start,
        }
    }

    /// Folds in a tick; `true` where everything must be looked at afresh from here.
    pub fn tick(&mut self, now: Moment, tick: Tick) -> bool {
        let cause = if tick.late {
            Some(Cause::Late)
        } else if tick.good == 0 && tick.bad > 0 {
            // Everything failing at once is more likely our own fault than everybody's.
            Some(Cause::AllProbesFail)
        } else {
            None
        };
        match cause {
            Some(cause) => {
                self.since = now;
                self.looks = 0;
                self.cause = cause;
                true
            }
            None => {
                self.looks = self.looks.saturating_add(1);
                false
            }
        }
    }

    /// Whether we have looked well for `settle` and for `looks` ticks; else why not, as a sentence,
    /// and from when on it may be so.
    ///
    /// # Errors
    ///
    /// Not settled.
    pub fn settled(&self, now: Moment, policy: &Policy) -> Result<(), (String, Moment)> {
        let settle = policy.zones.settle;
        let looks = policy.builds.global.looks;
        if self.looks >= looks && now.since(self.since) >= settle {
            return Ok(());
        }
        let cause = match self.cause {
            Cause::Start => "started a moment ago",
            Cause::Late => "a tick came late, so this process or its machine was stopped",
            Cause::AllProbesFail => "every probe fails, so it may be this machine",
        };
        let sentence = format!(
            "{cause}; looking afresh: {} of {looks} looks, {} of {}",
            self.looks.min(looks),
            humantime::format_duration(seconds(now.since(self.since).min(settle))),
            humantime::format_duration(settle),
        );
        Err((sentence, self.since + settle))
    }
}

fn seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Tick = Tick {
        late: false,
        good: 2,
        bad: 0,
    };

    fn policy() -> Policy {
        Policy::default()
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    #[test]
    fn settled_takes_both_looks_and_time() {
        let mut health = Health::start(at(0));
        for second in [10, 20, 30, 40, 50] {
            health.tick(at(second), WELL);
            assert!(health.settled(at(second), &policy()).is_err(), "{second}");
        }
        health.tick(at(60), WELL);
        assert_eq!(health.settled(at(60), &policy()), Ok(()));
    }

    #[test]
    fn a_late_tick_starts_over() {
        let mut health = Health::start(at(0));
        for second in 1..=7 {
            health.tick(at(second * 10), WELL);
        }
        assert!(health.tick(at(80), Tick { late: true, ..WELL }));
        let (reason, until) = health.settled(at(80), &policy()).unwrap_err();
        assert!(reason.contains("late"), "{reason}");
        assert_eq!(until, at(140));
    }

    #[test]
    fn all_probes_failing_may_be_our_own_fault() {
        let mut health = Health::start(at(0));
        for second in 1..=7 {
            health.tick(at(second * 10), WELL);
        }
        let all_bad = Tick {
            late: false,
            good: 0,
            bad: 2,
        };
        assert!(health.tick(at(80), all_bad));
        assert!(health.settled(at(80), &policy()).is_err());
        let one_bad = Tick {
            late: false,
            good: 1,
            bad: 1,
        };
        assert!(!health.tick(at(90), one_bad), "one bad source is not us");
    }
}
