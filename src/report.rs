//! What one tick found and did; metrics, the page and the API are views of it.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::decision::policy::Mode;
use crate::model::{Closing, Gate, ProbeFailure, Quota, Remedy, StepKind, StopKind, Verdict};

/// A wall-clock time, for people; written as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub SystemTime);

impl Stamp {
    /// Seconds since the Unix epoch, for metrics.
    pub fn unix(self) -> f64 {
        self.0
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64())
    }

    /// The time in words as it is seen at `now`: `2m 5s ago`, `in 30s`, `now`.
    pub fn seen_from(self, now: &Self) -> String {
        let words = |span: Duration| {
            humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
        };
        match now.0.duration_since(self.0) {
            Ok(past) if past.as_secs() == 0 => "now".to_owned(),
            Ok(past) => format!("{} ago", words(past)),
            Err(ahead) if ahead.duration().as_secs() == 0 => "now".to_owned(),
            Err(ahead) => format!("in {}", words(ahead.duration())),
        }
    }
}

impl std::str::FromStr for Stamp {
    type Err = jiff::Error;

    /// Reads what [`Display`](std::fmt::Display) wrote.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Self(time.into()))
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::try_from(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => f.write_str("out of range"),
        }
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything that one tick found and did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// Whether plans are acted on.
    pub mode: Mode,
    /// When the tick ended.
    pub at: Stamp,
    /// When the process started.
    pub started: Stamp,
    /// Counts from 1; 0 before the first tick has ended.
    pub tick: u64,
    /// How long the tick took, seconds.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// Why nothing is acted on yet, where we have not looked well for long enough.
    pub not_settled: Option<String>,
    /// Every bot, provider and GitHub.
    pub sources: Vec<SourceReport>,
    /// Every pending build.
    pub builds: Vec<BuildReport>,
    /// Every repository's queue of approved work.
    pub queues: Vec<QueueReport>,
    /// Every zone.
    pub zones: Vec<ZoneReport>,
    /// The latest attempts, newest first; at most [`Report::ATTEMPTS_MAX`].
    pub attempts: Vec<AttemptReport>,
    /// What is left alone now, by an order or by the configuration.
    pub stops: Vec<StopReport>,
    /// The journal.
    pub journal: JournalReport,
    /// What the operator should know of the set-up, one sentence each.
    pub warnings: Vec<String>,
    /// What happened in this tick, for counters; not part of the API.
    #[serde(skip)]
    pub events: Vec<Event>,
}

impl Report {
    /// The most attempts that a report carries.
    pub const ATTEMPTS_MAX: usize = 200;

    /// The report before the first tick: nothing was looked at yet.
    pub fn empty(mode: Mode, now: SystemTime) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            mode,
            at: Stamp(now),
            started: Stamp(now),
            tick: 0,
            took: Duration::ZERO,
            not_settled: Some("the first look is under way".to_owned()),
            sources: Vec::new(),
            builds: Vec::new(),
            queues: Vec::new(),
            zones: Vec::new(),
            attempts: Vec::new(),
            stops: Vec::new(),
            journal: JournalReport::default(),
            warnings: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceRole {
    /// A merge bot.
    Bot,
    /// A CI system.
    Provider,
    /// The GitHub behind a bot.
    Github,
}

impl SourceRole {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Provider => "provider",
            Self::Github => "github",
        }
    }
}

/// A source and how it answered.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// Its name.
    pub source: String,
    /// What it is.
    pub role: SourceRole,
    /// Its kind: `homu`, `buildbot`, `github`.
    pub kind: &'static str,
    /// Whether its last look was good; `None` before the first.
    pub up: Option<bool>,
    /// When a look was last good.
    pub last_success: Option<Stamp>,
    /// What the last look failed with, where it failed.
    pub error: Option<String>,
    /// The kind of that failure.
    pub failure: Option<ProbeFailure>,
    /// Its API's rate limit, where it tells.
    pub quota: Option<Quota>,
    /// Since when nothing at all has come back from it.
    pub silent_since: Option<Stamp>,
    /// The hold on a restart of it, where it is a bot whose restart is due.
    pub hold: Option<HoldReport>,
}

