//! Reading a journal beside the watchdog that writes it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::JournalError;
use super::error::Trouble;
use super::file::settle;
use super::row::{self, COLUMNS, Stamped, pull_column, wall_column, wall_of};
use super::schema::{self, Found};
use crate::model::RepoName;

/// The most records of one answer. It bounds the time for which a read keeps the watchdog from
/// writing: a few milliseconds, of the two seconds that a write waits.
pub const HISTORY_MAX: usize = 10_000;

/// A journal that another process may be writing, open for reading only. Nothing is read before it
/// is asked, and no read lock is held between two questions.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// Which records to read. What is left out does not restrict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Records of this repository, by its label in the bot.
    pub repo: Option<RepoName>,
    /// Records of this pull request; those about a repository's whole queue have none.
    pub pull: Option<u64>,
    /// Records written at this time or later.
    pub since: Option<SystemTime>,
    /// Records before the one of this number, to go on where an answer ended.
    pub before: Option<i64>,
    /// How many, newest first; at most [`HISTORY_MAX`].
    pub limit: usize,
}

impl Default for HistoryFilter {
    fn default() -> Self {
        Self {
            repo: None,
            pull: None,
            since: None,
            before: None,
            limit: HISTORY_MAX,
        }
    }
}

impl Reader {
    /// Opens the journal at `path`. It takes no lock and creates nothing.
    ///
    /// # Errors
    ///
    /// There is none; it is not a journal, or of another version; it cannot be read.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if !path
            .try_exists()
            .map_err(|error| JournalError::of_system(path, &error))?
        {
            return Err(JournalError::Missing {
                path: path.to_owned(),
                detail: "was the watchdog ever run with this configuration?".to_owned(),
            });
        }
        let (connection, found) =
            connect(path).map_err(|error| JournalError::of_sqlite(path, &error))?;
        let path = path.to_owned();
        match found {
            Found::Version(schema::VERSION) => Ok(Self { connection, path }),
            Found::Version(found) if found > schema::VERSION => Err(JournalError::Newer {
                path,
                found,
                known: schema::VERSION,
            }),
            Found::Version(found) => Err(JournalError::Older {
                path,
                found,
                known: schema::VERSION,
            }),
            // The watchdog creates the file a moment before it creates the tables.
            Found::Empty => Err(JournalError::Older {
                path,
                found: 0,
                known: schema::VERSION,
            }),
            Found::Foreign => Err(JournalError::Foreign { path }),
        }
    }

    /// The newest records that the filter lets through, in the order of writing.
    ///
    /// # Errors
    ///
    /// It cannot be read, or what is read is damaged.
    pub fn history(&self, filter: &HistoryFilter) -> Result<Vec<Stamped>, JournalError> {
        self.read(filter).map_err(|trouble| trouble.at(&self.path))
    }

    /// When the first record that is kept was written; `None` where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn begins(&self) -> Result<Option<SystemTime>, JournalError> {
        let first = self
            .connection
            .query_row(
                "SELECT wall_ms FROM record ORDER BY seq LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional();
        first
            .map(|wall| wall.map(wall_of))
            .map_err(|error| JournalError::of_sqlite(&self.path, &error))
    }

    /// The repositories that it has records of, by their labels in the bots.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn repos(&self) -> Result<BTreeSet<RepoName>, JournalError> {
        self.labels()
            .map_err(|error| JournalError::of_sqlite(&self.path, &error))
    }

    fn labels(&self) -> rusqlite::Result<BTreeSet<RepoName>> {
        // An index holds them; what is about no repository has an empty one.
        self.connection
            .prepare("SELECT DISTINCT repo FROM record WHERE repo <> ''")?
            .query_map([], |row| row.get::<_, String>(0))?
            .map(|label| label.map(RepoName::new))
            .collect()
    }

    fn read(&self, filter: &HistoryFilter) -> Result<Vec<Stamped>, Trouble> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM record
             WHERE (?1 IS NULL OR repo = ?1) AND (?2 IS NULL OR pull = ?2)
                AND (?3 IS NULL OR wall_ms >= ?3) AND (?4 IS NULL OR seq < ?4)
             ORDER BY seq DESC LIMIT ?5"
        ))?;
        let stored = statement
            .query_map(
                params![
                    filter.repo.as_ref().map(RepoName::as_str),
                    filter.pull.map(pull_column),
                    filter.since.map(wall_column),
                    filter.before,
                    filter.limit.min(HISTORY_MAX) as u64,
                ],
                row::read,
            )?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        // The lock went with the last row; texts are taken apart without it.
        stored
            .into_iter()
            .rev()
            .map(|stored| stored.believe().map_err(Trouble::Damaged))
            .collect()
    }
}

/// Opens a connection that cannot write, and looks at what it leads to.
fn connect(path: &Path) -> rusqlite::Result<(Connection, Found)> {
    let looked = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    match looked {
        Ok(found) => Ok(found),
        // A crash left a write half done, and nobody runs who would roll it back.
        Err(error) if needs_rollback(&error) => open(path, OpenFlags::SQLITE_OPEN_READ_WRITE),
        Err(error) => Err(error),
    }
}

fn open(path: &Path, access: OpenFlags) -> rusqlite::Result<(Connection, Found)> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    settle(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    let found = schema::find(&connection)?;
    Ok((connection, found))
}

fn needs_rollback(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}
