//! What was done: the journal's records, folded into attempts, budgets and open intents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ledger::{Ledger, Source, SourceHealth};
use super::policy::Policy;
use crate::model::{
    AttemptId, BotName, BuildId, BuildKey, BuilderName, Closing, Effect, Intent, IntentId, Moment,
    Order, Outcome, ProviderName, PullOnGithub, Record, Remedy, RemedyRow, Scope, Sha,
    SightingCause, Step, StepKind, Stop, StopKind, Target, Told, WorkerName,
};

/// How much of the past is kept in memory, records; budgets look back a day at most.
const INTENTS_MAX: usize = 10_000;

/// How many findings are remembered; each belongs to something that is stuck now.
const FOUND_MAX: usize = 4096;

/// One intent and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentState {
    /// Its number.
    pub id: IntentId,
    /// When it was written.
    pub at: Moment,
    /// What it was for.
    pub intent: Intent,
    /// What its sending came to; `None`: not known.
    pub outcome: Option<(Moment, Outcome)>,
    /// How it ended; `None`: it is open.
    pub closing: Option<(Moment, Closing)>,
}

impl IntentState {
    /// Whether the request may have reached the bot.
    pub fn maybe_sent(&self) -> bool {
        match (&self.outcome, &self.closing) {
            (Some((_, Outcome::NotSent(_))), _) | (_, Some((_, Closing::NotSent))) => false,
            (
                Some((_, Outcome::Accepted(_) | Outcome::Refused(_) | Outcome::Unanswered(_)))
                | None,
                _,
            ) => true,
        }
    }

    /// Whether it is open and nobody knows if the bot took it.
    pub fn in_doubt(&self) -> bool {
        self.closing.is_none()
            && match &self.outcome {
                None | Some((_, Outcome::Unanswered(_))) => true,
                Some((_, Outcome::Accepted(_) | Outcome::Refused(_) | Outcome::NotSent(_))) => {
                    false
                }
            }
    }

    fn effective(&self) -> bool {
        matches!(self.closing, Some((_, Closing::Effect)))
    }

    fn is_retry(&self) -> bool {
        self.intent.step.kind() == StepKind::Retry
    }
}

/// Somebody else made the bot build a head again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OthersRerun {
    key: BuildKey,
    head: Option<Sha>,
    at: Moment,
}

/// The past, as far as the journal keeps it.
#[derive(Clone, Debug, Default)]
pub struct History {
    intents: BTreeMap<IntentId, IntentState>,
    others: Vec<OthersRerun>,
    stops: BTreeMap<(StopKind, Scope), Stop>,
    /// What was found and written down, and is not known to be over.
    found: BTreeMap<AttemptId, Moment>,
}

impl History {
    /// Folds in the next record, in the order in which they were written.
    pub fn record(&mut self, record: &Record) {
        match record {
            Record::Sighting(sighting) => {
                if sighting.cause == SightingCause::OthersRerun {
                    self.others.push(OthersRerun {
                        key: sighting.build.key.clone(),
                        head: sighting.head_sha.clone(),
                        at: sighting.at,
                    });
                    if self.others.len() > INTENTS_MAX {
                        self.others.remove(0);
                    }
                }
                self.found
                    .retain(|found, _| !found.target.moved_on(&sighting.build.key));
            }
            Record::Intent { id, at, intent } => {
                self.intents.insert(
                    *id,
                    IntentState {
                        id: *id,
                        at: *at,
                        intent: intent.clone(),
                        outcome: None,
                        closing: None,
                    },
                );
                self.forget();
            }
            Record::Outcome { id, at, outcome } => {
                if let Some(state) = self.intents.get_mut(id) {
                    state.outcome = Some((*at, outcome.clone()));
                }
            }
            Record::Closed { id, at, closing } => {
                if let Some(state) = self.intents.get_mut(id) {
                    state.closing = Some((*at, *closing));
                }
            }
            Record::Order(order) => self.order(order),
            Record::Finding(finding) => {
                self.found.insert(finding.attempt.clone(), finding.at);
                self.forget_found();
            }
            Record::Ending(ending) => {
                let ended = Some(&ending.build);
                self.found.retain(|found, _| found.target.build() != ended);
            }
        }
    }

    /// Whether it was written down that an attempt would have been made. A queue that went on since,
    /// and got stuck again, is found anew.
    pub fn found(&self, attempt: &AttemptId) -> bool {
        self.found.contains_key(attempt)
    }

    fn forget_found(&mut self) {
        while self.found.len() > FOUND_MAX {
            let oldest = self.found.iter().min_by_key(|(_, at)| **at);
            match oldest.map(|(found, _)| found.clone()) {
                Some(oldest) => self.found.remove(&oldest),
                None => break,
            };
        }
    }

