//! Joins what the database, the page and GitHub say of homu's repositories into one snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::approval::Speakers;
use super::asked::{Asked, NotTold};
use super::config::RepoCfg;
use super::database::{Fork, PullRow, RepoRows};
use super::github::{AT_ONCE, Place, Pull};
use super::page::PageRow;
use super::rotation::{Known, Rotation, Subject};
use crate::model::{
    ApprovedPull, BotName, BuildKey, BuildKind, BuilderName, CiSystem, Expectation, MergeSha,
    PendingBuild, ProbeError, ProbeFailure, PullOnGithub, RepoName, RepoSnapshot, Sha, Told,
    Witnesses,
};
use futures_util::stream::{self, StreamExt};

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

/// The snapshots of all repositories. GitHub is asked about what is pending first; then, in turns
/// over several looks, about what is approved and what could hold the start slot.
pub async fn join(
    repos: &[Witnessed<'_>],
    asked: &Asked<'_>,
    rotation: &Mutex<Rotation>,
) -> BTreeMap<RepoName, RepoSnapshot> {
    let mut snapshots = pending_builds(repos, asked).await;
    asked.essential_is_done();
    let subjects = subjects(repos);
    // Only its own lock's borrow: GitHub is not waited for under it.
    let turns = locked(rotation).turns(subjects);
    // The name is kept once it is known; asked for here, it is asked for once.
    let names = repos.iter().any(|repo| repo.fork == Fork::Pypi)
        && turns
            .iter()
            .any(|it| matches!(it, Subject::Approved { .. }));
    if names {
        asked.mention().await;
    }
    let asking: Vec<_> = turns
        .into_iter()
        .filter_map(|subject| Some((repo_of(repos, &subject)?, subject)))
        .map(|(repo, subject)| take_turn(repo, subject, asked))
        .collect();
    let told: Vec<_> = stream::iter(asking)
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let mut rotation = locked(rotation);
    for (subject, known) in told {
        rotation.asked(subject, known);
    }
    for repo in repos {
        if let Some(snapshot) = snapshots.get_mut(repo.label) {
            snapshot.approved = repo.approved(&rotation, asked);
            snapshot.slot_suspects = repo.slot_suspects(&rotation);
        }
    }
    snapshots
}

/// What is pending, with all that GitHub must tell of it.
async fn pending_builds(
    repos: &[Witnessed<'_>],
    asked: &Asked<'_>,
) -> BTreeMap<RepoName, RepoSnapshot> {
    let mut snapshots: BTreeMap<RepoName, RepoSnapshot> = repos
        .iter()
        .map(|repo| {
            let snapshot = RepoSnapshot {
                tree_closed: repo.rows.tree_closed,
                ..RepoSnapshot::default()
            };
            (repo.label.clone(), snapshot)
        })
        .collect();
    let wanted: Vec<(&Witnessed<'_>, u64)> = repos
        .iter()
        .flat_map(|repo| {
            let numbers = repo.pending_numbers().into_iter();
            numbers.map(move |num| (repo, num))
        })
        .collect();
    let mut looking: VecDeque<_> = wanted
        .iter()
        .map(|(repo, num)| repo.pending(*num, asked))
        .collect();
    let mut builds = Vec::new();
    // The first one alone, so that an outage costs one request.
    if let Some(first) = looking.pop_front() {
        builds.push(first.await);
    }
    let rest: Vec<PendingBuild> = stream::iter(looking).buffered(AT_ONCE).collect().await;
    builds.extend(rest);
    for ((repo, _), build) in wanted.iter().zip(builds) {
        if let Some(snapshot) = snapshots.get_mut(repo.label) {
            snapshot.pending.push(build);
        }
    }
    snapshots
}

/// What is asked about in turns, with the requests that each costs: what starts next first.
fn subjects(repos: &[Witnessed<'_>]) -> Vec<(Subject, usize)> {
    // Nothing waits for the slot where nothing is approved.
    let waits = repos
        .iter()
        .any(|repo| repo.approved_rows().next().is_some());
    let mut placed = Vec::new();
    for repo in repos {
        // 0.2.0 stores no head; it is in the comments.
        let cost = if repo.fork == Fork::Pypi { 2 } else { 1 };
        let approved = repo.approved_rows().take(APPROVED_MAX).enumerate();
        placed.extend(approved.map(|(place, page)| (place, repo.subject(page), cost)));
        let branches = repo.slot_branches().into_iter().filter(|_| waits);
        placed.extend(branches.map(|branch| (0, repo.branch(branch), 1)));
    }
    placed.sort_by_key(|(place, _, _)| *place);
    let placed = placed.into_iter();
    placed.map(|(_, subject, cost)| (subject, cost)).collect()
}

fn repo_of<'a, 'b>(repos: &'a [Witnessed<'b>], subject: &Subject) -> Option<&'a Witnessed<'b>> {
    let (Subject::Approved { repo: label, .. } | Subject::Branch { repo: label, .. }) = subject;
    repos.iter().find(|repo| repo.label == label)
}

/// Asks about one subject; `None`: another failure came before it, so that the turn is not lost.
async fn take_turn(
    repo: &Witnessed<'_>,
    subject: Subject,
    asked: &Asked<'_>,
) -> Option<(Subject, Option<Known>)> {
    let known = match &subject {
        Subject::Approved { num, head, .. } => {
            let head = head.clone();
            repo.approved_on_github(*num, head, asked).await
        }
        Subject::Branch { branch, .. } => match asked.github() {
            Some(github) => {
                let head = asked.wait(github.branch(repo.place(), branch)).await;
                head.map(Known::Branch).ok_or(NotTold::Failed)
            }
            None => Err(NotTold::Stopped),
        },
    };
    match known {
        Ok(known) => Some((subject, Some(known))),
        Err(NotTold::Failed) => Some((subject, None)),
        Err(NotTold::Stopped) => None,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A pull request that is pending; that GitHub has none is a failure too.
    async fn pending_pull(&self, num: u64, asked: &Asked<'_>) -> Option<Pull> {
        let github = asked.github()?;
        let answer = asked.wait(github.pull(self.place(), num)).await?;
        if answer.is_none() {
            asked.fail(ProbeError::new(ProbeFailure::HttpStatus, self.missing(num)));
        }
        answer
    }

    async fn pending(&self, num: u64, asked: &Asked<'_>) -> PendingBuild {
        let row = self.rows.pulls.get(&num);
        let page = self.page.iter().find(|page| page.num == num);
        let on_github = self.pending_pull(num, asked).await;
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
        asked: &Asked<'_>,
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
    async fn try_sha(&self, num: u64, on_github: Option<&Pull>, asked: &Asked<'_>) -> Option<Sha> {
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
    async fn merges(&self, merge: &Sha, head: &Sha, asked: &Asked<'_>) -> Option<bool> {
        let parents = self.parents(merge, asked).await?;
        Some(parents.contains(head))
    }

    /// The head that a merge was made from: its second parent.
    async fn head_under_test(&self, merge: Option<&Sha>, asked: &Asked<'_>) -> Option<Sha> {
        let parents = self.parents(merge?, asked).await?;
        parents.get(1).cloned()
    }

    /// A commit's parents; none of a commit that GitHub does not have.
    async fn parents(&self, of: &Sha, asked: &Asked<'_>) -> Option<Vec<Sha>> {
        let github = asked.github()?;
        let parents = asked.wait(github.parents(self.place(), of)).await?;
        Some(parents.unwrap_or_default())
    }

    /// The approved pull requests, in the bot's order.
    fn approved_rows(&self) -> impl Iterator<Item = &PageRow> {
        self.page.iter().filter(|row| row.status == "approved")
    }

    fn subject(&self, page: &PageRow) -> Subject {
        Subject::Approved {
            repo: self.label.clone(),
            num: page.num,
            head: self.stored_head(page.num),
        }
    }

    fn branch(&self, branch: &str) -> Subject {
        Subject::Branch {
            repo: self.label.clone(),
            branch: branch.to_owned(),
        }
    }

    fn stored_head(&self, num: u64) -> Option<Sha> {
        self.rows.pulls.get(&num)?.head_sha.clone()
    }

    fn approved(&self, rotation: &Rotation, asked: &Asked<'_>) -> Vec<ApprovedPull> {
        let known = |page| match rotation.known(&self.subject(page)) {
            Some(Known::Pull { github, head }) => (github.clone(), head.clone()),
            Some(Known::NoPull) => {
                asked.warn(self.missing(page.num));
                (PullOnGithub::Unknown, self.stored_head(page.num))
            }
            Some(Known::Branch(_)) | None => (PullOnGithub::Unknown, self.stored_head(page.num)),
        };
        self.approved_rows()
            .map(|page| {
                let (github, head_sha) = known(page);
                let row = self.rows.pulls.get(&page.num);
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
            })
            .collect()
    }

    /// What GitHub tells of an approved pull request, whose head homu may store.
    async fn approved_on_github(
        &self,
        num: u64,
        stored: Option<Sha>,
        asked: &Asked<'_>,
    ) -> Result<Known, NotTold> {
        let github = asked.github().ok_or(NotTold::Stopped)?;
        let pull = asked.wait(github.pull(self.place(), num)).await;
        let Some(pull) = pull.ok_or(NotTold::Failed)? else {
            return Ok(Known::NoPull);
        };
        let head = match self.fork {
            Fork::Pypi => self.approved_head(num, &pull, asked).await?,
            Fork::Barosl | Fork::Servo | Fork::RustLang => stored,
        };
        Ok(Known::Pull {
            github: pull.state,
            head,
        })
    }

    fn missing(&self, num: u64) -> String {
        let Place { owner, name } = self.place();
        format!("GitHub shows no pull request {owner}/{name}#{num} to homu's token (404)")
    }

    /// The head that homu has of a pull request that is pending or approved; `None`: it is neither,
    /// or no source tells.
    pub async fn head_in_homu(&self, num: u64, asked: &Asked<'_>) -> Option<Sha> {
        if self.pending_numbers().contains(&num) {
            return self.pending(num, asked).await.head_sha;
        }
        self.approved_rows().find(|row| row.num == num)?;
        let stored = self.stored_head(num);
        match self.approved_on_github(num, stored.clone(), asked).await {
            Ok(Known::Pull { head, .. }) => head,
            Ok(Known::NoPull | Known::Branch(_)) | Err(NotTold::Failed | NotTold::Stopped) => {
                stored
            }
        }
    }

    /// A build that is pending on a commit, where either witness calls it so.
    pub async fn build(&self, num: u64, asked: &Asked<'_>) -> Option<PendingBuild> {
        if !self.pending_numbers().contains(&num) {
            return None;
        }
        Some(self.pending(num, asked).await)
    }

    /// The head that homu holds approved, from the comments of an open pull request.
    async fn approved_head(
        &self,
        num: u64,
        pull: &Pull,
        asked: &Asked<'_>,
    ) -> Result<Option<Sha>, NotTold> {
        let PullOnGithub::Open { head } = &pull.state else {
            return Ok(None);
        };
        let mention = asked.mention().await.ok_or(NotTold::Stopped)?;
        let speakers = Speakers {
            bot: &mention,
            reviewers: &self.cfg.reviewers,
        };
        let place = self.place();
        let github = asked.github().ok_or(NotTold::Stopped)?;
        let found = github.approved_head(place, num, pull.comments, speakers);
        let Some(found) = asked.wait(found).await.ok_or(NotTold::Failed)? else {
            return Ok(None);
        };
        if head.as_str().starts_with(&found) {
            return Ok(Some(head.clone()));
        }
        // homu writes no comment of its own about an approval in a review.
        let github = asked.github().ok_or(NotTold::Stopped)?;
        let reviewed = github.approved_in_review(place, num, head, speakers);
        let reviewed = asked.wait(reviewed).await.ok_or(NotTold::Failed)?;
        Ok(Some(if reviewed {
            head.clone()
        } else {
            Sha::new(found)
        }))
    }

    /// The branches whose heads could hold the slot.
    fn slot_branches(&self) -> Vec<&str> {
        // Only the start of a build on Buildbot takes the slot.
        match self.cfg.buildbot {
            Some(_) => vec![&self.cfg.auto_branch, &self.cfg.try_branch],
            None => Vec::new(),
        }
    }

    fn slot_suspects(&self, rotation: &Rotation) -> Vec<Sha> {
        let branches = self.slot_branches();
        if branches.is_empty() {
            return Vec::new();
        }
        let rows = self.rows.pulls.values().rev();
        let mut suspects: Vec<Sha> = rows
            .filter_map(|row| row.merge_sha.clone())
            .take(SUSPECTS_MAX)
            .collect();
        for branch in branches {
            if let Some(Known::Branch(Some(head))) = rotation.known(&self.branch(branch))
                && !suspects.contains(head)
            {
                suspects.push(head.clone());
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
