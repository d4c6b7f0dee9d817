//! The journal's tables and the rules that they enforce by themselves, version by version.

use rusqlite::{OptionalExtension, Transaction};

use super::chain::Link;
use super::{clock, row};

/// The first version that keeps a head file.
pub(super) const HEAD_SINCE: i64 = 2;

/// The steps from an empty file to [`VERSION`](super::schema::VERSION); the n-th (from 1) makes version n out of n - 1.
/// A step that was released is never changed.
pub(super) const MIGRATIONS: &[Migration] = &[to_version_1, to_version_2];

/// One step, inside the transaction of all.
pub(super) type Migration = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// Records are only ever added. Two guarded ways out lead through `meta`'s row `deleting`: pruning,
/// and undoing a write that failed; both set and remove it in their own transaction.
///
/// Every refusal is a `BEFORE` trigger with `RAISE`, beside the keys: `INSERT OR REPLACE` overrides
/// a key, and the conflict clauses inside triggers, but never a `RAISE`.
const VERSION_1: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE clock (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    watched_ms INTEGER NOT NULL,
    wall_ms    INTEGER NOT NULL
) STRICT;

CREATE TABLE record (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    watched_ms INTEGER NOT NULL,
    wall_ms    INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('sighting', 'intent', 'outcome', 'closed')),
    intent     INTEGER,
    target     TEXT NOT NULL,
    attempt    TEXT,
    repo       TEXT NOT NULL,
    pull       INTEGER,
    body       TEXT NOT NULL,
    CHECK (CASE kind
        WHEN 'sighting' THEN intent IS NULL
        WHEN 'intent' THEN intent IS seq
        ELSE intent IS NOT NULL AND intent < seq
    END)
) STRICT;
CREATE INDEX record_place ON record (repo, pull);
CREATE INDEX record_intent ON record (intent) WHERE intent IS NOT NULL;
CREATE INDEX record_sighting ON record (target, seq) WHERE kind = 'sighting';

CREATE TABLE open_intent (
    target TEXT PRIMARY KEY,
    seq    INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

CREATE TRIGGER record_is_never_changed BEFORE UPDATE ON record BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER record_is_never_deleted BEFORE DELETE ON record
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER record_is_never_replaced BEFORE INSERT ON record
WHEN EXISTS (SELECT 1 FROM record WHERE seq = NEW.seq) BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;

CREATE TRIGGER intent_needs_a_free_target BEFORE INSERT ON record
WHEN NEW.kind = 'intent' AND EXISTS (SELECT 1 FROM open_intent WHERE target = NEW.target) BEGIN
    SELECT RAISE(ABORT, 'an intent is open on this target');
END;
CREATE TRIGGER intent_opens AFTER INSERT ON record WHEN NEW.kind = 'intent' BEGIN
    INSERT INTO open_intent (target, seq) VALUES (NEW.target, NEW.seq);
END;
CREATE TRIGGER outcome_needs_an_open_intent BEFORE INSERT ON record
WHEN NEW.kind IN ('outcome', 'closed')
    AND NOT EXISTS (SELECT 1 FROM open_intent WHERE seq = NEW.intent) BEGIN
    SELECT RAISE(ABORT, 'the intent is not open');
END;
CREATE TRIGGER outcome_comes_once BEFORE INSERT ON record
WHEN NEW.kind = 'outcome'
    AND EXISTS (SELECT 1 FROM record WHERE intent = NEW.intent AND kind = 'outcome') BEGIN
    SELECT RAISE(ABORT, 'the intent has its outcome');
END;
CREATE TRIGGER closing_closes AFTER INSERT ON record WHEN NEW.kind = 'closed' BEGIN
    DELETE FROM open_intent WHERE seq = NEW.intent;
END;

CREATE TRIGGER open_intent_is_never_changed BEFORE UPDATE ON open_intent BEGIN
    SELECT RAISE(ABORT, 'an open intent only ends by its closing');
END;
CREATE TRIGGER open_intent_ends_by_its_closing BEFORE DELETE ON open_intent
WHEN NOT EXISTS (SELECT 1 FROM record WHERE intent = OLD.seq AND kind = 'closed')
    AND NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'an open intent only ends by its closing');