    fn order(&mut self, order: &Order) {
        match order {
            Order::Stop(stop) => {
                self.stops.retain(|_, old| old.holds_at(stop.at));
                let place = (stop.kind, stop.scope.clone());
                self.stops.insert(place, stop.clone());
            }
            Order::Go { kind, scope, .. } => self.stops.retain(|(stopped, at), _| {
                stopped != kind || scope.as_ref().is_some_and(|scope| scope != at)
            }),
        }
    }

    /// What operators ordered to leave alone, and what is so now.
    pub fn stops(&self, now: Moment) -> impl Iterator<Item = &Stop> {
        self.stops.values().filter(move |stop| stop.holds_at(now))
    }

    /// Every intent, oldest first.
    pub fn intents(&self) -> impl DoubleEndedIterator<Item = &IntentState> {
        self.intents.values()
    }

    /// An intent by its number.
    pub fn intent(&self, id: IntentId) -> Option<&IntentState> {
        self.intents.get(&id)
    }

    /// The intents that are not settled, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &IntentState> {
        self.intents
            .values()
            .filter(|state| state.closing.is_none())
    }

    /// The name of the next attempt on a target. An attempt whose main request has no intent yet
    /// goes on under its own name: without that intent it was not sent.
    pub fn next_attempt(&self, target: &Target, remedy: Remedy) -> AttemptId {
        let last = self
            .intents
            .values()
            .filter(|state| {
                &state.intent.attempt.target == target && state.intent.attempt.remedy == remedy
            })
            .map(|state| state.intent.attempt.ordinal)
            .max();
        let ordinal = match last {
            None => 1,
            Some(last) => {
                let finished = self.intents.values().any(|state| {
                    &state.intent.attempt.target == target
                        && state.intent.attempt.remedy == remedy
                        && state.intent.attempt.ordinal == last
                        && main_step(remedy, state.intent.step.kind())
                });
                if finished { last + 1 } else { last }
            }
        };
        AttemptId {
            target: target.clone(),
            remedy,
            ordinal,
        }
    }

    /// How often a result was replayed, answered well, and had no effect.
    pub fn told_without_effect(&self, build: &BuildId, builder: &BuilderName) -> u32 {
        let target = Target::Expectation {
            build: build.clone(),
            builder: builder.clone(),
        };
        let times = self.intents.values().filter(|state| {
            state.intent.attempt.target == target
                && state.intent.step.kind() == StepKind::ReplayResult
                && matches!(state.outcome, Some((_, Outcome::Accepted(_))))
                && matches!(state.closing, Some((_, Closing::NoEffect)))
        });
        u32::try_from(times.count()).unwrap_or(u32::MAX)
    }

    /// Whether the bot took a release of a build's commit already; a start slot that is free of a
    /// commit never takes it again.
    pub fn released(&self, build: &BuildId, sha: &Sha) -> bool {
        self.intents.values().any(|state| {
            state.intent.attempt.target.build() == Some(build)
                && matches!(&state.intent.step, Step::ReleaseSlot { shas } if shas.contains(sha))
                && matches!(state.outcome, Some((_, Outcome::Accepted(_))))
        })
    }

    /// Whether the bot was made to forget a builder's green result in this generation, so that a
    /// rerun makes a new commit.
    pub fn forgotten(&self, build: &BuildId, builder: &BuilderName) -> bool {
        self.intents.values().any(|state| {
            state.intent.attempt.target.build() == Some(build)
                && state.maybe_sent()
                && matches!(
                    &state.intent.step,
                    Step::ForgetGreen { builders, .. } if builders.iter().any(|(name, _)| name == builder)
                )
        })
    }

    /// When a request of an attempt was last written down, and how many were.
    pub fn begun(&self, attempt: &AttemptId) -> Option<(Moment, usize)> {
        let written = self
            .intents
            .values()
            .filter(|state| &state.intent.attempt == attempt && state.maybe_sent());
        let times: Vec<Moment> = written.map(|state| state.at).collect();
        Some((*times.iter().max()?, times.len()))
    }

    /// When the main request of a remedy was last certainly not sent, and how often that was so in a
    /// row; `None` where the last one may have reached the bot.
    pub fn unsent(&self, target: &Target, remedy: Remedy) -> Option<(Moment, u32)> {
        let mut unsent = self
            .intents
            .values()
            .rev()
            .filter(|state| {
                &state.intent.attempt.target == target
                    && state.intent.attempt.remedy == remedy
                    && main_step(remedy, state.intent.step.kind())
            })
            .take_while(|state| !state.maybe_sent());
        let last = unsent.next()?.at;
        let before = u32::try_from(unsent.count()).unwrap_or(u32::MAX);
        Some((last, before.saturating_add(1)))
    }

    /// The main requests of a tell that may have reached the bot: for a queue since one last had an
    /// effect, else all, since a message that had its effect is not lost again by itself.
    pub fn tells<'a>(
        &'a self,
        target: &'a Target,
        remedy: Remedy,
    ) -> impl Iterator<Item = &'a IntentState> {
        let of_target = move |state: &&IntentState| {
            &state.intent.attempt.target == target
                && state.intent.attempt.remedy == remedy
                && main_step(remedy, state.intent.step.kind())
        };
        let since = self
            .intents
            .values()
            .filter(of_target)
            .filter(|state| remedy == Remedy::Unwedge && state.effective())
            .map(|state| state.id)
            .max();
        self.intents
            .values()
            .filter(of_target)
            .filter(move |state| since.is_none_or(|since| state.id > since) && state.maybe_sent())
    }

    /// The open `retry` of a build's place, if there is one.
    pub fn rerun_in_flight(&self, key: &BuildKey) -> Option<&IntentState> {
        self.open().find(|state| {
            state.is_retry()
                && state.intent.attempt.target.build().map(|build| &build.key) == Some(key)
        })
    }

    /// The open `retry` of any build of a bot.
    pub fn rerun_in_flight_on(&self, bot: &BotName) -> Option<&IntentState> {
        self.open()
            .find(|state| state.is_retry() && state.intent.attempt.target.bot() == bot)
    }

    /// Reruns of one head of one pull request in the last [`Policy::PULL_WINDOW`] that took effect:
    /// ours and other people's. Where a head is not known it counts for every head.
    pub fn effective_reruns(&self, key: &BuildKey, head: Option<&Sha>, now: Moment) -> u32 {
        let since = now.minus(Policy::PULL_WINDOW);
        let same_head = |other: Option<&Sha>| match (other, head) {
            (Some(other), Some(head)) => other == head,
            (Some(_) | None, None) | (None, Some(_)) => true,
        };
        let ours = self.reruns_of(key).filter(|state| {
            state.at >= since && state.effective() && same_head(state.intent.head_sha.as_ref())
        });
        let others = self.others.iter().filter(|other| {
            same_place(&other.key, key) && other.at >= since && same_head(other.head.as_ref())
        });
        u32::try_from(ours.count() + others.count()).unwrap_or(u32::MAX)
    }

    /// When the last rerun of a pull request may have reached the bot, and how many did in the last
    /// [`Policy::PULL_WINDOW`]; people's count too.
    pub fn last_rerun(&self, key: &BuildKey, now: Moment) -> Option<(Moment, u32)> {
        let since = now.minus(Policy::PULL_WINDOW);
        let ours = self
            .reruns_of(key)
            .filter(|state| state.maybe_sent())
            .map(|state| state.at);
        let others = self
            .others
            .iter()
            .filter(|other| same_place(&other.key, key))
            .map(|other| other.at);
        let times: Vec<Moment> = ours.chain(others).filter(|at| *at >= since).collect();
        let last = times.iter().max()?;
        Some((*last, u32::try_from(times.len()).unwrap_or(u32::MAX)))
    }

    /// When reruns were charged to a zone in the last [`Policy::ZONE_WINDOW`], oldest first.
    pub fn zone_reruns(&self, zone: &(ProviderName, BuilderName), now: Moment) -> Vec<Moment> {
        let since = now.minus(Policy::ZONE_WINDOW);
        self.intents
            .values()
            .filter(|state| {
                state.is_retry()
                    && state.maybe_sent()
                    && state.at >= since
                    && state.intent.zones.contains(zone)
            })
            .map(|state| state.at)
            .collect()
    }

    /// When a bot was restarted, or may have been, from a moment on; oldest first.
    pub fn restarts(&self, bot: &BotName, since: Moment) -> Vec<Moment> {
        self.intents
            .values()
            .filter(|state| {
                state.intent.step.kind() == StepKind::Restart
                    && state.intent.attempt.target.bot() == bot
                    && state.maybe_sent()
                    && state.at >= since
            })
            .map(|state| state.at)
            .collect()
    }

    /// The workers that were lost with reruns of one head of one pull request.
    pub fn lost_workers(&self, key: &BuildKey, head: Option<&Sha>) -> BTreeSet<WorkerName> {
        self.reruns_of(key)
            .filter(|state| head.is_some() && state.intent.head_sha.as_ref() == head)
            .flat_map(|state| state.intent.lost_workers.iter().cloned())
            .collect()
    }

    /// Which open intents are settled by what is known now, and how each ended.
    pub fn settle(
        &self,
        ledger: &Ledger,
        rows: &BTreeMap<BotName, Vec<RemedyRow>>,
        policy: &Policy,
        now: Moment,
    ) -> Vec<(IntentId, Closing)> {
        self.open()
            .filter_map(|state| {
                let row = rows
                    .get(state.intent.attempt.target.bot())
                    .and_then(|rows| rows.iter().find(|row| row.kind == state.intent.step.kind()));
                Some((state.id, closing(state, row, ledger, policy, now)?))
            })
            .collect()
    }

    fn reruns_of<'a>(&'a self, key: &'a BuildKey) -> impl Iterator<Item = &'a IntentState> {
        self.intents.values().filter(move |state| {
            state.is_retry()
                && state
                    .intent
                    .attempt
                    .target
                    .build()
                    .is_some_and(|build| same_place(&build.key, key))
        })
    }

    fn forget(&mut self) {
        while self.intents.len() > INTENTS_MAX {
            let oldest = self
                .intents
                .values()
                .find(|state| state.closing.is_some())
                .map(|state| state.id);
            match oldest {
                Some(oldest) => self.intents.remove(&oldest),
                None => break,
            };
        }
    }
}

