//! A whole merge queue for a test: real homu 0.2.0, real Buildbot 4.3, and a fake GitHub.
//!
//! [`Stack::start`] starts all of it in a directory and on ports of its own, and
//! dropping it ends all of it. Everybody reaches homu through a [`bridge`], which
//! records what homu was told and loses messages on command, and Buildbot through
//! another; the steps of runs do what [`jobs`] says. A test then reads as a story:
//!
//! ```ignore
//! let stack = Stack::start(StackConfig::two_repositories()).await;
//! stack.bridge.drop_every(Pattern::started().from(Sender::Reporter));
//! stack.approve("alpha", 1).await;
//! stack.wait_merged("alpha", 1).await;
//! ```
//!
//! `tests/stack/install.sh` installs what this needs.

#![allow(dead_code, reason = "each file of tests uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in here is a test that fails"
)]

pub mod account;
pub mod bridge;
pub mod buildbot;
pub mod config;
pub mod disk;
pub mod ending;
pub mod homu;
pub mod jobs;
pub mod message;
pub mod process;
pub mod prometheus;
#[path = "../promtool/mod.rs"]
mod promtool;
pub mod rebuild;
pub mod tools;
pub mod wall_clock;
pub mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ci_watchdog::demo::github::FakeGithub;
use serde_json::json;

use bridge::{Bridge, Exchange};
use buildbot::{Buildbot, Run};
use config::{AUTHOR, BOT, OWNER, REVIEWER, StackConfig};
use homu::{Homu, QueuedPull, StoredPull};
use jobs::Jobs;
use message::{Message, Pattern, Sender};
use process::{Workplace, tail};
use watchdog::{Surroundings, Watchdog, WatchdogSettings};

/// How long anything may take that a test waits for. Far more than it needs on a
/// quiet machine, because a slow one must not fail.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at something that a test waits for.
const LOOK: Duration = Duration::from_millis(50);

/// A running merge queue.
pub struct Stack {
    pub github: FakeGithub,
    /// The bridge to homu, which everybody uses.
    pub bridge: Bridge,
    pub homu: Homu,
    /// The bridge to Buildbot, which the watchdog and homu use.
    pub buildbot_bridge: Bridge,
    pub buildbot: Buildbot,
    pub jobs: Jobs,
    pub watchdog: Watchdog,
    config: StackConfig,
    client: reqwest::Client,
    started: Instant,
    // The last field: it is dropped when the processes in it are gone.
    workplace: Arc<Workplace>,
}

impl Stack {
    /// Starts everything but the watchdog, and waits until all of it works.
    pub async fn start(config: StackConfig) -> Self {
        let started = Instant::now();
        let workplace = Arc::new(Workplace::new());
        let github = FakeGithub::start().await.expect("a fake GitHub starts");
        github.add_user(BOT, homu::GITHUB_TOKEN);
        for login in [OWNER, REVIEWER, AUTHOR] {
            github.add_user(login, &format!("token-of-{login}"));
        }
        for repository in &config.repositories {
            github.add_repository(OWNER, repository.label);
            for number in 1..=repository.pulls {
                github
                    .open_pull(&repository.full_name(), AUTHOR, &format!("Change {number}"))
                    .expect("the repository is there");
            }
        }

        let bridge = Bridge::new(workplace.reserve_port());
        let jobs = Jobs::new(workplace.make_dir("jobs"), config.default_order);
        let buildbot = Buildbot::new(&workplace, &config, jobs.dir(), bridge.url(), |name| {
            github.clone_url(name)
        });
        let port = workplace.reserve_port();
        let buildbot_bridge = if config.rebuilds {
            Bridge::with_rebuilds(port)
        } else {
            Bridge::new(port)
        };
        let homu = Homu::new(
            &workplace,
            &config,
            github.url(),
            bridge.url(),
            buildbot_bridge.url(),
        );
        let stack = Self {
            watchdog: Watchdog::new(&workplace),
            github,
            bridge,
            homu,
            buildbot_bridge,
            buildbot,
            jobs,
            config,
            client: http_client(),
            started,
            workplace,
        };
        let buildbot_starts = async {
            stack.buildbot.start_master().await;
            stack.buildbot_bridge.lead_to(&stack.buildbot.url()).await;
            stack.buildbot.start_workers().await;
        };
        tokio::join!(buildbot_starts, stack.start_homu());

        for repository in &stack.config.repositories {
            let name = repository.full_name();
            let hook = format!("{}/github", stack.bridge.url());
            stack.github.add_hook(&name, &hook, homu::GITHUB_SECRET);
            let listener = stack.buildbot.change_hook_url();
            stack
                .github
                .add_push_listener(&name, &["auto", "try"], &listener);
        }
        stack
    }

