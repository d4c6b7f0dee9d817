//! The journal's tables, the rules that they enforce by themselves, and the way from each older version.

use std::time::SystemTime;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::Trouble;
use super::row::wall_column;

/// Marks a file as a journal ("CIwd", in SQLite's `application_id`), so that a wrong path to
/// another program's database is told before anything is written to it.
pub(super) const APPLICATION_ID: i64 = 0x4349_7764;

/// The newest version that is known.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The steps from an empty file to [`VERSION`]; the n-th (from 1) makes version n out of n - 1.
/// A step that was released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[VERSION_1];

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

/// What a file is, by its mark and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An empty database.
    Empty,
    /// A journal of this version.
    Version(i64),
    /// Another program's database.
    Foreign,
}

/// Looks at what a file is; writes nothing.
pub(super) fn find(connection: &Connection) -> rusqlite::Result<Found> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let mark: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    match (mark, tables) {
        (0, 0) => Ok(Found::Empty),
        (APPLICATION_ID, _) => connection
            .query_row(
                "SELECT value FROM meta WHERE key = 'schema_version'",
                [],
                |row| row.get(0),
            )
            .map(Found::Version),
        (_, _) => Ok(Found::Foreign),
    }
}

/// Brings a journal of version `from` (0: an empty file) to the end of `migrations`, in one
/// transaction: after any failure it is what it was.
pub(super) fn migrate(
    connection: &mut Connection,
    migrations: &[&str],
    from: i64,
    wall: SystemTime,
) -> rusqlite::Result<()> {
    let missing = usize::try_from(from)
        .ok()
        .and_then(|from| migrations.get(from..));
    let Some(missing @ [_, ..]) = missing else {
        return Ok(());
    };
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    if from == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute(
            "INSERT INTO meta (key, value) VALUES ('created_ms', ?1)",
            [wall_column(wall)],
        )?;
    }
    transaction.execute(
        "INSERT INTO meta (key, value) VALUES ('schema_version', ?1)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [migrations.len() as i64],
    )?;
    transaction.commit()
}

/// Runs a change that the schema allows only to pruning and undoing.
pub(super) fn deleting<T>(
    transaction: &Transaction<'_>,
    change: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    transaction.execute("INSERT INTO meta (key, value) VALUES ('deleting', 1)", [])?;
    let changed = change(transaction)?;
    transaction.execute("DELETE FROM meta WHERE key = 'deleting'", [])?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// What each older version's journal holds before it is brought up to date, by version.
    const EXAMPLES: &[&str] = &[""];

    fn version(connection: &Connection) -> Found {
        find(connection).unwrap()
    }

    fn dump(connection: &Connection) -> Vec<String> {
        let mut statement = connection
            .prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name")
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn every_older_version_is_brought_up_to_date() {
        assert_eq!(
            EXAMPLES.len(),
            MIGRATIONS.len(),
            "each version but the newest has an example"
        );
        for (from, example) in EXAMPLES.iter().enumerate() {
            let mut connection = Connection::open_in_memory().unwrap();
            if from > 0 {
                migrate(&mut connection, &MIGRATIONS[..from], 0, UNIX_EPOCH).unwrap();
            }
            connection.execute_batch(example).unwrap();
            let from = i64::try_from(from).unwrap();
            migrate(&mut connection, MIGRATIONS, from, UNIX_EPOCH).unwrap();
            assert_eq!(version(&connection), Found::Version(VERSION));
            assert!(
                super::super::load::load(&connection).is_ok(),
                "from version {from}"
            );
        }
    }

    #[test]
    fn only_the_missing_steps_are_taken_and_records_are_kept() {
        let two: &[&str] = &[VERSION_1, "ALTER TABLE clock ADD COLUMN boot TEXT;"];
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &two[..1], 0, UNIX_EPOCH).unwrap();
        connection
            .execute_batch(
                "INSERT INTO record (watched_ms, wall_ms, kind, target, repo, body)
                 VALUES (0, 0, 'sighting', '', '', '{}')",
            )
            .unwrap();
        migrate(&mut connection, two, 1, UNIX_EPOCH).unwrap();
        assert_eq!(version(&connection), Found::Version(2));
        let kept: i64 = connection
            .query_row("SELECT count(*) FROM record", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 1);
        migrate(&mut connection, two, 2, UNIX_EPOCH).unwrap();
        assert_eq!(version(&connection), Found::Version(2));
    }

    #[test]
    fn a_step_that_fails_leaves_the_older_version() {
        let broken: &[&str] = &[
            VERSION_1,
            "CREATE TABLE extra (x);",
            "CREATE TABLE record (x);",
        ];
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &broken[..1], 0, UNIX_EPOCH).unwrap();
        let before = dump(&connection);
        migrate(&mut connection, broken, 1, UNIX_EPOCH).unwrap_err();
        assert_eq!(version(&connection), Found::Version(1));
        assert_eq!(dump(&connection), before);
    }
}
