//! What pruning removes, and what it must keep.

use super::*;

const DAY: u64 = 24 * 60 * 60;
/// A moment that is far from every record's.
fn later() -> Moment {
    at(1_000_000) + WATCHED_KEPT
}

#[test]
fn old_acts_and_sightings_go_and_the_rest_stays() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    let mut stays = Vec::new();
    let mut put = |journal: &mut Journal, record: Record, wall: SystemTime, stay: bool| {
        write(journal, &record, wall).unwrap();
        if stay {
            stays.push(record);
        }
    };
    put(
        &mut journal,
        Record::Sighting(sighting(7, 1, 1)),
        wall(0),
        false,
    );
    put(
        &mut journal,
        Record::Sighting(sighting(7, 2, 2)),
        wall(0),
        true,
    );
    put(
        &mut journal,
        Record::Sighting(sighting(8, 1, 3)),
        wall(0),
        true,
    );
    for record in act(4, 7) {
        put(&mut journal, record, wall(0), false);
    }
    let [intended, outcome, closed] = act(7, 8);
    put(&mut journal, intended, wall(0), true);
    put(&mut journal, outcome, wall(0), true);
    put(&mut journal, closed, wall(DAY), true);
    let [intended, outcome, _] = act(10, 9);
    put(&mut journal, intended, wall(0), true);
    put(&mut journal, outcome, wall(0), true);

    assert_eq!(journal.prune(wall(DAY), later()).unwrap(), 4);
    assert_eq!(journal.prune(wall(DAY), later()).unwrap(), 0);
    assert_eq!(journal.size().records, stays.len() as u64);
    let next = journal.intend(retry(20, 1), at(5), wall(0)).unwrap();
    assert_eq!(next.id(), IntentId(12), "no number is used twice");
    journal
        .close(next.id(), at(6), wall(0), Closing::Done)
        .unwrap();
    assert_eq!(journal.prune(wall(DAY), later()).unwrap(), 2);
    drop(journal);
    let (mut journal, memory) = open(&path);
    assert_eq!(records(memory), stays);
    assert_eq!(
        failure(journal.intend(retry(9, 1), at(7), wall(0))),
        JournalFailure::Open,
        "the open intent still holds its target"
    );
    assert_eq!(
        journal.intend(retry(20, 1), at(7), wall(0)).unwrap().id(),
        IntentId(14)
    );
}

#[test]
fn old_findings_go_and_the_newest_ending_of_each_build_stays() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    let written = [
        (Record::Finding(finding(7, 1, 1)), 0, false),
        (Record::Ending(ending(7, 1, 2)), 0, false),
        (Record::Sighting(sighting(7, 2, 3)), 0, true),
        (Record::Ending(ending(7, 2, 4)), 0, true),
        (Record::Ending(ending(8, 1, 5)), 0, true),
        (Record::Finding(finding(9, 1, 6)), DAY, true),
    ];
    for (record, seconds, _) in &written {
        write(&mut journal, record, wall(*seconds)).unwrap();
    }
    assert_eq!(journal.prune(wall(DAY), later()).unwrap(), 2);
    assert_eq!(journal.prune(wall(DAY), later()).unwrap(), 0);
    drop(journal);
    let kept = written.into_iter().filter(|(.., stays)| *stays);
    let kept: Vec<Record> = kept.map(|(record, ..)| record).collect();
    assert_eq!(records(open(&path).1), kept);
}

#[test]
fn a_wall_clock_that_jumps_ahead_empties_no_budget() {
    let (mut journal, _) = Journal::in_memory().unwrap();
    for record in act(1, 7) {
        write(&mut journal, &record, wall(0)).unwrap();
    }
    let closed_at = at(12);
    let far_ahead = wall(100 * 365 * DAY);
    assert_eq!(
        journal.prune(far_ahead, closed_at + WATCHED_KEPT).unwrap(),
        0
    );
    let a_moment_more = closed_at + WATCHED_KEPT + Duration::from_millis(1);
    assert_eq!(journal.prune(far_ahead, a_moment_more).unwrap(), 3);
}

