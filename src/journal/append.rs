//! Adding one record inside a transaction, and what the records so far say of it.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Transaction};

use super::JournalError;
use super::error::Trouble;
use super::load::{self, Tally};
use super::row::{self, Place, Stored, moment_column, wall_column};
use crate::model::{IntentId, Record};

/// The number of the next record.
///
/// # Errors
///
/// There is none left, which no journal of ours comes to.
pub(super) fn next(transaction: &Transaction<'_>) -> Result<i64, Trouble> {
    let newest = load::newest(transaction)?;
    newest
        .checked_add(1)
        .ok_or_else(|| Trouble::Damaged(format!("its count of records is at {newest}")))
}

/// Adds a record to the end of the chain.
pub(super) fn append(
    transaction: &Transaction<'_>,
    tally: &mut Tally,
    record: &Record,
    place: Place,
    wall: SystemTime,
) -> Result<(), Trouble> {
    let mut stored = Stored {
        seq: next(transaction)?,
        watched_ms: moment_column(row::moment(record)),
        wall_ms: wall_column(wall),
        kind: row::kind(record).to_owned(),
        intent: row::intent_of(record).map(|id| id.0),
        place,
        body: row::body(record)?,
        chain: tally.head.link,
    };
    stored.chain = tally.head.link.to(&stored);
    stored.insert(transaction)?;
    *tally = Tally {
        head: stored.head(),
        records: tally.records + 1,
        bytes: tally.bytes + stored.body.len() as u64,
    };
    Ok(())
}

/// The intent that is open on a target.
pub(super) fn open_on(
    transaction: &Transaction<'_>,
    target: &str,
) -> Result<Option<IntentId>, Trouble> {
    let open = transaction
        .prepare_cached("SELECT seq FROM open_intent WHERE target = ?1")?
        .query_row([target], |row| row.get(0).map(IntentId))
        .optional()?;
    Ok(open)
}

/// Where an open intent belongs, for the `what` that is to be added to it.
pub(super) fn open_place(
    transaction: &Transaction<'_>,
    id: IntentId,
    what: &'static str,
) -> Result<Place, Trouble> {
    let found = transaction
        .prepare_cached(
            "SELECT target, attempt, repo, pull,
                EXISTS (SELECT 1 FROM open_intent WHERE open_intent.seq = record.seq)
             FROM record WHERE seq = ?1 AND kind = 'intent'",
        )?
        .query_row([id.0], |row| {
            let place = Place {
                target: row.get(0)?,
                attempt: row.get(1)?,
                repo: row.get(2)?,
                pull: row.get(3)?,
            };
            Ok((place, row.get(4)?))
        })
        .optional()?;
    match found {
        Some((place, true)) => Ok(place),
        Some((_, false)) => Err(not_open(id, what, "it is closed")),
        None => Err(not_open(id, what, "there is no such intent")),
    }
}

/// Whether an intent has its outcome.
pub(super) fn has_outcome(transaction: &Transaction<'_>, id: IntentId) -> Result<bool, Trouble> {
    let found = transaction
        .prepare_cached("SELECT 1 FROM record WHERE intent = ?1 AND kind = 'outcome'")?
        .exists([id.0])?;
    Ok(found)
}

/// The refusal of what no open intent takes.
pub(super) fn not_open(id: IntentId, what: &'static str, why: &'static str) -> Trouble {
    Trouble::Told(JournalError::NotOpen { id, what, why })
}
