//! The journal: what was acknowledged is never lost, and no rule of it depends on its caller.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what the tests share may fail them, as the tests themselves may"
)]

#[path = "journal/children.rs"]
mod children;
#[path = "journal/damage.rs"]
mod damage;
#[path = "journal/failing.rs"]
mod failing;
#[path = "journal/opening.rs"]
mod opening;
#[path = "journal/pruning.rs"]
mod pruning;
#[path = "journal/reading.rs"]
mod reading;
#[path = "journal/rules.rs"]
mod rules;
#[path = "journal/samples.rs"]
mod samples;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ci_watchdog::journal::{
    HistoryFilter, Journal, JournalError, JournalFailure, Memory, PRUNED_MAX, Permit, Reader,
    Stamped, WATCHED_KEPT,
};
use ci_watchdog::model::{
    Closing, IntentId, Moment, Outcome, Record, RepoName, Sighting, Step, Target,
};
use proptest::prelude::*;
use rusqlite::Connection;
use samples::{
    act, at, build, ending, finding, intent, outcomes, retry, sighting, steps, wall, write,
};
use tempfile::TempDir;

/// Not a test: a process that others kill.
#[test]
#[ignore = "a part that other tests start as a process of its own"]
fn child() {
    children::play();
}

/// A folder of its own, and a journal's path in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    (folder, path)
}

/// The head file of the journal at `path`.
fn head_of(path: &Path) -> PathBuf {
    path.with_added_extension("head")
}

fn open(path: &Path) -> (Journal, Memory) {
    Journal::open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(path: &Path) -> JournalError {
    match Journal::open(path) {
        Ok((_, memory)) => panic!("{} was opened: {memory:?}", path.display()),
        Err(error) => error,
    }
}

fn records(memory: Memory) -> Vec<Record> {
    memory
        .records
        .into_iter()
        .map(|stamped| stamped.record)
        .collect()
}

fn failure<T>(result: Result<T, JournalError>) -> JournalFailure {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error.failure(),
    }
}

/// Writes to the file past the journal's own code.
fn raw(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}
