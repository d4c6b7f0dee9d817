//! Verdicts on what a bot waits for, and the facts that they rest on.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BuilderName, RunEnd, RunId, Sha, SourceName, WorkerName};

/// What is known of an expectation, a pending build or a repository, from best to worst.
///
/// The same value is the log field, the metric label, the word in the API and the cell on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The bot has the result.
    Reported,
    /// A run with a heartbeat in time, or a finished one whose report is not yet due.
    Alive,
    /// No run yet, before the start deadline; or a lost one whose successor is not yet due.
    Starting,
    /// Queued behind other work of a live worker.
    Queued,
    /// Queued, and no live unpaused worker can take it.
    Starved,
    /// A source that it needs is silent, stale, refuses us, answers in part, or witnesses disagree.
    Unknown,
    /// The provider finished it, the bot does not have it.
    Unreported,
    /// GitHub has closed the pull request, or has another head than the bot's.
    Outdated,
    /// Approved work of a repository does not start although nothing stands in its way.
    Wedged,
    /// Pending without a merge SHA where the bot stores one, or with every result, or the bot contradicts
    /// itself.
    Orphaned,
    /// The run's worker looks connected, and no heartbeat came before the deadline.
    Stalled,
    /// The run ended without a result or lost its worker, and no successor came.
    WorkerLost,
    /// The start deadline passed, the provider's history answers completely, and there is no run.
    NoShow,
}

