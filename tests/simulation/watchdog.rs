//! The loop around the real core, as the application runs it, with its crashes and suspends.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ci_watchdog::decision::gates::Operator;
use ci_watchdog::decision::health::Tick;
use ci_watchdog::decision::ledger::Routes;
use ci_watchdog::decision::plan::Attempt;
use ci_watchdog::decision::policy::{Mode, Policy};
use ci_watchdog::decision::watched::WatchedTime;
use ci_watchdog::decision::{Core, Decision, Look, Setup};
use ci_watchdog::model::{
    BotName, Effect, Moment, Outcome, Record, RemedyRow, Sighting, Step, StepKind,
};

use super::bot::Fork;
use super::eyes;
use super::journal::{Journal, Refusal};
use super::operators;
use super::referee::Referee;
use super::tally::Fault;
use super::world::{HOUR, MINUTE, Message, SECOND, World};

/// The longest that one look at a source may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// How often watched time is written down.
const CLOCK_EVERY: Duration = Duration::from_secs(60);
/// How much longer than its HTTP timeout a request may take.
const SEND_SLACK: Duration = Duration::from_secs(5);

/// The process ended in the middle of something.
#[derive(Clone, Copy, Debug)]
pub struct Died;

/// The watchdog.
pub struct Watchdog {
    pub(super) core: Core,
    policy: Policy,
    setup: Setup,
    pub(super) journal: Journal,
    journal_heals: u64,
    pub(super) watched: WatchedTime,
    looked: Moment,
    clock_saved: Moment,
    unsaved: VecDeque<Sighting>,
    journal_error: bool,
    slept: Duration,
}

impl Watchdog {
    /// One that starts for the first time.
    pub fn new(world: &World) -> Self {
        let policy = Policy {
            mode: Mode::Act,
            ..Policy::default()
        };
        let setup = setup(world);
        let journal = Journal::default();
        Self {
            core: Core::new(policy.clone(), setup.clone(), &[], Moment::ZERO),
            policy,
            setup,
            journal,
            journal_heals: 0,
            watched: WatchedTime::resume(Moment::ZERO, world.boot_clock()),
            looked: Moment::ZERO,
            clock_saved: Moment::ZERO,
            unsaved: VecDeque::new(),
            journal_error: false,
            slept: Duration::ZERO,
        }
    }

    /// Sleeps and ticks once; after a crash it starts anew instead.
    pub fn go_on(&mut self, world: &mut World, referee: &mut Referee) -> Option<Decision> {
        let mut pause = millis(self.policy.tick);
        let mut extra = 0;
        if world.strikes(Fault::LateTick) {
            extra = world.random.range(25 * SECOND, HOUR);
        } else if world.strikes(Fault::Stopped) {
            extra = world.random.range(2 * HOUR, 10 * HOUR);
        } else if world.strikes(Fault::Reload) {
            // It looks at once by what it has read.
            pause = world.random.below(SECOND);
            self.core.configure(self.policy.clone(), self.setup.clone());
        }
        world.run_until(world.now + pause + extra);
        self.slept = self.policy.tick;
        world.tally.ticks += 1;
        match self.tick(world, referee) {
            Ok(decision) => Some(decision),
            Err(Died) => {
                self.start_again(world, referee);
                None
            }
        }
    }

    fn start_again(&mut self, world: &mut World, referee: &mut Referee) {
        world.tell(format_args!("watchdog died"));
        let pause = world.downtime();
        world.run_until(world.now + pause);
        let now = self.journal.watched();
        self.core = Core::new(
            self.policy.clone(),
            self.setup.clone(),
            &self.journal.records,
            now,
        );
        self.watched = WatchedTime::resume(now, world.boot_clock());
        self.looked = now;
        self.clock_saved = now;
        self.unsaved.clear();
        self.journal_error = false;
        self.slept = Duration::ZERO;
        referee.watchdog_started(world);
    }

    fn tick(&mut self, world: &mut World, referee: &mut Referee) -> Result<Decision, Died> {
        let mut late = self.advance(world, self.slept);
        let mut tick = Tick {
            late: false,
            good: 0,
            bad: 0,
        };
        late |= self.look_at_bots(world, referee, &mut tick, None);
        if world.strikes(Fault::CrashInLook) {
            return Err(Died);
        }
        late |= self.look_at_providers(world, referee, &mut tick);
        tick.late = late;
        if late || tick.good == 0 {
            referee.looks_afresh(world);
        }
        let now = self.looked;
        self.core.record_tick(now, tick);
        self.keep_journal(world, now);
        self.note_endings(world, now);
        self.settle(world, now)?;
        let decision = self.core.decide(now, Look::Tick);
        referee.check_tick(world, &self.journal, &decision, now);
        if self.journal_error && !decision.plan.attempts.is_empty() {
            world.break_rule("something is planned that cannot be written down".to_owned());
        }
        for attempt in &decision.plan.attempts {
            self.act(world, referee, attempt)?;
        }
        self.serve(world, referee)?;
        Ok(decision)
    }

