//! Joins what the database, the page and GitHub say of a repository into one snapshot of it.

use std::collections::{BTreeMap, BTreeSet};

use super::cfg::RepoCfg;
use super::database::{Fork, PullRow, ResultRow, Rows, shown_title};
use super::github::{Github, approved_head};
use super::page::PageRow;
use crate::model::{
    ApprovedPull, BotName, BuildKey, BuildKind, BuilderName, CiSystem, Expectation, MergeSha,
    PendingBuild, ProbeError, PullOnGithub, RepoName, RepoSnapshot, Sha, Told, Witnesses,
};

/// Approved pull requests of one repository that GitHub is asked about at one look, in the bot's
/// order; those behind them do not start next.
const APPROVED_MAX: usize = 20;
/// SHAs of the database that could hold the start slot; a repository's newest rows come last.
const SUSPECTS_MAX: usize = 16;

/// One repository's two witnesses.
pub struct Witnessed<'a> {
    /// The bot.
    pub bot: &'a BotName,
    /// The repository's label.
    pub label: &'a RepoName,
    /// Its configuration.
    pub cfg: &'a RepoCfg,
    /// The database.
    pub rows: &'a Rows,
    /// The page.
    pub page: &'a [PageRow],
    /// Merge SHAs that earlier looks saw.
    pub remembered: &'a BTreeMap<BuildKey, Sha>,
}

/// Whether database and page say the same of every pull request that either calls pending.
pub fn agree(label: &RepoName, rows: &Rows, page: &[PageRow]) -> bool {
    let in_database: BTreeSet<u64> = rows
        .pulls
        .iter()
        .filter(|row| &row.repo == label && row.status == "pending")
        .map(|row| row.num)
        .collect();
    let on_page: BTreeSet<u64> = page
        .iter()
        .filter(|row| row.status == "pending")
        .map(|row| row.num)
        .collect();
    in_database == on_page
}

/// What is asked of GitHub, and the first failure of it; a failed answer leaves what it would have
/// told unknown.
pub struct Asked<'a> {
    github: Option<&'a Github>,
    bot_login: Option<String>,
    /// The first failure.
    pub failed: Option<ProbeError>,
}

impl<'a> Asked<'a> {
    /// With homu's name on GitHub, where it is known.
    pub fn new(github: Option<&'a Github>, bot_login: Option<String>) -> Self {
        Self {
            github,
            bot_login,
            failed: None,
        }
    }

    fn keep<T>(&mut self, answer: Result<T, ProbeError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    /// The GitHub to ask; none after a failure, so that one outage costs one request.
    fn ready(&self) -> Option<&'a Github> {
        self.github.filter(|_| self.failed.is_none())
    }
}