impl Verdict {
    /// Every verdict, best first.
    pub const ALL: [Self; 13] = [
        Self::Reported,
        Self::Alive,
        Self::Starting,
        Self::Queued,
        Self::Starved,
        Self::Unknown,
        Self::Unreported,
        Self::Outdated,
        Self::Wedged,
        Self::Orphaned,
        Self::Stalled,
        Self::WorkerLost,
        Self::NoShow,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Alive => "alive",
            Self::Starting => "starting",
            Self::Queued => "queued",
            Self::Starved => "starved",
            Self::Unknown => "unknown",
            Self::Unreported => "unreported",
            Self::Outdated => "outdated",
            Self::Wedged => "wedged",
            Self::Orphaned => "orphaned",
            Self::Stalled => "stalled",
            Self::WorkerLost => "worker_lost",
            Self::NoShow => "no_show",
        }
    }

    /// Whether an expectation (or build) with it can never end by itself, so that a rerun may help.
    pub const fn dead(self) -> bool {
        match self {
            Self::Orphaned | Self::Stalled | Self::WorkerLost | Self::NoShow => true,
            Self::Reported
            | Self::Alive
            | Self::Starting
            | Self::Queued
            | Self::Starved
            | Self::Unknown
            | Self::Unreported
            | Self::Outdated
            | Self::Wedged => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The facts that a verdict rests on; shown wherever the verdict is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence(pub Vec<Fact>);

impl Evidence {
    /// Evidence of one fact.
    pub fn of(fact: Fact) -> Self {
        Self(vec![fact])
    }

    /// The same with one more fact.
    #[must_use]
    pub fn and(mut self, fact: Fact) -> Self {
        self.0.push(fact);
        self
    }

    /// One sentence for each fact.
    pub fn sentences(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().join("; "))
    }
}

/// One fact. Its `Display` is a clause for people, without a final stop.
#[allow(missing_docs, reason = "a variant's sentence names its fields")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A fact about one builder, among those of others.
    OfBuilder {
        builder: BuilderName,
        fact: Box<Fact>,
    },
    /// The bot has this result.
    BotHasResult { green: bool, url: String },
    /// The bot shows no sign of the start.
    BotHasNothing,
    /// The bot was told of a start.
    BotHasStart { url: String },
    /// A red row is left from before; its run does not count.
    RedRowFromBefore { url: String },
    /// A source failed to answer.
    SourceSilent {
        source: SourceName,
        detail: String,
        since: Duration,
    },
    /// A source was not asked yet.
    SourceNotSeen { source: SourceName },
    /// No provider in the configuration serves this builder.
    NoProvider { system: &'static str },
    /// No configured provider has this builder.
    NoSuchBuilder { builder: BuilderName },
    /// The commit under test is not known.
    MergeShaUnknown,
    /// The bot should store a merge SHA and has none.
    MergeShaMissing,
    /// The bot has every result, and waits all the same.
    WaitsForNothing,
    /// The provider's history was not asked or did not answer to its end.
    HistoryIncomplete { sha: Sha, detail: String },
    /// The history, to its end, has no run.
    NoRunInHistory { sha: Sha },
    /// No run was seen for this long.
    NoRunFor { waited: Duration },
    /// A run waits for a worker.
    RunQueued { run: RunId, waited: Duration },
    /// So many workers of so many could take it.
    Workers { able: usize, configured: usize },
    /// The worker is busy with another run.
    BehindRun { run: RunId },
    /// A run is under way.
    RunUnderWay {
        run: RunId,
        worker: Option<WorkerName>,
        detail: String,
    },
    /// The time since its last sign of progress.
    Heartbeat { ago: Duration },
    /// Its build is older than any build may be.
    OlderThanAny { age: Duration, total: Duration },
    /// It stays at the first contact with its worker.
    Pinging { waited: Duration },
    /// Its worker is not connected any more.
    WorkerGone { worker: WorkerName, since: Duration },
    /// A run is over.
    RunEnded {
        run: RunId,
        end: RunEnd,
        ago: Duration,
    },
    /// The replay was sent so often without effect.
    ToldWithoutEffect { times: u32 },
    /// Closed on GitHub.
    PullClosed,
    /// GitHub has another head.
    HeadMoved { bot: Sha, github: Sha },
    /// The bot's database and page say different things.
    WitnessesDisagree { database: String, page: String },
    /// Approved work waits.
    ApprovedWaits { pulls: usize, waited: Duration },
    /// Approved work waits while a build that may hold the bot's start slot has not started.
    WaitsForStart {
        pulls: usize,
        build: String,
        verdict: Verdict,
    },
    /// The bot was made to forget it, so that a rerun makes a new commit.
    ForgottenOnPurpose,
    /// Runs of before this generation do not count.
    RunsFromBefore { runs: usize },
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfBuilder { builder, fact } => write!(f, "{builder}: {fact}"),
            Self::BotHasResult { green: true, url } => write!(f, "the bot has it green ({url})"),
            Self::BotHasResult { green: false, url } => write!(f, "the bot has it red ({url})"),
            Self::BotHasNothing => f.write_str("the bot shows no sign of its start"),
            Self::BotHasStart { url } => write!(f, "the bot was told of its start ({url})"),
            Self::RedRowFromBefore { url } => {
                write!(f, "a red row is left from before ({url})")
            }
            Self::SourceSilent {
                source,
                detail,
                since,
            } => write!(f, "{source} is silent for {} ({detail})", time(*since)),
            Self::SourceNotSeen { source } => write!(f, "{source} was not seen yet"),
            Self::NoProvider { system } => write!(f, "no {system} provider is configured"),
            Self::NoSuchBuilder { builder } => {
                write!(f, "no configured provider has a builder {builder}")
            }
            Self::MergeShaUnknown => f.write_str("the commit under test is not known"),
            Self::MergeShaMissing => f.write_str("it is pending without a merge SHA"),
            Self::WaitsForNothing => f.write_str("it is pending, and the bot has every result"),
            Self::HistoryIncomplete { sha, detail } => write!(
                f,
                "the history of {} did not answer to its end ({detail})",
                sha.short()
            ),
            Self::NoRunInHistory { sha } => {
                write!(f, "the whole history has no run of {}", sha.short())
            }
            Self::NoRunFor { waited } => write!(f, "no run for {}", time(*waited)),
            Self::RunQueued { run, waited } => {
                write!(f, "run {run} is queued for {}", time(*waited))
            }
            Self::Workers { able, configured } => {
                write!(f, "{able} of {configured} workers are able")
            }
            Self::BehindRun { run } => write!(f, "its worker is busy with run {run}"),
            Self::RunUnderWay {
                run,
                worker,
                detail,
            } => {
                write!(f, "run {run} is under way")?;
                if let Some(worker) = worker {
                    write!(f, " on {worker}")?;
                }
                if detail.is_empty() {
                    Ok(())
                } else {
                    write!(f, " ({detail})")
                }
            }
            Self::Heartbeat { ago } => write!(f, "last heartbeat {} ago", time(*ago)),
            Self::OlderThanAny { age, total } => write!(
                f,
                "its build is {} old, and total = {}",
                time(*age),
                time(*total)
            ),
            Self::Pinging { waited } => {
                write!(f, "its worker does not answer for {}", time(*waited))
            }
            Self::WorkerGone { worker, since } => {
                write!(f, "worker {worker} went away {} ago", time(*since))
            }
            Self::RunEnded { run, end, ago } => {
                write!(f, "run {run} ended as {} {} ago", end.as_str(), time(*ago))
            }
            Self::ToldWithoutEffect { times } => {
                write!(f, "its result was replayed {times} times without effect")
            }
            Self::PullClosed => f.write_str("the pull request is closed on GitHub"),
            Self::HeadMoved { bot, github } => write!(
                f,
                "the bot tests head {}, GitHub has {}",
                bot.short(),
                github.short()
            ),
            Self::WitnessesDisagree { database, page } => write!(
                f,
                "the bot's database says \"{database}\", its page \"{page}\""
            ),
            Self::ApprovedWaits { pulls, waited } => write!(
                f,
                "{pulls} approved pull requests wait for {} and nothing is pending",
                time(*waited)
            ),
            Self::WaitsForStart {
                pulls,
                build,
                verdict,
            } => write!(
                f,
                "{pulls} approved pull requests wait for the start of {build}, which is {verdict}"
            ),
            Self::ForgottenOnPurpose => f.write_str(
                "the bot was made to forget its green result, so that a rerun makes a new commit",
            ),
            Self::RunsFromBefore { runs } => {
                write!(f, "{runs} runs of before this generation do not count")
            }
        }
    }
}

/// Whole seconds in words (`5m 3s`), enough for people.
fn time(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}