/// A pending build.
#[derive(Clone, Debug, Serialize)]
pub struct BuildReport {
    /// Stable over restarts: `bot:repo:pull:kind:generation`.
    pub id: String,
    /// The bot that waits.
    pub bot: String,
    /// The repository's label in the bot.
    pub repo: String,
    /// The pull request's number.
    pub pull: u64,
    /// Whether it only tries.
    #[serde(rename = "try")]
    pub is_try: bool,
    /// The pull request's title.
    pub title: String,
    /// The pull request's page.
    pub url: String,
    /// The commit under test, where it is known.
    pub merge_sha: Option<String>,
    /// The pull request's head under test, where it is known.
    pub head_sha: Option<String>,
    /// Counts from 1.
    pub generation: u32,
    /// When this generation was first seen.
    pub first_seen: Stamp,
    /// The worst verdict of it.
    pub verdict: Verdict,
    /// The facts about the build as a whole, one clause each.
    pub evidence: Vec<String>,
    /// Whether it needs somebody: dead, unreported, or unknown, starved or queued for too long.
    pub stuck: bool,
    /// The first hold on it.
    pub hold: Option<HoldReport>,
    /// All holds on it.
    pub holds: Vec<HoldReport>,
    /// What the bot waits for in it.
    pub expectations: Vec<ExpectationReport>,
    /// What was done about it, oldest first.
    pub attempts: Vec<AttemptReport>,
}

/// One builder or context that the bot waits for.
#[derive(Clone, Debug, Serialize)]
pub struct ExpectationReport {
    /// The builder or context.
    pub builder: String,
    /// The provider that must report it, where one is configured.
    pub provider: Option<String>,
    /// What is known of it.
    pub verdict: Verdict,
    /// Looks in a row that found it dead.
    pub looks: u32,
    /// Whether it was found dead often enough to count.
    pub confirmed: bool,
    /// Whether it needs somebody.
    pub stuck: bool,
    /// The facts, one clause each.
    pub evidence: Vec<String>,
    /// When the next start, heartbeat or report is due.
    pub deadline: Option<Stamp>,
    /// The run that was judged.
    pub run: Option<String>,
    /// Its page.
    pub url: Option<String>,
    /// When its last heartbeat was seen.
    pub heartbeat: Option<Stamp>,
}

/// A remedy that is held, and why.
#[derive(Clone, Debug, Serialize)]
pub struct HoldReport {
    /// What it is for.
    pub target: String,
    /// The remedy that would be used.
    pub remedy: Remedy,
    /// The first gate that failed.
    pub gate: Gate,
    /// Why, as a sentence.
    pub reason: String,
    /// When the gate opens by itself, where that is known.
    pub until: Option<Stamp>,
    /// What would be sent, in order.
    pub plan: Vec<StepKind>,
}

/// A repository's approved work.
#[derive(Clone, Debug, Serialize)]
pub struct QueueReport {
    /// The bot.
    pub bot: String,
    /// The repository's label in the bot.
    pub repo: String,
    /// The builders that the bot is configured to wait for in it.
    pub builders: Vec<String>,
    /// Approved pull requests that are not pending.
    pub approved: usize,
    /// Pending builds.
    pub pending: usize,
    /// `wedged` or `outdated` where that was found, else `alive`.
    pub verdict: Verdict,
    /// The facts, one clause each.
    pub evidence: Vec<String>,
    /// The hold on it.
    pub hold: Option<HoldReport>,
}

/// The state of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneState {
    /// Its workers are there.
    Good,
    /// Reruns wait for a while after an outage.
    Cooldown,
    /// No reruns.
    Outage,
}

impl ZoneState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Good, Self::Cooldown, Self::Outage];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Cooldown => "cooldown",
            Self::Outage => "outage",
        }
    }
}

