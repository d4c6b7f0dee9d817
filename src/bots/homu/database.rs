//! homu's `main.db`: read-only, in autocommit, one short SELECT at a time.
//!
//! A reader that holds a transaction keeps homu from writing: its webhooks then end in
//! `database is locked` (seen on barosl's fork; the journal mode is `delete`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use crate::model::{ProbeError, ProbeFailure, RepoName, Sha};

/// How long one SELECT waits for homu's own writes.
const BUSY: Duration = Duration::from_millis(500);
/// The most rows of one table that are read; a homu with more open pull requests is not known.
const ROWS_MAX: usize = 20_000;
/// The longest title that is kept, characters.
const TITLE_MAX: usize = 200;

/// Which homu wrote a database, told by its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// homu 0.2.0 of PyPI: table `state`.
    Pypi,
    /// barosl/homu: table `pull`, no `repos`.
    Barosl,
    /// servo/homu: `pull.try_choose`, `repos` without `treeclosed_src`.
    Servo,
    /// rust-lang/homu: `pull.squash` or `repos.treeclosed_src`, `retry_log`.
    RustLang,
}

/// Everything that is read of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Who wrote it; `None`: it has no table of pull requests yet.
    pub fork: Option<Fork>,
    /// The pull requests.
    pub pulls: Vec<PullRow>,
    /// The results.
    pub results: Vec<ResultRow>,
    /// The repositories whose tree is closed, each with the least priority that starts.
    pub closed: Vec<(RepoName, i64)>,
}

/// A pull request's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRow {
    /// The repository's label.
    pub repo: RepoName,
    /// The number.
    pub num: u64,
    /// `pending`, `success`, `failure`, `error`, or empty.
    pub status: String,
    /// The commit under test, where it is stored.
    pub merge_sha: Option<Sha>,
    /// The head that homu knows (forks).
    pub head_sha: Option<Sha>,
    /// Whether the build only tries (forks).
    pub is_try: Option<bool>,
    /// Title and body (forks), which a webhook must repeat.
    pub text: Option<(String, String)>,
    /// The priority (forks).
    pub priority: i64,
}

/// A result's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRow {
    /// The repository's label.
    pub repo: RepoName,
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

/// Reads a database.
///
/// # Errors
///
/// It is missing, locked for too long, or not homu's.
pub fn read(path: &Path) -> Result<Rows, ProbeError> {
    let failed = |error: rusqlite::Error| trouble(path, &error);
    if !path.exists() {
        return Err(ProbeError::new(
            ProbeFailure::Io,
            format!(
                "{}: there is no such database; is `database` right?",
                path.display()
            ),
        ));
    }
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let pull = columns(&connection, "pull").map_err(failed)?;
    let state = columns(&connection, "state").map_err(failed)?;
    let repos = columns(&connection, "repos").map_err(failed)?;
    let fork = if !pull.is_empty() {
        if has(&pull, "squash") || has(&repos, "treeclosed_src") {
            Fork::RustLang
        } else if has(&pull, "try_choose") || !repos.is_empty() {
            Fork::Servo
        } else {
            Fork::Barosl
        }
    } else if !state.is_empty() {
        Fork::Pypi
    } else {
        return Ok(Rows::default());
    };
    let pulls = match fork {
        Fork::Pypi => select(
            &connection,
            "SELECT repo, num, status, merge_sha FROM state",
            |row| {
                Ok(PullRow {
                    repo: RepoName::new(text(row, 0)?),
                    num: number(row, 1)?,
                    status: text(row, 2)?,
                    merge_sha: sha(row, 3)?,
                    head_sha: None,
                    is_try: None,
                    text: None,
                    priority: 0,
                })
            },
        ),
        Fork::Barosl | Fork::Servo | Fork::RustLang => select(
            &connection,
            "SELECT repo, num, status, merge_sha, head_sha, try_, title, body, priority FROM pull",
            |row| {
                let title: String = text(row, 6)?;
                Ok(PullRow {
                    repo: RepoName::new(text(row, 0)?),
                    num: number(row, 1)?,
                    status: text(row, 2)?,
                    merge_sha: sha(row, 3)?,
                    head_sha: sha(row, 4)?,
                    is_try: Some(row.get::<_, Option<i64>>(5)?.unwrap_or(0) != 0),
                    text: Some((title, text(row, 7)?)),
                    priority: row.get::<_, Option<i64>>(8)?.unwrap_or(0),
                })
            },
        ),
    }
    .map_err(failed)?;
    let results = if columns(&connection, "build_res")
        .map_err(failed)?
        .is_empty()
    {
        Vec::new()
    } else {
        select(
            &connection,
            "SELECT repo, num, builder, res, url, merge_sha FROM build_res",
            |row| {
                Ok(ResultRow {
                    repo: RepoName::new(text(row, 0)?),
                    num: number(row, 1)?,
                    builder: text(row, 2)?,
                    green: row.get::<_, Option<i64>>(3)?.map(|res| res != 0),
                    url: text(row, 4)?,
                    merge_sha: text(row, 5)?,
                })
            },
        )
        .map_err(failed)?
    };
    let closed = if has(&repos, "treeclosed") {
        select(
            &connection,
            "SELECT repo, treeclosed FROM repos WHERE treeclosed >= 0",
            |row| Ok((RepoName::new(text(row, 0)?), row.get::<_, i64>(1)?)),
        )
        .map_err(failed)?
    } else {
        Vec::new()
    };
    for length in [pulls.len(), results.len()] {
        if length >= ROWS_MAX {
            return Err(ProbeError::new(
                ProbeFailure::Partial,
                format!("{}: more than {ROWS_MAX} rows", path.display()),
            ));
        }
    }
    Ok(Rows {
        fork: Some(fork),
        pulls,
        results,
        closed,
    })
}

/// Reads a database on a thread that may block.
///
/// # Errors
///
/// As [`read`].
pub async fn read_async(path: PathBuf) -> Result<Rows, ProbeError> {
    tokio::task::spawn_blocking(move || read(&path))
        .await
        .unwrap_or_else(|error| {
            Err(ProbeError::new(
                ProbeFailure::Io,
                format!("the reading thread ended: {error}"),
            ))
        })
}

/// A title as it is shown, cut.
pub fn shown_title(title: &str) -> String {
    title.chars().take(TITLE_MAX).collect()
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
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], read)?;
    rows.take(ROWS_MAX).collect()
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

fn sha(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Sha>> {
    let text = text(row, column)?;
    Ok((!text.is_empty()).then(|| Sha::new(text)))
}

fn trouble(path: &Path, error: &rusqlite::Error) -> ProbeError {
    let locked = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    );
    let advice = if locked {
        "; something holds it locked, which keeps homu from writing too"
    } else {
        ""
    };
    ProbeError::new(
        ProbeFailure::Io,
        format!("{}: {error}{advice}", path.display()),
    )
}
