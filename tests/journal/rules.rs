//! Records come back as they were written, and the rules on intents hold whoever writes.

use super::*;

#[test]
fn records_come_back_as_they_were_written() {
    let (_folder, path) = place();
    let (mut journal, empty) = open(&path);
    assert_eq!(
        empty,
        Memory {
            watched: Moment::ZERO,
            records: vec![]
        }
    );

    let mut written: Vec<(SystemTime, Record)> = Vec::new();
    let mut millis = 0;
    let targets = [
        Target::Expectation {
            build: build(7, 1),
            builder: "linux\0".into(),
        },
        Target::Build(build(7, 1)),
        Target::Pull {
            bot: "homu".into(),
            repo: "servo".into(),
            pull: 7,
        },
        Target::Queue {
            bot: "homu".into(),
            repo: "servo".into(),
        },
    ];
    for step in steps() {
        for (outcome, closing) in outcomes()
            .into_iter()
            .zip(Closing::ALL)
            .chain([(Outcome::Accepted(String::new()), Closing::ALL[4])])
        {
            for target in &targets {
                let now = wall(millis);
                let intent = intent(target.clone(), step.clone());
                let permit = journal.intend(intent.clone(), at(millis), now).unwrap();
                let id = permit.id();
                assert_eq!((permit.intent(), permit.step()), (&intent, &step));
                written.push((
                    now,
                    Record::Intent {
                        id,
                        at: at(millis),
                        intent,
                    },
                ));
                let outcome = Record::Outcome {
                    id,
                    at: at(millis + 1),
                    outcome: outcome.clone(),
                };
                let closed = Record::Closed {
                    id,
                    at: at(millis + 2),
                    closing,
                };
                for record in [outcome, closed] {
                    write(&mut journal, &record, now).unwrap();
                    written.push((now, record));
                }
                millis += 3;
            }
        }
    }
    let sighted = Record::Sighting(sighting(7, u32::MAX, 5));
    write(&mut journal, &sighted, SystemTime::UNIX_EPOCH).unwrap();
    written.push((SystemTime::UNIX_EPOCH, sighted));
    assert_eq!(journal.size().records, written.len() as u64);
    drop(journal);

    let (journal, memory) = open(&path);
    let numbers: Vec<_> = memory.records.iter().map(|stamped| stamped.seq).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    let read: Vec<_> = memory
        .records
        .into_iter()
        .map(|stamped| (stamped.wall, stamped.record))
        .collect();
    assert_eq!(read, written);
    assert_eq!(memory.watched, at(millis - 1));
    assert_eq!(journal.size().records, written.len() as u64);
    assert_eq!(journal.size().bytes, fs::metadata(&path).unwrap().len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_record_comes_back(
        sightings in prop::collection::vec(samples::any_sighting(), 0..3),
        findings in prop::collection::vec(samples::any_finding(), 0..3),
        endings in prop::collection::vec(samples::any_ending(), 0..3),
        acts in prop::collection::vec(
            (samples::any_intent(), samples::any_outcome(), samples::any_closing(), any::<u64>()),
            0..4,
        ),
    ) {
        let (_folder, path) = place();
        let (mut journal, _) = open(&path);
        let mut written = Vec::new();
        for sighting in sightings {
            journal.sight(&sighting, wall(1)).unwrap();
            written.push(Record::Sighting(sighting));
        }
        for finding in findings {
            journal.find(&finding, wall(1)).unwrap();
            written.push(Record::Finding(finding));
        }
        for ending in endings {
            journal.end(&ending, wall(1)).unwrap();
            written.push(Record::Ending(ending));
        }
        for (intent, outcome, closing, millis) in acts {
            let at = at(millis);
            let id = journal.intend(intent.clone(), at, wall(1)).unwrap().id();
            journal.outcome(id, at, wall(1), &outcome).unwrap();
            journal.close(id, at, wall(1), closing).unwrap();
            written.extend([
                Record::Intent { id, at, intent },
                Record::Outcome { id, at, outcome },
                Record::Closed { id, at, closing },
            ]);
        }
        drop(journal);
        prop_assert_eq!(records(open(&path).1), written.clone());
        let read = Reader::open(&path).unwrap().history(&HistoryFilter::default()).unwrap();
        let read: Vec<_> = read.into_iter().map(|stamped| stamped.record).collect();
        prop_assert_eq!(read, written);
    }
}

#[test]
fn a_second_intent_on_an_open_target_is_refused() {
    for in_memory in [true, false] {
        let (_folder, path) = place();
        let (mut journal, _) = if in_memory {
            Journal::in_memory().unwrap()
        } else {
            open(&path)
        };
        let first = journal.intend(retry(7, 1), at(1), wall(1)).unwrap();
        for generation in [1, 2] {
            let again = journal.intend(retry(7, generation), at(2), wall(2));
            assert_eq!(
                again.unwrap_err(),
                JournalError::Open {
                    target: r#"["retry","homu","servo",7,"auto"]"#.to_owned(),
                    open: first.id(),
                },
                "generation {generation}"
            );
        }
        let outcome = Outcome::Unanswered("no answer".to_owned());
        journal
            .outcome(first.id(), at(3), wall(3), &outcome)
            .unwrap();
        assert_eq!(
            failure(journal.intend(retry(7, 1), at(4), wall(4))),
            JournalFailure::Open,
            "an outcome settles nothing"
        );
        journal
            .close(first.id(), at(5), wall(5), Closing::NoEffect)
            .unwrap();
        let second = journal.intend(retry(7, 1), at(6), wall(6)).unwrap();
        assert!(second.id() > first.id());
    }
}

#[test]
fn several_tells_and_builds_may_be_open_at_once() {
    let (mut journal, _) = Journal::in_memory().unwrap();
    let whole = Target::Build(build(7, 1));
    let mut ids = BTreeSet::new();
    for step in steps() {
        ids.insert(
            journal
                .intend(intent(whole.clone(), step), at(1), wall(1))
                .unwrap()
                .id(),
        );
    }
    for builder in ["linux", "mac"] {
        let target = Target::Expectation {
            build: build(7, 1),
            builder: builder.into(),
        };
        let replay = steps().remove(1);
        ids.insert(
            journal
                .intend(intent(target, replay), at(1), wall(1))
                .unwrap()
                .id(),
        );
    }
    ids.insert(journal.intend(retry(8, 1), at(1), wall(1)).unwrap().id());
    assert_eq!(ids.len(), steps().len() + 3);
}

#[test]
fn outcomes_and_closings_need_an_open_intent_and_come_once() {
    let (mut journal, _) = Journal::in_memory().unwrap();
    let good = Outcome::Accepted(String::new());
    journal.sight(&sighting(7, 1, 0), wall(0)).unwrap();
    for unknown in [IntentId(1), IntentId(99), IntentId(-1)] {
        let outcome = journal.outcome(unknown, at(1), wall(1), &good);
        assert_eq!(failure(outcome), JournalFailure::NotOpen);
        let closed = journal.close(unknown, at(1), wall(1), Closing::Done);
        assert_eq!(failure(closed), JournalFailure::NotOpen);
    }
    let id = journal.intend(retry(7, 1), at(1), wall(1)).unwrap().id();
    journal.outcome(id, at(2), wall(2), &good).unwrap();
    let again = journal.outcome(id, at(3), wall(3), &good).unwrap_err();
    assert_eq!(
        again.to_string(),
        "intent 2 takes no outcome: it has one already"
    );
    journal.close(id, at(4), wall(4), Closing::Done).unwrap();
    let again = journal
        .close(id, at(5), wall(5), Closing::Done)
        .unwrap_err();
    assert_eq!(again.to_string(), "intent 2 takes no closing: it is closed");
    assert_eq!(journal.size().records, 4, "what was refused left nothing");
}

#[test]
fn a_record_that_is_too_large_is_refused_and_the_next_is_taken() {
    let (mut journal, _) = Journal::in_memory().unwrap();
    let mut large = retry(7, 1);
    large.evidence = vec!["x".repeat(2 << 20)];
    let result = journal.intend(large, at(1), wall(1));
    assert_eq!(failure(result), JournalFailure::TooLarge);
    journal.intend(retry(7, 1), at(1), wall(1)).unwrap();
}

#[test]
fn the_schema_itself_keeps_the_rules() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    journal.intend(retry(7, 1), at(1), wall(1)).unwrap();
    for record in act(2, 8) {
        write(&mut journal, &record, wall(1)).unwrap();
    }
    drop(journal);
    let before = open(&path).1;
    let raw = raw(&path);
    let columns = "seq, watched_ms, wall_ms, kind, intent, target, attempt, repo, pull, body";
    let same = "watched_ms, wall_ms, kind";
    let rest = "target, attempt, repo, pull, body FROM record WHERE seq = 1";
    for statement in [
        // Two open intents on one target.
        format!("INTO record ({columns}) SELECT 50, {same}, 50, {rest}"),
        "INTO open_intent SELECT target, 2 FROM open_intent".to_owned(),
        "INTO open_intent SELECT target, 50 FROM open_intent".to_owned(),
        // An open intent without its record, or that is closed.
        "INTO open_intent VALUES ('other', 1)".to_owned(),
        "INTO open_intent SELECT target, seq FROM record WHERE seq = 2".to_owned(),
        // One record in the place of another.
        format!(
            "INTO record ({columns}) SELECT 1, {same}, 1, 'x', attempt, repo, pull, body FROM record WHERE seq = 1"
        ),
        // An outcome or a closing of what is not open.
        format!("INTO record ({columns}) SELECT 50, watched_ms, wall_ms, 'closed', 2, {rest}"),
        format!("INTO record ({columns}) SELECT 50, watched_ms, wall_ms, 'outcome', 2, {rest}"),
        format!("INTO record ({columns}) SELECT 50, watched_ms, wall_ms, 'outcome', 49, {rest}"),
        // Rows of no known form.
        format!("INTO record ({columns}) SELECT 50, watched_ms, wall_ms, 'other', 1, {rest}"),
        format!("INTO record ({columns}) SELECT 50, watched_ms, wall_ms, 'intent', NULL, {rest}"),
        format!("INTO record ({columns}) SELECT 50, watched_ms, wall_ms, 'sighting', 1, {rest}"),
    ] {
        for verb in ["INSERT", "INSERT OR REPLACE"] {
            let statement = format!("{verb} {statement}");
            raw.execute(&statement, []).expect_err(&statement);
        }
        // To ignore is not to take.
        let _ = raw.execute(&format!("INSERT OR IGNORE {statement}"), []);
    }
    for statement in [
        "UPDATE record SET body = '{}'",
        "UPDATE record SET seq = 50 WHERE seq = 1",
        "UPDATE OR REPLACE record SET target = 'x' WHERE seq = 1",
        "DELETE FROM record",
        "DELETE FROM open_intent",
        "UPDATE open_intent SET target = 'x'",
    ] {
        raw.execute(statement, []).expect_err(statement);
    }
    drop(raw);
    assert_eq!(open(&path).1, before);
}

#[test]
fn watched_time_never_runs_backwards() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    journal.save_clock(at(60_000), wall(9)).unwrap();
    journal.save_clock(at(30_000), wall(10)).unwrap();
    drop(journal);
    let (mut journal, memory) = open(&path);
    assert_eq!(memory.watched, at(60_000), "an earlier clock is not taken");
    journal.sight(&sighting(7, 1, 61_000), wall(0)).unwrap();
    journal.sight(&sighting(8, 1, 5), wall(0)).unwrap();
    drop(journal);
    assert_eq!(
        open(&path).1.watched,
        at(61_000),
        "a record may be later than the clock"
    );
}

#[test]
fn journals_and_permits_go_to_other_threads() {
    fn goes<T: Send>() {}
    goes::<Journal>();
    goes::<Permit>();
    goes::<Reader>();
    goes::<JournalError>();
}