/// One provider's pool of workers for a builder.
#[derive(Clone, Debug, Serialize)]
pub struct ZoneReport {
    /// The provider.
    pub provider: String,
    /// The builder.
    pub builder: String,
    /// Its state.
    pub state: ZoneState,
    /// Why, where it is not good.
    pub reason: Option<String>,
    /// Workers that could take a run.
    pub able: usize,
    /// Workers that are configured.
    pub configured: usize,
}

/// One attempt.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptReport {
    /// Stable over restarts.
    pub id: String,
    /// The build that it was for, where it was for one.
    pub build: Option<String>,
    /// The bot.
    pub bot: String,
    /// The repository's label in the bot.
    pub repo: String,
    /// The pull request, where it was for one.
    pub pull: Option<u64>,
    /// The remedy.
    pub remedy: Remedy,
    /// The verdict that asked for it.
    pub verdict: Verdict,
    /// The evidence that it rested on.
    pub evidence: Vec<String>,
    /// When its first intent was written.
    pub at: Stamp,
    /// Its requests in order.
    pub steps: Vec<StepReport>,
    /// Who asked; `None` is the watchdog itself.
    pub by: Option<String>,
}

/// One request of an attempt.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The kind of request.
    pub step: StepKind,
    /// When its intent was written.
    pub at: Stamp,
    /// What its sending came to: `accepted`, `refused`, `not_sent`, `unanswered`; `None`: not known.
    pub outcome: Option<&'static str>,
    /// That in words.
    pub detail: Option<String>,
    /// How it ended; `None`: its effect is awaited.
    pub closing: Option<Closing>,
    /// When it ended.
    pub closed_at: Option<Stamp>,
}

/// Something that is left alone.
#[derive(Clone, Debug, Serialize)]
pub struct StopReport {
    /// Which way.
    pub kind: StopKind,
    /// What, in words: `everything`, `servo`, `servo#7`, `servo/linux`.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// When it was ordered; `None` where the configuration says it.
    pub since: Option<Stamp>,
    /// When it ends by itself, where it does.
    pub until: Option<Stamp>,
}

/// The journal's health.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JournalReport {
    /// Whether its last write succeeded; while it is false nothing is acted on.
    pub writable: bool,
    /// What the last write failed with.
    pub error: Option<String>,
    /// Records kept.
    pub records: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// Intents that are not settled.
    pub open_intents: usize,
}

/// Something that happened in a tick, for counters and logs.
#[allow(missing_docs, reason = "a variant's sentence names its fields")]
#[derive(Clone, Debug)]
pub enum Event {
    /// A source was looked at.
    Probed {
        source: String,
        role: SourceRole,
        kind: &'static str,
        took: Duration,
        failure: Option<ProbeFailure>,
    },
    /// A tick came late.
    LateTick { by: Duration },
    /// An expectation's, build's or queue's death (or loss) was confirmed for the first time.
    Detected {
        bot: String,
        repo: String,
        verdict: Verdict,
        /// From the last sign of life to this detection.
        after: Duration,
    },
    /// A remedy is newly held, or held by another gate than before.
    Held {
        bot: String,
        repo: String,
        remedy: Remedy,
        gate: Gate,
    },
    /// An attempt began.
    Attempted {
        bot: String,
        repo: String,
        remedy: Remedy,
    },
    /// A request was sent, or not.
    Sent {
        bot: String,
        step: StepKind,
        outcome: &'static str,
    },
    /// An intent was settled.
    Settled {
        bot: String,
        remedy: Remedy,
        step: StepKind,
        closing: Closing,
        /// From the intent to its effect.
        after: Duration,
    },
    /// A life sign came after a death was confirmed.
    FalseAlarm { bot: String, repo: String },
    /// A write to the journal failed.
    JournalFailed,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Stamp {
        Stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn a_time_is_told_as_it_is_seen_from_another() {
        for (time, seen) in [(100, "now"), (35, "1m 5s ago"), (130, "in 30s")] {
            assert_eq!(at(time).seen_from(&at(100)), seen);
        }
    }

    #[test]
    fn a_time_is_read_back_as_it_was_written() {
        assert_eq!(at(100).to_string().parse::<Stamp>().unwrap(), at(100));
        assert!("yesterday".parse::<Stamp>().is_err());
    }
}
