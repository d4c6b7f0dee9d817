//! `main.db` of the fake homu, with the tables of homu 0.2.0 (`main` in its `main.py`).

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Error, params};

use super::pull::{BuildResult, PullState};

/// How long a statement waits for a reader that holds a lock; Python's default.
const BUSY: Duration = Duration::from_secs(5);

/// The open database. Each statement is a transaction of its own, as in homu.
pub struct Database {
    connection: Connection,
}

impl Database {
    /// Opens or creates it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        // A fake need not survive a loss of power, and readers see no difference.
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS state (
                repo TEXT NOT NULL,
                num INTEGER NOT NULL,
                status TEXT NOT NULL,
                merge_sha TEXT,
                UNIQUE (repo, num)
            );
            CREATE TABLE IF NOT EXISTS build_res (
                repo TEXT NOT NULL,
                num INTEGER NOT NULL,
                builder TEXT NOT NULL,
                res INTEGER,
                url TEXT NOT NULL,
                merge_sha TEXT NOT NULL,
                UNIQUE (repo, num, builder)
            );
            CREATE TABLE IF NOT EXISTS mergeable (
                repo TEXT NOT NULL,
                num INTEGER NOT NULL,
                mergeable INTEGER NOT NULL,
                UNIQUE (repo, num)
            );",
        )?;
        Ok(Self { connection })
    }

    /// Stores a status; the merge SHA of a try is not stored, and an older one is lost.
    pub fn store_status(&self, repo: &str, pull: &PullState) -> Result<(), Error> {
        self.connection.execute(
            "INSERT OR REPLACE INTO state (repo, num, status) VALUES (?, ?, ?)",
            params![repo, pull.number, pull.status.as_str()],
        )?;
        if !pull.is_try {
            self.connection.execute(
                "UPDATE state SET merge_sha = ? WHERE repo = ? AND num = ?",
                params![pull.merge_sha, repo, pull.number],
            )?;
        }
        Ok(())
    }

    /// Stores whether a pull request merges without conflict.
    pub fn store_mergeable(
        &self,
        repo: &str,
        number: u64,
        mergeable: Option<bool>,
    ) -> Result<(), Error> {
        match mergeable {
            Some(mergeable) => self.connection.execute(
                "INSERT OR REPLACE INTO mergeable (repo, num, mergeable) VALUES (?, ?, ?)",
                params![repo, number, mergeable],
            ),
            None => self.connection.execute(
                "DELETE FROM mergeable WHERE repo = ? AND num = ?",
                params![repo, number],
            ),
        }?;
        Ok(())
    }

    /// Forgets what was built of a pull request.
    pub fn forget_results(&self, repo: &str, number: u64) -> Result<(), Error> {
        self.connection.execute(
            "DELETE FROM build_res WHERE repo = ? AND num = ?",
            params![repo, number],
        )?;
        Ok(())
    }

    /// Stores a builder's start or result.
    pub fn store_result(
        &self,
        repo: &str,
        pull: &PullState,
        builder: &str,
        result: &BuildResult,
    ) -> Result<(), Error> {
        self.connection.execute(
            "INSERT OR REPLACE INTO build_res (repo, num, builder, res, url, merge_sha)
             VALUES (?, ?, ?, ?, ?, ?)",
            params![
                repo,
                pull.number,
                builder,
                result.green,
                result.url,
                pull.merge_sha
            ],
        )?;
        Ok(())
    }

    /// Forgets a pull request.
    pub fn forget(&self, repo: &str, number: u64) -> Result<(), Error> {
        for table in ["state", "build_res", "mergeable"] {
            let statement = format!("DELETE FROM {table} WHERE repo = ? AND num = ?");
            self.connection.execute(&statement, params![repo, number])?;
        }
        Ok(())
    }
}
