//! From a decision to the report that people read, and to what is told when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{App, Told};
use crate::decision::Decision;
use crate::decision::gates::outage;
use crate::decision::history::IntentState;
use crate::decision::judge::{BuildJudgement, Judgement};
use crate::decision::plan::Hold;
use crate::decision::queues::QueueJudgement;
use crate::decision::zones;
use crate::model::{
    AttemptId, BuildId, Closing, GithubState, IntentId, Moment, Outcome, Quota, Stop, Target,
    Verdict,
};
use crate::report::{
    AttemptReport, BuildReport, Event, ExpectationReport, HoldReport, JournalReport, QueueReport,
    Report, SourceReport, SourceRole, Stamp, StepReport, StopReport, ZoneReport, ZoneState,
};

/// A queued run is told to people after this many times the `queue` timeout; a starved one after one.
const QUEUED_PATIENCE: u32 = 3;

impl App {
    /// The report of a tick.
    pub(super) fn describe(&self, decision: &Decision) -> Report {
        let now = self.watched.now();
        let holds: Vec<(&Target, HoldReport)> = decision
            .plan
            .holds
            .iter()
            .map(|hold| (&hold.attempt.id.target, self.hold(hold)))
            .collect();
        let mut report = Report::empty(self.policy().mode, self.clock.wall());
        report.started = Stamp(self.started);
        report.tick = self.tick;
        report.took = self.took;
        report.not_settled = self.core.settled(now).err();
        report.sources = self.sources(&holds);
        report.builds = decision
            .builds
            .iter()
            .map(|build| self.build(build, &holds, now))
            .collect();
        report.queues = decision
            .queues
            .iter()
            .map(|queue| self.queue(queue, &holds))
            .collect();
        report.zones = self.core.zones().iter().map(zone).collect();
        report.attempts = self.attempts(|_| true);
        report.attempts.reverse();
        report.attempts.truncate(Report::ATTEMPTS_MAX);
        report.stops = self.stops(now);
        let size = self.journal.size();
        report.journal = JournalReport {
            writable: self.journal_error.is_none(),
            error: self.journal_error.as_ref().map(ToString::to_string),
            records: size.records,
            bytes: size.bytes,
            open_intents: self.core.history().open().count(),
        };
        report.warnings = self.warnings.clone();
        for (_, source) in self.core.ledger().bots() {
            if let Some((_, snapshot)) = &source.snapshot {
                report.warnings.extend(snapshot.warnings.iter().cloned());
            }
        }
        report.events.clone_from(&self.events);
        report
    }

    /// Tells logs and counters what changed with a decision.
    pub(super) fn tell(&mut self, decision: &Decision) {
        let mut told = Told {
            sources: std::mem::take(&mut self.told.sources),
            ..Told::default()
        };
        for build in &decision.builds {
            for expectation in &build.expectations {
                let place = (build.id.clone(), expectation.builder.to_string());
                if self.told.verdicts.get(&place) != Some(&expectation.verdict) {
                    tracing::info!(
                        build = %build.id, builder = %expectation.builder,
                        verdict = %expectation.verdict, evidence = %expectation.evidence, "verdict"
                    );
                }
                told.verdicts.insert(place, expectation.verdict);
            }
        }
        for queue in &decision.queues {
            let place = format!("{}:{}", queue.bot, queue.repo);
            let before = self.told.queues.get(&place).copied();
            if before.is_some_and(|before| before != queue.verdict) {
                tracing::info!(queue = %place, verdict = %queue.verdict, evidence = %queue.evidence, "verdict");
            }
            if before != Some(queue.verdict) && needs_somebody(queue.verdict) {
                self.events.push(Event::Detected {
                    bot: queue.bot.to_string(),
                    repo: queue.repo.to_string(),
                    verdict: queue.verdict,
                    after: queue
                        .since
                        .map_or(Duration::ZERO, |since| self.watched.now().since(since)),
                });
            }
            told.queues.insert(place, queue.verdict);
        }
        for hold in &decision.plan.holds {
            let id = hold.attempt.id.to_string();
            if self.told.holds.get(&id) != Some(&hold.gate) {
                tracing::info!(
                    attempt = %id, gate = %hold.gate, reason = %hold.reason,
                    verdict = %hold.attempt.verdict, evidence = %hold.attempt.evidence, "held"
                );
                let target = &hold.attempt.id.target;
                self.events.push(Event::Held {
                    bot: target.bot().to_string(),
                    repo: place(target),
                    remedy: hold.attempt.id.remedy,
                    gate: hold.gate,
                });
            }
            told.holds.insert(id, hold.gate);
        }
        for detected in &decision.detected {
            self.events.push(Event::Detected {
                bot: detected.key.bot.to_string(),
                repo: detected.key.repo.to_string(),
                verdict: detected.verdict,
                after: detected.after,
            });
        }
        for key in &decision.false_alarms {
            tracing::warn!(build = %key, "a sign of life came after its death had counted");
            self.events.push(Event::FalseAlarm {
                bot: key.bot.to_string(),
                repo: key.repo.to_string(),
            });
        }
        self.told = told;
        let history = self.core.history();
        self.walls
            .intents
            .retain(|id, _| history.intent(*id).is_some());
        let ledger = self.core.ledger();
        self.walls.first_seen.retain(|build, _| {
            ledger
                .build(&build.key)
                .is_some_and(|tracked| tracked.id.generation <= build.generation)
                || self.unsaved.iter().any(|sighting| &sighting.build == build)
        });
    }

