//! Buildbot 4 as a provider: one look at a master over its REST API, version 2.
//!
//! A look asks, in this order, so that what moves on between two answers is seen twice rather than
//! not at all (mean cost in processor time of a 4.3.0 master on SQLite with 40,000 finished
//! builds; how it was measured is told in [`history`]):
//!
//! | query | when | cost |
//! |---|---|---|
//! | `builders`, `workers` | always | 3.0 ms, 1.5 ms |
//! | `buildrequests?complete=false` | a commit is in question | 2.5 ms |
//! | `buildsets?complete=false` | the same | 4 ms, and 1.1 ms for each open one |
//! | `builds?complete=false&property=revision&property=got_revision` | the same | 4.5 ms, and 1 ms for each open one |
//! | `buildrequests/N/builds` | for each request in question without an open build | 2.6 ms |
//! | the past of a commit, see [`history`] | a builder in question has no open run of it | 10 ms, in the first look 300 ms |
//! | `builds/N/steps`, `builds/N/steps/M/logs` | for each open build in question | 2 ms, 4 ms |
//!
//! Whole looks, measured the same way: 8 ms without a question, 34 ms for one running build, 26 ms
//! for a commit that the master never had (260 ms in the first look), 37 ms for two finished runs
//! of one commit (410 ms in the first look).
//!
//! A run is a build request, because a request that is tried again keeps its number while every
//! try is a new build.

mod api;
mod history;
mod index;
mod roster;
mod session;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::stream::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;
use url::Url;

use super::{Advice, Advised, BoxFuture, Kind, Provider};
use crate::http::{BODY_MAX, Client, ClientOptions, read_ca};
use crate::keys::Keys;
use crate::model::{
    BuilderName, History, ProbeError, ProbeFailure, ProviderName, ProviderSnapshot, Question, Sha,
};
use history::{CommitPast, PROPERTIES, Past, newest_build, requests_of};
use roster::Roster;
use session::{Login, Session};
use snapshot::{Beat, Found, Open};

/// What the configuration calls it.
pub(super) const KIND: Kind = Kind {
    name: "buildbot",
    connect,
};

/// Entries in one list of builders, workers, open buildsets or open builds. Rust's and Servo's
/// masters had tens; a thousand open builds take the master a second to list.
const LIST_MAX: usize = 1000;
/// The longest list, bytes: a thousand entries of 1 kB and as much again.
const LIST_BYTES: usize = 2 * BODY_MAX;
/// Runs whose builds and steps are read in one look; each takes the master up to 9 ms.
const RUNS_MAX: usize = 200;
/// Questions to the master at a time about runs.
const AT_ONCE: usize = 4;

/// Addresses, or places of one, that a message names.
const NAMED_MAX: usize = 5;

/// One Buildbot master, or several that share a database and this URL.
pub struct Buildbot {
    name: ProviderName,
    url: String,
    session: Session,
    past: Mutex<Past>,
    version: Mutex<Version>,
}

/// The master's version as far as it is known.
enum Version {
    NotAsked,
    Asked(Option<String>),
}

/// Commits in question, each with the builders that must report on it.
type Wanted<'a> = BTreeMap<&'a Sha, BTreeSet<&'a BuilderName>>;

/// An open request, and its builder.
type Undecided = (u64, BuilderName);

impl Provider for Buildbot {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn observe<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<ProviderSnapshot, ProbeError>> {
        Box::pin(async move {
            let looked = self.look(questions).await;
            if looked.is_err() {
                // It may come back as another version.
                *self.version.lock().await = Version::NotAsked;
            }
            looked
        })
    }
}

impl Buildbot {
    /// A provider for the master at `url`.
    fn new(name: ProviderName, url: Url, client: Client, login: Option<Login>) -> Self {
        Self {
            name,
            url: url.as_str().trim_end_matches('/').to_owned(),
            session: Session::new(client, url, login),
            past: Mutex::default(),
            version: Mutex::new(Version::NotAsked),
        }
    }

