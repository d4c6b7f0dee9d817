//! What can go wrong with the journal, in words for the person who has to put it right.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::ACCEPT;
use crate::model::IntentId;

/// The kinds of failure; the same value is the log field, the metric label and the cell on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JournalFailure {
    /// Another watchdog holds it.
    Locked,
    /// A newer version wrote it.
    Newer,
    /// An older version wrote it, and this caller may not migrate it.
    Older,
    /// The file is not a journal.
    Foreign,
    /// The file is damaged.
    Damaged,
    /// It does not reach its head file, or has none.
    Head,
    /// The file, or the folder that it should be in, does not exist.
    Missing,
    /// Another file lies at its place, or none, since it was opened.
    Replaced,
    /// The disk or the quota is full.
    Full,
    /// The file or its folder may not be read or written.
    Permission,
    /// Another process read or wrote it for too long.
    Busy,
    /// The disk failed in any other way.
    Io,
    /// An intent on the same target is still open.
    Open,
    /// The intent is not open, or has its outcome already.
    NotOpen,
    /// The record is too large.
    TooLarge,
}

impl JournalFailure {
    /// Every kind, in the order of declaration; metrics start each at zero.
    pub const ALL: [Self; 15] = [
        Self::Locked,
        Self::Newer,
        Self::Older,
        Self::Foreign,
        Self::Damaged,
        Self::Head,
        Self::Missing,
        Self::Replaced,
        Self::Full,
        Self::Permission,
        Self::Busy,
        Self::Io,
        Self::Open,
        Self::NotOpen,
        Self::TooLarge,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Newer => "newer",
            Self::Older => "older",
            Self::Foreign => "foreign",
            Self::Damaged => "damaged",
            Self::Head => "head",
            Self::Missing => "missing",
            Self::Replaced => "replaced",
            Self::Full => "full",
            Self::Permission => "permission",
            Self::Busy => "busy",
            Self::Io => "io",
            Self::Open => "open",
            Self::NotOpen => "not_open",
            Self::TooLarge => "too_large",
        }
    }

    /// Whether the journal itself failed, so that all acting must stop until a write succeeds.
    /// Where it did not, only the one call was refused and nothing was written.
    pub const fn stops_acting(self) -> bool {
        match self {
            Self::Locked
            | Self::Newer
            | Self::Older
            | Self::Foreign
            | Self::Damaged
            | Self::Head
            | Self::Missing
            | Self::Replaced
            | Self::Full
            | Self::Permission
            | Self::Busy
            | Self::Io => true,
            Self::Open | Self::NotOpen | Self::TooLarge => false,
        }
    }
}

impl fmt::Display for JournalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the journal could not be opened, read or written: what happened, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another watchdog holds it.
    #[error(
        "another watchdog ({}) holds the journal {path}, by the lock on {lock}; stop that one, or \
         give this one a journal of its own",
        holder_words(*holder), path = path.display(), lock = lock.display()
    )]
    Locked {
        /// The journal.
        path: PathBuf,
        /// The file that the lock is on.
        lock: PathBuf,
        /// The process that holds it, where the file says so.
        holder: Option<u32>,
    },
    /// A newer version wrote it.
    #[error(
        "the journal {path} was written by a newer version (schema {found}, this version knows up \
         to {known}) and was left as it is; start the newer version again, or give this one a \
         journal of its own",
        path = path.display()
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// The schema version in the file.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// An older version wrote it, and this caller may not migrate it.
    #[error(
        "the journal {path} was written by an older version (schema {found}, this version needs \
         {known}); start the watchdog on it once, which brings it up to date",
        path = path.display()
    )]
    Older {
        /// The journal.
        path: PathBuf,
        /// The schema version in the file.
        found: i64,
        /// The one that this version needs.
        known: i64,
    },
    /// The file is not a journal.
    #[error(
        "{path} is a database, but not a journal of ci-watchdog, and was left as it is; name \
         another file for the journal",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error(
        "the journal {path} is damaged and was left as it is: {detail}. Stop the watchdog and put \
         back a copy of it, or see what is left with `sqlite3 {path} .recover`. Moving it and \
         {path}.head away begins a new history: what was sent before is forgotten, so look at the \
         bot first",
        path = path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// What the check found.
        detail: String,
    },
    /// It does not reach its head file, or has none.
    #[error(
        "the journal {path} does not go with {head}, and both were left as they are: {detail}. \
         Stop the watchdog and put the right pair of files back. To go on with this journal all \
         the same, which may have forgotten what was sent last, look at the bot first, then `echo \
         {ACCEPT} > {head}` and start the watchdog",
        path = path.display(), head = head.display()
    )]
    Head {
        /// The journal.
        path: PathBuf,
        /// Its head file.
        head: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// The file, or the folder that it should be in, does not exist.
    #[error("there is no journal at {path}: {detail}", path = path.display())]
    Missing {
        /// The journal.
        path: PathBuf,
        /// What is missing, and what to do.
        detail: String,
    },
    /// Another file lies at its place, or none, since it was opened.
    #[error(
        "the journal {path} was moved, removed or replaced while the watchdog ran; put the same \
         file back, or restart the watchdog to begin with what lies there",
        path = path.display()
    )]
    Replaced {
        /// The journal.
        path: PathBuf,
    },
    /// The disk or the quota is full.
    #[error(
        "the journal {path} cannot be written, because its disk is full ({detail}); free some space",
        path = path.display()
    )]
    Full {
        /// The journal.
        path: PathBuf,
        /// What the database or the system said.
        detail: String,
    },
    /// The file or its folder may not be read or written.
    #[error(
        "the journal {path} may not be read or written ({detail}); the watchdog's user needs to \
         read and write it and to create files beside it",
        path = path.display()
    )]
    Permission {
        /// The journal.
        path: PathBuf,
        /// What the database or the system said.
        detail: String,
    },
    /// Another process read or wrote it for too long.
    #[error(
        "the journal {path} is held by another process that reads or writes it for too long \
         ({detail}); end that one (a shell of sqlite3, a backup?)",
        path = path.display()
    )]
    Busy {
        /// The journal.
        path: PathBuf,
        /// What the database said.
        detail: String,
    },
    /// The disk failed in any other way.
    #[error(
        "the journal {path} failed ({detail}); look at the disk and at the system's log",
        path = path.display()
    )]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the database or the system said.
        detail: String,
    },
    /// An intent on the same target is still open.
    #[error("intent {} is still open on {target}; it must be settled before another", open.0)]
    Open {
        /// The target, as the schema compares it.
        target: String,
        /// The open intent.
        open: IntentId,
    },
    /// The intent is not open, or has its outcome already.
    #[error("intent {} takes no {what}: {why}", id.0)]
    NotOpen {
        /// The intent.
        id: IntentId,
        /// `outcome` or `closing`.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The record is too large.
    #[error("a record of {bytes} bytes is too large for the journal (at most {max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that is taken.
        max: usize,
    },
}

