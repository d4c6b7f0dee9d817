//! What only GitHub tells of a homu's pull requests: their true state, the head under test, the
//! commit of a try build, who approved what. Few requests at a time, and none while it asks for rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::approval::{Comment, Speakers, newest_head};
use crate::http::{Answer, Client, Request};
use crate::model::{ProbeError, ProbeFailure, PullOnGithub, Quota, Sha};
use crate::secret::Secret;

/// Requests at a time. GitHub's documentation asks for them one after the other rather than at once,
/// and limits at a hundred; a look that asks about a whole queue would take too long for that.
pub const AT_ONCE: usize = 4;
/// Commits never change, so their parents are kept; so many at most.
const PARENTS_MAX: usize = 1024;
/// The most comments that GitHub gives on one page.
const COMMENTS_PER_PAGE: u64 = 100;
/// Pages of comments that are read of one pull request on each side of where the newest should be.
const COMMENT_PAGES_MAX: u64 = 5;
/// The largest answer, bytes: 100 comments of 65,536 characters would be more, and are not homu's.
const ANSWER_MAX: usize = 4 << 20;
/// How long GitHub is left alone after it refused a limit without saying for how long: what its
/// documentation asks for ("wait for at least one minute").
const LIMITED_REST: Duration = Duration::from_secs(60);
/// How long it is left alone after it refused the token; every wrong try counts against its owner.
const REFUSED_REST: Duration = Duration::from_secs(60);
/// The longest rest that is believed.
const REST_MAX: Duration = Duration::from_secs(60 * 60);

/// GitHub with homu's token.
pub struct Github {
    client: Client,
    base: Url,
    token: Secret,
    turns: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    parents: BTreeMap<String, Vec<Sha>>,
    /// The keys of `parents`, oldest first.
    order: VecDeque<String>,
    login: Option<String>,
    quota: Option<Quota>,
    /// How many requests got what they asked for, or that there is none.
    answered: u64,
    /// GitHub is left alone until then, for this reason.
    rest: Option<(Instant, ProbeError)>,
}

/// A repository on GitHub.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The owner.
    pub owner: &'a str,
    /// The name.
    pub name: &'a str,
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
    /// The head's branch.
    pub head_ref: String,
    /// The owner of the head's repository; `None`: it is gone.
    pub head_owner: Option<String>,
    /// The branch that it is for.
    pub base_ref: String,
    /// Who opened it.
    pub author: String,
    /// The head, also of a closed one.
    pub head: Sha,
    /// How many comments there are on it, but for those of reviews.
    pub comments: Option<u64>,
}

impl Github {
    /// A GitHub at this base URL, asked with homu's token.
    pub fn new(client: Client, base: Url, token: Secret) -> Self {
        Self {
            client,
            base,
            token,
            turns: Semaphore::new(AT_ONCE),
            state: Mutex::default(),
        }
    }

    /// The login that the token belongs to: the name that homu answers to (`main.py`: `gh.user().login`).
    ///
    /// # Errors
    ///
    /// Any failed request, and a login that GitHub would not give anybody.
    pub async fn login(&self) -> Result<String, ProbeError> {
        if let Some(login) = self.lock().login.clone() {
            return Ok(login);
        }
        let answer = self.success(&["user"], &[]).await?;
        let user: User = answer.json()?;
        if !is_login(&user.login) {
            return Err(ProbeError::new(
                ProbeFailure::Parse,
                format!("{}: the token's owner has no login", answer.shown_url),
            ));
        }
        self.lock().login = Some(user.login.clone());
        Ok(user.login)
    }

    /// A pull request; `None`: GitHub has none that the token may see.
    ///
    /// # Errors
    ///
    /// Any failed request but 404.
    pub async fn pull(&self, at: Place<'_>, num: u64) -> Result<Option<Pull>, ProbeError> {
        let num = num.to_string();
        let path = ["repos", at.owner, at.name, "pulls", &num];
        let Some(answer) = self.found(&path, &[]).await? else {
            return Ok(None);
        };
        let pull: RawPull = answer.json()?;
        let head = sha(&answer, pull.head.sha)?;
        let owner = pull.head.repo.and_then(|repo| repo.owner);
        Ok(Some(Pull {
            state: match pull.state.as_str() {
                "open" => PullOnGithub::Open { head: head.clone() },
                "closed" => PullOnGithub::Closed,
                _ => {
                    return Err(ProbeError::new(
                        ProbeFailure::Parse,
                        format!("{}: it is neither open nor closed", answer.shown_url),
                    ));
                }
            },
            title: pull.title,
            body: pull.body,
            head_owner: owner.or(pull.head.user).map(|user| user.login),
            head_ref: pull.head.name,
            base_ref: pull.base.name,
            author: pull.user.map(|user| user.login).unwrap_or_default(),
            head,
            comments: pull.comments,
        }))
    }

