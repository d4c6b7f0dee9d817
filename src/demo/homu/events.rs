//! GitHub's webhooks as the fake homu hears them (`github` in homu's `server.py`).

use axum::http::HeaderMap;
use ring::hmac;
use serde_json::Value;

use super::pull::PullState;
use super::queue::{Failure, Homu};

impl Homu {
    /// Hears one webhook.
    pub async fn hear_webhook(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
        let info: Value = serde_json::from_slice(body)
            .map_err(|error| Failure::Exception(format!("not JSON: {error}")))?;
        let owner = &info["repository"]["owner"];
        let owner = owner["login"]
            .as_str()
            .map_or_else(|| text(owner, "/name"), Ok)?;
        let name = text(&info, "/repository/name")?;
        let (label, repo) = self
            .options
            .repos
            .iter()
            .find(|(_, repo)| repo.owner == owner && repo.name == name)
            .ok_or_else(|| Failure::Exception(format!("KeyError: {owner}/{name}")))?;
        check_signature(headers, &repo.github_secret, body)?;
        let label = label.clone();
        match header(headers, "x-github-event")? {
            "issue_comment" => self.hear_comment(&label, &info).await,
            "pull_request_review_comment" => self.hear_review_comment(&label, &info).await,
            "pull_request" => self.hear_pull(&label, &info).await,
            "push" => self.hear_push(&label, &info).await,
            _ => Ok(()),
        }
    }

    async fn hear_comment(&mut self, label: &str, info: &Value) -> Result<(), Failure> {
        let body = text(info, "/comment/body")?;
        let author = text(info, "/comment/user/login")?;
        let number = number(info, "/issue/number")?;
        if info["issue"].get("pull_request").is_none() {
            return Ok(());
        }
        let Ok(pull) = self.pull(label, number) else {
            return Ok(());
        };
        // homu believes what the message says of title and text.
        text(info, "/issue/title")?.clone_into(&mut pull.title);
        info["issue"]["body"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut pull.body);
        if self.obey(label, number, body, author, true, "").await? {
            self.process_queue().await?;
        }
        Ok(())
    }

    async fn hear_review_comment(&mut self, label: &str, info: &Value) -> Result<(), Failure> {
        let sha = text(info, "/comment/original_commit_id")?;
        if text(info, "/action")? == "created" && sha == text(info, "/pull_request/head/sha")? {
            let number = number(info, "/pull_request/number")?;
            let body = text(info, "/comment/body")?;
            let author = text(info, "/sender/login")?;
            if self.obey(label, number, body, author, true, sha).await? {
                self.process_queue().await?;
            }
        }
        Ok(())
    }

    async fn hear_pull(&mut self, label: &str, info: &Value) -> Result<(), Failure> {
        let number = number(info, "/number")?;
        let head_sha = text(info, "/pull_request/head/sha")?;
        match text(info, "/action")? {
            "synchronize" => {
                self.head_advanced(label, number, head_sha)?;
                self.refresh_mergeable(label, number).await
            }
            action @ ("opened" | "reopened") => {
                let pull = &info["pull_request"];
                let mut state = PullState::new(number, head_sha);
                text(pull, "/title")?.clone_into(&mut state.title);
                pull["body"]
                    .as_str()
                    .unwrap_or_default()
                    .clone_into(&mut state.body);
                let owner = text(pull, "/head/repo/owner/login")?;
                state.head_ref = format!("{owner}:{}", text(pull, "/head/ref")?);
                text(pull, "/base/ref")?.clone_into(&mut state.base_ref);
                state.mergeable = pull["mergeable"].as_bool();
                self.database
                    .store_mergeable(label, number, state.mergeable)?;
                self.pulls
                    .entry(label.to_owned())
                    .or_default()
                    .insert(number, state);
                if action == "reopened" && self.obey_old_comments(label, number).await? {
                    self.process_queue().await?;
                }
                Ok(())
            }
            "closed" => {
                self.pull(label, number)?;
                if let Some(pulls) = self.pulls.get_mut(label) {
                    pulls.remove(&number);
                }
                self.database.forget(label, number)?;
                self.process_queue().await
            }
            _ => Ok(()),
        }
    }

    async fn obey_old_comments(&mut self, label: &str, number: u64) -> Result<bool, Failure> {
        let full_name = self.repo(label)?.full_name();
        let mut obeyed = false;
        for comment in self.github.comments(&full_name, number).await? {
            let body = text(&comment, "/body")?;
            let author = text(&comment, "/user/login")?;
            obeyed |= self.obey(label, number, body, author, false, "").await?;
        }
        Ok(obeyed)
    }

    async fn hear_push(&mut self, label: &str, info: &Value) -> Result<(), Failure> {
        let reference = text(info, "/ref")?;
        let branch = reference.strip_prefix("refs/heads/").unwrap_or_default();
        let before = text(info, "/before")?;
        let pulls: Vec<PullState> = self
            .pulls
            .get(label)
            .into_iter()
            .flat_map(|pulls| pulls.values().cloned())
            .collect();
        for pull in pulls {
            if pull.base_ref == branch {
                self.refresh_mergeable(label, pull.number).await?;
            }
            if pull.head_sha == before {
                self.head_advanced(label, pull.number, text(info, "/after")?)?;
            }
        }
        Ok(())
    }
}

/// A string at a JSON pointer; homu fails with a `KeyError` where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, Failure> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::Exception(format!("KeyError: {pointer}")))
}

fn number(value: &Value, pointer: &str) -> Result<u64, Failure> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .ok_or_else(|| Failure::Exception(format!("KeyError: {pointer}")))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Failure> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| Failure::Exception(format!("KeyError: {name}")))
}

fn check_signature(headers: &HeaderMap, secret: &str, body: &[u8]) -> Result<(), Failure> {
    let (algorithm, signature) = header(headers, "x-hub-signature")?
        .split_once('=')
        .ok_or_else(|| Failure::Exception("ValueError: X-Hub-Signature".to_owned()))?;
    let algorithm = match algorithm {
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hmac::HMAC_SHA256,
        other => return Err(Failure::Exception(format!("unsupported hash type {other}"))),
    };
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .filter_map(|at| u8::from_str_radix(signature.get(at..at + 2)?, 16).ok())
        .collect();
    hmac::verify(
        &hmac::Key::new(algorithm, secret.as_bytes()),
        body,
        &signature,
    )
    .map_err(|_| Failure::Refused("Invalid signature"))
}
