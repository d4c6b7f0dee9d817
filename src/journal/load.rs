//! Reading a whole journal and checking that it says one thing: no damage, no contradiction.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::error::Trouble;
use super::row::{self, COLUMNS, Stamped, moment, moment_of};
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

/// How much there is: enough to see that records are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The number of the newest record ever, also if it was pruned.
    pub(super) last: i64,
    /// How many records there are up to it.
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
pub(super) fn load(connection: &Connection) -> Result<Memory, Trouble> {
    let mut statement =
        connection.prepare(&format!("SELECT {COLUMNS} FROM record ORDER BY seq"))?;
    let records = statement
        .query_map([], row::read)?
        .map(|stored| stored?.believe().map_err(Trouble::Damaged))
        .collect::<Result<Vec<_>, _>>()?;
    let open = open_intents(&records).map_err(Trouble::Damaged)?;
    if open != stored_open_intents(connection)? {
        return Err(Trouble::Damaged(
            "its list of open intents contradicts its records".to_owned(),
        ));
    }
    let watched = records
        .iter()
        .map(|stamped| moment(&stamped.record))
        .chain(saved_clock(connection)?)
        .max()
        .unwrap_or_default();
    Ok(Memory { watched, records })
}

/// How much there is up to record `last`; without it, up to the newest record ever.
pub(super) fn tally(connection: &Connection, last: Option<i64>) -> rusqlite::Result<Tally> {
    let last = match last {
        Some(last) => last,
        None => newest(connection)?,
    };
    connection.query_row(
        "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM record WHERE seq <= ?1",
        [last],
        |row| {
            let [records, bytes]: [i64; 2] = [row.get(0)?, row.get(1)?];
            Ok(Tally {
                last,
                records: records.unsigned_abs(),
                bytes: bytes.unsigned_abs(),
            })
        },
    )
}

/// The number of the newest record ever. `AUTOINCREMENT` keeps it, so that no number is used twice.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'record'), 0)",
        [],
        |row| row.get(0),
    )
}

fn saved_clock(connection: &Connection) -> rusqlite::Result<Option<Moment>> {
    connection.query_row("SELECT max(watched_ms) FROM clock", [], |row| {
        Ok(row.get::<_, Option<i64>>(0)?.map(moment_of))
    })
}

/// The intents without a closing, each with the attempt's target and step as the schema compares them.
fn open_intents(records: &[Stamped]) -> Result<BTreeMap<String, i64>, String> {
    let mut open: BTreeMap<IntentId, String> = BTreeMap::new();
    let mut with_outcome: BTreeSet<IntentId> = BTreeSet::new();
    for Stamped { seq, record, .. } in records {
        let in_order = match record {
            Record::Sighting(_) => true,
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