    /// Tells logs and counters that an intent was settled.
    pub(super) fn told_closing(&mut self, id: IntentId, closing: Closing, now: Moment) {
        let Some(state) = self.core.history().intent(id) else {
            return;
        };
        let step = state.intent.step.kind();
        let attempt = state.intent.attempt.clone();
        let after = now.since(state.at);
        match closing {
            Closing::Effect | Closing::Done => {
                tracing::info!(%attempt, %step, closing = closing.as_str(), after = %format_args!("{after:.1?}"), "settled");
            }
            Closing::NoEffect | Closing::NotSent | Closing::Refused => {
                tracing::warn!(%attempt, %step, closing = closing.as_str(), after = %format_args!("{after:.1?}"), "settled");
            }
        }
        self.events.push(Event::Settled {
            bot: attempt.target.bot().to_string(),
            remedy: attempt.remedy,
            step,
            closing,
            after,
        });
    }

    fn stops(&self, now: Moment) -> Vec<StopReport> {
        let report = |stop: &Stop, since: Option<Stamp>| StopReport {
            kind: stop.kind,
            scope: stop.scope.to_string(),
            reason: stop.reason.clone(),
            by: stop.by.clone(),
            since,
            until: stop.until.map(|until| self.stamp(until)),
        };
        let ordered = self.core.history().stops(now);
        let ordered = ordered.map(|stop| report(stop, Some(self.stamp(stop.at))));
        let configured = self.configured_stops();
        ordered
            .chain(configured.iter().map(|stop| report(stop, None)))
            .collect()
    }

    fn sources(&self, holds: &[(&Target, HoldReport)]) -> Vec<SourceReport> {
        let mut sources = Vec::new();
        for bot in &self.bots {
            let source = self.core.ledger().bot(bot.name());
            let health = source.map(|source| &source.health);
            let mut report = self.source(
                bot.name().as_str(),
                SourceRole::Bot,
                bot.kind(),
                health,
                None,
            );
            let target = Target::Bot(bot.name().clone());
            let mut of_bot = holds.iter().filter(|(held, _)| **held == target);
            report.hold = of_bot.next().map(|(_, hold)| hold.clone());
            sources.push(report);
            let github = source.and_then(|source| source.snapshot.as_ref());
            let quota = match github.map(|(_, snapshot)| &snapshot.github) {
                None | Some(GithubState::NotConfigured) => continue,
                Some(GithubState::Good(quota)) => *quota,
                Some(GithubState::Failed(_)) => None,
            };
            let health = self.core.ledger().github(bot.name());
            let name = bot.github();
            sources.push(self.source(name.as_str(), SourceRole::Github, "github", health, quota));
        }
        for provider in &self.providers {
            let source = self.core.ledger().provider(provider.name());
            let health = source.map(|source| &source.health);
            let name = provider.name().as_str();
            sources.push(self.source(name, SourceRole::Provider, provider.kind(), health, None));
        }
        sources
    }

    fn source(
        &self,
        name: &str,
        role: SourceRole,
        kind: &'static str,
        health: Option<&crate::decision::ledger::SourceHealth>,
        quota: Option<Quota>,
    ) -> SourceReport {
        let error = health.and_then(|health| health.error.as_ref());
        let looked = health.is_some_and(|h| h.error.is_some() || h.last_good.is_some());
        SourceReport {
            source: name.to_owned(),
            role,
            kind,
            up: looked.then_some(error.is_none()),
            last_success: self.successes.get(name).copied().map(Stamp),
            error: error.map(|error| error.detail.clone()),
            failure: error.map(|error| error.failure),
            quota,
            silent_since: health
                .and_then(|health| health.silent_since)
                .map(|since| self.stamp(since)),
            hold: None,
        }
    }

