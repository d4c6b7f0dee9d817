//! `ci-watchdog explain REPO#PR`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::daemon::{list, text, texts};
use super::repos::RepoPlace;
use super::status::{silence, silent_bots};
use super::{Explain, FAILED, OK, block_on, complain, daemon, history, load, say, say_json};
use crate::config::Config;
use crate::journal::{HistoryFilter, JournalError, Reader, Stamped};
use crate::model::{Record, RepoName};

/// The most of a pull request's records that are read from the journal.
const EARLIER_MAX: usize = 200;

/// A pull request as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PullName {
    place: RepoPlace,
    pull: u64,
}

impl FromStr for PullName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{name:?} names no pull request; write REPO#NUMBER, such as servo#1234 (in a shell \
                 quote it: a # may begin a comment), or BOT/REPO#NUMBER"
            )
        };
        let (place, number) = name.rsplit_once('#').ok_or_else(wrong)?;
        let pull = number.parse().map_err(|_| wrong())?;
        let place = place.parse().map_err(|_| wrong())?;
        Ok(Self { place, pull })
    }
}

impl fmt::Display for PullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.place, self.pull)
    }
}

impl PullName {
    pub(super) fn names(&self, value: &Value) -> bool {
        value["pull"].as_u64() == Some(self.pull) && self.place.has(value)
    }
}

