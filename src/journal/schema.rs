//! What a file is, whether its tables and their rules are ours, and bringing it up to date.

use std::collections::BTreeSet;
use std::time::SystemTime;

use rusqlite::{Connection, Transaction};

use super::error::Trouble;
use super::row::wall_column;
use super::versions::{MIGRATIONS, Migration};

/// Marks a file as a journal ("CIwd", in SQLite's `application_id`), so that a wrong path to
/// another program's database is told before anything is written to it.
pub(super) const APPLICATION_ID: i64 = 0x4349_7764;

/// The newest version that is known.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

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

/// Brings a journal of version `from` (0: an empty file) to the end of `migrations`.
pub(super) fn migrate(
    transaction: &Transaction<'_>,
    migrations: &[Migration],
    from: i64,
    wall: SystemTime,
) -> rusqlite::Result<()> {
    let missing = usize::try_from(from)
        .ok()
        .and_then(|from| migrations.get(from..));
    let Some(missing @ [_, ..]) = missing else {
        return Ok(());
    };
    for migration in missing {
        migration(transaction)?;
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
    Ok(())
}

/// Checks that the tables and their rules are those of this version, to the letter: a rule with a
/// flipped byte would let through what it is there to refuse.
pub(super) fn check(connection: &Connection) -> Result<(), Trouble> {
    let mut expected = Connection::open_in_memory()?;
    let transaction = expected.transaction()?;
    migrate(&transaction, MIGRATIONS, 0, SystemTime::UNIX_EPOCH)?;
    let (expected, found) = (rules(&transaction)?, rules(connection)?);
    let odd = expected.symmetric_difference(&found).next();
    match odd {
        None => Ok(()),
        Some((kind, name, _)) => Err(Trouble::Damaged(format!(
            "its {kind} {name} is not what this version makes"
        ))),
    }
}

/// Every table, index and trigger: kind, name, and text.
fn rules(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String, String)>> {
    let mut statement =
        connection.prepare("SELECT type, name, coalesce(sql, tbl_name) FROM sqlite_schema")?;
    statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
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

    use super::super::versions::to_version_1;
    use super::*;

    /// A whole journal of each older version, by version.
    const EXAMPLES: &[&str] = &["", VERSION_1_EXAMPLE];

    /// The rows of a journal that version 1 wrote.
    const VERSION_1_EXAMPLE: &str = include_str!("../../tests/journal/version-1.sql");

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

    fn migrated(connection: &mut Connection, migrations: &[Migration], from: i64) {
        let transaction = connection.transaction().unwrap();
        migrate(&transaction, migrations, from, UNIX_EPOCH).unwrap();
        transaction.commit().unwrap();
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
            connection.execute_batch(example).unwrap();
            migrated(&mut connection, MIGRATIONS, i64::try_from(from).unwrap());
            assert_eq!(version(&connection), Found::Version(VERSION));
            check(&connection).unwrap_or_else(|trouble| panic!("from {from}: {trouble:?}"));
            super::super::load::load(&connection)
                .unwrap_or_else(|trouble| panic!("from {from}: {trouble:?}"));
        }
    }

    #[test]
    fn version_2_links_every_record_and_keeps_the_rest() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(VERSION_1_EXAMPLE).unwrap();
        let columns = "seq, watched_ms, wall_ms, kind, intent, target, attempt, repo, pull, body";
        let rows = |connection: &Connection| {
            let mut statement = connection
                .prepare(&format!(
                    "SELECT quote(concat_ws(char(10), {columns})) FROM record"
                ))
                .unwrap();
            let rows = statement
                .query_map([], |row| row.get::<_, String>(0))
                .unwrap();
            rows.collect::<rusqlite::Result<Vec<_>>>().unwrap()
        };
        let before = rows(&connection);
        migrated(&mut connection, MIGRATIONS, 1);
        assert_eq!(rows(&connection), before);
        let loaded = super::super::load::load(&connection).unwrap();
        assert_eq!(loaded.tally.head.seq, 7);
        assert_eq!(
            loaded.memory.watched,
            crate::model::Moment::from_millis(500)
        );
        assert_eq!(
            super::super::load::newest(&connection).unwrap(),
            9,
            "no number is used twice"
        );
    }

    #[test]
    fn kinds_that_no_intent_belongs_to_may_be_written_and_have_none() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrated(&mut connection, MIGRATIONS, 0);
        for kind in ["sighting", "order", "finding", "ending", "other"] {
            for (intent, right) in [("NULL", kind != "other"), ("0", false)] {
                let written = connection.execute_batch(&format!(
                    "INSERT INTO record
                        (watched_ms, wall_ms, kind, intent, target, repo, body, chain)
                     VALUES (0, 0, '{kind}', {intent}, '', '', '', zeroblob(32))"
                ));
                assert_eq!(written.is_ok(), right, "{kind} {intent}: {written:?}");
            }
        }
    }

    #[test]
    fn a_rule_that_is_not_what_it_was_is_damage() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrated(&mut connection, MIGRATIONS, 0);
        check(&connection).unwrap();
        connection
            .execute_batch("DROP TRIGGER intent_needs_a_free_target")
            .unwrap();
        let trouble = format!("{:?}", check(&connection).unwrap_err());
        assert!(
            trouble.contains("trigger intent_needs_a_free_target"),
            "{trouble}"
        );
    }

    #[test]
    fn only_the_missing_steps_are_taken_and_records_are_kept() {
        let two: &[Migration] = &[to_version_1, |transaction| {
            transaction.execute_batch("ALTER TABLE clock ADD COLUMN boot TEXT;")
        }];
        let mut connection = Connection::open_in_memory().unwrap();
        migrated(&mut connection, &two[..1], 0);
        connection
            .execute_batch(
                "INSERT INTO record (watched_ms, wall_ms, kind, target, repo, body)
                 VALUES (0, 0, 'sighting', '', '', '{}')",
            )
            .unwrap();
        migrated(&mut connection, two, 1);
        assert_eq!(version(&connection), Found::Version(2));
        let kept: i64 = connection
            .query_row("SELECT count(*) FROM record", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 1);
        migrated(&mut connection, two, 2);
        assert_eq!(version(&connection), Found::Version(2));
    }

    #[test]
    fn a_step_that_fails_leaves_the_older_version() {
        let broken: &[Migration] = &[
            to_version_1,
            |transaction| transaction.execute_batch("CREATE TABLE extra (x);"),
            |transaction| transaction.execute_batch("CREATE TABLE record (x);"),
        ];
        let mut connection = Connection::open_in_memory().unwrap();
        migrated(&mut connection, &broken[..1], 0);
        let before = dump(&connection);
        let transaction = connection.transaction().unwrap();
        migrate(&transaction, broken, 1, UNIX_EPOCH).unwrap_err();
        drop(transaction);
        assert_eq!(version(&connection), Found::Version(1));
        assert_eq!(dump(&connection), before);
    }
}
