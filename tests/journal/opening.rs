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
        BTreeSet::from(["journal.db".to_owned(), "journal.db.lock".to_owned()])
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
            2,
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

#[test]
fn no_flipped_byte_makes_it_panic_or_write_before_it_refuses() {
    let (_folder, path, good) = example();
    let (mut refusals, mut taken) = (0, 0);
    for offset in (0..good.len()).step_by(101) {
        let mut bad = good.clone();
        bad[offset] ^= 0x55;
        fs::write(&path, &bad).unwrap();
        match Journal::open(&path) {
            Ok(_) => taken += 1,
            Err(error) => {
                refusals += 1;
                assert!(fs::read(&path).unwrap() == bad, "{offset}: {error}");
            }
        }
    }
    println!("{refusals} refused, {taken} taken (most bytes of a small file are free space)");
    assert!(refusals > 0);
}

#[test]
fn contradictions_between_rows_are_damage() {
    for change in [
        "DELETE FROM open_intent",
        "DELETE FROM record WHERE seq = 2",
        "DELETE FROM record WHERE seq = 4",
        "DELETE FROM record WHERE seq = 5",
        "UPDATE record SET watched_ms = 77 WHERE seq = 1",
        "UPDATE record SET intent = 1 WHERE seq = 3",
        "UPDATE record SET body = replace(body, '\"id\":5', '\"id\":6') WHERE seq = 5",
        "DELETE FROM meta",
    ] {
        let (_folder, path, _) = example();
        let raw = raw(&path);
        let names: Vec<String> = {
            let mut statement = raw
                .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
                .unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        for name in names {
            raw.execute(&format!("DROP TRIGGER {name}"), []).unwrap();
        }
        raw.execute(change, []).unwrap();
        drop(raw);
        let error = refused(&path);
        assert_eq!(
            error.failure(),
            JournalFailure::Damaged,
            "{change}: {error}"
        );
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
        text.contains("schema 5, this version knows up to 1"),
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
             INSERT INTO record (watched_ms, wall_ms, kind, target, repo, body)
             SELECT 0, 0, 'sighting', x, '', hex(zeroblob(2000)) FROM n;",
        )
        .unwrap();
        fs::copy(&path, &crashed).unwrap();
        fs::copy(
            folder.path().join("journal.db-journal"),
            folder.path().join("crashed.db-journal"),
        )
        .unwrap();
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
