//! Repairs: remedies, the steps that they are sent in, and the effects that prove them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BotName, BuildId, BuildKey, BuildKind, BuilderName, CiSystem, RepoName, RunReport, Sha,
};

/// A repair. All but [`Remedy::Rerun`], [`Remedy::Reset`] and [`Remedy::Restart`] are tells: they give
/// the bot a message that it lost and start nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Give the bot a result that it lost.
    ReplayResult,
    /// Give the bot the start that it lost, so that the next build can start.
    ReleaseSlot,
    /// Tell the bot that the pull request was closed or has a new head.
    ReplayPull,
    /// Get a queue going that has work and does not start it.
    Unwedge,
    /// Make the bot build again.
    Rerun,
    /// Put a pending build back to approved, with nothing of it kept: the queue decides when it is
    /// built again. Only people ask for it.
    Reset,
    /// Restart a bot that answers nothing, by the operator's own command.
    Restart,
}

impl Remedy {
    /// Every remedy.
    pub const ALL: [Self; 7] = [
        Self::ReplayResult,
        Self::ReleaseSlot,
        Self::ReplayPull,
        Self::Unwedge,
        Self::Rerun,
        Self::Reset,
        Self::Restart,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplayResult => "replay_result",
            Self::ReleaseSlot => "release_slot",
            Self::ReplayPull => "replay_pull",
            Self::Unwedge => "unwedge",
            Self::Rerun => "rerun",
            Self::Reset => "reset",
            Self::Restart => "restart",
        }
    }

    /// Whether it makes the bot build again.
    pub const fn is_rerun(self) -> bool {
        match self {
            Self::Rerun | Self::Reset => true,
            Self::ReplayResult
            | Self::ReleaseSlot
            | Self::ReplayPull
            | Self::Unwedge
            | Self::Restart => false,
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a remedy is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One expectation of a pending build.
    Expectation {
        /// The build.
        build: BuildId,
        /// The builder.
        builder: BuilderName,
    },
    /// A whole pending build.
    Build(BuildId),
    /// An approved pull request that is not pending.
    Pull {
        /// The bot.
        bot: BotName,
        /// The repository's label.
        repo: RepoName,
        /// Its number.
        pull: u64,
    },
    /// A repository's queue.
    Queue {
        /// The bot.
        bot: BotName,
        /// The repository's label.
        repo: RepoName,
    },
    /// A bot as a whole: its process, and its start slot, which all of its repositories share.
    Bot(BotName),
}

impl Target {
    /// The bot that a remedy for this target acts on.
    pub fn bot(&self) -> &BotName {
        match self {
            Self::Expectation { build, .. } | Self::Build(build) => &build.key.bot,
            Self::Pull { bot, .. } | Self::Queue { bot, .. } | Self::Bot(bot) => bot,
        }
    }

    /// The repository that it belongs to, if it belongs to one.
    pub fn repo(&self) -> Option<&RepoName> {
        match self {
            Self::Expectation { build, .. } | Self::Build(build) => Some(&build.key.repo),
            Self::Pull { repo, .. } | Self::Queue { repo, .. } => Some(repo),
            Self::Bot(_) => None,
        }
    }

    /// The pull request that it belongs to, if it is about one.
    pub fn pull(&self) -> Option<u64> {
        match self {
            Self::Expectation { build, .. } | Self::Build(build) => Some(build.key.pull),
            Self::Pull { pull, .. } => Some(*pull),
            Self::Queue { .. } | Self::Bot(_) => None,
        }
    }

    /// The pending build that it belongs to, if it is about one.
    pub fn build(&self) -> Option<&BuildId> {
        match self {
            Self::Expectation { build, .. } | Self::Build(build) => Some(build),
            Self::Pull { .. } | Self::Queue { .. } | Self::Bot(_) => None,
        }
    }

    /// Whether a build that was just seen pending shows that what this is for went on: a queue, an
    /// approved pull request, or a bot. A build goes on by its own generations.
    pub fn moved_on(&self, seen: &BuildKey) -> bool {
        match self {
            Self::Queue { bot, repo } => {
                (bot, repo, BuildKind::Auto) == (&seen.bot, &seen.repo, seen.kind)
            }
            Self::Pull { bot, repo, pull } => {
                (bot, repo, *pull) == (&seen.bot, &seen.repo, seen.pull)
            }
            Self::Bot(bot) => *bot == seen.bot,
            Self::Expectation { .. } | Self::Build(_) => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expectation { build, builder } => write!(f, "{build}/{builder}"),
            Self::Build(build) => write!(f, "{build}"),
            Self::Pull { bot, repo, pull } => write!(f, "{bot}:{repo}:{pull}"),
            Self::Queue { bot, repo } => write!(f, "{bot}:{repo}"),
            Self::Bot(bot) => write!(f, "{bot}"),
        }
    }
}

/// The stable name of an attempt: its target, its remedy, and how many came before; it survives
/// crashes, because it is made from the journal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// What it is for.
    pub target: Target,
    /// What it does.
    pub remedy: Remedy,
    /// Counts from 1 for each target and remedy.
    pub ordinal: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.target, self.remedy, self.ordinal)
    }
}