    fn build(
        &self,
        build: &BuildJudgement,
        holds: &[(&Target, HoldReport)],
        now: Moment,
    ) -> BuildReport {
        let key = &build.id.key;
        let pending = self
            .core
            .ledger()
            .build(key)
            .map(|tracked| &tracked.pending);
        let expectations: Vec<ExpectationReport> = build
            .expectations
            .iter()
            .map(|expectation| self.expectation(build, expectation, now))
            .collect();
        let holds: Vec<HoldReport> = holds
            .iter()
            .filter(|(target, _)| target.build() == Some(&build.id))
            .map(|(_, hold)| hold.clone())
            .collect();
        let stuck = build.own.is_some_and(needs_somebody) || expectations.iter().any(|e| e.stuck);
        BuildReport {
            id: build.id.to_string(),
            bot: key.bot.to_string(),
            repo: key.repo.to_string(),
            pull: key.pull,
            is_try: key.kind == crate::model::BuildKind::Try,
            title: pending.map(|p| p.title.clone()).unwrap_or_default(),
            url: pending.map(|p| p.url.clone()).unwrap_or_default(),
            merge_sha: build.merge_sha.as_ref().map(ToString::to_string),
            head_sha: build.head_sha.as_ref().map(ToString::to_string),
            generation: build.id.generation,
            first_seen: self.first_seen(&build.id, build.first_seen),
            verdict: build.verdict,
            evidence: build.evidence.sentences(),
            stuck,
            // A rerun's hold says more of a dead build than a tell's.
            hold: holds
                .iter()
                .find(|hold| hold.remedy.is_rerun())
                .or_else(|| holds.first())
                .cloned(),
            holds,
            expectations,
            attempts: self
                .attempts(|attempt| attempt.target.build().map(|build| &build.key) == Some(key)),
        }
    }

    fn expectation(
        &self,
        build: &BuildJudgement,
        expectation: &Judgement,
        now: Moment,
    ) -> ExpectationReport {
        let key = &build.id.key;
        let looks = self
            .core
            .ledger()
            .build(key)
            .and_then(|tracked| tracked.deaths.get(&Some(expectation.builder.clone())))
            .map_or(0, |death| death.looks);
        let builder = Some(&expectation.builder);
        let confirmed = expectation.dead && self.core.death_counts(key, builder, now);
        ExpectationReport {
            builder: expectation.builder.to_string(),
            provider: expectation.provider.as_ref().map(ToString::to_string),
            verdict: expectation.verdict,
            looks,
            confirmed,
            stuck: confirmed || expectation.overdue || self.waits_too_long(build, expectation, now),
            evidence: expectation.evidence.sentences(),
            deadline: expectation.deadline.map(|deadline| self.stamp(deadline)),
            run: expectation.run.as_ref().map(|run| run.id.to_string()),
            url: expectation.run.as_ref().and_then(|run| run.url.clone()),
            heartbeat: expectation.heartbeat.map(|heartbeat| self.stamp(heartbeat)),
        }
    }

    /// Whether people should know of something that no remedy can help, or that is on its way.
    fn waits_too_long(&self, build: &BuildJudgement, expectation: &Judgement, now: Moment) -> bool {
        let queue = self
            .policy()
            .timeouts
            .builder(&build.id.key.repo, &expectation.builder)
            .queue;
        let waited = expectation
            .waiting_since
            .map_or(Duration::ZERO, |since| now.since(since));
        match expectation.verdict {
            Verdict::Unreported => true,
            Verdict::Unknown | Verdict::Starved => waited >= queue,
            Verdict::Queued => waited >= queue * QUEUED_PATIENCE,
            Verdict::Reported
            | Verdict::Alive
            | Verdict::Starting
            | Verdict::Outdated
            | Verdict::Wedged
            | Verdict::Orphaned
            | Verdict::Stalled
            | Verdict::WorkerLost
            | Verdict::NoShow => false,
        }
    }

    fn queue(&self, queue: &QueueJudgement, holds: &[(&Target, HoldReport)]) -> QueueReport {
        let ledger = self.core.ledger();
        let snapshot = ledger.bot(&queue.bot).and_then(|s| s.snapshot.as_ref());
        let repo = snapshot.and_then(|(_, snapshot)| snapshot.repos.get(&queue.repo));
        let bot = self.bots.iter().find(|bot| bot.name() == &queue.bot);
        let builders = bot.and_then(|bot| bot.repos().remove(&queue.repo));
        QueueReport {
            bot: queue.bot.to_string(),
            repo: queue.repo.to_string(),
            builders: builders
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect(),
            approved: repo.map_or(0, |repo| repo.approved.len()),
            pending: repo.map_or(0, |repo| repo.pending.len()),
            verdict: queue.verdict,
            evidence: queue.evidence.sentences(),
            hold: holds
                .iter()
                .find(|(target, _)| {
                    target.build().is_none()
                        && target.bot() == &queue.bot
                        && target.repo() == Some(&queue.repo)
                })
                .map(|(_, hold)| hold.clone()),
        }
    }

