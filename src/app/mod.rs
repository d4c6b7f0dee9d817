//! The one loop: look, judge, plan, act, report.

mod act;
mod describe;
mod look;
mod setup;
mod shared;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::bots::Bot;
use crate::clock::{Clock, WatchedTime};
use crate::config::{self, Config, JournalSettings};
use crate::decision::gates::Operator;
use crate::decision::health::Tick;
use crate::decision::policy::Policy;
use crate::decision::{Core, Decision, Look};
use crate::journal::{Journal, JournalError, Memory};
use crate::model::{BuildId, Gate, IntentId, Moment, Record, Sighting, Verdict};
use crate::providers::Provider;
use crate::report::{Event, Report, Stamp};

pub use shared::{Health, ReloadRequest, Shared};

/// The longest that one source's whole look may take, however many requests it needs.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// How often watched time is written down.
const CLOCK_EVERY: Duration = Duration::from_secs(60);
/// How often old records are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);
/// Sightings that wait for a journal that cannot be written; more are dropped, oldest first, and
/// seen again after a restart.
const UNSAVED_MAX: usize = 1000;

/// Who is told of every tick: metrics.
pub trait Observer: Send + Sync {
    /// A tick ended.
    fn tick(&self, report: &Report);

    /// A reload was tried.
    fn reload(&self, good: bool, at: SystemTime);
}

/// The watchdog: everything that one process needs.
pub struct App {
    config_path: PathBuf,
    journal_settings: JournalSettings,
    bots: Vec<Box<dyn Bot>>,
    providers: Vec<Box<dyn Provider>>,
    warnings: Vec<String>,
    core: Core,
    journal: Journal,
    clock: Arc<dyn Clock>,
    watched: WatchedTime,
    observer: Arc<dyn Observer>,
    shared: Arc<Shared>,
    reloads: mpsc::Receiver<ReloadRequest>,
    tick: u64,
    /// The moment of the last look.
    looked: Moment,
    started: SystemTime,
    /// What is worth a log line or a count when it changes.
    told: Told,
    /// Sightings that are not in the journal yet.
    unsaved: VecDeque<Sighting>,
    journal_error: Option<JournalError>,
    clock_saved: Moment,
    pruned: Option<Moment>,
    /// Wall times of what the core knows by moments only.
    walls: Walls,
    events: Vec<Event>,
    /// When each source was last good.
    successes: BTreeMap<String, SystemTime>,
}

/// What was told last.
#[derive(Default)]
struct Told {
    verdicts: BTreeMap<(BuildId, String), Verdict>,
    holds: BTreeMap<String, Gate>,
    queues: BTreeMap<String, Verdict>,
    sources: BTreeMap<String, bool>,
}

/// Wall times for people.
#[derive(Default)]
struct Walls {
    first_seen: BTreeMap<BuildId, SystemTime>,
    intents: BTreeMap<IntentId, IntentWalls>,
}

#[derive(Clone, Copy)]
struct IntentWalls {
    at: SystemTime,
    closed: Option<SystemTime>,
}

impl App {
    /// Opens the journal and takes what it kept.
    ///
    /// # Errors
    ///
    /// The journal: held by another watchdog, damaged, of a newer version, or not to be written.
    pub fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, JournalError> {
        let (journal, memory) = Journal::open(&config.journal.path)?;
        Ok(Self::with_journal(config, journal, memory, clock, observer))
    }

    /// The same with a journal that is open already.
    pub fn with_journal(
        config: Config,
        journal: Journal,
        memory: Memory,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let now = memory.watched;
        let records: Vec<Record> = memory.records.iter().map(|r| r.record.clone()).collect();
        let mut walls = Walls::default();
        for stamped in &memory.records {
            walls.note(&stamped.record, stamped.wall);
        }
        let setup = setup::setup(&config.bots, &config.providers);
        let mode = config.policy.mode;
        let tick = config.policy.tick;
        let (shared, reloads) = Shared::new(mode, tick, Arc::clone(&clock));
        let mut warnings = config.warnings;
        warnings.extend(setup::warnings(&config.bots, &config.providers));
        Self {
            config_path: config.path,
            journal_settings: config.journal,
            core: Core::new(config.policy, setup, &records, now),
            bots: config.bots,
            providers: config.providers,
            warnings,
            journal,
            watched: WatchedTime::resume(now, clock.boot()),
            started: clock.wall(),
            clock,
            observer,
            shared,
            reloads,
            tick: 0,
            looked: now,
            told: Told::default(),
            unsaved: VecDeque::new(),
            journal_error: None,
            clock_saved: now,
            pruned: None,
            walls,
            events: Vec::new(),
            successes: BTreeMap::new(),
        }
    }

