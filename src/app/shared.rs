//! What the loop shares with the web server: the latest report, health, the token in force, and the
//! way to ask for a reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot};

use super::PROBE_DEADLINE;
use crate::clock::Clock;
use crate::config::Token;
use crate::decision::policy::Mode;
use crate::report::Report;

/// Requests to reload that may wait; more are told to come back.
const RELOADS_MAX: usize = 4;
/// How much longer than a pause and the looks after it the loop may be silent before it counts as
/// stalled; one request, and writes to a slow disk, fit.
const STILL_SLACK: Duration = Duration::from_secs(30);

/// Read by many, written by the loop.
pub struct Shared {
    report: ArcSwap<Report>,
    clock: Arc<dyn Clock>,
    /// Milliseconds of the boot clock when the loop last went on, or at the start.
    went_on: AtomicU64,
    tick: AtomicU64,
    /// What changing endpoints ask for; none turns them off.
    token: ArcSwapOption<Token>,
    reloads: mpsc::Sender<ReloadRequest>,
}

/// A request to read the configuration again.
pub struct ReloadRequest {
    reply: oneshot::Sender<Result<(), String>>,
}

impl ReloadRequest {
    /// Tells whoever asked; if they went away, nobody is told.
    pub fn answer(self, result: Result<(), String>) {
        // The asker may have gone away; the result is in the log and the metrics all the same.
        let _ = self.reply.send(result);
    }
}

/// Whether this process does its job.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether the loop went on lately: looked, or took a step of an attempt.
    pub loop_alive: bool,
    /// When the last tick ended; `None` before the first.
    pub last_tick: Option<SystemTime>,
    /// Whether the journal can be written.
    pub journal_writable: bool,
    /// Whether every source was looked at once, well or not.
    pub sources_seen: bool,
    /// What is not as it should be, one sentence each.
    pub reasons: Vec<String>,
}

impl Shared {
    pub(super) fn new(
        mode: Mode,
        tick: Duration,
        token: Option<Token>,
        clock: Arc<dyn Clock>,
    ) -> (Arc<Self>, mpsc::Receiver<ReloadRequest>) {
        let (reloads, requests) = mpsc::channel(RELOADS_MAX);
        let shared = Self {
            report: ArcSwap::from_pointee(Report::empty(mode, clock.wall())),
            went_on: AtomicU64::new(millis(clock.boot())),
            tick: AtomicU64::new(millis(tick)),
            token: ArcSwapOption::from_pointee(token),
            clock,
            reloads,
        };
        (Arc::new(shared), requests)
    }

    /// The latest tick's report; an empty one before the first has ended.
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// Whether this process does its job, now.
    pub fn health(&self) -> Health {
        let report = self.report();
        let since = millis(self.clock.boot()).saturating_sub(self.went_on.load(Ordering::Relaxed));
        // Between two signs of life lies at most a pause, a look at the bots, and one at the providers.
        let allowed = Duration::from_millis(self.tick.load(Ordering::Relaxed))
            + 2 * PROBE_DEADLINE
            + STILL_SLACK;
        let loop_alive = Duration::from_millis(since) <= allowed;
        let ticked = report.tick > 0;
        let mut reasons = Vec::new();
        if !loop_alive {
            reasons.push(format!("the loop has stood still for {} s", since / 1000));
        }
        if !ticked {
            reasons.push("the first look is under way".to_owned());
        }
        if ticked && !report.journal.writable {
            let why = report.journal.error.as_deref().unwrap_or("unknown");
            reasons.push(format!("the journal cannot be written: {why}"));
        }
        Health {
            loop_alive,
            last_tick: ticked.then_some(report.at.0),
            journal_writable: report.journal.writable,
            sources_seen: ticked,
            reasons,
        }
    }

    /// Asks the loop to read the configuration again; answered between two ticks with the mistakes
    /// where there are some.
    pub fn request_reload(&self) -> oneshot::Receiver<Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        if let Err(error) = self.reloads.try_send(ReloadRequest { reply }) {
            let request = match error {
                mpsc::error::TrySendError::Full(request)
                | mpsc::error::TrySendError::Closed(request) => request,
            };
            request.answer(Err(
                "another reload is under way, or the watchdog is stopping: try again".to_owned(),
            ));
        }
        answer
    }

    /// The token that changing endpoints ask for now; `None` turns them off.
    pub fn token(&self) -> Option<Arc<Token>> {
        self.token.load_full()
    }

    pub(super) fn configure(&self, tick: Duration, token: Option<Token>) {
        self.tick.store(millis(tick), Ordering::Relaxed);
        self.token.store(token.map(Arc::new));
        self.go_on();
    }

    pub(super) fn publish(&self, report: Report) {
        self.report.store(Arc::new(report));
        self.go_on();
    }

    /// The loop went on; whoever asks whether it lives counts from here.
    pub(super) fn go_on(&self) {
        self.went_on
            .store(millis(self.clock.boot()), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
