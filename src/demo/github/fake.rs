//! The handle on the fake GitHub: it plays the people, looks at the state, and breaks things.

use std::io;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::outbox::{Delivery, Post, Times};
use super::repository::{Comment, Commit, Pull, Status};
use super::server::{self, Request, Shared};
use super::world::{Event, Refusal, World};

/// A running fake GitHub. It stops when the last clone of this handle is dropped.
///
/// Repositories are named `owner/name` throughout.
#[derive(Clone)]
pub struct FakeGithub {
    shared: Arc<Shared>,
    post: Arc<Post>,
    _stop: Arc<DropGuard>,
}

impl FakeGithub {
    /// Starts an empty GitHub on a port of loopback that the system chooses.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        Self::serve(TcpListener::bind("127.0.0.1:0").await?)
    }

    /// Starts an empty GitHub on a socket that the caller bound.
    ///
    /// # Errors
    ///
    /// When the socket has no address, or no HTTP client can be made.
    pub fn serve(listener: TcpListener) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(format!("http://{}", listener.local_addr()?)));
        let stop = CancellationToken::new();
        // The client asks for a TLS provider even where it only speaks plain
        // HTTP. A second call finds the first one's provider, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(io::Error::other)?;
        let post = Arc::new(Post::new(client, &shared, stop.clone()));

        let router = Router::new()
            .fallback(server::handle)
            .with_state(Arc::clone(&shared));
        let stopped = stop.clone();
        tokio::spawn(async move {
            let server = axum::serve(listener, router).into_future();
            stopped.run_until_cancelled(server).await
        });
        Ok(Self {
            shared,
            post,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// The address of the API, without a slash at its end.
    pub fn url(&self) -> &str {
        self.shared.url()
    }

    /// The address that a repository is cloned from, as pushes name it.
    pub fn clone_url(&self, repository: &str) -> String {
        format!("{}/{repository}.git", self.url())
    }

    /// Adds a user who authenticates with `token`.
    pub fn add_user(&self, login: &str, token: &str) {
        self.shared.lock().world.add_user(login, token);
    }

    /// Adds a repository whose `master` has one commit.
    pub fn add_repository(&self, owner: &str, name: &str) {
        self.shared.lock().world.add_repository(owner, name);
    }

    /// Sends the events of a repository to a webhook, signed with `secret`.
    pub fn add_hook(&self, repository: &str, url: &str, secret: &str) {
        self.shared
            .lock()
            .outbox
            .add_hook(&self.post, repository, url, secret);
    }

    /// Tells a listener, such as Buildbot's `/change_hook/base`, when branches move.
    pub fn add_push_listener(&self, repository: &str, branches: &[&str], url: &str) {
        self.shared
            .lock()
            .outbox
            .add_listener(&self.post, repository, branches, url);
    }

    /// Opens a pull request and returns its number.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such repository, or it is full.
    pub fn open_pull(&self, repository: &str, author: &str, title: &str) -> Result<u64, Refusal> {
        let body = format!("{title}, because it was missing.");
        self.change(repository, |world| {
            world.open_pull(repository, author, title, &body)
        })
    }

    /// Puts one more commit on a pull request and returns its new head.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such pull request, or it is closed.
    pub fn push_to_pull(&self, repository: &str, pull: u64) -> Result<String, Refusal> {
        self.change(repository, |world| world.push_to_pull(repository, pull))
    }

    /// Puts one more commit on a branch, past the bot, and returns it.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such branch.
    pub fn push_to_branch(
        &self,
        repository: &str,
        branch: &str,
        author: &str,
    ) -> Result<String, Refusal> {
        self.change(repository, |world| {
            world.push_to_branch(repository, branch, author)
        })
    }

    /// Closes a pull request without merging it.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such pull request, or it is merged.
    pub fn close(&self, repository: &str, pull: u64, by: &str) -> Result<(), Refusal> {
        self.change(repository, |world| {
            Ok(((), world.set_open(repository, pull, false, by)?))
        })
    }

    /// Opens a closed pull request again.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such pull request, or it is merged.
    pub fn reopen(&self, repository: &str, pull: u64, by: &str) -> Result<(), Refusal> {
        self.change(repository, |world| {
            Ok(((), world.set_open(repository, pull, true, by)?))
        })
    }

    /// Comments on a pull request and returns the comment's id.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such pull request, or the text is empty or too long.
    pub fn comment(
        &self,
        repository: &str,
        pull: u64,
        author: &str,
        body: &str,
    ) -> Result<u64, Refusal> {
        self.change(repository, |world| {
            world.comment(repository, pull, author, body)
        })
    }

    /// Makes merges of a pull request's head conflict, or not.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such pull request.
    pub fn set_conflicts(
        &self,
        repository: &str,
        pull: u64,
        conflicts: bool,
    ) -> Result<(), Refusal> {
        self.shared
            .lock()
            .world
            .set_conflicts(repository, pull, conflicts)
    }

    /// A pull request as it is.
    pub fn pull(&self, repository: &str, pull: u64) -> Option<Pull> {
        let state = self.shared.lock();
        state
            .world
            .repository(repository)
            .ok()?
            .pull(pull)
            .ok()
            .cloned()
    }

    /// Whether a pull request's base has come to contain its head.
    pub fn is_merged(&self, repository: &str, pull: u64) -> bool {
        self.pull(repository, pull)
            .is_some_and(|pull| pull.merged_as.is_some())
    }

    /// The commit that a ref such as `heads/auto` points at.
    pub fn reference(&self, repository: &str, reference: &str) -> Option<String> {
        let state = self.shared.lock();
        state
            .world
            .repository(repository)
            .ok()?
            .reference(reference)
            .ok()
            .map(str::to_owned)
    }

    /// A commit by its SHA.
    pub fn commit(&self, repository: &str, sha: &str) -> Option<Commit> {
        self.shared
            .lock()
            .world
            .repository(repository)
            .ok()?
            .commits
            .get(sha)
            .cloned()
    }

    /// The comments of a pull request, oldest first.
    pub fn comments(&self, repository: &str, pull: u64) -> Vec<Comment> {
        let state = self.shared.lock();
        let Ok(repository) = state.world.repository(repository) else {
            return vec![];
        };
        repository
            .comments
            .iter()
            .filter(|comment| comment.pull == pull)
            .cloned()
            .collect()
    }

    /// The statuses of a commit, newest first.
    pub fn statuses(&self, repository: &str, sha: &str) -> Vec<Status> {
        let state = self.shared.lock();
        let Ok(repository) = state.world.repository(repository) else {
            return vec![];
        };
        repository
            .statuses
            .iter()
            .rev()
            .filter(|status| status.sha == sha)
            .cloned()
            .collect()
    }

    /// The requests that came in, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.iter().cloned().collect()
    }

    /// The deliveries to webhooks and listeners, oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.lock().outbox.deliveries()
    }

    /// Loses webhooks of one event, such as `issue_comment` or `pull_request`.
    pub fn drop_webhooks(&self, event: &str, times: Times) {
        self.shared.lock().outbox.drop_webhooks(event, times);
    }

    /// Loses the news of pushes to a branch, such as `auto`, for the listeners.
    pub fn drop_pushes(&self, branch: &str, times: Times) {
        self.shared.lock().outbox.drop_pushes(branch, times);
    }

    /// Answers every request with this status, or, with None, works again.
    pub fn set_outage(&self, status: Option<u16>) {
        self.shared.lock().outage = status;
    }

    /// Sets how many requests a login has left in this hour; None is nobody's.
    pub fn set_requests_left(&self, login: Option<&str>, left: u32) {
        self.shared.lock().set_remaining(login, left);
    }

    fn change<T>(
        &self,
        repository: &str,
        change: impl FnOnce(&mut World) -> Result<(T, Vec<Event>), Refusal>,
    ) -> Result<T, Refusal> {
        let mut state = self.shared.lock();
        let (result, events) = change(&mut state.world)?;
        self.shared.announce(&mut state, repository, &events);
        Ok(result)
    }
}
