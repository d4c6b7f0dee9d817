//! Random bad days of a real homu 0.2.0, a real Buildbot 4.3 and the watchdog beside them.
//!
//! Three days run with all other tests. `tests/long/run` runs fifty: `CI_WATCHDOG_DAYS=n` sets how many,
//! `CI_WATCHDOG_LANES=n` how many at a time, and `CI_WATCHDOG_DAY=seed` runs that one alone:
//!
//! ```console
//! $ CI_WATCHDOG_DAY=7 cargo nextest run --test e2e_days --run-ignored only --no-capture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod days;
mod stack;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Days of the long tests.
const DAYS: u64 = 50;
/// Days at a time. They mostly wait.
const LANES: u64 = 3;

/// The days of every test run: together they bring every kind of strike.
const SEEDS: [u64; 3] = [1, 2, 20];

#[tokio::test]
async fn the_first_day_ends_well() {
    days::live(SEEDS[0]).await;
}

#[tokio::test]
async fn the_second_day_ends_well() {
    days::live(SEEDS[1]).await;
}

#[tokio::test]
async fn the_third_day_ends_well() {
    days::live(SEEDS[2]).await;
}

#[test]
#[ignore = "takes an hour: tests/long/run"]
fn every_day_ends_well() {
    let alone = number("CI_WATCHDOG_DAY");
    let days = match alone {
        Some(seed) => seed..seed + 1,
        None => 1..number("CI_WATCHDOG_DAYS").unwrap_or(DAYS) + 1,
    };
    println!(
        "| day | pulls | merged | failed | held | strikes | end, s | stuck, s | told | reruns |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (next, bad) = (AtomicU64::new(days.start), Mutex::new(Vec::new()));
    let lane = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= days.end {
                return;
            }
            // On a thread of its own, so that a bad day ends no other.
            let day = thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(days::live(seed))
            });
            if day.join().is_err() {
                println!("| {seed} | ended badly: replay it with CI_WATCHDOG_DAY={seed} |");
                bad.lock().unwrap().push(seed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..number("CI_WATCHDOG_LANES").unwrap_or(LANES) {
            scope.spawn(lane);
        }
    });
    let bad = bad.into_inner().unwrap();
    assert!(bad.is_empty(), "days that ended badly: {bad:?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}
