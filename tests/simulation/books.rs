//! Budgets, cooldowns and open intents, reckoned from the journal's records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ci_watchdog::decision::plan::Attempt;
use ci_watchdog::decision::policy::Policy;
use ci_watchdog::model::{
    BuildId, BuildKey, BuilderName, Closing, Intent, IntentId, Moment, Order, Outcome,
    ProviderName, Record, Remedy, Sha, SightingCause, Step, StepKind, Stop, Target, WorkerName,
};

use super::journal::Journal;

/// How long a request may still act that nobody answered: act deadline, HTTP timeout, effect deadline.
const IN_DOUBT: Duration = Duration::from_secs(5 + 10 + 120);

/// An intent with what became of it.
struct Entry<'a> {
    at: Moment,
    intent: &'a Intent,
    outcome: Option<&'a Outcome>,
    closing: Option<Closing>,
}

impl Entry<'_> {
    fn maybe_sent(&self) -> bool {
        !matches!(self.outcome, Some(Outcome::NotSent(_))) && self.closing != Some(Closing::NotSent)
    }
}

fn entries(journal: &Journal) -> BTreeMap<IntentId, Entry<'_>> {
    let mut entries = BTreeMap::new();
    for record in &journal.records {
        match record {
            Record::Sighting(_) | Record::Order(_) | Record::Finding(_) | Record::Ending(_) => {}
            Record::Intent { id, at, intent } => {
                entries.insert(
                    *id,
                    Entry {
                        at: *at,
                        intent,
                        outcome: None,
                        closing: None,
                    },
                );
            }
            Record::Outcome { id, outcome, .. } => {
                if let Some(entry) = entries.get_mut(id) {
                    entry.outcome = Some(outcome);
                }
            }
            Record::Closed { id, closing, .. } => {
                if let Some(entry) = entries.get_mut(id) {
                    entry.closing = Some(*closing);
                }
            }
        }
    }
    entries
}

fn same_pull(a: &BuildKey, b: &BuildKey) -> bool {
    (&a.bot, &a.repo, a.pull) == (&b.bot, &b.repo, b.pull)
}

fn same_head(a: Option<&Sha>, b: Option<&Sha>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        (Some(_) | None, None) | (None, Some(_)) => true,
    }
}

/// Why an intent must not be written: another on the same build is not settled, or its attempt sent
/// its `retry` already.
pub fn unsettled(journal: &Journal, intent: &Intent, now: Moment) -> Vec<String> {
    let mut broken = Vec::new();
    let key = |target: &Target| target.build().map(|build| build.key.clone());
    for (id, entry) in entries(journal) {
        let theirs = &entry.intent.attempt;
        let ours = &intent.attempt;
        let reruns = theirs.remedy == Remedy::Rerun || ours.remedy == Remedy::Rerun;
        let same = theirs.target == ours.target && theirs.remedy == ours.remedy
            || key(&ours.target).is_some() && key(&theirs.target) == key(&ours.target) && reruns;
        if entry.closing.is_none() && same {
            broken.push(format!("intent {} is not settled", id.0));
        }
        let same_request = theirs.target == ours.target
            && entry.intent.step.kind() == intent.step.kind()
            && intent.step.kind() != StepKind::ReleaseSlot;
        let doubtful = match (entry.outcome, entry.closing) {
            (_, Some(Closing::Effect)) => false,
            (None | Some(Outcome::Unanswered(_)), _) => true,
            (Some(Outcome::Accepted(_) | Outcome::Refused(_) | Outcome::NotSent(_)), _) => false,
        };
        if same_request && doubtful && now.since(entry.at) < IN_DOUBT {
            broken.push(format!("intent {} may still act", id.0));
        }
        if theirs == ours
            && entry.intent.step.kind() == StepKind::Retry
            && intent.step.kind() == StepKind::Retry
        {
            broken.push("its attempt has sent its retry already".to_owned());
        }
    }
    broken
}

