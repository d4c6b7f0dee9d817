//! The pure core in a simulated world: some seeds, each of which must keep every rule. `tests/many_seeds.rs`
//! runs ten thousand of them.
//!
//! What the environment says, where it says something:
//!
//! - `CI_WATCHDOG_SEEDS=n`: how many seeds are run.
//! - `CI_WATCHDOG_FROM=n`: the first of them, where it is not 0.
//! - `CI_WATCHDOG_SEED=n`: that one alone, and its trace is printed.
//! - `CI_WATCHDOG_FIRST=1`: the first broken rule ends the run.
//! - `CI_WATCHDOG_WITH=Fault,…`: these kinds of fault may strike in every seed; of `tally.rs`.
//! - `CI_WATCHDOG_WITHOUT=Fault,…`: these never strike.

#![allow(clippy::panic, reason = "what goes wrong in a test fails it")]

#[path = "simulation/mod.rs"]
mod simulation;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use simulation::tally::{Fault, FaultSet, Tally};
use simulation::{Run, run};

/// Seeds in a usual run of this build, which is not optimized.
const SEEDS: u64 = 100;
/// From so many seeds on every kind of fault must have come up.
const ENOUGH: u64 = 1000;
/// Threads that run seeds; each seed is one thread's alone.
const THREADS: usize = 2;
/// Failed seeds that are told in full.
const SHOWN: usize = 10;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn list(variable: &str) -> String {
    env::var(variable).unwrap_or_default()
}

fn fault_set() -> FaultSet {
    let (with, without) = (list("CI_WATCHDOG_WITH"), list("CI_WATCHDOG_WITHOUT"));
    FaultSet::parse(&with, &without).unwrap_or_else(|error| panic!("{error}"))
}

/// The command that replays a seed, with the faults that it was run with.
fn replay(seed: u64) -> String {
    let mut command = format!("CI_WATCHDOG_SEED={seed} ");
    for variable in ["CI_WATCHDOG_WITH", "CI_WATCHDOG_WITHOUT"] {
        let names = list(variable);
        if !names.is_empty() {
            command.push_str(&format!("{variable}={names} "));
        }
    }
    command + "cargo test --locked --test simulation every_seed -- --nocapture"
}

/// Runs one seed; a panic is a rule that it broke.
fn guarded(seed: u64, verbose: bool, set: &FaultSet) -> Run {
    catch_unwind(AssertUnwindSafe(|| run(seed, verbose, set))).unwrap_or_else(|_| Run {
        tally: Tally::default(),
        broken: vec!["it panicked".to_owned()],
    })
}

#[test]
fn every_seed_keeps_every_rule() {
    let set = fault_set();
    let alone = number("CI_WATCHDOG_SEED");
    let seeds = match alone {
        Some(seed) => seed..seed.saturating_add(1),
        None => {
            let from = number("CI_WATCHDOG_FROM").unwrap_or(0);
            from..from.saturating_add(number("CI_WATCHDOG_SEEDS").unwrap_or(SEEDS))
        }
    };
    let count = seeds.end - seeds.start;
    let first_only = number("CI_WATCHDOG_FIRST").is_some();
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let total: Mutex<(u64, Tally)> = Mutex::default();
    let broken: Mutex<Vec<(u64, Run)>> = Mutex::default();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let one = guarded(seed, alone.is_some(), &set);
            let mut total = total.lock().expect("no thread panics with it");
            total.0 += 1;
            total.1.add(&one.tally);
            drop(total);
            if !one.broken.is_empty() {
                stop.fetch_or(first_only, Ordering::Relaxed);
                let mut broken = broken.lock().expect("no thread panics with it");
                broken.push((seed, one));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let (done, total) = total.into_inner().expect("all threads are joined");
    let mut broken = broken.into_inner().expect("all threads are joined");
    broken.sort_by_key(|(seed, _)| *seed);
    for (seed, one) in broken.iter().take(SHOWN) {
        println!("seed {seed}: {}", replay(*seed));
        for what in &one.broken {
            println!("    {what}");
        }
        println!("    faults in it: {:?}", one.tally.faults);
    }
    show(done, &total, begun.elapsed().as_secs_f64());
    assert!(
        broken.is_empty(),
        "{} of {done} seeds broke a rule; see above",
        broken.len(),
    );
    for fault in Fault::ALL {
        let came_up = total.faults.contains_key(fault);
        let off = set.without.contains(fault);
        assert!(!(came_up && off), "{fault:?} is off, and came up");
        assert!(
            came_up || off || count < ENOUGH,
            "{fault:?} never came up in {count} seeds"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let set = FaultSet::default();
    let hash = |seed| run(seed, false, &set).tally.hash();
    for seed in 0..10 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_name_that_is_no_fault_is_refused() {
    let set = FaultSet::parse("LostPush, Blink", "Crowd").expect("all are kinds of fault");
    assert!(set.with.contains(&Fault::Blink) && set.without.contains(&Fault::Crowd));
    let error = FaultSet::parse("LostPush", "Crowds").expect_err("one is no kind of fault");
    assert!(error.starts_with("Crowds is no kind of fault; there are [LostPush"));
}

fn show(seeds: u64, total: &Tally, seconds: f64) {
    println!(
        "{seeds} seeds, {:.0} simulated hours, {} ticks, {seconds:.1} s",
        total.time as f64 / 3_600_000.0,
        total.ticks
    );
    println!(
        "merged {}, failed {}, reruns {}, of them {} raced with a sign of life",
        total.merged, total.failed, total.reruns, total.raced
    );
    println!("held at the end: {:?}", total.held);
    println!("requests: {:?}", total.requests);
    println!("{} kinds of fault: {:?}", total.faults.len(), total.faults);
}
