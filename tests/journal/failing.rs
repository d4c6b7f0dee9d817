//! A disk that fails, fills, moves or goes away with the process loses nothing that was acknowledged.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// One write of each kind on a journal that [`base`] made, with the record that it leaves.
fn writes() -> Vec<Option<Record>> {
    let [_, outcome, closed] = act(2, 7);
    let [intended, ..] = act(6, 20);
    let sighted = Record::Sighting(sighting(20, 1, 5));
    vec![
        Some(intended),
        Some(outcome),
        Some(closed),
        Some(sighted),
        None,
    ]
}

/// An open intent (2), a closed one (3, 4), and sightings of which one may be pruned.
fn base(path: &Path) -> Vec<Record> {
    let (mut journal, _) = open(path);
    let [open_one, ..] = act(2, 7);
    let [closed_one, _, closed] = act(3, 8);
    let records = vec![
        Record::Sighting(sighting(7, 1, 1)),
        open_one,
        closed_one,
        closed,
        Record::Sighting(sighting(7, 2, 3)),
    ];
    for record in &records {
        write(&mut journal, record, wall(0)).unwrap();
    }
    journal.save_clock(at(500), wall(0)).unwrap();
    records
}

/// Copies a journal and its head file.
fn copy_journal(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::copy(head_of(from), head_of(to)).unwrap();
}

fn prune(journal: &mut Journal) -> Result<usize, JournalError> {
    journal.prune(wall(1), at(1_000) + WATCHED_KEPT)
}

/// What is left of `records` by the pruning in [`prune`].
fn pruned(records: &[Record]) -> Vec<Record> {
    let mut left = records.to_vec();
    left.drain(2..4);
    left.remove(0);
    left
}

/// Tries every write under every limit on the length of files, on a journal of its own beside `path`.
/// The kernel refuses what would lie beyond: of the rollback journal, of the file, of the rollback.
pub(crate) fn try_every_limit(path: &Path) {
    let base = base(path);
    let free = getrlimit(Resource::Fsize);
    let limit = |current| {
        let maximum = free.maximum;
        setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    for record in writes() {
        for length in (0..).step_by(512) {
            let copy = path.with_file_name(format!("copy-{length}.db"));
            copy_journal(path, &copy);
            let (mut journal, _) = open(&copy);
            limit(Some(length));
            let result = match &record {
                Some(record) => write(&mut journal, record, wall(2)).map(|_| ()),
                None => prune(&mut journal).map(|_| ()),
            };
            let again = result
                .is_err()
                .then(|| journal.sight(&sighting(30, 1, 1), wall(3)));
            limit(free.current);
            let case = format!("{record:?} under {length} bytes");
            let Err(error) = result else {
                assert!(
                    length > 0,
                    "{case}: a durable write needs a rollback journal"
                );
                break;
            };
            assert!(error.failure().stops_acting(), "{case}: {error}");
            let mut there = base.clone();
            if let Some(Ok(())) = again {
                there.push(Record::Sighting(sighting(30, 1, 1)));
            }
            check_that_it_heals(journal, &copy, there, record.clone(), &case);
            fs::remove_file(&copy).unwrap();
            children::say(&format!("failure {}", error.failure()));
        }
    }
}

/// Checks that a journal whose disk is good again has what was acknowledged, takes what the caller
/// was told had failed, and has that once.
fn check_that_it_heals(
    mut journal: Journal,
    path: &Path,
    mut there: Vec<Record>,
    failed: Option<Record>,
    case: &str,
) {
    if let Some(record) = failed {
        let permit = write(&mut journal, &record, wall(4));
        let permit = permit.unwrap_or_else(|error| panic!("{case}: {error}"));
        there.push(match (record, permit) {
            (Record::Intent { at, intent, .. }, Some(permit)) => {
                let id = permit.id();
                Record::Intent { id, at, intent }
            }
            (record, _) => record,
        });
    }
    let last = sighting(31, 1, 1);
    journal
        .sight(&last, wall(4))
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    there.push(Record::Sighting(last));
    let counted = journal.size().records;
    drop(journal);
    let (_, memory) = open(path);
    assert_eq!(counted, memory.records.len() as u64, "{case}");
    assert_eq!(memory.watched, at(500), "{case}");
    let found = records(memory);
    assert!(
        found == there || found == pruned(&there),
        "{case}: {found:#?}"
    );
}

/// Makes a write fail, and ends the cause.
fn fail_once(journal: &mut Journal, path: &Path) {
    let shell = raw(path);
    shell
        .execute_batch("BEGIN; SELECT count(*) FROM record")
        .unwrap();
    let refused = journal.sight(&sighting(40, 1, 1), wall(1));
    assert_eq!(failure(refused), JournalFailure::Busy);
}

/// The signal at the limit would end the process before its write could fail.
const WITHOUT_SIGNAL: [&str; 4] = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];

