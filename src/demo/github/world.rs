//! What the fake GitHub knows, and every change of it.
//!
//! A method whose change GitHub would announce to a webhook says so in the
//! events it returns.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use thiserror::Error;

use super::repository::{Comment, NO_SHA, Pull, Repository, Status};

/// Comments and statuses kept per repository; the oldest go first. A test or a
/// demo makes some hundred, and a client in a loop must not fill the memory.
const COMMENTS_MAX: usize = 5_000;
const STATUSES_MAX: usize = 5_000;

/// The bytes of one comment, title or commit message, as on GitHub.
const TEXT_BYTES_MAX: usize = 65_536;

/// Why the world refused a change or a question.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The thing is not there; GitHub answers 404.
    #[error("the fake GitHub has no {0}")]
    NotThere(String),
    /// The request makes no sense in this state; GitHub answers 422.
    #[error("{0}")]
    Invalid(String),
    /// The two sides of a merge conflict; GitHub answers 409.
    #[error("Merge conflict")]
    Conflict,
}

/// Something that GitHub tells webhooks about.
#[derive(Debug, Clone)]
pub enum Event {
    Push {
        reference: String,
        before: String,
        after: String,
        forced: bool,
        sender: String,
    },
    Pull {
        action: &'static str,
        number: u64,
        before: Option<String>,
        sender: String,
    },
    Comment {
        id: u64,
        sender: String,
    },
    Status {
        id: u64,
        sender: String,
    },
}

/// A user, known by its token.
#[derive(Clone)]
pub struct User {
    pub id: u64,
    pub login: String,
    pub token: String,
}

/// Everything on this GitHub.
#[derive(Default)]
pub struct World {
    pub repositories: BTreeMap<String, Repository>,
    pub users: BTreeMap<String, User>,
    ids: u64,
}

