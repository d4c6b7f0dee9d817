//! The journal's file: where it truly lies, that it is still the same one, and its connections.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Advice, fadvise, stat};
use rustix::io::Errno;

use super::JournalError;

/// How long a write waits for a reader in another process. Shorter than the act deadline, so that
/// an intent that had to wait is still in time.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(2);

/// A database begins with a header of this length, bytes. SQLite takes a shorter file for an empty
/// one and would write over it.
const HEADER: u64 = 100;

/// Which file lies at a path: its device and its inode.
type Identity = (u64, u64);

/// A file that holds a journal, or will.
#[derive(Clone, Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    identity: Option<Identity>,
}

impl JournalFile {
    /// The file at `path`, with links resolved, so that every way to it leads to one lock.
    ///
    /// # Errors
    ///
    /// Its folder does not exist, or it is not a plain file.
    pub(super) fn at(path: &Path) -> Result<Self, JournalError> {
        let failed = |error: io::Error| JournalError::of_system(path, &error);
        let resolved = match path.canonicalize() {
            Ok(resolved) => {
                if !resolved.metadata().map_err(failed)?.is_file() {
                    return Err(JournalError::Foreign {
                        path: path.to_owned(),
                    });
                }
                resolved
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or_else(|| failed(error))?;
                let folder = match path.parent() {
                    Some(folder) if !folder.as_os_str().is_empty() => folder,
                    Some(_) | None => Path::new("."),
                };
                folder.canonicalize().map_err(failed)?.join(name)
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self {
            path: resolved,
            identity: None,
        })
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates it, empty, for its owner alone, where it does not exist; and remembers which file it
    /// is. SQLite gives its rollback journal the same mode.
    ///
    /// # Errors
    ///
    /// It cannot be created, or it is too short for a database and not empty.
    pub(super) fn create(&mut self) -> Result<(), JournalError> {
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path);
        match created {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(JournalError::of_system(&self.path, &error)),
        }
        self.identity = self.look()?;
        if (1..HEADER).contains(&self.bytes()) {
            return Err(JournalError::Damaged {
                path: self.path.clone(),
                detail: "it is shorter than a database's header".to_owned(),
            });
        }
        Ok(())
    }

    /// Checks that the file that was opened still lies at its path. A write into a file that was
    /// moved or removed would succeed, and be lost.
    ///
    /// # Errors
    ///
    /// Another file lies there, or none.
    pub(super) fn unmoved(&self) -> Result<(), JournalError> {
        let found = self.look()?;
        if found.is_some() && found == self.identity {
            Ok(())
        } else {
            Err(JournalError::Replaced {
                path: self.path.clone(),
            })
        }
    }

    fn look(&self) -> Result<Option<Identity>, JournalError> {
        match stat(&self.path) {
            Ok(found) => Ok(Some((found.st_dev, found.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(JournalError::of_system(&self.path, &error.into())),
        }
    }

    /// Its size on disk, bytes.
    pub(super) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Writes what the system still holds of it, and drops it from the system's cache, so that the
    /// next read shows what the disk has. After a failed `fsync` Linux keeps pages that it could
    /// not write and calls them clean; a read out of the cache would show them as if they were safe.
    ///
    /// No connection of this process may be open: closing any descriptor of a file drops the
    /// process's POSIX locks on it.
    ///
    /// # Errors
    ///
    /// The disk still fails.
    pub(super) fn forget_cache(&self) -> Result<(), JournalError> {
        let failed = |error: io::Error| JournalError::of_system(&self.path, &error);
        let file = File::open(&self.path).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| failed(error.into()))
    }

    /// Opens a connection that reads and writes. It creates nothing and writes nothing, other than
    /// to roll back what a crash left half written.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub(super) fn connect(&self) -> Result<Connection, JournalError> {
        let connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|error| JournalError::of_sqlite(&self.path, &error))?;
        settle(&connection).map_err(|error| JournalError::of_sqlite(&self.path, &error))?;
        Ok(connection)
    }
}

/// Settings of a connection that write nothing to the file.
pub(super) fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(WRITE_WAIT)?;
    // EXTRA also syncs the folder after the rollback journal's removal, which is the commit: a
    // power loss cannot bring the rollback journal, and with it the older state, back.
    connection.pragma_update(None, "synchronous", "EXTRA")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_a_journal_leads_to_one_path() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        let link = real.join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for exists in [false, true] {
            if exists {
                std::fs::write(real.join("journal.db"), "").unwrap();
            }
            let found = JournalFile::at(&link.join("journal.db")).unwrap();
            assert_eq!(found.path(), real.join("journal.db"), "exists: {exists}");
        }
    }

    #[test]
    fn a_connection_syncs_the_folder_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = JournalFile::at(&folder.path().join("journal.db")).unwrap();
        file.create().unwrap();
        let connection = file.connect().unwrap();
        let level: i64 = connection
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap();
        assert_eq!(level, 3, "EXTRA");
    }

    #[test]
    fn a_file_that_was_replaced_is_told_from_the_same_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let away = folder.path().join("away.db");
        let mut file = JournalFile::at(&path).unwrap();
        file.create().unwrap();
        file.unmoved().unwrap();
        std::fs::rename(&path, &away).unwrap();
        assert!(matches!(file.unmoved(), Err(JournalError::Replaced { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(file.unmoved(), Err(JournalError::Replaced { .. })));
        std::fs::rename(&away, &path).unwrap();
        file.unmoved().unwrap();
    }
}
