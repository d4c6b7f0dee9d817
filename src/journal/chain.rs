//! The checksum chain: each record's link covers the record and the link before it, so that a record
//! that was altered, lost, added or moved is seen; a checkpoint leads over what was pruned.
//!
//! It is against disks that flip bits or lose writes, and files that were put back in part. It is no
//! seal: whoever may write the file can compute the chain anew, and could as well talk to the bot.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::error::Trouble;
use super::row::{self, COLUMNS, Stored};

/// The length of a link, bytes.
const LENGTH: usize = 32;

/// A link of the chain.
///
/// SHA-256, where a CRC would find flipped bits too: `ring` is here for TLS already, and a link that
/// never repeats by chance also tells the records of one journal from those of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link([u8; LENGTH]);

impl Link {
    /// What the first record follows.
    pub(super) const FIRST: Self = Self([0; LENGTH]);

    /// The link of a record that follows this one.
    pub(super) fn to(self, record: &Stored) -> Self {
        let place = &record.place;
        let mut sum = Sum::new();
        sum.bytes(&self.0);
        sum.number(Some(record.seq));
        sum.number(Some(record.watched_ms));
        sum.number(Some(record.wall_ms));
        sum.text(Some(&record.kind));
        sum.number(record.intent);
        sum.text(Some(&place.target));
        sum.text(place.attempt.as_deref());
        sum.text(Some(&place.repo));
        sum.number(place.pull);
        sum.text(Some(&record.body));
        sum.end()
    }

    /// A checksum of the saved clock, which changes in place and so is no record.
    pub(super) fn of_clock(watched_ms: i64, wall_ms: i64) -> Self {
        let mut sum = Sum::new();
        sum.text(Some("clock"));
        sum.number(Some(watched_ms));
        sum.number(Some(wall_ms));
        sum.end()
    }

    /// A checksum of a text.
    pub(super) fn of_text(text: &str) -> Self {
        let mut sum = Sum::new();
        sum.text(Some(text));
        sum.end()
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is written as 64 hexadecimal digits.
impl FromStr for Link {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let mut link = Self::FIRST;
        for (place, byte) in link.0.iter_mut().enumerate() {
            // A text that is too short, or not of digits, gives no number.
            let digits = text.get(place * 2..place * 2 + 2).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16)?;
        }
        Ok(link)
    }
}

impl ToSql for Link {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0)))
    }
}

impl FromSql for Link {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let blob = value.as_blob()?;
        let link = blob.try_into().map_err(|_| FromSqlError::InvalidBlobSize {
            expected_size: LENGTH,
            blob_size: blob.len(),
        })?;
        Ok(Self(link))
    }
}

/// The end of a chain, or a place on it: a record's number and its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: i64,
    pub(super) link: Link,
}

/// Pruned records, as the chain sees them: it came as `before`, and goes on as the last one's link.
/// Two that nothing lies between are made one, so there is at most one beside each record that is kept.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    before: Link,
    last: Head,
}

/// Follows the chain from its begin over records in their order.
pub(super) struct Walk {
    at: Head,
    checkpoints: std::iter::Peekable<std::vec::IntoIter<Checkpoint>>,
}

impl Walk {
    /// A walk that ends at `last` at the latest.
    pub(super) fn new(connection: &Connection, last: i64) -> rusqlite::Result<Self> {
        let mut statement = connection
            .prepare("SELECT seq, before, chain FROM checkpoint WHERE seq <= ?1 ORDER BY seq")?;
        let checkpoints: Vec<_> = statement
            .query_map([last], checkpoint)?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            at: Head::default(),
            checkpoints: checkpoints.into_iter().peekable(),
        })
    }

    /// Goes over the next record.
    ///
    /// # Errors
    ///
    /// It does not follow what was there before, in words.
    pub(super) fn step(&mut self, record: &Stored) -> Result<(), String> {
        self.pass(record.seq)?;
        if self.at.link.to(record) != record.chain {
            return Err(format!(
                "record {} does not follow {}: one of the two was altered, or what lay between \
                 them is lost",
                record.seq,
                self.place()
            ));
        }
        self.at = record.head();
        Ok(())
    }

    /// Goes over what was pruned at the end, and says where the chain ends.
    ///
    /// # Errors
    ///
    /// As of [`step`](Self::step).
    pub(super) fn end(mut self) -> Result<Head, String> {
        self.pass(i64::MAX)?;
        Ok(self.at)
    }

    /// Goes over the checkpoints before record `seq`.
    fn pass(&mut self, seq: i64) -> Result<(), String> {
        while let Some(found) = self.checkpoints.next_if(|found| found.last.seq < seq) {
            if found.before != self.at.link || found.last.seq <= self.at.seq {
                return Err(format!(
                    "the checkpoint of records that were pruned up to {} does not follow {}: one \
                     of the two was altered, or what lay between them is lost",
                    found.last.seq,
                    self.place()
                ));
            }
            self.at = found.last;
        }
        Ok(())
    }

    fn place(&self) -> String {
        match self.at.seq {
            0 => "the journal's begin".to_owned(),
            seq => format!("record {seq}"),
        }
    }
}

/// The link at record `seq` of a chain that was verified; `None` where it has no such place, or
/// pruning left none.
pub(super) fn link_at(connection: &Connection, seq: i64) -> rusqlite::Result<Option<Link>> {
    if seq == 0 {
        return Ok(Some(Link::FIRST));
    }
    connection
        .query_row(
            "SELECT chain FROM record WHERE seq = ?1
             UNION ALL SELECT chain FROM checkpoint WHERE seq = ?1",
            [seq],
            |row| row.get(0),
        )
        .optional()
}

