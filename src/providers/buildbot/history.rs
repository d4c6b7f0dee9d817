//! The history of a commit at a master: every buildset that ever named it, or the reason why that is not known.
//!
//! No query of Buildbot 4.3 goes from a commit to its buildsets. What there is, and what it costs
//! (a 4.3.0 master on SQLite with 20,000 source stamps, buildsets of one stamp each and 40,000
//! requests and builds; mean of 10 requests on one kept-alive loopback connection, processor
//! time of the master from `/proc/PID/stat`, two cores):
//!
//! | query | done by | cost |
//! |---|---|---|
//! | `sourcestamps?revision=A&revision=B…` | Python, over the whole table (`getSourceStamps` takes no filter) | 190 ms, 9 µs for each stamp there is |
//! | `buildsets?order=-bsid&limit=N`, also with `bsid__lt`, `bsid__gt`, `submitted_at__ge` | the database; but each buildset's stamps are then read one by one | 1.1 ms for each buildset answered: 27 ms for 20, 115 ms for 100 |
//! | `buildrequests?buildsetid=N` | the database | 2 ms. Repeated, all values but the first are ignored |
//! | `buildrequests/N/builds?order=-buildid&limit=1&property=…` | the database | 2.6 ms |
//! | `builds?buildrequestid=N&buildrequestid=M` | nobody: two values drop the filter and answer every build there is | not used |
//! | `changes?revision=A`, then `changes/N/builds` | the database, 1.4 ms | not used: forced builds have no change |
//!
//! So the stamps are asked once for each commit. None: the master never had the commit, and only
//! buildsets newer than the newest at that moment need be read from then on, which no clock has a
//! part in. Else its buildsets are searched backwards from the newest until a hundred in a row
//! both use older stamps only and were submitted an hour before the stamp was created, by the
//! master's own clock; a buildset that lies behind that would need a clock set back for longer
//! than a hundred buildsets took. Open work never depends on this. What was read is kept, so
//! that a look usually costs one page with the few newest buildsets.
//!
//! A buildset can name a branch alone, or a shortened hash. Then the builds of its requests say
//! which commit they checked out, and are asked, for the newest hundred buildsets. An older one is
//! not taken into account: what was submitted that long ago was not for a commit in question now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::api::{Build, Builds, Buildset, Buildsets, Request, Requests, Stamps};
use super::index::{BuildsetIndex, Floor, KEPT_MAX, Naming, Replaced, VAGUE_MAX};
use super::session::Session;
use crate::http::BODY_MAX;
use crate::model::{History, ProbeError, ProbeFailure, Sha};

/// Buildsets in one answer: about 120 ms of the master's time.
const PAGE: usize = 100;
/// Pages read in one look; the search goes on in the next.
const PAGES_MAX: usize = 5;
/// How long one look begins new pages; a whole look may take 20 s, and has more to do.
const SEARCH_TIME: Duration = Duration::from_secs(5);
/// How long the answer on source stamps may take: half a million of them.
const STAMPS_TIME: Duration = Duration::from_secs(5);
/// Buildsets read again in each look. On PostgreSQL and MySQL a transaction that took its number
/// earlier can appear later.
const OVERLAP: usize = 5;
/// Commits in one query of source stamps, which keeps its URL below 4 kB.
const STAMPS_MAX: usize = 50;
/// The first and the longest `rest`, looks.
const REST: (u32, u32) = (10, 640);
/// The longest page of buildsets, bytes; each is 300 unless it carries a patch.
const PAGE_BYTES: usize = 8 * BODY_MAX;
/// Buildsets without a revision whose builds are looked at in one look.
const VAGUE_AT_ONCE: usize = 10;
/// The properties of a build that can name a commit.
pub(super) const PROPERTIES: [(&str, &str); 2] =
    [("property", "revision"), ("property", "got_revision")];

/// What is known of the past of one master.
#[derive(Default)]
pub(super) struct Past {
    index: BuildsetIndex,
    floors: BTreeMap<Sha, Floor>,
    /// Looks until source stamps are asked for again, after the master could not list them in the
    /// time that an answer may take; until then buildsets are searched back to the first.
    rest: u32,
    /// The last `rest`, which doubles each time.
    last_rest: u32,
}

/// What one look may still read of the past.
struct Budget {
    pages: usize,
    until: Instant,
}

impl Budget {
    /// Takes a page out of it, where one is left.
    fn spend(&mut self) -> bool {
        let left = self.pages > 0 && Instant::now() < self.until;
        if left {
            self.pages -= 1;
        }
        left
    }
}

/// The past of one commit.
pub(super) struct CommitPast {
    /// How far back it is known.
    pub(super) history: History,
    /// The buildsets that name it.
    pub(super) buildsets: Vec<(u64, Naming)>,
}