END;
CREATE TRIGGER open_intent_needs_its_record BEFORE INSERT ON open_intent
WHEN EXISTS (SELECT 1 FROM open_intent WHERE target = NEW.target OR seq = NEW.seq)
    OR NOT EXISTS (
        SELECT 1 FROM record
        WHERE seq = NEW.seq AND kind = 'intent' AND target = NEW.target
    )
    OR EXISTS (SELECT 1 FROM record WHERE intent = NEW.seq AND kind = 'closed') BEGIN
    SELECT RAISE(ABORT, 'an intent is open on this target, or has no record, or is closed');
END;
";

/// Makes room for the chain: the tables anew, and nothing that looks at them.
const VERSION_2_TABLES: &str = "
DROP TRIGGER record_is_never_changed;
DROP TRIGGER record_is_never_deleted;
DROP TRIGGER record_is_never_replaced;
DROP TRIGGER intent_needs_a_free_target;
DROP TRIGGER intent_opens;
DROP TRIGGER outcome_needs_an_open_intent;
DROP TRIGGER outcome_comes_once;
DROP TRIGGER closing_closes;
DROP TRIGGER open_intent_is_never_changed;
DROP TRIGGER open_intent_ends_by_its_closing;
DROP TRIGGER open_intent_needs_its_record;
DROP INDEX record_place;
DROP INDEX record_intent;
DROP INDEX record_sighting;

ALTER TABLE record RENAME TO record_1;
CREATE TABLE record (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    watched_ms INTEGER NOT NULL,
    wall_ms    INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN
        ('sighting', 'intent', 'outcome', 'closed', 'order', 'finding', 'ending')),
    intent     INTEGER,
    target     TEXT NOT NULL,
    attempt    TEXT,
    repo       TEXT NOT NULL,
    pull       INTEGER,
    body       TEXT NOT NULL,
    chain      BLOB NOT NULL CHECK (length(chain) = 32),
    CHECK (CASE
        WHEN kind = 'intent' THEN intent IS seq
        WHEN kind IN ('outcome', 'closed') THEN intent IS NOT NULL AND intent < seq
        ELSE intent IS NULL
    END)
) STRICT;

CREATE TABLE checkpoint (
    seq    INTEGER PRIMARY KEY,
    before BLOB NOT NULL CHECK (length(before) = 32),
    chain  BLOB NOT NULL CHECK (length(chain) = 32)
) STRICT;

ALTER TABLE clock RENAME TO clock_1;
CREATE TABLE clock (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    watched_ms INTEGER NOT NULL,
    wall_ms    INTEGER NOT NULL,
    sum        BLOB NOT NULL CHECK (length(sum) = 32)
) STRICT;
";

/// The rules of version 1 on the new tables, and those on checkpoints: only pruning touches them.
const VERSION_2_RULES: &str = "
DROP TABLE record_1;
DROP TABLE clock_1;

CREATE INDEX record_place ON record (repo, pull);
CREATE INDEX record_intent ON record (intent) WHERE intent IS NOT NULL;
CREATE INDEX record_build ON record (target, seq) WHERE kind IN ('sighting', 'ending');

CREATE TRIGGER record_is_never_changed BEFORE UPDATE ON record BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER record_is_never_deleted BEFORE DELETE ON record
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER record_is_never_replaced BEFORE INSERT ON record
WHEN EXISTS (SELECT 1 FROM record WHERE seq = NEW.seq) BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;

CREATE TRIGGER intent_needs_a_free_target BEFORE INSERT ON record
WHEN NEW.kind = 'intent' AND EXISTS (SELECT 1 FROM open_intent WHERE target = NEW.target) BEGIN
    SELECT RAISE(ABORT, 'an intent is open on this target');
