//! Writing the journal: each write is one durable transaction, and one that failed is undone before the next.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::append::{append, has_outcome, next, not_open, open_on, open_place};
use super::begin::begin;
use super::error::Trouble;
use super::file::{self, JournalFile};
use super::head::HeadFile;
use super::load::{Memory, Tally};
use super::lock::Lock;
use super::row::{Place, moment_column, wall_column};
use super::undo::verify;
use super::{JournalError, Permit, clock, prune};
use crate::model::{
    Closing, Ending, Finding, Intent, IntentId, Moment, Order, Outcome, Record, Sighting,
};

/// What the journal is called in errors while it lies in memory.
const MEMORY: &str = ":memory:";

/// The journal of one watchdog, open for writing.
///
/// A write that returns `Ok` is on disk, and so is the head file that names it. A write that returns an error was not made: if it reached
/// the disk all the same (the folder's sync failed after the commit, say), the next write first
/// removes what came after the last acknowledged record. So the caller's memory and the file
/// always say the same. Only a crash between the two leaves such a record behind; it is then part
/// of [`Memory`], and an intent in it is in doubt like any other.
///
/// After a failure, the next write does not believe what a cache says: it reopens the file, reads
/// it from the disk, and checks that every acknowledged record is there. So a full disk, or a file
/// that was moved and put back, heals by itself with the first write that succeeds. Damage does not:
/// once it was found, every write is refused until the journal is opened anew.
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
        head: HeadFile,
        lock: Arc<Lock>,
    },
    /// It is damaged: nothing is written into it, and nobody else may.
    Damaged {
        error: JournalError,
        file: JournalFile,
        _lock: Arc<Lock>,
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
    /// Another watchdog holds it; it is damaged, does not reach its head file, is not a journal, or of a
    /// newer version (then it is left as it is); it cannot be read or written.
    pub fn open(path: &Path) -> Result<(Self, Memory), JournalError> {
        let (file, lock) = take(path)?;
        Self::read(file, lock)
    }

    /// The same, but a damaged journal is left alone and refuses every write with what is wrong with
    /// it. So a watchdog can look, report and alert; without a journal it cannot act.
    ///
    /// # Errors
    ///
    /// All others of [`open`](Self::open).
    pub fn open_or_stand_by(path: &Path) -> Result<(Self, Memory), JournalError> {
        let (file, lock) = take(path)?;
        match Self::read(file.clone(), Arc::clone(&lock)) {
            Err(error) if error.is_damage() => {
                let journal = Self {
                    store: Store::Damaged {
                        error,
                        file,
                        _lock: lock,
                    },
                    known: Tally::default(),
                    pruned: None,
                };
                let nothing = Memory {
                    watched: Moment::ZERO,
                    records: Vec::new(),
                };
                Ok((journal, nothing))
            }
            read => read,
        }
    }

    fn read(mut file: JournalFile, lock: Arc<Lock>) -> Result<(Self, Memory), JournalError> {
        file.create()?;
        let head = HeadFile::of(file.path());
        let mut connection = file.connect()?;
        let begun = begin(&mut connection, file.path(), Some(&head))
            .map_err(|trouble| trouble.at(file.path()))?;
        let store = Store::File {
            connection: begun.head_good.then_some(connection),
            file,
            head,
            lock,
        };
        let journal = Self {
            store,
            known: begun.loaded.tally,
            pruned: None,
        };
        Ok((journal, begun.loaded.memory))
    }

    /// What is wrong with it, where it is damaged.
    pub fn damage(&self) -> Option<&JournalError> {
        match &self.store {
            Store::Damaged { error, .. } => Some(error),
            Store::Memory(_) | Store::File { .. } => None,
        }
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
            let begun = begin(&mut connection, Path::new(MEMORY), None)?;
            Ok((connection, begun.loaded))
        };
        let (connection, loaded) = open().map_err(|trouble| trouble.at(MEMORY.as_ref()))?;
        let journal = Self {
            store: Store::Memory(connection),
            known: loaded.tally,
            pruned: None,
        };
        Ok((journal, loaded.memory))
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
            let id = IntentId(next(transaction)?);
            let record = Record::Intent {
                id,
                at,
                intent: intent.clone(),
            };
            append(transaction, tally, &record, place, wall)?;
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
            append(transaction, tally, &record, place, wall)
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
            append(transaction, tally, &record, place, wall)
        })
    }

    /// Makes a sighting durable.
    ///
    /// # Errors
    ///
    /// Any failure to write.
    pub fn sight(&mut self, sighting: &Sighting, wall: SystemTime) -> Result<(), JournalError> {
        let record = Record::Sighting(sighting.clone());
        let place = Place::of_sighting(&sighting.build.key);
        self.write(|transaction, tally| append(transaction, tally, &record, place, wall))
    }

    /// Makes durable what would have been sent.
    ///
    /// # Errors
    ///
    /// Any failure to write.
    pub fn find(&mut self, finding: &Finding, wall: SystemTime) -> Result<(), JournalError> {
        let record = Record::Finding(finding.clone());
        let place = Place::of_finding(&finding.attempt);
        self.write(|transaction, tally| append(transaction, tally, &record, place, wall))
    }

    /// Makes durable how a generation of a build ended.
    ///
    /// # Errors
    ///
    /// Any failure to write.
    pub fn end(&mut self, ending: &Ending, wall: SystemTime) -> Result<(), JournalError> {
        let record = Record::Ending(ending.clone());
        let place = Place::of_ending(&ending.build.key);
        self.write(|transaction, tally| append(transaction, tally, &record, place, wall))
    }

    /// Makes an operator's order durable.
    ///
    /// # Errors
    ///
    /// Any failure to write.
    pub fn order(&mut self, order: &Order, wall: SystemTime) -> Result<(), JournalError> {
        let record = Record::Order(order.clone());
        let place = Place::of_order(order);
        self.write(|transaction, tally| append(transaction, tally, &record, place, wall))
    }

    /// Makes watched time durable, so that it goes on from here after a crash. A moment before the
    /// saved one changes nothing.
    ///
    /// # Errors
    ///
    /// Any failure to write.
    pub fn save_clock(&mut self, watched: Moment, wall: SystemTime) -> Result<(), JournalError> {
        self.write(|transaction, _| {
            let latest = clock::saved(transaction)?
                .max(Some(watched))
                .unwrap_or(watched);
            clock::insert(transaction, moment_column(latest), wall_column(wall))?;
            Ok(())
        })
    }

    /// Removes records of before `keep_since`, at most [`PRUNED_MAX`](super::PRUNED_MAX), and says how many; call it
    /// again while it removes any.
    ///
    /// Kept whatever their age: everything of an open intent, every record within
    /// [`WATCHED_KEPT`](super::WATCHED_KEPT) of `now_watched`, and the newest sighting and ending of each build key, so that
    /// generations count on, and none ends twice.
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
            tally.records = tally.records.saturating_sub(removed.records as u64);
            tally.bytes = tally.bytes.saturating_sub(removed.bytes);
            after = Some(*tally);
            Ok(removed.records)
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
                Store::File { file, .. } | Store::Damaged { file, .. } => file.bytes(),
            },
        }
    }

    /// Makes one change durable, whole or not at all.
    fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>, &mut Tally) -> Result<T, Trouble>,
    ) -> Result<T, JournalError> {
        let written = self.try_to_write(change);
        if let Err(error) = &written
            && error.is_damage()
        {
            self.stand_by(error);
        }
        written
    }

    fn try_to_write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>, &mut Tally) -> Result<T, Trouble>,
    ) -> Result<T, JournalError> {
        let mut tally;
        let result = match &mut self.store {
            Store::Damaged { error, .. } => return Err(error.clone()),
            Store::Memory(connection) => {
                tally = self.known;
                commit(connection, &mut tally, change)
                    .map_err(|trouble| trouble.at(MEMORY.as_ref()))
            }
            Store::File {
                connection,
                file,
                head,
                ..
            } => {
                if let Err(error) = file.unmoved() {
                    // What comes back to its place is read again before it is believed.
                    *connection = None;
                    return Err(error);
                }
                let trusted = match connection.take() {
                    Some(trusted) => connection.insert(trusted),
                    None => {
                        let (verified, found) = verify(file, head, self.known, self.pruned)?;
                        self.known = found;
                        self.pruned = None;
                        connection.insert(verified)
                    }
                };
                tally = self.known;
                let result = commit(trusted, &mut tally, change)
                    .and_then(|changed| {
                        if tally.head != self.known.head {
                            head.write(tally.head)?;
                        }
                        Ok(changed)
                    })
                    .map_err(|trouble| trouble.at(file.path()));
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

    /// Closes a journal that was found to be damaged, for good: a later look at the same file may miss
    /// what this one saw.
    fn stand_by(&mut self, error: &JournalError) {
        if let Store::File { file, lock, .. } = &self.store {
            self.store = Store::Damaged {
                error: error.clone(),
                file: file.clone(),
                _lock: Arc::clone(lock),
            };
        }
    }
}

/// Takes the lock of the journal at `path`.
fn take(path: &Path) -> Result<(JournalFile, Arc<Lock>), JournalError> {
    let file = JournalFile::at(path)?;
    let lock = Lock::take(file.path())?;
    Ok((file, Arc::new(lock)))
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
