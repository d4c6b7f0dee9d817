//! The core's one door: looks, ticks and records go in; judgements, a plan and closings come out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::endings::Witness;
use super::gates::Operator;
use super::hand::{self, Refusal, Wish};
use super::health::{Health, Tick};
use super::history::History;
use super::judge::{Bench, BuildJudgement, judge_builds};
use super::ledger::{Ledger, Routes};
use super::plan::{Attempt, Desk, Plan, follow_up_wanted, plan};
use super::policy::Policy;
use super::queues::{QueueJudgement, judge_queues};
use super::restart::{Restart, restart_is_near};
use super::zones::Zones;
use crate::model::{
    AttemptId, BotName, BotSnapshot, BuildKey, BuilderName, Closing, Ending, Finding, Gate,
    IntentId, Knock, Moment, Outcome, ProbeError, ProviderName, ProviderSnapshot, Question, Record,
    RemedyRow, RepoName, Sha, Sighting, SightingCause, Step, StepKind, Verdict,
};

/// What the core knows of the set-up: the configuration's, and what adapters learned of their bots.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Which provider serves what.
    pub routes: Routes,
    /// What each bot understands.
    pub rows: BTreeMap<BotName, Vec<RemedyRow>>,
    /// Each repository's own timeout in its bot, where it has one.
    pub own_timeouts: BTreeMap<(BotName, RepoName), Duration>,
    /// How each bot is restarted, where the operator wants that.
    pub restarts: BTreeMap<BotName, Restart>,
}

/// Everything that is concluded from what is known at one moment.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// One for each pending build, in the order of their places.
    pub builds: Vec<BuildJudgement>,
    /// One for each repository.
    pub queues: Vec<QueueJudgement>,
    /// What to do, and what is held.
    pub plan: Plan,
    /// Deaths that count for the first time with this look.
    pub detected: Vec<Detected>,
    /// Builds with a sign of life after their death had counted.
    pub false_alarms: Vec<BuildKey>,
    /// What nothing but `mode = "observe"` holds, where that is not in the journal yet. It must be
    /// written there and then given to [`Core::record`].
    pub found: Vec<Finding>,
}

/// A death, or a loss, that counts for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// Where.
    pub key: BuildKey,
    /// The builder, where it is about one.
    pub builder: Option<BuilderName>,
    /// The verdict.
    pub verdict: Verdict,
    /// From the last sign of life to now.
    pub after: Duration,
}

/// Whether a decision counts as a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A tick's: it counts for confirmation, zones and queues.
    Tick,
    /// The last look before a request: it only sees.
    Again,
}

/// The pure core. Time is an argument of every method; nothing in it fails.
#[derive(Clone, Debug)]
pub struct Core {
    policy: Policy,
    setup: Setup,
    ledger: Ledger,
    history: History,
    zones: Zones,
    health: Health,
    operator: Operator,
}

impl Core {
    /// A core that has just started, with what the journal kept.
    pub fn new(policy: Policy, setup: Setup, records: &[Record], now: Moment) -> Self {
        let mut core = Self {
            policy,
            setup,
            ledger: Ledger::default(),
            history: History::default(),
            zones: Zones::default(),
            health: Health::start(now),
            operator: Operator::default(),
        };
        for record in records {
            core.history.record(record);
            match record {
                Record::Sighting(sighting) => core.ledger.restore(sighting),
                Record::Ending(ending) => core.ledger.restore_ending(ending),
                Record::Intent { .. }
                | Record::Outcome { .. }
                | Record::Closed { .. }
                | Record::Order(_)
                | Record::Finding(_) => {}
            }
        }
        core
    }

    /// Takes a new configuration; what was done stays, and what is known of the sources that it
    /// still has.
    pub fn configure(&mut self, policy: Policy, setup: Setup) {
        self.policy = policy;
        self.setup = setup;
        let bots = self.setup.rows.keys().collect();
        let providers = self.setup.routes.0.values().flatten().collect();
        self.ledger.retain(&bots, &providers);
    }

    /// Takes what an operator, Alertmanager and the journal say.
    pub fn operator(&mut self, operator: Operator) {
        self.operator = operator;
    }

    /// Folds in a look at a bot. The sightings must be written to the journal and then given to
    /// [`Core::record`].
    pub fn record_bot(
        &mut self,
        now: Moment,
        bot: &BotName,
        look: Result<BotSnapshot, ProbeError>,
    ) -> Vec<Sighting> {
        let life = self.policy.snapshot_life();
        let opened = self.ledger.record_bot(now, life, bot, look);
        opened
            .into_iter()
            .map(|opened| self.name_cause(opened.sighting))
            .collect()
    }

