//! What opening a journal refuses, rolls back, and leaves alone.

use super::*;

/// A journal with a few records, as bytes.
fn example() -> (TempDir, PathBuf, Vec<u8>) {
    let (folder, path) = place();
    let (mut journal, _) = open(&path);
    journal.sight(&sighting(7, 1, 1), wall(1)).unwrap();
    for record in act(2, 7) {
        write(&mut journal, &record, wall(1)).unwrap();
    }
    journal.intend(retry(8, 1), at(1), wall(1)).unwrap();
    journal.save_clock(at(5), wall(1)).unwrap();
    drop(journal);
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

fn files(folder: &TempDir) -> BTreeSet<String> {
    fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn its_files_are_for_their_owner_alone() {
    let (folder, path) = place();
    let (mut journal, _) = open(&path);
    journal.sight(&sighting(7, 1, 1), wall(1)).unwrap();
    assert_eq!(
        files(&folder),
        BTreeSet::from(["journal.db", "journal.db.head", "journal.db.lock"].map(str::to_owned))
    );
    for name in files(&folder) {
        let mode = fs::metadata(folder.path().join(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn writes_are_synced_past_the_rollback_journal_s_removal() {
    let (_folder, path) = place();
    drop(open(&path));
    // A tool may leave the file in another mode; the watchdog does not write in it.
    raw(&path)
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    let (mut journal, _) = open(&path);
    journal.sight(&sighting(7, 1, 1), wall(1)).unwrap();
    let mode: String = raw(&path)
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "delete");
}

#[test]
fn a_second_watchdog_is_turned_away_by_name() {
    let (folder, path) = place();
    let (first, _) = open(&path);
    let error = refused(&path);
    assert_eq!(error.failure(), JournalFailure::Locked);
    let text = error.to_string();
    let pid = format!("pid {}", std::process::id());
    assert!(
        text.contains(&pid) && text.contains("journal.db.lock"),
        "{text}"
    );

    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(
        refused(&link).failure(),
        JournalFailure::Locked,
        "by another way"
    );
    drop(first);
    open(&link);
}

#[test]
fn damage_is_told_and_the_file_left_alone() {
    let (folder, path, good) = example();
    let page = usize::from(u16::from_be_bytes([good[16], good[17]]));
    let text = br#""record":"sighting""#;
    let found = good
        .windows(text.len())
        .position(|window| window == text)
        .unwrap();
    let mut cases = vec![
        ("magic", 0),
        ("page size", 16),
        ("first page's kind", 100),
        ("a record's text", found + 1),
        ("a record's text", found + text.len() - 2),
    ];
    for number in 1..good.len() / page {
        cases.push(("a page's kind", number * page));
    }
    for (what, offset) in cases {
        let mut bad = good.clone();
        bad[offset] ^= 0xff;
        fs::write(&path, &bad).unwrap();
        let error = refused(&path);
        assert_eq!(
            error.failure(),
            JournalFailure::Damaged,
            "{what} at {offset}: {error}"
        );
        let words = error.to_string();
        assert!(
            words.contains("left as it is") || words.contains("left as it was"),
            "{words}"
        );
        assert!(words.contains(path.to_str().unwrap()), "{words}");
        assert!(
            fs::read(&path).unwrap() == bad,
            "{what} at {offset}: the file was changed"
        );
        assert_eq!(
            files(&folder).len(),
            3,
            "{what} at {offset}: {:?}",
            files(&folder)
        );
    }
    for length in [1, 99, page, good.len() - page, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let error = refused(&path);
        assert_eq!(
            error.failure(),
            JournalFailure::Damaged,
            "cut to {length}: {error}"
        );
        assert!(
            fs::read(&path).unwrap() == good[..length],
            "cut to {length}"
        );
    }
    fs::write(&path, &good).unwrap();
    open(&path);
}

/// Changes a journal past every rule of its schema, and puts the rules back.
pub(crate) fn change_past_the_rules(path: &Path, change: &str) {
    let raw = raw(path);
    let rules: Vec<(String, String)> = {
        let mut statement = raw
            .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    };
    for (name, _) in &rules {
        raw.execute(&format!("DROP TRIGGER {name}"), []).unwrap();
    }
    raw.execute_batch(change).unwrap();
    for (_, rule) in &rules {
        raw.execute(rule, []).unwrap();
    }
}

#[test]
fn whatever_is_changed_past_the_rules_is_damage() {
    for (change, found) in [
        ("DELETE FROM open_intent", "open intents contradicts"),
        (
            "DELETE FROM record WHERE seq = 1",
            "record 2 does not follow",
        ),
        (
            "DELETE FROM record WHERE seq = 4",
            "record 5 does not follow",
        ),
        (
            "DELETE FROM record WHERE seq = 5; DELETE FROM open_intent",
            "ends at record 4",
        ),
        (
            "DELETE FROM record; DELETE FROM open_intent",
            "ends at record 0",
        ),
        (
            "UPDATE record SET watched_ms = 77 WHERE seq = 1",
            "record 1",
        ),
        ("UPDATE record SET wall_ms = 0 WHERE seq = 5", "record 5"),
        ("UPDATE record SET intent = 1 WHERE seq = 3", "record 3"),
        ("UPDATE record SET attempt = NULL WHERE seq = 2", "record 2"),
        ("UPDATE record SET pull = 8 WHERE seq = 2", "record 2"),
        ("UPDATE record SET repo = 'gears' WHERE seq = 2", "record 2"),
        (
            "UPDATE record SET body = body || ' ' WHERE seq = 4",
            "record 4",
        ),
        (
            "UPDATE record SET chain = zeroblob(32) WHERE seq = 4",
            "record 4",
        ),
        (
            "UPDATE record SET seq = 6, intent = 6 WHERE seq = 5; UPDATE open_intent SET seq = 6",
            "record 6",
        ),
        (
            "INSERT INTO record SELECT 6, watched_ms, wall_ms, 'sighting', NULL, target, attempt,
                repo, pull, body, chain FROM record WHERE seq = 1",
            "record 6",
        ),
        ("UPDATE clock SET watched_ms = 999999999", "the saved clock"),
        ("UPDATE sqlite_sequence SET seq = 3", "ends before record 5"),
        ("DELETE FROM meta", "Query returned no rows"),
        (
            "INSERT INTO checkpoint VALUES (3, zeroblob(32), zeroblob(32))",
            "the checkpoint",
        ),
        ("CREATE INDEX more ON record (attempt)", "index more"),
    ] {
        let (_folder, path, _) = example();
        change_past_the_rules(&path, change);
        let error = refused(&path);
        assert!(error.is_damage(), "{change}: {error}");
        assert!(error.to_string().contains(found), "{change}: {error}");
    }
}

#[test]
fn another_program_s_database_is_not_touched() {
    let (folder, path) = place();
    raw(&path)
        .execute_batch("CREATE TABLE pull (repo TEXT, num INTEGER)")
        .unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(refused(&path).failure(), JournalFailure::Foreign);
    assert_eq!(failure(Reader::open(&path)), JournalFailure::Foreign);
    assert!(fs::read(&path).unwrap() == before);

    fs::write(&path, "this is no database, but a note that somebody keeps").unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(refused(&path).failure(), JournalFailure::Damaged);
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(
        refused(folder.path()).failure(),
        JournalFailure::Foreign,
        "a folder"
    );
}

#[test]
fn a_newer_version_s_journal_is_refused_by_number() {
    let (_folder, path, _) = example();
    raw(&path)
        .execute("UPDATE meta SET value = 5 WHERE key = 'schema_version'", [])
        .unwrap();
    let before = fs::read(&path).unwrap();
    let text = refused(&path).to_string();
    assert!(
        text.contains("schema 5, this version knows up to 2"),
        "{text}"
    );
    assert_eq!(failure(Reader::open(&path)), JournalFailure::Newer);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn a_folder_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&folder.path().join("no/journal.db"));
    assert_eq!(error.failure(), JournalFailure::Missing);
    assert!(error.to_string().contains("no/journal.db"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(
        refused(&file.join("journal.db")).failure(),
        JournalFailure::Missing
    );
}

#[test]
fn an_empty_file_is_what_a_crash_at_the_first_start_leaves() {
    let (_folder, path) = place();
    fs::write(&path, "").unwrap();
    assert_eq!(failure(Reader::open(&path)), JournalFailure::Older);
    open(&path);
    Reader::open(&path).unwrap();
}

#[test]
fn a_write_that_a_crash_cut_short_is_rolled_back() {
    for by_reader in [false, true] {
        let (folder, path, good) = example();
        // A copy of the file and its rollback journal in the middle of a large write.
        let crashed = folder.path().join("crashed.db");
        let raw = raw(&path);
        raw.execute_batch(
            "PRAGMA synchronous = OFF; PRAGMA cache_size = 1; BEGIN IMMEDIATE;
             DROP TRIGGER record_is_never_deleted; DELETE FROM record;
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 200)
             INSERT INTO record (watched_ms, wall_ms, kind, target, repo, body, chain)
             SELECT 0, 0, 'sighting', x, '', hex(zeroblob(2000)), zeroblob(32) FROM n;",
        )
        .unwrap();
        for suffix in ["", "-journal", ".head"] {
            let from = folder.path().join(format!("journal.db{suffix}"));
            fs::copy(from, folder.path().join(format!("crashed.db{suffix}"))).unwrap();
        }
        assert!(
            fs::read(&crashed).unwrap() != good,
            "the file is half written"
        );
        if by_reader {
            let read = Reader::open(&crashed)
                .unwrap()
                .history(&HistoryFilter::default());
            assert_eq!(read.unwrap().len(), 5);
        } else {
            assert_eq!(open(&crashed).1.records.len(), 5);
        }
        assert!(
            fs::read(&crashed).unwrap() == good,
            "by the reader: {by_reader}"
        );
    }
}
