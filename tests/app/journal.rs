//! A journal that cannot be written while the loop runs.

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
