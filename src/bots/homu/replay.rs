//! The messages that homu understands, as their senders would have made them.

use ring::hmac;
use serde_json::{Value, json};

use super::github::Pull;
use crate::model::{BuilderName, RunEnd, RunReport, Sha};

/// A builder's name that no configuration has: homu then frees the start slot of the commit and
/// changes nothing else (`server.py`: `buildbot`, the slot is outside the check of the builder).
pub const NOBODY: &str = "ci-watchdog";

/// Buildbot 0.8's packet for a start.
pub fn build_started(builder: &str, sha: &Sha, number: u64) -> Value {
    json!({
        "event": "buildStarted",
        "payload": { "build": {
            "builderName": builder,
            "properties": [
                ["revision", sha.as_str(), "ci-watchdog"],
                ["buildnumber", number, "ci-watchdog"],
            ],
        }},
    })
}

/// Buildbot 0.8's packet for a result. homu reads green from `text` or `results`.
pub fn build_finished(builder: &BuilderName, sha: &Sha, report: &RunReport) -> Value {
    let (results, text) = match report.end {
        RunEnd::Success => (0, ["build", "successful"]),
        RunEnd::Warnings => (1, ["warnings", "successful"]),
        RunEnd::Failure => (2, ["failed", "build"]),
        RunEnd::Skipped => (3, ["skipped", "build"]),
        RunEnd::Exception => (4, ["exception", "build"]),
        RunEnd::Retry => (5, ["retry", "build"]),
        RunEnd::Cancelled => (6, ["cancelled", "build"]),
    };
    json!({
        "event": "buildFinished",
        "payload": { "build": {
            "builderName": builder.as_str(),
            "results": results,
            "text": text,
            "properties": [
                ["revision", sha.as_str(), "ci-watchdog"],
                ["buildnumber", report.number.unwrap_or(0), "ci-watchdog"],
            ],
            "steps": [],
        }},
    })
}

/// GitHub's `issue_comment` with a command. homu takes title and body of the pull request from it,
/// so they must be the true ones.
pub fn comment(
    owner: &str,
    name: &str,
    num: u64,
    pull: &PullText,
    login: &str,
    command: &str,
) -> Value {
    json!({
        "action": "created",
        "repository": { "name": name, "owner": { "login": owner } },
        "issue": {
            "number": num,
            "title": pull.title,
            "body": pull.body,
            "pull_request": {},
        },
        "comment": {
            "body": command,
            "user": { "login": login, "id": 0 },
            "html_url": "https://github.com/ci-watchdog/ci-watchdog",
        },
        "sender": { "login": login },
    })
}

/// GitHub's `pull_request` with an action.
pub fn pull_event(owner: &str, name: &str, num: u64, pull: &Pull, action: &str) -> Value {
    let base_owner = json!({ "login": owner });
    json!({
        "action": action,
        "number": num,
        "repository": { "name": name, "owner": base_owner },
        "pull_request": {
            "number": num,
            "title": pull.title,
            "body": pull.body,
            "state": if action == "closed" { "closed" } else { "open" },
            "merged": false,
            "mergeable": null,
            "assignee": null,
            "head": {
                "sha": pull.head.as_str(),
                "ref": pull.head_ref,
                "repo": { "name": name, "owner": { "login": pull.head_owner } },
                "user": { "login": pull.head_owner },
            },
            "base": { "ref": pull.base_ref, "repo": { "name": name, "owner": base_owner } },
            "user": { "login": pull.head_owner },
        },
        "sender": { "login": pull.head_owner },
    })
}

/// A pull request's own words.
#[derive(Clone, Debug)]
pub struct PullText {
    /// The title.
    pub title: String,
    /// The text.
    pub body: Option<String>,
}

/// The `X-Hub-Signature` of a body: SHA-1, which every homu takes.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha1={hex}")
}