impl World {
    /// Makes a number that nothing else on this GitHub has.
    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        1_000 + self.ids
    }

    /// Adds a user who authenticates with `token`.
    pub fn add_user(&mut self, login: &str, token: &str) {
        let id = self.next_id();
        let user = User {
            id,
            login: login.to_owned(),
            token: token.to_owned(),
        };
        self.users.insert(login.to_owned(), user);
    }

    /// The login that a token belongs to.
    pub fn login_of(&self, token: &str) -> Option<&str> {
        self.users
            .values()
            .find(|user| user.token == token)
            .map(|user| user.login.as_str())
    }

    /// Adds a repository whose `master` has one commit.
    pub fn add_repository(&mut self, owner: &str, name: &str) {
        let mut repository = Repository {
            id: self.next_id(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            default_branch: "master".to_owned(),
            created_at: Timestamp::now(),
            refs: BTreeMap::new(),
            commits: BTreeMap::new(),
            pulls: BTreeMap::new(),
            comments: VecDeque::new(),
            statuses: VecDeque::new(),
        };
        let salt = self.next_id();
        let first = repository.new_commit(salt, vec![], "Initial commit", owner);
        repository.refs.insert("heads/master".to_owned(), first);
        self.repositories
            .insert(format!("{owner}/{name}"), repository);
    }

    /// The repository `owner/name`.
    pub fn repository(&self, full_name: &str) -> Result<&Repository, Refusal> {
        self.repositories
            .get(full_name)
            .ok_or_else(|| Refusal::NotThere(format!("repository {full_name}")))
    }

    fn repository_mut(&mut self, full_name: &str) -> Result<&mut Repository, Refusal> {
        self.repositories
            .get_mut(full_name)
            .ok_or_else(|| Refusal::NotThere(format!("repository {full_name}")))
    }

    /// Opens a pull request against the default branch; its head is one new commit.
    pub fn open_pull(
        &mut self,
        full_name: &str,
        author: &str,
        title: &str,
        body: &str,
    ) -> Result<(u64, Vec<Event>), Refusal> {
        let (id, salt) = (self.next_id(), self.next_id());
        let repository = self.repository_mut(full_name)?;
        repository.has_room()?;
        let base_branch = repository.default_branch.clone();
        let base = repository
            .reference(&format!("heads/{base_branch}"))?
            .to_owned();
        let number = repository.pulls.keys().next_back().copied().unwrap_or(0) + 1;
        let head_sha = repository.new_commit(salt, vec![base], title, author);
        let now = Timestamp::now();
        let pull = Pull {
            id,
            number,
            title: title.to_owned(),
            body: body.to_owned(),
            author: author.to_owned(),
            head_branch: format!("topic-{number}"),
            head_sha: head_sha.clone(),
            base_branch,
            open: true,
            merged_as: None,
            merged_by: None,
            conflicts: false,
            created_at: now,
            updated_at: now,
            closed_at: None,
        };
        repository
            .refs
            .insert(format!("pull/{number}/head"), head_sha);
        repository.pulls.insert(number, pull);
        let sender = author.to_owned();
        Ok((
            number,
            vec![Event::Pull {
                action: "opened",
                number,
                before: None,
                sender,
            }],
        ))
    }

    /// Puts one more commit on the head of a pull request.
    pub fn push_to_pull(
        &mut self,
        full_name: &str,
        number: u64,
    ) -> Result<(String, Vec<Event>), Refusal> {
        let salt = self.next_id();
        let repository = self.repository_mut(full_name)?;
        repository.has_room()?;
        let Pull {
            head_sha: before,
            author,
            open,
            ..
        } = repository.pull(number)?.clone();
        if !open {
            return Err(Refusal::Invalid(format!("{full_name}#{number} is closed")));
        }
        let message = format!("More work on #{number}");
        let head = repository.new_commit(salt, vec![before.clone()], &message, &author);
        repository
            .refs
            .insert(format!("pull/{number}/head"), head.clone());
        let pull = repository.pull_mut(number)?;
        pull.head_sha.clone_from(&head);
        pull.updated_at = Timestamp::now();
        let event = Event::Pull {
            action: "synchronize",
            number,
            before: Some(before),
            sender: author,
        };
        Ok((head, vec![event]))
    }

    /// Puts one more commit on a branch, as a direct push does.
    pub fn push_to_branch(
        &mut self,
        full_name: &str,
        branch: &str,
        author: &str,
    ) -> Result<(String, Vec<Event>), Refusal> {
        let salt = self.next_id();
        let repository = self.repository_mut(full_name)?;
        repository.has_room()?;
        let reference = format!("heads/{branch}");
        let tip = repository.reference(&reference)?.to_owned();
        let sha = repository.new_commit(salt, vec![tip], "A direct push", author);
        let events = repository.update_reference(&reference, &sha, false, author)?;
        Ok((sha, events))
    }

    /// Closes or reopens a pull request.
    pub fn set_open(
        &mut self,
        full_name: &str,
        number: u64,
        open: bool,
        sender: &str,
    ) -> Result<Vec<Event>, Refusal> {
        let pull = self.repository_mut(full_name)?.pull_mut(number)?;
        if pull.open == open {
            return Ok(vec![]);
        }
        if pull.merged_as.is_some() {
            return Err(Refusal::Invalid(format!("{full_name}#{number} is merged")));
        }
        let now = Timestamp::now();
        pull.open = open;
        pull.updated_at = now;
        pull.closed_at = (!open).then_some(now);
        let action = if open { "reopened" } else { "closed" };
        Ok(vec![Event::Pull {
            action,
            number,
            before: None,
            sender: sender.to_owned(),
        }])
    }

    /// Makes every merge of a pull request's head a conflict, or none.
    pub fn set_conflicts(
        &mut self,
        full_name: &str,
        number: u64,
        conflicts: bool,
    ) -> Result<(), Refusal> {
        self.repository_mut(full_name)?.pull_mut(number)?.conflicts = conflicts;
        Ok(())
    }

    /// Comments on a pull request.
    pub fn comment(
        &mut self,
        full_name: &str,
        pull: u64,
        author: &str,
        body: &str,
    ) -> Result<(u64, Vec<Event>), Refusal> {
        if body.trim().is_empty() || body.len() > TEXT_BYTES_MAX {
            return Err(Refusal::Invalid("Validation Failed: body".to_owned()));
        }
        let id = self.next_id();
        let repository = self.repository_mut(full_name)?;
        let at = Timestamp::now();
        repository.pull_mut(pull)?.updated_at = at;
        let comment = Comment {
            id,
            pull,
            author: author.to_owned(),
            body: body.to_owned(),
            at,
        };
        push_bounded(&mut repository.comments, comment, COMMENTS_MAX);
        Ok((
            id,
            vec![Event::Comment {
                id,
                sender: author.to_owned(),
            }],
        ))
    }

    /// Adds a status to a commit; its id and time are set here.
    pub fn add_status(
        &mut self,
        full_name: &str,
        mut status: Status,
    ) -> Result<(u64, Vec<Event>), Refusal> {
        if !["error", "failure", "pending", "success"].contains(&status.state.as_str()) {
            return Err(Refusal::Invalid(format!(
                "Validation Failed: state {:?} is not included in the list",
                status.state
            )));
        }
        let id = self.next_id();
        let repository = self.repository_mut(full_name)?;
        if !repository.commits.contains_key(&status.sha) {
            return Err(Refusal::Invalid(format!(
                "No commit found for SHA: {}",
                status.sha
            )));
        }
        status.id = id;
        status.at = Timestamp::now();
        let sender = status.creator.clone();
        push_bounded(&mut repository.statuses, status, STATUSES_MAX);
        Ok((id, vec![Event::Status { id, sender }]))
    }

    /// Creates a ref.
    pub fn create_reference(
        &mut self,
        full_name: &str,
        reference: &str,
        sha: &str,
        sender: &str,
    ) -> Result<Vec<Event>, Refusal> {
        let repository = self.repository_mut(full_name)?;
        if repository.refs.contains_key(reference) {
            return Err(Refusal::Invalid("Reference already exists".to_owned()));
        }
        repository.set_reference(reference, sha, false, sender)
    }

    /// Moves a ref; without `force` only forward.
    pub fn update_reference(
        &mut self,
        full_name: &str,
        reference: &str,
        sha: &str,
        force: bool,
        sender: &str,
    ) -> Result<Vec<Event>, Refusal> {
        self.repository_mut(full_name)?
            .update_reference(reference, sha, force, sender)
    }

    /// Deletes a ref.
    pub fn delete_reference(
        &mut self,
        full_name: &str,
        reference: &str,
        sender: &str,
    ) -> Result<Vec<Event>, Refusal> {
        let repository = self.repository_mut(full_name)?;
        let before = repository
            .refs
            .remove(reference)
            .ok_or_else(|| Refusal::Invalid("Reference does not exist".to_owned()))?;
        Ok(vec![Event::Push {
            reference: format!("refs/{reference}"),
            before,
            after: NO_SHA.to_owned(),
            forced: false,
            sender: sender.to_owned(),
        }])
    }

    /// Merges `head` into a branch with a commit of two parents.
    ///
    /// Returns no commit where the branch already contains the head.
    ///
    /// # Errors
    ///
    /// [`Refusal::Conflict`] for the head of a pull request that was told to conflict.
    pub fn merge(
        &mut self,
        full_name: &str,
        base: &str,
        head: &str,
        message: Option<&str>,
        sender: &str,
    ) -> Result<(Option<String>, Vec<Event>), Refusal> {
        let salt = self.next_id();
        let repository = self.repository_mut(full_name)?;
        repository.has_room()?;
        let reference = format!("heads/{base}");
        let tip = match repository.refs.get(&reference) {
            Some(tip) => tip.clone(),
            None => return Err(Refusal::NotThere(format!("base {base}"))),
        };
        let head = match repository.resolve(head) {
            Some(sha) => sha.to_owned(),
            None => return Err(Refusal::NotThere(format!("head {head}"))),
        };
        if repository
            .pulls
            .values()
            .any(|pull| pull.head_sha == head && pull.conflicts)
        {
            return Err(Refusal::Conflict);
        }
        if repository.contains(&tip, &head) {
            return Ok((None, vec![]));
        }
        let message = message.map_or_else(|| format!("Merge {head} into {base}"), str::to_owned);
        if message.len() > TEXT_BYTES_MAX {
            return Err(Refusal::Invalid("commit_message is too long".to_owned()));
        }
        let sha = repository.new_commit(salt, vec![tip, head], &message, sender);
        let events = repository.update_reference(&reference, &sha, false, sender)?;
        Ok((Some(sha), events))
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() == max {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world_with_a_pull() -> World {
        let mut world = World::default();
        world.add_repository("octo", "alpha");
        world
            .open_pull("octo/alpha", "mona", "Add a thing", "")
            .unwrap();
        world
    }

    fn tip(world: &World, branch: &str) -> String {
        let repository = world.repository("octo/alpha").unwrap();
        repository
            .reference(&format!("heads/{branch}"))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_pull_request_is_merged_when_its_base_contains_its_head() {
        let mut world = world_with_a_pull();
        let head = world
            .repository("octo/alpha")
            .unwrap()
            .pull(1)
            .unwrap()
            .head_sha
            .clone();
        let master = tip(&world, "master");
        world
            .create_reference("octo/alpha", "heads/tmp", &master, "bot")
            .unwrap();

        let (merge, events) = world
            .merge("octo/alpha", "tmp", &head, None, "bot")
            .unwrap();
        let merge = merge.unwrap();
        assert!(
            matches!(events.as_slice(), [Event::Push { .. }]),
            "{events:?}"
        );
        assert!(
            world
                .repository("octo/alpha")
                .unwrap()
                .pull(1)
                .unwrap()
                .open
        );
        let parents = &world.repository("octo/alpha").unwrap().commits[&merge].parents;
        assert_eq!(parents, &[master, head]);

        let events = world
            .update_reference("octo/alpha", "heads/master", &merge, false, "bot")
            .unwrap();
        assert!(
            matches!(
                events.as_slice(),
                [
                    Event::Push { .. },
                    Event::Pull {
                        action: "closed",
                        number: 1,
                        ..
                    }
                ]
            ),
            "{events:?}"
        );
        let pull = world.repository("octo/alpha").unwrap().pull(1).unwrap();
        assert_eq!((pull.open, pull.merged_as.as_ref()), (false, Some(&merge)));
    }

    #[test]
    fn a_ref_moves_backwards_only_by_force() {
        let mut world = world_with_a_pull();
        let old = tip(&world, "master");
        world
            .push_to_branch("octo/alpha", "master", "mona")
            .unwrap();

        let refused = world.update_reference("octo/alpha", "heads/master", &old, false, "mona");
        assert_eq!(
            refused.unwrap_err(),
            Refusal::Invalid("Update is not a fast forward".to_owned())
        );
        world
            .update_reference("octo/alpha", "heads/master", &old, true, "mona")
            .unwrap();
        assert_eq!(tip(&world, "master"), old);
    }

    #[test]
    fn a_pull_request_told_to_conflict_does_not_merge() {
        let mut world = world_with_a_pull();
        world.set_conflicts("octo/alpha", 1, true).unwrap();
        let head = world
            .repository("octo/alpha")
            .unwrap()
            .pull(1)
            .unwrap()
            .head_sha
            .clone();

        let refused = world.merge("octo/alpha", "master", &head, None, "bot");
        assert_eq!(refused.unwrap_err(), Refusal::Conflict);
    }

    #[test]
    fn a_full_queue_forgets_its_oldest_entry() {
        let mut queue = VecDeque::from([1, 2]);
        push_bounded(&mut queue, 3, 2);
        assert_eq!(queue, [2, 3]);
    }
}
