//! What happened in a run: faults by kind, requests by kind, and a hash of everything in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use ci_watchdog::model::StepKind;

macro_rules! faults {
    ($($name:ident),+ $(,)?) => {
        /// The kinds of fault; each must come up in a run of the whole simulator.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Fault { $($name),+ }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

faults! {
    // Messages.
    LostPush,
    SlowPush,
    LostStarted,
    LostFinished,
    LostClosed,
    LostSynchronize,
    LostRebuild,
    SlowRebuild,
    RebuildRefused,
    // Workers and runs.
    WorkerKilled,
    WorkerLossUnnoticed,
    NoSuccessor,
    WorkerFrozen,
    IdleWorkerFrozen,
    LateResult,
    WorkerPaused,
    PoolDown,
    HalfPoolDown,
    DeathSeries,
    RunException,
    RunCancelled,
    QueuedCancelled,
    FlakyRed,
    LongSilence,
    // Masters, and providers as they are seen.
    MasterStopped,
    MasterKilled,
    MasterFrozen,
    ProviderUnreachable,
    ProviderErrors,
    HistoryPartial,
    HistoryUnasked,
    Blink,
    // The bot and GitHub.
    BotRestart,
    BotDownLong,
    BotWedged,
    RestartFails,
    MessageWhileDown,
    BotUnreachable,
    BotErrors,
    DatabaseLocked,
    WriteLost,
    TornBot,
    GithubDown,
    QuotaLow,
    TreeClosed,
    // Our own requests.
    RequestRefused,
    RefusedAndDone,
    RequestNotSent,
    RequestLost,
    AnswerLost,
    EffectSlow,
    // People.
    PersonRetry,
    RetryJustBefore,
    RetryAtOnce,
    RetryJustAfter,
    PersonCloses,
    PersonPushes,
    PersonTries,
    UrgentPull,
    Crowd,
    // Operators.
    HandRetry,
    HandRetryMeant,
    HandReset,
    HandRelease,
    Paused,
    Excluded,
    // Ourselves.
    CrashInLook,
    CrashBeforeIntent,
    CrashAfterIntent,
    CrashAfterRequest,
    CrashAfterOutcome,
    CrashAfterClosing,
    LateTick,
    Stopped,
    SuspendBeforeRequest,
    WallClockSteps,
    SlowLook,
    JournalFails,
    Reload,
}

/// Kinds of fault that are forced on, and kinds that are off, over what the seed says.
#[derive(Clone, Debug, Default)]
pub struct FaultSet {
    /// These may strike in every seed.
    pub with: BTreeSet<Fault>,
    /// These never strike.
    pub without: BTreeSet<Fault>,
}

impl FaultSet {
    /// From lists of names with commas between them.
    ///
    /// # Errors
    ///
    /// A name that is none.
    pub fn parse(with: &str, without: &str) -> Result<Self, String> {
        let list = |names: &str| -> Result<BTreeSet<Fault>, String> {
            let names = names.split(',').map(str::trim);
            names.filter(|name| !name.is_empty()).map(fault).collect()
        };
        Ok(Self {
            with: list(with)?,
            without: list(without)?,
        })
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    let named = |fault: &&Fault| format!("{fault:?}") == name;
    let found = Fault::ALL.iter().find(named).copied();
    found.ok_or_else(|| format!("{name} is no kind of fault; there are {:?}", Fault::ALL))
}

/// Counts and a hash.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Faults that had an effect.
    pub faults: BTreeMap<Fault, u64>,
    /// Requests that were sent, by kind and outcome.
    pub requests: BTreeMap<(StepKind, &'static str), u64>,
    /// Reruns that took effect in the bot.
    pub reruns: u64,
    /// Reruns whose build came to life between the last look and the request: no watchdog without
    /// a say inside the bot can see that.
    pub raced: u64,
    /// Pull requests that were merged.
    pub merged: u64,
    /// Pull requests that failed.
    pub failed: u64,
    /// Pull requests that ended held, by the gate or verdict that says why.
    pub held: BTreeMap<String, u64>,
    /// Ticks of the watchdog.
    pub ticks: u64,
    /// Simulated time, ms.
    pub time: u64,
    hash: Hash,
    verbose: bool,
}

#[derive(Clone, Copy, Debug)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // FNV-1a.
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

impl Tally {
    /// Nothing yet; a verbose one prints what it is told.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            ..Self::default()
        }
    }

    /// A fault had an effect.
    pub fn fault(&mut self, now: u64, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        self.tell(now, format_args!("fault {fault:?}"));
    }

    /// Something happened that belongs to the trace.
    pub fn tell(&mut self, now: u64, what: fmt::Arguments<'_>) {
        if self.verbose {
            println!("{:>10.1} {what}", now as f64 / 1000.0);
        }
        // Writing to a hash cannot fail.
        let _ = write!(self.hash, "{now}{what}");
    }

    /// The hash of everything that was told, in its order.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (request, count) in &other.requests {
            *self.requests.entry(*request).or_default() += count;
        }
        for (why, count) in &other.held {
            *self.held.entry(why.clone()).or_default() += count;
        }
        self.reruns += other.reruns;
        self.raced += other.raced;
        self.merged += other.merged;
        self.failed += other.failed;
        self.ticks += other.ticks;
        self.time += other.time;
    }
}
