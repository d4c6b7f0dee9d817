//! Joins what the database, the page and GitHub say of homu's repositories into one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::approval::Speakers;
use super::config::RepoCfg;
use super::database::{Fork, PullRow, RepoRows};
use super::github::{Github, Place, Pull};
use super::page::PageRow;
use crate::model::{
    ApprovedPull, BotName, BuildKey, BuildKind, BuilderName, CiSystem, Expectation, MergeSha,
    PendingBuild, ProbeError, ProbeFailure, PullOnGithub, RepoName, RepoSnapshot, Sha, Told,
    Witnesses,
};

/// Approved pull requests of one repository that GitHub is asked about at one look, in the bot's
/// order; those behind them do not start next.
const APPROVED_MAX: usize = 20;
/// SHAs of one repository's rows that could hold the start slot, those of the newest pull requests.
const SUSPECTS_MAX: usize = 16;
/// The longest title that is kept, characters.
const TITLE_MAX: usize = 200;

/// One repository's two witnesses, read one right after the other.
pub struct Witnessed<'a> {
    /// The bot.
    pub bot: &'a BotName,
    /// Which homu it is.
    pub fork: Fork,
    /// The repository's label.
    pub label: &'a RepoName,
    /// Its configuration.
    pub cfg: &'a RepoCfg,
    /// Its rows in the database.
    pub rows: &'a RepoRows,
    /// Its page.
    pub page: &'a [PageRow],
    /// Merge SHAs that earlier looks saw.
    pub remembered: &'a BTreeMap<BuildKey, Sha>,
}

/// Whether database and page say the same of every pull request that either calls pending, and the
/// database has the commit of every one. homu writes a status and a commit in two statements.
pub fn settled(rows: &RepoRows, page: &[PageRow]) -> bool {
    let in_database: BTreeSet<u64> = rows
        .pulls
        .iter()
        .filter(|(_, row)| row.status == "pending")
        .map(|(num, _)| *num)
        .collect();
    let pending = || page.iter().filter(|row| row.is_pending());
    let on_page: BTreeSet<u64> = pending().map(|row| row.num).collect();
    let has_commit = |num: &u64| {
        let row = rows.pulls.get(num);
        row.is_some_and(|row| row.merge_sha.is_some())
    };
    in_database == on_page
        && pending()
            .filter(|row| !row.is_try)
            .all(|row| has_commit(&row.num))
}

/// Whether the database cannot be the one of the homu that made the page.
pub fn foreign(rows: &RepoRows, page: &[PageRow]) -> bool {
    rows.pulls.is_empty() && page.iter().any(PageRow::is_pending)
}

/// The snapshots of all repositories. GitHub is asked about what is pending first, then about what
/// is approved, then about what could hold the start slot.
pub async fn join(
    repos: &[Witnessed<'_>],
    asked: &mut Asked<'_>,
) -> BTreeMap<RepoName, RepoSnapshot> {
    let mut snapshots = BTreeMap::new();
    for repo in repos {
        let mut pending = Vec::new();
        for num in repo.pending_numbers() {
            pending.push(repo.pending(num, asked).await);
        }
        let snapshot = RepoSnapshot {
            pending,
            tree_closed: repo.rows.tree_closed,
            ..RepoSnapshot::default()
        };
        snapshots.insert(repo.label.clone(), snapshot);
    }
    for repo in repos {
        let approved = repo.approved(asked).await;
        if let Some(snapshot) = snapshots.get_mut(repo.label) {
            snapshot.approved = approved;
        }
    }
    // Nothing waits for the slot where nothing is approved.
    let waits = snapshots.values().any(|repo| !repo.approved.is_empty());
    for repo in repos {
        let suspects = repo.slot_suspects(waits, asked).await;
        if let Some(snapshot) = snapshots.get_mut(repo.label) {
            snapshot.slot_suspects = suspects;
        }
    }
    snapshots
}

/// GitHub while one look asks it: the first failure, after which it is not asked again, so that one
/// outage costs one request; a failed answer leaves what it would have told unknown.
pub struct Asked<'a> {
    github: Option<&'a Github>,
    mention: Option<&'a str>,
    until: Instant,
    stopped: bool,
    /// The first failure.
    pub failed: Option<ProbeError>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl<'a> Asked<'a> {
    /// Asks until then; `mention` is the name that homu answers to, where the configuration tells it.
    pub fn new(github: Option<&'a Github>, mention: Option<&'a str>, until: Instant) -> Self {
        Self {
            github,
            mention,
            until,
            stopped: false,
            failed: None,
            warnings: Vec::new(),
        }
    }

    /// The GitHub to ask; none after a failure.
    fn github(&self) -> Option<&'a Github> {
        self.github.filter(|_| !self.stopped)
    }

    /// Waits for an answer; `None` where it failed.
    async fn wait<T>(&mut self, answer: impl Future<Output = Result<T, ProbeError>>) -> Option<T> {
        let answer = match tokio::time::timeout_at(self.until, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ProbeError::new(
                ProbeFailure::Timeout,
                "GitHub took too long for all that a look asks of it",
            )),
        };
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.stopped = true;
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    async fn pull(&mut self, repo: &Witnessed<'_>, num: u64, pending: bool) -> Option<Pull> {
        let place = repo.place();
        let github = self.github()?;
        let answer = self.wait(github.pull(place, num)).await?;
        if answer.is_none() {
            let missing = format!(
                "GitHub shows no pull request {}/{}#{num} to homu's token (404)",
                place.owner, place.name
            );
            if pending {
                let error = ProbeError::new(ProbeFailure::HttpStatus, missing);
                self.failed.get_or_insert(error);
            } else {
                self.warnings.push(missing);
            }
        }
        answer
    }

    /// The name that homu answers to.
    async fn mention(&mut self) -> Option<String> {
        match self.mention {
            Some(mention) => Some(mention.to_owned()),
            None => {
                let github = self.github()?;
                self.wait(github.login()).await
            }
        }
    }
}