/// One request to the bot, or for it. A remedy is one or more of them under one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Say that these commits started, under a builder that nobody knows: frees the start slot
    /// where one of them holds it, and is harmless else.
    ReleaseSlot {
        /// At most [`Step::SHAS_MAX`].
        shas: Vec<Sha>,
    },
    /// Give the bot a result.
    ReplayResult {
        /// The pull request.
        pull: u64,
        /// The commit that was tested.
        sha: Sha,
        /// The builder that tested it.
        builder: BuilderName,
        /// The kind of message that was lost.
        system: CiSystem,
        /// The result.
        report: RunReport,
    },
    /// Say that the green builders started again, so that the bot forgets them and a rerun makes a
    /// new commit, which a late report of the old one cannot hit.
    ForgetGreen {
        /// The pull request.
        pull: u64,
        /// The commit that was tested.
        sha: Sha,
        /// The green builders, each with the page that the bot has for it.
        builders: Vec<(BuilderName, String)>,
    },
    /// Ask the bot to build the pull request again.
    Retry {
        /// The pull request.
        pull: u64,
    },
    /// Send a command that changes nothing, so that the bot looks at its queue.
    Nudge {
        /// The pull request to name in it.
        pull: u64,
    },
    /// Say that the pull request was closed.
    ReplayClosed {
        /// The pull request.
        pull: u64,
    },
    /// Say that the pull request has a new head.
    ReplaySynchronize {
        /// The pull request.
        pull: u64,
        /// Its head on GitHub.
        head: Sha,
    },
    /// Run the operator's command that restarts the bot.
    Restart {
        /// The program and its arguments, as configured.
        command: Vec<String>,
    },
}

impl Step {
    /// The most SHAs that one release names; more would be a bot with a history that nobody needs.
    pub const SHAS_MAX: usize = 32;

    /// Which kind of request it is.
    pub const fn kind(&self) -> StepKind {
        match self {
            Self::ReleaseSlot { .. } => StepKind::ReleaseSlot,
            Self::ReplayResult { .. } => StepKind::ReplayResult,
            Self::ForgetGreen { .. } => StepKind::ForgetGreen,
            Self::Retry { .. } => StepKind::Retry,
            Self::Nudge { .. } => StepKind::Nudge,
            Self::ReplayClosed { .. } => StepKind::ReplayClosed,
            Self::ReplaySynchronize { .. } => StepKind::ReplaySynchronize,
            Self::Restart { .. } => StepKind::Restart,
        }
    }
}

/// The kinds of request; a bot's adapter has one row for each that it knows. A restart is no
/// adapter's: it is a command on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// See [`Step::ReleaseSlot`].
    ReleaseSlot,
    /// See [`Step::ReplayResult`].
    ReplayResult,
    /// See [`Step::ForgetGreen`].
    ForgetGreen,
    /// See [`Step::Retry`].
    Retry,
    /// See [`Step::Nudge`].
    Nudge,
    /// See [`Step::ReplayClosed`].
    ReplayClosed,
    /// See [`Step::ReplaySynchronize`].
    ReplaySynchronize,
    /// See [`Step::Restart`].
    Restart,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::ReleaseSlot,
        Self::ReplayResult,
        Self::ForgetGreen,
        Self::Retry,
        Self::Nudge,
        Self::ReplayClosed,
        Self::ReplaySynchronize,
        Self::Restart,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReleaseSlot => "release_slot",
            Self::ReplayResult => "replay_result",
            Self::ForgetGreen => "forget_green",
            Self::Retry => "retry",
            Self::Nudge => "nudge",
            Self::ReplayClosed => "replay_closed",
            Self::ReplaySynchronize => "replay_synchronize",
            Self::Restart => "restart",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What must be seen, in the bot or at a provider, to believe a request. Its HTTP status proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// None of its own; the request is done when it was sent.
    None,
    /// The builder's result is in the bot, or the build left pending.
    ResultKnownOrLeftPending,
    /// The green rows are no longer green in the bot, or the build left pending.
    GreenForgottenOrLeftPending,
    /// A run submitted after the intent, or no longer pending in that generation.
    NewRunOrLeftPending,
    /// Something is pending in the repository.
    SomethingPending,
    /// The bot agrees with GitHub about the pull request.
    AgreesWithGithub,
    /// A look at the bot after the intent was good.
    BotAnswers,
}

/// What the core knows of a bot's row for one kind of request; the adapter's own row adds the
/// precondition and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemedyRow {
    /// The kind of request.
    pub kind: StepKind,
    /// What proves it.
    pub effect: Effect,
    /// The least time that this bot needs to show the effect; the policy's `effect` may be longer.
    pub deadline_min: Duration,
}
