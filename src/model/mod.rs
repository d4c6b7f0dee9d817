//! The nouns that every other module speaks in, and the records that the journal keeps; knows nothing else.

mod build;
mod gate;
mod moment;
mod names;
mod order;
mod probe;
mod record;
mod remedy;
mod run;
mod verdict;

pub use build::{
    ApprovedPull, BotSnapshot, BuildId, BuildKey, BuildKind, CiSystem, Expectation, GithubState,
    Knock, MergeSha, PendingBuild, PullOnGithub, Quota, RepoSnapshot, Told, Witnesses,
};
pub use gate::Gate;
pub use moment::Moment;
pub use names::{BotName, BuilderName, ProviderName, RepoName, RunId, Sha, SourceName, WorkerName};
pub use order::{Order, Scope, Stop, StopKind};
pub use probe::{ProbeError, ProbeFailure};
pub use record::{
    Closing, End, Ending, Finding, Intent, IntentId, Outcome, Record, Sighting, SightingCause,
};
pub use remedy::{AttemptId, Effect, Remedy, RemedyRow, Step, StepKind, Target};
pub use run::{
    History, Pool, ProviderSnapshot, Question, Run, RunEnd, RunReport, RunState, Worker,
};
pub use verdict::{Evidence, Fact, Verdict};
