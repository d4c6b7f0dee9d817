//! Ten thousand seeds of the simulator: every rule is kept, and every kind of fault comes up.
//!
//! They run in an optimized build of the core and the simulator alone: the whole package optimized would
//! take longer to build than they take.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod core_alone;

use core_alone::{Copy, text};

/// How many.
const SEEDS: &str = "10000";

#[test]
fn ten_thousand_seeds_keep_every_rule() {
    let copy = Copy::new("many");
    copy.fill();
    let output = copy.simulate(&[("CI_WATCHDOG_SEEDS", SEEDS)]);
    let told = text(&output);
    println!("{told}");
    assert!(output.status.success(), "{told}");
    assert!(told.contains(&format!("{SEEDS} seeds, ")), "{told}");
}
