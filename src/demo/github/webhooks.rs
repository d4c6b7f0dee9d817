//! The webhook payloads of the fake GitHub, and the signatures on them.

use ring::hmac;
use serde_json::{Value, json};

use super::answers::{Answers, time};
use super::repository::{NO_SHA, Repository};
use super::world::{Event, Refusal};

/// One event as GitHub sends it to a webhook.
pub struct Payload {
    /// `X-GitHub-Event`.
    pub event: &'static str,
    pub action: Option<&'static str>,
    pub body: Value,
}

/// Makes the payload of an event.
///
/// # Errors
///
/// [`Refusal::NotThere`] when what the event speaks of was forgotten meanwhile.
pub fn payload(
    answers: &Answers<'_>,
    repository: &Repository,
    event: &Event,
) -> Result<Payload, Refusal> {
    match event {
        Event::Push {
            reference,
            before,
            after,
            forced,
            sender,
        } => {
            let head = repository.commits.get(after).map(|commit| {
                json!({
                    "id": commit.sha,
                    "tree_id": commit.sha,
                    "distinct": true,
                    "message": commit.message,
                    "timestamp": time(commit.at),
                    "url": answers.commit(repository, commit)["html_url"],
                    "author": {"name": commit.author, "username": commit.author},
                    "committer": {"name": commit.author, "username": commit.author},
                    "added": [],
                    "removed": [],
                    "modified": [],
                })
            });
            let mut whose = answers.repository(repository);
            // Only in this payload the owner has a `name` beside its `login`.
            whose["owner"]["name"] = json!(repository.owner);
            Ok(Payload {
                event: "push",
                action: None,
                body: json!({
                    "ref": reference,
                    "before": before,
                    "after": after,
                    "created": before == NO_SHA,
                    "deleted": after == NO_SHA,
                    "forced": forced,
                    "base_ref": null,
                    "compare": "",
                    "commits": head.iter().collect::<Vec<_>>(),
                    "head_commit": head,
                    "repository": whose,
                    "pusher": {"name": sender, "email": format!("{sender}@example.com")},
                    "sender": answers.user(sender),
                }),
            })
        }
        Event::Pull {
            action,
            number,
            before,
            sender,
        } => {
            let pull = repository.pull(*number)?;
            let mut body = json!({
                "action": action,
                "number": number,
                "pull_request": answers.pull(repository, pull),
                "repository": answers.repository(repository),
                "sender": answers.user(sender),
            });
            if let Some(before) = before {
                body["before"] = json!(before);
                body["after"] = json!(pull.head_sha);
            }
            Ok(Payload {
                event: "pull_request",
                action: Some(action),
                body,
            })
        }
        Event::Comment { id, sender } => {
            let comment = repository
                .comments
                .iter()
                .find(|comment| comment.id == *id)
                .ok_or_else(|| Refusal::NotThere(format!("comment {id}")))?;
            let pull = repository.pull(comment.pull)?;
            Ok(Payload {
                event: "issue_comment",
                action: Some("created"),
                body: json!({
                    "action": "created",
                    "issue": answers.issue(repository, pull),
                    "comment": answers.comment(repository, comment),
                    "repository": answers.repository(repository),
                    "sender": answers.user(sender),
                }),
            })
        }
        Event::Status { id, sender } => {
            let status = repository
                .statuses
                .iter()
                .find(|status| status.id == *id)
                .ok_or_else(|| Refusal::NotThere(format!("status {id}")))?;
            let branches = repository
                .refs
                .iter()
                .filter(|(_, sha)| **sha == status.sha)
                .filter_map(|(reference, sha)| {
                    let name = reference.strip_prefix("heads/")?;
                    Some(json!({"name": name, "commit": {"sha": sha}, "protected": false}))
                });
            Ok(Payload {
                event: "status",
                action: None,
                body: json!({
                    "id": status.id,
                    "sha": status.sha,
                    "name": repository.full_name(),
                    "target_url": status.target_url,
                    "avatar_url": null,
                    "context": status.context,
                    "description": status.description,
                    "state": status.state,
                    "commit": repository
                        .commits
                        .get(&status.sha)
                        .map(|commit| answers.commit(repository, commit)),
                    "branches": branches.collect::<Vec<_>>(),
                    "created_at": time(status.at),
                    "updated_at": time(status.at),
                    "repository": answers.repository(repository),
                    "sender": answers.user(sender),
                }),
            })
        }
    }
}

/// The value of `X-Hub-Signature`, the older of GitHub's two signatures.
pub fn signature_sha1(secret: &str, body: &[u8]) -> String {
    signature("sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret, body)
}

/// The value of `X-Hub-Signature-256`.
pub fn signature_sha256(secret: &str, body: &[u8]) -> String {
    signature("sha256", hmac::HMAC_SHA256, secret, body)
}

fn signature(name: &str, algorithm: hmac::Algorithm, secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{name}={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_published_example() {
        // GitHub's page "Validating webhook deliveries", section on testing.
        let (secret, body) = ("It's a Secret to Everybody", b"Hello, World!");
        assert_eq!(
            signature_sha256(secret, body),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
        assert!(signature_sha1(secret, body).starts_with("sha1="));
        assert_eq!(signature_sha1(secret, body).len(), "sha1=".len() + 40);
    }
}