    /// Starts homu, also again, and lets everybody reach it.
    pub async fn start_homu(&self) {
        let homu = self.homu.start().await;
        self.bridge.lead_to(&homu).await;
    }

    /// Ends homu as `kill -9` does; connections to it are refused from then on.
    pub fn kill9_homu(&self) {
        self.bridge.close_door();
        self.homu.kill9();
    }

    // The people.

    /// The reviewer approves a pull request, and homu hears it, unless it is
    /// told to lose comments.
    pub async fn approve(&self, label: &str, pull: u64) {
        self.say(label, pull, REVIEWER, &format!("@{BOT} r+"));
        self.wait_until(
            &format!("homu to hear the approval of {label}#{pull}"),
            async || {
                match self.queued(label, pull).await {
                    Some(row) => row.approved_by == REVIEWER,
                    // Already merged.
                    None => true,
                }
            },
        )
        .await;
    }

    /// The reviewer wants a pull request tried.
    pub fn try_build(&self, label: &str, pull: u64) {
        self.say(label, pull, REVIEWER, &format!("@{BOT} try"));
    }

    /// Somebody comments on a pull request.
    pub fn say(&self, label: &str, pull: u64, who: &str, body: &str) {
        self.github
            .comment(&full_name(label), pull, who, body)
            .expect("the pull request is there");
    }

    /// The author pushes one more commit to a pull request.
    pub fn push(&self, label: &str, pull: u64) -> String {
        self.github
            .push_to_pull(&full_name(label), pull)
            .expect("the pull request is open")
    }

    /// The author closes a pull request.
    pub fn close(&self, label: &str, pull: u64) {
        self.github
            .close(&full_name(label), pull, AUTHOR)
            .expect("the pull request is open");
    }

    /// A person sends a packet of Buildbot's to homu by hand.
    pub async fn send_packet(&self, event: &str, builder: &str, sha: &str, text: &[&str]) {
        let packets = json!([{
            "event": event,
            "payload": {"build": {
                "builderName": builder,
                "results": null,
                "text": text,
                "properties": [["revision", sha, "Build"], ["buildnumber", 1, "Build"]],
                "steps": [],
            }},
        }]);
        let form = [
            ("packets", packets.to_string()),
            ("secret", homu::BUILDBOT_SECRET.to_owned()),
        ];
        let url = format!("{}/buildbot", self.bridge.url());
        let answer = self
            .client
            .post(url)
            .form(&form)
            .send()
            .await
            .expect("homu answers");
        assert_eq!(answer.status(), 200, "{event} of {builder}");
    }

    // What is to be seen.

    /// Whether a pull request is merged on GitHub.
    pub fn is_merged(&self, label: &str, pull: u64) -> bool {
        self.github.is_merged(&full_name(label), pull)
    }

    /// The commit that a pull request was merged as; None where it is not merged.
    pub fn merged_as(&self, label: &str, pull: u64) -> Option<String> {
        self.github.pull(&full_name(label), pull)?.merged_as
    }

    /// The commit that a branch points at.
    pub fn branch(&self, label: &str, branch: &str) -> Option<String> {
        self.github
            .reference(&full_name(label), &format!("heads/{branch}"))
    }

    /// What homu has written on a pull request, oldest first.
    pub fn bot_comments(&self, label: &str, pull: u64) -> Vec<String> {
        let comments = self.github.comments(&full_name(label), pull).into_iter();
        comments
            .filter(|comment| comment.author == BOT)
            .map(|comment| comment.body)
            .collect()
    }