impl Witnessed<'_> {
    /// The repository's snapshot.
    pub async fn snapshot(&self, asked: &mut Asked<'_>) -> RepoSnapshot {
        let mut pending = Vec::new();
        let mut numbers: BTreeSet<u64> = BTreeSet::new();
        let rows: BTreeMap<u64, &PullRow> = self
            .rows
            .pulls
            .iter()
            .filter(|row| &row.repo == self.label)
            .map(|row| (row.num, row))
            .collect();
        let page: BTreeMap<u64, &PageRow> = self.page.iter().map(|row| (row.num, row)).collect();
        numbers.extend(
            rows.iter()
                .filter(|(_, row)| row.status == "pending")
                .map(|(num, _)| num),
        );
        numbers.extend(
            page.iter()
                .filter(|(_, row)| row.status == "pending")
                .map(|(num, _)| num),
        );
        let tries = self
            .page
            .iter()
            .filter(|row| row.is_try && row.status == "pending")
            .count();
        for num in numbers {
            let row = rows.get(&num).copied();
            let on_page = page.get(&num).copied();
            pending.push(self.pending(num, row, on_page, tries, asked).await);
        }
        let mut approved = Vec::new();
        let waiting = self.page.iter().filter(|row| row.status == "approved");
        for (index, row) in waiting.enumerate() {
            let row_in_database = rows.get(&row.num).copied();
            approved.push(
                self.approved(row, row_in_database, index < APPROVED_MAX, asked)
                    .await,
            );
        }
        let mut slot_suspects: Vec<Sha> = rows
            .values()
            .rev()
            .filter_map(|row| row.merge_sha.clone())
            .take(SUSPECTS_MAX)
            .collect();
        if self.cfg.buildbot.is_some()
            && let Some(github) = asked.ready()
        {
            let head = github
                .branch(&self.cfg.owner, &self.cfg.name, &self.cfg.auto_branch)
                .await;
            if let Some(Some(head)) = asked.keep(head)
                && !slot_suspects.contains(&head)
            {
                slot_suspects.push(head);
            }
        }
        RepoSnapshot {
            pending,
            approved,
            tree_closed: self
                .rows
                .closed
                .iter()
                .find(|(repo, _)| repo == self.label)
                .map(|(_, least)| *least),
            slot_suspects,
        }
    }

    async fn pending(
        &self,
        num: u64,
        row: Option<&PullRow>,
        page: Option<&PageRow>,
        tries: usize,
        asked: &mut Asked<'_>,
    ) -> PendingBuild {
        let is_try = page
            .map(|page| page.is_try)
            .or_else(|| row.and_then(|row| row.is_try))
            .unwrap_or(false);
        let kind = if is_try {
            BuildKind::Try
        } else {
            BuildKind::Auto
        };
        let witnesses = witnesses(row, page);
        let on_github = match asked.ready() {
            Some(github) => {
                let pull = github.pull(&self.cfg.owner, &self.cfg.name, num).await;
                asked.keep(pull)
            }
            None => None,
        };
        let state = on_github
            .as_ref()
            .map_or(PullOnGithub::Unknown, |pull| pull.state.clone());
        let stored = row.and_then(|row| row.merge_sha.clone());
        let stores = !is_try || self.rows.fork != Some(Fork::Pypi);
        let merge_sha = if stores {
            stored.map_or(MergeSha::Missing, MergeSha::Known)
        } else {
            let head = on_github.as_ref().map(|pull| &pull.head);
            self.try_sha(num, head, tries, asked).await
        };
        let head_sha = match row.and_then(|row| row.head_sha.clone()) {
            Some(head) => Some(head),
            None => self.head_under_test(merge_sha.known(), asked).await,
        };
        let title = page
            .map(|page| page.title.clone())
            .or_else(|| row.and_then(|row| row.text.as_ref().map(|(title, _)| title.clone())))
            .unwrap_or_default();
        PendingBuild {
            pull: num,
            kind,
            expectations: self.expectations(num, kind, &merge_sha),
            merge_sha,
            head_sha,
            witnesses,
            github: state,
            title: shown_title(&title),
            url: self.url(num),
        }
    }

    /// The commit of a try build, which 0.2.0 does not store: the head of the try branch, if it is
    /// a merge of this pull request's head and nothing else is being tried; or the remembered one,
    /// while the branch is still at it.
    async fn try_sha(
        &self,
        num: u64,
        head: Option<&Sha>,
        tries: usize,
        asked: &mut Asked<'_>,
    ) -> MergeSha {
        let (Some(github), Some(head)) = (asked.ready(), head) else {
            return MergeSha::NotStored;
        };
        let (owner, name) = (&self.cfg.owner, &self.cfg.name);
        let branch = github.branch(owner, name, &self.cfg.try_branch).await;
        let Some(Some(branch)) = asked.keep(branch) else {
            return MergeSha::NotStored;
        };
        let key = BuildKey {
            bot: self.bot.clone(),
            repo: self.label.clone(),
            pull: num,
            kind: BuildKind::Try,
        };
        let parents = github.parents(owner, name, &branch).await;
        let merges_it = asked
            .keep(parents)
            .is_some_and(|parents| parents.contains(head));
        if merges_it && (tries == 1 || self.remembered.get(&key) == Some(&branch)) {
            MergeSha::Known(branch)
        } else {
            MergeSha::NotStored
        }
    }

    /// The head that a merge was made from: its second parent.
    async fn head_under_test(&self, merge: Option<&Sha>, asked: &mut Asked<'_>) -> Option<Sha> {
        let github = asked.ready()?;
        let parents = github
            .parents(&self.cfg.owner, &self.cfg.name, merge?)
            .await;
        asked.keep(parents)?.get(1).cloned()
    }

    async fn approved(
        &self,
        page: &PageRow,
        row: Option<&PullRow>,
        ask: bool,
        asked: &mut Asked<'_>,
    ) -> ApprovedPull {
        let (owner, name) = (&self.cfg.owner, &self.cfg.name);
        let mut state = PullOnGithub::Unknown;
        let mut head_sha = row.and_then(|row| row.head_sha.clone());
        if let (true, Some(github)) = (ask, asked.ready()) {
            let pull = github.pull(owner, name, page.num).await;
            if let Some(pull) = asked.keep(pull) {
                state = pull.state;
            }
        }
        if let (true, None, PullOnGithub::Open { head }, Some(github), Some(login)) = (
            ask,
            &head_sha,
            &state,
            asked.ready(),
            asked.bot_login.clone(),
        ) {
            let comments = github.comments(owner, name, page.num).await;
            if let Some(Some(comments)) = asked.keep(comments) {
                head_sha = approved_head(&comments, &login, &self.cfg.reviewers).map(|approved| {
                    // An approval may name its head by the first digits.
                    if head.as_str().starts_with(&approved) {
                        head.clone()
                    } else {
                        Sha::new(approved)
                    }
                });
            }
        }
        ApprovedPull {
            pull: page.num,
            head_sha,
            github: state,
            mergeable: page.mergeable,
            priority: page.priority,
            title: shown_title(&page.title),
            url: self.url(page.num),
        }
    }

    fn expectations(&self, num: u64, kind: BuildKind, merge_sha: &MergeSha) -> Vec<Expectation> {
        let expected = match kind {
            BuildKind::Auto => &self.cfg.auto,
            BuildKind::Try => &self.cfg.tries,
        };
        expected
            .iter()
            .map(|(builder, system)| Expectation {
                builder: builder.clone(),
                system: *system,
                told: self.told(num, builder, *system, merge_sha),
            })
            .collect()
    }

    fn told(&self, num: u64, builder: &BuilderName, system: CiSystem, sha: &MergeSha) -> Told {
        let found = self.rows.results.iter().find(|row: &&ResultRow| {
            &row.repo == self.label
                && row.num == num
                && row.builder == builder.as_str()
                && sha.known().is_none_or(|sha| row.merge_sha == sha.as_str())
        });
        let Some(row) = found else {
            return Told::Nothing;
        };
        let url = row.url.clone();
        match (row.green, system) {
            (Some(true), _) => Told::Green { url },
            (Some(false), _) => Told::Red { url },
            (None, CiSystem::Buildbot) => Told::Started { url },
            (None, CiSystem::Travis | CiSystem::Status | CiSystem::Check) => Told::Nothing,
        }
    }

    fn url(&self, num: u64) -> String {
        format!(
            "https://github.com/{}/{}/pull/{num}",
            self.cfg.owner, self.cfg.name
        )
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
