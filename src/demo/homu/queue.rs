//! What the fake homu starts, and what it does with results: `process_queue`, `start_build`,
//! `start_rebuild` of homu's `main.py`, and `report_build_res` of its `server.py`.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::config::{HomuOptions, RepoOptions};
use super::database::Database;
use super::fake::Retried;
use super::github::{Github, Refused};
use super::pull::{BuildResult, PullState, Status};

/// Why a request failed.
#[derive(Debug)]
pub enum Failure {
    /// An exception; homu answers 500.
    Exception(String),
    /// A refusal with 400 and these words.
    Refused(&'static str),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Exception(match refused {
            Refused::Status(status, words) => format!("GitHub answered {status}: {words}"),
            Refused::Unanswered(why) => why,
        })
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Exception(error.to_string())
    }
}

/// Everything in the fake homu's memory.
pub struct Homu {
    pub options: HomuOptions,
    pub login: String,
    pub pulls: BTreeMap<String, BTreeMap<u64, PullState>>,
    /// The merge SHA whose start is waited for; empty: nothing holds the slot.
    pub slot: String,
    pub retried: VecDeque<Retried>,
    pub(super) database: Database,
    pub(super) github: Github,
}

impl Homu {
    /// Starts with no pull request, and asks GitHub for the bot's own name.
    pub async fn start(options: HomuOptions) -> io::Result<Self> {
        let database = Database::open(&options.database()).map_err(io::Error::other)?;
        let github = Github::new(&options.github_url, &options.github_token)?;
        let login = github
            .login()
            .await
            .map_err(|refused| io::Error::other(format!("GitHub knows no bot: {refused:?}")))?;
        let pulls = options
            .repos
            .keys()
            .map(|label| (label.clone(), BTreeMap::new()))
            .collect();
        let (slot, retried) = (String::new(), VecDeque::new());
        Ok(Self {
            options,
            login,
            pulls,
            slot,
            retried,
            database,
            github,
        })
    }

    /// A repository by its label.
    pub fn repo(&self, label: &str) -> Result<&RepoOptions, Failure> {
        self.options.repos.get(label).ok_or_else(|| missing(label))
    }

    /// A pull request; one that homu does not know is a `KeyError` there.
    pub fn pull(&mut self, label: &str, number: u64) -> Result<&mut PullState, Failure> {
        self.pulls
            .get_mut(label)
            .and_then(|pulls| pulls.get_mut(&number))
            .ok_or_else(|| missing(&format!("{label}#{number}")))
    }

    /// The pull request that a merge SHA belongs to.
    pub fn find(&self, sha: &str) -> Option<(String, u64)> {
        self.pulls.iter().find_map(|(label, pulls)| {
            let pull = pulls.values().find(|pull| pull.merge_sha == sha)?;
            Some((label.clone(), pull.number))
        })
    }