/// Which operator's stop an intent breaks.
pub fn stopped(journal: &Journal, intent: &Intent, now: Moment) -> Option<String> {
    let mut stops: Vec<&Stop> = Vec::new();
    for record in &journal.records {
        match record {
            Record::Order(Order::Stop(stop)) => {
                stops.retain(|one| (one.kind, &one.scope) != (stop.kind, &stop.scope));
                stops.push(stop);
            }
            Record::Order(Order::Go { kind, scope, .. }) => stops.retain(|one| {
                one.kind != *kind || scope.as_ref().is_some_and(|scope| scope != &one.scope)
            }),
            Record::Sighting(_)
            | Record::Intent { .. }
            | Record::Outcome { .. }
            | Record::Closed { .. }
            | Record::Finding(_)
            | Record::Ending(_) => {}
        }
    }
    let target = &intent.attempt.target;
    let of_builder = |builder: &BuilderName| match target {
        Target::Expectation { builder: one, .. } => one == builder,
        Target::Build(_) | Target::Pull { .. } | Target::Queue { .. } | Target::Bot(_) => {
            intent.zones.iter().any(|(_, one)| one == builder)
        }
    };
    let binds = |stop: &&&Stop| {
        let scope = &stop.scope;
        let repo = scope.repo.as_ref();
        stop.until.is_none_or(|until| now < until)
            && repo.is_none_or(|repo| target.repo() == Some(repo))
            && scope.pull.is_none_or(|pull| target.pull() == Some(pull))
            && scope.builder.as_ref().is_none_or(of_builder)
    };
    let stop = stops.iter().find(binds)?;
    Some(format!("{} is {}", stop.scope, stop.kind.as_str()))
}

/// Restarts of a bot that were, or may have been, in a time up to now.
pub fn restarts(journal: &Journal, intent: &Intent, now: Moment, per: Duration) -> usize {
    let of_bot = |entry: &&Entry<'_>| {
        entry.intent.step.kind() == StepKind::Restart
            && entry.intent.attempt.target == intent.attempt.target
            && entry.maybe_sent()
            && now.since(entry.at) < per
    };
    entries(journal).values().filter(of_bot).count()
}

/// Which budgets a rerun breaks.
pub fn budgets(journal: &Journal, intent: &Intent, now: Moment) -> Vec<String> {
    let mut broken = Vec::new();
    let Some(build) = intent.attempt.target.build() else {
        return broken;
    };
    let key = &build.key;
    let day = now.minus(Duration::from_secs(24 * 60 * 60));
    let mut times: Vec<Moment> = Vec::new();
    let mut effective = 0;
    let mut lost: BTreeSet<&WorkerName> = intent.lost_workers.iter().collect();
    for entry in entries(journal).values() {
        if entry.intent.step.kind() != StepKind::Retry {
            continue;
        }
        let theirs = &entry.intent.attempt.target;
        if theirs.bot() == &key.bot && entry.closing.is_none() {
            broken.push("another rerun of this bot is under way".to_owned());
        }
        let Some(theirs) = theirs.build().filter(|theirs| same_pull(&theirs.key, key)) else {
            continue;
        };
        let _ = theirs;
        let head = entry.intent.head_sha.as_ref();
        if entry.at >= day && entry.maybe_sent() {
            times.push(entry.at);
        }
        if entry.at >= day
            && entry.closing == Some(Closing::Effect)
            && same_head(head, intent.head_sha.as_ref())
        {
            effective += 1;
        }
        if head.is_some() && head == intent.head_sha.as_ref() {
            lost.extend(&entry.intent.lost_workers);
        }
    }
    for (at, head) in others(journal, key).filter(|(at, _)| *at >= day) {
        times.push(at);
        if same_head(head, intent.head_sha.as_ref()) {
            effective += 1;
        }
    }
    if effective >= 2 {
        broken.push(format!("{effective} reruns of this head took effect today"));
    }
    if lost.len() >= 2 {
        broken.push("two workers were lost on this head".to_owned());
    }
    if let Some(last) = times.iter().max() {
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let pause = Duration::from_secs(300) * (count * (count + 1) / 2);
        let pause = pause.min(Duration::from_secs(3 * 60 * 60));
        if now.since(*last) < pause {
            broken.push(format!("the last of {count} reruns is too recent"));
        }
    }
    for zone in &intent.zones {
        let reruns = zone_reruns(journal, zone, now);
        if reruns >= 3 {
            broken.push(format!("{} had {reruns} reruns in an hour", zone.1));
        }
    }
    broken
}