#[test]
fn a_write_that_failed_was_not_made_and_the_next_one_is() {
    let (_folder, path) = place();
    let said = children::finish(children::start("limits", &path, &WITHOUT_SIGNAL));
    println!("{} failed writes", said.failures.len());
    assert!(said.failures.len() > 50, "{:?}", said.failures);
}

#[test]
fn what_a_failed_write_left_on_disk_is_removed_before_the_next() {
    let (_folder, path) = place();
    let base = base(&path);
    let (mut journal, _) = open(&path);
    fail_once(&mut journal, &path);
    // As if a commit had reached the disk, and only the word of it had not come back.
    let [_, outcome, closed] = act(2, 7);
    let [other, ..] = act(8, 20);
    for (seq, intent, target, record) in [
        (6, 2, "\"7\"", &outcome),
        (7, 2, "\"7\"", &closed),
        (8, 8, "\"20\"", &other),
    ] {
        let kind = ["outcome", "closed", "intent"][seq - 6];
        raw(&path)
            .execute(
                "INSERT INTO record
                    (seq, watched_ms, wall_ms, kind, intent, target, repo, body, chain)
                 VALUES (?1, 0, 0, ?2, ?3, ?4, 'servo', ?5, zeroblob(32))",
                (
                    seq as i64,
                    kind,
                    intent,
                    target,
                    serde_json::to_string(record).unwrap(),
                ),
            )
            .unwrap();
    }
    assert_eq!(
        failure(journal.intend(retry(7, 1), at(1), wall(1))),
        JournalFailure::Open,
        "its closing was not acknowledged"
    );
    assert_eq!(journal.size().records, base.len() as u64);
    let permit = journal.intend(retry(20, 1), at(80), wall(1)).unwrap();
    assert!(permit.id() > IntentId(8), "no number is used twice");
    let mut there = base;
    there.push(Record::Intent {
        id: permit.id(),
        at: at(80),
        intent: retry(20, 1),
    });
    for record in [outcome, closed] {
        write(&mut journal, &record, wall(1)).unwrap();
        there.push(record);
    }
    drop(journal);
    assert_eq!(records(open(&path).1), there);
}

#[test]
fn a_pruning_that_failed_and_took_effect_all_the_same_is_no_damage() {
    let (_folder, path) = place();
    let base = base(&path);
    let (mut journal, _) = open(&path);
    let shell = raw(&path);
    shell
        .execute_batch("BEGIN; SELECT count(*) FROM record")
        .unwrap();
    assert_eq!(failure(prune(&mut journal)), JournalFailure::Busy);
    drop(shell);
    // As if the commit had reached the disk, and only the word of it had not come back.
    let copy = path.with_file_name("copy.db");
    copy_journal(&path, &copy);
    assert_eq!(prune(&mut open(&copy).0).unwrap(), 3);
    fs::write(&path, fs::read(&copy).unwrap()).unwrap();
    check_that_it_heals(journal, &path, base, None, "after the pruning");
}