#[test]
fn one_call_removes_a_bounded_number() {
    let (mut journal, _) = Journal::in_memory().unwrap();
    for generation in 1..=1_100 {
        journal.sight(&sighting(7, generation, 0), wall(0)).unwrap();
    }
    for _ in 0..400 {
        let id = journal.intend(retry(7, 1), at(0), wall(0)).unwrap().id();
        journal.outcome(id, at(0), wall(0), &outcomes()[0]).unwrap();
        journal.close(id, at(0), wall(0), Closing::Done).unwrap();
    }
    let mut calls = Vec::new();
    loop {
        match journal.prune(wall(DAY), later()).unwrap() {
            0 => break,
            removed => calls.push(removed),
        }
    }
    assert!(
        calls.iter().all(|&removed| removed <= PRUNED_MAX),
        "{calls:?}"
    );
    assert_eq!(calls.iter().sum::<usize>(), 1_099 + 1_200);
    assert_eq!(journal.size().records, 1);
}

/// How many checkpoints a journal has.
fn checkpoints(path: &Path) -> Vec<i64> {
    let raw = raw(path);
    let mut statement = raw
        .prepare("SELECT seq FROM checkpoint ORDER BY seq")
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A journal that was pruned around what must stay: 1 and 2, 4, and 8 to 10 are gone.
fn pruned() -> (TempDir, PathBuf, Journal) {
    let (folder, path) = place();
    let (mut journal, _) = open(&path);
    let sight = |journal: &mut Journal, pull, generation, seconds| {
        journal
            .sight(&sighting(pull, generation, 1), wall(seconds))
            .unwrap();
    };
    sight(&mut journal, 7, 1, 0);
    sight(&mut journal, 7, 2, 0);
    sight(&mut journal, 7, 3, 0);
    sight(&mut journal, 8, 1, 0);
    sight(&mut journal, 8, 2, 0);
    sight(&mut journal, 9, 1, DAY);
    sight(&mut journal, 7, 4, DAY);
    for record in act(8, 7) {
        write(&mut journal, &record, wall(0)).unwrap();
    }
    sight(&mut journal, 8, 3, DAY);
    // The one at 3 goes only now, between two that are gone: three checkpoints become one.
    assert_eq!(journal.prune(wall(1), later()).unwrap(), 8);
    (folder, path, journal)
}

#[test]
fn what_was_pruned_side_by_side_is_one_checkpoint() {
    let (_folder, path, mut journal) = pruned();
    assert_eq!(checkpoints(&path), [5, 10]);
    // What lay between the two goes too, and the newest of all at the end.
    journal.sight(&sighting(9, 2, 1), wall(0)).unwrap();
    for record in act(13, 20) {
        write(&mut journal, &record, wall(0)).unwrap();
    }
    let all = wall(2 * DAY);
    assert_eq!(journal.prune(all, later()).unwrap(), 4);
    assert_eq!(checkpoints(&path), [6, 10, 15]);
    drop(journal);
    let (mut journal, memory) = open(&path);
    let kept: Vec<_> = memory.records.iter().map(|stamped| stamped.seq).collect();
    assert_eq!(kept, [7, 11, 12]);
    journal.sight(&sighting(7, 5, 1), wall(DAY)).unwrap();
    assert_eq!(journal.prune(all, later()).unwrap(), 1);
    assert_eq!(
        checkpoints(&path),
        [10, 15],
        "7 went, and all before 11 are one"
    );
    drop(journal);
    open(&path);
}

#[test]
fn around_what_was_pruned_nothing_is_lost_unseen() {
    for change in [
        "DELETE FROM record WHERE seq = 6",
        "DELETE FROM record WHERE seq = 7",
        "DELETE FROM checkpoint WHERE seq = 5",
        "DELETE FROM checkpoint WHERE seq = 10",
        "UPDATE checkpoint SET before = zeroblob(32) WHERE seq = 10",
        "UPDATE checkpoint SET chain = zeroblob(32) WHERE seq = 10",
        "UPDATE checkpoint SET seq = 7 WHERE seq = 10",
        "DELETE FROM record WHERE seq = 11",
        "DELETE FROM checkpoint; DELETE FROM record",
    ] {
        let (_folder, path, journal) = pruned();
        drop(journal);
        opening::change_past_the_rules(&path, change);
        let error = refused(&path);
        assert!(error.is_damage(), "{change}: {error}");
    }
}

#[test]
fn pruning_does_not_clear_a_damaged_record_away() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    for record in act(1, 7) {
        write(&mut journal, &record, wall(0)).unwrap();
    }
    opening::change_past_the_rules(&path, "UPDATE record SET body = body || ' ' WHERE seq = 2");
    let before = fs::read(&path).unwrap();
    let error = journal.prune(wall(DAY), later()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("record 2, which is to be pruned"),
        "{error}"
    );
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(
        failure(journal.sight(&sighting(7, 1, 1), wall(1))),
        JournalFailure::Damaged,
        "and nothing is written any more"
    );
}
