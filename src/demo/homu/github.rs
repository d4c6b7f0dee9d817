//! The fake homu's calls to GitHub, in the order and form in which homu 0.2.0 makes them.

use std::io;

use reqwest::Method;
use serde_json::{Value, json};

use super::super::client::Client;

/// GitHub as the bot sees it.
pub struct Github {
    client: Client,
    url: String,
    authorization: String,
}

/// Why a call came to nothing; in homu it is an exception that becomes a 500.
#[derive(Debug)]
pub enum Refused {
    /// GitHub answered with this status and words.
    Status(u16, String),
    /// It did not answer.
    Unanswered(String),
}

impl Github {
    /// GitHub at `url`, with the bot's token.
    pub fn new(url: &str, token: &str) -> io::Result<Self> {
        let client = Client::new("fake-homu")?;
        Ok(Self {
            client,
            url: url.to_owned(),
            authorization: format!("token {token}"),
        })
    }

    /// The bot's own login.
    pub async fn login(&self) -> Result<String, Refused> {
        let user = self.call(Method::GET, "/user", None, 200).await?;
        Ok(user["login"].as_str().unwrap_or_default().to_owned())
    }

    /// A pull request.
    pub async fn pull(&self, repo: &str, number: u64) -> Result<Value, Refused> {
        self.call(
            Method::GET,
            &format!("/repos/{repo}/pulls/{number}"),
            None,
            200,
        )
        .await
    }

    /// The comments of a pull request.
    pub async fn comments(&self, repo: &str, number: u64) -> Result<Vec<Value>, Refused> {
        let path = format!("/repos/{repo}/issues/{number}/comments?per_page=100");
        match self.call(Method::GET, &path, None, 200).await? {
            Value::Array(comments) => Ok(comments),
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_)) => Err(Refused::Unanswered(format!("{path}: not a list: {other}"))),
        }
    }

    /// The commit that a ref such as `heads/master` points at.
    pub async fn reference(&self, repo: &str, reference: &str) -> Result<String, Refused> {
        let path = format!("/repos/{repo}/git/refs/{reference}");
        let answer = self.call(Method::GET, &path, None, 200).await?;
        Ok(answer["object"]["sha"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// The parents of a commit.
    pub async fn parents(&self, repo: &str, sha: &str) -> Result<Vec<String>, Refused> {
        let path = format!("/repos/{repo}/commits/{sha}");
        let answer = self.call(Method::GET, &path, None, 200).await?;
        let parents = answer["parents"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        Ok(parents
            .iter()
            .filter_map(|parent| Some(parent["sha"].as_str()?.to_owned()))
            .collect())
    }

    /// Moves a ref, or creates it where there is none (`github_set_ref` in homu's `utils.py`).
    pub async fn set_reference(
        &self,
        repo: &str,
        reference: &str,
        sha: &str,
        force: bool,
    ) -> Result<(), Refused> {
        let path = format!("/repos/{repo}/git/refs/{reference}");
        let body = json!({"sha": sha, "force": force});
        match self.call(Method::PATCH, &path, Some(&body), 200).await {
            Ok(_) => Ok(()),
            Err(Refused::Status(422, _)) => {
                let path = format!("/repos/{repo}/git/refs");
                let body = json!({"ref": format!("refs/{reference}"), "sha": sha});
                self.call(Method::POST, &path, Some(&body), 201)
                    .await
                    .map(|_| ())
            }
            Err(refused) => Err(refused),
        }
    }

    /// Merges `head` into a branch; `None` where there is nothing to merge.
    pub async fn merge(
        &self,
        repo: &str,
        branch: &str,
        head: &str,
        message: &str,
    ) -> Result<Option<String>, Refused> {
        let path = format!("/repos/{repo}/merges");
        let body = json!({"base": branch, "head": head, "commit_message": message});
        match self.call(Method::POST, &path, Some(&body), 201).await {
            Ok(commit) => Ok(commit["sha"].as_str().map(str::to_owned)),
            Err(Refused::Status(204, _)) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Sets the status `homu` of a commit.
    pub async fn set_status(
        &self,
        repo: &str,
        sha: &str,
        state: &str,
        target_url: &str,
        description: &str,
    ) -> Result<(), Refused> {
        let path = format!("/repos/{repo}/statuses/{sha}");
        let body = json!({
            "state": state,
            "target_url": target_url,
            "description": description,
            "context": "homu",
        });
        self.call(Method::POST, &path, Some(&body), 201)
            .await
            .map(|_| ())
    }

    /// Comments on a pull request.
    pub async fn comment(&self, repo: &str, number: u64, body: &str) -> Result<(), Refused> {
        let path = format!("/repos/{repo}/issues/{number}/comments");
        self.call(Method::POST, &path, Some(&json!({"body": body})), 201)
            .await
            .map(|_| ())
    }

    /// Asks an old Buildbot to build again, and returns the words of its answer.
    pub async fn ask_rebuild(&self, url: &str) -> Result<String, Refused> {
        let form = [
            ("useSourcestamp", "exact"),
            ("comments", "Initiated by Homu"),
        ];
        match self.client.form(&format!("{url}/rebuild"), &form).await {
            Ok(answer) => Ok(answer.text()),
            Err(error) => Err(Refused::Unanswered(error.to_string())),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        good: u16,
    ) -> Result<Value, Refused> {
        let url = format!("{}{path}", self.url);
        let headers = [("authorization", self.authorization.as_str())];
        match self.client.json(method, &url, &headers, body).await {
            Ok(answer) if answer.status == good => Ok(answer.value()),
            Ok(answer) => Err(Refused::Status(answer.status, answer.text())),
            Err(error) => Err(Refused::Unanswered(format!("{path}: {error}"))),
        }
    }
}