#[test]
fn a_journal_that_was_moved_away_takes_nothing_until_it_is_back() {
    let (folder, path) = place();
    let away = folder.path().join("away.db");
    let (mut journal, _) = open(&path);
    journal.sight(&sighting(7, 1, 1), wall(1)).unwrap();
    fs::rename(&path, &away).unwrap();
    let lost = journal.intend(retry(7, 1), at(2), wall(2));
    assert_eq!(failure(lost), JournalFailure::Replaced);
    assert!(!path.exists(), "no new one is begun");
    fs::copy(&away, &path).unwrap();
    let copy = journal.intend(retry(7, 1), at(2), wall(2));
    assert_eq!(
        failure(copy),
        JournalFailure::Replaced,
        "a copy is another file"
    );
    fs::rename(&away, &path).unwrap();
    let permit = journal.intend(retry(7, 1), at(2), wall(2)).unwrap();
    drop(journal);
    let memory = open(&path).1;
    assert_eq!(memory.records.len(), 2);
    assert_eq!(memory.records[1].seq, permit.id().0);
}

#[test]
fn acknowledged_records_that_are_gone_after_a_failure_are_damage() {
    let (_folder, path) = place();
    base(&path);
    let (mut journal, _) = open(&path);
    fail_once(&mut journal, &path);
    let raw = raw(&path);
    raw.execute_batch("INSERT INTO meta VALUES ('deleting', 1); DELETE FROM record WHERE seq = 5")
        .unwrap();
    let error = journal.sight(&sighting(9, 1, 1), wall(1)).unwrap_err();
    assert_eq!(error.failure(), JournalFailure::Damaged);
    assert!(error.to_string().contains("4 of 5 records"), "{error}");
}

#[test]
fn a_limit_on_the_file_s_size_is_an_error_until_there_is_room() {
    let (_folder, path) = place();
    let said = children::finish(children::start("limit", &path, &WITHOUT_SIGNAL));
    assert_eq!(said.failures.len(), 2, "{:?}", said.failures);
    assert!(said.records.len() > 2);
    assert_eq!(records(open(&path).1), said.records);
}

#[test]
fn a_folder_that_may_not_be_written_is_an_error_until_it_may() {
    let (_folder, path) = place();
    // Root may write everywhere, unless it gives that up.
    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let wrapper: &[&str] = if rustix::process::geteuid().is_root() {
        &powerless
    } else {
        &[]
    };
    let said = children::finish(children::start("folder", &path, wrapper));
    assert_eq!(said.failures, ["permission", "permission"]);
    assert_eq!(records(open(&path).1), said.records);
}

/// Makes the writing of the head file fail, and takes that away again.
fn break_head(path: &Path) -> PathBuf {
    let new = path.with_added_extension("head.new");
    std::os::unix::fs::symlink("/dev/full", &new).unwrap();
    new
}

#[test]
fn a_disk_that_is_full_after_the_commit_leaves_no_record_and_no_permit() {
    let (_folder, path) = place();
    let there = base(&path);
    let (mut journal, _) = open(&path);
    let head = fs::read(head_of(&path)).unwrap();
    for _ in 0..2 {
        let new = break_head(&path);
        let lost = journal.intend(retry(20, 1), at(5), wall(1)).unwrap_err();
        assert_eq!(lost.failure(), JournalFailure::Full, "{lost}");
        assert!(lost.to_string().contains("journal.db.head"), "{lost}");
        assert!(
            fs::read(head_of(&path)).unwrap() == head,
            "never half of it"
        );
        let still = journal.sight(&sighting(20, 1, 1), wall(1));
        assert_eq!(failure(still), JournalFailure::Full);
        // Neither changes where the chain ends, but both are read again first.
        assert_eq!(
            failure(journal.save_clock(at(600), wall(1))),
            JournalFailure::Full
        );
        fs::remove_file(new).unwrap();
    }
    check_that_it_heals(journal, &path, there, None, "there is room again");
}

#[test]
fn a_head_that_cannot_be_brought_up_at_the_start_keeps_from_writing_only() {
    let (_folder, path) = place();
    let there = base(&path);
    let (mut journal, _) = open(&path);
    let older = fs::read(head_of(&path)).unwrap();
    let last = sighting(30, 1, 1);
    journal.sight(&last, wall(1)).unwrap();
    drop(journal);
    let newest = fs::read(head_of(&path)).unwrap();
    fs::write(head_of(&path), &older).unwrap();
    let new = break_head(&path);
    let (mut journal, memory) = open(&path);
    assert_eq!(memory.records.len(), there.len() + 1);
    let refused = journal.intend(retry(20, 1), at(5), wall(1));
    assert_eq!(failure(refused), JournalFailure::Full);
    fs::remove_file(new).unwrap();
    journal.save_clock(at(500), wall(1)).unwrap();
    assert!(fs::read(head_of(&path)).unwrap() == newest);
}