    fn act(
        &mut self,
        world: &mut World,
        referee: &mut Referee,
        attempt: &Attempt,
    ) -> Result<(), Died> {
        let mut first = true;
        for step in &attempt.steps {
            let retries = step.kind() == StepKind::Retry;
            if retries && world.strikes(Fault::RetryJustBefore) {
                person_retries(world, attempt);
            }
            let Some(now) = self.look_again(world, referee, attempt.id.target.bot())? else {
                return Ok(());
            };
            if !self.core.still_wanted(now, attempt, step, first) {
                world.tell(format_args!(
                    "not wanted any more: {} {}",
                    attempt.id,
                    step.kind()
                ));
                return Ok(());
            }
            first = false;
            match self.send(world, referee, attempt, step, now)? {
                Some(Outcome::Accepted(_)) => {}
                Some(Outcome::Refused(_) | Outcome::NotSent(_) | Outcome::Unanswered(_)) | None => {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The last look before a request; `None`: the process was away in it.
    pub(super) fn look_again(
        &mut self,
        world: &mut World,
        referee: &mut Referee,
        bot: &BotName,
    ) -> Result<Option<Moment>, Died> {
        let place = world.bots.iter().position(|one| &one.name == bot);
        let mut tick = Tick {
            late: false,
            good: 0,
            bad: 0,
        };
        let mut late = self.look_at_bots(world, referee, &mut tick, place);
        late |= self.look_at_providers(world, referee, &mut tick);
        let now = self.looked;
        if late {
            referee.looks_afresh(world);
            self.core.record_tick(now, Tick { late: true, ..tick });
            return Ok(None);
        }
        self.settle(world, now)?;
        Ok(Some(now))
    }

    /// Writes a step's intent, sends it, and writes what that came to.
    pub(super) fn send(
        &mut self,
        world: &mut World,
        referee: &mut Referee,
        attempt: &Attempt,
        step: &Step,
        now: Moment,
    ) -> Result<Option<Outcome>, Died> {
        let looked = world.now;
        if world.strikes(Fault::CrashBeforeIntent) {
            return Err(Died);
        }
        let intent = attempt.intent(step);
        referee.check_intent(world, &self.core, &self.journal, &intent, now);
        let id = match self.journal.intend(intent.clone(), now) {
            Ok(id) => id,
            Err(Refusal::Open(target)) => {
                world.break_rule(format!("a second open intent was planned: {target}"));
                return Ok(None);
            }
            Err(Refusal::Failing) => {
                self.journal_failed();
                return Ok(None);
            }
        };
        self.core.record(&Record::Intent {
            id,
            at: now,
            intent: intent.clone(),
        });
        if world.strikes(Fault::CrashAfterIntent) {
            return Err(Died);
        }
        if world.strikes(Fault::SuspendBeforeRequest) {
            let pause = world.random.range(2 * SECOND, 20 * MINUTE);
            world.run_until(world.now + pause);
        }
        let retries = step.kind() == StepKind::Retry;
        if retries && world.strikes(Fault::RetryAtOnce) {
            person_retries(world, attempt);
            let pause = world.random.below(4 * SECOND);
            world.run_until(world.now + pause);
        }
        let outcome = if world.now - looked > millis(Policy::ACT_DEADLINE) {
            Outcome::NotSent("its act deadline passed".to_owned())
        } else {
            self.deliver(world, referee, &intent, looked)
        };
        world.tell(format_args!(
            "{} {} ({}): {}",
            attempt.id,
            step.kind(),
            attempt.verdict,
            outcome.as_str()
        ));
        let sent = (step.kind(), outcome.as_str());
        *world.tally.requests.entry(sent).or_default() += 1;
        if retries && world.strikes(Fault::RetryJustAfter) {
            person_retries(world, attempt);
        }
        if world.strikes(Fault::CrashAfterRequest) {
            return Err(Died);
        }
        let late = self.advance(world, Policy::HTTP_TIMEOUT + SEND_SLACK);
        let at = self.watched.now();
        match self.journal.outcome(id, at, outcome.clone()) {
            Ok(()) => self.core.record(&Record::Outcome {
                id,
                at,
                outcome: outcome.clone(),
            }),
            Err(Refusal::Open(_) | Refusal::Failing) => self.journal_failed(),
        }
        if world.strikes(Fault::CrashAfterOutcome) {
            return Err(Died);
        }
        self.settle(world, at)?;
        Ok((!late).then_some(outcome))
    }

    fn deliver(
        &mut self,
        world: &mut World,
        referee: &mut Referee,
        intent: &ci_watchdog::model::Intent,
        looked: u64,
    ) -> Outcome {
        let target = &intent.attempt.target;
        let bot = world.bots.iter().position(|one| &one.name == target.bot());
        let Some(bot) = bot else {
            return Outcome::NotSent("no such bot".to_owned());
        };
        let mut repos = world.bots[bot].repos.iter().copied();
        let repo = match target.repo() {
            Some(label) => repos.find(|repo| &world.repos[*repo].label == label),
            // What is for the bot itself is for any of them.
            None => repos.next(),
        };
        let Some(repo) = repo else {
            return Outcome::NotSent("no such repository".to_owned());
        };
        let (outcome, took) = world.request(bot, repo, intent);
        referee.sent(world, intent, &outcome, looked);
        world.run_until(world.now + took);
        outcome
    }

    fn look_at_bots(
        &mut self,
        world: &mut World,
        referee: &mut Referee,
        tick: &mut Tick,
        only: Option<usize>,
    ) -> bool {
        let begun = world.now;
        let mut looks: Vec<(u64, usize)> = (0..world.bots.len())
            .filter(|bot| only.is_none_or(|only| only == *bot))
            .map(|bot| (world.look_time(), bot))
            .collect();
        looks.sort_unstable();
        let mut seen = Vec::new();
        for (took, bot) in looks {
            let remembered = self.core.remembered(&world.bots[bot].name);
            world.run_until(begun + took);
            let look = eyes::bot(world, bot, &remembered);
            referee.saw_bot(world, bot, &look);
            seen.push((bot, look));
        }
        let mut late = self.advance(world, PROBE_DEADLINE);
        self.looked = self.watched.now();
        seen.sort_by_key(|(bot, _)| *bot);
        for (bot, look) in seen {
            match &look {
                Ok(_) => tick.good += 1,
                Err(_) => tick.bad += 1,
            }
            let name = world.bots[bot].name.clone();
            for sighting in self.core.record_bot(self.looked, &name, look) {
                world.tell(format_args!(
                    "sighting {} {:?}",
                    sighting.build, sighting.cause
                ));
                self.sight(sighting);
            }
        }
        late |= self.knock(world, referee, only);
        late
    }

    /// Knocks at the bots whose restart is near.
    fn knock(&mut self, world: &mut World, referee: &mut Referee, only: Option<usize>) -> bool {
        let mut late = false;
        for bot in (0..world.bots.len()).filter(|bot| only.is_none_or(|only| only == *bot)) {
            let name = world.bots[bot].name.clone();
            if self.core.restart_is_near(&name, self.looked) {
                let took = world.look_time();
                world.run_until(world.now + took);
                let knock = eyes::knock(world, bot);
                referee.knocked(world, bot, &knock);
                self.core.record_knock(self.looked, &name, knock);
                late |= self.advance(world, PROBE_DEADLINE);
            }
        }
        late
    }

    fn look_at_providers(
        &mut self,
        world: &mut World,
        referee: &mut Referee,
        tick: &mut Tick,
    ) -> bool {
        let begun = world.now;
        let mut looks: Vec<(u64, usize)> = (0..world.cis.len())
            .map(|ci| (world.look_time(), ci))
            .collect();
        looks.sort_unstable();
        let mut seen = Vec::new();
        for (took, ci) in looks {
            let questions = self.core.questions(&world.cis[ci].name);
            world.run_until(begun + took);
            let look = eyes::provider(world, ci, &questions);
            referee.saw_provider(world, &self.core, ci, look.is_ok());
            seen.push((ci, look));
        }
        let late = self.advance(world, PROBE_DEADLINE);
        seen.sort_by_key(|(ci, _)| *ci);
        for (ci, look) in seen {
            match &look {
                Ok(_) => tick.good += 1,
                Err(_) => tick.bad += 1,
            }
            let name = world.cis[ci].name.clone();
            self.core.record_provider(self.looked, &name, look);
        }
        late
    }

    /// Watched time goes on over something that was expected to take so long at most; whether it
    /// took longer than that and the slack.
    fn advance(&mut self, world: &World, expected: Duration) -> bool {
        let slack = self.policy.lateness_max();
        let boot = world.boot_clock();
        self.watched.advance(boot, expected, slack).late.is_some()
    }

    fn keep_journal(&mut self, world: &mut World, now: Moment) {
        if self.journal.failing && world.now >= self.journal_heals {
            self.journal.failing = false;
        } else if !self.journal.failing && world.strikes(Fault::JournalFails) {
            self.journal.failing = true;
            self.journal_heals = world.now + world.random.range(10 * SECOND, 20 * MINUTE);
        }
        while let Some(sighting) = self.unsaved.pop_front() {
            if !self.write_sighting(&sighting) {
                self.unsaved.push_front(sighting);
                break;
            }
        }
        if now.since(self.clock_saved) >= CLOCK_EVERY || self.journal_error {
            match self.journal.save_clock(now) {
                Ok(()) => {
                    self.clock_saved = now;
                    self.journal_error = false;
                }
                Err(Refusal::Open(_) | Refusal::Failing) => self.journal_failed(),
            }
        }
        self.tell_operator();
    }

    fn sight(&mut self, sighting: Sighting) {
        if !self.unsaved.is_empty() || !self.write_sighting(&sighting) {
            self.unsaved.push_back(sighting);
        }
    }

    fn write_sighting(&mut self, sighting: &Sighting) -> bool {
        match self.journal.sight(sighting) {
            Ok(()) => {
                self.core.record(&Record::Sighting(sighting.clone()));
                self.journal_error = false;
                true
            }
            Err(Refusal::Open(_) | Refusal::Failing) => {
                self.journal_failed();
                false
            }
        }
    }

    fn note_endings(&mut self, world: &mut World, now: Moment) {
        for ending in self.core.endings(now) {
            if self.journal.end(&ending).is_err() {
                return self.journal_failed();
            }
            world.tell(format_args!(
                "{} is over: {}",
                ending.build,
                ending.end.as_str()
            ));
            self.core.record(&Record::Ending(ending));
        }
    }

    pub(super) fn journal_failed(&mut self) {
        self.journal_error = true;
        self.tell_operator();
    }

    fn tell_operator(&mut self) {
        self.core.operator(Operator {
            journal: self.journal_error.then(|| "the disk is full".to_owned()),
            ..Operator::default()
        });
    }

    fn settle(&mut self, world: &mut World, now: Moment) -> Result<(), Died> {
        for (id, closing) in self.core.settle(now) {
            if self.journal.close(id, now, closing).is_err() {
                self.journal_failed();
                return Ok(());
            }
            world.tell(format_args!("intent {} closed: {}", id.0, closing.as_str()));
            if world.strikes(Fault::CrashAfterClosing) {
                return Err(Died);
            }
            let generation = self.core.open_generation(now, id, closing);
            self.core.record(&Record::Closed {
                id,
                at: now,
                closing,
            });
            if let Some(sighting) = generation {
                world.tell(format_args!("generation {}", sighting.build));
                self.sight(sighting);
            }
        }
        Ok(())
    }
}

/// A person sends the same command as the watchdog.
fn person_retries(world: &mut World, attempt: &Attempt) {
    let repo = attempt.id.target.repo();
    let place = world.repos.iter().position(|one| Some(&one.label) == repo);
    let pull = attempt.id.target.build().map(|build| build.key.pull);
    if let (Some(repo), Some(pull)) = (place, pull) {
        world.post(Message::Retry { repo, pull });
    }
}

fn setup(world: &World) -> Setup {
    let mut routes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ci in &world.cis {
        routes.entry(ci.system).or_default().push(ci.name.clone());
    }
    let rows = world
        .bots
        .iter()
        .map(|bot| {
            let rows = [
                (StepKind::ReleaseSlot, Effect::None),
                (StepKind::ReplayResult, Effect::ResultKnownOrLeftPending),
                (StepKind::ForgetGreen, Effect::GreenForgottenOrLeftPending),
                (StepKind::Retry, Effect::NewRunOrLeftPending),
                (StepKind::Nudge, Effect::SomethingPending),
                (StepKind::ReplayClosed, Effect::AgreesWithGithub),
                (StepKind::ReplaySynchronize, Effect::AgreesWithGithub),
            ];
            let rows = rows
                .into_iter()
                .filter(|(kind, _)| match bot.fork {
                    Fork::Pypi => true,
                    Fork::Servo => *kind != StepKind::ForgetGreen,
                })
                .map(|(kind, effect)| RemedyRow {
                    kind,
                    effect,
                    deadline_min: Duration::ZERO,
                })
                .chain([operators::RESTART_ROW])
                .collect();
            (bot.name.clone(), rows)
        })
        .collect();
    let restarts = world.bots.iter();
    let restarts = restarts.map(|bot| (bot.name.clone(), operators::restart()));
    Setup {
        routes: Routes(routes),
        rows,
        own_timeouts: BTreeMap::new(),
        restarts: restarts.collect(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
