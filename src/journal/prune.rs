//! Which records may go: old acts that ended, and old sightings that newer ones follow.

use std::time::{Duration, SystemTime};

use rusqlite::{Transaction, params};

use super::error::Trouble;
use super::row::{moment_column, wall_column};
use super::schema::deleting;
use crate::decision::policy::Policy;
use crate::model::Moment;

/// The most records that one [`Journal::prune`](super::Journal::prune) removes, so that it never holds the loop for long.
pub const PRUNED_MAX: usize = 999;

/// How much of watched time is never pruned, whatever the wall clock says: the longest window over
/// which a budget looks back. A wall clock that jumps ahead must not empty a budget.
pub const WATCHED_KEPT: Duration = Policy::PULL_WINDOW;

/// The records of one act: intent, outcome, closing.
const ACT_RECORDS: usize = 3;

/// Removes what [`Journal::prune`](super::Journal::prune) says, and says how many records that were.
pub(super) fn remove_old(
    transaction: &Transaction<'_>,
    keep_since: SystemTime,
    now_watched: Moment,
) -> Result<usize, Trouble> {
    let before = (
        wall_column(keep_since),
        moment_column(now_watched.minus(WATCHED_KEPT)),
    );
    let acts = remove_old_acts(transaction, before, PRUNED_MAX / ACT_RECORDS)?;
    Ok(acts + remove_old_sightings(transaction, before, PRUNED_MAX - acts)?)
}

/// Removes acts whose closing is older than `before` (wall and watched milliseconds), oldest first.
fn remove_old_acts(
    transaction: &Transaction<'_>,
    before: (i64, i64),
    acts_max: usize,
) -> Result<usize, Trouble> {
    let acts = numbers(
        transaction,
        "SELECT intent FROM record
         WHERE kind = 'closed' AND wall_ms < ?1 AND watched_ms < ?2 ORDER BY seq LIMIT ?3",
        before,
        acts_max,
    )?;
    remove(transaction, "DELETE FROM record WHERE intent = ?1", &acts)
}

/// Removes sightings older than `before` that a newer one of the same build key follows.
fn remove_old_sightings(
    transaction: &Transaction<'_>,
    before: (i64, i64),
    sightings_max: usize,
) -> Result<usize, Trouble> {
    let sightings = numbers(
        transaction,
        "SELECT seq FROM record AS old
         WHERE kind = 'sighting' AND wall_ms < ?1 AND watched_ms < ?2 AND EXISTS (
            SELECT 1 FROM record AS newer
            WHERE newer.kind = 'sighting' AND newer.target = old.target AND newer.seq > old.seq
         ) ORDER BY seq LIMIT ?3",
        before,
        sightings_max,
    )?;
    remove(transaction, "DELETE FROM record WHERE seq = ?1", &sightings)
}

fn numbers(
    transaction: &Transaction<'_>,
    select: &str,
    (wall_ms, watched_ms): (i64, i64),
    max: usize,
) -> Result<Vec<i64>, Trouble> {
    let numbers = transaction
        .prepare_cached(select)?
        .query_map(params![wall_ms, watched_ms, max as u64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(numbers)
}

fn remove(transaction: &Transaction<'_>, delete: &str, numbers: &[i64]) -> Result<usize, Trouble> {
    if numbers.is_empty() {
        return Ok(0);
    }
    deleting(transaction, |transaction| {
        let mut statement = transaction.prepare_cached(delete)?;
        let mut removed = 0;
        for number in numbers {
            removed += statement.execute([number])?;
        }
        Ok(removed)
    })
}
