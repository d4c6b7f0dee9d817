//! May I act? The gates in their order; the first that is shut is a hold's reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::effect_deadline;
use super::judge::BuildJudgement;
use super::plan::{Attempt, Desk};
use super::policy::{BuildSafety, Mode, OnSilence, Policy};
use super::restart::Restart;
use super::zones::{OutageCause, ZoneKey, ZoneState};
use crate::model::{
    AttemptId, BotName, BuildKey, BuilderName, Gate, GithubState, Intent, Moment, Outcome,
    ProviderName, Remedy, RepoName, Scope, Stop, StopKind, Target, Verdict, WorkerName,
};

/// Requests of one attempt that may be sent before its main one; beyond them it is begun again only
/// after a long pause.
const BEGINNINGS_MAX: usize = 6;
/// The longest pause before what could not be sent, or not be carried through, is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// What the configuration or another system says about acting, beside the orders in the journal. A
/// gate whose source is not configured is satisfied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// Exclusions, and maintenance that is under way.
    pub stops: Vec<Stop>,
    /// Repositories and single builders whose alerts are silenced, each with the silence's comment.
    pub silenced: BTreeMap<(RepoName, Option<BuilderName>), String>,
    /// Why the journal cannot be written, where it cannot.
    pub journal: Option<String>,
}

/// A gate that failed.
pub(super) struct Shut {
    /// The gate.
    pub(super) gate: Gate,
    /// Why it is shut, as a sentence without a final stop.
    pub(super) reason: String,
    /// When it opens by itself, where that is known.
    pub(super) until: Option<Moment>,
}

impl Shut {
    fn new(gate: Gate, reason: impl Into<String>) -> Self {
        Self {
            gate,
            reason: reason.into(),
            until: None,
        }
    }

    fn until(mut self, moment: Moment) -> Self {
        self.until = Some(moment);
        self
    }
}

/// The first gate that is shut, in the order of [`Gate::ALL`].
pub(super) fn first_shut(
    desk: Desk<'_>,
    attempt: &Attempt,
    rerun: Option<&BuildJudgement>,
    planned_rerun: bool,
) -> Option<Shut> {
    common_gate(desk, attempt)
        .or_else(|| begun_gate(desk, attempt))
        .or_else(|| unsent_gate(desk, attempt))
        .or_else(|| match rerun {
            None => tell_gate(desk, attempt),
            Some(build) => rerun_gate(desk, attempt, build, planned_rerun),
        })
        .or_else(|| mode_gate(desk))
}

/// The gates of a restart: those that do not ask the bot for anything. It is not held by stops of a
/// part of the bot's work, and never sent during an outage of what the bot needs: restarting the bot
/// would not help, and the bot may only seem dead.
pub(super) fn first_shut_of_restart(
    desk: Desk<'_>,
    attempt: &Attempt,
    restart: &Restart,
) -> Option<Shut> {
    own_gate(desk, attempt)
        .or_else(|| doubt_gate(desk, attempt))
        .or_else(|| journal_gate(desk))
        .or_else(|| unsent_gate(desk, attempt))
        .or_else(|| needs_gate(desk, attempt.id.target.bot()))
        .or_else(|| restarts_gate(desk, attempt.id.target.bot(), restart))
        .or_else(|| mode_gate(desk))
}

fn mode_gate(desk: Desk<'_>) -> Option<Shut> {
    match desk.policy.mode {
        Mode::Observe => Some(Shut::new(
            Gate::Observe,
            "mode = \"observe\": this would be sent in mode = \"act\"",
        )),
        Mode::Act => None,
    }
}

pub(super) fn common_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    own_gate(desk, attempt).or_else(|| request_gate(desk, attempt))
}

/// What binds whatever we do by ourselves: the operator's word, and whether we looked well.
fn own_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    stop_gate(desk, attempt, StopKind::Pause)
        .or_else(|| stop_gate(desk, attempt, StopKind::Exclusion))
        .or_else(|| silenced_gate(desk, attempt))
        .or_else(|| {
            let (reason, until) = desk.health.settled(desk.now, desk.policy).err()?;
            Some(Shut::new(Gate::NotSettled, reason).until(until))
        })
}

