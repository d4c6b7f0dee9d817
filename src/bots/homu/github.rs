//! What only GitHub tells of a homu's pull requests: their true state, the head under test, the
//! commit of a try build, who approved what.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use crate::http::{Answer, Client, Request};
use crate::model::{ProbeError, ProbeFailure, PullOnGithub, Quota, Sha};
use crate::secret::Secret;

/// Commits never change, so their parents are kept; so many at most.
const PARENTS_MAX: usize = 1024;
/// The longest list of comments that is read, pages of 100.
const COMMENT_PAGES_MAX: usize = 5;
/// Lists of comments are long: bytes of a page.
const COMMENTS_MAX: usize = 4 << 20;

/// GitHub with homu's token.
pub struct Github {
    client: Client,
    base: Url,
    token: Secret,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    parents: BTreeMap<String, Vec<Sha>>,
    login: Option<String>,
    quota: Option<Quota>,
    /// GitHub asked to be left alone until then, for this reason.
    rest: Option<(Instant, ProbeError)>,
}

/// A pull request, as GitHub has it.
#[derive(Clone, Debug)]
pub struct Pull {
    /// Open with which head, or closed.
    pub state: PullOnGithub,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: Option<String>,
    /// The head's branch and the login of its owner.
    pub head_ref: String,
    /// See `head_ref`.
    pub head_owner: String,
    /// The branch that it is for.
    pub base_ref: String,
    /// The head, also of a closed one.
    pub head: Sha,
}

impl Github {
    /// A GitHub at this base URL, asked with homu's token.
    pub fn new(client: Client, base: Url, token: Secret) -> Self {
        Self {
            client,
            base,
            token,
            state: Mutex::default(),
        }
    }

    /// The login that the token belongs to: the name that homu answers to (`main.py`: `gh.user().login`).
    ///
    /// # Errors
    ///
    /// Any failed request.
    pub async fn login(&self) -> Result<String, ProbeError> {
        if let Some(login) = self.lock().login.clone() {
            return Ok(login);
        }
        let user: User = self.ask(&["user"], &[]).await?.json()?;
        self.lock().login = Some(user.login.clone());
        Ok(user.login)
    }

    /// A pull request.
    ///
    /// # Errors
    ///
    /// Any failed request.
    pub async fn pull(&self, owner: &str, name: &str, num: u64) -> Result<Pull, ProbeError> {
        let num = num.to_string();
        let answer = self
            .ask(&["repos", owner, name, "pulls", &num], &[])
            .await?;
        let pull: RawPull = answer.json()?;
        let head = Sha::new(pull.head.sha);
        Ok(Pull {
            state: match pull.state.as_str() {
                "open" => PullOnGithub::Open { head: head.clone() },
                "closed" => PullOnGithub::Closed,
                other => {
                    return Err(ProbeError::new(
                        ProbeFailure::Parse,
                        format!("{}: a pull request is {other:?}", answer.shown_url),
                    ));
                }
            },
            title: pull.title,
            body: pull.body,
            head_owner: pull.head.user.map(|user| user.login).unwrap_or_default(),
            head_ref: pull.head.name,
            base_ref: pull.base.name,
            head,
        })
    }

    /// The parents of a commit, in order; for a merge made by homu: the base, then the head.
    ///
    /// # Errors
    ///
    /// Any failed request.
    pub async fn parents(
        &self,
        owner: &str,
        name: &str,
        sha: &Sha,
    ) -> Result<Vec<Sha>, ProbeError> {
        let key = format!("{owner}/{name} {sha}");
        if let Some(parents) = self.lock().parents.get(&key).cloned() {
            return Ok(parents);
        }
        let path = ["repos", owner, name, "commits", sha.as_str()];
        let commit: Commit = self.ask(&path, &[]).await?.json()?;
        let parents: Vec<Sha> = commit
            .parents
            .into_iter()
            .map(|p| Sha::new(p.sha))
            .collect();
        let mut state = self.lock();
        if state.parents.len() >= PARENTS_MAX {
            state.parents.pop_first();
        }
        state.parents.insert(key, parents.clone());
        Ok(parents)
    }

