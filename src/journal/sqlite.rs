//! Writing the journal: each write is one durable transaction, and one that failed is undone before the next.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::error::Trouble;
use super::file::{self, JournalFile};
use super::load::{self, Memory, Tally};
use super::lock::Lock;
use super::row::{self, Place, moment_column, wall_column};
use super::schema::{self, Found};
use super::{JournalError, Permit, prune};
use crate::model::{Closing, Intent, IntentId, Moment, Outcome, Record, Sighting};

/// What the journal is called in errors while it lies in memory.
const MEMORY: &str = ":memory:";

/// The journal of one watchdog, open for writing.
///
/// A write that returns `Ok` is on disk. A write that returns an error was not made: if it reached
/// the disk all the same (the folder's sync failed after the commit, say), the next write first
/// removes what came after the last acknowledged record. So the caller's memory and the file
/// always say the same. Only a crash between the two leaves such a record behind; it is then part
/// of [`Memory`], and an intent in it is in doubt like any other.
///
/// After a failure, the next write does not believe what a cache says: it reopens the file, reads
/// it from the disk, and checks that every acknowledged record is there. So a full disk, or a file
/// that was moved and put back, heals by itself with the first write that succeeds.
#[derive(Debug)]
pub struct Journal {
    store: Store,
    /// What was acknowledged.
    known: Tally,
    /// What there is instead if a pruning that failed took effect all the same.
    pruned: Option<Tally>,
}

#[derive(Debug)]
enum Store {
    Memory(Connection),
    File {
        /// `None` after a failed write, until the file is verified. Closed before the lock goes.
        connection: Option<Connection>,
        file: JournalFile,
        _lock: Lock,
    },
}

/// How large a journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Records that are kept.
    pub records: u64,
    /// The file's length, bytes; of a journal in memory, the length of its records' texts.
    pub bytes: u64,
}

impl Journal {
    /// Opens the journal at `path`, or creates it for its owner alone: takes its lock, rolls back
    /// what a crash left half written, checks the whole file, brings an older version up to date,
    /// and reads everything that is kept.
    ///
    /// # Errors
    ///
    /// Another watchdog holds it; it is damaged, not a journal, or of a newer version (then it is
    /// left as it is); it cannot be read or written.
    pub fn open(path: &Path) -> Result<(Self, Memory), JournalError> {
        let mut file = JournalFile::at(path)?;
        let lock = Lock::take(file.path())?;
        file.create()?;
        let mut connection = file.connect()?;
        let (known, memory) =
            begin(&mut connection, file.path()).map_err(|trouble| trouble.at(file.path()))?;
        let store = Store::File {
            connection: Some(connection),
            file,
            _lock: lock,
        };
        let journal = Self {
            store,
            known,
            pruned: None,
        };
        Ok((journal, memory))
    }

    /// A journal that lives in memory, for tests of what uses one and for `demo`. It keeps every
    /// rule of the schema, and nothing beyond the process.
    ///
    /// # Errors
    ///
    /// No memory is left.
    pub fn in_memory() -> Result<(Self, Memory), JournalError> {
        let open = || -> Result<_, Trouble> {
            let mut connection = Connection::open_in_memory()?;
            file::settle(&connection)?;
            let (known, memory) = begin(&mut connection, Path::new(MEMORY))?;
            Ok((connection, known, memory))
        };
        let (connection, known, memory) = open().map_err(|trouble| trouble.at(MEMORY.as_ref()))?;
        let journal = Self {
            store: Store::Memory(connection),
            known,
            pruned: None,
        };
        Ok((journal, memory))
    }

    /// Makes an intent durable, and returns the permit to send its one request.
    ///
    /// # Errors
    ///
    /// [`JournalError::Open`] while an intent of the same kind is open on the same target, in any
    /// generation; any failure to write. There is no permit then, and nothing may be sent.
    pub fn intend(
        &mut self,
        intent: Intent,
        at: Moment,
        wall: SystemTime,
    ) -> Result<Permit, JournalError> {
        let place = Place::of_intent(&intent);
        self.write(move |transaction, tally| {
            if let Some(open) = open_on(transaction, &place.target)? {
                return Err(JournalError::Open {
                    target: place.target,
                    open,
                }
                .into());
            }
            let id = IntentId(load::newest(transaction)? + 1);
            let record = Record::Intent {
                id,
                at,
                intent: intent.clone(),
            };
            append(transaction, tally, &record, &place, wall)?;
            Ok(Permit { id, intent })
        })
    }