/// Asks the running watchdog and prints everything that it knows of a pull request.
pub(super) fn main(arguments: &Explain) -> u8 {
    let config = match load(arguments.common.config.as_deref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let asked = block_on(async {
        let builds = daemon::get(&config, &["api", "v1", "builds"]).await?;
        let attempts = daemon::get(&config, &["api", "v1", "attempts"]).await?;
        let status = daemon::get(&config, &["api", "v1", "status"]).await?;
        Ok::<_, u8>((builds, attempts, status))
    });
    let (builds, attempts, status) = match asked {
        Ok(Ok(answers)) => answers,
        Ok(Err(code)) | Err(code) => return code,
    };
    let wanted = &arguments.pull;
    let mine = |value: &Value| -> Vec<Value> {
        let all = value.as_array().map_or(&[][..], Vec::as_slice);
        all.iter().filter(|v| wanted.names(v)).cloned().collect()
    };
    let (builds, attempts) = (mine(&builds), mine(&attempts));
    let queues: Vec<&Value> = list(&status, "queues")
        .iter()
        .filter(|queue| wanted.place.has(queue))
        .collect();
    if queues.is_empty() && builds.is_empty() {
        complain(&unknown(wanted, &status));
        return FAILED;
    }
    let told = builds
        .iter()
        .flat_map(|build| list(build, "attempts"))
        .chain(&attempts)
        .map(|attempt| text(attempt, "id").to_owned())
        .collect();
    let earlier = match earlier(&config, wanted, &told) {
        Ok(earlier) => earlier,
        Err(error) => {
            complain(&format!("what was done earlier is not shown: {error}"));
            Vec::new()
        }
    };
    if arguments.common.json {
        return say_json(&json!({
            "builds": builds, "queues": queues, "attempts": attempts,
            "earlier": history::values(&earlier),
        }));
    }
    if let Some(why) = status["not_settled"].as_str() {
        say(&format!("The watchdog is not settled: {why}"));
    }
    for source in list(&status, "sources") {
        let named = wanted.place.bot.as_deref();
        if text(source, "role") == "bot" && named.is_none_or(|bot| text(source, "source") == bot) {
            silence(source, text(&status, "at"))
                .iter()
                .for_each(|line| say(line.trim_start()));
        }
    }
    if builds.is_empty() {
        let (repo, pull) = (&wanted.place.repo, wanted.pull);
        let silent = silent_bots(&status);
        say(&if silent.is_empty() {
            format!("No bot waits for a build of {repo}#{pull}.")
        } else {
            let silent = silent.join(", ");
            format!("Whether {silent} waits for a build of {repo}#{pull} is not known.")
        });
    }
    for build in &builds {
        say(&explain(build));
    }
    for queue in queues {
        say(&explain_queue(queue));
    }
    if builds.is_empty() && !attempts.is_empty() {
        say("What was done, latest first:");
        for attempt in &attempts {
            say(&explain_attempt(attempt));
        }
    }
    if !earlier.is_empty() {
        say("What was done earlier, from the journal:");
        say(&history::listing(&earlier));
    }
    OK
}

/// The journal's records of requests for a pull request that the watchdog did not tell of any more.
fn earlier(
    config: &Config,
    wanted: &PullName,
    told: &BTreeSet<String>,
) -> Result<Vec<Stamped>, JournalError> {
    let filter = HistoryFilter {
        repo: Some(RepoName::new(&wanted.place.repo)),
        pull: Some(wanted.pull),
        limit: EARLIER_MAX,
        ..HistoryFilter::default()
    };
    let records = Reader::open(&config.journal.path)?.history(&filter)?;
    let mut intents = BTreeSet::new();
    Ok(records
        .into_iter()
        .filter(|stamped| match &stamped.record {
            Record::Sighting(_) | Record::Order(_) | Record::Finding(_) | Record::Ending(_) => {
                false
            }
            Record::Intent { id, intent, .. } => {
                let attempt = &intent.attempt;
                let bot = attempt.target.bot().as_str();
                let new = wanted.place.bot.as_ref().is_none_or(|wanted| wanted == bot)
                    && !told.contains(&attempt.to_string());
                if new {
                    intents.insert(*id);
                }
                new
            }
            Record::Outcome { id, .. } | Record::Closed { id, .. } => intents.contains(id),
        })
        .collect())
}

/// Why nothing is known of a pull request of such a name.
fn unknown(wanted: &PullName, status: &Value) -> String {
    let known: BTreeSet<String> = list(status, "queues")
        .iter()
        .map(|queue| format!("{}/{}", text(queue, "bot"), text(queue, "repo")))
        .collect();
    if known.is_empty() {
        return "no bot was read yet; `ci-watchdog status` says why".to_owned();
    }
    let known: Vec<String> = known.into_iter().collect();
    let bot = wanted.place.bot.as_deref().unwrap_or("no bot");
    let serves = if wanted.place.bot.is_some() {
        "does not serve"
    } else {
        "serves"
    };
    format!(
        "{bot} {serves} a repository called {:?}; it is the label in the bot's configuration, one \
         of: {}",
        wanted.place.repo,
        known.join(", ")
    )
}

fn explain(build: &Value) -> String {
    let kind = if build["try"] == true {
        "a try build"
    } else {
        "an auto build"
    };
    let sha = build["merge_sha"].as_str().unwrap_or("an unknown commit");
    let mut lines = vec![
        format!(
            "{}#{}: {} ({})",
            text(build, "repo"),
            build["pull"],
            text(build, "verdict"),
            text(build, "title")
        ),
        format!(
            "  {} waits for {kind} of {sha}, generation {}, first seen {}",
            text(build, "bot"),
            build["generation"],
            text(build, "first_seen")
        ),
    ];
    lines.extend(
        texts(build, "evidence")
            .iter()
            .map(|fact| format!("  {fact}")),
    );
    lines.push("  It waits for:".to_owned());
    for expectation in list(build, "expectations") {
        let provider = expectation["provider"].as_str().unwrap_or("no provider");
        lines.push(format!(
            "    {} ({provider}): {}",
            text(expectation, "builder"),
            text(expectation, "verdict")
        ));
        lines.extend(
            texts(expectation, "evidence")
                .iter()
                .map(|fact| format!("      {fact}")),
        );
        if let Some(deadline) = expectation["deadline"].as_str() {
            lines.push(format!("      due {deadline}"));
        }
        if let Some(url) = expectation["url"].as_str() {
            lines.push(format!("      {url}"));
        }
    }
    let holds = list(build, "holds");
    if holds.is_empty() {
        lines.push("  Nothing is held.".to_owned());
    }
    lines.extend(holds.iter().map(explain_hold));
    let attempts = list(build, "attempts");
    if attempts.is_empty() {
        lines.push("  Nothing was sent for it.".to_owned());
    } else {
        lines.push("  What was done, oldest first:".to_owned());
        lines.extend(attempts.iter().map(explain_attempt));
    }
    lines.join("\n")
}

fn explain_hold(hold: &Value) -> String {
    let until = hold["until"]
        .as_str()
        .map(|until| format!(", until {until}"))
        .unwrap_or_default();
    format!(
        "  {} is held by the gate {}: {}{until}\n    it would send: {}",
        text(hold, "remedy"),
        text(hold, "gate"),
        text(hold, "reason"),
        texts(hold, "plan").join(", then ")
    )
}

fn explain_queue(queue: &Value) -> String {
    let mut lines = vec![format!(
        "The queue of {}/{}: {}; {} pending, {} approved",
        text(queue, "bot"),
        text(queue, "repo"),
        text(queue, "verdict"),
        queue["pending"],
        queue["approved"]
    )];
    lines.extend(
        texts(queue, "evidence")
            .iter()
            .map(|fact| format!("  {fact}")),
    );
    if !queue["hold"].is_null() {
        lines.push(explain_hold(&queue["hold"]));
    }
    lines.join("\n")
}

fn explain_attempt(attempt: &Value) -> String {
    let steps: Vec<String> = list(attempt, "steps")
        .iter()
        .map(|step| {
            let outcome = step["outcome"].as_str().unwrap_or("outcome unknown");
            let closing = step["closing"].as_str().unwrap_or("its effect is awaited");
            format!("{} {outcome}, {closing}", text(step, "step"))
        })
        .collect();
    format!(
        "    {} {}{} for {}: {}",
        text(attempt, "at"),
        text(attempt, "remedy"),
        history::by(attempt["by"].as_str()),
        text(attempt, "verdict"),
        steps.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_request_is_named_with_or_without_its_bot() {
        let name: PullName = "servo#7".parse().unwrap();
        assert_eq!(
            (name.place.bot, name.place.repo.as_str(), name.pull),
            (None, "servo", 7)
        );
        let name: PullName = "homu/servo#7".parse().unwrap();
        assert_eq!(name.place.bot.as_deref(), Some("homu"));
        for wrong in [
            "", "servo", "#7", "servo#", "servo#x", "/servo#7", "homu/#7",
        ] {
            let error = wrong.parse::<PullName>().unwrap_err();
            assert!(error.contains("REPO#NUMBER"), "{error}");
        }
    }
}