/// How long a bot may take to show a request's effect: the longest of the builders that the request
/// is for, and not less than the bot's adapter asks for.
pub fn effect_deadline(
    row: Option<&RemedyRow>,
    policy: &Policy,
    target: &Target,
    zones: &BTreeSet<(ProviderName, BuilderName)>,
) -> Duration {
    let builders = match target {
        Target::Expectation { builder, .. } => vec![builder],
        Target::Build(_) | Target::Pull { .. } | Target::Queue { .. } | Target::Bot(_) => {
            zones.iter().map(|(_, builder)| builder).collect()
        }
    };
    let timeouts = match target.repo() {
        Some(repo) => policy.timeouts.of(repo, builders),
        None => vec![&policy.timeouts.global],
    };
    let least = row.map_or(Duration::ZERO, |row| row.deadline_min);
    timeouts
        .iter()
        .map(|timeouts| timeouts.effect)
        .fold(least, Duration::max)
}

/// Whether a kind of request is the one that a remedy is about; the others only prepare it.
fn main_step(remedy: Remedy, kind: StepKind) -> bool {
    let main = match remedy {
        Remedy::ReplayResult => [StepKind::ReplayResult, StepKind::ReplayResult],
        Remedy::ReleaseSlot => [StepKind::ReleaseSlot, StepKind::ReleaseSlot],
        Remedy::ReplayPull => [StepKind::ReplayClosed, StepKind::ReplaySynchronize],
        Remedy::Unwedge => [StepKind::Nudge, StepKind::Nudge],
        Remedy::Rerun | Remedy::Reset => [StepKind::Retry, StepKind::Retry],
        Remedy::Restart => [StepKind::Restart, StepKind::Restart],
    };
    main.contains(&kind)
}