    /// Folds in a look at a provider.
    pub fn record_provider(
        &mut self,
        now: Moment,
        provider: &ProviderName,
        look: Result<ProviderSnapshot, ProbeError>,
    ) {
        let life = self.policy.snapshot_life();
        self.ledger
            .record_provider(now, life, provider, &self.setup.routes, look);
    }

    /// Folds in how a tick went.
    pub fn record_tick(&mut self, now: Moment, tick: Tick) {
        if self.health.tick(now, tick) {
            self.ledger.restart_heartbeats(now);
        }
    }

    /// Whether a bot has been silent for so long that its restart may be due: whoever looks at it must
    /// knock, too.
    pub fn restart_is_near(&self, bot: &BotName, now: Moment) -> bool {
        restart_is_near(self.desk(now, None), bot)
    }

    /// Folds in what a silent bot and its GitHub say to one request each.
    pub fn record_knock(&mut self, now: Moment, bot: &BotName, knock: Knock) {
        self.ledger.record_knock(now, bot, knock);
    }

    /// Folds in a record that the journal has taken.
    pub fn record(&mut self, record: &Record) {
        self.history.record(record);
        if let Record::Closed {
            id,
            at,
            closing: Closing::Effect,
        } = record
            && let Some(state) = self.history.intent(*id)
            && state.intent.step.kind() == StepKind::Restart
        {
            let bot = state.intent.attempt.target.bot();
            self.ledger.bot_restarted(*at, bot);
        }
        if let Record::Ending(ending) = record {
            self.ledger.ending_written(&ending.build);
        }
    }

    /// The generations that are over, once a tick has looked at the bots and then at the providers.
    /// Each must be written to the journal and then given to [`Core::record`]; until then it is given
    /// again.
    pub fn endings(&mut self, now: Moment) -> Vec<Ending> {
        let witness = Witness {
            routes: &self.setup.routes,
            own_timeouts: &self.setup.own_timeouts,
            patience: self.policy.snapshot_life(),
            now,
        };
        self.ledger.endings(witness)
    }

    /// Which open intents are settled by what is known now. Each must be written to the journal
    /// and then given to [`Core::record`]; an effective rerun may open a generation, which must be
    /// written too.
    pub fn settle(&mut self, now: Moment) -> Vec<(IntentId, Closing)> {
        self.history
            .settle(&self.ledger, &self.setup.rows, &self.policy, now)
    }

    /// Opens the generation that a settled rerun made, where the build is still pending on the same
    /// commit; else the next look at the bot opens it.
    pub fn open_generation(
        &mut self,
        now: Moment,
        id: IntentId,
        closing: Closing,
    ) -> Option<Sighting> {
        let state = self.history.intent(id)?;
        let rerun = state.intent.step.kind() == StepKind::Retry && closing == Closing::Effect;
        let build = state.intent.attempt.target.build()?;
        let tracked = self.ledger.build(&build.key)?;
        if !rerun || tracked.id != *build || tracked.merge_sha != state.intent.merge_sha {
            return None;
        }
        let key = build.key.clone();
        self.ledger
            .open_generation(now, &key, SightingCause::OurRerun)
    }

    /// Judges and plans.
    pub fn decide(&mut self, now: Moment, look: Look) -> Decision {
        self.decide_for(now, look, None)
    }

    fn decide_for(&mut self, now: Moment, look: Look, continuing: Option<&AttemptId>) -> Decision {
        let mut decision = Decision {
            builds: judge_builds(self.bench(now)),
            ..Decision::default()
        };
        if look == Look::Tick {
            self.count_looks(now, &mut decision);
            self.watch_zones(now, &decision.builds);
            self.watch_queues(now, &decision.builds);
            // A queue's clock and a zone's restart change what is due.
            decision.builds = judge_builds(self.bench(now));
        } else {
            self.clear_signs_of_life(&mut decision);
        }
        decision.queues = judge_queues(self.bench(now), &decision.builds);
        decision.plan = plan(
            self.desk(now, continuing),
            &decision.builds,
            &decision.queues,
        );
        if look == Look::Tick {
            self.note(now, &mut decision);
        }
        decision
    }

