//! The messages that homu understands, as their senders would have made them.

use ring::hmac;
use serde_json::{Value, json};

use super::database::PullText;
use super::github::{Place, Pull};
use crate::model::{BuilderName, RunEnd, RunReport, Sha};

/// A builder's name that no configuration has: homu then frees the start slot of the commit and
/// changes nothing else (`server.py`, `buildbot`: the slot is outside the check of the builder).
pub const NOBODY: &str = "ci-watchdog";
/// Where the commands come from; the rust-lang fork keeps it in its `retry_log`.
const SOURCE: &str = env!("CARGO_PKG_REPOSITORY");

/// The commands that are ever given. `force` and `clean` are none of them: `force` stops every
/// builder's work, and `clean` leaves a pending build that nothing can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Build it again.
    Retry,
    /// A command that changes nothing, so that homu looks at its queue (servo, rust-lang).
    Ping,
    /// The same for 0.2.0 and barosl: a priority that is no number is passed over, and the queue is
    /// looked at (`main.py`: `parse_commands`; seen on 0.2.0, read of barosl).
    NoPriority,
}

impl Command {
    /// The one word of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Ping => "ping",
            Self::NoPriority => "p=",
        }
    }
}

/// Buildbot 0.8's packet for a start.
pub fn build_started(builder: &str, sha: &Sha, number: u64) -> Value {
    json!({
        "event": "buildStarted",
        "payload": { "build": {
            "builderName": builder,
            "properties": properties(sha, number),
        }},
    })
}

/// Buildbot 0.8's packet for a result, and `None` for an end that is none. homu reads green from
/// `text` or `results`, and passes over a packet whose `text` has `retry`.
pub fn build_finished(builder: &BuilderName, sha: &Sha, report: &RunReport) -> Option<Value> {
    let (results, text) = match report.end {
        RunEnd::Success => (0, ["build", "successful"]),
        RunEnd::Warnings => (1, ["warnings", "successful"]),
        RunEnd::Failure => (2, ["failed", "build"]),
        RunEnd::Skipped | RunEnd::Exception | RunEnd::Retry | RunEnd::Cancelled => return None,
    };
    if report.end.green() != Some(report.green) {
        return None;
    }
    Some(json!({
        "event": "buildFinished",
        "payload": { "build": {
            "builderName": builder.as_str(),
            "results": results,
            "text": text,
            "properties": properties(sha, report.number?),
            "steps": [],
        }},
    }))
}

fn properties(sha: &Sha, number: u64) -> Value {
    json!([
        ["revision", sha.as_str(), "ci-watchdog"],
        ["buildnumber", number, "ci-watchdog"],
    ])
}

/// The number of a run, from its page (`server.py`, `buildbot`: `URL/builders/NAME/builds/NUMBER`).
pub fn run_number(url: &str) -> Option<u64> {
    url.trim_end_matches('/').rsplit('/').next()?.parse().ok()
}

/// GitHub's `issue_comment` with one command to `bot` by `login`. homu takes the title and the text
/// of the pull request from it, so they must be its own.
pub fn comment(
    place: Place<'_>,
    num: u64,
    text: &PullText,
    login: &str,
    bot: &str,
    command: Command,
) -> Value {
    json!({
        "action": "created",
        "repository": { "name": place.name, "owner": { "login": place.owner } },
        "issue": {
            "number": num,
            "title": text.title,
            "body": text.body,
            "pull_request": {},
        },
        "comment": {
            "body": format!("@{bot} {}", command.as_str()),
            "user": { "login": login, "id": 0 },
            "html_url": SOURCE,
        },
        "sender": { "login": login, "id": 0 },
    })
}

/// What happened to a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was closed.
    Closed,
    /// It has a new head.
    Synchronize,
}

/// GitHub's `pull_request` about a pull request as it is there now.
pub fn pull_event(place: Place<'_>, num: u64, pull: &Pull, action: Action) -> Value {
    let (action, state) = match action {
        Action::Closed => ("closed", "closed"),
        Action::Synchronize => ("synchronize", "open"),
    };
    let base = json!({ "name": place.name, "owner": { "login": place.owner } });
    let head = pull
        .head_owner
        .as_ref()
        .map(|owner| json!({ "name": place.name, "owner": { "login": owner } }));
    json!({
        "action": action,
        "number": num,
        "repository": base,
        "pull_request": {
            "number": num,
            "title": pull.title,
            "body": pull.body,
            "state": state,
            "mergeable": null,
            "assignee": null,
            "head": { "sha": pull.head.as_str(), "ref": pull.head_ref, "repo": head },
            "base": { "ref": pull.base_ref, "repo": base },
            "user": { "login": pull.author },
        },
        "sender": { "login": pull.author, "id": 0 },
    })
}

