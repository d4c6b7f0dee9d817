//! Reading beside the watchdog that writes.

use super::*;

fn read(path: &Path, filter: &HistoryFilter) -> Vec<Record> {
    let read: Vec<Stamped> = Reader::open(path).unwrap().history(filter).unwrap();
    read.into_iter().map(|stamped| stamped.record).collect()
}

#[test]
fn a_reader_sees_what_is_written_beside_it_and_only_what_was_asked() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    let reader = Reader::open(&path).unwrap();
    let all = HistoryFilter::default();
    assert_eq!(reader.history(&all).unwrap(), []);
    assert_eq!(reader.begins().unwrap(), None);
    assert_eq!(reader.repos().unwrap(), BTreeSet::new());

    let mut written = vec![Record::Sighting(sighting(7, 1, 1))];
    written.extend(act(2, 7));
    written.extend(act(5, 8));
    let other = Sighting {
        build: {
            let mut build = build(7, 1);
            build.key.repo = "other\0repo".into();
            build
        },
        ..sighting(7, 1, 1)
    };
    written.push(Record::Sighting(other));
    let queue = Target::Queue {
        bot: "homu".into(),
        repo: "servo".into(),
    };
    written.push(Record::Intent {
        id: IntentId(9),
        at: at(9),
        intent: intent(queue, Step::Nudge { pull: 7 }),
    });
    for (record, seconds) in written.iter().zip(0..) {
        write(&mut journal, record, wall(seconds)).unwrap();
    }
    let found = reader.history(&all).unwrap();
    let numbers: Vec<_> = found.iter().map(|stamped| stamped.seq).collect();
    assert_eq!(numbers, (1..=9).collect::<Vec<_>>());
    assert_eq!(reader.begins().unwrap(), Some(wall(0)));
    let repos: BTreeSet<RepoName> = ["servo", "other\0repo"].map(RepoName::from).into();
    assert_eq!(reader.repos().unwrap(), repos);

    let servo = HistoryFilter {
        repo: Some("servo".into()),
        ..all.clone()
    };
    let seven = HistoryFilter {
        pull: Some(7),
        ..servo.clone()
    };
    let odd = HistoryFilter {
        repo: Some("other\0repo".into()),
        ..all.clone()
    };
    let newest = HistoryFilter {
        limit: 2,
        ..all.clone()
    };
    let late = HistoryFilter {
        since: Some(wall(7)),
        ..all.clone()
    };
    let earlier = HistoryFilter {
        before: Some(4),
        limit: 2,
        ..all.clone()
    };
    assert_eq!(read(&path, &all), written);
    assert_eq!(read(&path, &servo), [&written[..7], &written[8..]].concat());
    assert_eq!(
        read(&path, &seven),
        written[..4],
        "outcomes and closings come with their intent"
    );
    assert_eq!(read(&path, &odd), written[7..8]);
    assert_eq!(read(&path, &newest), written[7..]);
    assert_eq!(read(&path, &late), written[7..]);
    assert_eq!(read(&path, &earlier), written[1..3], "the next page");
    assert_eq!(read(&path, &HistoryFilter { limit: 0, ..all }), []);
}

#[test]
fn readers_do_not_keep_the_watchdog_from_writing() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    for generation in 1..=200 {
        journal.sight(&sighting(7, generation, 1), wall(0)).unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let reader = Reader::open(&path).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(reader.history(&HistoryFilter::default()).unwrap().len() >= 200);
                    std::thread::yield_now();
                }
            });
        }
        let mut slowest = Duration::ZERO;
        for generation in 201..=260 {
            let began = Instant::now();
            journal.sight(&sighting(7, generation, 1), wall(0)).unwrap();
            slowest = slowest.max(began.elapsed());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        slowest
    });
    println!("slowest write beside two readers that never stop: {slowest:?}");
}

#[test]
fn a_process_that_holds_the_file_is_an_error_until_it_lets_go() {
    let (_folder, path) = place();
    let (mut journal, _) = open(&path);
    let shell = raw(&path);
    shell
        .execute_batch("BEGIN; SELECT count(*) FROM record")
        .unwrap();
    let began = Instant::now();
    let held = journal.intend(retry(7, 1), at(1), wall(1));
    assert_eq!(failure(held), JournalFailure::Busy);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "shorter than the act deadline"
    );
    shell.execute_batch("COMMIT").unwrap();
    journal.intend(retry(7, 1), at(1), wall(1)).unwrap();
}

#[test]
fn a_journal_that_is_not_there_is_not_created_by_reading() {
    let (_folder, path) = place();
    let error = Reader::open(&path).unwrap_err();
    assert_eq!(error.failure(), JournalFailure::Missing);
    assert!(error.to_string().contains("ever run"), "{error}");
    assert!(!path.exists());
}