    /// The parents of a commit, in order; for a merge made by homu: the base, then the head.
    /// `None`: GitHub has no such commit.
    ///
    /// # Errors
    ///
    /// Any failed request but 404 and 422.
    pub async fn parents(&self, at: Place<'_>, of: &Sha) -> Result<Option<Vec<Sha>>, ProbeError> {
        let key = format!("{}/{} {of}", at.owner, at.name);
        if let Some(parents) = self.lock().parents.get(&key).cloned() {
            return Ok(Some(parents));
        }
        let path = ["repos", at.owner, at.name, "commits", of.as_str()];
        let Some(answer) = self.found(&path, &[]).await? else {
            return Ok(None);
        };
        let commit: Commit = answer.json()?;
        let parents: Result<Vec<Sha>, ProbeError> = commit
            .parents
            .into_iter()
            .map(|parent| sha(&answer, parent.sha))
            .collect();
        let parents = parents?;
        let mut state = self.lock();
        if state.parents.insert(key.clone(), parents.clone()).is_none() {
            state.order.push_back(key);
        }
        while state.order.len() > PARENTS_MAX {
            if let Some(oldest) = state.order.pop_front() {
                state.parents.remove(&oldest);
            }
        }
        Ok(Some(parents))
    }

    /// The commit that a branch points at; `None`: there is no such branch.
    ///
    /// # Errors
    ///
    /// Any failed request but 404.
    pub async fn branch(&self, at: Place<'_>, branch: &str) -> Result<Option<Sha>, ProbeError> {
        let mut path = vec!["repos", at.owner, at.name, "git", "ref", "heads"];
        path.extend(branch.split('/'));
        let Some(answer) = self.found(&path, &[]).await? else {
            return Ok(None);
        };
        let reference: Reference = answer.json()?;
        sha(&answer, reference.object.sha).map(Some)
    }

    /// The head, by its first digits, that the newest telling comment on a pull request names;
    /// `None`: none does, or there are too many to tell. `count` is how many comments the pull
    /// request says that it has.
    ///
    /// # Errors
    ///
    /// Any failed request.
    pub async fn approved_head(
        &self,
        at: Place<'_>,
        num: u64,
        count: Option<u64>,
        speakers: Speakers<'_>,
    ) -> Result<Option<String>, ProbeError> {
        let first = count.unwrap_or(0).div_ceil(COMMENTS_PER_PAGE).max(1);
        let mut newest = None;
        let mut page = first;
        loop {
            let comments = self.comments(at, num, page).await?;
            newest = newest_head(&comments, speakers).or(newest);
            // A full page may have one after it that the count does not know yet.
            if (comments.len() as u64) < COMMENTS_PER_PAGE {
                break;
            }
            page += 1;
            if page >= first + COMMENT_PAGES_MAX {
                return Ok(None);
            }
        }
        let mut page = first;
        while newest.is_none() && page > 1 && first - page < COMMENT_PAGES_MAX {
            page -= 1;
            let comments = self.comments(at, num, page).await?;
            newest = newest_head(&comments, speakers);
        }
        Ok(newest)
    }

    /// Whether somebody approved this very commit in a review comment; homu then writes no comment
    /// of its own.
    ///
    /// # Errors
    ///
    /// Any failed request but 404.
    pub async fn approved_in_review(
        &self,
        at: Place<'_>,
        num: u64,
        head: &Sha,
        speakers: Speakers<'_>,
    ) -> Result<bool, ProbeError> {
        let num = num.to_string();
        let path = ["repos", at.owner, at.name, "pulls", &num, "comments"];
        let newest = [
            ("per_page", "100"),
            ("sort", "created"),
            ("direction", "desc"),
        ];
        let Some(answer) = self.found(&path, &newest).await? else {
            return Ok(false);
        };
        let comments: Vec<RawComment> = answer.json()?;
        Ok(comments.into_iter().map(Comment::from).any(|comment| {
            comment.on.as_deref() == Some(head.as_str())
                && newest_head(&[comment], speakers).as_deref() == Some(head.as_str())
        }))
    }

    /// Asks for the rate limit, which costs none of it. A GitHub that has none says so with a 404.
    ///
    /// # Errors
    ///
    /// Any failed request but 404.
    pub async fn answers(&self) -> Result<(), ProbeError> {
        self.found(&["rate_limit"], &[]).await.map(|_| ())
    }

    /// The rate limit, as the latest answer told it.
    pub fn quota(&self) -> Option<Quota> {
        self.lock().quota
    }

    /// How many requests were answered so far, with what they asked for or with that there is none.
    pub fn answered(&self) -> u64 {
        self.lock().answered
    }