    /// What web reads: the latest report, health, and the way to ask for a reload.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Ticks until `stop` is ready; it is heeded between ticks, so that nothing is left half done.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        let mut slept = Duration::ZERO;
        loop {
            self.tick(slept).await;
            let pause = self.core.policy().tick;
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(request) = self.reloads.recv() => self.reload(request),
                () = shared.woken() => {}
                () = tokio::time::sleep(pause) => {}
            }
            slept = pause;
        }
        self.save_clock();
        tracing::info!("stopped between two ticks; open intents are settled after the next start");
    }

    /// One tick after a pause of at most `slept`.
    pub async fn tick(&mut self, slept: Duration) {
        let begun = self.clock.boot();
        let slack = self.core.policy().lateness_max();
        let mut late = self.advance(slept, slack);
        let (bots, in_time) = self.look_at_bots(None).await;
        late = late.or(in_time);
        let now = self.watched.now();
        self.looked = now;
        let mut tick = Tick {
            late: false,
            good: 0,
            bad: 0,
        };
        self.take_bots(now, bots, &mut tick);
        self.follow_adapters();
        let (providers, in_time) = self.look_at_providers(None).await;
        late = late.or(in_time);
        self.take_providers(now, providers, &mut tick);
        if let Some(by) = late {
            tick.late = true;
            tracing::warn!(by = ?by, "a tick came late: this process or its machine was stopped; looking afresh");
            self.events.push(Event::LateTick { by });
        }
        self.core.record_tick(now, tick);
        self.keep_journal(now);
        self.settle(now);
        let decision = self.core.decide(now, Look::Tick);
        self.tell(&decision);
        let attempts = decision.plan.attempts.clone();
        let acted = !attempts.is_empty();
        for attempt in attempts {
            self.act(attempt).await;
        }
        let decision = if acted {
            self.core.decide(self.looked, Look::Again)
        } else {
            decision
        };
        self.publish(&decision, begun);
    }

    /// Takes what the adapters know now: a look may tell which bot it is, and so its timeouts.
    fn follow_adapters(&mut self) {
        let setup = setup::setup(&self.bots, &self.providers);
        let policy = self.core.policy().clone();
        self.core.configure(policy, setup);
    }

    /// Lets watched time go on over something that was expected to take so long at most.
    fn advance(&mut self, expected: Duration, slack: Duration) -> Option<Duration> {
        self.watched
            .advance(self.clock.boot(), expected, slack)
            .late
    }

    /// Writes what waits to be written, and says whether the journal can be written at all.
    fn keep_journal(&mut self, now: Moment) {
        while let Some(sighting) = self.unsaved.pop_front() {
            if !self.write_sighting(&sighting) {
                self.unsaved.push_front(sighting);
                break;
            }
        }
        let due = now.since(self.clock_saved) >= CLOCK_EVERY || self.journal_error.is_some();
        if due {
            self.save_clock();
        }
        if self.journal_error.is_none()
            && self
                .pruned
                .is_none_or(|pruned| now.since(pruned) >= PRUNE_EVERY)
        {
            self.pruned = Some(now);
            self.prune(now);
        }
        self.operator();
    }

    fn prune(&mut self, now: Moment) {
        let wall = self.clock.wall();
        let Some(keep_since) = wall.checked_sub(self.journal_settings.retention) else {
            return;
        };
        match self.journal.prune(keep_since, now) {
            Ok(0) => {}
            Ok(records) => tracing::info!(records, "pruned the journal"),
            Err(error) => self.journal_failed(error),
        }
    }

    /// Tells the core what an operator says, and whether the journal can be written.
    fn operator(&mut self) {
        self.core.operator(Operator {
            journal: self.journal_error.as_ref().map(ToString::to_string),
            ..Operator::default()
        });
    }

    fn save_clock(&mut self) {
        let now = self.watched.now();
        match self.journal.save_clock(now, self.clock.wall()) {
            Ok(()) => {
                self.clock_saved = now;
                self.journal_works();
            }
            Err(error) => self.journal_failed(error),
        }
    }

    fn write_sighting(&mut self, sighting: &Sighting) -> bool {
        let wall = self.clock.wall();
        match self.journal.sight(sighting, wall) {
            Ok(()) => {
                let record = Record::Sighting(sighting.clone());
                self.walls.note(&record, wall);
                self.core.record(&record);
                self.journal_works();
                true
            }
            Err(error) => {
                self.journal_failed(error);
                false
            }
        }
    }

    fn sight(&mut self, sighting: Sighting) {
        tracing::info!(build = %sighting.build, cause = ?sighting.cause, merge_sha = ?sighting.merge_sha, "the bot waits for a build");
        self.walls
            .first_seen
            .entry(sighting.build.clone())
            .or_insert_with(|| self.clock.wall());
        // Once one could not be written, those behind it wait, so that their order stays.
        if !self.unsaved.is_empty() || !self.write_sighting(&sighting) {
            self.unsaved.push_back(sighting);
            if self.unsaved.len() > UNSAVED_MAX {
                self.unsaved.pop_front();
            }
        }
    }

    fn journal_works(&mut self) {
        if self.journal_error.take().is_some() {
            tracing::info!("the journal can be written again; acting is allowed");
        }
    }

    fn journal_failed(&mut self, error: JournalError) {
        if self.journal_error.is_none() {
            tracing::error!("{error}; nothing is acted on until it can be written");
        }
        self.events.push(Event::JournalFailed);
        self.journal_error = Some(error);
        self.operator();
    }

    /// Settles open intents by what is known now.
    fn settle(&mut self, now: Moment) {
        for (id, closing) in self.core.settle(now) {
            let wall = self.clock.wall();
            if let Err(error) = self.journal.close(id, now, wall, closing) {
                // It stays open, and is settled again at the next tick.
                self.journal_failed(error);
                return;
            }
            let record = Record::Closed {
                id,
                at: now,
                closing,
            };
            self.walls.note(&record, wall);
            let generation = self.core.open_generation(now, id, closing);
            self.core.record(&record);
            self.told_closing(id, closing, now);
            if let Some(sighting) = generation {
                self.sight(sighting);
            }
        }
    }

    fn reload(&mut self, request: ReloadRequest) {
        let result = self.load_again();
        let wall = self.clock.wall();
        match &result {
            Ok(()) => tracing::info!(config = %self.config_path.display(), "reloaded"),
            Err(mistakes) => tracing::error!(
                config = %self.config_path.display(),
                "not reloaded, the configuration from before stays in force:\n{mistakes}"
            ),
        }
        self.observer.reload(result.is_ok(), wall);
        request.answer(result);
    }

    fn load_again(&mut self) -> Result<(), String> {
        let config = config::load(&self.config_path).map_err(|mistakes| mistakes.to_string())?;
        if config.journal.path != self.journal_settings.path {
            return Err(format!(
                "journal.url changed to {}: that needs a restart",
                config.journal.path.display()
            ));
        }
        let setup = setup::setup(&config.bots, &config.providers);
        self.warnings = config.warnings;
        self.warnings
            .extend(setup::warnings(&config.bots, &config.providers));
        self.shared.configure(config.policy.tick);
        self.core.configure(config.policy, setup);
        self.bots = config.bots;
        self.providers = config.providers;
        self.journal_settings = config.journal;
        Ok(())
    }

    fn publish(&mut self, decision: &Decision, begun: Duration) {
        self.tick += 1;
        let took = self.clock.boot().saturating_sub(begun);
        let report = self.describe(decision, took);
        self.events.clear();
        self.observer.tick(&report);
        self.shared.publish(report);
    }

    fn stamp(&self, moment: Moment) -> Stamp {
        let now = self.watched.now();
        let wall = self.clock.wall();
        let time = if moment > now {
            wall.checked_add(moment.since(now))
        } else {
            wall.checked_sub(now.since(moment))
        };
        Stamp(time.unwrap_or(wall))
    }

    fn policy(&self) -> &Policy {
        self.core.policy()
    }
}

impl Walls {
    fn note(&mut self, record: &Record, wall: SystemTime) {
        match record {
            Record::Sighting(sighting) => {
                self.first_seen
                    .entry(sighting.build.clone())
                    .or_insert(wall);
            }
            Record::Intent { id, .. } => {
                self.intents.insert(
                    *id,
                    IntentWalls {
                        at: wall,
                        closed: None,
                    },
                );
            }
            Record::Outcome { .. } => {}
            Record::Closed { id, .. } => {
                if let Some(walls) = self.intents.get_mut(id) {
                    walls.closed = Some(wall);
                }
            }
        }
    }
}