    /// Notes what a tick concluded, for what becomes of it.
    fn note(&mut self, now: Moment, decision: &mut Decision) {
        for build in &decision.builds {
            self.ledger.note_verdict(&build.id.key, build.verdict);
        }
        let observed = decision.plan.holds.iter();
        decision.found = observed
            .filter(|hold| hold.gate == Gate::Observe && !self.history.found(&hold.attempt.id))
            .map(|hold| hold.attempt.finding(now))
            .collect();
    }

    /// Whether an attempt's step is still wanted after a last look: planned anew, or a harmless
    /// follow-up of a step that was sent.
    pub fn still_wanted(
        &mut self,
        now: Moment,
        attempt: &Attempt,
        step: &Step,
        first: bool,
    ) -> bool {
        let continuing = (!first).then_some(&attempt.id);
        let decision = self.decide_for(now, Look::Again, continuing);
        let planned = decision
            .plan
            .attempts
            .iter()
            .any(|again| again.id == attempt.id && again.steps.contains(step));
        planned || (!first && follow_up_wanted(self.desk(now, None), attempt, step))
    }

    /// The attempt that fulfils what a person asks for, and what they should know before: that
    /// something may be alive.
    ///
    /// # Errors
    ///
    /// It cannot be done now, or at all.
    pub fn by_hand(
        &mut self,
        now: Moment,
        wish: &Wish,
    ) -> Result<(Attempt, Option<String>), Refusal> {
        let decision = self.decide_for(now, Look::Again, None);
        let desk = self.desk(now, None);
        hand::attempt(desk, &decision.builds, &decision.queues, wish)
    }

    /// What a provider must be asked.
    pub fn questions(&self, provider: &ProviderName) -> Vec<Question> {
        self.ledger.questions(provider, &self.setup.routes)
    }

    /// The commit that was last known for each place of a bot.
    pub fn remembered(&self, bot: &BotName) -> BTreeMap<BuildKey, Sha> {
        self.ledger.remembered(bot)
    }

    /// The limits.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What is known.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What was done.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The zones.
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// Whether something was found dead in enough looks and for long enough: a builder of a build, or
    /// the build itself.
    pub fn death_counts(&self, key: &BuildKey, builder: Option<&BuilderName>, now: Moment) -> bool {
        let needed = self.looks_needed(key, builder);
        let tracked = self.ledger.build(key);
        tracked
            .and_then(|tracked| tracked.deaths.get(&builder.cloned()))
            .is_some_and(|death| death.counts(needed, self.policy.tick, now))
    }

    /// Whether we are settled.
    ///
    /// # Errors
    ///
    /// Why not, as a sentence.
    pub fn settled(&self, now: Moment) -> Result<(), String> {
        self.health
            .settled(now, &self.policy)
            .map_err(|(reason, _)| reason)
    }