/// A stop that binds the attempt: of the operator's orders, then of the configuration's.
fn stop_gate(desk: Desk<'_>, attempt: &Attempt, kind: StopKind) -> Option<Shut> {
    let mut stops = desk
        .history
        .stops(desk.now)
        .chain(&desk.operator.stops)
        .filter(|stop| stop.kind == kind);
    let stop = stops.find(|stop| binds(&stop.scope, attempt))?;
    let gate = match kind {
        StopKind::Pause => Gate::Paused,
        StopKind::Exclusion => Gate::Excluded,
    };
    let Stop {
        by, scope, reason, ..
    } = stop;
    let reason = format!("{} by {by} ({scope}): {reason}", kind.as_str());
    Some(Shut {
        gate,
        reason,
        until: stop.until,
    })
}

fn binds(scope: &Scope, attempt: &Attempt) -> bool {
    let target = &attempt.id.target;
    scope
        .repo
        .as_ref()
        .is_none_or(|repo| target.repo() == Some(repo))
        && scope.pull.is_none_or(|pull| target.pull() == Some(pull))
        && scope
            .builder
            .as_ref()
            .is_none_or(|builder| builders(attempt).any(|one| one == builder))
}

/// The builders that an attempt is for.
fn builders(attempt: &Attempt) -> impl Iterator<Item = &BuilderName> {
    let told = match &attempt.id.target {
        Target::Expectation { builder, .. } => Some(builder),
        Target::Build(_) | Target::Pull { .. } | Target::Queue { .. } | Target::Bot(_) => None,
    };
    let charged = attempt.zones.iter().map(|(_, builder)| builder);
    charged.chain(told)
}

fn silenced_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    let repo = attempt.id.target.repo()?;
    let builders = builders(attempt).map(|builder| Some(builder.clone()));
    let reason = std::iter::once(None)
        .chain(builders)
        .find_map(|builder| desk.operator.silenced.get(&(repo.clone(), builder)))?;
    Some(Shut::new(Gate::Silenced, format!("silenced: {reason}")))
}

/// What binds every request, also one that a person asks for: that the bot answers, that nothing of
/// the same kind is in doubt, and that the journal can be written.
pub(super) fn request_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    answer_gate(desk, attempt.id.target.bot())
        .or_else(|| doubt_gate(desk, attempt))
        .or_else(|| journal_gate(desk))
}

pub(super) fn answer_gate(desk: Desk<'_>, name: &BotName) -> Option<Shut> {
    let bot = desk.ledger.bot(name);
    let answers = bot.is_some_and(|bot| {
        bot.health.error.is_none() && bot.fresh(desk.now, desk.policy.snapshot_life()).is_some()
    });
    if !answers {
        let why = bot
            .and_then(|bot| bot.health.error.as_ref())
            .map_or_else(|| "not seen yet".to_owned(), ToString::to_string);
        return Some(Shut::new(
            Gate::BotSilent,
            format!("{name} does not answer: {why}"),
        ));
    }
    None
}

fn doubt_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    let state = desk
        .history
        .open()
        .find(|state| blocks(&state.intent, attempt))?;
    Some(Shut::new(
        Gate::InDoubt,
        format!(
            "{} of attempt {} is not settled yet: {}",
            state.intent.step.kind(),
            state.intent.attempt,
            if state.in_doubt() {
                "whether the bot took it is unknown"
            } else {
                "its effect is awaited"
            }
        ),
    ))
}

fn journal_gate(desk: Desk<'_>) -> Option<Shut> {
    desk.operator.journal.as_ref().map(|why| {
        Shut::new(
            Gate::Journal,
            format!("the journal cannot be written: {why}"),
        )
    })
}

