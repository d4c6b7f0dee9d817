//! A simulator that never fails proves nothing: it must catch every bug that is planted in the core.
//!
//! Each file in `tests/simulation/bugs` plants one, by replacing a piece of text that occurs once. Where it
//! names kinds of fault, only they make the bug show: with them it is caught, and without them it passes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod core_alone;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Mutex;

use core_alone::{Copy, Edit, root, text};
use serde::Deserialize;

/// Seeds in which a bug must be caught.
const SEEDS: &str = "3000";
/// Seeds, at least, in which it must pass without the kinds of fault that it names: those in which it was
/// caught with them, too. `CI_WATCHDOG_PLANTED_SEEDS` sets another number, as the long tests do.
const SEEDS_WITHOUT: u64 = 50;
/// Kinds of fault, at least, each with a bug that needs it alone.
const KINDS: usize = 20;
/// Bugs that are built and run at a time.
const AT_ONCE: usize = 2;

/// One planted bug.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bug {
    /// What it gets wrong.
    why: String,
    /// The kinds of fault that make it show; none: many do.
    #[serde(default)]
    faults: BTreeSet<String>,
    /// Where there are several, why one alone is not enough to tell: to the core they are the same.
    same: Option<String>,
    /// More kinds that are forced on while it is to be caught, so that it takes fewer seeds.
    #[serde(default)]
    with: BTreeSet<String>,
    /// The seed from which it is looked for: what shows in one of a thousand is found sooner.
    #[serde(default)]
    from: u64,
    /// Where it is planted.
    file: PathBuf,
    /// What is replaced; it must occur once.
    find: String,
    /// What it is replaced by.
    replace: String,
}

#[test]
fn the_simulator_catches_every_planted_bug() {
    let only = env::var("CI_WATCHDOG_PLANTED").ok();
    let mut bugs = bugs();
    bugs.retain(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only)));
    let queue = Mutex::new(bugs.iter());
    let missed: Mutex<Vec<String>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for place in 0..AT_ONCE {
            let (queue, missed) = (&queue, &missed);
            scope.spawn(move || {
                let copy = Copy::new(&format!("planted-{place}"));
                while let Some((name, bug)) = next(queue) {
                    copy.fill();
                    copy.plant(
                        name,
                        &Edit {
                            file: &bug.file,
                            find: &bug.find,
                            replace: &bug.replace,
                        },
                    );
                    match try_bug(&copy, bug) {
                        Ok(by) => println!("{name}: {by}"),
                        Err(why) => {
                            let why = format!("{name} ({}): {why}", bug.why);
                            println!("{why}");
                            missed.lock().unwrap().push(why);
                        }
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn kinds_of_fault_have_bugs_of_their_own() {
    let bugs = bugs();
    let kinds = kinds();
    let mut alone = BTreeSet::new();
    let mut named = BTreeSet::new();
    for (name, bug) in &bugs {
        for fault in bug.faults.iter().chain(&bug.with) {
            assert!(kinds.contains(fault), "{name}: {fault} is no kind of fault");
        }
        assert_eq!(bug.faults.len() > 1, bug.same.is_some(), "{name}: same");
        named.extend(bug.faults.clone());
        if bug.faults.len() == 1 {
            alone.extend(bug.faults.clone());
        }
    }
    let rest: Vec<&String> = kinds.difference(&named).collect();
    println!(
        "{} bugs; {} kinds of fault: {} have a bug that needs them alone, {} share one, and these have \
         none of their own: {rest:?}",
        bugs.len(),
        kinds.len(),
        alone.len(),
        named.len() - alone.len()
    );
    assert!(alone.len() >= KINDS, "{alone:?}");
}

#[test]
fn a_bug_that_changes_nothing_is_not_caught() {
    let passed = Output {
        status: Command::new("true").status().unwrap(),
        stdout: b"3 seeds".to_vec(),
        stderr: Vec::new(),
    };
    assert!(caught(&passed).is_err());
    let not_built = Output {
        status: Command::new("false").status().unwrap(),
        stdout: Vec::new(),
        stderr: b"error: could not compile".to_vec(),
    };
    assert!(
        caught(&not_built).is_err(),
        "a bug that does not compile is none"
    );
}

/// By what a bug was caught with its faults, after which it must pass without them.
fn try_bug(copy: &Copy, bug: &Bug) -> Result<String, String> {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(",");
    let with = list(&bug.faults.union(&bug.with).cloned().collect());
    let by = caught(&copy.simulate(&[
        ("CI_WATCHDOG_SEEDS", SEEDS),
        ("CI_WATCHDOG_FROM", &bug.from.to_string()),
        ("CI_WATCHDOG_FIRST", "1"),
        ("CI_WATCHDOG_WITH", &with),
    ]))?;
    if bug.faults.is_empty() {
        return Ok(by);
    }
    let least = env::var("CI_WATCHDOG_PLANTED_SEEDS").ok();
    let least = least.map_or(SEEDS_WITHOUT, |seeds| seeds.parse().unwrap());
    let seeds = least.max(seed_of(&by) + 1 - bug.from).to_string();
    let passed = copy.simulate(&[
        ("CI_WATCHDOG_SEEDS", &seeds),
        ("CI_WATCHDOG_FROM", &bug.from.to_string()),
        ("CI_WATCHDOG_FIRST", "1"),
        ("CI_WATCHDOG_WITH", &list(&bug.with)),
        ("CI_WATCHDOG_WITHOUT", &list(&bug.faults)),
    ]);
    if !passed.status.success() {
        let why = caught(&passed).unwrap_or_else(|why| why);
        return Err(format!("caught without {:?} too: {why}", bug.faults));
    }
    Ok(format!(
        "{by}; not without {} in {seeds} seeds",
        list(&bug.faults)
    ))
}

/// The seed that caught a bug.
fn seed_of(by: &str) -> u64 {
    let seed = by
        .strip_prefix("seed ")
        .and_then(|rest| rest.split_once(','));
    seed.unwrap().0.parse().unwrap()
}

fn next<'a>(queue: &Mutex<impl Iterator<Item = &'a (String, Bug)>>) -> Option<(&'a str, &'a Bug)> {
    let mut queue = queue.lock().unwrap();
    queue.next().map(|(name, bug)| (name.as_str(), bug))
}

/// By which seed and rule a bug was caught.
fn caught(output: &Output) -> Result<String, String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let seed = stdout.lines().find(|line| line.starts_with("seed "));
    match (output.status.success(), seed) {
        (false, Some(seed)) => {
            let rule = stdout.lines().skip_while(|line| *line != seed).nth(1);
            let seed = seed.split(':').next().unwrap_or_default();
            Ok(format!("{seed}, {}", rule.unwrap_or_default().trim()))
        }
        (true, _) => Err(format!("not caught in {SEEDS} seeds")),
        (false, None) => Err(text(output)),
    }
}

fn bugs() -> Vec<(String, Bug)> {
    let mut bugs: Vec<(String, Bug)> = fs::read_dir(root().join("tests/simulation/bugs"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let bug = toml::from_str(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (name, bug)
        })
        .collect();
    bugs.sort_by(|(a, _), (b, _)| a.cmp(b));
    bugs
}

/// The kinds of fault, as the simulator lists them.
fn kinds() -> BTreeSet<String> {
    let tally = fs::read_to_string(root().join("tests/simulation/tally.rs")).unwrap();
    let list = tally.split_once("\nfaults! {\n").unwrap().1;
    let list = list.split_once("\n}\n").unwrap().0;
    let lines = list.lines().map(str::trim);
    lines
        .filter(|line| !line.starts_with("//"))
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect()
}