impl Past {
    /// Forgets all commits but these.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<&Sha>) {
        self.floors.retain(|sha, _| wanted.contains(sha));
    }

    /// Reads the past of these commits, as far as one look may. What the `open` buildsets are for
    /// is known from open work.
    ///
    /// # Errors
    ///
    /// A failed query. A master that is too slow for its own past is none: then the answer on the
    /// commit is partial.
    pub(super) async fn read<'a>(
        &mut self,
        session: &Session,
        commits: &BTreeSet<&'a Sha>,
        open: &BTreeMap<u64, Buildset>,
    ) -> Result<BTreeMap<&'a Sha, CommitPast>, ProbeError> {
        let mut budget = Budget {
            pages: PAGES_MAX,
            until: Instant::now() + SEARCH_TIME,
        };
        let mut why = match self.catch_up(session, &mut budget).await? {
            Ok(()) => self.find_floors(session, commits, &mut budget).await?,
            Err(reason) => Some(reason),
        };
        if why.is_none() {
            self.search_back(session, commits, &mut budget).await?;
            why = self.tell_vague(session, open).await?;
        }
        let mut past = BTreeMap::new();
        for sha in commits {
            let reached = self.floor(sha).map(|floor| self.index.reaches(floor));
            let history = match (&why, reached) {
                (Some(reason), _) => History::Partial(reason.clone()),
                (None, Some(true)) => History::Complete,
                (None, Some(false)) if self.index.full() => History::Partial(format!(
                    "it may lie behind the newest {KEPT_MAX} buildsets, which is as far as is searched"
                )),
                (None, Some(false)) => History::Partial(format!(
                    "still reading: {} buildsets back to number {}",
                    self.index.len(),
                    self.index.oldest()
                )),
                (None, None) => History::Partial("not looked for yet".to_owned()),
            };
            let buildsets = self.index.of_commit(sha);
            past.insert(*sha, CommitPast { history, buildsets });
        }
        Ok(past)
    }

    /// Reads the buildsets that came since the last look, or the newest in the first.
    async fn catch_up(
        &mut self,
        session: &Session,
        budget: &mut Budget,
    ) -> Result<Result<(), String>, ProbeError> {
        if !self.index.begun() {
            budget.spend();
            let page = buildsets(session, &[("order", "-bsid")]).await?;
            self.index.extend_back(&page, page.len() < PAGE);
            return Ok(Ok(()));
        }
        loop {
            if !budget.spend() {
                return Ok(Err("still reading the newest buildsets".to_owned()));
            }
            let after = self.index.resume_after(OVERLAP);
            let page = buildsets(
                session,
                &[("order", "bsid"), ("bsid__gt", &after.to_string())],
            )
            .await?;
            if let Err(Replaced) = self.index.extend_forward(after, &page) {
                *self = Self::default();
                return Ok(Err(
                    "the master forgot buildsets that it had: it has another database".to_owned(),
                ));
            }
            if page.len() < PAGE {
                return Ok(Ok(()));
            }
        }
    }

    /// Asks for the source stamps of commits that were not asked for yet. What is returned is a
    /// reason why nothing is known of any commit.
    async fn find_floors(
        &mut self,
        session: &Session,
        commits: &BTreeSet<&Sha>,
        budget: &mut Budget,
    ) -> Result<Option<String>, ProbeError> {
        let unknown: Vec<&Sha> = commits
            .iter()
            .copied()
            .filter(|sha| !self.floors.contains_key(*sha))
            .take(STAMPS_MAX)
            .collect();
        if unknown.is_empty() {
            return Ok(None);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Ok(None);
        }
        // Read before the stamps: a buildset up to this one had its stamps before.
        let newest = self.index.newest();
        let mut query = vec![
            ("field", "ssid"),
            ("field", "revision"),
            ("field", "created_at"),
        ];
        query.extend(unknown.iter().map(|sha| ("revision", sha.as_str())));
        let asked = session.ask::<Stamps>("sourcestamps", &query, BODY_MAX);
        let answer = tokio::time::timeout(STAMPS_TIME, asked)
            .await
            .unwrap_or_else(|_| {
                let shown = humantime::format_duration(STAMPS_TIME);
                Err(ProbeError::new(
                    ProbeFailure::Timeout,
                    format!("no answer within {shown}"),
                ))
            });
        let stamps = match answer {
            Ok(answer) => answer.sourcestamps,
            Err(error) if too_much(error.failure) => {
                self.rest = (self.last_rest * 2).clamp(REST.0, REST.1);
                self.last_rest = self.rest;
                return Ok(Some(format!(
                    "its source stamps are too many to ask for: {error}"
                )));
            }
            Err(error) => return Err(error),
        };
        self.last_rest = 0;
        let mut any = false;
        for sha in unknown {
            let of_commit = stamps.iter().filter(|stamp| {
                stamp
                    .revision
                    .as_deref()
                    .is_some_and(|it| it.eq_ignore_ascii_case(sha.as_str()))
            });
            let oldest = of_commit.fold(None, |oldest: Option<(u64, i64)>, stamp| {
                let (ssid, created_at) = oldest.unwrap_or((u64::MAX, i64::MAX));
                Some((ssid.min(stamp.ssid), created_at.min(stamp.created_at)))
            });
            any |= oldest.is_some();
            let floor = match oldest {
                None => Floor::Above(newest),
                Some((ssid, created_at)) => Floor::Stamp { ssid, created_at },
            };
            self.floors.insert(sha.clone(), floor);
        }
        if !any {
            return Ok(None);
        }
        // A stamp that came between the two reads belongs to a buildset that did too.
        Ok(self.catch_up(session, budget).await?.err())
    }

    async fn search_back(
        &mut self,
        session: &Session,
        commits: &BTreeSet<&Sha>,
        budget: &mut Budget,
    ) -> Result<(), ProbeError> {
        while !self.index.full() {
            let reached = commits
                .iter()
                .filter_map(|sha| self.floor(sha))
                .all(|floor| self.index.reaches(floor));
            if reached || !budget.spend() {
                break;
            }
            let oldest = self.index.oldest().to_string();
            let page = buildsets(session, &[("order", "-bsid"), ("bsid__lt", &oldest)]).await?;
            self.index.extend_back(&page, page.len() < PAGE);
        }
        Ok(())
    }

    fn floor(&self, sha: &Sha) -> Option<Floor> {
        let resting = (self.rest > 0).then_some(Floor::Anywhere);
        self.floors.get(sha).copied().or(resting)
    }

    /// Learns from their builds which commits the newest buildsets without a revision were for.
    async fn tell_vague(
        &mut self,
        session: &Session,
        open: &BTreeMap<u64, Buildset>,
    ) -> Result<Option<String>, ProbeError> {
        let mut vague = self.index.vague();
        vague.retain(|bsid| !open.contains_key(bsid));
        let left = vague.len().saturating_sub(VAGUE_AT_ONCE);
        for bsid in vague.into_iter().take(VAGUE_AT_ONCE) {
            let mut commits = BTreeSet::new();
            let mut over = true;
            for request in requests_of(session, bsid).await? {
                over &= request.complete;
                if let Some(build) = newest_build(session, request.buildrequestid).await? {
                    commits.extend(build.commits());
                }
            }
            if over {
                self.index.named_by_builds(bsid, commits);
            }
        }
        Ok((left > 0).then(|| {
            format!(
                "{left} of the newest {VAGUE_MAX} buildsets name no revision, and their builds are yet to be looked at"
            )
        }))
    }
}

