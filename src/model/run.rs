//! What a provider says: runs, the workers that could take them, and how far back its answer reaches.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{BuilderName, RunId, Sha, WorkerName};

/// What a bot waits for of one commit; a provider is asked these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The commit under test.
    pub sha: Sha,
    /// The builders that must report on it.
    pub builders: BTreeSet<BuilderName>,
}

/// Everything a provider says to a list of questions, complete: what it lacks does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderSnapshot {
    /// The workers of each builder that the provider has.
    pub pools: BTreeMap<BuilderName, Pool>,
    /// The runs of the SHAs in question. Several of one builder are in the order of submission.
    pub runs: Vec<Run>,
    /// How far the answer reaches back for a SHA. A SHA that is not in it was answered from open
    /// work alone; then the absence of a run says nothing.
    pub history: BTreeMap<Sha, History>,
    /// The provider's version, where it tells.
    pub version: Option<String>,
}

/// How far back a provider's answer on a SHA reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// To its end: every run that the provider ever had of this SHA is in the snapshot.
    Complete,
    /// Not to its end, for this reason.
    Partial(String),
}

/// A provider's execution that serves an expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its stable name at the provider.
    pub id: RunId,
    /// The builder it is for.
    pub builder: BuilderName,
    /// The commit it tests.
    pub sha: Sha,
    /// Where it stands.
    pub state: RunState,
    /// The provider's number for its latest try (Buildbot: the build's number); `None` before one began.
    pub number: Option<u64>,
    /// The page of its latest try, for people.
    pub url: Option<String>,
    /// The worker that has it, or had it last.
    pub worker: Option<WorkerName>,
    /// An opaque token that changes whenever the run makes progress.
    pub progress: String,
    /// What the provider says of it in words (a step, a state), for people; at most 200 characters.
    pub detail: String,
    /// Where it is queued: the run that its worker is busy with.
    pub behind: Option<RunId>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Asked for, and no worker has it.
    Queued,
    /// A worker was chosen and does not answer yet (Buildbot: `pinging worker`).
    Preparing,
    /// A worker executes it.
    Running,
    /// It is over.
    Ended(RunEnd),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// Green.
    Success,
    /// Green, with warnings.
    Warnings,
    /// Red.
    Failure,
    /// Not executed.
    Skipped,
    /// The provider failed.
    Exception,
    /// To be tried again by the provider, and no successor is there yet.
    Retry,
    /// Stopped by somebody.
    Cancelled,
}

impl RunEnd {
    /// Green or red where it is a result that the bot must hear, else `None`.
    pub const fn green(self) -> Option<bool> {
        match self {
            Self::Success | Self::Warnings => Some(true),
            Self::Failure => Some(false),
            Self::Skipped | Self::Exception | Self::Retry | Self::Cancelled => None,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warnings => "warnings",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
            Self::Exception => "exception",
            Self::Retry => "retry",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A run's result in neutral form; the bot's adapter turns it into the message that was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// Green or red.
    pub green: bool,
    /// How it ended.
    pub end: RunEnd,
    /// The provider's number for it.
    pub number: Option<u64>,
    /// Its page.
    pub url: Option<String>,
}

/// The workers that could execute one builder's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Every worker that is configured for the builder.
    pub workers: BTreeMap<WorkerName, Worker>,
}

/// A worker, as its provider sees it. "Connected" is no proof of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The provider holds a connection to it.
    pub connected: bool,
    /// An operator paused it.
    pub paused: bool,
    /// It is shutting down, and takes nothing new.
    pub graceful: bool,
}

impl Worker {
    /// Whether it could take a run now, as far as the provider knows.
    pub const fn able(self) -> bool {
        self.connected && !self.paused && !self.graceful
    }
}
