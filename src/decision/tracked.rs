//! What is known of one pending build and its runs, by our own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ledger::Opened;
use crate::model::{
    BuildId, BuildKind, BuilderName, MergeSha, Moment, PendingBuild, ProviderSnapshot,
    PullOnGithub, Run, RunEnd, RunId, RunState, Sha, Sighting, SightingCause, Told, Verdict,
    Witnesses,
};

/// What is known of one pending build.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// Its place and generation.
    pub id: BuildId,
    /// The commit under test, as last known.
    pub merge_sha: Option<Sha>,
    /// The head that it was made from, as last known.
    pub head_sha: Option<Sha>,
    /// When this generation was first seen.
    pub first_seen: Moment,
    /// From when its start deadline counts: its first sight, moved by the time in which nobody looked.
    pub start_from: Moment,
    /// Runs of the same commit that do not count in this generation.
    pub before: BTreeSet<RunId>,
    /// Whether a restart forgot which runs do not count: what is over at the first look does not.
    pub(super) before_unknown: bool,
    /// The bot's latest word on it.
    pub pending: PendingBuild,
    /// What is known of its runs.
    pub runs: BTreeMap<RunId, RunWatch>,
    /// Since when GitHub and the bot differ about the pull request.
    pub outdated_since: Option<Moment>,
    /// Since when it has no merge SHA, or the bot contradicts itself, or waits for nothing.
    pub orphaned_since: Option<Moment>,
    /// Deaths of its expectations in a row; the build's own death (orphaned) is under `None`.
    pub deaths: BTreeMap<Option<BuilderName>, Death>,
    /// Its verdict in the last tick; [`Verdict::Unknown`] before the first.
    pub judged: Verdict,
}

/// What is known of one run, by our own clock.
#[derive(Clone, Debug)]
pub struct RunWatch {
    /// The builder that it is for.
    pub builder: BuilderName,
    /// The number of its latest try, where one began.
    pub number: Option<u64>,
    /// When it was first seen.
    pub first_seen: Moment,
    /// Whether it was over when it was first seen, or ended so soon that nobody saw it under way.
    pub found_over: bool,
    /// The state that it was last seen in.
    pub state: RunState,
    /// Since when it is in that state.
    pub state_since: Moment,
    /// When it was first seen with a worker.
    pub started: Option<Moment>,
    /// The progress token that was last seen.
    pub progress: String,
    /// When the token last changed, or the state.
    pub heartbeat: Moment,
    /// Since when its worker is not connected, or was not when the run was cut off.
    pub worker_gone: Option<Moment>,
    /// Whether its worker was gone in two looks, and it showed no sign of life since. A run does not
    /// outlive the connection that it was given to: where its worker is back, the run is not.
    pub cut_off: bool,
}

/// How often in a row something was found dead.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// Looks in a row.
    pub looks: u32,
    /// The first of them.
    pub since: Moment,
    /// Whether it was told already that the death counts.
    pub announced: bool,
}

impl Death {
    /// Whether it counts: found in `needed` looks in a row, and over the time that as many ticks
    /// take. Looks that come sooner, as after a reload, are no further evidence.
    pub fn counts(&self, needed: u32, tick: Duration, now: Moment) -> bool {
        let span = tick * needed.saturating_sub(1);
        // Ticks are not on time to the millisecond.
        self.looks >= needed && now.since(self.since) + tick / 4 >= span
    }
}

/// A place whose build left pending.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) generation: u32,
    pub(super) merge_sha: Option<Sha>,
    pub(super) head_sha: Option<Sha>,
    /// Runs that do not count any more; `None` where a restart forgot which they were.
    pub(super) runs: Option<BTreeSet<RunId>>,
    pub(super) at: Moment,
}

impl Past {
    pub(super) fn of_sighting(now: Moment, sighting: Sighting) -> Self {
        Self {
            generation: sighting.build.generation,
            merge_sha: sighting.merge_sha,
            head_sha: sighting.head_sha,
            runs: None,
            at: now,
        }
    }
}

