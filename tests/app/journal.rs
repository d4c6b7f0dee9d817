//! A journal that cannot be written while the loop runs.

use ci_watchdog::journal::{JournalError, PRUNED_MAX, WATCHED_KEPT};
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

/// Everything says that the journal is damaged, and nothing is sent, though there is what to send.
async fn the_damage_is_seen_and_nothing_is_sent(bench: &Bench, word: &str) {
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.verdict(), Verdict::NoShow, "it looks and judges");
    assert_eq!(bench.gate(), Some(Gate::Journal));
    let (status, text) = get(&bench.shared, "/-/ready").await;
    assert_eq!(status, 503);
    assert!(text.contains(word), "{text}");
    assert_eq!(get(&bench.shared, "/-/healthy").await.0, 200, "it lives");
    let (_, metrics) = get(&bench.shared, "/metrics").await;
    assert!(metrics.contains("\nci_watchdog_journal_writable 0\n"));
    assert!(metrics.contains("\nci_watchdog_held_remedies{gate=\"journal\"} 1\n"));
    let (_, page) = get(&bench.shared, "/").await;
    assert!(page.contains(word), "{page}");
}

/// A journal with a record, whose text is not the one that was written.
fn damaged() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (mut journal, _) = Journal::open(&path).unwrap();
    let sighting = old_sighting(1);
    journal.sight(&sighting, SystemTime::UNIX_EPOCH).unwrap();
    drop(journal);
    let bytes = flip(&path);
    (folder, path, bytes)
}

/// Flips a bit in the text of a record, where only the chain sees it.
fn flip(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let text = b"\"generation\":1";
    let at = bytes.windows(text.len()).position(|found| found == text);
    bytes[at.unwrap() + text.len() - 1] ^= 2;
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn with_a_damaged_journal_it_looks_and_tells_and_leaves_the_file_alone() {
    let (_folder, path, bytes) = damaged();
    assert!(Journal::open(&path).unwrap_err().is_damage());
    let mut bench = Bench::with_journal(Mode::Act, Journal::open_or_stand_by(&path).unwrap());
    bench.run_for(minutes(10)).await;
    the_damage_is_seen_and_nothing_is_sent(&bench, "is damaged and was left as it is").await;
    assert!(std::fs::read(&path).unwrap() == bytes);
    // Whoever opens it beside this one would begin to act.
    assert!(matches!(
        Journal::open(&path),
        Err(JournalError::Locked { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn with_a_journal_that_lost_its_tail_it_looks_and_tells() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (mut journal, _) = Journal::open(&path).unwrap();
    let older = std::fs::read(&path).unwrap();
    journal
        .sight(&old_sighting(1), SystemTime::UNIX_EPOCH)
        .unwrap();
    drop(journal);
    std::fs::write(&path, &older).unwrap();
    let mut bench = Bench::with_journal(Mode::Act, Journal::open_or_stand_by(&path).unwrap());
    bench.run_for(minutes(10)).await;
    the_damage_is_seen_and_nothing_is_sent(&bench, "the newest records are lost").await;
    assert!(std::fs::read(&path).unwrap() == older);
}

#[tokio::test(start_paused = true)]
async fn damage_that_is_found_while_it_runs_ends_acting_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let away = folder.path().join("away.db");
    let mut bench = Bench::with_journal(Mode::Act, Journal::open(&path).unwrap());
    bench.run_for(minutes(1)).await;
    let good = std::fs::read(&path).unwrap();
    // A write fails; what is read anew after it is not what was written.
    std::fs::rename(&path, &away).unwrap();
    bench.run_for(minutes(2)).await;
    std::fs::rename(&away, &path).unwrap();
    flip(&path);
    bench.run_for(minutes(10)).await;
    the_damage_is_seen_and_nothing_is_sent(&bench, "is damaged and was left as it is").await;
    // A second look that misses the damage is no reason to believe the journal.
    std::fs::write(&path, good).unwrap();
    bench.run_for(minutes(10)).await;
    the_damage_is_seen_and_nothing_is_sent(&bench, "is damaged and was left as it is").await;
}

fn old_sighting(generation: u32) -> Sighting {
    Sighting {
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
    }
}

#[tokio::test(start_paused = true)]
async fn old_records_are_pruned_to_the_end_in_steps() {
    let (mut journal, _) = Journal::in_memory().unwrap();
    let long_ago = SystemTime::UNIX_EPOCH;
    for generation in 1..=PRUNED_MAX as u32 * 2 {
        let sighting = old_sighting(generation);
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