/// The requests of a buildset.
///
/// # Errors
///
/// A failed query.
pub(super) async fn requests_of(session: &Session, bsid: u64) -> Result<Vec<Request>, ProbeError> {
    let bsid = bsid.to_string();
    let answer: Requests = session
        .ask("buildrequests", &[("buildsetid", &bsid)], BODY_MAX)
        .await?;
    Ok(answer.buildrequests)
}

/// The newest build of a request.
///
/// # Errors
///
/// A failed query.
pub(super) async fn newest_build(
    session: &Session,
    request: u64,
) -> Result<Option<Build>, ProbeError> {
    let mut query = vec![("order", "-buildid"), ("limit", "1")];
    query.extend(PROPERTIES);
    let path = format!("buildrequests/{request}/builds");
    let answer: Builds = session.ask(&path, &query, BODY_MAX).await?;
    Ok(answer.builds.into_iter().max_by_key(|build| build.buildid))
}

async fn buildsets(session: &Session, which: &[(&str, &str)]) -> Result<Vec<Buildset>, ProbeError> {
    let limit = PAGE.to_string();
    let mut query = vec![
        ("limit", limit.as_str()),
        ("field", "bsid"),
        ("field", "submitted_at"),
        ("field", "sourcestamps"),
    ];
    query.extend(which);
    let answer: Buildsets = session.ask("buildsets", &query, PAGE_BYTES).await?;
    Ok(answer.buildsets)
}

/// Whether a query failed because there is too much to answer.
fn too_much(failure: ProbeFailure) -> bool {
    match failure {
        ProbeFailure::Timeout | ProbeFailure::TooLarge => true,
        ProbeFailure::Dns
        | ProbeFailure::Connect
        | ProbeFailure::Tls
        | ProbeFailure::HttpStatus
        | ProbeFailure::Auth
        | ProbeFailure::RateLimited
        | ProbeFailure::Parse
        | ProbeFailure::Partial
        | ProbeFailure::Io => false,
    }
}
