//! The pure core in a simulated world: a thousand seeds, each of which must keep every rule.
//!
//! `CI_WATCHDOG_SEEDS=n` sets how many seeds are run; `CI_WATCHDOG_SEED=n` runs that one alone and
//! prints its trace; with `CI_WATCHDOG_FIRST=1` the first broken rule ends the run.

#[path = "simulation/mod.rs"]
mod simulation;

use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use simulation::tally::{Fault, Tally};
use simulation::{Run, run};

/// Seeds in a usual run.
const SEEDS: u64 = 1000;
/// From so many seeds on every kind of fault must have come up.
const ENOUGH: u64 = 500;
/// Threads that run seeds; each seed is one thread's alone.
const THREADS: usize = 2;
/// Failed seeds that are told in full.
const SHOWN: usize = 10;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_seed_keeps_every_rule() {
    let alone = number("CI_WATCHDOG_SEED");
    let seeds = match alone {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..number("CI_WATCHDOG_SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let first_only = number("CI_WATCHDOG_FIRST").is_some();
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let done: Mutex<Vec<(u64, Run)>> = Mutex::new(Vec::new());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let one = run(seed, alone.is_some());
            if first_only && !one.broken.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
            done.lock()
                .expect("no thread panics with it")
                .push((seed, one));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("all threads are joined");
    done.sort_by_key(|(seed, _)| *seed);
    let mut total = Tally::default();
    for (_, one) in &done {
        total.add(&one.tally);
    }
    let broken: Vec<&(u64, Run)> = done
        .iter()
        .filter(|(_, one)| !one.broken.is_empty())
        .collect();
    for (seed, one) in broken.iter().take(SHOWN) {
        println!("seed {seed}: replay with CI_WATCHDOG_SEED={seed}");
        for what in &one.broken {
            println!("    {what}");
        }
    }
    show(done.len(), &total, begun.elapsed().as_secs_f64());
    assert!(
        broken.is_empty(),
        "{} of {} seeds broke a rule; see above",
        broken.len(),
        done.len()
    );
    if count >= ENOUGH {
        for fault in Fault::ALL {
            assert!(total.faults.contains_key(fault), "{fault:?} never came up");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seeds = number("CI_WATCHDOG_SEEDS").unwrap_or(SEEDS).div_ceil(100);
    for seed in 0..seeds {
        let (one, other) = (run(seed, false), run(seed, false));
        assert_eq!(one.tally.hash(), other.tally.hash(), "seed {seed}");
    }
    assert_ne!(run(1, false).tally.hash(), run(2, false).tally.hash());
}

fn show(seeds: usize, total: &Tally, seconds: f64) {
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
    println!("faults: {:?}", total.faults);
}