fn others<'a>(
    journal: &'a Journal,
    key: &'a BuildKey,
) -> impl Iterator<Item = (Moment, Option<&'a Sha>)> {
    journal
        .records
        .iter()
        .filter_map(move |record| match record {
            Record::Sighting(sighting)
                if sighting.cause == SightingCause::OthersRerun
                    && same_pull(&sighting.build.key, key) =>
            {
                Some((sighting.at, sighting.head_sha.as_ref()))
            }
            Record::Sighting(_)
            | Record::Intent { .. }
            | Record::Outcome { .. }
            | Record::Closed { .. }
            | Record::Order(_)
            | Record::Finding(_)
            | Record::Ending(_) => None,
        })
}

/// Reruns that were charged to a zone in the last hour.
pub fn zone_reruns(journal: &Journal, zone: &(ProviderName, BuilderName), now: Moment) -> usize {
    let hour = now.minus(Policy::ZONE_WINDOW);
    entries(journal)
        .values()
        .filter(|entry| {
            entry.intent.step.kind() == StepKind::Retry
                && entry.maybe_sent()
                && entry.at >= hour
                && entry.intent.zones.contains(zone)
        })
        .count()
}

/// Reruns of an attempt's head that took effect in the last day.
pub fn effective_reruns(journal: &Journal, attempt: &Attempt, now: Moment) -> usize {
    let Some(build) = attempt.id.target.build() else {
        return 0;
    };
    let day = now.minus(Policy::PULL_WINDOW);
    let ours = entries(journal)
        .values()
        .filter(|entry| {
            entry.intent.step.kind() == StepKind::Retry
                && entry.at >= day
                && entry.closing == Some(Closing::Effect)
                && same_head(entry.intent.head_sha.as_ref(), attempt.head_sha.as_ref())
                && entry
                    .intent
                    .attempt
                    .target
                    .build()
                    .is_some_and(|theirs| same_pull(&theirs.key, &build.key))
        })
        .count();
    let theirs = others(journal, &build.key)
        .filter(|(at, head)| *at >= day && same_head(*head, attempt.head_sha.as_ref()))
        .count();
    ours + theirs
}

/// How often a result was replayed in this generation, answered well, without effect.
pub fn told_without_effect(journal: &Journal, build: &BuildId, builder: &BuilderName) -> u32 {
    let target = Target::Expectation {
        build: build.clone(),
        builder: builder.clone(),
    };
    let times = entries(journal)
        .values()
        .filter(|entry| {
            entry.intent.attempt.target == target
                && entry.intent.step.kind() == StepKind::ReplayResult
                && matches!(entry.outcome, Some(Outcome::Accepted(_)))
                && entry.closing == Some(Closing::NoEffect)
        })
        .count();
    u32::try_from(times).unwrap_or(u32::MAX)
}

/// Whether the bot was made to forget a green result on purpose.
pub fn forgotten(journal: &Journal, build: &BuildId, builder: &BuilderName) -> bool {
    forgotten_where(journal, build, builder, |_| true)
}

/// The same, where no person asked for it: nothing of the build was alive then.
pub fn forgotten_by_itself(journal: &Journal, build: &BuildId, builder: &BuilderName) -> bool {
    forgotten_where(journal, build, builder, |intent| intent.by.is_none())
}

fn forgotten_where(
    journal: &Journal,
    build: &BuildId,
    builder: &BuilderName,
    counts: impl Fn(&Intent) -> bool,
) -> bool {
    entries(journal).values().any(|entry| {
        entry.intent.attempt.target.build() == Some(build)
            && entry.maybe_sent()
            && counts(entry.intent)
            && matches!(
                &entry.intent.step,
                Step::ForgetGreen { builders, .. } if builders.iter().any(|(name, _)| name == builder)
            )
    })
}
