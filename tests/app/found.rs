//! What the loop writes down of what it finds and of how builds end.

use ci_watchdog::journal::{HistoryFilter, Reader};
use ci_watchdog::model::{End, Ending, Finding, Record, Remedy};

use super::*;

/// The findings and endings in the journal at `path`.
fn written(path: &std::path::Path) -> (Vec<Finding>, Vec<Ending>) {
    let reader = Reader::open(path).unwrap();
    let (mut findings, mut endings) = (Vec::new(), Vec::new());
    for stamped in reader.history(&HistoryFilter::default()).unwrap() {
        match stamped.record {
            Record::Finding(finding) => findings.push(finding),
            Record::Ending(ending) => endings.push(ending),
            Record::Sighting(_)
            | Record::Intent { .. }
            | Record::Outcome { .. }
            | Record::Closed { .. }
            | Record::Order(_) => {}
        }
    }
    (findings, endings)
}

#[tokio::test(start_paused = true)]
async fn observing_writes_down_once_what_would_be_done_and_how_the_build_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut bench = Bench::with_journal(Mode::Observe, Journal::open(&path).unwrap());
    bench.run_for(minutes(10)).await;
    let (findings, endings) = written(&path);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    assert_eq!(finding.attempt.remedy, Remedy::Rerun);
    assert_eq!(finding.verdict, Verdict::NoShow);
    assert_eq!(finding.steps, [StepKind::ReleaseSlot, StepKind::Retry]);
    assert_eq!(endings, []);

    // After a restart it is known to be found.
    drop(bench);
    let mut bench = Bench::with_journal(Mode::Observe, Journal::open(&path).unwrap());
    bench.run_for(minutes(10)).await;
    assert_eq!(written(&path).0.len(), 1);
    // Somebody reruns it, and it comes to a result that is seen only after it left.
    bench.change(|world| {
        world.pending = Some(NEW);
        world.runs = vec![(NEW, RunState::Running)];
    });
    bench.run_for(minutes(1)).await;
    bench.change(|world| {
        world.pending = None;
        world.runs = vec![(NEW, RunState::Ended(RunEnd::Success))];
    });
    bench.run_for(minutes(1)).await;
    assert_eq!(bench.sent(), []);
    let (findings, endings) = written(&path);
    assert_eq!(findings.len(), 1);
    let told: Vec<_> = endings
        .iter()
        .map(|it| (it.build.generation, it.verdict, it.end))
        .collect();
    assert_eq!(
        told,
        [
            (1, Verdict::NoShow, End::Rerun),
            (2, Verdict::Alive, End::Green)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_written_when_the_journal_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let away = folder.path().join("away.db");
    let mut bench = Bench::with_journal(Mode::Observe, Journal::open(&path).unwrap());
    bench.run_for(minutes(1)).await;
    std::fs::rename(&path, &away).unwrap();
    bench.run_for(minutes(9)).await;
    bench.change(|world| world.pending = None);
    bench.run_for(minutes(1)).await;
    std::fs::rename(&away, &path).unwrap();
    bench.run_for(minutes(1)).await;
    let (findings, endings) = written(&path);
    assert_eq!(
        findings,
        [],
        "the journal held it, so it would not have been sent"
    );
    let told: Vec<_> = endings.iter().map(|it| (it.verdict, it.end)).collect();
    assert_eq!(told, [(Verdict::NoShow, End::Left)]);
}

#[tokio::test(start_paused = true)]
async fn acting_finds_nothing_and_writes_down_how_builds_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut bench = Bench::with_journal(Mode::Act, Journal::open(&path).unwrap());
    bench.run_for(minutes(10)).await;
    assert_eq!(bench.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
    let (findings, endings) = written(&path);
    assert_eq!(findings, []);
    let told: Vec<_> = endings.iter().map(|it| (it.verdict, it.end)).collect();
    assert_eq!(told, [(Verdict::NoShow, End::Rerun)]);
}
