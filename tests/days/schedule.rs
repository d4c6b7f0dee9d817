//! What a bad day brings, from its seed alone: which pull requests are approved when, how their jobs
//! go, and what breaks.

use std::fmt;

use super::random::Random;
use crate::stack::config::{RepositoryConfig, StackConfig};

/// How long things break, seconds.
pub const TROUBLE: u64 = 180;

/// Pull requests of each repository.
const PULLS: u64 = 4;
/// The last approval comes this long before the trouble ends, seconds, so that it meets some.
const CALM_BEFORE_THE_END: u64 = 25;
/// How many things break.
const STRIKES: (u64, u64) = (10, 16);

const REPOSITORIES: [&str; 2] = ["alpha", "beta"];
const PLATFORMS: [&str; 2] = ["linux", "mac"];
/// All workers: the first platform has one to spare.
pub const WORKERS: [&str; 3] = ["linux", "linux-2", "mac"];

/// A day.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub seed: u64,
    /// Whether a rebuild that homu asks for is made, so that a commit may be built again in part.
    pub rebuilds: bool,
    pub pulls: Vec<PlannedPull>,
    /// In the order of their beginnings.
    pub strikes: Vec<Strike>,
}

/// A pull request that is approved.
#[derive(Debug, Clone)]
pub struct PlannedPull {
    pub label: &'static str,
    pub number: u64,
    /// Seconds from the day's beginning.
    pub approved_at: u64,
    /// How long each of its runs' steps takes, seconds.
    pub step_seconds: u32,
    pub temper: Temper,
}

/// How the jobs of a pull request go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Temper {
    Green,
    /// Red at this builder, always.
    Red(String),
    /// Red at this builder until the first failure; then a person retries, and all is green.
    Flaky(String),
}

/// Something that breaks for a while.
#[derive(Debug, Clone)]
pub struct Strike {
    /// Seconds from the day's beginning.
    pub at: u64,
    /// Seconds until it is mended; 0 where it passes by itself.
    pub lasts: u64,
    pub kind: StrikeKind,
}

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrikeKind {
    /// Buildbot does not hear of the next push.
    PushLost,
    /// homu does not hear of the next starts of runs.
    StartsLost(u64),
    /// homu does not hear of the next ends of runs.
    ResultsLost(u64),
    /// homu does not hear the next comment.
    CommentLost,
    /// The next requests of the watchdog get lost, and it believes that they arrived.
    RequestsLost(u64),
    /// homu does what the watchdog asks next, and its answer gets lost.
    AnswersLost(u64),
    /// A worker is killed, and started again.
    WorkerKilled(&'static str),
    /// A worker is frozen, and thawed.
    WorkerFrozen(&'static str),
    /// Buildbot's master is told to end, and started again.
    MasterStopped,
    /// Buildbot's master is killed, and started again.
    MasterKilled,
    /// Buildbot's master is frozen, and thawed.
    MasterFrozen,
    /// homu is killed, and started again.
    HomuKilled,
    /// The watchdog is killed, and started again.
    WatchdogKilled,
    /// The watchdog is frozen, and thawed.
    WatchdogFrozen,
}

/// A process that things happen to; at most one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    Worker(&'static str),
    Master,
    Homu,
    Watchdog,
}

impl Schedule {
    /// The day of a seed. The same seed gives the same day.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rebuilds = random.chance(300);
        let mut pulls = Vec::new();
        for label in REPOSITORIES {
            for number in 1..=PULLS {
                let builder = format!(
                    "{label}-{}",
                    random.pick(&PLATFORMS).expect("there are two")
                );
                let temper = match random.below(10) {
                    0 | 1 => Temper::Red(builder),
                    2 | 3 => Temper::Flaky(builder),
                    _ => Temper::Green,
                };
                pulls.push(PlannedPull {
                    label,
                    number,
                    approved_at: random.below(TROUBLE - CALM_BEFORE_THE_END),
                    step_seconds: if random.chance(500) { 2 } else { 5 },
                    temper,
                });
            }
        }
        Self {
            seed,
            rebuilds,
            pulls,
            strikes: strikes(&mut random),
        }
    }

    /// The stack that it happens to.
    pub fn stack(&self) -> StackConfig {
        let repositories = REPOSITORIES.map(|label| RepositoryConfig {
            pulls: PULLS,
            ..RepositoryConfig::of(label, &PLATFORMS)
        });
        let config = StackConfig::of(repositories.into()).with_spare_worker("linux-2", "linux");
        if self.rebuilds {
            config.with_rebuilds()
        } else {
            config
        }
    }

    /// The builders of a repository.
    pub fn builders(label: &str) -> [String; 2] {
        PLATFORMS.map(|platform| format!("{label}-{platform}"))
    }
}