impl Witnessed<'_> {
    /// The pull requests that either witness calls pending.
    fn pending_numbers(&self) -> BTreeSet<u64> {
        let rows = self.rows.pulls.iter();
        let in_database = rows.filter(|(_, row)| row.status == "pending");
        let on_page = self.page.iter().filter(|row| row.is_pending());
        in_database
            .map(|(num, _)| *num)
            .chain(on_page.map(|row| row.num))
            .collect()
    }

    async fn pending(&self, num: u64, asked: &mut Asked<'_>) -> PendingBuild {
        let row = self.rows.pulls.get(&num);
        let page = self.page.iter().find(|page| page.num == num);
        let on_github = asked.pull(self, num, true).await;
        let kind = kind(row, page);
        let merge_sha = self.merge_sha(num, kind, on_github.as_ref(), asked).await;
        let head_sha = match row.and_then(|row| row.head_sha.clone()) {
            Some(head) => Some(head),
            None => self.head_under_test(merge_sha.known(), asked).await,
        };
        let title = page
            .map(|page| page.title.as_str())
            .or_else(|| row.and_then(|row| row.title.as_deref()));
        PendingBuild {
            pull: num,
            kind,
            expectations: self.expectations(num, kind, row, &merge_sha),
            merge_sha,
            head_sha,
            witnesses: witnesses(row, page),
            github: on_github.map_or(PullOnGithub::Unknown, |pull| pull.state),
            title: shown_title(title.unwrap_or_default()),
            url: self.url(num),
        }
    }

    async fn merge_sha(
        &self,
        num: u64,
        kind: BuildKind,
        on_github: Option<&Pull>,
        asked: &mut Asked<'_>,
    ) -> MergeSha {
        match (self.fork, kind) {
            (Fork::Pypi, BuildKind::Try) => {}
            (Fork::Pypi, BuildKind::Auto) | (Fork::Barosl | Fork::Servo | Fork::RustLang, _) => {
                let stored = self.rows.pulls.get(&num);
                let stored = stored.and_then(|row| row.merge_sha.clone());
                return stored.map_or(MergeSha::Missing, MergeSha::Known);
            }
        }
        if let Some(sha) = self.sha_of_rows(num) {
            return MergeSha::Known(sha);
        }
        let sha = self.try_sha(num, on_github, asked).await;
        sha.map_or(MergeSha::NotStored, MergeSha::Known)
    }

    /// The commit that the results of a try build name: 0.2.0 drops all of them when one starts
    /// (`main.py`: `init_build_res`), and writes its commit into each (`set_build_res`).
    fn sha_of_rows(&self, num: u64) -> Option<Sha> {
        let mut shas = self.rows.results.iter().filter(|row| row.num == num);
        let first = shas.next()?.merge_sha.as_str();
        let only = !first.is_empty() && shas.all(|row| row.merge_sha == first);
        only.then(|| Sha::new(first))
    }

    /// The commit of a try build that has no results yet. The head of the branch, if it is a merge
    /// of this pull request's head, and nothing else is tried or it is the one remembered; else the
    /// one remembered, as long as the branch has gone on to something else than this pull request.
    async fn try_sha(
        &self,
        num: u64,
        on_github: Option<&Pull>,
        asked: &mut Asked<'_>,
    ) -> Option<Sha> {
        let head = &on_github?.head;
        let tried = |row: &&PageRow| row.is_try && row.is_pending();
        let tries = self.page.iter().filter(tried).count();
        let remembered = self.remembered.get(&BuildKey {
            bot: self.bot.clone(),
            repo: self.label.clone(),
            pull: num,
            kind: BuildKind::Try,
        });
        let (place, branch) = (self.place(), self.cfg.pypi_try_branch());
        let github = asked.github()?;
        let at = asked.wait(github.branch(place, branch)).await??;
        if self.merges(&at, head, asked).await? {
            return (tries == 1 || remembered == Some(&at)).then_some(at);
        }
        let remembered = remembered?;
        let still = self.merges(remembered, head, asked).await?;
        still.then(|| remembered.clone())
    }

    /// Whether a commit is a merge of a head; `None` where GitHub does not tell.
    async fn merges(&self, merge: &Sha, head: &Sha, asked: &mut Asked<'_>) -> Option<bool> {
        let parents = self.parents(merge, asked).await?;
        Some(parents.contains(head))
    }

    /// The head that a merge was made from: its second parent.
    async fn head_under_test(&self, merge: Option<&Sha>, asked: &mut Asked<'_>) -> Option<Sha> {
        let parents = self.parents(merge?, asked).await?;
        parents.get(1).cloned()
    }

    /// A commit's parents; none of a commit that GitHub does not have.
    async fn parents(&self, of: &Sha, asked: &mut Asked<'_>) -> Option<Vec<Sha>> {
        let github = asked.github()?;
        let parents = asked.wait(github.parents(self.place(), of)).await?;
        Some(parents.unwrap_or_default())
    }

    async fn approved(&self, asked: &mut Asked<'_>) -> Vec<ApprovedPull> {
        let mut approved = Vec::new();
        for page in self.page.iter().filter(|row| row.status == "approved") {
            let ask = approved.len() < APPROVED_MAX;
            approved.push(self.approved_pull(page, ask, asked).await);
        }
        approved
    }

    async fn approved_pull(
        &self,
        page: &PageRow,
        ask: bool,
        asked: &mut Asked<'_>,
    ) -> ApprovedPull {
        let row = self.rows.pulls.get(&page.num);
        let mut head_sha = row.and_then(|row| row.head_sha.clone());
        let mut github = PullOnGithub::Unknown;
        if ask && let Some(pull) = asked.pull(self, page.num, false).await {
            if self.fork == Fork::Pypi {
                head_sha = self.approved_head(page.num, &pull, asked).await;
            }
            github = pull.state;
        }
        let priority = row.and_then(|row| row.priority).or(page.priority);
        ApprovedPull {
            pull: page.num,
            head_sha,
            github,
            mergeable: page.mergeable,
            // 0.2.0 shows a rollup's as a word; it starts last.
            priority: priority.unwrap_or(-1),
            title: shown_title(&page.title),
            url: self.url(page.num),
        }
    }

    /// The head that homu has of a pull request that is pending or approved; `None`: it is neither,
    /// or no source tells.
    pub async fn head_in_homu(&self, num: u64, asked: &mut Asked<'_>) -> Option<Sha> {
        if self.pending_numbers().contains(&num) {
            return self.pending(num, asked).await.head_sha;
        }
        let page = self.page.iter().find(|row| row.num == num)?;
        if page.status != "approved" {
            return None;
        }
        self.approved_pull(page, true, asked).await.head_sha
    }

    /// A build that is pending on a commit, where either witness calls it so.
    pub async fn build(&self, num: u64, asked: &mut Asked<'_>) -> Option<PendingBuild> {
        if !self.pending_numbers().contains(&num) {
            return None;
        }
        Some(self.pending(num, asked).await)
    }

    /// The head that homu holds approved, from the comments of an open pull request.
    async fn approved_head(&self, num: u64, pull: &Pull, asked: &mut Asked<'_>) -> Option<Sha> {
        let PullOnGithub::Open { head } = &pull.state else {
            return None;
        };
        let mention = asked.mention().await?;
        let speakers = Speakers {
            bot: &mention,
            reviewers: &self.cfg.reviewers,
        };
        let place = self.place();
        let github = asked.github()?;
        let found = github.approved_head(place, num, pull.comments, speakers);
        let found = asked.wait(found).await??;
        if head.as_str().starts_with(&found) {
            return Some(head.clone());
        }
        // homu writes no comment of its own about an approval in a review.
        let github = asked.github()?;
        let reviewed = github.approved_in_review(place, num, head, speakers);
        let reviewed = asked.wait(reviewed).await?;
        Some(if reviewed {
            head.clone()
        } else {
            Sha::new(found)
        })
    }

    async fn slot_suspects(&self, waits: bool, asked: &mut Asked<'_>) -> Vec<Sha> {
        // Only the start of a build on Buildbot takes the slot.
        if self.cfg.buildbot.is_none() {
            return Vec::new();
        }
        let rows = self.rows.pulls.values().rev();
        let mut suspects: Vec<Sha> = rows
            .filter_map(|row| row.merge_sha.clone())
            .take(SUSPECTS_MAX)
            .collect();
        let branches: &[&str] = if waits {
            &[&self.cfg.auto_branch, &self.cfg.try_branch]
        } else {
            &[]
        };
        for branch in branches {
            let Some(github) = asked.github() else { break };
            let head = asked.wait(github.branch(self.place(), branch)).await;
            if let Some(Some(head)) = head
                && !suspects.contains(&head)
            {
                suspects.push(head);
            }
        }
        suspects
    }

    fn expectations(
        &self,
        num: u64,
        kind: BuildKind,
        row: Option<&PullRow>,
        merge_sha: &MergeSha,
    ) -> Vec<Expectation> {
        let chosen = row.and_then(|row| row.try_choose.as_deref());
        self.cfg
            .expected(self.fork, kind, chosen)
            .into_iter()
            .map(|(builder, system)| Expectation {
                told: self.told(num, &builder, system, merge_sha),
                builder,
                system,
            })
            .collect()
    }

    fn told(&self, num: u64, builder: &BuilderName, system: CiSystem, sha: &MergeSha) -> Told {
        let Some(sha) = sha.known() else {
            return Told::Nothing;
        };
        let found = self.rows.results.iter().find(|row| {
            row.num == num && row.builder == builder.as_str() && row.merge_sha == sha.as_str()
        });
        let Some(row) = found else {
            return Told::Nothing;
        };
        let url = row.url.clone();
        match (row.green, system) {
            (Some(true), _) => Told::Green { url },
            (Some(false), _) => Told::Red { url },
            (None, CiSystem::Buildbot) => Told::Started { url },
            // homu takes no start from these.
            (None, CiSystem::Travis | CiSystem::Status | CiSystem::Check) => Told::Nothing,
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            owner: &self.cfg.owner,
            name: &self.cfg.name,
        }
    }

    fn url(&self, num: u64) -> String {
        let Place { owner, name } = self.place();
        format!("https://github.com/{owner}/{name}/pull/{num}")
    }
}

/// The witness that calls it pending says whether it only tries; the page before the database.
fn kind(row: Option<&PullRow>, page: Option<&PageRow>) -> BuildKind {
    let on_page = page
        .filter(|page| page.is_pending())
        .map(|page| page.is_try);
    let stored = row.and_then(|row| row.is_try);
    let shown = page.map(|page| page.is_try);
    match on_page.or(stored).or(shown) {
        Some(true) => BuildKind::Try,
        Some(false) | None => BuildKind::Auto,
    }
}

fn witnesses(row: Option<&PullRow>, page: Option<&PageRow>) -> Witnesses {
    let database = row.map_or("", |row| row.status.as_str());
    let shown = page.map_or("", |page| page.status.as_str());
    match (database == "pending", shown == "pending") {
        (true, true) | (false, false) => Witnesses::Agree,
        (true, false) => Witnesses::DatabaseOnly {
            page: shown.to_owned(),
        },
        (false, true) => Witnesses::PageOnly {
            database: database.to_owned(),
        },
    }
}

fn shown_title(title: &str) -> String {
    title.chars().take(TITLE_MAX).collect()
}