impl Tracked {
    /// The runs of a builder that count in this generation, in the order of submission.
    pub fn runs_of<'a>(
        &'a self,
        snapshot: &'a ProviderSnapshot,
        builder: &'a BuilderName,
    ) -> impl Iterator<Item = &'a Run> {
        snapshot.runs.iter().filter(move |run| {
            &run.builder == builder
                && Some(&run.sha) == self.merge_sha.as_ref()
                && !self.before.contains(&run.id)
        })
    }

    /// Whether the build blocks its repository's queue.
    pub fn is_auto(&self) -> bool {
        match self.id.key.kind {
            BuildKind::Auto => true,
            BuildKind::Try => false,
        }
    }

    /// Takes the commit of a build that was pending without one that was known. That it had no run
    /// says nothing of the time before: nobody could look for one.
    pub(super) fn name_commit(&mut self, now: Moment, pending: &PendingBuild) -> Opened {
        self.merge_sha = pending.merge_sha.known().cloned();
        self.start_from = now;
        Opened {
            sighting: Sighting {
                build: self.id.clone(),
                merge_sha: self.merge_sha.clone(),
                head_sha: pending.head_sha.clone(),
                // After a restart it is dated from here too.
                at: now,
                cause: SightingCause::First,
                before: self.before.clone(),
            },
        }
    }

    pub(super) fn past(&self, now: Moment) -> Past {
        Past {
            generation: self.id.generation,
            merge_sha: self.merge_sha.clone(),
            head_sha: self.head_sha.clone(),
            runs: Some(self.over()),
            at: now,
        }
    }

    /// The runs that do not count any more once the bot builds the same commit again: those that are
    /// over, but for green ones, whose result still holds.
    pub(super) fn over(&self) -> BTreeSet<RunId> {
        let over = self.runs.iter().filter(|(_, run)| match run.state {
            RunState::Ended(end) => end.green() != Some(true),
            RunState::Queued | RunState::Preparing | RunState::Running => false,
        });
        over.map(|(id, _)| id)
            .chain(&self.before)
            .cloned()
            .collect()
    }

    /// The same, without those that were seen alive since the build began.
    pub(super) fn over_at_first_sight(&self) -> BTreeSet<RunId> {
        let seen_alive =
            |id: &RunId| matches!(self.runs.get(id), Some(run) if run.state_since > run.first_seen);
        let mut over = self.over();
        over.retain(|id| !seen_alive(id));
        over
    }

    /// Whether it failed and was begun anew on the same commit between two looks: a bot leaves a build
    /// with the first red result, so that one which is new in a pending build is from before.
    pub(super) fn failed_unseen(&self, pending: &PendingBuild) -> bool {
        let red = |told: &Told| match told {
            Told::Red { url } => Some(url.clone()),
            Told::Nothing | Told::Started { .. } | Told::Green { .. } => None,
        };
        let known = |builder: &BuilderName| {
            let mut before = self.pending.expectations.iter();
            let before = before.find(|e| &e.builder == builder)?;
            red(&before.told)
        };
        let same_commit = pending.merge_sha.known() == self.merge_sha.as_ref();
        same_commit
            && pending.expectations.iter().any(|e| {
                let now = red(&e.told);
                now.is_some() && now != known(&e.builder)
            })
    }

    pub(super) fn update(&mut self, now: Moment, pending: &PendingBuild) {
        if let Some(sha) = pending.merge_sha.known() {
            self.merge_sha = Some(sha.clone());
        }
        if let Some(head) = &pending.head_sha {
            self.head_sha = Some(head.clone());
        }
        let outdated = differs(self.head_sha.as_ref(), &pending.github);
        let orphaned = pending.merge_sha == MergeSha::Missing
            || waits_for_nothing(pending)
            || match &pending.witnesses {
                Witnesses::Agree => false,
                Witnesses::DatabaseOnly { .. } | Witnesses::PageOnly { .. } => true,
            };
        self.outdated_since = since(self.outdated_since, outdated, now);
        self.orphaned_since = since(self.orphaned_since, orphaned, now);
        self.pending = pending.clone();
    }

    /// Folds in a look at a run, and says whether its worker was seen to go on with it.
    pub(super) fn see_run(&mut self, now: Moment, run: &Run, worker_gone: bool) -> bool {
        let watch = self.runs.entry(run.id.clone()).or_insert_with(|| RunWatch {
            builder: run.builder.clone(),
            number: run.number,
            first_seen: now,
            found_over: match run.state {
                RunState::Ended(_) => true,
                RunState::Queued | RunState::Preparing | RunState::Running => false,
            },
            state: run.state,
            state_since: now,
            started: None,
            progress: run.progress.clone(),
            heartbeat: now,
            worker_gone: None,
            cut_off: false,
        });
        let known = watch.first_seen < now;
        let moves = watch.state != run.state
            || watch.number != run.number
            || watch.progress != run.progress;
        if watch.state != run.state || watch.number != run.number {
            watch.state = run.state;
            watch.state_since = now;
            watch.heartbeat = now;
        }
        if std::mem::replace(&mut watch.number, run.number) != run.number {
            // Another try, with a worker of its own.
            watch.started = None;
            watch.worker_gone = None;
            watch.cut_off = false;
        }
        if watch.progress != run.progress {
            watch.progress.clone_from(&run.progress);
            watch.heartbeat = now;
        }
        match run.state {
            RunState::Queued => {
                watch.started = None;
                watch.worker_gone = None;
                watch.cut_off = false;
            }
            RunState::Preparing | RunState::Running => {
                watch.started.get_or_insert(now);
                // One look may catch a new run between its worker's return and its own start.
                let twice = worker_gone && watch.worker_gone.is_some();
                watch.cut_off = twice || (watch.cut_off && !moves);
                watch.worker_gone = since(watch.worker_gone, worker_gone || watch.cut_off, now);
            }
            RunState::Ended(
                RunEnd::Success
                | RunEnd::Warnings
                | RunEnd::Failure
                | RunEnd::Skipped
                | RunEnd::Exception
                | RunEnd::Retry
                | RunEnd::Cancelled,
            ) => {
                watch.started.get_or_insert(now);
                watch.worker_gone = None;
                watch.cut_off = false;
            }
        }
        known && moves && at_work(run.state)
    }

    /// Moves every age by a time in which nobody looked, at most to now.
    pub(super) fn shift(&mut self, now: Moment, gap: Duration) {
        let moved = |at: Moment| (at + gap).min(now);
        self.start_from = moved(self.start_from);
        self.outdated_since = self.outdated_since.map(moved);
        self.orphaned_since = self.orphaned_since.map(moved);
        self.deaths.clear();
        for run in self.runs.values_mut() {
            run.state_since = moved(run.state_since);
            run.heartbeat = moved(run.heartbeat);
            run.started = run.started.map(moved);
            run.worker_gone = run.worker_gone.map(moved);
        }
    }

    pub(super) fn restart(&mut self, now: Moment) {
        self.deaths.clear();
        self.outdated_since = self.outdated_since.map(|_| now);
        self.orphaned_since = self.orphaned_since.map(|_| now);
        for run in self.runs.values_mut() {
            run.state_since = now;
            run.heartbeat = now;
            run.started = run.started.map(|_| now);
            run.worker_gone = run.worker_gone.map(|_| now);
        }
    }
}

