//! One repository of the fake GitHub: commits, refs, pull requests, comments, statuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use ring::digest;

use super::world::{Event, Refusal};

/// Commits per repository. They are never forgotten, because any of them can be
/// an ancestor, so a repository that reaches this refuses new ones.
const COMMITS_MAX: usize = 20_000;

/// The SHA that GitHub writes where a branch did not exist before a push.
pub const NO_SHA: &str = "0000000000000000000000000000000000000000";

/// A commit. Its tree is never looked at, so it has none.
#[derive(Debug, Clone)]
pub struct Commit {
    /// 40 hexadecimal digits.
    pub sha: String,
    /// The first is the tip of the branch that it was made on.
    pub parents: Vec<String>,
    /// The commit message.
    pub message: String,
    /// The login of its author.
    pub author: String,
    /// When it was made.
    pub at: Timestamp,
}

/// A pull request. Its head lives in a fork named after its author.
#[derive(Debug, Clone)]
pub struct Pull {
    /// Unique on this GitHub.
    pub id: u64,
    /// Counted per repository, from 1.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Its description.
    pub body: String,
    /// The login of its author.
    pub author: String,
    /// The branch in the fork.
    pub head_branch: String,
    /// The newest commit.
    pub head_sha: String,
    /// The branch that it is to be merged into.
    pub base_branch: String,
    /// Whether it is neither closed nor merged.
    pub open: bool,
    /// The commit of the base branch that contains the head, once there is one.
    pub merged_as: Option<String>,
    /// The login that moved the base branch over its head.
    pub merged_by: Option<String>,
    /// Whether a merge of this head is answered with a conflict.
    pub conflicts: bool,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it, or its comments, last changed.
    pub updated_at: Timestamp,
    /// When it was closed or merged.
    pub closed_at: Option<Timestamp>,
}

/// A comment on a pull request.
#[derive(Debug, Clone)]
pub struct Comment {
    /// Unique on this GitHub.
    pub id: u64,
    /// The number of the pull request.
    pub pull: u64,
    /// The login of its author.
    pub author: String,
    /// Its text, in Markdown.
    pub body: String,
    /// When it was written.
    pub at: Timestamp,
}

/// A commit status.
#[derive(Debug, Clone)]
pub struct Status {
    /// Unique on this GitHub.
    pub id: u64,
    /// The commit that it is about.
    pub sha: String,
    /// `error`, `failure`, `pending` or `success`.
    pub state: String,
    /// What tells it apart from the other statuses of the commit.
    pub context: String,
    /// A short text for people.
    pub description: Option<String>,
    /// Where to read more.
    pub target_url: Option<String>,
    /// The login that set it.
    pub creator: String,
    /// When it was set.
    pub at: Timestamp,
}

/// One repository with all that is in it.
#[derive(Debug, Clone)]
pub struct Repository {
    pub id: u64,
    pub owner: String,
    pub name: String,
    pub default_branch: String,
    pub created_at: Timestamp,
    /// Without `refs/`: `heads/master`.
    pub refs: BTreeMap<String, String>,
    pub commits: BTreeMap<String, Commit>,
    pub pulls: BTreeMap<u64, Pull>,
    pub comments: VecDeque<Comment>,
    pub statuses: VecDeque<Status>,
}

impl Repository {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The SHA of a ref such as `heads/master`.
    pub fn reference(&self, reference: &str) -> Result<&str, Refusal> {
        self.refs
            .get(reference)
            .map(String::as_str)
            .ok_or_else(|| Refusal::NotThere(format!("ref {reference} in {}", self.full_name())))
    }

    /// A pull request by its number.
    pub fn pull(&self, number: u64) -> Result<&Pull, Refusal> {
        self.pulls.get(&number).ok_or_else(|| self.no_pull(number))
    }

    /// The same, to change it.
    pub(super) fn pull_mut(&mut self, number: u64) -> Result<&mut Pull, Refusal> {
        let missing = self.no_pull(number);
        self.pulls.get_mut(&number).ok_or(missing)
    }

    fn no_pull(&self, number: u64) -> Refusal {
        Refusal::NotThere(format!("pull request {}#{number}", self.full_name()))
    }

