//! Watched time as the journal saves it: one row that is written over, with a checksum of its own.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::chain::Link;
use super::error::Trouble;
use super::row::moment_of;
use crate::model::Moment;

/// The saved moment, where one was saved.
///
/// # Errors
///
/// Its checksum does not fit: a clock that has jumped ahead would empty every budget.
pub(super) fn saved(connection: &Connection) -> Result<Option<Moment>, Trouble> {
    let found = connection
        .prepare_cached("SELECT watched_ms, wall_ms, sum FROM clock")?
        .query_row([], |row| {
            let sum: Link = row.get(2)?;
            Ok((row.get(0)?, row.get(1)?, sum))
        })
        .optional()?;
    match found {
        None => Ok(None),
        Some((watched_ms, wall_ms, sum)) if Link::of_clock(watched_ms, wall_ms) == sum => {
            Ok(Some(moment_of(watched_ms)))
        }
        Some(_) => Err(Trouble::Damaged(
            "the saved clock is not what was written".to_owned(),
        )),
    }
}

/// Writes the clock's row for the first time, or over what it says.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    watched_ms: i64,
    wall_ms: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO clock (id, watched_ms, wall_ms, sum) VALUES (1, ?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET
                watched_ms = excluded.watched_ms, wall_ms = excluded.wall_ms, sum = excluded.sum",
        )?
        .execute(params![
            watched_ms,
            wall_ms,
            Link::of_clock(watched_ms, wall_ms)
        ])?;
    Ok(())
}
