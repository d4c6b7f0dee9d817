//! The real homu 0.2.0: its configuration, its process, and what it says about itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use scraper::{Html, Selector};

use super::config::StackConfig;
use super::process::{Process, Workplace};
use super::{patience, tools};

/// The token with which homu speaks to GitHub.
pub const GITHUB_TOKEN: &str = "token-of-the-bot";
/// The secret on GitHub's webhooks to homu.
pub const GITHUB_SECRET: &str = "secret-of-the-webhooks";
/// The secret on Buildbot's packets to homu.
pub const BUILDBOT_SECRET: &str = "secret-of-the-packets";

/// The homu of a stack.
pub struct Homu {
    workplace: Arc<Workplace>,
    dir: PathBuf,
    github_url: String,
    process: Mutex<Option<Process>>,
}

/// homu's database, held locked against everybody until this is dropped, as by a backup or a tool
/// that hangs.
pub struct DatabaseLock {
    _connection: Connection,
}

/// A pull request in homu's database, `main.db`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPull {
    /// Empty, `pending`, `success`, `failure` or `error`.
    pub status: String,
    /// Empty, or the merge that is under test.
    pub merge_sha: String,
    /// By builder; a builder without a row has neither started nor ended.
    pub results: BTreeMap<String, StoredResult>,
}

/// A row of `build_res`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// None while it runs.
    pub green: Option<bool>,
    pub url: String,
    pub merge_sha: String,
}

/// A row of the queue page, which is what homu has in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedPull {
    pub number: u64,
    /// As printed: empty, `approved`, `pending`, `pending (try)`, `success`, ...
    pub status: String,
    pub approved_by: String,
}

impl Homu {
    /// Writes homu's configuration. `public_url` is where the others reach homu.
    pub fn new(
        workplace: &Arc<Workplace>,
        config: &StackConfig,
        github_url: &str,
        public_url: &str,
        buildbot_url: &str,
    ) -> Self {
        let dir = workplace.make_dir("homu");
        fs::write(dir.join("cfg.toml"), cfg(config, public_url, buildbot_url))
            .expect("cfg.toml can be written");
        Self {
            workplace: Arc::clone(workplace),
            dir,
            github_url: github_url.to_owned(),
            process: Mutex::new(None),
        }
    }

    /// homu's configuration.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("cfg.toml")
    }

    /// homu's database.
    pub fn database(&self) -> PathBuf {
        self.dir.join("main.db")
    }

    /// homu's own log, over all its starts.
    pub fn log(&self) -> PathBuf {
        self.workplace.dir().join("homu.log")
    }

    /// Starts homu and waits until it answers; returns where it listens.
    pub async fn start(&self) -> String {
        let port_file = self.dir.join("port");
        let _ = fs::remove_file(&port_file);
        let process = self.workplace.spawn(
            "homu",
            Command::new(tools::python())
                .arg("-u")
                .arg(tools::repository_file(
                    "tests/stack/homu_shim/start_homu.py",
                ))
                .current_dir(&self.dir)
                .env("HOMU_GITHUB_API", &self.github_url)
                .env("HOMU_PORT_FILE", &port_file)
                .env("PYTHONDONTWRITEBYTECODE", "1"),
        );
        *self.process.lock().unwrap() = Some(process);
        patience("homu to listen", async || {
            self.assert_running();
            let port = fs::read_to_string(&port_file).ok()?;
            Some(format!("http://127.0.0.1:{port}"))
        })
        .await
    }

    /// Ends homu as `kill -9` does. What it had in memory is lost.
    pub fn kill9(&self) {
        drop(self.process.lock().unwrap().take());
    }

    /// Stops homu in its tracks: it accepts connections and answers nothing.
    pub fn freeze(&self) {
        self.with_process(|process| process.freeze());
    }

    /// Lets a frozen homu go on.
    pub fn thaw(&self) {
        self.with_process(|process| process.thaw());
    }

    /// Locks homu's database: nobody reads it or writes to it.
    pub fn lock_database(&self) -> DatabaseLock {
        let connection = Connection::open(self.database()).expect("homu has a database");
        let lock = "PRAGMA busy_timeout = 5000; BEGIN EXCLUSIVE";
        connection
            .execute_batch(lock)
            .expect("nobody holds it for long");
        DatabaseLock {
            _connection: connection,
        }
    }

    /// Panics with the end of its log if it has ended by itself.
    pub fn assert_running(&self) {
        if let Some(process) = self.process.lock().unwrap().as_mut() {
            process.assert_running();
        }
    }

    /// A pull request in the database, if it is there.
    pub fn stored(&self, label: &str, pull: u64) -> Option<StoredPull> {
        read_stored(&self.database(), label, pull)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", self.database().display()))
    }

    fn with_process(&self, act: impl FnOnce(&Process)) {
        act(self
            .process
            .lock()
            .unwrap()
            .as_ref()
            .expect("homu was started"));
    }
}