    /// A page of the comments on a pull request, oldest first.
    async fn comments(
        &self,
        at: Place<'_>,
        num: u64,
        page: u64,
    ) -> Result<Vec<Comment>, ProbeError> {
        let (num, page) = (num.to_string(), page.to_string());
        let path = ["repos", at.owner, at.name, "issues", &num, "comments"];
        let query = [("per_page", "100"), ("page", page.as_str())];
        let answer = self.success(&path, &query).await?;
        let comments: Vec<RawComment> = answer.json()?;
        Ok(comments.into_iter().map(Comment::from).collect())
    }

    /// An answer that must be there.
    async fn success(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, ProbeError> {
        self.ask(path, query)
            .await?
            .success()
            .inspect_err(|error| self.rest_after(error))
    }

    /// An answer, or `None` where GitHub has nothing of that name.
    async fn found(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<Answer>, ProbeError> {
        let answer = self.ask(path, query).await?;
        if is_missing(answer.status) {
            return Ok(None);
        }
        let answer = answer.success();
        answer.inspect_err(|error| self.rest_after(error)).map(Some)
    }

    async fn ask(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, ProbeError> {
        let _turn = self.turns.acquire().await;
        if let Some((until, error)) = self.lock().rest.clone() {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(ProbeError {
                    retry_after: Some(left),
                    ..error
                });
            }
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
            .body_max(ANSWER_MAX)
            .conditional();
        let answer = self.client.send(request).await?;
        if answer.status.is_success() || is_missing(answer.status) {
            self.lock().answered += 1;
        }
        if let Some(quota) = answer.quota() {
            self.lock().quota = Some(quota);
            if quota.remaining == 0 && !answer.status.is_success() {
                self.rest_until_reset(&answer, quota);
            }
        }
        Ok(answer)
    }

    /// Leaves GitHub alone for as long as it asked after a limit, by its own clock.
    fn rest_until_reset(&self, answer: &Answer, quota: Quota) {
        let date = answer.headers.get(reqwest::header::DATE);
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok());
        let Some(date) = date.and_then(|date| u64::try_from(date.timestamp().as_second()).ok())
        else {
            return;
        };
        let rest = Duration::from_secs(quota.reset.saturating_sub(date)).min(REST_MAX);
        let error = ProbeError::new(
            ProbeFailure::RateLimited,
            format!("{}: its rate limit is used up", answer.shown_url),
        );
        self.rest(rest, error);
    }

    fn rest_after(&self, error: &ProbeError) {
        let rest = match (error.retry_after, error.failure) {
            (Some(asked), _) => asked,
            (None, ProbeFailure::RateLimited) => LIMITED_REST,
            (None, ProbeFailure::Auth) => REFUSED_REST,
            (
                None,
                ProbeFailure::Dns
                | ProbeFailure::Connect
                | ProbeFailure::Tls
                | ProbeFailure::Timeout
                | ProbeFailure::HttpStatus
                | ProbeFailure::Parse
                | ProbeFailure::TooLarge
                | ProbeFailure::Partial
                | ProbeFailure::Io,
            ) => return,
        };
        self.rest(rest.min(REST_MAX), error.clone());
    }

    /// Begins a rest, if none that lasts longer is under way.
    fn rest(&self, rest: Duration, error: ProbeError) {
        let until = Instant::now() + rest;
        let mut state = self.lock();
        if state.rest.as_ref().is_none_or(|(known, _)| *known < until) {
            state.rest = Some((until, error));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether a word could be the login of a user or an app of GitHub. Nothing else may come into a
/// command to homu, which reads every word of its line.
pub fn is_login(word: &str) -> bool {
    let name = word.strip_suffix("[bot]").unwrap_or(word);
    !name.is_empty()
        && name.len() <= 100
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether GitHub has nothing of that name (404; of a commit also 422).
fn is_missing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY
    )
}

fn sha(answer: &Answer, text: String) -> Result<Sha, ProbeError> {
    let hexadecimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal && matches!(text.len(), 40 | 64) {
        return Ok(Sha::new(text));
    }
    Err(ProbeError::new(
        ProbeFailure::Parse,
        format!("{}: a commit in it has no hash", answer.shown_url),
    ))
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
    user: Option<User>,
    comments: Option<u64>,
    head: Branch,
    base: Base,
}

#[derive(Deserialize)]
struct Branch {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
    user: Option<User>,
    repo: Option<Repo>,
}

#[derive(Deserialize)]
struct Base {
    #[serde(rename = "ref")]
    name: String,
}

#[derive(Deserialize)]
struct Repo {
    owner: Option<User>,
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
    original_commit_id: Option<String>,
}

impl From<RawComment> for Comment {
    fn from(raw: RawComment) -> Self {
        Self {
            login: raw.user.map(|user| user.login).unwrap_or_default(),
            text: raw.body.unwrap_or_default(),
            on: raw.original_commit_id,
        }
    }
}
