//! The head file beside the journal: the number and the link of its newest record, so that a journal
//! that lost its tail, or an older copy of it, is seen.
//!
//! It is written after the commit and before the write is acknowledged. So the journal is at most one
//! record ahead of it, after a crash between the two; a journal that is further ahead is good too,
//! because every record in between is linked. A journal that does not reach the head has lost what
//! was acknowledged.
//!
//! It is replaced as a whole (a new file, synced, renamed, the folder synced), so no crash leaves a
//! torn one. One that is torn, or missing beside a journal with records, was touched by something
//! else, and whether the newest records are there cannot be told: the journal is not acted on until a
//! person has written [`ACCEPT`] into it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::JournalError;
use super::chain::{self, Head, Link};
use super::error::Trouble;

/// What a person writes into the head file to go on with the journal as it is.
pub const ACCEPT: &str = "accept";

/// What it begins with; the number is the format's version.
const MARK: &str = "ci-watchdog journal head 1:";

/// The most that is read of it: longer than any that is written.
const LENGTH_MAX: u64 = 512;

/// Where the head of one journal is kept.
#[derive(Clone, Debug)]
pub(super) struct HeadFile {
    journal: PathBuf,
    path: PathBuf,
}

/// What a head file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Missing,
    /// A person accepted the journal as it is.
    Accepted,
    /// Nothing that was ever written there as a whole.
    Torn,
    At(Head),
}

impl HeadFile {
    /// The head file of the journal at `journal`.
    pub(super) fn of(journal: &Path) -> Self {
        let mut path = OsString::from(journal);
        path.push(".head");
        Self {
            journal: journal.to_owned(),
            path: path.into(),
        }
    }

    /// What it says.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn read(&self) -> Result<Found, JournalError> {
        let mut bytes = Vec::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(LENGTH_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Replaces what it says; durable when this returns.
    ///
    /// # Errors
    ///
    /// It cannot be written; then it says what it said before, or the new, never part of either.
    pub(super) fn write(&self, head: Head) -> Result<(), JournalError> {
        self.replace(&text(head))
            .map_err(|error| self.failed(&error))
    }

    /// Whether a journal whose verified chain ends at `end` reaches what the head file says.
    ///
    /// # Errors
    ///
    /// [`JournalError::Head`] where it does not, or where that cannot be told.
    pub(super) fn check(
        &self,
        found: Found,
        connection: &Connection,
        end: Head,
        needed: bool,
    ) -> Result<(), Trouble> {
        let detail = match found {
            Found::Missing if end.seq == 0 || !needed => return Ok(()),
            Found::Missing => {
                "the head file is missing, so it cannot be told whether the newest records are there"
                    .to_owned()
            }
            Found::Torn => {
                "the head file is damaged, so it cannot be told whether the newest records are there"
                    .to_owned()
            }
            Found::Accepted => {
                tracing::warn!(
                    journal = %self.journal.display(), record = end.seq,
                    "a person accepted the journal as it is"
                );
                return Ok(());
            }
            Found::At(head) if head.seq > end.seq => format!(
                "the head file has record {} as the newest, and the journal ends at record {}: the \
                 newest records are lost, or this is an older copy",
                head.seq, end.seq
            ),
            Found::At(head) if chain::link_at(connection, head.seq)? == Some(head.link) => {
                return Ok(());
            }
            Found::At(head) => format!(
                "record {} is another one than the head file knows: one of the two files belongs \
                 to another journal, or to another time",
                head.seq
            ),
        };
        Err(Trouble::Told(JournalError::Head {
            path: self.journal.clone(),
            head: self.path.clone(),
            detail,
        }))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let mut new = OsString::from(&self.path);
        new.push(".new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    fn failed(&self, error: &io::Error) -> JournalError {
        let named = format!("its head file {}: {error}", self.path.display());
        JournalError::of_system(&self.journal, &io::Error::new(error.kind(), named))
    }
}

fn text(head: Head) -> String {
    let said = format!("{MARK} {} {}", head.seq, head.link);
    let sum = Link::of_text(&said);
    format!("{said} {sum}\n")
}

fn parse(bytes: &[u8]) -> Found {
    if bytes.trim_ascii() == ACCEPT.as_bytes() {
        return Found::Accepted;
    }
    // What is read is what would be written: no byte of it may differ.
    let head = std::str::from_utf8(bytes).ok().and_then(|said| {
        let mut words = said.strip_prefix(MARK)?.split_ascii_whitespace();
        let seq = words.next()?.parse().ok()?;
        let link = words.next()?.parse().ok()?;
        let head = Head { seq, link };
        (text(head) == said).then_some(head)
    });
    head.map_or(Found::Torn, Found::At)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, HeadFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = HeadFile::of(&folder.path().join("journal.db"));
        (folder, file)
    }

    fn head() -> Head {
        Head {
            seq: 17,
            link: Link::of_text("any"),
        }
    }

    #[test]
    fn it_says_what_was_written_last() {
        let (_folder, file) = place();
        assert_eq!(file.read().unwrap(), Found::Missing);
        for seq in [0, 1, i64::MAX] {
            let head = Head { seq, ..head() };
            file.write(head).unwrap();
            assert_eq!(file.read().unwrap(), Found::At(head));
        }
    }

    #[test]
    fn a_byte_more_less_or_other_is_torn() {
        let good = text(head()).into_bytes();
        assert_eq!(parse(&good), Found::At(head()));
        for offset in 0..good.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[offset] ^= flip;
                assert_eq!(parse(&bad), Found::Torn, "{offset} by {flip:#x}");
            }
            assert_eq!(parse(&good[..offset]), Found::Torn, "cut to {offset}");
        }
        assert_eq!(parse(&[good.as_slice(), b"\n"].concat()), Found::Torn);
        assert_eq!(parse(&[good.as_slice(), &good].concat()), Found::Torn);
        assert_eq!(parse(b"accept\n"), Found::Accepted);
        assert_eq!(parse(b"accepted\n"), Found::Torn);
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let (folder, file) = place();
        file.write(head()).unwrap();
        // The kernel takes no byte there: the disk is full in the middle of the write.
        let new = folder.path().join("journal.db.head.new");
        std::os::unix::fs::symlink("/dev/full", &new).unwrap();
        let error = file.write(Head::default()).unwrap_err();
        assert_eq!(error.failure(), super::super::JournalFailure::Full);
        assert!(error.to_string().contains("journal.db.head"), "{error}");
        assert_eq!(file.read().unwrap(), Found::At(head()));
        fs::remove_file(new).unwrap();
        file.write(Head::default()).unwrap();
        assert_eq!(file.read().unwrap(), Found::At(Head::default()));
    }
}
