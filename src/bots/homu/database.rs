//! homu's `main.db`: read-only, in autocommit, one short SELECT at a time.
//!
//! A reader that holds a transaction keeps homu from writing, and its webhooks end in
//! `database is locked` (seen on barosl's fork).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row};
use tokio::sync::Semaphore;

use crate::model::{ProbeError, ProbeFailure, RepoName, Sha};

/// How long one SELECT waits for homu's own writes.
const BUSY: Duration = Duration::from_millis(400);
/// How long a whole read may take: seven SELECTs of at most [`BUSY`] and the reading itself.
const READ_DEADLINE: Duration = Duration::from_secs(4);
/// The most rows of one table that are read; homu keeps a row for each open pull request.
const ROWS_MAX: usize = 20_000;
/// The longest text of a title that is read, characters.
const TITLE_MAX: usize = 200;
/// The longest text of a pull request that is read, bytes; GitHub's limit is 65,536 characters.
const BODY_MAX: usize = 1 << 20;

/// Which homu wrote a database, told by its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// homu 0.2.0 of PyPI: table `state`.
    Pypi,
    /// barosl/homu: table `pull`, no `repos`.
    Barosl,
    /// servo/homu: `pull.try_choose`, `repos` without `treeclosed_src`.
    Servo,
    /// rust-lang/homu: `pull.squash`, `repos.treeclosed_src`, `retry_log`.
    RustLang,
}

impl Fork {
    /// Every fork.
    pub const ALL: [Self; 4] = [Self::Pypi, Self::Barosl, Self::Servo, Self::RustLang];
}

/// Everything that is read of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Who wrote it.
    pub fork: Fork,
    /// The rows of each repository that has any.
    pub repos: BTreeMap<RepoName, RepoRows>,
}

/// The rows of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoRows {
    /// The pull requests by their numbers.
    pub pulls: BTreeMap<u64, PullRow>,
    /// The results.
    pub results: Vec<ResultRow>,
    /// Where the tree is closed: the least priority that starts.
    pub tree_closed: Option<i64>,
}

/// A pull request's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullRow {
    /// `pending`, `success`, `failure`, `error`, or empty.
    pub status: String,
    /// The commit under test, where it is stored.
    pub merge_sha: Option<Sha>,
    /// The head that homu knows (forks).
    pub head_sha: Option<Sha>,
    /// Whether the build only tries (forks).
    pub is_try: Option<bool>,
    /// The kind of try build (servo).
    pub try_choose: Option<String>,
    /// The title (forks).
    pub title: Option<String>,
    /// The priority (forks).
    pub priority: Option<i64>,
}

/// A result's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRow {
    /// The pull request's number.
    pub num: u64,
    /// The builder.
    pub builder: String,
    /// `None`: started.
    pub green: Option<bool>,
    /// The run's page.
    pub url: String,
    /// The commit that it is about.
    pub merge_sha: String,
}

/// A pull request's own words, which a comment to homu must repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullText {
    /// The title.
    pub title: String,
    /// The text; `None` where there is none.
    pub body: Option<String>,
}

/// homu's database on disk.
#[derive(Clone, Debug)]
pub struct Database {
    path: PathBuf,
    /// One reader at a time: a disk that hangs must not collect threads.
    turn: Arc<Semaphore>,
}