    /// The commit that a branch points at; `None`: there is no such branch.
    ///
    /// # Errors
    ///
    /// Any failed request but 404.
    pub async fn branch(
        &self,
        owner: &str,
        name: &str,
        branch: &str,
    ) -> Result<Option<Sha>, ProbeError> {
        let mut path = vec!["repos", owner, name, "git", "ref", "heads"];
        path.extend(branch.split('/'));
        let answer = self.answer(&path, &[]).await?;
        if answer.status == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let reference: Reference = answer.success()?.json()?;
        Ok(Some(Sha::new(reference.object.sha)))
    }

    /// The comments on a pull request as (login, text), oldest first; `None`: there are too many to
    /// be read.
    ///
    /// # Errors
    ///
    /// Any failed request.
    pub async fn comments(
        &self,
        owner: &str,
        name: &str,
        num: u64,
    ) -> Result<Option<Vec<(String, String)>>, ProbeError> {
        let num = num.to_string();
        let path = ["repos", owner, name, "issues", &num, "comments"];
        let mut comments = Vec::new();
        for page in 1..=COMMENT_PAGES_MAX {
            let page = page.to_string();
            let query = [("per_page", "100"), ("page", page.as_str())];
            let raw: Vec<RawComment> = self.ask(&path, &query).await?.json()?;
            let last = raw.len() < 100;
            comments.extend(raw.into_iter().map(|comment| {
                let login = comment.user.map(|user| user.login).unwrap_or_default();
                (login, comment.body.unwrap_or_default())
            }));
            if last {
                return Ok(Some(comments));
            }
        }
        Ok(None)
    }

    /// The rate limit, as the latest answer told it.
    pub fn quota(&self) -> Option<Quota> {
        self.lock().quota
    }

    async fn ask(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, ProbeError> {
        let answer = self.answer(path, query).await?.success();
        if let Err(error) = &answer
            && let Some(rest) = error.retry_after
        {
            self.lock().rest = Some((Instant::now() + rest, error.clone()));
        }
        answer
    }

    async fn answer(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, ProbeError> {
        if let Some((until, error)) = self.lock().rest.clone()
            && Instant::now() < until
        {
            return Err(error);
        }
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = Request::get(url)
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28")
            .authorization(&format!("token {}", self.token.expose()))
            .body_max(COMMENTS_MAX)
            .conditional();
        let answer = self.client.send(request).await?;
        if let Some(quota) = answer.quota() {
            self.lock().quota = Some(quota);
        }
        Ok(answer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The head that the newest approval among comments names: homu's own
/// `<!-- @BOT r=NAME SHA -->` (`main.py`: `parse_commands`) or a reviewer's `@BOT r+ SHA`.
pub fn approved_head(
    comments: &[(String, String)],
    bot: &str,
    reviewers: &[String],
) -> Option<String> {
    let mention = format!("@{bot}");
    let mut head = None;
    for (login, body) in comments {
        if login != bot && !reviewers.contains(login) {
            continue;
        }
        for line in body.lines().filter(|line| line.contains(&mention)) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2) {
                let [command, sha] = pair else { continue };
                let approves = *command == "r+" || command.starts_with("r=");
                let hex = sha.len() >= 4 && sha.chars().all(|c| c.is_ascii_hexdigit());
                if approves && hex {
                    head = Some((*sha).to_owned());
                }
            }
        }
    }
    head
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct RawPull {
    state: String,
    title: String,
    body: Option<String>,
    head: Branch,
    base: Branch,
}

#[derive(Deserialize)]
struct Branch {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
    user: Option<User>,
}

#[derive(Deserialize)]
struct Commit {
    parents: Vec<Object>,
}

#[derive(Deserialize)]
struct Reference {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    sha: String,
}

#[derive(Deserialize)]
struct RawComment {
    user: Option<User>,
    body: Option<String>,
}