/// An attempt that was begun and not carried through is not begun again at every tick, and ever more
/// rarely: the bot's way in may be shut for now.
fn begun_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    if desk.continuing == Some(&attempt.id) {
        return None;
    }
    let (last, requests) = desk.history.begun(&attempt.id)?;
    if requests >= BEGINNINGS_MAX {
        let next = last + PAUSE_MAX;
        return (desk.now < next).then(|| {
            Shut::new(
                Gate::MessageSent,
                format!(
                    "begun with {requests} requests and never carried through; a person should look"
                ),
            )
            .until(next)
        });
    }
    let next = last + effect_deadline(None, desk.policy, &attempt.id.target, &attempt.zones);
    (desk.now < next).then(|| {
        Shut::new(
            Gate::MessageSent,
            "begun a moment ago and not carried through, because the last look saw something else",
        )
        .until(next)
    })
}

/// What could not even be sent is tried again ever more rarely: the bot may be starting, or its
/// adapter may refuse it for good.
fn unsent_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    if desk.continuing == Some(&attempt.id) {
        return None;
    }
    let (last, times) = desk.history.unsent(&attempt.id.target, attempt.id.remedy)?;
    let pause = effect_deadline(None, desk.policy, &attempt.id.target, &attempt.zones);
    let next = last + pause.saturating_mul(times).min(PAUSE_MAX);
    (desk.now < next).then(|| {
        Shut::new(
            Gate::MessageSent,
            format!("could not be sent {times} times in a row"),
        )
        .until(next)
    })
}

/// Whether an open intent must be settled first: any on the same target; for a rerun any on the
/// same build; and for anything on a build an open rerun of it.
fn blocks(open: &Intent, attempt: &Attempt) -> bool {
    let theirs = &open.attempt.target;
    let ours = &attempt.id.target;
    if theirs == ours && open.attempt.remedy == attempt.id.remedy {
        return true;
    }
    let key = |target: &Target| target.build().map(|build| build.key.clone());
    let same_build = key(theirs).is_some() && key(theirs) == key(ours);
    same_build && (attempt.id.remedy.is_rerun() || open.attempt.remedy.is_rerun())
}

fn tell_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    let target = &attempt.id.target;
    let sent: Vec<_> = desk.history.tells(target, attempt.id.remedy).collect();
    if let Some(last) = sent.last() {
        let times = u32::try_from(sent.len()).unwrap_or(u32::MAX);
        let row = desk
            .rows
            .get(target.bot())
            .and_then(|rows| rows.iter().find(|row| row.kind == last.intent.step.kind()));
        let next = last.at + effect_deadline(row, desk.policy, target, &attempt.zones);
        let word = match &last.outcome {
            Some((_, Outcome::Refused(why))) => format!("refused: {why}"),
            Some((_, Outcome::Unanswered(why))) => format!("unanswered: {why}"),
            Some((_, Outcome::Accepted(_) | Outcome::NotSent(_))) | None => {
                "without effect".to_owned()
            }
        };
        if times >= Policy::TELLS_MAX {
            return Some(Shut::new(
                Gate::MessageSent,
                format!("sent {times} times, the last one {word}; a person must look"),
            ));
        }
        if desk.now < next {
            return Some(
                Shut::new(
                    Gate::MessageSent,
                    format!("sent {times} times, the last one a moment ago"),
                )
                .until(next),
            );
        }
    }
    match (attempt.id.remedy, target.build()) {
        (Remedy::ReplayResult, Some(build)) => {
            outdated_gate(desk, &build.key).or_else(|| github_gate(desk, &build.key))
        }
        (
            Remedy::ReplayResult
            | Remedy::ReleaseSlot
            | Remedy::ReplayPull
            | Remedy::Unwedge
            | Remedy::Rerun
            | Remedy::Reset
            | Remedy::Restart,
            _,
        ) => None,
    }
}

/// A late green result must not merge a pull request that is closed or has moved on.
pub(super) fn outdated_gate(desk: Desk<'_>, key: &BuildKey) -> Option<Shut> {
    let tracked = desk.ledger.build(key)?;
    tracked.outdated_since.map(|_| {
        Shut::new(
            Gate::Outdated,
            "the pull request is closed or has another head on GitHub than the bot tests",
        )
    })
}

