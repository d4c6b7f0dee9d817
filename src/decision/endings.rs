//! How generations of pending builds end, as far as the last looks tell.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::{Ledger, Routes};
use super::tracked::{Tracked, lacking};
use crate::model::{
    BotName, BuildId, BuildKey, BuildKind, End, Ending, Expectation, Moment, PullOnGithub,
    RepoName, RepoSnapshot, RunState, SightingCause, Told, Verdict,
};

/// How many generations that are over wait to be written down; more are forgotten, oldest first. Builds
/// that nobody saw leaving count too: after a first start with an old journal these are all of it.
const LEFT_MAX: usize = 256;

/// The generations that are over and not written down yet.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftBuilds(Vec<Left>);

/// A generation that is over.
#[derive(Clone, Debug)]
struct Left {
    build: BuildId,
    at: Moment,
    how: How,
    /// What was known of it; `None` where it was not seen since the start.
    tracked: Option<Tracked>,
    ending: Option<Ending>,
}

/// How a generation was seen to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Another generation of it is pending.
    Again(SightingCause),
    /// It failed, and is built again on the same commit.
    Failed,
    /// It went back to the approved pull requests.
    Back,
    /// It is not pending any more.
    Gone,
    /// It was not pending any more at the first look after a start.
    Unseen,
}

/// Whether the providers were heard on the last of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// Every one of them.
    Complete,
    /// Not every one yet.
    Open,
    /// Nobody serves a part of it, or it was not seen itself.
    Impossible,
}

/// What tells how a build ended, beside the ledger.
#[derive(Clone, Copy)]
pub(super) struct Witness<'a> {
    pub(super) routes: &'a Routes,
    /// Each repository's own timeout in its bot, where it has one.
    pub(super) own_timeouts: &'a BTreeMap<(BotName, RepoName), Duration>,
    /// How long a provider is waited for that does not answer.
    pub(super) patience: Duration,
    pub(super) now: Moment,
}

impl How {
    /// How a build left pending, by what its repository has now.
    pub(super) fn left(key: &BuildKey, repo: Option<&RepoSnapshot>) -> Self {
        let approved = repo.is_some_and(|repo| repo.approved.iter().any(|it| it.pull == key.pull));
        match key.kind {
            BuildKind::Auto if approved => Self::Back,
            // A try build says nothing of the approval.
            BuildKind::Auto | BuildKind::Try => Self::Gone,
        }
    }
}

impl LeftBuilds {
    pub(super) fn put(&mut self, now: Moment, build: BuildId, how: How, tracked: Option<Tracked>) {
        if self.0.iter().any(|left| left.build == build) {
            return;
        }
        self.0.push(Left {
            build,
            at: now,
            how,
            tracked,
            ending: None,
        });
        if self.0.len() > LEFT_MAX {
            self.0.remove(0);
        }
    }

    /// Forgets one that was written down.
    pub(super) fn written(&mut self, build: &BuildId) {
        self.0.retain(|left| &left.build != build);
    }

    /// Forgets those of bots that are not wanted any more.
    pub(super) fn retain(&mut self, bots: impl Fn(&BotName) -> bool) {
        self.0.retain(|left| bots(&left.build.key.bot));
    }

    /// The builds whose last results the providers are still asked for: a bot hears of a result
    /// before we see it.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Tracked> {
        let waiting = self.0.iter().filter(|left| left.ending.is_none());
        waiting.filter_map(|left| left.tracked.as_ref())
    }

    /// The same, for what a provider says.
    pub(super) fn asked_mut(&mut self) -> impl Iterator<Item = &mut Tracked> {
        let waiting = self.0.iter_mut().filter(|left| left.ending.is_none());
        waiting.filter_map(|left| left.tracked.as_mut())
    }

    /// Names the ends that can be named now, and gives back all that were not written down yet.
    pub(super) fn name(&mut self, ledger: &Ledger, witness: Witness<'_>) -> Vec<Ending> {
        for left in self.0.iter_mut().filter(|left| left.ending.is_none()) {
            let hearing = left.hearing(ledger, witness);
            let result = left.tracked.as_ref().and_then(own_result);
            let settled = result.is_some() || (hearing != Hearing::Open && !left.may_yet_tell());
            if settled || witness.now.since(left.at) > witness.patience {
                left.ending = Some(Ending {
                    at: left.at,
                    build: left.build.clone(),
                    verdict: left.verdict(),
                    end: left.end(result, hearing, witness),
                });
            }
        }
        self.0
            .iter()
            .filter_map(|left| left.ending.clone())
            .collect()
    }
}