impl JournalError {
    /// The kind, for a label.
    pub const fn failure(&self) -> JournalFailure {
        match self {
            Self::Locked { .. } => JournalFailure::Locked,
            Self::Newer { .. } => JournalFailure::Newer,
            Self::Older { .. } => JournalFailure::Older,
            Self::Foreign { .. } => JournalFailure::Foreign,
            Self::Damaged { .. } => JournalFailure::Damaged,
            Self::Head { .. } => JournalFailure::Head,
            Self::Missing { .. } => JournalFailure::Missing,
            Self::Replaced { .. } => JournalFailure::Replaced,
            Self::Full { .. } => JournalFailure::Full,
            Self::Permission { .. } => JournalFailure::Permission,
            Self::Busy { .. } => JournalFailure::Busy,
            Self::Io { .. } => JournalFailure::Io,
            Self::Open { .. } => JournalFailure::Open,
            Self::NotOpen { .. } => JournalFailure::NotOpen,
            Self::TooLarge { .. } => JournalFailure::TooLarge,
        }
    }

    /// Whether what the journal says cannot be believed. Nothing heals that but a person: it is read
    /// no further, not written, and not acted on, until the watchdog is started anew.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Head { .. })
    }

    /// A failure that SQLite reported of the journal at `path`.
    pub(super) fn of_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, detail }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path, detail },
            Some(
                ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::AuthorizationForStatementDenied,
            ) => Self::Permission { path, detail },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy { path, detail }
            }
            // The statements are fixed: where one does not fit, the tables are not what they were.
            None | Some(ErrorCode::Unknown | ErrorCode::TypeMismatch) => {
                Self::Damaged { path, detail }
            }
            // All others are failures of the disk, of memory, or of a table's own rules.
            Some(_) => Self::Io { path, detail },
        }
    }

    /// A failure that the system reported of `path` or of a file beside it.
    pub(super) fn of_system(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        let detail = error.to_string();
        let one_of = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
        if one_of(&[
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
        ]) {
            Self::Permission { path, detail }
        } else if one_of(&[
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
            io::ErrorKind::FileTooLarge,
        ]) {
            Self::Full { path, detail }
        } else if one_of(&[io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]) {
            let detail = format!("its folder does not exist ({detail}); create it");
            Self::Missing { path, detail }
        } else {
            Self::Io { path, detail }
        }
    }
}

/// A failure inside the journal, before the file that it is about is named.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The database failed.
    Sqlite(rusqlite::Error),
    /// What it says cannot be.
    Damaged(String),
    /// A failure that is told as it is.
    Told(JournalError),
}

impl Trouble {
    /// The failure of the journal at `path`.
    pub(super) fn at(self, path: &Path) -> JournalError {
        match self {
            Self::Sqlite(error) => JournalError::of_sqlite(path, &error),
            Self::Damaged(detail) => JournalError::Damaged {
                path: path.to_owned(),
                detail,
            },
            Self::Told(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        Self::Told(error)
    }
}

fn holder_words(holder: Option<u32>) -> String {
    match holder {
        Some(pid) => format!("pid {pid}"),
        None => "its pid is not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_failure_has_a_word_of_its_own() {
        let words: BTreeSet<_> = JournalFailure::ALL.iter().map(|f| f.as_str()).collect();
        assert_eq!(words.len(), JournalFailure::ALL.len());
    }

    #[test]
    fn a_held_lock_names_the_holder_and_both_files() {
        let error = JournalError::Locked {
            path: "/srv/journal.db".into(),
            lock: "/srv/journal.db.lock".into(),
            holder: Some(41),
        };
        assert_eq!(
            error.to_string(),
            "another watchdog (pid 41) holds the journal /srv/journal.db, by the lock on \
             /srv/journal.db.lock; stop that one, or give this one a journal of its own"
        );
    }

    #[test]
    fn only_a_failed_journal_stops_acting() {
        let refusals: Vec<_> = JournalFailure::ALL
            .into_iter()
            .filter(|failure| !failure.stops_acting())
            .collect();
        assert_eq!(
            refusals,
            [
                JournalFailure::Open,
                JournalFailure::NotOpen,
                JournalFailure::TooLarge
            ]
        );
    }
}
