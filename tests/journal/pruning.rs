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
