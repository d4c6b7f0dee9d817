//! What a disk may do to a journal that lies still: flipped bytes, cut files, lost and older files.

use super::*;

/// Makes the tests here try every byte and every length; without it they try a sample.
const EVERY: &str = "CI_WATCHDOG_EVERY_BYTE";

/// A journal with some of everything: acts, open intents, sightings, pruned records in between.
fn example() -> (TempDir, PathBuf) {
    let (folder, path) = place();
    let (mut journal, _) = open(&path);
    for pull in 1..=35 {
        let now = wall(pull);
        journal.sight(&sighting(pull, 1, pull), now).unwrap();
        let id = journal.intend(retry(pull, 1), at(pull), now).unwrap().id();
        journal.outcome(id, at(pull), now, &outcomes()[1]).unwrap();
        if pull % 7 != 0 {
            journal.close(id, at(pull), now, Closing::Effect).unwrap();
        }
    }
    let later = at(1_000) + WATCHED_KEPT;
    assert_eq!(journal.prune(wall(5), later).unwrap(), 12);
    journal.save_clock(at(5_000), wall(1)).unwrap();
    (folder, path)
}

/// Runs `check` on a part of the numbers up to `end`, on every processor, each in a folder of its own
/// with a copy of the example's files. Says how many it was told `true` of.
fn on_copies(
    end: usize,
    step: usize,
    path: &Path,
    check: impl Fn(&Path, usize) -> bool + Sync,
) -> (usize, usize) {
    let step = if std::env::var_os(EVERY).is_some() {
        1
    } else {
        step
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let told = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for first in 0..processors {
            let (told, check) = (&told, &check);
            scope.spawn(move || {
                let (_folder, copy) = place();
                for number in (first * step..end).step_by(step * processors) {
                    fs::copy(head_of(path), head_of(&copy)).unwrap();
                    let yes = check(&copy, number);
                    told.fetch_add(usize::from(yes), std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    (end.div_ceil(step), told.into_inner())
}

/// Opens a journal whose file was changed to `bytes`. Says whether that was refused; where it was
/// taken, it must say what it said, and lose nothing that is written after.
fn refused_or_harmless(path: &Path, bytes: &[u8], expected: &Memory, case: &str) -> bool {
    fs::write(path, bytes).unwrap();
    let (mut journal, memory) = match Journal::open(path) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(fs::read(path).unwrap() == bytes, "{case}: {error}");
            return true;
        }
    };
    assert!(memory == *expected, "{case}: it says something else");
    let written = journal.sight(&sighting(99, 1, 1), wall(1));
    drop(journal);
    if written.is_ok() {
        let (_, again) = open(path);
        let count = expected.records.len();
        assert!(again.records[..count] == expected.records, "{case}");
        assert_eq!(again.records.len(), count + 1, "{case}");
    }
    false
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    let (_folder, path) = example();
    let good = fs::read(&path).unwrap();
    let (journal, expected) = open(&path);
    drop(journal);
    let (tried, refusals) = on_copies(good.len(), 251, &path, |copy, offset| {
        let mut bad = good.clone();
        bad[offset] ^= 1 << (offset * 5 % 8);
        refused_or_harmless(copy, &bad, &expected, &format!("a bit of byte {offset}"))
    });
    println!(
        "{} records, {} bytes: a bit flipped in {tried}, {refusals} refused, the others harmless",
        expected.records.len(),
        good.len()
    );
    assert!(refusals * 3 > tried, "much of the file is records");
}

#[test]
fn a_cut_file_is_refused() {
    let (_folder, path) = example();
    let good = fs::read(&path).unwrap();
    let (journal, expected) = open(&path);
    drop(journal);
    let page = usize::from(u16::from_be_bytes([good[16], good[17]]));
    let cut = |copy: &Path, length: usize| {
        let case = format!("cut to {length}");
        assert!(
            refused_or_harmless(copy, &good[..length], &expected, &case),
            "{case}"
        );
        true
    };
    let (tried, _) = on_copies(good.len(), 509, &path, cut);
    let (pages, _) = on_copies(good.len() / page, 1, &path, |copy, number| {
        cut(copy, number * page)
    });
    println!("{tried} lengths and {pages} whole pages, all refused");
}

#[test]
fn a_flipped_bit_or_a_cut_in_the_head_file_is_refused() {
    let (_folder, path) = example();
    let good = fs::read(head_of(&path)).unwrap();
    for place in 0..good.len() {
        let mut flipped = good.clone();
        flipped[place] ^= 1 << (place % 8);
        for bad in [&flipped, &good[..place]] {
            fs::write(head_of(&path), bad).unwrap();
            let error = refused(&path);
            assert_eq!(error.failure(), JournalFailure::Head, "{place}: {error}");
            assert!(fs::read(head_of(&path)).unwrap() == bad);
        }
    }
    fs::write(head_of(&path), good).unwrap();
    open(&path);
}

/// A journal and its head file at one time.
struct Copy {
    journal: Vec<u8>,
    head: Vec<u8>,
}

impl Copy {
    fn of(path: &Path) -> Self {
        Self {
            journal: fs::read(path).unwrap(),
            head: fs::read(head_of(path)).unwrap(),
        }
    }
}

/// A journal's copies after each of a few records.
fn times() -> (TempDir, PathBuf, Vec<Copy>) {
    let (folder, path) = place();
    let (mut journal, _) = open(&path);
    let mut copies = vec![Copy::of(&path)];
    for record in act(1, 7).into_iter().chain(act(4, 8)) {
        write(&mut journal, &record, wall(1)).unwrap();
        copies.push(Copy::of(&path));
    }
    (folder, path, copies)
}

#[test]
fn an_older_copy_beside_a_newer_head_is_a_lost_tail() {
    let (_folder, path, copies) = times();
    for (older, copy) in copies[..6].iter().enumerate() {
        fs::write(&path, &copy.journal).unwrap();
        let error = refused(&path);
        assert_eq!(error.failure(), JournalFailure::Head);
        let text = error.to_string();
        let what = format!("has record 6 as the newest, and the journal ends at record {older}");
        assert!(text.contains(&what), "{text}");
        assert!(text.contains("journal.db.head"), "{text}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(
        refused(&path).failure(),
        JournalFailure::Head,
        "no file at all"
    );
}

#[test]
fn a_head_that_is_behind_is_brought_up() {
    let (_folder, path, copies) = times();
    let newest = &copies[6];
    for copy in &copies[..6] {
        fs::write(head_of(&path), &copy.head).unwrap();
        assert_eq!(open(&path).1.records.len(), 6);
        assert!(fs::read(head_of(&path)).unwrap() == newest.head);
    }
}

#[test]
fn the_head_of_another_journal_is_refused() {
    let (_folder, path, copies) = times();
    let (_other_folder, other) = place();
    let (mut journal, _) = open(&other);
    for pull in 1..=3 {
        journal.sight(&sighting(pull, 1, 1), wall(1)).unwrap();
    }
    drop(journal);
    fs::copy(head_of(&other), head_of(&path)).unwrap();
    let error = refused(&path);
    assert_eq!(error.failure(), JournalFailure::Head);
    assert!(
        error.to_string().contains("record 3 is another one"),
        "{error}"
    );
    assert!(fs::read(&path).unwrap() == copies[6].journal);
}

#[test]
fn without_a_head_file_only_a_person_lets_it_go_on() {
    let (_folder, path, copies) = times();
    for older in [6, 4] {
        fs::write(&path, &copies[older].journal).unwrap();
        fs::remove_file(head_of(&path)).unwrap();
        let error = refused(&path);
        assert_eq!(error.failure(), JournalFailure::Head);
        let text = error.to_string();
        let order = format!("`echo accept > {}`", head_of(&path).display());
        assert!(
            text.contains("is missing") && text.contains(&order),
            "{text}"
        );
        assert!(!head_of(&path).exists());

        fs::write(head_of(&path), "accept\n").unwrap();
        assert_eq!(open(&path).1.records.len(), older);
        assert!(fs::read(head_of(&path)).unwrap() == copies[older].head);
    }
    fs::write(&path, &copies[0].journal).unwrap();
    fs::remove_file(head_of(&path)).unwrap();
    open(&path);
    assert!(
        head_of(&path).exists(),
        "without records nothing can be missing"
    );
}

#[test]
fn nobody_can_accept_a_broken_chain() {
    let (_folder, path, _) = times();
    opening::change_past_the_rules(&path, "UPDATE record SET wall_ms = 1 WHERE seq = 2");
    fs::write(head_of(&path), "accept\n").unwrap();
    assert_eq!(refused(&path).failure(), JournalFailure::Damaged);
}

#[test]
fn a_watchdog_stands_by_a_damaged_journal_and_no_other_failure() {
    let (_folder, path, copies) = times();
    fs::write(&path, &copies[2].journal).unwrap();
    let (mut journal, memory) = Journal::open_or_stand_by(&path).unwrap();
    assert_eq!(memory.records, []);
    assert_eq!(journal.damage().unwrap().failure(), JournalFailure::Head);
    let write = journal.intend(retry(7, 1), at(1), wall(1));
    assert_eq!(failure(write), JournalFailure::Head);
    assert_eq!(
        failure(journal.save_clock(at(1), wall(1))),
        JournalFailure::Head
    );
    assert!(fs::read(&path).unwrap() == copies[2].journal);
    assert_eq!(
        failure(Journal::open_or_stand_by(&path)),
        JournalFailure::Locked
    );
    drop(journal);
    fs::write(&path, &copies[6].journal).unwrap();
    assert!(
        Journal::open_or_stand_by(&path)
            .unwrap()
            .0
            .damage()
            .is_none()
    );
    raw(&path)
        .execute("UPDATE meta SET value = 9 WHERE key = 'schema_version'", [])
        .unwrap();
    assert_eq!(
        failure(Journal::open_or_stand_by(&path)),
        JournalFailure::Newer
    );
}

#[test]
fn a_journal_of_version_1_is_linked_and_gets_its_head() {
    let (_folder, path) = place();
    let dump = include_str!("version-1.sql");
    raw(&path).execute_batch(dump).unwrap();
    // A head file that a crash left on the way to this version, and then one of a longer journal.
    let (journal, memory) = open(&path);
    assert_eq!(memory.records.len(), 5);
    assert_eq!(memory.watched, at(500));
    drop(journal);
    let head = fs::read(head_of(&path)).unwrap();
    assert_eq!(open(&path).1, memory);

    fs::remove_file(&path).unwrap();
    raw(&path).execute_batch(dump).unwrap();
    assert_eq!(open(&path).1, memory, "the crash came before the commit");
    assert!(fs::read(head_of(&path)).unwrap() == head);

    let (mut journal, _) = open(&path);
    journal.sight(&sighting(50, 1, 1), wall(1)).unwrap();
    drop(journal);
    fs::remove_file(&path).unwrap();
    raw(&path).execute_batch(dump).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(
        refused(&path).failure(),
        JournalFailure::Head,
        "an older copy"
    );
    assert!(fs::read(&path).unwrap() == before, "not brought up to date");
}