/// Removes one record, after checking that it is what was written, and leads the chain over it.
/// Returns the length of its text. What it removes must be allowed by
/// [`deleting`](super::schema::deleting).
///
/// The checkpoint keeps the record's own link, so a record beside it that is damaged shows as before:
/// pruning hides nothing.
pub(super) fn cut(transaction: &Transaction<'_>, seq: i64) -> Result<u64, Trouble> {
    let record = transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM record WHERE seq = ?1"))?
        .query_row([seq], row::read)?;
    let kept = one(
        transaction,
        "SELECT seq, chain, chain FROM record WHERE seq < ?1 ORDER BY seq DESC LIMIT 1",
        seq,
    )?;
    let pruned = one(
        transaction,
        "SELECT seq, before, chain FROM checkpoint WHERE seq < ?1 ORDER BY seq DESC LIMIT 1",
        seq,
    )?;
    let nearer = |one: &Checkpoint| kept.is_none_or(|kept| kept.last.seq < one.last.seq);
    let pruned = pruned.filter(nearer);
    let from = pruned.or(kept).map_or(Link::FIRST, |one| one.last.link);
    if from.to(&record) != record.chain {
        return Err(Trouble::Damaged(format!(
            "record {seq}, which is to be pruned, does not follow the one before it"
        )));
    }
    transaction
        .prepare_cached("DELETE FROM record WHERE seq = ?1")?
        .execute([seq])?;
    let before = match pruned {
        Some(pruned) => {
            transaction
                .prepare_cached("DELETE FROM checkpoint WHERE seq = ?1")?
                .execute([pruned.last.seq])?;
            pruned.before
        }
        None => from,
    };
    let follows = transaction
        .prepare_cached(
            "UPDATE checkpoint SET before = ?2 WHERE before = ?3 AND seq = (
                SELECT min(seq) FROM checkpoint WHERE seq > ?1
             ) AND NOT EXISTS (
                SELECT 1 FROM record WHERE record.seq > ?1 AND record.seq < checkpoint.seq
             )",
        )?
        .execute(params![seq, before, record.chain])?;
    if follows == 0 {
        transaction
            .prepare_cached("INSERT INTO checkpoint (seq, before, chain) VALUES (?1, ?2, ?3)")?
            .execute(params![seq, before, record.chain])?;
    }
    Ok(record.body.len() as u64)
}

fn one(
    transaction: &Transaction<'_>,
    select: &str,
    seq: i64,
) -> rusqlite::Result<Option<Checkpoint>> {
    transaction
        .prepare_cached(select)?
        .query_row([seq], checkpoint)
        .optional()
}

fn checkpoint(row: &rusqlite::Row<'_>) -> rusqlite::Result<Checkpoint> {
    Ok(Checkpoint {
        before: row.get(1)?,
        last: Head {
            seq: row.get(0)?,
            link: row.get(2)?,
        },
    })
}

/// A checksum of fields in their order. Each is told from the next by its length, and nothing from
/// an empty text.
struct Sum(Context);

impl Sum {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn number(&mut self, number: Option<i64>) {
        match number {
            None => self.bytes(b"-"),
            Some(number) => {
                self.bytes(b"n");
                self.bytes(&number.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            None => self.bytes(b"-"),
            Some(text) => {
                self.bytes(b"t");
                self.bytes(&(text.len() as u64).to_le_bytes());
                self.bytes(text.as_bytes());
            }
        }
    }

    fn end(self) -> Link {
        let digest = self.0.finish();
        let mut link = Link::FIRST;
        link.0.copy_from_slice(digest.as_ref());
        link
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Place;
    use super::*;

    fn record() -> Stored {
        Stored {
            seq: 3,
            watched_ms: 10,
            wall_ms: -20,
            kind: "outcome".to_owned(),
            intent: Some(2),
            place: Place {
                target: "t".to_owned(),
                attempt: Some("a".to_owned()),
                repo: "r".to_owned(),
                pull: Some(7),
            },
            body: "b".to_owned(),
            chain: Link::FIRST,
        }
    }

    #[test]
    fn every_column_and_the_link_before_it_make_a_record_s_link() {
        let usual = Link::FIRST.to(&record());
        assert_eq!(Link::FIRST.to(&record()), usual);
        assert_ne!(usual.to(&record()), usual, "the link before it");
        let changes: [fn(&mut Stored); 12] = [
            |record| record.seq += 1,
            |record| record.watched_ms += 1,
            |record| record.wall_ms += 1,
            |record| record.kind.push('s'),
            |record| record.intent = None,
            |record| record.intent = Some(1),
            |record| record.place.target.push('x'),
            |record| record.place.attempt = None,
            |record| record.place.attempt = Some(String::new()),
            |record| record.place.repo.push('\0'),
            |record| record.place.pull = None,
            |record| record.body.push(' '),
        ];
        let mut seen = vec![usual];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = record();
            change(&mut changed);
            let link = Link::FIRST.to(&changed);
            assert!(!seen.contains(&link), "change {number}");
            seen.push(link);
        }
    }

    #[test]
    fn texts_do_not_flow_into_each_other() {
        let mut moved = record();
        moved.place.target = "ta".to_owned();
        moved.place.attempt = Some(String::new());
        assert_ne!(Link::FIRST.to(&moved), Link::FIRST.to(&record()));
    }
}