/// Reads a queue page of homu 0.2.0 (`html/queue.html`), by its column heads.
pub fn parse_queue(html: &str) -> Vec<QueuedPull> {
    let page = Html::parse_document(html);
    let select = |selector: &str| Selector::parse(selector).expect("the selector is valid");
    let (head, row, cell) = (select("#queue th"), select("#queue tbody tr"), select("td"));
    let heads: Vec<String> = page.select(&head).map(|th| th.text().collect()).collect();
    let column = |name: &str| {
        heads
            .iter()
            .position(|head| head == name)
            .unwrap_or_else(|| panic!("no column {name}"))
    };
    let (number, status, approved_by) = (column("#"), column("Status"), column("Approved by"));
    page.select(&row)
        .map(|row| {
            let cells: Vec<String> = row
                .select(&cell)
                .map(|td| td.text().collect::<String>().trim().into())
                .collect();
            QueuedPull {
                number: cells[number].parse().expect("a number"),
                status: cells[status].clone(),
                approved_by: cells[approved_by].clone(),
            }
        })
        .collect()
}

/// Each statement by itself, in no transaction: a reader that holds one makes
/// homu's own writes fail.
fn read_stored(database: &Path, label: &str, pull: u64) -> rusqlite::Result<Option<StoredPull>> {
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(2))?;
    let state = db
        .query_row(
            "SELECT status, merge_sha FROM state WHERE repo = ? AND num = ?",
            (label, pull),
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)),
        )
        .optional()?;
    let Some((status, merge_sha)) = state else {
        return Ok(None);
    };
    let mut rows = db
        .prepare("SELECT builder, res, url, merge_sha FROM build_res WHERE repo = ? AND num = ?")?;
    let results = rows
        .query_map((label, pull), |row| {
            let result = StoredResult {
                green: row.get(1)?,
                url: row.get(2)?,
                merge_sha: row.get(3)?,
            };
            Ok((row.get(0)?, result))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(StoredPull {
        status,
        merge_sha: merge_sha.unwrap_or_default(),
        results,
    }))
}

fn cfg(config: &StackConfig, public_url: &str, buildbot_url: &str) -> String {
    let port = public_url.rsplit(':').next().unwrap_or_default();
    let mut cfg = format!(
        "[github]\naccess_token = \"{GITHUB_TOKEN}\"\n\
         app_client_id = \"\"\napp_client_secret = \"\"\n\n\
         [web]\n# Where the others reach homu. It listens on a port of its own.\nport = {port}\n"
    );
    for repository in &config.repositories {
        let label = repository.label;
        let (owner, reviewer) = (super::config::OWNER, super::config::REVIEWER);
        let builders = quoted(&repository.builders);
        let try_builders = quoted(&repository.try_builders);
        write!(
            cfg,
            "\n[repo.{label}]\nowner = \"{owner}\"\nname = \"{label}\"\n\
             reviewers = [\"{reviewer}\"]\n\n\
             [repo.{label}.github]\nsecret = \"{GITHUB_SECRET}\"\n\n\
             [repo.{label}.buildbot]\nurl = \"{buildbot_url}\"\nsecret = \"{BUILDBOT_SECRET}\"\n\
             username = \"homu\"\npassword = \"password-of-homu\"\n\
             builders = [{builders}]\ntry_builders = [{try_builders}]\n"
        )
        .expect("a string can be written to");
    }
    cfg
}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(", ")
}
