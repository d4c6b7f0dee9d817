//! `ci-watchdog status`.

use serde_json::{Value, json};

use super::daemon::{list, text};
use super::table::table;
use super::{Common, OK, block_on, daemon, load, say, say_json};
use crate::report::Stamp;

/// Asks the running watchdog and prints what it sees.
pub(super) fn main(arguments: &Common) -> u8 {
    let config = match load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let asked = block_on(async {
        let status = daemon::get(&config, &["api", "v1", "status"]).await?;
        let builds = daemon::get(&config, &["api", "v1", "builds"]).await?;
        Ok::<_, u8>((status, builds))
    });
    let (status, builds) = match asked {
        Ok(Ok(answers)) => answers,
        Ok(Err(code)) | Err(code) => return code,
    };
    if arguments.json {
        return say_json(&json!({ "status": status, "builds": builds }));
    }
    say(&format!("{}\n", summary(&status)));
    let builds = builds.as_array().map_or(&[][..], Vec::as_slice);
    if builds.is_empty() {
        say(&nothing_pending(&status));
    } else {
        let now = text(&status, "at");
        let rows: Vec<Vec<String>> = builds.iter().map(|it| build(it, now)).collect();
        say(&table(&["BUILD", "VERDICT", "SINCE", "HELD BY"], &rows));
    }
    OK
}

fn summary(status: &Value) -> String {
    let mut lines = vec![format!(
        "{} in mode {}, tick {} at {}",
        text(status, "version"),
        text(status, "mode"),
        status["tick"],
        text(status, "at")
    )];
    if let Some(why) = status["not_settled"].as_str() {
        lines.push(format!("not settled: {why}"));
    }
    if status["journal"]["writable"] == false && status["tick"] != 0 {
        lines.push(format!(
            "the journal cannot be written, so nothing is sent: {}",
            text(&status["journal"], "error")
        ));
    }
    for stop in list(status, "stops") {
        let word = match text(stop, "kind") {
            "pause" => "PAUSED",
            _ => "excluded",
        };
        let until = match text(stop, "until") {
            "" => String::new(),
            until => format!(" until {until}"),
        };
        lines.push(format!(
            "{word} {} by {}{until}: {}",
            text(stop, "scope"),
            text(stop, "by"),
            text(stop, "reason")
        ));
    }
    for source in list(status, "sources") {
        let state = match source["up"].as_bool() {
            Some(true) => "answers".to_owned(),
            Some(false) => format!("DOWN: {}", text(source, "error")),
            None => "not looked at yet".to_owned(),
        };
        lines.push(format!(
            "{} {} ({}): {state}",
            text(source, "role"),
            text(source, "source"),
            text(source, "kind")
        ));
        lines.extend(silence(source, text(status, "at")));
    }
    for zone in list(status, "zones") {
        let state = text(zone, "state");
        if state != "good" {
            lines.push(format!(
                "zone {}/{}: {state}: {}",
                text(zone, "provider"),
                text(zone, "builder"),
                text(zone, "reason")
            ));
        }
    }
    for queue in list(status, "queues") {
        let verdict = text(queue, "verdict");
        if verdict != "alive" {
            lines.push(format!(
                "queue {}/{}: {verdict}",
                text(queue, "bot"),
                text(queue, "repo")
            ));
        }
    }
    match list(status, "warnings") {
        [] => {}
        [warning] => lines.push(format!("warning: {}", warning.as_str().unwrap_or_default())),
        // A dozen of them would hide what is stuck.
        warnings => lines.push(format!(
            "{} warnings: the page and `status --json` list them",
            warnings.len()
        )),
    }
    lines.join("\n")
}

fn build(build: &Value, now: &str) -> Vec<String> {
    let kind = if build["try"] == true { " (try)" } else { "" };
    let hold = &build["hold"];
    let held = if hold.is_null() {
        String::new()
    } else {
        format!("{}: {}", text(hold, "gate"), text(hold, "reason"))
    };
    vec![
        format!("{}#{}{kind}", text(build, "repo"), build["pull"]),
        text(build, "verdict").to_owned(),
        since(text(build, "first_seen"), now),
        held,
    ]
}

/// The bots that gave no good answer at the last look.
pub(super) fn silent_bots(status: &Value) -> Vec<&str> {
    list(status, "sources")
        .iter()
        .filter(|source| source["role"] == "bot" && source["up"] != true)
        .map(|source| text(source, "source"))
        .collect()
}

/// Since when nothing at all came back from a source, and what holds its restart where that is due.
pub(super) fn silence(source: &Value, now: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(at) = source["silent_since"].as_str() {
        lines.push(format!(
            "  nothing at all came back from {} since {}",
            text(source, "source"),
            since(at, now)
        ));
    }
    let hold = &source["hold"];
    if !hold.is_null() {
        lines.push(format!(
            "  {} held by {}: {}",
            text(hold, "remedy"),
            text(hold, "gate"),
            text(hold, "reason")
        ));
    }
    lines
}

/// What an empty list of builds means: that of a bot which does not answer, nothing is known.
fn nothing_pending(status: &Value) -> String {
    let silent = silent_bots(status);
    if silent.is_empty() {
        "No bot waits for anything.".to_owned()
    } else {
        format!("What {} waits for is not known.", silent.join(", "))
    }
}

/// A time of the daemon's as it is seen at another of its times.
fn since(at: &str, now: &str) -> String {
    match (at.parse::<Stamp>(), now.parse()) {
        (Ok(at), Ok(now)) => at.seen_from(&now),
        _ => at.to_owned(),
    }
}
