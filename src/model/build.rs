//! What a bot waits for: pending builds, their expectations, and the approved pull requests behind them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BotName, BuilderName, ProbeError, RepoName, Sha};

/// Whether a build would be merged, or only tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildKind {
    /// Merged when green; blocks its repository's queue while pending.
    Auto,
    /// Tried only; runs beside an auto build.
    Try,
}

impl BuildKind {
    /// `auto` or `try`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Try => "try",
        }
    }
}

/// The place in a bot that a pending build occupies; merge SHAs and generations come and go in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuildKey {
    /// The bot that waits.
    pub bot: BotName,
    /// The repository's label in the bot.
    pub repo: RepoName,
    /// The pull request's number.
    pub pull: u64,
    /// Auto or try.
    pub kind: BuildKind,
}

impl fmt::Display for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.bot, self.repo, self.pull)?;
        match self.kind {
            BuildKind::Auto => Ok(()),
            BuildKind::Try => f.write_str(" (try)"),
        }
    }
}

/// One pending build: a key and the generation of it.
///
/// A rerun that was seen to take effect opens a new generation, also where the merge SHA stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuildId {
    /// Which place in which bot.
    pub key: BuildKey,
    /// Counts from 1.
    pub generation: u32,
}

impl fmt::Display for BuildId {
    /// The form used in the API and the journal: `bot:repo:pull:kind:generation`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BuildKey {
            bot,
            repo,
            pull,
            kind,
        } = &self.key;
        write!(
            f,
            "{bot}:{repo}:{pull}:{}:{}",
            kind.as_str(),
            self.generation
        )
    }
}

/// Everything a bot says of itself, complete: what it lacks does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotSnapshot {
    /// One entry for each repository that the bot serves.
    pub repos: BTreeMap<RepoName, RepoSnapshot>,
    /// How the GitHub behind the bot answered while this snapshot was taken.
    pub github: GithubState,
    /// What the operator should know of the bot's set-up, one sentence each; bounded by the adapter.
    pub warnings: Vec<String>,
}

/// One repository as its bot sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoSnapshot {
    /// The builds that the bot waits for.
    pub pending: Vec<PendingBuild>,
    /// Approved pull requests that are not pending, in the bot's order.
    pub approved: Vec<ApprovedPull>,
    /// Only pull requests of at least this priority start; `None`: the tree is open, or the bot has no such notion.
    pub tree_closed: Option<i64>,
    /// SHAs that could still hold a start slot of the bot although no pending build names them:
    /// merge SHAs left in its database, heads of its auto and try branches. Bounded by the adapter.
    pub slot_suspects: Vec<Sha>,
}

/// A build that the bot waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingBuild {
    /// The pull request's number.
    pub pull: u64,
    /// Auto or try.
    pub kind: BuildKind,
    /// The commit that is tested.
    pub merge_sha: MergeSha,
    /// The head of the pull request that the merge SHA was made from; `None` where no source tells.
    pub head_sha: Option<Sha>,
    /// Whether the bot's witnesses (database and page) agree that it is pending.
    pub witnesses: Witnesses,
    /// The pull request on GitHub, now.
    pub github: PullOnGithub,
    /// What the bot waits for in it.
    pub expectations: Vec<Expectation>,
    /// Its title, for people; at most 200 characters.
    pub title: String,
    /// The pull request's page, for people.
    pub url: String,
}

/// The commit under test, as far as anyone knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeSha {
    /// Stored by the bot, or derived from GitHub without doubt.
    Known(Sha),
    /// This bot does not store it for this kind of build, and no other source tells it now.
    NotStored,
    /// This bot stores it, but there is none: no result can ever end the build.
    Missing,
}

impl MergeSha {
    /// The SHA where it is known.
    pub fn known(&self) -> Option<&Sha> {
        match self {
            Self::Known(sha) => Some(sha),
            Self::NotStored | Self::Missing => None,
        }
    }
}

/// Whether the bot's own two witnesses say the same of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witnesses {
    /// They agree, or the bot has only one.
    Agree,
    /// The database says pending, the page (the bot's memory) says something else.
    DatabaseOnly {
        /// The page's word, empty where it lists no such pull request.
        page: String,
    },
    /// The page says pending, the database something else.
    PageOnly {
        /// The database's word, empty where it has no such row.
        database: String,
    },
}

/// A pull request's state on GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullOnGithub {
    /// GitHub was not asked, or did not answer.
    Unknown,
    /// Open, with this head.
    Open {
        /// The head's SHA.
        head: Sha,
    },
    /// Closed or merged.
    Closed,
}

/// How the GitHub behind a bot answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GithubState {
    /// No token: GitHub is not asked.
    NotConfigured,
    /// All its answers were good.
    Good(Option<Quota>),
    /// At least one was not.
    Failed(ProbeError),
}

/// What a bot that is silent and the GitHub behind it say to one cheap request each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Whether the bot answers anything; a refusal is an answer, too.
    pub bot: Result<(), ProbeError>,
    /// How the GitHub behind it answers.
    pub github: GithubState,
}

impl Knock {
    /// Whether anything at all came back from the bot.
    pub fn is_answered(&self) -> bool {
        match &self.bot {
            Ok(()) => true,
            Err(error) => !error.failure.is_no_answer(),
        }
    }
}

/// An API's primary rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Requests allowed in the window.
    pub limit: u64,
    /// Requests left in it.
    pub remaining: u64,
    /// Unix time at which the window ends, seconds.
    pub reset: u64,
}

/// One builder or context that the bot waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The builder or context.
    pub builder: BuilderName,
    /// The kind of CI system that must report it.
    pub system: CiSystem,
    /// What the bot was told of it in this merge SHA.
    pub told: Told,
}

/// The kinds of CI system that bots wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CiSystem {
    /// A Buildbot master.
    Buildbot,
    /// Travis CI.
    Travis,
    /// A GitHub commit status.
    Status,
    /// A GitHub check run.
    Check,
}

impl CiSystem {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buildbot => "buildbot",
            Self::Travis => "travis",
            Self::Status => "status",
            Self::Check => "check",
        }
    }
}

/// What the bot was told of an expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: the bot has no row.
    Nothing,
    /// A start.
    Started {
        /// The run's page, as the bot recorded it.
        url: String,
    },
    /// A green result.
    Green {
        /// The run's page.
        url: String,
    },
    /// A red result. In a pending build it is left from before and does not count.
    Red {
        /// The page of the run that was red.
        url: String,
    },
}

/// An approved pull request that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovedPull {
    /// Its number.
    pub pull: u64,
    /// The head that the bot holds approved; `None` where no source tells.
    pub head_sha: Option<Sha>,
    /// The pull request on GitHub, now.
    pub github: PullOnGithub,
    /// Whether the bot thinks that it merges without conflict; `None`: it does not know yet.
    pub mergeable: Option<bool>,
    /// The bot's priority for it.
    pub priority: i64,
    /// Its title, for people; at most 200 characters.
    pub title: String,
    /// The pull request's page, for people.
    pub url: String,
}