    /// The commit that a SHA, a branch, a tag or a full ref names.
    pub fn resolve(&self, name: &str) -> Option<&str> {
        if let Some(commit) = self.commits.get(name) {
            return Some(&commit.sha);
        }
        let name = name.strip_prefix("refs/").unwrap_or(name);
        [
            format!("heads/{name}"),
            format!("tags/{name}"),
            name.to_owned(),
        ]
        .iter()
        .find_map(|reference| self.refs.get(reference))
        .map(String::as_str)
    }

    /// Whether `ancestor` is `sha` or one of the commits before it.
    pub fn contains(&self, sha: &str, ancestor: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![sha];
        while let Some(sha) = next.pop() {
            if sha == ancestor {
                return true;
            }
            if seen.insert(sha)
                && let Some(commit) = self.commits.get(sha)
            {
                next.extend(commit.parents.iter().map(String::as_str));
            }
        }
        false
    }

    /// Refuses when the repository holds as many commits as it may.
    pub(super) fn has_room(&self) -> Result<(), Refusal> {
        if self.commits.len() < COMMITS_MAX {
            return Ok(());
        }
        Err(Refusal::Invalid(format!(
            "{} has {COMMITS_MAX} commits, its most",
            self.full_name()
        )))
    }

    /// Makes a commit; `salt` keeps two of the same content apart.
    pub(super) fn new_commit(
        &mut self,
        salt: u64,
        parents: Vec<String>,
        message: &str,
        author: &str,
    ) -> String {
        let content = format!("{}\n{salt}\n{parents:?}\n{message}", self.full_name());
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, content.as_bytes());
        let sha: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let commit = Commit {
            sha: sha.clone(),
            parents,
            message: message.to_owned(),
            author: author.to_owned(),
            at: Timestamp::now(),
        };
        self.commits.insert(sha.clone(), commit);
        sha
    }

    /// Moves a ref; without `force` only forward.
    pub(super) fn update_reference(
        &mut self,
        reference: &str,
        sha: &str,
        force: bool,
        sender: &str,
    ) -> Result<Vec<Event>, Refusal> {
        let Some(before) = self.refs.get(reference) else {
            return Err(Refusal::Invalid("Reference does not exist".to_owned()));
        };
        let forward = self.contains(sha, before);
        if !force && !forward && self.commits.contains_key(sha) {
            return Err(Refusal::Invalid("Update is not a fast forward".to_owned()));
        }
        self.set_reference(reference, sha, !forward, sender)
    }

    /// Points a ref at a commit, and closes the pull requests that this merges.
    pub(super) fn set_reference(
        &mut self,
        reference: &str,
        sha: &str,
        forced: bool,
        sender: &str,
    ) -> Result<Vec<Event>, Refusal> {
        if !self.commits.contains_key(sha) {
            return Err(Refusal::Invalid("Object does not exist".to_owned()));
        }
        let before = self.refs.insert(reference.to_owned(), sha.to_owned());
        if before.as_deref() == Some(sha) {
            return Ok(vec![]);
        }
        let mut events = vec![Event::Push {
            reference: format!("refs/{reference}"),
            before: before.unwrap_or_else(|| NO_SHA.to_owned()),
            after: sha.to_owned(),
            forced,
            sender: sender.to_owned(),
        }];
        if let Some(branch) = reference.strip_prefix("heads/") {
            events.extend(self.merge_contained_pulls(branch, sha, sender));
        }
        Ok(events)
    }

    /// GitHub closes a pull request as merged when its base comes to contain its head.
    fn merge_contained_pulls(&mut self, branch: &str, tip: &str, sender: &str) -> Vec<Event> {
        let contained: Vec<u64> = self
            .pulls
            .values()
            .filter(|pull| pull.open && pull.base_branch == branch)
            .filter(|pull| self.contains(tip, &pull.head_sha))
            .map(|pull| pull.number)
            .collect();
        let now = Timestamp::now();
        let mut events = vec![];
        for number in contained {
            let Some(pull) = self.pulls.get_mut(&number) else {
                continue;
            };
            pull.open = false;
            pull.merged_as = Some(tip.to_owned());
            pull.merged_by = Some(sender.to_owned());
            pull.updated_at = now;
            pull.closed_at = Some(now);
            let sender = sender.to_owned();
            events.push(Event::Pull {
                action: "closed",
                number,
                before: None,
                sender,
            });
        }
        events
    }
}