    /// Makes durable what the sending of an intent's request came to. The intent stays open.
    ///
    /// # Errors
    ///
    /// [`JournalError::NotOpen`] where the intent is closed, unknown, or has its outcome; any
    /// failure to write.
    pub fn outcome(
        &mut self,
        id: IntentId,
        at: Moment,
        wall: SystemTime,
        outcome: &Outcome,
    ) -> Result<(), JournalError> {
        let record = Record::Outcome {
            id,
            at,
            outcome: outcome.clone(),
        };
        self.write(|transaction, tally| {
            let place = open_place(transaction, id, "outcome")?;
            if has_outcome(transaction, id)? {
                return Err(not_open(id, "outcome", "it has one already"));
            }
            append(transaction, tally, &record, &place, wall)
        })
    }

    /// Makes durable how an intent ended, and frees its target.
    ///
    /// # Errors
    ///
    /// [`JournalError::NotOpen`] where the intent is closed or unknown; any failure to write.
    pub fn close(
        &mut self,
        id: IntentId,
        at: Moment,
        wall: SystemTime,
        closing: Closing,
    ) -> Result<(), JournalError> {
        let record = Record::Closed { id, at, closing };
        self.write(|transaction, tally| {
            let place = open_place(transaction, id, "closing")?;
            append(transaction, tally, &record, &place, wall)
        })
    }

    /// Makes a sighting durable.
    ///
    /// # Errors
    ///
    /// Any failure to write.
    pub fn sight(&mut self, sighting: &Sighting, wall: SystemTime) -> Result<(), JournalError> {
        let record = Record::Sighting(sighting.clone());
        let place = Place::of_build(&sighting.build.key);
        self.write(|transaction, tally| append(transaction, tally, &record, &place, wall))
    }

    /// Makes watched time durable, so that it goes on from here after a crash. A moment before the
    /// saved one changes nothing.
    ///
    /// # Errors
    ///
    /// Any failure to write.
    pub fn save_clock(&mut self, watched: Moment, wall: SystemTime) -> Result<(), JournalError> {
        self.write(|transaction, _| {
            transaction
                .prepare_cached(
                    "INSERT INTO clock (id, watched_ms, wall_ms) VALUES (1, ?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET
                    watched_ms = max(watched_ms, excluded.watched_ms), wall_ms = excluded.wall_ms",
                )?
                .execute(params![moment_column(watched), wall_column(wall)])?;
            Ok(())
        })
    }

    /// Removes records of before `keep_since`, at most [`PRUNED_MAX`](super::PRUNED_MAX), and says how many; call it
    /// again while it removes any.
    ///
    /// Kept whatever their age: everything of an open intent, every record within
    /// [`WATCHED_KEPT`](super::WATCHED_KEPT) of `now_watched`, and the newest sighting of each build key, so that generations count on.
    /// An act goes as a whole, by the age of its closing.
    ///
    /// # Errors
    ///
    /// Any failure to write. Unlike other writes, a pruning that failed may have removed its records
    /// all the same; nothing that must be kept is among them.
    pub fn prune(
        &mut self,
        keep_since: SystemTime,
        now_watched: Moment,
    ) -> Result<usize, JournalError> {
        let mut after = None;
        let result = self.write(|transaction, tally| {
            let removed = prune::remove_old(transaction, keep_since, now_watched)?;
            *tally = load::tally(transaction, Some(tally.last))?;
            after = Some(*tally);
            Ok(removed)
        });
        if result.is_err() && after.is_some() {
            self.pruned = after;
        }
        result
    }

    /// How large it is.
    pub fn size(&self) -> Size {
        Size {
            records: self.known.records,
            bytes: match &self.store {
                Store::Memory(_) => self.known.bytes,
                Store::File { file, .. } => file.bytes(),
            },
        }
    }