    /// A pull request in homu's database.
    pub fn stored(&self, label: &str, pull: u64) -> Option<StoredPull> {
        self.homu.stored(label, pull)
    }

    /// A pull request on homu's queue page.
    pub async fn queued(&self, label: &str, pull: u64) -> Option<QueuedPull> {
        self.queue(label)
            .await
            .into_iter()
            .find(|row| row.number == pull)
    }

    /// homu's queue page of one repository.
    pub async fn queue(&self, label: &str) -> Vec<QueuedPull> {
        let url = format!("{}/queue/{label}", self.bridge.url());
        let answer = self.client.get(url).send().await;
        match answer.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => homu::parse_queue(&answer.text().await.unwrap_or_default()),
            // homu may be down for the moment; the caller looks again.
            Err(_) => vec![],
        }
    }

    /// The merge that homu waits for, once it waits for one that is not `known`.
    pub async fn wait_pending(&self, label: &str, pull: u64, known: &[&str]) -> String {
        let mut sha = String::new();
        self.wait_until(&format!("{label}#{pull} to be pending"), async || {
            let Some(stored) = self.stored(label, pull) else {
                return false;
            };
            let new = !known.contains(&stored.merge_sha.as_str());
            sha = stored.merge_sha;
            stored.status == "pending" && new && !sha.is_empty()
        })
        .await;
        sha
    }

    /// Waits until a pull request is merged on GitHub, and homu knows.
    pub async fn wait_merged(&self, label: &str, pull: u64) {
        self.wait_until(&format!("{label}#{pull} to be merged"), async || {
            self.is_merged(label, pull) && self.queued(label, pull).await.is_none()
        })
        .await;
    }

    /// Waits until homu stores this status for a pull request.
    pub async fn wait_status(&self, label: &str, pull: u64, status: &str) {
        self.wait_until(&format!("{label}#{pull} to be {status:?}"), async || {
            self.stored(label, pull)
                .is_some_and(|stored| stored.status == status)
        })
        .await;
    }

    /// Waits until a run of a commit goes on at this builder.
    pub async fn wait_running(&self, builder: &str, sha: &str) -> Run {
        let mut found = None;
        self.wait_until(&format!("a run of {sha} at {builder}"), async || {
            let runs = self.buildbot.runs(sha).await;
            found = runs
                .into_iter()
                .find(|run| run.builder == builder && run.results.is_none());
            found.as_ref().is_some_and(|run| run.state == "building")
        })
        .await;
        found.expect("it was just found")
    }

    /// Waits until a later run of the same commit goes on at the same builder.
    pub async fn wait_running_after(&self, lost: &Run) -> Run {
        let mut found = None;
        self.wait_until(&format!("a run after {lost:?}"), async || {
            let runs = self.buildbot.runs(&lost.revision).await;
            found = runs.into_iter().find(|run| {
                run.builder == lost.builder && run.number > lost.number && run.results.is_none()
            });
            found.as_ref().is_some_and(|run| run.state == "building")
        })
        .await;
        found.expect("it was just found")
    }

    /// The runs that Buildbot made of a commit, oldest first.
    pub async fn buildbot_runs(&self, sha: &str) -> Vec<Run> {
        self.buildbot.runs(sha).await
    }

    /// What homu was told or asked, by anyone, except for reads; oldest first.
    pub fn homu_requests(&self) -> Vec<Exchange> {
        self.bridge.matching(&Pattern::change())
    }

    /// What Buildbot was told by the watchdog other than to log it in: nothing,
    /// if all is well.
    pub fn watchdog_orders_to_buildbot(&self) -> Vec<Exchange> {
        self.buildbot_bridge
            .matching(&Pattern::change().from(Sender::Watchdog))
    }

    /// What the watchdog told homu, oldest first.
    pub fn watchdog_requests(&self) -> Vec<Exchange> {
        self.bridge
            .matching(&Pattern::change().from(Sender::Watchdog))
    }

    /// Waits until something is so; the test fails, with the whole story, if it
    /// does not become so in [`PATIENCE`].
    pub async fn wait_until(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so().await {
            self.homu.assert_running();
            self.buildbot.assert_running();
            if Instant::now() > deadline {
                panic!(
                    "waited {PATIENCE:?} in vain for {what}\n{}",
                    self.story().await
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How long this stack has been there.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    // The watchdog.

    /// Writes the watchdog's configuration and returns its path.
    pub fn watchdog_config(&self, settings: &WatchdogSettings) -> PathBuf {
        let around = Surroundings {
            homu_config: self.homu.config_file(),
            homu_database: self.homu.database(),
            homu_url: self.bridge.url().to_owned(),
            github_url: self.github.url().to_owned(),
            buildbot_url: self.buildbot_bridge.url().to_owned(),
            buildbot_login: self.config.buildbot_login,
        };
        self.watchdog.configure(settings, &around);
        self.watchdog.config_file()
    }

    /// Configures and starts the watchdog, and waits until it is healthy.
    pub async fn start_watchdog(&self, settings: &WatchdogSettings) {
        self.watchdog_config(settings);
        self.watchdog.start().await;
    }

    /// Ends the watchdog as `kill -9` does.
    pub fn kill9_watchdog(&self) {
        self.watchdog.kill9();
    }

    /// Starts a Prometheus that scrapes the watchdog.
    pub async fn start_prometheus(&self) -> prometheus::Prometheus {
        let url = self.watchdog.url();
        let target = url.strip_prefix("http://").expect("the watchdog's address");
        prometheus::Prometheus::start(&self.workplace, target).await
    }

    /// What happened so far, for the message of a test that failed.
    pub async fn story(&self) -> String {
        let mut story = vec![format!("after {:?}", self.age())];
        for repository in &self.config.repositories {
            let label = repository.label;
            for number in 1..=repository.pulls {
                let said = self.github.comments(&repository.full_name(), number);
                let said: Vec<String> = said
                    .iter()
                    .map(|it| format!("    {}: {}", it.author, it.body))
                    .collect();
                story.push(format!(
                    "{label}#{number}: page {:?}, database {:?}\n{}",
                    self.queued(label, number).await.map(|row| row.status),
                    self.stored(label, number),
                    said.join("\n"),
                ));
            }
        }
        let told = self.homu_requests();
        story.push("--- homu was told".to_owned());
        story.extend(told.iter().map(|it| {
            let what: Vec<String> = it.messages.iter().map(describe).collect();
            format!(
                "{:?} {:?} {}: {:?}",
                it.at,
                it.sender,
                what.join(", "),
                it.passage
            )
        }));
        story.push("--- runs".to_owned());
        if self.buildbot.get("masters").await.is_ok() {
            story.extend(
                self.buildbot
                    .all_runs()
                    .await
                    .iter()
                    .map(|run| format!("{run:?}")),
            );
        }
        story.push(tail(&self.homu.log(), 30));
        story.push(tail(&self.buildbot.log(), 30));
        story.push(tail(&self.watchdog.log(), 60));
        story.push(format!("all files: {}", self.workplace.dir().display()));
        story.join("\n")
    }
}

/// Waits until a look finds something.
pub async fn patience<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// A client for loopback: no proxy, no redirects.
pub fn http_client() -> reqwest::Client {
    // A second call finds the first one's provider, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .expect("a client can be made")
}

fn full_name(label: &str) -> String {
    format!("{OWNER}/{label}")
}

fn describe(message: &Message) -> String {
    match message {
        Message::Started { builder, revision } => format!("started {builder} {revision:.7}"),
        Message::Finished {
            builder,
            revision,
            text,
            ..
        } => {
            format!("finished {builder} {revision:.7} {text:?}")
        }
        Message::Comment {
            repository,
            pull,
            author,
            body,
        } => {
            format!("comment on {repository}#{pull} by {author}: {body:?}")
        }
        Message::Pull {
            repository,
            pull,
            action,
            ..
        } => format!("{repository}#{pull} {action}"),
        Message::Push { repository, branch } => format!("push to {branch} of {repository}"),
        Message::Read => "a read".to_owned(),
        Message::Other => "something else".to_owned(),
    }
}
