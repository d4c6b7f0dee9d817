//! Every limit and duration of the core, and the relations between them, checked once.

mod findings;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{BuilderName, RepoName};

/// Whether the watchdog acts on its plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Judges, plans and reports; sends nothing.
    Observe,
    /// Sends what it plans.
    Act,
}

/// What to do about a run that is only silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSilence {
    /// Rerun it at its heartbeat deadline.
    Retry,
    /// Alert at its heartbeat deadline; rerun only once it is also older than any build may be.
    Alert,
}

/// When the next start, heartbeat or report is due. Each may differ by repository and builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From pending to the first run.
    pub start: Duration,
    /// From a run's start or end to the bot's knowledge of it.
    pub report: Duration,
    /// Between two signs of a run's progress.
    pub heartbeat: Duration,
    /// From the loss of a run to its successor.
    pub worker_lost: Duration,
    /// How long a run may be queued before people are told.
    pub queue: Duration,
    /// How long a build may take in all.
    pub total: Duration,
    /// From a request to its effect.
    pub effect: Duration,
    /// How long GitHub and the bot may differ about a pull request.
    pub outdated: Duration,
    /// How long approved work may wait while nothing is pending.
    pub wedged: Duration,
    /// How long a build may be pending without a merge SHA, or the bot contradict itself.
    pub orphaned: Duration,
    /// How long a run may wait for its worker's first answer.
    pub pinging: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            start: Duration::from_secs(5 * MINUTE),
            report: Duration::from_secs(2 * MINUTE),
            heartbeat: Duration::from_secs(25 * MINUTE),
            worker_lost: Duration::from_secs(3 * MINUTE),
            queue: Duration::from_secs(10 * MINUTE),
            total: Duration::from_secs(6 * 60 * MINUTE),
            effect: Duration::from_secs(2 * MINUTE),
            outdated: Duration::from_secs(2 * MINUTE),
            wedged: Duration::from_secs(5 * MINUTE),
            orphaned: Duration::from_secs(5 * MINUTE),
            pinging: Duration::from_secs(MINUTE),
        }
    }
}

/// The limits on acting that may differ by repository and builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildSafety {
    /// Looks in a row that must find a death before it counts.
    pub looks: u32,
    /// How long a provider and GitHub must have answered well before a rerun.
    pub source_good_for: Duration,
    /// The first pause after a rerun; the n-th is `cooldown × n(n+1)/2`, at most [`Policy::COOLDOWN_MAX`].
    pub cooldown: Duration,
    /// Reruns of one head of one pull request in [`Policy::PULL_WINDOW`], people's included.
    pub reruns_per_pull: u32,
    /// What to do about a run that is only silent.
    pub on_silence: OnSilence,
}

impl Default for BuildSafety {
    fn default() -> Self {
        Self {
            looks: 3,
            source_good_for: Duration::from_secs(5 * 60),
            cooldown: Duration::from_secs(5 * 60),
            reruns_per_pull: 2,
            on_silence: OnSilence::Retry,
        }
    }
}

/// The limits on acting that belong to the process or to a zone.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneSafety {
    /// How long we must have looked well since start, resume or a late tick.
    pub settle: Duration,
    /// How long after an outage of a zone its reruns wait.
    pub storm_cooldown: Duration,
    /// Builds with a new death in `outage_window` that make an outage.
    pub outage_deaths: u32,
    /// See `outage_deaths`.
    pub outage_window: Duration,
    /// The share of a zone's workers, above two, whose loss makes an outage; 0 to 1.
    pub outage_share: f64,
    /// Reruns in one zone in [`Policy::ZONE_WINDOW`].
    pub reruns_per_zone_hour: u32,
}

impl Default for ZoneSafety {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(60),
            storm_cooldown: Duration::from_secs(10 * 60),
            outage_deaths: 5,
            outage_window: Duration::from_secs(10 * 60),
            outage_share: 0.55,
            reruns_per_zone_hour: 3,
        }
    }
}