    async fn look(&self, questions: &[Question]) -> Result<ProviderSnapshot, ProbeError> {
        let roster = self.roster().await?;
        let mut wanted = Wanted::new();
        for question in questions {
            // A builder that only another master has is no question to this one.
            let builders = question
                .builders
                .iter()
                .filter(|builder| roster.has(builder));
            wanted.entry(&question.sha).or_default().extend(builders);
        }
        wanted.retain(|_, builders| !builders.is_empty());
        // Held to the end: looks at one master take turns.
        let mut past = self.past.lock().await;
        past.keep(&wanted.keys().copied().collect());
        let mut snapshot = ProviderSnapshot {
            pools: roster.pools(),
            ..ProviderSnapshot::default()
        };
        if !wanted.is_empty() {
            let open = self.open_work().await?;
            let (found, undecided) = of_open_work(&open, &wanted, &roster)?;
            let mut found = self.with_builds(found).await?;
            let asked = without_open_run(&wanted, &found, &roster);
            if !asked.is_empty() {
                let pasts = past.read(&self.session, &asked, &open.buildsets).await?;
                for (sha, commit) in pasts {
                    let more = self.of_past(sha, &commit, &wanted, &found, &roster).await?;
                    found.extend(self.with_builds(more).await?);
                    at_most(RUNS_MAX, found.len(), "runs of the commits in question")?;
                    let reach = match undecided.iter().find(|(_, it)| asks(&wanted, sha, it)) {
                        Some((request, builder)) => History::Partial(format!(
                            "request {request} of {builder} is open and names no revision yet"
                        )),
                        None => commit.history,
                    };
                    snapshot.history.insert(sha.clone(), reach);
                }
            }
            found.retain(Found::serves);
            let found = self.with_beats(found).await?;
            snapshot.runs = snapshot::runs(found, &roster, &open, &self.url)?;
        }
        snapshot.version = self.version().await;
        Ok(snapshot)
    }

    async fn roster(&self) -> Result<Roster, ProbeError> {
        let limit = LIST_MAX.to_string();
        let query = [
            ("limit", limit.as_str()),
            ("field", "builderid"),
            ("field", "name"),
            ("field", "masterids"),
        ];
        let builders: api::Builders = self.session.ask("builders", &query, LIST_BYTES).await?;
        whole(builders.builders.len(), "builders")?;
        let query = [
            ("limit", limit.as_str()),
            ("field", "workerid"),
            ("field", "name"),
            ("field", "connected_to"),
            ("field", "configured_on"),
            ("field", "paused"),
            ("field", "graceful"),
        ];
        let workers: api::Workers = self.session.ask("workers", &query, LIST_BYTES).await?;
        whole(workers.workers.len(), "workers")?;
        Roster::new(&builders.builders, workers.workers)
    }

    /// All open work. Requests before buildsets before builds: what ends in between is missing
    /// from the later answer and asked for by its number, what begins is history.
    async fn open_work(&self) -> Result<Open, ProbeError> {
        // Without a limit: Buildbot counts a request once for each codebase before it applies one
        // (`getBuildRequests` joins the source stamps), so a cut answer could not be told from a
        // whole one. The cap on bytes tells it.
        let query = [("complete", "false")];
        let requests: api::Requests = self
            .session
            .ask("buildrequests", &query, LIST_BYTES)
            .await?;
        let requests = requests.buildrequests;
        let limit = LIST_MAX.to_string();
        let query = [("complete", "false"), ("limit", limit.as_str())];
        let buildsets: api::Buildsets = self.session.ask("buildsets", &query, LIST_BYTES).await?;
        whole(buildsets.buildsets.len(), "open buildsets")?;
        let mut buildsets: BTreeMap<u64, api::Buildset> = buildsets
            .buildsets
            .into_iter()
            .map(|buildset| (buildset.bsid, buildset))
            .collect();
        let missing: BTreeSet<u64> = requests
            .iter()
            .map(|request| request.buildsetid)
            .filter(|bsid| !buildsets.contains_key(bsid))
            .collect();
        at_most(RUNS_MAX, missing.len(), "buildsets that ended just now")?;
        for bsid in missing {
            let answer: api::Buildsets = self
                .session
                .ask(&format!("buildsets/{bsid}"), &[], LIST_BYTES)
                .await?;
            buildsets.extend(answer.buildsets.into_iter().map(|it| (it.bsid, it)));
        }
        let mut query = vec![("complete", "false"), ("limit", limit.as_str())];
        query.extend(PROPERTIES);
        let answer: api::Builds = self.session.ask("builds", &query, LIST_BYTES).await?;
        whole(answer.builds.len(), "open builds")?;
        let mut builds: BTreeMap<u64, api::Build> = BTreeMap::new();
        for build in answer.builds {
            let newer = builds
                .get(&build.buildrequestid)
                .is_none_or(|known| known.buildid < build.buildid);
            if newer {
                builds.insert(build.buildrequestid, build);
            }
        }
        Ok(Open {
            requests,
            buildsets,
            builds,
        })
    }

