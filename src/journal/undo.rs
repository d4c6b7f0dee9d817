//! After a failed write: what was acknowledged is read from the disk again, and what was not is removed.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::JournalError;
use super::error::Trouble;
use super::file::JournalFile;
use super::head::HeadFile;
use super::load::{self, Tally};
use super::schema;

/// Opens the file anew after a failed write, checks that what was acknowledged is on the disk (or what
/// `pruned` says, where a pruning failed), and removes what was not.
///
/// # Errors
///
/// Acknowledged records are gone or altered; the disk still fails.
pub(super) fn verify(
    file: &JournalFile,
    head: &HeadFile,
    known: Tally,
    pruned: Option<Tally>,
) -> Result<(Connection, Tally), JournalError> {
    file.forget_cache()?;
    let mut connection = file.connect()?;
    let found = (|| {
        load::check(&connection)?;
        schema::check(&connection)?;
        let found = load::walk(&connection, known.head.seq, |_| Ok(()))?;
        if found != known && Some(found) != pruned {
            return Err(Trouble::Damaged(format!(
                "after a failed write it has {} of {} records, the newest is {} of {}",
                found.records, known.records, found.head.seq, known.head.seq
            )));
        }
        // The head goes back first: a crash in between leaves the journal ahead of it, which is good.
        head.write(known.head)?;
        undo(&mut connection, known.head.seq)?;
        Ok(found)
    })()
    .map_err(|trouble: Trouble| trouble.at(file.path()))?;
    Ok((connection, found))
}

/// Removes what came after record `last`, and opens again the intents that were closed there.
fn undo(connection: &mut Connection, last: i64) -> Result<(), Trouble> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    let unacknowledged: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM record WHERE seq > ?1)",
        [last],
        |row| row.get(0),
    )?;
    if unacknowledged {
        schema::deleting(&transaction, |transaction| {
            transaction.execute("DELETE FROM record WHERE seq > ?1", [last])?;
            transaction.execute("DELETE FROM open_intent", [])?;
            transaction.execute(
                "INSERT INTO open_intent (target, seq)
                 SELECT target, seq FROM record AS intended
                 WHERE kind = 'intent' AND NOT EXISTS (
                    SELECT 1 FROM record WHERE intent = intended.seq AND kind = 'closed'
                 )",
                [],
            )?;
            Ok(())
        })?;
    }
    transaction.commit()?;
    Ok(())
}
