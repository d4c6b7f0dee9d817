//! How long a durable intent takes on this machine's disk, and how long a journal takes to open.
//!
//! `cargo bench --bench journal`

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use ci_watchdog::journal::Journal;
use ci_watchdog::model::{
    AttemptId, BuildId, BuildKey, BuildKind, Intent, Moment, Remedy, Sha, Step, Target, Verdict,
};

/// Intents that are written, one after the other, each durable before the next.
const INTENTS: u64 = 2_000;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("journal.db");
    let (mut journal, _) = Journal::open(&path)?;
    let mut took = Vec::new();
    for pull in 0..INTENTS {
        let intent = retry(pull);
        let began = Instant::now();
        journal.intend(intent, Moment::from_millis(pull), SystemTime::now())?;
        took.push(began.elapsed());
    }
    let bytes = journal.size();
    drop(journal);
    took.sort();
    let began = Instant::now();
    Journal::open(&path)?;
    let opened = began.elapsed();
    println!(
        "{INTENTS} intents: p50 {:?}, p99 {:?}, max {:?}; {bytes:?}, opened again in {opened:?}",
        share(&took, 50),
        share(&took, 99),
        share(&took, 100),
    );
    Ok(())
}

/// The time that so many of a hundred took at most.
fn share(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

fn retry(pull: u64) -> Intent {
    let build = BuildId {
        key: BuildKey {
            bot: "homu".into(),
            repo: "servo".into(),
            pull,
            kind: BuildKind::Auto,
        },
        generation: 1,
    };
    Intent {
        attempt: AttemptId {
            target: Target::Build(build),
            remedy: Remedy::Rerun,
            ordinal: 1,
        },
        step: Step::Retry { pull },
        verdict: Verdict::NoShow,
        evidence: vec!["the whole history has no run of 0123456".to_owned()],
        merge_sha: Some(Sha::new("0123456789abcdef0123456789abcdef01234567")),
        head_sha: None,
        runs: BTreeSet::new(),
        zones: BTreeSet::from([("buildbot".into(), "linux".into())]),
        lost_workers: BTreeSet::new(),
        by: None,
    }
}
