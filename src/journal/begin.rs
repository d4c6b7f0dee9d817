//! Making a freshly opened journal ready: whether it is one, whether it is whole, and the way to this version.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::JournalError;
use super::error::Trouble;
use super::head::{self, HeadFile};
use super::load::{self, Loaded};
use super::schema::{self, Found};
use super::versions::{HEAD_SINCE, MIGRATIONS};

/// A journal that is ready.
pub(super) struct Begun {
    pub(super) loaded: Loaded,
    /// Whether its head file says where it ends; it could not be written otherwise.
    pub(super) head_good: bool,
}

/// Makes a freshly opened database ready, and reads it. Nothing is written before all of it is known
/// to be good.
pub(super) fn begin(
    connection: &mut Connection,
    path: &Path,
    head: Option<&HeadFile>,
) -> Result<Begun, Trouble> {
    let from = match schema::find(connection)? {
        Found::Empty => 0,
        Found::Version(found) if found > schema::VERSION => {
            return Err(Trouble::Told(JournalError::Newer {
                path: path.to_owned(),
                found,
                known: schema::VERSION,
            }));
        }
        Found::Version(found) => found,
        Found::Foreign => {
            return Err(Trouble::Told(JournalError::Foreign {
                path: path.to_owned(),
            }));
        }
    };
    load::check(connection)?;
    if from < schema::VERSION {
        let loaded = bring_up_to_date(connection, from, head)?;
        return Ok(Begun {
            loaded,
            head_good: true,
        });
    }
    let loaded = load_whole(connection)?;
    let Some(head) = head else {
        return Ok(Begun {
            loaded,
            head_good: true,
        });
    };
    let end = loaded.tally.head;
    let found = head.read()?;
    head.check(found, connection, end, true)?;
    use_rollback_journal(connection)?;
    // A crash came between a commit and its head, or a person accepted the journal. Where it cannot
    // be written, looking on goes before: the first write tries again, and does not count without.
    let head_good = found == head::Found::At(end) || head.write(end).is_ok();
    Ok(Begun { loaded, head_good })
}

/// Brings an older version up to date, or fills an empty file: whole or not at all.
fn bring_up_to_date(
    connection: &mut Connection,
    from: i64,
    head: Option<&HeadFile>,
) -> Result<Loaded, Trouble> {
    use_rollback_journal(connection)?;
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    schema::migrate(&transaction, MIGRATIONS, from, SystemTime::now())?;
    let loaded = load_whole(&transaction)?;
    if let Some(head) = head {
        let end = loaded.tally.head;
        head.check(head.read()?, &transaction, end, from >= HEAD_SINCE)?;
        // Before the commit: a crash in between leaves an older version, which needs no head file.
        head.write(end)?;
    }
    transaction.commit()?;
    Ok(loaded)
}

fn load_whole(connection: &Connection) -> Result<Loaded, Trouble> {
    schema::check(connection)?;
    load::load(connection)
}

/// A write-ahead log loses acknowledged records in silence where one of its bytes flips.
fn use_rollback_journal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
}
