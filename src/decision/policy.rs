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
    /// How long a build may take in all; people are told of one that is older, whatever its signs of
    /// life.
    pub total: Duration,
    /// From a request to its effect.
    pub effect: Duration,
    /// How long GitHub and the bot may differ about a pull request.
    pub outdated: Duration,
    /// How long approved work may wait while nothing is pending.
    pub wedged: Duration,
    /// How long a build may be pending without a merge SHA, or with every result, or the bot contradict
    /// itself.
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

    /// The values that something of these builders of a repository goes by; where it is of no builder,
    /// the repository's.
    pub fn of<'a>(
        &'a self,
        repo: &RepoName,
        builders: impl IntoIterator<Item = &'a BuilderName>,
    ) -> Vec<&'a T> {
        let builders = builders.into_iter();
        let values: Vec<&T> = builders.map(|it| self.builder(repo, it)).collect();
        if values.is_empty() {
            vec![self.repo(repo)]
        } else {
            values
        }
    }

    /// Every value with the scope that it is for, in words of the configuration.
    pub fn each(&self) -> impl Iterator<Item = (String, &T)> {
        std::iter::once((String::new(), &self.global))
            .chain(
                self.repos
                    .iter()
                    .map(|(repo, value)| (format!("repo.{repo}."), value)),
            )
            .chain(
                self.builders.iter().map(|((repo, builder), value)| {
                    (format!("repo.{repo}.builder.{builder}."), value)
                }),
            )
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

    /// How long a snapshot may be used: two ticks, so that one failed look does not blind.
    pub fn snapshot_life(&self) -> Duration {
        self.tick * 2
    }

    /// A tick that comes later than this after its turn was late: two ticks, and at least 5 s.
    pub fn lateness_max(&self) -> Duration {
        (self.tick * 2).max(Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The default policy with one change.
    fn changed(change: impl FnOnce(&mut Policy)) -> Findings {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.findings()
    }

    fn keys(unfit: &[Unfit]) -> Vec<&str> {
        unfit.iter().map(|unfit| unfit.key.as_str()).collect()
    }

    #[track_caller]
    fn refused(found: &Findings, key: &str) -> String {
        assert_eq!(keys(&found.errors), [key], "{found:?}");
        found.errors[0].message.clone()
    }

    #[test]
    fn the_defaults_fit_together_and_nothing_in_them_is_doubtful() {
        assert_eq!(Policy::default().findings(), Findings::default());
    }

    #[test]
    fn a_tick_stays_between_100_ms_and_5_minutes() {
        for tick in [0, 99, 300_001] {
            let tick = Duration::from_millis(tick);
            refused(&changed(|policy| policy.tick = tick), "loop.tick");
        }
        assert_eq!(
            changed(|policy| policy.tick = Duration::MAX).errors.len(),
            1
        );
    }

    #[test]
    fn a_tick_that_defaults_are_too_short_for_is_itself_to_blame() {
        let found = changed(|policy| policy.tick = seconds(60));
        let message = refused(&found, "loop.tick");
        assert!(message.contains("timeouts.pinging (1m)"), "{message}");
        assert!(message.contains("at least 2m"), "{message}");
    }

    #[test]
    fn confirmation_outlasts_the_life_of_a_snapshot() {
        let looks = |tick: u64, looks| {
            changed(|policy| {
                policy.tick = Duration::from_millis(tick);
                policy.builds.global.looks = looks;
            })
        };
        assert!(refused(&looks(10_000, 1), "safety.looks").contains("at least 2"));
        assert!(looks(10_000, 2).errors.is_empty());
        assert!(refused(&looks(500, 1), "safety.looks").contains("at least 2"));
        assert!(looks(500, 2).errors.is_empty());
    }

    #[test]
    fn a_deadline_is_not_shorter_than_a_snapshot_may_be_used() {
        type Change = fn(&mut Timeouts, Duration);
        let change: [(&str, Change); 5] = [
            ("timeouts.start", |t, time| t.start = time),
            ("timeouts.heartbeat", |t, time| t.heartbeat = time),
            ("timeouts.worker_lost", |t, time| t.worker_lost = time),
            ("timeouts.orphaned", |t, time| t.orphaned = time),
            ("timeouts.effect", |t, time| t.effect = time),
        ];
        for (key, change) in change {
            let found = changed(|policy| change(&mut policy.timeouts.global, seconds(19)));
            assert!(refused(&found, key).contains("at least 20s"), "{key}");
            let found = changed(|policy| change(&mut policy.timeouts.global, seconds(20)));
            assert!(found.errors.is_empty(), "{key}");
        }
    }

    #[test]
    fn zero_and_more_than_30_days_are_refused() {
        for time in [Duration::ZERO, seconds(30 * 24 * 3600 + 1)] {
            let found = changed(|policy| policy.timeouts.global.queue = time);
            refused(&found, "timeouts.queue");
            let found = changed(|policy| policy.zones.settle = time);
            refused(&found, "safety.settle");
            let found = changed(|policy| policy.builds.global.source_good_for = time);
            refused(&found, "safety.source_good_for");
        }
    }

    #[test]
    fn a_build_may_take_longer_than_it_may_be_silent() {
        let found = changed(|policy| policy.timeouts.global.total = seconds(25 * 60));
        refused(&found, "timeouts.total");
        let found = changed(|policy| policy.timeouts.global.heartbeat = seconds(6 * 3600));
        refused(&found, "timeouts.heartbeat");
    }

    #[test]
    fn counts_and_shares_out_of_their_ranges_are_refused() {
        type Change = fn(&mut Policy);
        let safety: [(&str, Change); 9] = [
            ("safety.looks", |p| p.builds.global.looks = 0),
            ("safety.looks", |p| p.builds.global.looks = 101),
            ("safety.cooldown", |p| {
                p.builds.global.cooldown = Policy::COOLDOWN_MAX + seconds(1);
            }),
            ("safety.reruns_per_pull", |p| {
                p.builds.global.reruns_per_pull = 11
            }),
            ("safety.outage_deaths", |p| p.zones.outage_deaths = 1),
            ("safety.reruns_per_zone_hour", |p| {
                p.zones.reruns_per_zone_hour = 0
            }),
            ("safety.outage_share", |p| p.zones.outage_share = 0.0),
            ("safety.outage_share", |p| p.zones.outage_share = 1.01),
            ("safety.outage_share", |p| p.zones.outage_share = f64::NAN),
        ];
        for (key, change) in safety {
            refused(&changed(change), key);
        }
        let found = changed(|policy| policy.builds.global.reruns_per_pull = 0);
        assert_eq!(found, Findings::default());
    }

    #[test]
    fn a_heartbeat_shorter_than_the_providers_own_is_doubtful_and_says_why() {
        let found = changed(|policy| policy.timeouts.global.heartbeat = seconds(6));
        assert_eq!(keys(&found.errors), ["timeouts.heartbeat"]);
        let found = changed(|policy| policy.timeouts.global.heartbeat = seconds(1199));
        assert_eq!(keys(&found.warnings), ["timeouts.heartbeat"]);
        assert!(found.warnings[0].message.contains("Buildbot"));
        let found = changed(|policy| policy.timeouts.global.heartbeat = seconds(1200));
        assert_eq!(found, Findings::default());
    }

    #[test]
    fn an_outage_window_shorter_than_its_deaths_are_spread_is_doubtful() {
        let found = changed(|policy| policy.zones.outage_window = seconds(299));
        assert_eq!(keys(&found.warnings), ["safety.outage_window"]);
        assert!(found.errors.is_empty());
    }

    #[test]
    fn times_for_tests_are_allowed_with_one_warning_each() {
        let found = changed(|policy| {
            policy.tick = Duration::from_millis(500);
            policy.timeouts.global = Timeouts {
                start: seconds(3),
                heartbeat: seconds(6),
                effect: seconds(5),
                ..Timeouts::default()
            };
            policy.builds.global = BuildSafety {
                looks: 4,
                source_good_for: seconds(2),
                cooldown: seconds(2),
                ..BuildSafety::default()
            };
            policy.zones.settle = seconds(2);
            policy.zones.storm_cooldown = seconds(5);
        });
        assert_eq!(found.errors, []);
        let mut warned = keys(&found.warnings);
        warned.sort_unstable();
        assert_eq!(
            warned,
            [
                "loop.tick",
                "safety.cooldown",
                "safety.settle",
                "safety.source_good_for",
                "safety.storm_cooldown",
                "timeouts.effect",
                "timeouts.heartbeat",
                "timeouts.start",
            ]
        );
        assert!(
            found
                .warnings
                .iter()
                .any(|unfit| unfit.message == "3s is short: meant for tests")
        );
    }

    #[test]
    fn what_a_scope_takes_over_is_told_of_once() {
        let repo = RepoName::new("servo");
        let found = changed(|policy| {
            policy.timeouts.global.start = seconds(30);
            let mut here = policy.timeouts.global.clone();
            here.heartbeat = seconds(7 * 3600);
            policy.timeouts.repos.insert(repo.clone(), here.clone());
            let key = (repo, BuilderName::new("linux"));
            policy.timeouts.builders.insert(key, here);
        });
        assert_eq!(keys(&found.warnings), ["timeouts.start"]);
        assert_eq!(keys(&found.errors), ["repo.servo.timeouts.heartbeat"]);
    }

    #[test]
    fn every_scope_is_checked() {
        let repo = RepoName::new("servo");
        let found = changed(|policy| {
            let key = (repo.clone(), BuilderName::new("linux"));
            let safety = BuildSafety {
                looks: 1,
                ..BuildSafety::default()
            };
            policy.builds.builders.insert(key, safety);
            let times = Timeouts {
                total: seconds(60),
                ..Timeouts::default()
            };
            policy.timeouts.repos.insert(repo, times);
        });
        let expected = [
            "repo.servo.timeouts.total",
            "repo.servo.builder.linux.safety.looks",
        ];
        assert_eq!(keys(&found.errors), expected);
    }

    #[test]
    fn a_checked_policy_is_one_without_errors() {
        assert!(Policy::default().checked().is_ok());
        let policy = Policy {
            tick: Duration::ZERO,
            ..Policy::default()
        };
        assert!(policy.checked().is_err());
    }
}