impl Database {
    /// The database of this path; nothing is opened.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who writes it, read on the caller's own thread; `None` where that cannot be told now.
    pub fn fork(&self) -> Option<Fork> {
        let connection = open(&self.path).ok()?;
        Columns::of(&connection).ok()?.fork()
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// It is missing, locked for too long, or not homu's.
    pub async fn read(&self) -> Result<Rows, ProbeError> {
        self.with(rows).await
    }

    /// Reads a pull request's own words where this homu stores them.
    ///
    /// # Errors
    ///
    /// As [`Database::read`].
    pub async fn text(&self, repo: &RepoName, num: u64) -> Result<Option<PullText>, ProbeError> {
        let repo = repo.clone();
        self.with(move |connection| {
            let columns = Columns::of(connection)?;
            if columns.pull.is_empty() {
                return Ok(None);
            }
            let mut statement =
                connection.prepare("SELECT title, body FROM pull WHERE repo = ?1 AND num = ?2")?;
            let found = statement.query_row((repo.as_str(), signed(num)), |row| {
                let empty = row.get_ref(1)? == ValueRef::Null;
                Ok(PullText {
                    title: text(row, 0)?,
                    body: if empty { None } else { Some(text(row, 1)?) },
                })
            });
            let found = found.optional()?;
            Ok(found.filter(|it| it.body.as_ref().is_none_or(|body| body.len() <= BODY_MAX)))
        })
        .await
    }

    /// Reads with `read` on a thread that may block, within the deadline.
    async fn with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, ProbeError> {
        let late = || {
            ProbeError::new(
                ProbeFailure::Timeout,
                format!(
                    "{}: not read within {}; is its disk well?",
                    self.path.display(),
                    humantime::format_duration(READ_DEADLINE)
                ),
            )
        };
        let path = self.path.clone();
        let turn = Arc::clone(&self.turn);
        let reading = async move {
            let turn = turn.acquire_owned().await;
            let reading = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let connection = open(&path)?;
                read(&connection).map_err(|trouble| trouble.at(&path))
            });
            match reading.await {
                Ok(result) => result,
                Err(error) => Err(ProbeError::new(
                    ProbeFailure::Io,
                    format!("the thread that reads homu's database ended: {error}"),
                )),
            }
        };
        match tokio::time::timeout(READ_DEADLINE, reading).await {
            Ok(result) => result,
            Err(_) => Err(late()),
        }
    }
}

/// What went wrong inside the database.
enum Trouble {
    Sqlite(rusqlite::Error),
    NotHomu,
    TooMany(&'static str),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Trouble {
    fn at(self, path: &Path) -> ProbeError {
        let path = path.display();
        match self {
            Self::Sqlite(error) => trouble(path, &error),
            Self::NotHomu => ProbeError::new(
                ProbeFailure::Parse,
                format!(
                    "{path}: has neither homu's table `state` nor `pull`; is `database` right?"
                ),
            ),
            Self::TooMany(table) => ProbeError::new(
                ProbeFailure::Partial,
                format!("{path}: table `{table}` has more than {ROWS_MAX} rows"),
            ),
        }
    }
}

/// The columns that tell the forks apart; empty: there is no such table.
struct Columns {
    state: Vec<String>,
    pull: Vec<String>,
    repos: Vec<String>,
    build_res: Vec<String>,
}

impl Columns {
    fn of(connection: &Connection) -> Result<Self, Trouble> {
        Ok(Self {
            state: columns(connection, "state")?,
            pull: columns(connection, "pull")?,
            repos: columns(connection, "repos")?,
            build_res: columns(connection, "build_res")?,
        })
    }

    fn fork(&self) -> Option<Fork> {
        if self.pull.is_empty() {
            return (!self.state.is_empty()).then_some(Fork::Pypi);
        }
        Some(if has(&self.pull, "try_choose") {
            Fork::Servo
        } else if has(&self.pull, "squash") || has(&self.repos, "treeclosed_src") {
            Fork::RustLang
        } else if has(&self.repos, "treeclosed") {
            // A servo/homu of before `try=KIND`.
            Fork::Servo
        } else {
            Fork::Barosl
        })
    }
}

fn open(path: &Path) -> Result<Connection, ProbeError> {
    let io =
        |what: String| ProbeError::new(ProbeFailure::Io, format!("{}: {what}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| {
        let advice = if error.kind() == std::io::ErrorKind::NotFound {
            "; is `database` right, and was homu started once?"
        } else {
            "; may the watchdog's user read it?"
        };
        io(format!("{error}{advice}"))
    })?;
    if !metadata.is_file() {
        return Err(io("is not a regular file; is `database` right?".to_owned()));
    }
    // Read-only, and never created, as by `mode=ro`.
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    );
    let connection = connection.map_err(|error| Trouble::Sqlite(error).at(path))?;
    connection
        .busy_timeout(BUSY)
        .map_err(|error| Trouble::Sqlite(error).at(path))?;
    Ok(connection)
}