    fn bench(&self, now: Moment) -> Bench<'_> {
        Bench {
            ledger: &self.ledger,
            history: &self.history,
            policy: &self.policy,
            routes: &self.setup.routes,
            now,
        }
    }

    fn desk<'a>(&'a self, now: Moment, continuing: Option<&'a AttemptId>) -> Desk<'a> {
        Desk {
            ledger: &self.ledger,
            history: &self.history,
            policy: &self.policy,
            zones: &self.zones,
            health: &self.health,
            operator: &self.operator,
            rows: &self.setup.rows,
            own_timeouts: &self.setup.own_timeouts,
            routes: &self.setup.routes,
            restarts: &self.setup.restarts,
            continuing,
            now,
        }
    }

    /// A head that is built again was rerun by us where a `retry` of ours for the generation before
    /// had its effect or is open, else by somebody else.
    fn name_cause(&self, mut sighting: Sighting) -> Sighting {
        let before = sighting.build.generation.checked_sub(1);
        let ours = self.history.intents().any(|state| {
            state.intent.step.kind() == StepKind::Retry
                && state.maybe_sent()
                && matches!(state.closing, None | Some((_, Closing::Effect)))
                && !matches!(state.outcome, Some((_, Outcome::Refused(_))))
                && state.intent.attempt.target.build().is_some_and(|build| {
                    build.key == sighting.build.key && Some(build.generation) == before
                })
        });
        if ours && sighting.cause == SightingCause::OthersRerun {
            sighting.cause = SightingCause::OurRerun;
        }
        sighting
    }

    fn count_looks(&mut self, now: Moment, decision: &mut Decision) {
        for build in &decision.builds {
            let key = &build.id.key;
            if !self.looked_now(now, build) {
                // Nothing new was seen: the count stays as it is.
                continue;
            }
            if build.own == Some(Verdict::Orphaned) {
                let detected = self.count_death(now, key, None, Verdict::Orphaned, now);
                decision.detected.extend(detected);
            } else {
                self.ledger.clear_death(key, None);
            }
            for expectation in &build.expectations {
                let builder = Some(&expectation.builder);
                if expectation.dead {
                    let (verdict, sign) = (expectation.verdict, expectation.last_sign);
                    let detected = self.count_death(now, key, builder, verdict, sign);
                    decision.detected.extend(detected);
                } else if self.ledger.clear_death(key, builder).is_some()
                    && shows_life(expectation.verdict)
                {
                    decision.false_alarms.push(key.clone());
                }
            }
        }
    }

    /// Counts a look that found a build, or a builder of it, dead, and tells of the death once it
    /// counts.
    fn count_death(
        &mut self,
        now: Moment,
        key: &BuildKey,
        builder: Option<&BuilderName>,
        verdict: Verdict,
        last_sign: Moment,
    ) -> Option<Detected> {
        let death = self.ledger.count_death(now, key, builder)?;
        let counts = death.counts(self.looks_needed(key, builder), self.policy.tick, now);
        (counts && self.ledger.announce_death(key, builder)).then(|| Detected {
            key: key.clone(),
            builder: builder.cloned(),
            verdict,
            after: now.since(last_sign),
        })
    }

    /// The last look before a request counts no death, but a sign of life in it ends one.
    fn clear_signs_of_life(&mut self, decision: &mut Decision) {
        for build in &decision.builds {
            for expectation in build.expectations.iter().filter(|e| !e.dead) {
                let key = &build.id.key;
                if self
                    .ledger
                    .clear_death(key, Some(&expectation.builder))
                    .is_some()
                    && shows_life(expectation.verdict)
                {
                    decision.false_alarms.push(key.clone());
                }
            }
        }
    }

    fn looks_needed(&self, key: &BuildKey, builder: Option<&BuilderName>) -> u32 {
        match builder {
            Some(builder) => self.policy.builds.builder(&key.repo, builder).looks,
            None => self.policy.builds.repo(&key.repo).looks,
        }
    }

    /// Whether the bot and every provider that has a builder of a build were looked at in this very
    /// tick.
    fn looked_now(&self, now: Moment, build: &BuildJudgement) -> bool {
        let bot = self.ledger.bot(&build.id.key.bot);
        let mut witnesses = build.expectations.iter().flat_map(|e| {
            let providers = self.setup.routes.providers(e.system).iter();
            let sources = providers.filter_map(|name| self.ledger.provider(name));
            sources.filter(|source| {
                source
                    .snapshot
                    .as_ref()
                    .is_none_or(|(_, snapshot)| snapshot.pools.contains_key(&e.builder))
            })
        });
        bot.and_then(|source| source.seen_at()) == Some(now)
            && witnesses.all(|source| source.seen_at() == Some(now))
    }

    fn watch_zones(&mut self, now: Moment, builds: &[BuildJudgement]) {
        let mut zones = std::mem::take(&mut self.zones);
        let confirmed = |build: &BuildJudgement, builder: &BuilderName| {
            self.death_counts(&build.id.key, Some(builder), now)
        };
        let over = zones.observe(&self.ledger, builds, &confirmed, &self.policy, now);
        self.zones = zones;
        for (zone, gap) in over {
            self.ledger.shift_zone(now, &self.setup.routes, &zone, gap);
        }
    }

    fn watch_queues(&mut self, now: Moment, builds: &[BuildJudgement]) {
        let queues = judge_queues(self.bench(now), builds);
        for queue in queues {
            self.ledger
                .mark_idle(now, &queue.bot, &queue.repo, queue.idle);
        }
    }
}

/// Whether a verdict is a sign of life, after a death had counted.
fn shows_life(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Alive | Verdict::Reported | Verdict::Unreported => true,
        Verdict::Starting
        | Verdict::Queued
        | Verdict::Starved
        | Verdict::Unknown
        | Verdict::Outdated
        | Verdict::Wedged
        | Verdict::Orphaned
        | Verdict::Stalled
        | Verdict::WorkerLost
        | Verdict::NoShow => false,
    }
}

#[cfg(test)]
mod tests;