    fn hold(&self, hold: &Hold) -> HoldReport {
        HoldReport {
            target: hold.attempt.id.target.to_string(),
            remedy: hold.attempt.id.remedy,
            gate: hold.gate,
            reason: hold.reason.clone(),
            until: hold.until.map(|until| self.stamp(until)),
            plan: hold.attempt.steps.iter().map(|step| step.kind()).collect(),
        }
    }

    /// Attempts by what they are for, oldest first.
    fn attempts(&self, wanted: impl Fn(&AttemptId) -> bool) -> Vec<AttemptReport> {
        let mut order: Vec<&AttemptId> = Vec::new();
        let mut steps: BTreeMap<&AttemptId, Vec<&IntentState>> = BTreeMap::new();
        // More requests than attempts: enough to fill a report with whole attempts.
        let latest = self
            .core
            .history()
            .intents()
            .rev()
            .filter(|state| wanted(&state.intent.attempt))
            .take(Report::ATTEMPTS_MAX * 3);
        for state in latest {
            let attempt = &state.intent.attempt;
            if !steps.contains_key(attempt) {
                order.push(attempt);
            }
            steps.entry(attempt).or_default().insert(0, state);
        }
        order
            .into_iter()
            .rev()
            .filter_map(|attempt| self.attempt(attempt, steps.get(attempt)?))
            .collect()
    }

    fn attempt(&self, attempt: &AttemptId, steps: &[&IntentState]) -> Option<AttemptReport> {
        let first = steps.first()?;
        let last = steps.last()?;
        let target = &attempt.target;
        Some(AttemptReport {
            id: attempt.to_string(),
            build: target.build().map(ToString::to_string),
            bot: target.bot().to_string(),
            repo: place(target),
            pull: target.pull(),
            remedy: attempt.remedy,
            verdict: last.intent.verdict,
            evidence: last.intent.evidence.clone(),
            at: self.intent_wall(first),
            steps: steps.iter().map(|state| self.step(state)).collect(),
            by: last.intent.by.clone(),
        })
    }

    fn step(&self, state: &IntentState) -> StepReport {
        let outcome = state.outcome.as_ref().map(|(_, outcome)| outcome);
        let closed = self
            .walls
            .intents
            .get(&state.id)
            .and_then(|walls| walls.closed);
        StepReport {
            step: state.intent.step.kind(),
            at: self.intent_wall(state),
            outcome: outcome.map(Outcome::as_str),
            detail: outcome.map(|outcome| outcome.detail().to_owned()),
            closing: state.closing.map(|(_, closing)| closing),
            closed_at: closed.map(Stamp),
        }
    }

    fn intent_wall(&self, state: &IntentState) -> Stamp {
        match self.walls.intents.get(&state.id) {
            Some(walls) => Stamp(walls.at),
            None => self.stamp(state.at),
        }
    }

    fn first_seen(&self, build: &BuildId, moment: Moment) -> Stamp {
        match self.walls.first_seen.get(build) {
            Some(wall) => Stamp(*wall),
            None => self.stamp(moment),
        }
    }
}

fn zone(((provider, builder), zone): (&zones::ZoneKey, &zones::Zone)) -> ZoneReport {
    let (state, reason) = match &zone.state {
        zones::ZoneState::Good => (ZoneState::Good, None),
        zones::ZoneState::Cooldown { .. } => (
            ZoneState::Cooldown,
            Some("its outage ended a moment ago".to_owned()),
        ),
        zones::ZoneState::Outage { cause, .. } => (
            ZoneState::Outage,
            Some(outage(*cause, zone.able, zone.configured)),
        ),
    };
    ZoneReport {
        provider: provider.to_string(),
        builder: builder.to_string(),
        state,
        reason,
        able: zone.able,
        configured: zone.configured,
    }
}

/// The repository of a target for people and labels; nothing where it is of the bot as a whole.
pub(super) fn place(target: &Target) -> String {
    target.repo().map(ToString::to_string).unwrap_or_default()
}

/// Whether a verdict on a build or a queue as a whole needs somebody.
fn needs_somebody(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Outdated
        | Verdict::Wedged
        | Verdict::Orphaned
        | Verdict::Stalled
        | Verdict::WorkerLost
        | Verdict::NoShow
        | Verdict::Unreported => true,
        Verdict::Reported
        | Verdict::Alive
        | Verdict::Starting
        | Verdict::Queued
        | Verdict::Starved
        | Verdict::Unknown => false,
    }
}
