//! Which records may go: old acts that ended, old findings, and old sightings and endings that newer
//! ones follow.

use std::time::{Duration, SystemTime};

use rusqlite::{Transaction, params};

use super::chain;
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

/// How much a pruning removed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Removed {
    pub(super) records: usize,
    /// The length of their texts, bytes.
    pub(super) bytes: u64,
}

/// Removes what [`Journal::prune`](super::Journal::prune) says, and says how much that was.
pub(super) fn remove_old(
    transaction: &Transaction<'_>,
    keep_since: SystemTime,
    now_watched: Moment,
) -> Result<Removed, Trouble> {
    let before = (
        wall_column(keep_since),
        moment_column(now_watched.minus(WATCHED_KEPT)),
    );
    let mut old = old_acts(transaction, before, PRUNED_MAX / ACT_RECORDS)?;
    old.extend(old_followed(transaction, before, PRUNED_MAX - old.len())?);
    old.extend(old_findings(transaction, before, PRUNED_MAX - old.len())?);
    remove(transaction, &old)
}

/// The records of acts whose closing is older than `before` (wall and watched milliseconds), oldest first.
fn old_acts(
    transaction: &Transaction<'_>,
    before: (i64, i64),
    acts_max: usize,
) -> Result<Vec<i64>, Trouble> {
    numbers(
        transaction,
        "SELECT seq FROM record WHERE intent IN (
            SELECT intent FROM record
            WHERE kind = 'closed' AND wall_ms < ?1 AND watched_ms < ?2 ORDER BY seq LIMIT ?3
         )",
        before,
        acts_max,
    )
}

/// Sightings and endings older than `before` that a newer one of the same build key follows.
fn old_followed(
    transaction: &Transaction<'_>,
    before: (i64, i64),
    max: usize,
) -> Result<Vec<i64>, Trouble> {
    numbers(
        transaction,
        "SELECT seq FROM record AS old
         WHERE kind IN ('sighting', 'ending') AND wall_ms < ?1 AND watched_ms < ?2 AND EXISTS (
            SELECT 1 FROM record AS newer
            WHERE newer.kind IN ('sighting', 'ending')
                AND newer.target = old.target AND newer.seq > old.seq
         ) ORDER BY seq LIMIT ?3",
        before,
        max,
    )
}

/// Findings older than `before`.
fn old_findings(
    transaction: &Transaction<'_>,
    before: (i64, i64),
    findings_max: usize,
) -> Result<Vec<i64>, Trouble> {
    numbers(
        transaction,
        "SELECT seq FROM record
         WHERE kind = 'finding' AND wall_ms < ?1 AND watched_ms < ?2 ORDER BY seq LIMIT ?3",
        before,
        findings_max,
    )
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

fn remove(transaction: &Transaction<'_>, numbers: &[i64]) -> Result<Removed, Trouble> {
    let mut removed = Removed::default();
    if numbers.is_empty() {
        return Ok(removed);
    }
    deleting(transaction, |transaction| {
        for &number in numbers {
            removed.bytes += chain::cut(transaction, number)?;
            removed.records += 1;
        }
        Ok(removed)
    })
}