    /// Makes one change durable, whole or not at all.
    fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>, &mut Tally) -> Result<T, Trouble>,
    ) -> Result<T, JournalError> {
        let mut tally;
        let result = match &mut self.store {
            Store::Memory(connection) => {
                tally = self.known;
                commit(connection, &mut tally, change)
                    .map_err(|trouble| trouble.at(MEMORY.as_ref()))
            }
            Store::File {
                connection, file, ..
            } => {
                file.unmoved()?;
                let trusted = match connection.take() {
                    Some(trusted) => connection.insert(trusted),
                    None => {
                        let (verified, found) = verify(file, self.known, self.pruned)?;
                        self.known = found;
                        self.pruned = None;
                        connection.insert(verified)
                    }
                };
                tally = self.known;
                let result =
                    commit(trusted, &mut tally, change).map_err(|trouble| trouble.at(file.path()));
                if result
                    .as_ref()
                    .is_err_and(|error| error.failure().stops_acting())
                {
                    *connection = None;
                }
                result
            }
        };
        if result.is_ok() {
            self.known = tally;
        }
        result
    }
}

/// Runs one change in a transaction of its own; dropping that rolls it back, also where its commit
/// failed.
fn commit<T>(
    connection: &mut Connection,
    tally: &mut Tally,
    change: impl FnOnce(&Transaction<'_>, &mut Tally) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    let changed = change(&transaction, tally)?;
    transaction.commit()?;
    Ok(changed)
}

/// Makes a freshly opened database ready, and reads it.
fn begin(connection: &mut Connection, path: &Path) -> Result<(Tally, Memory), Trouble> {
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
    // A write-ahead log loses acknowledged records in silence where one of its bytes flips.
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    schema::migrate(connection, schema::MIGRATIONS, from, SystemTime::now())?;
    let memory = load::load(connection)?;
    Ok((load::tally(connection, None)?, memory))
}

/// Opens the file anew after a failed write, checks that what was acknowledged is on the disk, and
/// removes what was not.
fn verify(
    file: &JournalFile,
    known: Tally,
    pruned: Option<Tally>,
) -> Result<(Connection, Tally), JournalError> {
    file.forget_cache()?;
    let mut connection = file.connect()?;
    let found = (|| {
        load::check(&connection)?;
        let found = load::tally(&connection, Some(known.last))?;
        if found != known && Some(found) != pruned {
            return Err(Trouble::Damaged(format!(
                "after a failed write it has {} of {} records",
                found.records, known.records
            )));
        }
        undo(&mut connection, known.last)?;
        Ok(found)
    })()
    .map_err(|trouble| trouble.at(file.path()))?;
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

fn append(
    transaction: &Transaction<'_>,
    tally: &mut Tally,
    record: &Record,
    place: &Place,
    wall: SystemTime,
) -> Result<(), Trouble> {
    let body = row::body(record)?;
    let seq = load::newest(transaction)? + 1;
    transaction
        .prepare_cached(
            "INSERT INTO record
                (seq, watched_ms, wall_ms, kind, intent, target, attempt, repo, pull, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            seq,
            moment_column(row::moment(record)),
            wall_column(wall),
            row::kind(record),
            row::intent_of(record).map(|id| id.0),
            place.target,
            place.attempt,
            place.repo,
            place.pull,
            body,
        ])?;
    *tally = Tally {
        last: seq,
        records: tally.records + 1,
        bytes: tally.bytes + body.len() as u64,
    };
    Ok(())
}

fn open_on(transaction: &Transaction<'_>, target: &str) -> Result<Option<IntentId>, Trouble> {
    let open = transaction
        .prepare_cached("SELECT seq FROM open_intent WHERE target = ?1")?
        .query_row([target], |row| row.get(0).map(IntentId))
        .optional()?;
    Ok(open)
}

/// Where an open intent belongs, for the `what` that is to be added to it.
fn open_place(
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

fn has_outcome(transaction: &Transaction<'_>, id: IntentId) -> Result<bool, Trouble> {
    let found = transaction
        .prepare_cached("SELECT 1 FROM record WHERE intent = ?1 AND kind = 'outcome'")?
        .exists([id.0])?;
    Ok(found)
}

fn not_open(id: IntentId, what: &'static str, why: &'static str) -> Trouble {
    Trouble::Told(JournalError::NotOpen { id, what, why })
}