impl Left {
    /// Whether every provider of what it lacked was heard since it was over.
    fn hearing(&self, ledger: &Ledger, witness: Witness<'_>) -> Hearing {
        let Some(tracked) = &self.tracked else {
            return Hearing::Impossible;
        };
        let mut hearing = Hearing::Complete;
        for expectation in tracked
            .pending
            .expectations
            .iter()
            .filter(|e| lacking(&e.told))
        {
            let providers = witness.routes.providers(expectation.system);
            let heard = |provider| {
                let source = ledger.provider(provider);
                source.and_then(|source| source.seen_at()) >= Some(self.at)
            };
            if !providers.iter().all(heard) {
                return Hearing::Open;
            }
            if providers.is_empty() {
                hearing = Hearing::Impossible;
            }
        }
        hearing
    }

    /// Whether a run that it had is not over for its provider: a bot may hear of the end first. Where
    /// the bot began anew, the end of an old run says nothing.
    fn may_yet_tell(&self) -> bool {
        self.how == How::Gone
            && self.tracked.as_ref().is_some_and(|tracked| {
                let mut runs = tracked.runs.values();
                runs.any(|run| match run.state {
                    RunState::Queued | RunState::Preparing | RunState::Running => true,
                    RunState::Ended(_) => false,
                })
            })
    }

    fn verdict(&self) -> Verdict {
        let tracked = self.tracked.as_ref();
        tracked.map_or(Verdict::Unknown, |tracked| tracked.judged)
    }

    fn end(&self, result: Option<End>, hearing: Hearing, witness: Witness<'_>) -> End {
        let Some(tracked) = &self.tracked else {
            return End::Unknown;
        };
        // A result that was overdue was lost: it did not end what was made to begin anew.
        let took = result.filter(|_| tracked.judged != Verdict::Unreported);
        match self.how {
            How::Unseen => End::Unknown,
            How::Failed => End::Red,
            How::Again(SightingCause::NewHead) => took.unwrap_or(End::NewHead),
            How::Again(
                SightingCause::First | SightingCause::OurRerun | SightingCause::OthersRerun,
            )
            | How::Back => took.unwrap_or(End::Rerun),
            // A merge closes the pull request, too: what GitHub says comes first only where it had
            // been so for long.
            How::Gone if tracked.judged == Verdict::Outdated => outdated(tracked)
                .or(result)
                .unwrap_or_else(|| self.without_result(tracked, hearing, witness)),
            How::Gone => result
                .or_else(|| outdated(tracked))
                .unwrap_or_else(|| self.without_result(tracked, hearing, witness)),
        }
    }

    fn without_result(&self, tracked: &Tracked, hearing: Hearing, witness: Witness<'_>) -> End {
        let key = &self.build.key;
        let timeout = witness
            .own_timeouts
            .get(&(key.bot.clone(), key.repo.clone()));
        if timeout.is_some_and(|timeout| self.at.since(tracked.first_seen) >= *timeout) {
            return End::TimedOut;
        }
        match hearing {
            Hearing::Complete => End::Left,
            Hearing::Open | Hearing::Impossible => End::Unknown,
        }
    }
}

/// What GitHub knew of the pull request before the bot did.
fn outdated(tracked: &Tracked) -> Option<End> {
    tracked.outdated_since?;
    match tracked.pending.github {
        PullOnGithub::Closed => Some(End::Closed),
        PullOnGithub::Open { .. } => Some(End::NewHead),
        PullOnGithub::Unknown => None,
    }
}

/// Green where every builder is, red where one is: from what the bot was told, else from the latest
/// run that counts.
fn own_result(tracked: &Tracked) -> Option<End> {
    let mut all_green = true;
    for expectation in &tracked.pending.expectations {
        let result = match &expectation.told {
            Told::Green { .. } => Some(true),
            Told::Nothing | Told::Started { .. } => last_result(tracked, expectation, false),
            // Left from before, and so is the run that it tells of.
            Told::Red { .. } => last_result(tracked, expectation, true),
        };
        match result {
            Some(true) => {}
            Some(false) => return Some(End::Red),
            None => all_green = false,
        }
    }
    (all_green && !tracked.pending.expectations.is_empty()).then_some(End::Green)
}

/// Green or red where the latest run of a builder that counts is; where the bot has a red row from
/// before, without a run that was over when it was found.
fn last_result(tracked: &Tracked, expectation: &Expectation, red_before: bool) -> Option<bool> {
    let counts = tracked.runs.iter().filter(|(id, run)| {
        run.builder == expectation.builder
            && !tracked.before.contains(*id)
            && !(red_before && run.found_over)
    });
    let (_, last) = counts.max_by_key(|(_, run)| (run.first_seen, run.number))?;
    match last.state {
        RunState::Ended(end) => end.green(),
        RunState::Queued | RunState::Preparing | RunState::Running => None,
    }
}