fn rerun_gate(
    desk: Desk<'_>,
    attempt: &Attempt,
    build: &BuildJudgement,
    planned_rerun: bool,
) -> Option<Shut> {
    let key = &build.id.key;
    confirmed_gate(desk, build)
        .or_else(|| outdated_gate(desk, key))
        .or_else(|| law_gate(build))
        .or_else(|| silence_gate(desk, build))
        .or_else(|| sources_gate(desk, attempt, build))
        .or_else(|| zones_gate(desk, attempt))
        .or_else(|| budgets_gate(desk, attempt, build, planned_rerun))
        .or_else(|| bot_gate(desk, key))
}

pub(super) fn confirmed_gate(desk: Desk<'_>, build: &BuildJudgement) -> Option<Shut> {
    let key = &build.id.key;
    let tracked = desk.ledger.build(key)?;
    let dead: Vec<Option<&BuilderName>> = if build.own == Some(Verdict::Orphaned) {
        vec![None]
    } else {
        let dead = build.expectations.iter().filter(|e| e.dead);
        dead.map(|e| Some(&e.builder)).collect()
    };
    dead.into_iter().find_map(|builder| {
        let needed = match builder {
            Some(builder) => desk.policy.builds.builder(&key.repo, builder).looks,
            None => desk.policy.builds.repo(&key.repo).looks,
        };
        let death = tracked.deaths.get(&builder.cloned());
        let counts = death.is_some_and(|death| death.counts(needed, desk.policy.tick, desk.now));
        (!counts).then(|| {
            Shut::new(
                Gate::Confirming,
                format!(
                    "found dead in {} looks in a row of {needed}",
                    death.map_or(0, |death| death.looks)
                ),
            )
        })
    })
}

fn law_gate(build: &BuildJudgement) -> Option<Shut> {
    if build.rerun_is_lawful() {
        return None;
    }
    let others: Vec<String> = build
        .expectations
        .iter()
        .filter(|e| e.lacking && !e.dead)
        .map(|e| format!("{} is {}", e.builder, e.verdict))
        .collect();
    Some(Shut::new(
        Gate::LawOfReruns,
        format!(
            "not everything that is lacking is dead: {}",
            others.join(", ")
        ),
    ))
}

fn silence_gate(desk: Desk<'_>, build: &BuildJudgement) -> Option<Shut> {
    let key = &build.id.key;
    let own = desk
        .own_timeouts
        .get(&(key.bot.clone(), key.repo.clone()))
        .map(|own| *own + Policy::OWN_TIMEOUT_SLACK);
    build
        .expectations
        .iter()
        .filter(|e| e.verdict == Verdict::Stalled)
        .find_map(|e| {
            let safety = desk.policy.builds.builder(&key.repo, &e.builder);
            let total = desk.policy.timeouts.builder(&key.repo, &e.builder).total;
            let until = build.first_seen + own.map_or(total, |own| own.max(total));
            match safety.on_silence {
                OnSilence::Retry => None,
                OnSilence::Alert => (desk.now < until).then(|| {
                    Shut::new(
                        Gate::OnSilence,
                        format!("{} is only silent, and on_silence = \"alert\"", e.builder),
                    )
                    .until(until)
                }),
            }
        })
}

/// The limits on a rerun of a build: of each, the strictest of those of its dead builders. An orphan
/// has no builder that is to blame; the repository's bind it.
fn strictest(desk: Desk<'_>, build: &BuildJudgement) -> BuildSafety {
    let repo = &build.id.key.repo;
    let dead = build.expectations.iter().filter(|e| e.dead);
    let limits = dead.map(|e| desk.policy.builds.builder(repo, &e.builder).clone());
    let strictest = limits.reduce(|a, b| BuildSafety {
        looks: a.looks.max(b.looks),
        source_good_for: a.source_good_for.max(b.source_good_for),
        cooldown: a.cooldown.max(b.cooldown),
        reruns_per_pull: a.reruns_per_pull.min(b.reruns_per_pull),
        on_silence: match (a.on_silence, b.on_silence) {
            (OnSilence::Retry, OnSilence::Retry) => OnSilence::Retry,
            (OnSilence::Alert, _) | (_, OnSilence::Alert) => OnSilence::Alert,
        },
    });
    strictest.unwrap_or_else(|| desk.policy.builds.repo(repo).clone())
}

