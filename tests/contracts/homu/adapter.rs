//! The adapter, made and used as the watchdog does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use ci_watchdog::bots::{Bot, KINDS};
use ci_watchdog::journal::Journal;
use ci_watchdog::keys;
use ci_watchdog::model::{
    AttemptId, BotName, BotSnapshot, BuildId, BuildKey, BuildKind, Intent, Moment, Outcome,
    ProbeError, Remedy, Sha, Step, Target, Verdict,
};
use tempfile::TempDir;

/// A bot as the configuration makes it.
pub fn connect(path: &Path, table: &str) -> Result<Box<dyn Bot>, Vec<String>> {
    let kind = KINDS.iter().find(|kind| kind.name == "homu").unwrap();
    let reading = keys::read(path, table, |keys| {
        (kind.connect)(BotName::new("homu"), keys)
    });
    if reading.mistakes.is_empty() {
        Ok(reading.value.flatten().unwrap())
    } else {
        Err(reading.mistakes.iter().map(ToString::to_string).collect())
    }
}

pub async fn look(bot: &dyn Bot) -> Result<BotSnapshot, ProbeError> {
    bot.observe(&BTreeMap::new()).await
}

/// Sends one step through a journal of its own, as the watchdog would.
pub async fn send(bot: &dyn Bot, target: Target, step: Step, merge_sha: Option<Sha>) -> Outcome {
    let folder = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(&folder.path().join("journal.db")).unwrap();
    let intent = Intent {
        attempt: AttemptId {
            target,
            remedy: Remedy::Rerun,
            ordinal: 1,
        },
        step,
        verdict: Verdict::NoShow,
        evidence: Vec::new(),
        merge_sha,
        head_sha: None,
        runs: BTreeSet::new(),
        zones: BTreeSet::new(),
        lost_workers: BTreeSet::new(),
        by: None,
    };
    let now = Moment::from_millis(1);
    let permit = journal.intend(intent, now, SystemTime::UNIX_EPOCH).unwrap();
    bot.send(permit).await
}

pub fn build(pull: u64, kind: BuildKind) -> Target {
    Target::Build(BuildId {
        key: key(pull, kind),
        generation: 1,
    })
}

pub fn key(pull: u64, kind: BuildKind) -> BuildKey {
    BuildKey {
        bot: "homu".into(),
        repo: "alpha".into(),
        pull,
        kind,
    }
}

pub fn queue() -> Target {
    Target::Queue {
        bot: "homu".into(),
        repo: "alpha".into(),
    }
}
