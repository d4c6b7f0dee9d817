//! Reading a whole journal and checking that it says one thing: no damage, no contradiction.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::chain::{Head, Walk};
use super::clock;
use super::error::Trouble;
use super::row::{self, COLUMNS, Stamped, Stored, moment};
use crate::model::{IntentId, Moment, Record};

/// How many findings of SQLite's check are told; the first ones say where it is.
const FINDINGS_MAX: usize = 3;

/// What the journal remembers when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Watched time so far: the latest moment that is saved anywhere, so that it never runs
    /// backwards over a crash.
    pub watched: Moment,
    /// Every record that is kept, in the order of writing.
    pub records: Vec<Stamped>,
}

/// What was read, and what of it is kept in mind.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) memory: Memory,
    pub(super) tally: Tally,
}

/// How much there is, and where its chain ends: enough to see that records are missing or other ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The newest record that was written and not undone, also if it was pruned.
    pub(super) head: Head,
    /// How many records are kept.
    pub(super) records: u64,
    /// The length of their texts, bytes.
    pub(super) bytes: u64,
}

/// Lets SQLite check the structure of the file, its indexes included.
pub(super) fn check(connection: &Connection) -> Result<(), Trouble> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FINDINGS_MAX})"))?;
    let findings = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if findings == ["ok"] {
        Ok(())
    } else {
        Err(Trouble::Damaged(findings.join("; ")))
    }
}

/// Reads every record, the clock, and the open intents, and checks them against each other.
pub(super) fn load(connection: &Connection) -> Result<Loaded, Trouble> {
    let mut records = Vec::new();
    let tally = walk(connection, i64::MAX, |stored| {
        records.push(stored.believe()?);
        Ok(())
    })?;
    if newest(connection)? < tally.head.seq {
        return Err(Trouble::Damaged(format!(
            "its count of records ends before record {}",
            tally.head.seq
        )));
    }
    let open = open_intents(&records).map_err(Trouble::Damaged)?;
    if open != stored_open_intents(connection)? {
        return Err(Trouble::Damaged(
            "its list of open intents contradicts its records".to_owned(),
        ));
    }
    let watched = records
        .iter()
        .map(|stamped| moment(&stamped.record))
        .chain(clock::saved(connection)?)
        .max()
        .unwrap_or_default();
    let memory = Memory { watched, records };
    Ok(Loaded { memory, tally })
}

/// Follows the chain up to record `last`, or to its end, and hands over each record on it.
pub(super) fn walk(
    connection: &Connection,
    last: i64,
    mut each: impl FnMut(Stored) -> Result<(), String>,
) -> Result<Tally, Trouble> {
    let mut walk = Walk::new(connection, last)?;
    let mut tally = Tally::default();
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM record WHERE seq <= ?1 ORDER BY seq"
    ))?;
    for stored in statement.query_map([last], row::read)? {
        let stored = stored?;
        walk.step(&stored).map_err(Trouble::Damaged)?;
        tally.records += 1;
        tally.bytes += stored.body.len() as u64;
        each(stored).map_err(Trouble::Damaged)?;
    }
    tally.head = walk.end().map_err(Trouble::Damaged)?;
    Ok(tally)
}

/// The number of the newest record ever. `AUTOINCREMENT` keeps it, so that no number is used twice.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'record'), 0)",
        [],
        |row| row.get(0),
    )
}

/// The intents without a closing, each with the attempt's target and step as the schema compares them.
fn open_intents(records: &[Stamped]) -> Result<BTreeMap<String, i64>, String> {
    let mut open: BTreeMap<IntentId, String> = BTreeMap::new();
    let mut with_outcome: BTreeSet<IntentId> = BTreeSet::new();
    for Stamped { seq, record, .. } in records {
        let in_order = match record {
            Record::Sighting(_) | Record::Order(_) | Record::Finding(_) | Record::Ending(_) => true,
            Record::Intent { id, intent, .. } => {
                let target = row::open_target(&intent.attempt.target, intent.step.kind());
                open.insert(*id, target).is_none()
            }
            Record::Outcome { id, .. } => open.contains_key(id) && with_outcome.insert(*id),
            Record::Closed { id, .. } => open.remove(id).is_some(),
        };
        if !in_order {
            return Err(format!("record {seq} belongs to no open intent"));
        }
    }
    let count = open.len();
    let by_target: BTreeMap<_, _> = open
        .into_iter()
        .map(|(id, target)| (target, id.0))
        .collect();
    if by_target.len() == count {
        Ok(by_target)
    } else {
        Err("two intents are open on one target".to_owned())
    }
}

fn stored_open_intents(connection: &Connection) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut statement = connection.prepare("SELECT target, seq FROM open_intent")?;
    statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