    /// Starts the next build, if one can start. Runs on events only, never on a clock.
    pub async fn process_queue(&mut self) -> Result<(), Failure> {
        let labels: Vec<String> = self.pulls.keys().cloned().collect();
        for label in labels {
            let order = self.order(&label);
            for &number in &order {
                let pull = self.pull(&label, number)?;
                let approved = !pull.approved_by.is_empty();
                match pull.status {
                    Status::Pending if !pull.is_try => break,
                    Status::Idle if approved => {
                        if self.start_rebuild(&label, number).await?
                            || self.start_build(&label, number).await?
                        {
                            return Ok(());
                        }
                    }
                    Status::Success if pull.is_try && approved => {
                        pull.is_try = false;
                        if self.start_build(&label, number).await? {
                            return Ok(());
                        }
                    }
                    Status::Idle
                    | Status::Pending
                    | Status::Success
                    | Status::Failure
                    | Status::Error => {}
                }
            }
            for &number in &order {
                let pull = self.pull(&label, number)?;
                if pull.status == Status::Idle
                    && pull.is_try
                    && self.start_build(&label, number).await?
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes a builder's result, and merges when all are green.
    pub async fn report(
        &mut self,
        label: &str,
        number: u64,
        builder: &str,
        green: bool,
        url: &str,
    ) -> Result<(), Failure> {
        self.set_result(label, number, builder, Some(green), url)?;
        let full_name = self.repo(label)?.full_name();
        let pull = self.pull(label, number)?.clone();
        if green {
            if pull
                .results
                .values()
                .all(|result| result.green == Some(true))
            {
                self.set_status(label, number, Status::Success)?;
                self.github
                    .set_status(
                        &full_name,
                        &pull.head_sha,
                        "success",
                        url,
                        "Test successful",
                    )
                    .await?;
                let links: Vec<String> = pull
                    .results
                    .iter()
                    .map(|(builder, result)| format!("[{builder}]({})", result.url))
                    .collect();
                let comment = format!(":sunny: Test successful - {}", links.join(", "));
                self.github.comment(&full_name, number, &comment).await?;
                if !pull.approved_by.is_empty() && !pull.is_try {
                    self.fast_forward(label, &full_name, &pull, url).await?;
                }
            }
        } else if pull.status == Status::Pending {
            self.set_status(label, number, Status::Failure)?;
            self.github
                .set_status(&full_name, &pull.head_sha, "failure", url, "Test failed")
                .await?;
            let comment = format!(":broken_heart: Test failed - [{builder}]({url})");
            self.github.comment(&full_name, number, &comment).await?;
        }
        self.process_queue().await
    }

    /// Takes over a new head: nothing that was said of the old one holds.
    pub fn head_advanced(
        &mut self,
        label: &str,
        number: u64,
        head_sha: &str,
    ) -> Result<(), Failure> {
        let pull = self.pull(label, number)?;
        pull.head_sha = head_sha.to_owned();
        pull.approved_by.clear();
        pull.merge_sha.clear();
        pull.is_try = false;
        pull.mergeable = None;
        self.set_status(label, number, Status::Idle)?;
        self.database.store_mergeable(label, number, None)?;
        self.expect(label, number, &[])
    }

    /// Asks GitHub anew whether a pull request merges without conflict.
    pub async fn refresh_mergeable(&mut self, label: &str, number: u64) -> Result<(), Failure> {
        self.database.store_mergeable(label, number, None)?;
        let full_name = self.repo(label)?.full_name();
        let mergeable = self.github.pull(&full_name, number).await?["mergeable"].as_bool();
        let pull = self.pull(label, number)?;
        let lost = pull.mergeable == Some(true) && mergeable == Some(false);
        pull.mergeable = mergeable;
        self.database.store_mergeable(label, number, mergeable)?;
        if lost {
            let comment = ":umbrella: The latest upstream changes made this pull request \
                           unmergeable. Please resolve the merge conflicts.";
            self.github.comment(&full_name, number, comment).await?;
        }
        Ok(())
    }

    pub(super) fn set_status(
        &mut self,
        label: &str,
        number: u64,
        status: Status,
    ) -> Result<(), Failure> {
        let pull = self.pull(label, number)?;
        pull.status = status;
        let pull = pull.clone();
        Ok(self.database.store_status(label, &pull)?)
    }

    /// Waits for these builders, and forgets all results.
    pub(super) fn expect(
        &mut self,
        label: &str,
        number: u64,
        builders: &[String],
    ) -> Result<(), Failure> {
        self.pull(label, number)?.results = builders
            .iter()
            .map(|builder| (builder.clone(), BuildResult::default()))
            .collect();
        Ok(self.database.forget_results(label, number)?)
    }

    pub(super) fn set_result(
        &mut self,
        label: &str,
        number: u64,
        builder: &str,
        green: Option<bool>,
        url: &str,
    ) -> Result<(), Failure> {
        let result = BuildResult {
            green,
            url: url.to_owned(),
        };
        let pull = self.pull(label, number)?;
        pull.results.insert(builder.to_owned(), result.clone());
        let pull = pull.clone();
        Ok(self.database.store_result(label, &pull, builder, &result)?)
    }

    fn order(&self, label: &str) -> Vec<u64> {
        let mut pulls: Vec<&PullState> = self
            .pulls
            .get(label)
            .into_iter()
            .flat_map(BTreeMap::values)
            .collect();
        pulls.sort_by_key(|pull| pull.order());
        pulls.iter().map(|pull| pull.number).collect()
    }

    /// Starts a build; true also where the slot is held and nothing was done, which is how one
    /// lost message stops every repository.
    async fn start_build(&mut self, label: &str, number: u64) -> Result<bool, Failure> {
        if !self.slot.is_empty() {
            return Ok(true);
        }
        let repo = self.repo(label)?.clone();
        let full_name = repo.full_name();
        let pull = self.pull(label, number)?.clone();
        let on_github = self.github.pull(&full_name, number).await?;
        if on_github["head"]["sha"].as_str() != Some(&pull.head_sha) {
            return Err(Failure::Exception(format!(
                "AssertionError: {full_name}#{number} has another head on GitHub"
            )));
        }
        let Some(merge_sha) = self.create_merge(label, &full_name, &pull).await? else {
            return Ok(false);
        };
        let (branch, builders) = if pull.is_try {
            ("heads/try", &repo.try_builders)
        } else {
            ("heads/auto", &repo.builders)
        };
        self.github
            .set_reference(&full_name, branch, &merge_sha, true)
            .await?;
        self.expect(label, number, builders)?;
        self.pull(label, number)?.merge_sha.clone_from(&merge_sha);
        self.slot.clone_from(&merge_sha);
        self.set_status(label, number, Status::Pending)?;
        let verb = if pull.is_try { "Trying" } else { "Testing" };
        let description = format!(
            "{verb} commit {} with merge {}...",
            short(&pull.head_sha),
            short(&merge_sha)
        );
        self.github
            .set_status(&full_name, &pull.head_sha, "pending", "", &description)
            .await?;
        let comment = format!(":hourglass: {description}");
        self.github.comment(&full_name, number, &comment).await?;
        Ok(true)
    }

    async fn create_merge(
        &mut self,
        label: &str,
        full_name: &str,
        pull: &PullState,
    ) -> Result<Option<String>, Failure> {
        let master = self.github.reference(full_name, "heads/master").await?;
        self.github
            .set_reference(full_name, "heads/tmp", &master, true)
            .await?;
        let approved_by = if pull.is_try {
            "<try>"
        } else {
            &pull.approved_by
        };
        let message = format!(
            "Auto merge of #{} - {}, r={approved_by}\n\n{}",
            pull.number, pull.head_ref, pull.body
        );
        match self
            .github
            .merge(full_name, "tmp", &pull.head_sha, &message)
            .await
        {
            Err(Refused::Status(409, _)) => {
                self.set_status(label, pull.number, Status::Error)?;
                let head = &pull.head_sha;
                self.github
                    .set_status(full_name, head, "error", "", "Merge conflict")
                    .await?;
                self.github
                    .comment(full_name, pull.number, ":lock: Merge conflict")
                    .await?;
                Ok(None)
            }
            merge => Ok(merge?),
        }
    }

    /// Rebuilds on the same merge SHA what is not green, where the rest is and Buildbot can.
    async fn start_rebuild(&mut self, label: &str, number: u64) -> Result<bool, Failure> {
        let full_name = self.repo(label)?.full_name();
        let pull = self.pull(label, number)?.clone();
        if pull.results.values().any(|result| result.url.is_empty()) {
            return Ok(false);
        }
        let link =
            |(builder, result): &(&String, &BuildResult)| format!("[{builder}]({})", result.url);
        let (green, rest): (Vec<_>, Vec<_>) = pull
            .results
            .iter()
            .partition(|(_, result)| result.green == Some(true));
        if green.is_empty() || rest.is_empty() {
            return Ok(false);
        }
        let master = self.github.reference(&full_name, "heads/master").await?;
        if !self
            .github
            .parents(&full_name, &pull.merge_sha)
            .await?
            .contains(&master)
        {
            return Ok(false);
        }
        let tag = "tags/homu-tmp";
        self.github
            .set_reference(&full_name, tag, &pull.merge_sha, true)
            .await?;
        for (builder, result) in &rest {
            let answer = self.github.ask_rebuild(&result.url).await?;
            // Buildbot 0.8 answers with the builder's page. Buildbot 4 has no such page.
            if !answer.contains(builder.as_str()) {
                let why = title(&answer).unwrap_or("Unknown error");
                let comment = format!(":bomb: Failed to start rebuilding: `{why}`");
                self.github.comment(&full_name, number, &comment).await?;
                return Ok(false);
            }
        }
        self.set_status(label, number, Status::Pending)?;
        let words = "Previous build results are reusable. Rebuilding...";
        self.github
            .set_status(&full_name, &pull.head_sha, "pending", "", words)
            .await?;
        let comment = format!(
            ":zap: Previous build results for {} are reusable. Rebuilding only {}...",
            green.iter().map(link).collect::<Vec<_>>().join(", "),
            rest.iter().map(link).collect::<Vec<_>>().join(", "),
        );
        self.github.comment(&full_name, number, &comment).await?;
        Ok(true)
    }

    async fn fast_forward(
        &mut self,
        label: &str,
        full_name: &str,
        pull: &PullState,
        url: &str,
    ) -> Result<(), Failure> {
        let moved = self
            .github
            .set_reference(full_name, "heads/master", &pull.merge_sha, false)
            .await;
        let Err(Refused::Status(_, words)) = moved else {
            return Ok(moved?);
        };
        self.set_status(label, pull.number, Status::Error)?;
        let words = format!("Test was successful, but fast-forwarding failed: {words}");
        self.github
            .set_status(full_name, &pull.head_sha, "error", url, &words)
            .await?;
        self.github
            .comment(full_name, pull.number, &format!(":eyes: {words}"))
            .await?;
        Ok(())
    }
}

/// The first seven digits of a SHA.
pub fn short(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

fn missing(key: &str) -> Failure {
    Failure::Exception(format!("KeyError: {key}"))
}

fn title(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("<title>")?;
    Some(rest.split_once("</title>")?.0)
}