/// Auto and try builds of one pull request share its budgets.
fn same_place(a: &BuildKey, b: &BuildKey) -> bool {
    a.bot == b.bot && a.repo == b.repo && a.pull == b.pull
}

fn closing(
    state: &IntentState,
    row: Option<&RemedyRow>,
    ledger: &Ledger,
    policy: &Policy,
    now: Moment,
) -> Option<Closing> {
    match &state.outcome {
        Some((_, Outcome::NotSent(_))) => return Some(Closing::NotSent),
        Some((_, Outcome::Refused(_))) => return Some(Closing::Refused),
        Some((_, Outcome::Accepted(_) | Outcome::Unanswered(_))) | None => {}
    }
    let effect = row.map_or(Effect::None, |row| row.effect);
    if effect == Effect::None {
        return Some(Closing::Done);
    }
    let target = &state.intent.attempt.target;
    let source = ledger.bot(target.bot())?;
    if effect == Effect::BotAnswers {
        return Some(Closing::Effect)
            .filter(|_| effect_seen(effect, state, ledger))
            .or_else(|| still_silent(state, row, &source.health, policy));
    }
    let looked = source.seen_at()?;
    if looked <= state.at {
        return None;
    }
    if effect_seen(effect, state, ledger) {
        return Some(Closing::Effect);
    }
    let mut wait = effect_deadline(row, policy, target, &state.intent.zones);
    if state.outcome.is_none() || state.in_doubt() {
        wait += Policy::ACT_DEADLINE + Policy::HTTP_TIMEOUT;
    }
    // Time in which the bot did not answer says nothing about its effect.
    let from = source
        .health
        .last_bad
        .map_or(state.at, |bad| bad.max(state.at));
    let over = source.health.error.is_none() && looked.since(from) >= wait && now >= looked;
    over.then_some(Closing::NoEffect)
}