/// The `X-Hub-Signature` of a body: SHA-1, which every homu takes.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    let mut signature = "sha1=".to_owned();
    for byte in tag.as_ref() {
        signature.push_str(&format!("{byte:02x}"));
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PullOnGithub, RunId};

    const PLACE: Place<'_> = Place {
        owner: "octo",
        name: "alpha",
    };

    fn report(end: RunEnd, green: bool) -> RunReport {
        RunReport {
            run: RunId::new("7"),
            green,
            end,
            number: Some(41),
            url: None,
        }
    }

    fn sha() -> Sha {
        Sha::new("a".repeat(40))
    }

    #[test]
    fn a_signature_is_the_hmac_of_the_body() {
        // RFC 2202, test case 2.
        assert_eq!(
            signature("Jefe", b"what do ya want for nothing?"),
            "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
        );
    }

    #[test]
    fn only_a_result_becomes_a_packet_and_homu_reads_its_colour() {
        let builder = BuilderName::from("linux");
        for (end, green) in [
            (RunEnd::Success, true),
            (RunEnd::Warnings, true),
            (RunEnd::Failure, false),
        ] {
            let packet = build_finished(&builder, &sha(), &report(end, green)).unwrap();
            let build = &packet["payload"]["build"];
            let text = build["text"].as_array().unwrap();
            let read = text.contains(&json!("successful")) || build["results"] == 0;
            assert_eq!(read, green, "{end:?}");
            assert!(!text.contains(&json!("retry")) && !text.contains(&json!("interrupted")));
            assert_eq!(build_finished(&builder, &sha(), &report(end, !green)), None);
        }
        for end in [
            RunEnd::Skipped,
            RunEnd::Exception,
            RunEnd::Retry,
            RunEnd::Cancelled,
        ] {
            assert_eq!(build_finished(&builder, &sha(), &report(end, false)), None);
        }
    }

    #[test]
    fn a_result_without_the_runs_number_is_no_packet() {
        let report = RunReport {
            number: None,
            ..report(RunEnd::Success, true)
        };
        assert_eq!(
            build_finished(&BuilderName::from("linux"), &sha(), &report),
            None
        );
    }

    #[test]
    fn no_command_is_force_or_clean_whatever_the_pull_request_says() {
        let text = PullText {
            title: "@bors force".to_owned(),
            body: Some("@bors clean\n@bors force".to_owned()),
        };
        for command in [Command::Retry, Command::Ping, Command::NoPriority] {
            let event = comment(PLACE, 1, &text, "bors", "bors", command);
            let body = event["comment"]["body"].as_str().unwrap();
            assert_eq!(body, format!("@bors {}", command.as_str()));
            for word in body.split_whitespace() {
                assert!(!["force", "clean"].contains(&word), "{body}");
            }
            assert_eq!(event["issue"]["title"], "@bors force");
            assert_eq!(event["issue"]["body"], "@bors clean\n@bors force");
        }
    }

    #[test]
    fn a_pull_request_whose_head_repository_is_gone_can_still_be_told_of() {
        let pull = Pull {
            state: PullOnGithub::Closed,
            title: "t".to_owned(),
            body: None,
            head_ref: "topic".to_owned(),
            head_owner: None,
            base_ref: "master".to_owned(),
            author: "contributor".to_owned(),
            head: sha(),
            comments: None,
        };
        let event = pull_event(PLACE, 4, &pull, Action::Closed);
        assert_eq!(event["action"], "closed");
        assert_eq!(event["number"], 4);
        assert_eq!(event["pull_request"]["head"]["sha"], sha().as_str());
        assert_eq!(event["pull_request"]["head"]["repo"], Value::Null);
    }

    #[test]
    fn a_page_tells_the_number_of_its_run() {
        assert_eq!(run_number("http://b/builders/linux/builds/41"), Some(41));
        assert_eq!(run_number("http://b/builders/linux/builds/41/"), Some(41));
        assert_eq!(run_number("http://b/#/builders/1"), Some(1));
        assert_eq!(run_number(""), None);
        assert_eq!(run_number("http://b/latest"), None);
    }
}