#[test]
fn a_kill_between_the_commit_and_its_head_leaves_the_record_in_doubt() {
    let (_folder, path) = place();
    base(&path);
    let head = fs::read(head_of(&path)).unwrap();
    // Opening a pipe for writing waits for a reader, and there is none.
    let new = path.with_added_extension("head.new");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &new, kind, 0o600.into(), 0).unwrap();
    let child = children::start("append", &path, &[]);
    let reader = Reader::open(&path).unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while reader.history(&HistoryFilter::default()).unwrap().len() == 5 {
        assert!(Instant::now() < patience, "it never wrote");
        std::thread::yield_now();
    }
    let said = children::kill_after(child, Duration::ZERO);
    assert_eq!(said.records, [], "it is not acknowledged without its head");
    assert!(fs::read(head_of(&path)).unwrap() == head);
    // What a kill between its sync and its renaming leaves is written over.
    for leftover in [None, Some(""), Some("ci-watchdog journal head 1: 9")] {
        fs::remove_file(&new).unwrap_or_default();
        if let Some(text) = leftover {
            fs::write(&new, text).unwrap();
        }
        fs::write(head_of(&path), &head).unwrap();
        let found = records(open(&path).1);
        assert!(
            matches!(
                found[..],
                [
                    ..,
                    Record::Intent {
                        id: IntentId(6),
                        ..
                    }
                ]
            ),
            "{found:?}"
        );
        assert!(fs::read(head_of(&path)).unwrap() != head);
        assert!(!new.exists());
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    const KILLS: u32 = 60;
    let (folder, path) = place();
    let mut expected: Vec<Record> = Vec::new();
    let (mut acknowledged, mut unacknowledged, mut mid_write, mut before_ready) = (0, 0, 0, 0);
    let mut headless = 0;
    // Weyl's sequence: delays that spread evenly over 0 to 60 ms.
    let mut spread: u32 = 1;
    for kill in 0..KILLS {
        spread = spread.wrapping_add(0x9e37_79b9);
        let delay = Duration::from_micros((u64::from(spread) * 60_000) >> 32);
        let said = children::kill_after(children::start("append", &path, &[]), delay);
        before_ready += u32::from(!said.ready);
        mid_write += u32::from(folder.path().join("journal.db-journal").exists());
        if !path.exists() {
            continue;
        }
        let head = fs::read(head_of(&path)).ok();
        let (journal, memory) = open(&path);
        headless += u32::from(fs::read(head_of(&path)).ok() != head);
        assert!(memory.watched >= said.clock, "kill {kill}");
        acknowledged += said.records.len();
        expected.extend(said.records);
        let found = records(memory);
        assert!(
            found.starts_with(&expected),
            "kill {kill}: an acknowledged record is lost"
        );
        assert!(
            found.len() <= expected.len() + 1,
            "kill {kill}: at most one was under way"
        );
        unacknowledged += found.len() - expected.len();
        expected = found;
        // What was open stays open, and its number is not used again.
        drop(journal);
    }
    println!(
        "{KILLS} kills, {before_ready} before it was open, {mid_write} in the middle of a write, \
         {headless} between a commit and its head; {acknowledged} acknowledged, {unacknowledged} more on disk, 0 lost"
    );
    assert!(acknowledged > 0 && mid_write > 0);
}

#[test]
fn the_lock_of_a_killed_watchdog_is_free() {
    let (_folder, path) = place();
    let mut first = children::start("append", &path, &[]);
    let pid = first.id();
    children::wait_for_a_record(&mut first);
    let error = refused(&path);
    assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
    let said = children::kill_after(first, Duration::ZERO);
    let (_, memory) = open(&path);
    assert!(memory.records.len() >= said.records.len());
}