/// The end of a restart that did not help: the bot was looked at for long enough, and never answered
/// well. Here its silence is the answer.
fn still_silent(
    state: &IntentState,
    row: Option<&RemedyRow>,
    bot: &SourceHealth,
    policy: &Policy,
) -> Option<Closing> {
    let target = &state.intent.attempt.target;
    let wait = effect_deadline(row, policy, target, &state.intent.zones);
    (bot.last_bad?.since(state.at) >= wait).then_some(Closing::NoEffect)
}

fn effect_seen(effect: Effect, state: &IntentState, ledger: &Ledger) -> bool {
    let target = &state.intent.attempt.target;
    let pending = target.build().and_then(|build| {
        ledger
            .build(&build.key)
            .filter(|tracked| tracked.id == *build && tracked.merge_sha == state.intent.merge_sha)
    });
    match effect {
        Effect::None => true,
        Effect::ResultKnownOrLeftPending => match (pending, &state.intent.step) {
            (None, _) => true,
            (
                Some(tracked),
                Step::ReplayResult {
                    builder, report, ..
                },
            ) => tracked.pending.expectations.iter().any(|e| {
                &e.builder == builder
                    && match &e.told {
                        Told::Green { .. } => report.green,
                        Told::Red { .. } => !report.green,
                        Told::Nothing | Told::Started { .. } => false,
                    }
            }),
            (
                Some(_),
                Step::ReleaseSlot { .. }
                | Step::ForgetGreen { .. }
                | Step::Retry { .. }
                | Step::Nudge { .. }
                | Step::ReplayClosed { .. }
                | Step::ReplaySynchronize { .. }
                | Step::Restart { .. },
            ) => false,
        },
        Effect::GreenForgottenOrLeftPending => match (pending, &state.intent.step) {
            (None, _) => true,
            (Some(tracked), Step::ForgetGreen { builders, .. }) => {
                tracked.pending.expectations.iter().all(|e| match &e.told {
                    Told::Green { .. } => !builders.iter().any(|(name, _)| name == &e.builder),
                    Told::Nothing | Told::Started { .. } | Told::Red { .. } => true,
                })
            }
            (
                Some(_),
                Step::ReleaseSlot { .. }
                | Step::ReplayResult { .. }
                | Step::Retry { .. }
                | Step::Nudge { .. }
                | Step::ReplayClosed { .. }
                | Step::ReplaySynchronize { .. }
                | Step::Restart { .. },
            ) => false,
        },
        Effect::NewRunOrLeftPending => pending.is_none_or(|tracked| {
            tracked
                .runs
                .iter()
                .any(|(id, run)| run.first_seen > state.at && !state.intent.runs.contains(id))
        }),
        Effect::SomethingPending => ledger.builds().any(|tracked| {
            tracked.is_auto()
                && &tracked.id.key.bot == target.bot()
                && Some(&tracked.id.key.repo) == target.repo()
        }),
        Effect::AgreesWithGithub => agrees(target, ledger),
        Effect::BotAnswers => {
            let looked = ledger.bot(target.bot()).and_then(Source::seen_at);
            looked.is_some_and(|looked| looked > state.at)
        }
    }
}

/// Whether the bot no longer holds a pull request that GitHub knows otherwise.
fn agrees(target: &Target, ledger: &Ledger) -> bool {
    let (Some(number), Some(repo)) = (target.pull(), target.repo()) else {
        return true;
    };
    let outdated_build = ledger.builds().any(|tracked| {
        &tracked.id.key.bot == target.bot()
            && &tracked.id.key.repo == repo
            && tracked.id.key.pull == number
            && tracked.outdated_since.is_some()
    });
    let snapshot = ledger.bot(target.bot()).and_then(|s| s.snapshot.as_ref());
    let outdated_pull = snapshot.is_some_and(|(_, snapshot)| {
        snapshot.repos.get(repo).is_some_and(|repo| {
            repo.approved.iter().any(|pull| {
                pull.pull == number
                    && match (&pull.github, &pull.head_sha) {
                        (PullOnGithub::Closed, _) => true,
                        (PullOnGithub::Open { head }, Some(bot)) => head != bot,
                        (PullOnGithub::Open { .. }, None) | (PullOnGithub::Unknown, _) => false,
                    }
            })
        })
    });
    !outdated_build && !outdated_pull
}

#[cfg(test)]
mod tests;