fn rows(connection: &Connection) -> Result<Rows, Trouble> {
    let columns = Columns::of(connection)?;
    let fork = columns.fork().ok_or(Trouble::NotHomu)?;
    let mut repos: BTreeMap<RepoName, RepoRows> = BTreeMap::new();
    for (repo, num, row) in pulls(connection, fork, &columns)? {
        repos.entry(repo).or_default().pulls.insert(num, row);
    }
    if !columns.build_res.is_empty() {
        let sql = "SELECT repo, num, builder, res, url, merge_sha FROM build_res";
        let results = select(connection, "build_res", sql, |row| {
            let result = ResultRow {
                num: number(row, 1)?,
                builder: text(row, 2)?,
                green: row.get::<_, Option<i64>>(3)?.map(|res| res != 0),
                url: text(row, 4)?,
                merge_sha: text(row, 5)?,
            };
            Ok((RepoName::new(text(row, 0)?), result))
        })?;
        for (repo, result) in results {
            repos.entry(repo).or_default().results.push(result);
        }
    }
    if has(&columns.repos, "treeclosed") {
        let sql = "SELECT repo, treeclosed FROM repos WHERE treeclosed >= 0";
        let closed = select(connection, "repos", sql, |row| {
            Ok((RepoName::new(text(row, 0)?), row.get::<_, i64>(1)?))
        })?;
        for (repo, least) in closed {
            repos.entry(repo).or_default().tree_closed = Some(least);
        }
    }
    Ok(Rows { fork, repos })
}

fn pulls(
    connection: &Connection,
    fork: Fork,
    columns: &Columns,
) -> Result<Vec<(RepoName, u64, PullRow)>, Trouble> {
    if fork == Fork::Pypi {
        let sql = "SELECT repo, num, status, merge_sha FROM state";
        return select(connection, "state", sql, |row| {
            let pull = PullRow {
                status: text(row, 2)?,
                merge_sha: sha(row, 3)?,
                ..PullRow::default()
            };
            Ok((RepoName::new(text(row, 0)?), number(row, 1)?, pull))
        });
    }
    let choose = if has(&columns.pull, "try_choose") {
        "try_choose"
    } else {
        "NULL"
    };
    let sql = format!(
        "SELECT repo, num, status, merge_sha, head_sha, try_, priority, \
         substr(title, 1, {TITLE_MAX}), {choose} FROM pull"
    );
    select(connection, "pull", &sql, |row| {
        let chosen = text(row, 8)?;
        let pull = PullRow {
            status: text(row, 2)?,
            merge_sha: sha(row, 3)?,
            head_sha: sha(row, 4)?,
            is_try: Some(row.get::<_, Option<i64>>(5)?.unwrap_or(0) != 0),
            priority: row.get(6)?,
            title: Some(text(row, 7)?),
            try_choose: (!chosen.is_empty()).then_some(chosen),
        };
        Ok((RepoName::new(text(row, 0)?), number(row, 1)?, pull))
    })
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

fn has(columns: &[String], name: &str) -> bool {
    columns.iter().any(|column| column == name)
}

fn select<T>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Trouble> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = Vec::new();
    for row in statement.query_map([], read)? {
        if rows.len() == ROWS_MAX {
            return Err(Trouble::TooMany(table));
        }
        rows.push(row?);
    }
    Ok(rows)
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
    })
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A commit's full hash; anything else would never be found at a provider or at GitHub.
fn sha(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Sha>> {
    let text = text(row, column)?;
    if text.is_empty() {
        return Ok(None);
    }
    let hexadecimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal && matches!(text.len(), 40 | 64) {
        return Ok(Some(Sha::new(text)));
    }
    let wrong = "it holds something that is no commit".into();
    Err(rusqlite::Error::FromSqlConversionFailure(
        column,
        Type::Text,
        wrong,
    ))
}

fn trouble(path: std::path::Display<'_>, error: &rusqlite::Error) -> ProbeError {
    let (failure, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ProbeFailure::Io,
            "; something holds it locked, which keeps homu from writing too",
        ),
        Some(ErrorCode::NotADatabase) => (ProbeFailure::Io, "; is `database` right?"),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => (
            ProbeFailure::Io,
            "; after a crash of homu, or with its journal in WAL mode, only a user who may write \
             beside it can read it: start homu, or give the watchdog's user that right",
        ),
        Some(_) => (ProbeFailure::Io, ""),
        None => (ProbeFailure::Parse, "; is it homu's?"),
    };
    ProbeError::new(failure, format!("{path}: {error}{advice}"))
}