fn sources_gate(desk: Desk<'_>, attempt: &Attempt, build: &BuildJudgement) -> Option<Shut> {
    let key = &build.id.key;
    let needed = strictest(desk, build).source_good_for;
    let mut providers = attempt.zones.iter().map(|(provider, _)| provider);
    if let Some(shut) = providers
        .find_map(|provider| provider_gate(desk, provider, needed))
        .or_else(|| github_gate(desk, key))
    {
        return Some(shut);
    }
    let (_, snapshot) = desk.ledger.bot(&key.bot)?.snapshot.as_ref()?;
    match &snapshot.github {
        GithubState::NotConfigured | GithubState::Failed(_) => None,
        GithubState::Good(_) => good_github_gate(desk, &key.bot, needed),
    }
}

/// Whether a provider has answered well for long enough.
fn provider_gate(desk: Desk<'_>, provider: &ProviderName, needed: Duration) -> Option<Shut> {
    let health = desk.ledger.provider(provider).map(|source| &source.health);
    let good = health.and_then(|health| health.good_for(desk.now));
    if good.is_some_and(|good| good >= needed) {
        return None;
    }
    let reason = match health.and_then(|health| health.error.as_ref()) {
        Some(error) => format!("{provider} does not answer: {error}"),
        None => format!(
            "{provider} has not answered well for {} yet",
            humantime::format_duration(needed)
        ),
    };
    let shut = Shut::new(Gate::ProviderNotGood, reason);
    let bad = health.and_then(|health| health.last_bad);
    Some(match bad.filter(|_| good.is_some()) {
        Some(bad) => shut.until(bad + needed),
        None => shut,
    })
}

/// Whether a GitHub that answers has done so for long enough.
fn good_github_gate(desk: Desk<'_>, bot: &BotName, needed: Duration) -> Option<Shut> {
    let health = desk.ledger.github(bot)?;
    let good = health.good_for(desk.now);
    good.is_none_or(|good| good < needed).then(|| {
        Shut::new(
            Gate::GithubNotGood,
            format!(
                "GitHub has not answered well for {} yet",
                humantime::format_duration(needed)
            ),
        )
    })
}

/// Whether everything that a bot needs is well: each provider, the GitHub behind it, and the zones of
/// what it waits for. A bot that hangs on one of them looks dead, and is not helped by a restart.
fn needs_gate(desk: Desk<'_>, bot: &BotName) -> Option<Shut> {
    let needed = desk.policy.builds.global.source_good_for;
    let providers: BTreeSet<&ProviderName> = desk.routes.0.values().flatten().collect();
    let pending = desk.ledger.builds().filter(|t| &t.id.key.bot == bot);
    let zones: BTreeSet<ZoneKey> = pending
        .flat_map(|tracked| &tracked.pending.expectations)
        .flat_map(|e| {
            let providers = desk.routes.providers(e.system).iter();
            providers.map(|provider| (provider.clone(), e.builder.clone()))
        })
        .collect();
    providers
        .into_iter()
        .find_map(|provider| provider_gate(desk, provider, needed))
        .or_else(|| knocked_github_gate(desk, bot, needed))
        .or_else(|| {
            let seen = zones.iter().filter(|key| desk.zones.get(key).is_some());
            seen.into_iter().find_map(|key| zone_gate(desk, key))
        })
}

