//! The one loop: look, judge, plan, act, report.

mod act;
mod describe;
mod hand;
mod look;
mod setup;
mod shared;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bots::Bot;
use crate::clock::Clock;
use crate::config::{self, Config, Exclusion, JournalSettings, Kinds, Maintenance};
use crate::decision::gates::Operator;
use crate::decision::health::Tick;
use crate::decision::policy::Policy;
use crate::decision::restart::Restart;
use crate::decision::watched::WatchedTime;
use crate::decision::{Core, Decision, Look};
use crate::journal::{Journal, JournalError, Memory};
use crate::model::{
    BotName, BuildId, Gate, IntentId, Moment, Record, Sha, Sighting, SightingCause, Stop, StopKind,
    Verdict,
};
use crate::providers::Provider;
use crate::report::{Event, Report, Stamp};
use shared::{Reply, Request, answer};

pub use hand::{HandReport, Instruction, OrderWish, SentReport};
pub use shared::{Health, Shared};

/// The longest that one source's whole look may take, however many requests it needs.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// How long one tick goes on beginning attempts, each of which costs a look and a request; what was
/// not begun is judged anew in the next tick. The first is always begun, so that slow sources do not
/// keep everything from being done. After an outage dozens may be due: the sources are looked at, the
/// page is told, and a stop is heeded between them.
pub const ACT_BUDGET: Duration = Duration::from_secs(30);
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
    /// What a reload's configuration may name.
    kinds: Kinds<'static>,
    /// Where the server listens; the socket is bound once.
    listen: SocketAddr,
    journal_settings: JournalSettings,
    exclusions: Vec<Exclusion>,
    maintenance: Vec<Maintenance>,
    bots: Vec<Box<dyn Bot>>,
    providers: Vec<Box<dyn Provider>>,
    restarts: BTreeMap<BotName, Restart>,
    warnings: Vec<String>,
    core: Core,
    journal: Journal,
    clock: Arc<dyn Clock>,
    watched: WatchedTime,
    observer: Arc<dyn Observer>,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    tick: u64,
    /// How long the last tick took.
    took: Duration,
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
    /// Opens the journal and takes what it kept. A damaged one is left alone: then this watchdog looks,
    /// judges and reports, and acts on nothing.
    ///
    /// # Errors
    ///
    /// The journal: held by another watchdog, of a newer version, not one at all, or not to be written.
    pub fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, JournalError> {
        let (journal, memory) = Journal::open_or_stand_by(&config.journal.path)?;
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
        let setup = setup::setup(&config.bots, &config.providers, &config.restarts);
        let mode = config.policy.mode;
        let tick = config.policy.tick;
        let token = config.server.token;
        let (shared, requests) = Shared::new(mode, tick, token, Arc::clone(&clock));
        let mut warnings = config.warnings;
        warnings.extend(setup::warnings(&config.bots, &config.providers));
        let damage = journal.damage().cloned();
        let mut app = Self {
            config_path: config.path,
            kinds: Kinds::ALL,
            listen: config.server.listen,
            journal_settings: config.journal,
            exclusions: config.exclusions,
            maintenance: config.maintenance,
            core: Core::new(config.policy, setup, &records, now),
            bots: config.bots,
            providers: config.providers,
            restarts: config.restarts,
            warnings,
            journal,
            watched: WatchedTime::resume(now, clock.boot()),
            started: clock.wall(),
            clock,
            observer,
            shared,
            requests,
            tick: 0,
            took: Duration::ZERO,
            looked: now,
            told: Told::default(),
            unsaved: VecDeque::new(),
            journal_error: None,
            clock_saved: now,
            pruned: None,
            walls,
            events: Vec::new(),
            successes: BTreeMap::new(),
        };
        if let Some(error) = damage {
            app.journal_failed(error);
        }
        app
    }

    /// Reads a reload's configuration with other kinds of bot and provider, as
    /// [`config::load_with`] does.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Kinds<'static>) -> Self {
        self.kinds = kinds;
        self
    }

    /// What web reads: the latest report, health, the token, and the way to ask for a reload.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Ticks until `stop` is ready; it is heeded between ticks and between attempts, so that nothing
    /// is left half done.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop.fuse());
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        let mut slept = Duration::ZERO;
        loop {
            self.tick_until(slept, stop.as_mut()).await;
            slept = self.core.policy().tick;
            if self.pause(slept, stop.as_mut()).await {
                break;
            }
        }
        self.save_clock();
        tracing::info!("stopped; what was sent and not settled is settled after the next start");
    }

    /// Waits for the next tick, and says whether it is to stop instead. A reload does not bring the
    /// tick forward: a death counts after some looks in a row, and reloads must not crowd them. What a
    /// person asks for looks by itself, and those looks count for nothing else.
    async fn pause(
        &mut self,
        pause: Duration,
        mut stop: Pin<&mut impl FusedFuture<Output = ()>>,
    ) -> bool {
        if stop.is_terminated() {
            return true;
        }
        let mut until = Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                () = stop.as_mut() => return true,
                Some(request) = self.requests.recv() => self.serve(request).await,
                () = tokio::time::sleep_until(until) => return false,
            }
            // A shorter tick that was configured meanwhile holds from now on.
            until = until.min(Instant::now() + self.policy().tick);
        }
    }

    /// One tick after a pause of at most `slept`.
    pub async fn tick(&mut self, slept: Duration) {
        let never = std::pin::pin!(std::future::pending().fuse());
        self.tick_until(slept, never).await;
    }

    /// One tick, which begins no further attempt once `stop` is ready.
    async fn tick_until(
        &mut self,
        slept: Duration,
        mut stop: Pin<&mut impl FusedFuture<Output = ()>>,
    ) {
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
        late = late.or(self.knock(now, None).await);
        self.follow_adapters();
        let (providers, in_time) = self.look_at_providers().await;
        late = late.or(in_time);
        self.take_providers(now, providers, &mut tick);
        match late {
            Some(by) => self.look_afresh(by, tick),
            None => self.core.record_tick(now, tick),
        }
        self.shared.go_on();
        self.keep_journal(now);
        self.note_endings(now);
        self.settle(now);
        let decision = self.core.decide(now, Look::Tick);
        self.note_findings(&decision);
        self.tell(&decision);
        let attempts = decision.plan.attempts.clone();
        if attempts.is_empty() {
            return self.publish(&decision, begun);
        }
        let mut left = attempts.len();
        let acting = self.clock.boot();
        for attempt in attempts {
            self.act(attempt).await;
            left -= 1;
            if left > 0
                && let Some(why) = self.enough(acting, stop.as_mut())
            {
                tracing::info!(
                    left,
                    "attempts are left for the next tick to judge anew: {why}"
                );
                break;
            }
        }
        let decision = self.core.decide(self.looked, Look::Again);
        self.publish(&decision, begun);
    }

    /// Why no further attempt is begun in this tick, where that is so.
    fn enough(
        &self,
        acting: Duration,
        mut stop: Pin<&mut impl FusedFuture<Output = ()>>,
    ) -> Option<&'static str> {
        if stop.is_terminated() || stop.as_mut().now_or_never().is_some() {
            Some("the watchdog is stopping")
        } else if !self.requests.is_empty() {
            Some("somebody asks for something")
        } else if self.clock.boot().saturating_sub(acting) >= ACT_BUDGET {
            Some("this tick's time for acting is over")
        } else {
            None
        }
    }

    /// Takes what the adapters know now: a look may tell which bot it is, and so its timeouts.
    fn follow_adapters(&mut self) {
        let setup = setup::setup(&self.bots, &self.providers, &self.restarts);
        let policy = self.core.policy().clone();
        self.core.configure(policy, setup);
    }

    /// Lets watched time go on over something that was expected to take so long at most.
    fn advance(&mut self, expected: Duration, slack: Duration) -> Option<Duration> {
        self.watched
            .advance(self.clock.boot(), expected, slack)
            .late
    }

    /// This process or its machine was stopped: from the end of it on, everything is looked at afresh.
    fn look_afresh(&mut self, by: Duration, tick: Tick) {
        tracing::warn!(by = %format_args!("{by:.1?}"), "a tick came late: this process or its machine was stopped; looking afresh");
        self.events.push(Event::LateTick { by });
        // Not from the last look on: it may have been stopped in the middle of that.
        self.core
            .record_tick(self.watched.now(), Tick { late: true, ..tick });
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
            Ok(records) => {
                tracing::info!(records, "pruned the journal");
                // One step in each tick until nothing is left: no step holds the loop for long.
                self.pruned = None;
            }
            Err(error) => self.journal_failed(error),
        }
    }

    /// Tells the core what the configuration leaves alone now, and whether the journal can be written.
    fn operator(&mut self) {
        self.core.operator(Operator {
            stops: self.configured_stops(),
            silenced: BTreeMap::new(),
            journal: self.journal_error.as_ref().map(ToString::to_string),
        });
    }

    fn configured_stops(&self) -> Vec<Stop> {
        let now = self.watched.now();
        let wall = self.clock.wall();
        let maintenance = self.maintenance.iter().filter_map(|it| {
            let left = it.until(wall)?.duration_since(wall).unwrap_or_default();
            Some(Stop {
                kind: StopKind::Pause,
                scope: it.scope.clone(),
                reason: it.reason.clone(),
                by: "maintenance".to_owned(),
                at: now,
                until: Some(now + left),
            })
        });
        let exclusions = self.exclusions.iter().map(|it| Stop {
            kind: StopKind::Exclusion,
            scope: it.scope.clone(),
            reason: it.reason.clone(),
            by: "the configuration".to_owned(),
            at: now,
            until: None,
        });
        maintenance.chain(exclusions).collect()
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
        let commit = sighting.merge_sha.as_ref().map(Sha::as_str);
        tracing::info!(
            build = %sighting.build, commit = commit.unwrap_or("not known"),
            "the bot waits for a build: {}", cause(sighting.cause)
        );
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

    /// Writes down which generations are over. What could not be written is told again by the core.
    fn note_endings(&mut self, now: Moment) {
        for ending in self.core.endings(now) {
            let wall = self.clock.wall();
            if let Err(error) = self.journal.end(&ending, wall) {
                return self.journal_failed(error);
            }
            tracing::info!(build = %ending.build, verdict = %ending.verdict, "is over: {}", ending.end.as_str());
            self.core.record(&Record::Ending(ending));
            self.journal_works();
        }
    }

    /// Writes down what would have been sent. What could not be written is found again.
    fn note_findings(&mut self, decision: &Decision) {
        for finding in &decision.found {
            let wall = self.clock.wall();
            if let Err(error) = self.journal.find(finding, wall) {
                return self.journal_failed(error);
            }
            self.core.record(&Record::Finding(finding.clone()));
            self.journal_works();
        }
    }

    fn journal_works(&mut self) {
        if self.journal_error.take().is_some() {
            tracing::info!("the journal can be written again; acting is allowed");
        }
    }

    fn journal_failed(&mut self, error: JournalError) {
        let before = self.journal_error.as_ref();
        // What fails in another way meanwhile is told by the page; damage is for good, and told.
        if before.is_none_or(|before| error.is_damage() && !before.is_damage()) {
            let until = if error.is_damage() {
                "it is put right and the watchdog is started again"
            } else {
                "it can be written"
            };
            tracing::error!("{error}; nothing is acted on until {until}");
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

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Reload(reply) => self.reload(reply),
            Request::ByHand {
                wish,
                dry_run,
                reply,
            } => self.serve_wish(&wish, dry_run, reply).await,
            Request::Order {
                wish,
                dry_run,
                reply,
            } => self.serve_order(wish, dry_run, reply),
        }
    }

    fn reload(&mut self, reply: Reply<Result<(), String>>) {
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
        answer(reply, result);
    }

    fn load_again(&mut self) -> Result<(), String> {
        let config = config::load_with(&self.config_path, self.kinds)
            .map_err(|mistakes| mistakes.to_string())?;
        if config.journal.path != self.journal_settings.path {
            return Err(format!(
                "journal.url changed to {}: that needs a restart",
                config.journal.path.display()
            ));
        }
        if config.server.listen != self.listen {
            return Err(format!(
                "server.listen changed from {} to {}: that needs a restart",
                self.listen, config.server.listen
            ));
        }
        let setup = setup::setup(&config.bots, &config.providers, &config.restarts);
        self.warnings = config.warnings;
        self.warnings
            .extend(setup::warnings(&config.bots, &config.providers));
        self.shared
            .configure(config.policy.tick, config.server.token);
        self.core.configure(config.policy, setup);
        self.bots = config.bots;
        self.providers = config.providers;
        self.restarts = config.restarts;
        self.journal_settings = config.journal;
        self.exclusions = config.exclusions;
        self.maintenance = config.maintenance;
        self.operator();
        self.forget_gone_sources();
        Ok(())
    }

    /// Forgets what was told of sources that the configuration does not name any more.
    fn forget_gone_sources(&mut self) {
        let bots = self.bots.iter();
        let names: BTreeSet<String> = bots
            .flat_map(|bot| [bot.name().to_string(), bot.github().to_string()])
            .chain(self.providers.iter().map(|one| one.name().to_string()))
            .collect();
        self.successes.retain(|source, _| names.contains(source));
        self.told.sources.retain(|source, _| names.contains(source));
    }

    fn publish(&mut self, decision: &Decision, begun: Duration) {
        self.tick += 1;
        self.took = self.clock.boot().saturating_sub(begun);
        let report = self.describe(decision);
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

/// Why a build is there, in words.
pub(crate) fn cause(cause: SightingCause) -> &'static str {
    match cause {
        SightingCause::First => "newly pending",
        SightingCause::OurRerun => "our rerun took effect",
        SightingCause::OthersRerun => "somebody made it build the same head again",
        SightingCause::NewHead => "the pull request has a new head",
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
            Record::Outcome { .. } | Record::Order(_) | Record::Finding(_) | Record::Ending(_) => {}
            Record::Closed { id, .. } => {
                if let Some(walls) = self.intents.get_mut(id) {
                    walls.closed = Some(wall);
                }
            }
        }
    }
}
