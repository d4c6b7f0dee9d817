//! `ci-watchdog history`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::repos::known;
use super::table::table;
use super::{FAILED, History, OK, complain, load, say, say_json};
use crate::app::cause;
use crate::config::Config;
use crate::journal::{HistoryFilter, Reader, Stamped};
use crate::model::{IntentId, Order, Record, RepoName, StepKind};
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
        ..HistoryFilter::default()
    };
    let records = match read(&config, &filter) {
        Ok(records) => records,
        Err(message) => {
            complain(&message);
            return FAILED;
        }
    };
    if arguments.common.json {
        return say_json(&values(&records));
    }
    if records.is_empty() {
        say("Nothing was seen or done that fits.");
        return OK;
    }
    say(&listing(&records));
    OK
}

fn read(config: &Config, filter: &HistoryFilter) -> Result<Vec<Stamped>, String> {
    let reader = Reader::open(&config.journal.path).map_err(|error| error.to_string())?;
    if let Some(repo) = &filter.repo {
        known(config, &reader, repo)?;
    }
    reader.history(filter).map_err(|error| error.to_string())
}

/// Records for programs.
pub(super) fn values(records: &[Stamped]) -> Vec<Value> {
    let value = |stamped: &Stamped| json!({ "seq": stamped.seq, "at": Stamp(stamped.wall), "record": stamped.record });
    records.iter().map(value).collect()
}

/// Records as a table for people.
pub(super) fn listing(records: &[Stamped]) -> String {
    let attempts: BTreeMap<IntentId, String> = records
        .iter()
        .filter_map(|stamped| match &stamped.record {
            Record::Intent { id, intent, .. } => Some((*id, intent.attempt.to_string())),
            Record::Sighting(_)
            | Record::Outcome { .. }
            | Record::Closed { .. }
            | Record::Order(_)
            | Record::Finding(_)
            | Record::Ending(_) => None,
        })
        .collect();
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|stamped| row(stamped, &attempts))
        .collect();
    table(&["WHEN", "WHAT", "FOR", "DETAIL"], &rows)
}

fn row(stamped: &Stamped, attempts: &BTreeMap<IntentId, String>) -> Vec<String> {
    let attempt = |id| attempts.get(id).cloned().unwrap_or_default();
    let when = Stamp(stamped.wall).to_string();
    let [what, target, detail] = match &stamped.record {
        Record::Sighting(sighting) => [
            "seen".to_owned(),
            sighting.build.to_string(),
            format!(
                "{}, commit {}",
                cause(sighting.cause),
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
                "{}{} because {}: {}",
                intent.step.kind(),
                by(intent.by.as_deref()),
                intent.verdict,
                intent.evidence.join("; ")
            ),
        ],
        Record::Outcome { id, outcome, .. } => [
            format!("outcome {}", id.0),
            attempt(id),
            format!("{}: {}", outcome.as_str(), outcome.detail()),
        ],
        Record::Closed { id, closing, .. } => [
            format!("closed {}", id.0),
            attempt(id),
            closing.as_str().to_owned(),
        ],
        Record::Order(order) => order_row(order),
        Record::Finding(finding) => [
            "found".to_owned(),
            finding.attempt.to_string(),
            format!(
                "would send {} because {}: {}",
                steps(&finding.steps),
                finding.verdict,
                finding.evidence.join("; ")
            ),
        ],
        Record::Ending(ending) => [
            "over".to_owned(),
            ending.build.to_string(),
            format!("{}, was {}", ending.end.as_str(), ending.verdict),
        ],
    };
    vec![when, what, target, detail]
}

/// Requests in their order.
fn steps(steps: &[StepKind]) -> String {
    let steps: Vec<&str> = steps.iter().map(|step| step.as_str()).collect();
    steps.join(", ")
}

/// Who asked for something, where a person did.
pub(super) fn by(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(" by {name}"))
}

fn order_row(order: &Order) -> [String; 3] {
    match order {
        Order::Stop(stop) => {
            let lasts = stop.until.map_or_else(String::new, |until| {
                format!(" for {}", humantime::format_duration(until.since(stop.at)))
            });
            [
                stop.kind.as_str().to_owned(),
                stop.scope.to_string(),
                format!("by {}{lasts}: {}", stop.by, stop.reason),
            ]
        }
        Order::Go {
            kind, scope, by, ..
        } => [
            format!("not {} any more", kind.as_str()),
            scope
                .as_ref()
                .map_or_else(|| "everything".to_owned(), ToString::to_string),
            format!("by {by}"),
        ],
    }
}