END;
CREATE TRIGGER intent_opens AFTER INSERT ON record WHEN NEW.kind = 'intent' BEGIN
    INSERT INTO open_intent (target, seq) VALUES (NEW.target, NEW.seq);
END;
CREATE TRIGGER outcome_needs_an_open_intent BEFORE INSERT ON record
WHEN NEW.kind IN ('outcome', 'closed')
    AND NOT EXISTS (SELECT 1 FROM open_intent WHERE seq = NEW.intent) BEGIN
    SELECT RAISE(ABORT, 'the intent is not open');
END;
CREATE TRIGGER outcome_comes_once BEFORE INSERT ON record
WHEN NEW.kind = 'outcome'
    AND EXISTS (SELECT 1 FROM record WHERE intent = NEW.intent AND kind = 'outcome') BEGIN
    SELECT RAISE(ABORT, 'the intent has its outcome');
END;
CREATE TRIGGER closing_closes AFTER INSERT ON record WHEN NEW.kind = 'closed' BEGIN
    DELETE FROM open_intent WHERE seq = NEW.intent;
END;

CREATE TRIGGER open_intent_is_never_changed BEFORE UPDATE ON open_intent BEGIN
    SELECT RAISE(ABORT, 'an open intent only ends by its closing');
END;
CREATE TRIGGER open_intent_ends_by_its_closing BEFORE DELETE ON open_intent
WHEN NOT EXISTS (SELECT 1 FROM record WHERE intent = OLD.seq AND kind = 'closed')
    AND NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'an open intent only ends by its closing');
END;
CREATE TRIGGER open_intent_needs_its_record BEFORE INSERT ON open_intent
WHEN EXISTS (SELECT 1 FROM open_intent WHERE target = NEW.target OR seq = NEW.seq)
    OR NOT EXISTS (
        SELECT 1 FROM record
        WHERE seq = NEW.seq AND kind = 'intent' AND target = NEW.target
    )
    OR EXISTS (SELECT 1 FROM record WHERE intent = NEW.seq AND kind = 'closed') BEGIN
    SELECT RAISE(ABORT, 'an intent is open on this target, or has no record, or is closed');
END;

CREATE TRIGGER checkpoint_is_only_added_by_pruning BEFORE INSERT ON checkpoint
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'only pruning makes a checkpoint');
END;
CREATE TRIGGER checkpoint_is_only_changed_by_pruning BEFORE UPDATE ON checkpoint
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'only pruning changes a checkpoint');
END;
CREATE TRIGGER checkpoint_is_only_removed_by_pruning BEFORE DELETE ON checkpoint
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'only pruning removes a checkpoint');
END;
";

pub(super) fn to_version_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(VERSION_1)
}

/// Links the records that there are into a chain. What an older version pruned has left no trace.
fn to_version_2(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(VERSION_2_TABLES)?;
    let mut link = Link::FIRST;
    let mut records = transaction.prepare(
        "SELECT seq, watched_ms, wall_ms, kind, intent, target, attempt, repo, pull, body
         FROM record_1 ORDER BY seq",
    )?;
    for record in records.query_map([], row::read_unlinked)? {
        let mut record = record?;
        record.chain = link.to(&record);
        link = record.chain;
        record.insert(transaction)?;
    }
    // Numbers that were used once are not used again, also where their records are gone.
    transaction.execute_batch(
        "DELETE FROM sqlite_sequence WHERE name = 'record';
         INSERT INTO sqlite_sequence (name, seq)
         SELECT 'record', seq FROM sqlite_sequence WHERE name = 'record_1'",
    )?;
    let clock = transaction
        .query_row("SELECT watched_ms, wall_ms FROM clock_1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((watched_ms, wall_ms)) = clock {
        clock::insert(transaction, watched_ms, wall_ms)?;
    }
    drop(records);
    transaction.execute_batch(VERSION_2_RULES)
}