fn strikes(random: &mut Random) -> Vec<Strike> {
    let mut strikes: Vec<Strike> = Vec::new();
    for _ in 0..random.range(STRIKES.0, STRIKES.1) {
        let worker = WORKERS[random.index(WORKERS.len())];
        let (kind, lasts) = match random.below(20) {
            0..=2 => (StrikeKind::PushLost, 0),
            3 | 4 => (StrikeKind::StartsLost(random.range(1, 4)), 0),
            5 | 6 => (StrikeKind::ResultsLost(random.range(1, 3)), 0),
            7 => (StrikeKind::CommentLost, 0),
            8 => (StrikeKind::RequestsLost(random.range(1, 3)), 0),
            9 => (StrikeKind::AnswersLost(random.range(1, 2)), 0),
            10 | 11 => (StrikeKind::WorkerKilled(worker), random.range(4, 40)),
            12 | 13 => (StrikeKind::WorkerFrozen(worker), random.range(4, 60)),
            14 => (StrikeKind::MasterStopped, random.range(2, 12)),
            15 => (StrikeKind::MasterKilled, random.range(2, 12)),
            16 => (StrikeKind::MasterFrozen, random.range(3, 20)),
            17 => (StrikeKind::HomuKilled, random.range(1, 12)),
            18 => (StrikeKind::WatchdogKilled, random.range(1, 15)),
            _ => (StrikeKind::WatchdogFrozen, random.range(3, 25)),
        };
        // A push that is to be lost must come before the trouble ends.
        let room = if kind == StrikeKind::PushLost {
            60
        } else {
            lasts
        };
        let at = random.below(TROUBLE - room);
        let strike = Strike { at, lasts, kind };
        if !strikes.iter().any(|other| strike.meets(other)) {
            strikes.push(strike);
        }
    }
    strikes.sort_by_key(|strike| strike.at);
    strikes
}

impl Strike {
    /// Whether both are about one process at one time. Some seconds lie between two, because it takes
    /// some to start again.
    fn meets(&self, other: &Self) -> bool {
        const BETWEEN: u64 = 10;
        let (one, two) = (self.kind.actor(), other.kind.actor());
        one.is_some()
            && one == two
            && self.at < other.at + other.lasts + BETWEEN
            && other.at < self.at + self.lasts + BETWEEN
    }
}

impl StrikeKind {
    /// Whom it happens to, where it happens to a process.
    pub fn actor(self) -> Option<Actor> {
        match self {
            Self::PushLost
            | Self::StartsLost(_)
            | Self::ResultsLost(_)
            | Self::CommentLost
            | Self::RequestsLost(_)
            | Self::AnswersLost(_) => None,
            Self::WorkerKilled(name) | Self::WorkerFrozen(name) => Some(Actor::Worker(name)),
            Self::MasterStopped | Self::MasterKilled | Self::MasterFrozen => Some(Actor::Master),
            Self::HomuKilled => Some(Actor::Homu),
            Self::WatchdogKilled | Self::WatchdogFrozen => Some(Actor::Watchdog),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rebuilds = if self.rebuilds {
            "are made"
        } else {
            "are refused"
        };
        writeln!(f, "seed {}: rebuilds of one commit {rebuilds}", self.seed)?;
        for pull in &self.pulls {
            writeln!(
                f,
                "{:5} s  {}#{} is approved: {:?}, {} s for each step",
                pull.approved_at, pull.label, pull.number, pull.temper, pull.step_seconds
            )?;
        }
        for strike in &self.strikes {
            writeln!(
                f,
                "{:5} s  {:?} for {} s",
                strike.at, strike.kind, strike.lasts
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::mem::discriminant;

    use super::*;

    /// Every kind, with whatever it carries.
    const KINDS: [StrikeKind; 14] = [
        StrikeKind::PushLost,
        StrikeKind::StartsLost(1),
        StrikeKind::ResultsLost(1),
        StrikeKind::CommentLost,
        StrikeKind::RequestsLost(1),
        StrikeKind::AnswersLost(1),
        StrikeKind::WorkerKilled("mac"),
        StrikeKind::WorkerFrozen("mac"),
        StrikeKind::MasterStopped,
        StrikeKind::MasterKilled,
        StrikeKind::MasterFrozen,
        StrikeKind::HomuKilled,
        StrikeKind::WatchdogKilled,
        StrikeKind::WatchdogFrozen,
    ];

    fn kinds(days: impl IntoIterator<Item = u64>) -> Vec<StrikeKind> {
        let days = days.into_iter().map(Schedule::of);
        days.flat_map(|day| day.strikes)
            .map(|strike| strike.kind)
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_day() {
        for seed in 0..20 {
            let (one, other) = (Schedule::of(seed), Schedule::of(seed));
            assert_eq!(one.to_string(), other.to_string());
        }
        let days: BTreeSet<String> = (0..20).map(|seed| Schedule::of(seed).to_string()).collect();
        assert_eq!(days.len(), 20);
    }

    #[test]
    fn the_days_of_every_test_run_bring_every_kind_of_strike() {
        let seen = kinds(crate::SEEDS);
        for kind in KINDS {
            assert!(
                seen.iter()
                    .any(|it| discriminant(it) == discriminant(&kind)),
                "{kind:?} is not in the days {:?}",
                crate::SEEDS
            );
        }
    }

    #[test]
    fn a_process_is_struck_once_at_a_time_and_all_is_over_in_time() {
        for seed in 0..200 {
            let strikes = Schedule::of(seed).strikes;
            for (index, strike) in strikes.iter().enumerate() {
                assert!(strike.at + strike.lasts <= TROUBLE);
                let later = strikes[index + 1..].iter();
                assert!(
                    !later.into_iter().any(|other| strike.meets(other)),
                    "day {seed}"
                );
            }
        }
    }
}