/// The GitHub behind a bot that is silent: nobody asks it but with a knock, which must be of the same
/// look.
fn knocked_github_gate(desk: Desk<'_>, bot: &BotName, needed: Duration) -> Option<Shut> {
    let looked = desk.ledger.bot(bot).and_then(|bot| bot.health.last_bad);
    let knocked = desk.ledger.knocked(bot).filter(|(at, _)| {
        desk.now.since(*at) <= desk.policy.snapshot_life() && Some(*at) >= looked
    });
    match knocked {
        None => Some(Shut::new(
            Gate::GithubNotGood,
            "GitHub was not asked since the last look",
        )),
        Some((_, GithubState::NotConfigured)) => None,
        Some((_, GithubState::Failed(error))) => Some(Shut::new(
            Gate::GithubNotGood,
            format!("GitHub does not answer: {error}"),
        )),
        Some((_, GithubState::Good(_))) => good_github_gate(desk, bot, needed),
    }
}

fn restarts_gate(desk: Desk<'_>, bot: &BotName, restart: &Restart) -> Option<Shut> {
    let restarts = desk.history.restarts(bot, desk.now.minus(restart.per));
    let limit = usize::try_from(restart.times).unwrap_or(usize::MAX);
    let oldest = restarts.get(restarts.len().checked_sub(limit)?)?;
    Some(
        Shut::new(
            Gate::RestartBudget,
            format!(
                "{bot} was restarted {} times in {}, and at_most = \"{restart}\"",
                restarts.len(),
                humantime::format_duration(restart.per)
            ),
        )
        .until(*oldest + restart.per),
    )
}

/// While GitHub does not answer nobody knows whether the pull request is still open and at that head.
pub(super) fn github_gate(desk: Desk<'_>, key: &BuildKey) -> Option<Shut> {
    let (_, snapshot) = desk.ledger.bot(&key.bot)?.snapshot.as_ref()?;
    match &snapshot.github {
        GithubState::NotConfigured | GithubState::Good(_) => None,
        GithubState::Failed(error) => Some(Shut::new(
            Gate::GithubNotGood,
            format!("GitHub does not answer: {error}"),
        )),
    }
}

fn zones_gate(desk: Desk<'_>, attempt: &Attempt) -> Option<Shut> {
    attempt.zones.iter().find_map(|key| zone_gate(desk, key))
}

fn zone_gate(desk: Desk<'_>, key: &ZoneKey) -> Option<Shut> {
    let (provider, builder) = key;
    let Some(zone) = desk.zones.get(key) else {
        return Some(Shut::new(
            Gate::ZoneOutage,
            format!("the workers of {builder} at {provider} were not seen yet"),
        ));
    };
    match &zone.state {
        ZoneState::Good => None,
        ZoneState::Cooldown { until } => Some(
            Shut::new(
                Gate::StormCooldown,
                format!("the outage of {builder} at {provider} ended a moment ago"),
            )
            .until(*until),
        ),
        ZoneState::Outage { cause, .. } => Some(Shut::new(
            Gate::ZoneOutage,
            format!(
                "{builder} at {provider} is in outage: {}",
                outage(*cause, zone.able, zone.configured)
            ),
        )),
    }
}

/// Why a zone is in outage, as a clause.
pub fn outage(cause: OutageCause, able: usize, configured: usize) -> String {
    match cause {
        OutageCause::NoneAble => format!("none of its {configured} workers is able"),
        OutageCause::MostGone => format!("only {able} of its {configured} workers are able"),
        OutageCause::Deaths(builds) => format!("{builds} builds died in a short time"),
    }
}

