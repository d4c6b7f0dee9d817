//! The lock that keeps a second watchdog off a journal.
//!
//! It is an exclusive `flock` on a file beside the journal. SQLite's own locks do not serve:
//! - they are held during transactions only, so two watchdogs would take turns, each with a memory
//!   that lacks what the other sent;
//! - its exclusive mode, which holds them throughout, shuts out readers (`history`, `explain`);
//! - a rollback after a crash and the repair of a failed write both reopen the file, which would
//!   drop the lock at the moment when it matters most.
//!
//! The kernel drops a `flock` with its last descriptor, also at `kill -9`, so no stale lock is left.
//! The number in the file is for people and is never believed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::JournalError;

/// The most that is read of the lock file: the digits of a process id.
const PID_DIGITS_MAX: u64 = 20;

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of the journal at `journal` without waiting.
    ///
    /// # Errors
    ///
    /// Another process holds it, or its file cannot be created.
    pub(super) fn take(journal: &Path) -> Result<Self, JournalError> {
        let path = lock_path(journal);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| JournalError::of_system(journal, &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // A full disk must not keep the watchdog from starting: the number is for people.
                let _ = write_pid(&mut file);
                Ok(Self { file })
            }
            Err(Errno::WOULDBLOCK) => Err(JournalError::Locked {
                path: journal.to_owned(),
                holder: read_pid(&mut file),
                lock: path,
            }),
            Err(error) => Err(JournalError::of_system(journal, &error.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays: removing it would let two watchdogs lock two files of one name.
        let _ = self.file.set_len(0);
    }
}

fn lock_path(journal: &Path) -> PathBuf {
    let mut path = OsString::from(journal);
    path.push(".lock");
    path.into()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_DIGITS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_its_holder_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let first = Lock::take(&journal).unwrap();
        assert_eq!(
            Lock::take(&journal).unwrap_err(),
            JournalError::Locked {
                path: journal.clone(),
                lock: folder.path().join("journal.db.lock"),
                holder: Some(std::process::id()),
            }
        );
        drop(first);
        Lock::take(&journal).unwrap();
    }

    #[test]
    fn what_a_dead_watchdog_left_in_the_file_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        std::fs::write(lock_path(&journal), "1\n").unwrap();
        Lock::take(&journal).unwrap();
    }
}