    /// The requests of a commit's buildsets that are not found yet.
    async fn of_past(
        &self,
        sha: &Sha,
        past: &CommitPast,
        wanted: &Wanted<'_>,
        found: &[Found],
        roster: &Roster,
    ) -> Result<Vec<Found>, ProbeError> {
        at_most(RUNS_MAX, past.buildsets.len(), "buildsets of one commit")?;
        let answers: Vec<Vec<api::Request>> = futures_util::stream::iter(past.buildsets.clone())
            .map(|(bsid, _)| requests_of(&self.session, bsid))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let known: BTreeSet<u64> = found
            .iter()
            .filter(|found| found.sha == *sha)
            .map(|found| found.request.buildrequestid)
            .collect();
        let mut more = Vec::new();
        for ((_, naming), requests) in past.buildsets.iter().zip(answers) {
            for request in requests {
                let asked = asks(wanted, sha, roster.name(request.builderid)?);
                if asked && !known.contains(&request.buildrequestid) {
                    more.push(Found::new(sha.clone(), *naming, request, None));
                }
            }
        }
        Ok(more)
    }

    /// Adds the newest build to each request that has none yet.
    async fn with_builds(&self, found: Vec<Found>) -> Result<Vec<Found>, ProbeError> {
        at_most(RUNS_MAX, found.len(), "runs of the commits in question")?;
        futures_util::stream::iter(found)
            .map(|mut found| async move {
                if found.build.is_none() {
                    found.build = newest_build(&self.session, found.request.buildrequestid).await?;
                }
                Ok(found)
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Adds to each open build how far it came.
    async fn with_beats(&self, found: Vec<Found>) -> Result<Vec<Found>, ProbeError> {
        futures_util::stream::iter(found)
            .map(|mut found| async move {
                if let Some(build) = found.open_build() {
                    found.beat = Some(self.beat(build).await?);
                }
                Ok(found)
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn beat(&self, build: &api::Build) -> Result<Beat, ProbeError> {
        let path = format!("builds/{}/steps", build.buildid);
        let query = [("order", "-number"), ("limit", "1")];
        let answer: api::Steps = self.session.ask(&path, &query, BODY_MAX).await?;
        let Some(step) = answer.steps.into_iter().max_by_key(|step| step.number) else {
            return Ok(Beat::new(None, &[]));
        };
        if snapshot::preparing(build) {
            return Ok(Beat::new(Some(step), &[]));
        }
        let path = format!("{path}/{}/logs", step.number);
        let answer: api::Logs = self.session.ask(&path, &[], BODY_MAX).await?;
        Ok(Beat::new(Some(step), &answer.logs))
    }

    /// The master's version: for people, so no failure to tell it is one of the look.
    async fn version(&self) -> Option<String> {
        let mut version = self.version.lock().await;
        if let Version::Asked(version) = &*version {
            return version.clone();
        }
        let answer: Result<api::Config, ProbeError> =
            self.session.ask_plain("config", BODY_MAX).await;
        let told = answer.ok().and_then(|config| {
            let buildbot = config
                .versions
                .into_iter()
                .find(|(name, _)| name == "Buildbot");
            buildbot.map(|(_, version)| version)
        });
        *version = Version::Asked(told.clone());
        told
    }
}

/// The open requests that serve a question, and those of which nobody can tell yet.
fn of_open_work(
    open: &Open,
    wanted: &Wanted<'_>,
    roster: &Roster,
) -> Result<(Vec<Found>, Vec<Undecided>), ProbeError> {
    let (mut found, mut undecided) = (Vec::new(), Vec::new());
    for request in &open.requests {
        let builder = roster.name(request.builderid)?;
        let Some((commits, naming)) = open.commits(request) else {
            undecided.push((request.buildrequestid, builder.clone()));
            continue;
        };
        for sha in commits {
            if asks(wanted, &sha, builder) {
                let build = open.builds.get(&request.buildrequestid).cloned();
                found.push(Found::new(sha, naming, request.clone(), build));
            }
        }
    }
    Ok((found, undecided))
}

/// The commits that have a builder in question without an open run.
fn without_open_run<'a>(
    wanted: &Wanted<'a>,
    found: &[Found],
    roster: &Roster,
) -> BTreeSet<&'a Sha> {
    let open: BTreeSet<(&Sha, &BuilderName)> = found
        .iter()
        .filter(|found| found.open())
        .filter_map(|found| Some((&found.sha, roster.name(found.request.builderid).ok()?)))
        .collect();
    wanted
        .iter()
        .filter(|(sha, builders)| {
            builders
                .iter()
                .any(|builder| !open.contains(&(**sha, *builder)))
        })
        .map(|(sha, _)| *sha)
        .collect()
}

/// Whether a builder is in question for a commit.
fn asks(wanted: &Wanted<'_>, sha: &Sha, builder: &BuilderName) -> bool {
    wanted
        .get(sha)
        .is_some_and(|builders| builders.contains(builder))
}

/// A list that is as long as was asked for may have been cut.
fn whole(len: usize, what: &str) -> Result<(), ProbeError> {
    at_most(LIST_MAX - 1, len, what)
}

fn at_most(max: usize, len: usize, what: &str) -> Result<(), ProbeError> {
    if len <= max {
        return Ok(());
    }
    Err(ProbeError::new(
        ProbeFailure::Partial,
        format!("the master has {len} {what} or more, and one look reads at most {max}"),
    ))
}

fn connect(name: ProviderName, keys: &mut Keys<'_>, advice: &Advice) -> Option<Box<dyn Provider>> {
    let url = keys.url("url");
    let username = keys.string("username");
    let password = keys.secret("password");
    let ca = keys.path("ca");
    let given = keys.has("username") || keys.has("password");
    let login = match (username, password) {
        (Some(username), Some(password)) => Some(Login { username, password }),
        (Some(_), None) if !keys.has("password") => {
            keys.mistake(
                "password",
                "is missing beside `username`; write { file = \"…\" }",
            );
            None
        }
        (None, Some(_)) if !keys.has("username") => {
            keys.mistake("username", "is missing beside `password`");
            None
        }
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    let (url, login) = match url {
        Some(url) => {
            compare(&url, keys, advice);
            (Some(url), login)
        }
        None if keys.has("url") => (None, login),
        None => match advised(keys, advice) {
            // The bot's own login is one of that master, and is used only where it asks for one.
            Some(advised) if !given => {
                let login = advised.login.clone();
                let login = login.map(|(username, password)| Login { username, password });
                (Some(advised.url.clone()), login)
            }
            advised => (advised.map(|it| it.url.clone()), login),
        },
    };
    let client = client(ca.as_deref()).map_err(|message| keys.mistake("ca", message));
    Some(Box::new(Buildbot::new(name, url?, client.ok()?, login)))
}

/// The one master that the bots know; `None` after having told that there is none, or which.
fn advised<'a>(keys: &mut Keys<'_>, advice: &'a Advice) -> Option<&'a Advised> {
    let message = match advice.systems.as_slice() {
        // Another bot might know another one.
        _ if advice.incomplete => return None,
        [one] => return Some(one),
        [] if advice.without.is_empty() => {
            "is missing; write the master's address, as \"https://buildbot.example.org\"".to_owned()
        }
        [] => format!(
            "is missing, and so is an address in {}; write the master's here, as \
             \"https://buildbot.example.org\"",
            some_of(&advice.without)
        ),
        several => format!("is missing, and there are {}; write which", shown(several)),
    };
    keys.mistake("url", message);
    None
}

/// Warns of an address that the bots do not know while they know others.
fn compare(url: &Url, keys: &mut Keys<'_>, advice: &Advice) {
    if advice.systems.is_empty() || advice.systems.iter().any(|it| it.is_at(url)) {
        return;
    }
    keys.warning(
        "url",
        format!(
            "is {url}, and the bot knows {}; that is right where the bot's is only for stopping \
             builds and starting them anew (homu: `force`), or is a bridge to the same master",
            shown(&advice.systems)
        ),
    );
}

/// Addresses with their places, for people.
fn shown(systems: &[Advised]) -> String {
    let shown: Vec<String> = systems
        .iter()
        .map(|it| format!("{} ({})", it.url, some_of(&it.places)))
        .collect();
    some_of(&shown)
}

/// Some of many words.
fn some_of(words: &[String]) -> String {
    let more = words.len().saturating_sub(NAMED_MAX);
    let mut named = words[..words.len() - more].join(", ");
    if more > 0 {
        named.push_str(&format!(" and {more} more"));
    }
    named
}

fn client(ca: Option<&Path>) -> Result<Client, String> {
    let ca_pem = ca.map(read_ca).transpose()?;
    Client::new(ClientOptions {
        ca_pem,
        ..ClientOptions::default()
    })
}
