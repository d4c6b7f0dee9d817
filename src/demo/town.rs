//! The three fakes joined to each other: two repositories, two builders, two workers for each.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::buildbot::{BuilderOptions, FakeBuildbot, StepScript};
use super::github::{FakeGithub, Refusal};
use super::homu::{FakeHomu, HomuOptions, RepoOptions};

/// The bot's login on GitHub.
pub const BOT: &str = "homu";
/// Who writes pull requests.
pub const AUTHOR: &str = "author";
/// Who approves them.
pub const REVIEWER: &str = "reviewer";
/// The labels of the repositories in homu; `example/LABEL` on GitHub.
pub const REPOS: [&str; 2] = ["alpha", "beta"];
/// The builders that every pull request must pass; their workers are `NAME-1` and `NAME-2`.
pub const BUILDERS: [&str; 2] = ["linux", "mac"];

const BOT_TOKEN: &str = "token-of-the-bot";
const GITHUB_SECRET: &str = "secret-of-github";
const BUILDBOT_SECRET: &str = "secret-of-buildbot";

/// A fake GitHub, a fake Buildbot and a fake homu that know each other. They stop when the last
/// clone is dropped.
#[derive(Clone)]
pub struct Town {
    /// GitHub.
    pub github: FakeGithub,
    /// Buildbot.
    pub buildbot: FakeBuildbot,
    /// homu.
    pub homu: FakeHomu,
    folder: PathBuf,
}

impl Town {
    /// Starts everything on loopback; homu's files go into `folder`, which exists.
    ///
    /// # Errors
    ///
    /// When no port can be had, or the folder cannot be written.
    pub async fn start(folder: &Path) -> io::Result<Self> {
        let github = FakeGithub::start().await?;
        github.add_user(BOT, BOT_TOKEN);
        github.add_user(AUTHOR, "token-of-the-author");
        github.add_user(REVIEWER, "token-of-the-reviewer");

        let buildbot = FakeBuildbot::start(&BUILDERS.map(|name| BuilderOptions {
            name: name.to_owned(),
            workers: vec![format!("{name}-1"), format!("{name}-2")],
            steps: steps(Duration::from_secs(2)),
        }))?;

        let mut repos = BTreeMap::new();
        for label in REPOS {
            let full_name = full_name(label);
            github.add_repository("example", label);
            let builders = BUILDERS.map(str::to_owned).to_vec();
            let repo = RepoOptions {
                owner: "example".to_owned(),
                name: label.to_owned(),
                reviewers: vec![REVIEWER.to_owned()],
                github_secret: GITHUB_SECRET.to_owned(),
                buildbot_url: buildbot.url().to_owned(),
                buildbot_secret: BUILDBOT_SECRET.to_owned(),
                builders: builders.clone(),
                try_builders: builders,
            };
            repos.insert(label.to_owned(), repo);
            for branch in ["auto", "try"] {
                buildbot.schedule(&github.clone_url(&full_name), branch, &BUILDERS);
            }
            github.add_push_listener(&full_name, &["auto", "try"], &buildbot.hook_url());
        }

        let options = HomuOptions {
            folder: folder.to_owned(),
            github_url: github.url().to_owned(),
            github_token: BOT_TOKEN.to_owned(),
            repos,
        };
        let homu = FakeHomu::start(options).await?;
        buildbot.report_to(&homu.packets_url(), BUILDBOT_SECRET)?;
        for label in REPOS {
            github.add_hook(&full_name(label), &homu.webhook_url(), GITHUB_SECRET);
        }
        Ok(Self {
            github,
            buildbot,
            homu,
            folder: folder.to_owned(),
        })
    }

    /// Where homu's files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens a pull request.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such repository.
    pub fn open(&self, label: &str, title: &str) -> Result<u64, Refusal> {
        self.github.open_pull(&full_name(label), AUTHOR, title)
    }

    /// Approves a pull request by a comment, as people do.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such pull request.
    pub fn approve(&self, label: &str, pull: u64) -> Result<(), Refusal> {
        self.say(label, pull, &format!("@{BOT} r+"))
    }

    /// Comments on a pull request as the reviewer.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such pull request.
    pub fn say(&self, label: &str, pull: u64, words: &str) -> Result<(), Refusal> {
        self.github
            .comment(&full_name(label), pull, REVIEWER, words)
            .map(|_| ())
    }

    /// Whether a pull request is merged.
    pub fn is_merged(&self, label: &str, pull: u64) -> bool {
        self.github.is_merged(&full_name(label), pull)
    }

    /// The head of the branch that homu builds from.
    pub fn auto(&self, label: &str) -> Option<String> {
        self.github.reference(&full_name(label), "heads/auto")
    }
}

/// `owner/name` of a repository.
pub fn full_name(label: &str) -> String {
    format!("example/{label}")
}

/// Two steps that take `lasts` in all, with four lines a second in their logs.
pub fn steps(lasts: Duration) -> Vec<StepScript> {
    let half = lasts / 2;
    let lines = u64::try_from(half.as_millis() / 250).unwrap_or(u64::MAX);
    ["compile", "test"]
        .map(|name| StepScript {
            name: name.to_owned(),
            lasts: half,
            lines,
        })
        .to_vec()
}