/// Whether a run that came to this state was brought to it by its worker; the master alone queues runs,
/// gives them out, and ends those whose worker it lost.
const fn at_work(state: RunState) -> bool {
    match state {
        RunState::Running
        | RunState::Ended(RunEnd::Success | RunEnd::Warnings | RunEnd::Failure | RunEnd::Skipped) => {
            true
        }
        RunState::Queued
        | RunState::Preparing
        | RunState::Ended(RunEnd::Exception | RunEnd::Retry | RunEnd::Cancelled) => false,
    }
}

/// Whether the bot still lacks a result. A red row in a pending build is left from before.
pub fn lacking(told: &Told) -> bool {
    match told {
        Told::Green { .. } => false,
        Told::Nothing | Told::Started { .. } | Told::Red { .. } => true,
    }
}

/// Whether the bot has every result of a pending build: it ended, or could not write, between taking
/// the last one and concluding from it, and concludes nothing until another comes.
pub(super) fn waits_for_nothing(pending: &PendingBuild) -> bool {
    !pending.expectations.is_empty() && pending.expectations.iter().all(|e| !lacking(&e.told))
}

/// Whether a build may have begun anew on the same commit while nobody looked: a bot rebuilds in part
/// once it was told of every builder.
pub(super) fn rebuilt_unseen(pending: &PendingBuild) -> bool {
    pending.expectations.iter().all(|e| match &e.told {
        Told::Nothing => false,
        Told::Started { .. } | Told::Green { .. } | Told::Red { .. } => true,
    })
}

/// Whether GitHub says something else of a pull request than the bot.
pub(super) fn differs(bot_head: Option<&Sha>, github: &PullOnGithub) -> bool {
    match github {
        PullOnGithub::Unknown => false,
        PullOnGithub::Closed => true,
        PullOnGithub::Open { head } => bot_head.is_some_and(|bot| bot != head),
    }
}

pub(super) fn since(before: Option<Moment>, holds: bool, now: Moment) -> Option<Moment> {
    if holds { before.or(Some(now)) } else { None }
}
