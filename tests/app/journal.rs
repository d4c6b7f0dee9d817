//! A journal that cannot be written while the loop runs.

use ci_watchdog::journal::{PRUNED_MAX, WATCHED_KEPT};
use ci_watchdog::model::{BuildId, Moment, Sighting, SightingCause};

use super::*;

#[tokio::test(start_paused = true)]
async fn without_its_journal_it_sends_nothing_says_so_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let away = folder.path().join("away.db");
    let mut bench = Bench::with_journal(Mode::Act, Journal::open(&path).unwrap());
    bench.run_for(minutes(1)).await;
    assert_eq!(get(&bench.shared, "/-/ready").await.0, 200);
    std::fs::rename(&path, &away).unwrap();

    bench.run_for(minutes(10)).await;
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.verdict(), Verdict::NoShow, "it looks and judges on");
    assert_eq!(bench.gate(), Some(Gate::Journal));
    assert!(bench.shared.report().tick > 60);
    let (status, text) = get(&bench.shared, "/-/ready").await;
    assert_eq!(status, 503);
    assert!(text.contains("the journal cannot be written"), "{text}");
    assert_eq!(get(&bench.shared, "/-/healthy").await.0, 200, "it lives");
    let (_, metrics) = get(&bench.shared, "/metrics").await;
    assert!(metrics.contains("\nci_watchdog_journal_writable 0\n"));
    let (_, page) = get(&bench.shared, "/").await;
    assert!(page.contains("it cannot be written, so nothing is sent"));
    assert!(page.contains("no_show"), "{page}");

    std::fs::rename(&away, &path).unwrap();
    bench.run_for(minutes(2)).await;
    assert_eq!(bench.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
    assert_eq!(get(&bench.shared, "/-/ready").await.0, 200);
    let (_, metrics) = get(&bench.shared, "/metrics").await;
    assert!(metrics.contains("\nci_watchdog_journal_writable 1\n"));
}

#[tokio::test(start_paused = true)]
async fn old_records_are_pruned_to_the_end_in_steps() {
    let (mut journal, _) = Journal::in_memory().unwrap();
    let long_ago = SystemTime::UNIX_EPOCH;
    for generation in 1..=PRUNED_MAX as u32 * 2 {
        let sighting = Sighting {
            build: BuildId {
                key: BuildKey {
                    bot: "homu".into(),
                    repo: "servo".into(),
                    pull: 1,
                    kind: BuildKind::Auto,
                },
                generation,
            },
            merge_sha: None,
            head_sha: None,
            at: Moment::ZERO,
            cause: SightingCause::OurRerun,
            before: BTreeSet::new(),
        };
        journal.sight(&sighting, long_ago).unwrap();
    }
    let memory = Memory {
        watched: Moment::ZERO + WATCHED_KEPT * 2,
        records: Vec::new(),
    };
    let mut bench = Bench::with_journal(Mode::Observe, (journal, memory));
    let records = async |bench: &mut Bench| {
        bench.run_for(Duration::from_secs(10)).await;
        bench.shared.report().journal.records
    };
    let step = PRUNED_MAX as u64;
    assert_eq!(records(&mut bench).await, 2 * step + 1 - step, "a step");
    // The newest of each build stays.
    assert_eq!(records(&mut bench).await, 1 + 1);
    assert_eq!(records(&mut bench).await, 1 + 1);
}