/// A value for everything, with others for single repositories and single builders of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scoped<T> {
    /// Where nothing closer is given.
    pub global: T,
    /// For one repository.
    pub repos: BTreeMap<RepoName, T>,
    /// For one builder of one repository.
    pub builders: BTreeMap<(RepoName, BuilderName), T>,
}

impl<T> Scoped<T> {
    /// The same value everywhere.
    pub fn same(global: T) -> Self {
        Self {
            global,
            repos: BTreeMap::new(),
            builders: BTreeMap::new(),
        }
    }

    /// The value for a builder of a repository.
    pub fn builder(&self, repo: &RepoName, builder: &BuilderName) -> &T {
        self.builders
            .get(&(repo.clone(), builder.clone()))
            .unwrap_or_else(|| self.repo(repo))
    }

    /// The value for a repository.
    pub fn repo(&self, repo: &RepoName) -> &T {
        self.repos.get(repo).unwrap_or(&self.global)
    }

    /// Every value with the scope that it is for, in words of the configuration.
    pub fn each(&self) -> impl Iterator<Item = (String, &T)> {
        std::iter::once((String::new(), &self.global))
            .chain(self.repos.iter().map(|(repo, value)| (format!("repo.{repo}."), value)))
            .chain(self.builders.iter().map(|((repo, builder), value)| {
                (format!("repo.{repo}.builder.{builder}."), value)
            }))
    }
}

impl<T: Default> Default for Scoped<T> {
    fn default() -> Self {
        Self::same(T::default())
    }
}

/// All limits and durations. Made by [`Policy::checked`], so that holding one means that they fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether to act.
    pub mode: Mode,
    /// The time between two looks.
    pub tick: Duration,
    /// When things are due.
    pub timeouts: Scoped<Timeouts>,
    /// The limits of single builds.
    pub builds: Scoped<BuildSafety>,
    /// The limits of zones and of the process.
    pub zones: ZoneSafety,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            tick: Duration::from_secs(10),
            timeouts: Scoped::default(),
            builds: Scoped::default(),
            zones: ZoneSafety::default(),
        }
    }
}

/// A relation between settings that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The key to change, as in the configuration: `safety.looks`, `repo.servo.timeouts.start`.
    pub key: String,
    /// What is wrong with it and what would be right, as one sentence.
    pub message: String,
}

/// What [`Policy::checked`] found: settings that are refused, and settings that are doubtful.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Refused: the policy must not be used.
    pub errors: Vec<Unfit>,
    /// Allowed, and shown once.
    pub warnings: Vec<Unfit>,
}

impl Policy {
    /// The longest pause between two reruns of one pull request.
    pub const COOLDOWN_MAX: Duration = Duration::from_secs(3 * 60 * 60);
    /// The window of `reruns_per_pull`.
    pub const PULL_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
    /// The window of `reruns_per_zone_hour`.
    pub const ZONE_WINDOW: Duration = Duration::from_secs(60 * 60);
    /// How often one tell is sent before it counts as told without effect.
    pub const TELLS_MAX: u32 = 3;
    /// From the last look before a request to the request; later it is dropped.
    pub const ACT_DEADLINE: Duration = Duration::from_secs(5);
    /// How long a request may wait for its answer.
    pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
    /// What is added to the bot's own timeout before a silent run counts as older than any build may be.
    pub const OWN_TIMEOUT_SLACK: Duration = Duration::from_secs(10 * 60);
    /// Buildbot 4 ends a step without output after 1200 s (`ShellCommand`'s `timeout`).
    const PROVIDER_SILENCE: Duration = Duration::from_secs(1200);

    /// How long a snapshot may be used: two ticks, and at least 2 s.
    pub fn snapshot_life(&self) -> Duration {
        (self.tick * 2).max(Duration::from_secs(2))
    }

    /// A tick that comes later than this after its turn was late: two ticks, and at least 5 s.
    pub fn lateness_max(&self) -> Duration {
        (self.tick * 2).max(Duration::from_secs(5))
    }
}
