//! The records that the journal keeps: sightings, intents, outcomes, closings, orders, findings, endings.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    AttemptId, BuildId, BuilderName, Moment, Order, ProviderName, RunId, Sha, Step, StepKind,
    Verdict, WorkerName,
};

/// The journal's number of an intent; counts up and is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntentId(pub i64);

/// One durable record, in the order in which it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "record")]
#[allow(
    clippy::large_enum_variant,
    reason = "they live in lists of a few hundred, and are folded one by one"
)]
pub enum Record {
    /// A build, or a new generation of one, was seen for the first time.
    Sighting(Sighting),
    /// A request is about to be sent.
    Intent {
        /// Its number.
        id: IntentId,
        /// When, in watched time.
        at: Moment,
        /// What is about to be sent, and why.
        intent: Intent,
    },
    /// What the request's sending came to.
    Outcome {
        /// The intent.
        id: IntentId,
        /// When, in watched time.
        at: Moment,
        /// What happened.
        outcome: Outcome,
    },
    /// What the request's effect was; the intent is settled.
    Closed {
        /// The intent.
        id: IntentId,
        /// When, in watched time.
        at: Moment,
        /// How it ended.
        closing: Closing,
    },
    /// An operator's order.
    Order(Order),
    /// What would have been sent, had `mode` been `act`.
    Finding(Finding),
    /// A generation of a pending build is over.
    Ending(Ending),
}

/// The first look at a generation of a build. The bots keep no start time; this is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The build and its generation.
    pub build: BuildId,
    /// The commit under test, where it is known.
    pub merge_sha: Option<Sha>,
    /// The pull request's head that it was made from, where it is known.
    pub head_sha: Option<Sha>,
    /// When it was first seen.
    pub at: Moment,
    /// What opened it.
    pub cause: SightingCause,
    /// Runs of the same commit that were there before and do not count in it.
    pub before: BTreeSet<RunId>,
}

/// What opened a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SightingCause {
    /// The bot began to wait.
    First,
    /// A rerun of ours took effect.
    OurRerun,
    /// Somebody else made the bot build the same head again.
    OthersRerun,
    /// The pull request has a new head.
    NewHead,
}

/// An attempt that nothing but `mode = "observe"` held: once for each attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// When, in watched time.
    pub at: Moment,
    /// What would have been done.
    pub attempt: AttemptId,
    /// The verdict that asked for it.
    pub verdict: Verdict,
    /// The evidence, in words.
    pub evidence: Vec<String>,
    /// The requests that would have been sent, in order.
    pub steps: Vec<StepKind>,
}

/// The last that is known of a generation of a pending build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// When it was seen to be over, in watched time.
    pub at: Moment,
    /// The build and its generation.
    pub build: BuildId,
    /// Its verdict in the last look before; [`Verdict::Unknown`] where there was none.
    pub verdict: Verdict,
    /// How it ended.
    pub end: End,
}

/// How a generation of a pending build ended, as far as the bot, the providers and GitHub tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Every builder was green.
    Green,
    /// A builder was red.
    Red,
    /// The bot was made to build it again, before it had a result.
    Rerun,
    /// The pull request was closed.
    Closed,
    /// The pull request got a new head.
    NewHead,
    /// The bot gave up after its own timeout.
    TimedOut,
    /// It left pending without a result: somebody closed it, pushed to it, or took it back.
    Left,
    /// Nobody looked well enough to know.
    Unknown,
}

impl End {
    /// Every end.
    pub const ALL: [Self; 8] = [
        Self::Green,
        Self::Red,
        Self::Rerun,
        Self::Closed,
        Self::NewHead,
        Self::TimedOut,
        Self::Left,
        Self::Unknown,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Red => "red",
            Self::Rerun => "rerun",
            Self::Closed => "closed",
            Self::NewHead => "new_head",
            Self::TimedOut => "timed_out",
            Self::Left => "left",
            Self::Unknown => "unknown",
        }
    }
}

/// A request that is about to be sent, and all that is needed to explain and to settle it later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The attempt that it belongs to.
    pub attempt: AttemptId,
    /// The request.
    pub step: Step,
    /// The verdict that asked for it.
    pub verdict: Verdict,
    /// The evidence, in words.
    pub evidence: Vec<String>,
    /// The merge SHA of the build that it is about, where it is about one.
    pub merge_sha: Option<Sha>,
    /// The head of the pull request that it is about, where it is known.
    pub head_sha: Option<Sha>,
    /// The runs of that commit that were there before it.
    pub runs: BTreeSet<RunId>,
    /// The zones (provider, builder) that a rerun is charged to.
    pub zones: BTreeSet<(ProviderName, BuilderName)>,
    /// The workers that were lost with this build.
    pub lost_workers: BTreeSet<WorkerName>,
    /// Who asked: `None` is the watchdog itself.
    pub by: Option<String>,
}

/// What the sending of a request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// Answered with a success status; that it had an effect is not said.
    Accepted(String),
    /// Answered with a status that says the bot did not take it: 3xx or 4xx.
    Refused(String),
    /// Certainly not sent: no connection, or its act deadline had passed.
    NotSent(String),
    /// Sent at least in part, and no answer came, or a 5xx: whether the bot took it is unknown.
    Unanswered(String),
}

impl Outcome {
    /// The label value.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Refused(_) => "refused",
            Self::NotSent(_) => "not_sent",
            Self::Unanswered(_) => "unanswered",
        }
    }

    /// What happened, in words.
    pub fn detail(&self) -> &str {
        match self {
            Self::Accepted(detail)
            | Self::Refused(detail)
            | Self::NotSent(detail)
            | Self::Unanswered(detail) => detail,
        }
    }
}

/// How an intent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// Its effect was seen.
    Effect,
    /// It has no effect of its own to wait for.
    Done,
    /// Its effect was not seen in time, with the bot good.
    NoEffect,
    /// It was certainly not sent.
    NotSent,
    /// The bot refused it.
    Refused,
}

impl Closing {
    /// Every closing.
    pub const ALL: [Self; 5] = [
        Self::Effect,
        Self::Done,
        Self::NoEffect,
        Self::NotSent,
        Self::Refused,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Effect => "effect",
            Self::Done => "done",
            Self::NoEffect => "no_effect",
            Self::NotSent => "not_sent",
            Self::Refused => "refused",
        }
    }
}