fn budgets_gate(
    desk: Desk<'_>,
    attempt: &Attempt,
    build: &BuildJudgement,
    planned_rerun: bool,
) -> Option<Shut> {
    let key = &build.id.key;
    let safety = strictest(desk, build);
    if let Some((last, count)) = desk.history.last_rerun(key, desk.now) {
        let until = last + cooldown(safety.cooldown, count, &attempt.id);
        if desk.now < until {
            return Some(
                Shut::new(
                    Gate::Cooldown,
                    format!("{count} reruns in a day, the last one is too recent"),
                )
                .until(until),
            );
        }
    }
    let effective = desk
        .history
        .effective_reruns(key, build.head_sha.as_ref(), desk.now);
    if effective >= safety.reruns_per_pull {
        return Some(Shut::new(
            Gate::PullBudget,
            format!(
                "{effective} reruns of this head in a day took effect already, people's included"
            ),
        ));
    }
    let mut lost = desk.history.lost_workers(key, build.head_sha.as_ref());
    lost.extend(attempt.lost_workers.iter().cloned());
    if lost.len() >= 2 {
        let names: Vec<&str> = lost.iter().map(WorkerName::as_str).collect();
        return Some(Shut::new(
            Gate::WorkerKiller,
            format!(
                "workers {} were lost on this head: it may be the build that kills them",
                names.join(", ")
            ),
        ));
    }
    if planned_rerun || desk.history.rerun_in_flight_on(&key.bot).is_some() {
        return Some(Shut::new(
            Gate::RerunInFlight,
            format!("another rerun of {} is under way; one at a time", key.bot),
        ));
    }
    for zone in &attempt.zones {
        let reruns = desk.history.zone_reruns(zone, desk.now);
        let limit = usize::try_from(desk.policy.zones.reruns_per_zone_hour).unwrap_or(usize::MAX);
        if reruns.len() >= limit {
            let shut = Shut::new(
                Gate::ZoneBudget,
                format!(
                    "{} at {} had {} reruns in an hour",
                    zone.1,
                    zone.0,
                    reruns.len()
                ),
            );
            let oldest = reruns.len().checked_sub(limit).and_then(|i| reruns.get(i));
            return Some(match oldest {
                Some(oldest) => shut.until(*oldest + Policy::ZONE_WINDOW),
                None => shut,
            });
        }
    }
    None
}

fn bot_gate(desk: Desk<'_>, key: &BuildKey) -> Option<Shut> {
    let (_, snapshot) = desk.ledger.bot(&key.bot)?.snapshot.as_ref()?;
    if let GithubState::Good(Some(quota)) = &snapshot.github
        && quota.remaining.saturating_mul(10) < quota.limit
    {
        return Some(Shut::new(
            Gate::QuotaLow,
            format!(
                "GitHub allows {} more requests of {}",
                quota.remaining, quota.limit
            ),
        ));
    }
    let closed = snapshot.repos.get(&key.repo)?.tree_closed?;
    Some(Shut::new(
        Gate::TreeClosed,
        format!("the tree is closed below priority {closed}"),
    ))
}

/// The pause after the `count`-th rerun: the base times a triangular number, at most
/// [`Policy::COOLDOWN_MAX`], and up to a tenth more so that several do not come at once.
fn cooldown(base: Duration, count: u32, id: &AttemptId) -> Duration {
    let triangular = count.saturating_mul(count.saturating_add(1)) / 2;
    let pause = base
        .saturating_mul(triangular.max(1))
        .min(Policy::COOLDOWN_MAX);
    let tenth = u64::try_from(pause.as_millis() / 10).unwrap_or(u64::MAX);
    let jitter = hash(&id.to_string()).checked_rem(tenth).unwrap_or(0);
    pause + Duration::from_millis(jitter)
}

/// FNV-1a: the same text gives the same jitter, on every machine and after every restart.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(ordinal: u32) -> AttemptId {
        AttemptId {
            target: Target::Queue {
                bot: "homu".into(),
                repo: "servo".into(),
            },
            remedy: Remedy::Rerun,
            ordinal,
        }
    }

    #[test]
    fn the_cooldown_grows_and_is_capped() {
        let base = Duration::from_secs(300);
        for (count, least) in [
            (1, 300),
            (2, 900),
            (3, 1800),
            (7, 8400),
            (9, 10_800),
            (50, 10_800),
        ] {
            let pause = cooldown(base, count, &attempt(count));
            let least = Duration::from_secs(least);
            assert!(
                pause >= least && pause < least + least / 10,
                "{count}: {pause:?}"
            );
        }
    }

    #[test]
    fn the_jitter_is_the_same_after_a_restart() {
        let base = Duration::from_secs(300);
        assert_eq!(
            cooldown(base, 1, &attempt(1)),
            cooldown(base, 1, &attempt(1))
        );
        assert_ne!(
            cooldown(base, 1, &attempt(1)),
            cooldown(base, 1, &attempt(2))
        );
    }
}
