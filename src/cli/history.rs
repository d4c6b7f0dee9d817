//! `ci-watchdog history`.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::table::table;
use super::{FAILED, History, OK, complain, load, say, say_json};
use crate::journal::{HistoryFilter, Reader, Stamped};
use crate::model::{Record, RepoName};
use crate::report::Stamp;

/// Reads the journal and prints what was seen and done.
pub(super) fn main(arguments: &History) -> u8 {
    let config = match load(arguments.common.config.as_deref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let filter = HistoryFilter {
        repo: arguments.repo.clone().map(RepoName::new),
        pull: arguments.pull,
        since: arguments
            .since
            .and_then(|since| SystemTime::now().checked_sub(since)),
        limit: arguments.limit,
    };
    let records = Reader::open(&config.journal.path).and_then(|reader| reader.history(&filter));
    let records = match records {
        Ok(records) => records,
        Err(error) => {
            complain(&error.to_string());
            return FAILED;
        }
    };
    if arguments.common.json {
        let records: Vec<Value> = records
            .iter()
            .map(|stamped| json!({ "seq": stamped.seq, "at": Stamp(stamped.wall), "record": stamped.record }))
            .collect();
        return say_json(&records);
    }
    if records.is_empty() {
        say("Nothing was seen or done that fits.");
        return OK;
    }
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    say(&table(&["WHEN", "WHAT", "FOR", "DETAIL"], &rows));
    OK
}

fn row(stamped: &Stamped) -> Vec<String> {
    let when = Stamp(stamped.wall).to_string();
    let [what, target, detail] = match &stamped.record {
        Record::Sighting(sighting) => [
            "seen".to_owned(),
            sighting.build.to_string(),
            format!(
                "{:?}, commit {}",
                sighting.cause,
                sighting
                    .merge_sha
                    .as_ref()
                    .map_or("unknown", |sha| sha.short())
            ),
        ],
        Record::Intent { id, intent, .. } => [
            format!("intent {}", id.0),
            intent.attempt.to_string(),
            format!(
                "{} because {}: {}",
                intent.step.kind(),
                intent.verdict,
                intent.evidence.join("; ")
            ),
        ],
        Record::Outcome { id, outcome, .. } => [
            format!("outcome {}", id.0),
            String::new(),
            format!("{}: {}", outcome.as_str(), outcome.detail()),
        ],
        Record::Closed { id, closing, .. } => [
            format!("closed {}", id.0),
            String::new(),
            closing.as_str().to_owned(),
        ],
    };
    vec![when, what, target, detail]
}
