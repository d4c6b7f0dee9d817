//! What the loop shares with the web server: the latest report, health, the token in force, and the
//! way to ask the loop for something.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot};

use super::PROBE_DEADLINE;
use super::hand::{HandReport, Instruction, OrderWish};
use crate::clock::Clock;
use crate::config::Token;
use crate::decision::hand::{Refusal, Wish};
use crate::decision::policy::Mode;
use crate::report::Report;

/// Requests to the loop that may wait; more are told to come back.
const REQUESTS_MAX: usize = 16;
/// What those are told, and who asks while the watchdog stops.
const BUSY: &str = "too many requests wait for the loop, or the watchdog is stopping: try again";
/// How much longer than a pause and the looks after it the loop may be silent before it counts as
/// stalled; one request, and writes to a slow disk, fit.
const STILL_SLACK: Duration = Duration::from_secs(30);
// A command that restarts a bot is the longest thing that the loop waits for, and no sign of death.
const _: () = assert!(
    crate::bots::restart::DEADLINE.as_secs() < 2 * PROBE_DEADLINE.as_secs() + STILL_SLACK.as_secs()
);

/// Read by many, written by the loop.
pub struct Shared {
    report: ArcSwap<Report>,
    clock: Arc<dyn Clock>,
    /// Milliseconds of the boot clock when the loop last went on, or at the start.
    went_on: AtomicU64,
    tick: AtomicU64,
    /// What changing endpoints ask for; none turns them off.
    token: ArcSwapOption<Token>,
    requests: mpsc::Sender<Request>,
}

/// The way back to who asked.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// What somebody asks the loop for; it heeds requests between two ticks.
pub(super) enum Request {
    /// Read the configuration again.
    Reload(Reply<Result<(), String>>),
    /// Repair something.
    ByHand {
        wish: Wish,
        dry_run: bool,
        reply: Reply<Result<HandReport, Refusal>>,
    },
    /// Leave something alone, or go on.
    Order {
        wish: OrderWish,
        dry_run: bool,
        reply: Reply<Result<Instruction, Refusal>>,
    },
}

/// Tells whoever asked; if they went away, nobody is told.
pub(super) fn answer<T>(reply: Reply<T>, result: T) {
    // The asker may have gone away; what was done is in the log all the same.
    let _ = reply.send(result);
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
    ) -> (Arc<Self>, mpsc::Receiver<Request>) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let shared = Self {
            report: ArcSwap::from_pointee(Report::empty(mode, clock.wall())),
            went_on: AtomicU64::new(millis(clock.boot())),
            tick: AtomicU64::new(millis(tick)),
            token: ArcSwapOption::from_pointee(token),
            clock,
            requests: sender,
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
        self.ask(Request::Reload(reply));
        answer
    }

    /// Asks the loop for a repair; answered between two ticks. A request whose asker went away before
    /// it was begun is not begun.
    pub fn request_by_hand(
        &self,
        wish: Wish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<HandReport, Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::ByHand {
            wish,
            dry_run,
            reply,
        });
        answer
    }

    /// Tells the loop to leave something alone, or to go on; answered between two ticks.
    pub fn request_order(
        &self,
        wish: OrderWish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<Instruction, Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Order {
            wish,
            dry_run,
            reply,
        });
        answer
    }

    fn ask(&self, request: Request) {
        let refused = match self.requests.try_send(request) {
            Ok(()) => return,
            Err(
                mpsc::error::TrySendError::Full(refused)
                | mpsc::error::TrySendError::Closed(refused),
            ) => refused,
        };
        let busy = || Refusal::Busy(BUSY.to_owned());
        match refused {
            Request::Reload(reply) => answer(reply, Err(BUSY.to_owned())),
            Request::ByHand { reply, .. } => answer(reply, Err(busy())),
            Request::Order { reply, .. } => answer(reply, Err(busy())),
        }
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
