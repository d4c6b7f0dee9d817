//! homu as a bot: 0.2.0 of PyPI, and by the columns of their databases its barosl, servo and
//! rust-lang forks.

mod approval;
mod asked;
mod cfg_file;
mod config;
mod database;
mod github;
mod page;
mod remedies;
mod replay;
mod rotation;
mod state;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use self::asked::Asked;
use self::config::{Cfg, RepoCfg};
use self::database::{Database, Fork, RepoRows, Rows};
use self::github::{Github, is_login};
use self::page::PageRow;
use self::rotation::Rotation;
use self::state::{Witnessed, foreign, join, settled};
use super::{Bot, BoxFuture, Kind, KnownCi};
use crate::http::{Answer, Client, ClientOptions, Request, read_ca};
use crate::journal::Permit;
use crate::keys::Keys;
use crate::model::{
    BotName, BotSnapshot, BuildKey, BuilderName, CiSystem, GithubState, Knock, Outcome, ProbeError,
    ProbeFailure, RemedyRow, RepoName, Sha, SourceName,
};

pub(super) const KIND: Kind = Kind {
    name: "homu",
    connect,
};

/// Where GitHub's API is unless the configuration says otherwise.
const GITHUB_URL: &str = "https://api.github.com";
/// How long one look may ask GitHub. It stays below the deadline of the whole look, so that a GitHub
/// too slow for what pending builds need is a failure of GitHub, and none of the bot.
const GITHUB_DEADLINE: Duration = Duration::from_secs(8);
/// How many repositories one warning names.
const NAMED_MAX: usize = 5;
/// How many warnings a snapshot has at most.
const WARNINGS_MAX: usize = 20;

/// One homu.
pub struct Homu {
    name: BotName,
    cfg: Cfg,
    database: Database,
    url: Url,
    client: Client,
    github: Option<Github>,
    /// The name that homu answers to, where the configuration tells it.
    mention: Option<String>,
    /// In whose name commands are given; homu's own where it is left out.
    login: Option<String>,
    /// The host and port in `web.canonical_url`.
    host: Option<String>,
    /// A builder's name that no repository of this homu has.
    nobody: String,
    /// What it understands if it starts builds at once, and if it takes a minute for that.
    rows: Vec<RemedyRow>,
    slow_rows: Vec<RemedyRow>,
    /// Which homu the database tells of, as far as it was read: it may come after the watchdog.
    fork: Mutex<Option<Fork>>,
    rotation: Mutex<Rotation>,
}

impl Bot for Homu {
    fn name(&self) -> &BotName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "homu"
    }

    fn github(&self) -> SourceName {
        SourceName::new(format!("{}.github", self.name))
    }

    fn repos(&self) -> BTreeMap<RepoName, Vec<BuilderName>> {
        let fork = *self.fork();
        let builders = |repo: &RepoCfg| repo.builders(fork).into_iter().collect();
        self.cfg
            .repos
            .iter()
            .map(|(label, repo)| (label.clone(), builders(repo)))
            .collect()
    }

    /// 0.2.0 has none. The forks have ten hours where the configuration gives nothing else; of a
    /// database that was not read yet nothing is known, so theirs is taken.
    fn own_timeout(&self, repo: &RepoName) -> Option<Duration> {
        let configured = self.cfg.repos.get(repo)?.timeout;
        match *self.fork() {
            Some(Fork::Pypi) => None,
            Some(Fork::Barosl) => Some(config::OWN_TIMEOUT),
            Some(Fork::Servo | Fork::RustLang) | None => {
                Some(configured.unwrap_or(config::OWN_TIMEOUT))
            }
        }
    }

    fn known_ci(&self) -> Vec<KnownCi> {
        let repos = self.cfg.repos.values();
        repos
            .flat_map(|repo| {
                let buildbot = repo.buildbot.as_ref().map(|buildbot| KnownCi {
                    system: CiSystem::Buildbot,
                    place: buildbot.place.clone(),
                    url: buildbot.url.clone(),
                    login: buildbot.login.clone(),
                    token: None,
                });
                let travis = repo.travis.as_ref().map(|travis| KnownCi {
                    system: CiSystem::Travis,
                    place: travis.place.clone(),
                    url: None,
                    login: None,
                    token: travis.token.clone(),
                });
                buildbot.into_iter().chain(travis)
            })
            .collect()
    }

    fn observe<'a>(
        &'a self,
        remembered: &'a BTreeMap<BuildKey, Sha>,
    ) -> BoxFuture<'a, Result<BotSnapshot, ProbeError>> {
        Box::pin(self.look(remembered))
    }

    fn knock(&self) -> BoxFuture<'_, Knock> {
        Box::pin(async {
            let index = self.index();
            let github = async {
                match &self.github {
                    None => GithubState::NotConfigured,
                    Some(github) => match github.answers().await {
                        Ok(()) => GithubState::Good(github.quota()),
                        Err(error) => GithubState::Failed(error),
                    },
                }
            };
            let (index, github) = tokio::join!(index, github);
            let bot = index.map(|_| ());
            Knock { bot, github }
        })
    }

    fn rows(&self) -> &[RemedyRow] {
        if self.is_slow() {
            &self.slow_rows
        } else {
            &self.rows
        }
    }

    fn send<'a>(&'a self, permit: Permit) -> BoxFuture<'a, Outcome> {
        Box::pin(remedies::send(self, permit))
    }
}

/// What database and page say of one repository, read one right after the other.
struct Fresh {
    fork: Fork,
    rows: RepoRows,
    page: Vec<PageRow>,
}

/// A repository's label, its configuration, and what was read of it.
type OfRepo<'a> = (&'a RepoName, &'a RepoCfg, Fresh);

/// What no earlier look saw.
static NOTHING_REMEMBERED: BTreeMap<BuildKey, Sha> = BTreeMap::new();

impl Fresh {
    fn of<'a>(&'a self, homu: &'a Homu, label: &'a RepoName, cfg: &'a RepoCfg) -> Witnessed<'a> {
        Witnessed {
            bot: &homu.name,
            fork: self.fork,
            label,
            cfg,
            rows: &self.rows,
            page: &self.page,
            remembered: &NOTHING_REMEMBERED,
        }
    }
}

impl Homu {
    async fn look(&self, remembered: &BTreeMap<BuildKey, Sha>) -> Result<BotSnapshot, ProbeError> {
        let (witnesses, unserved) = self.witnesses().await?;
        let witnessed: Vec<Witnessed<'_>> = witnesses
            .iter()
            .map(|(label, cfg, fresh)| Witnessed {
                remembered,
                ..fresh.of(self, label, cfg)
            })
            .collect();
        let until = Instant::now() + GITHUB_DEADLINE;
        let asked = Asked::new(self.github.as_ref(), self.mention.as_deref(), until);
        let repos = join(&witnessed, &asked, &self.rotation).await;
        let (failed, told) = asked.end();
        let github = match (&self.github, failed) {
            (None, _) => GithubState::NotConfigured,
            (Some(_), Some(error)) => GithubState::Failed(error),
            (Some(github), None) => GithubState::Good(github.quota()),
        };
        let mut warnings = self.warnings();
        warnings.extend(self.since_the_start(&unserved));
        warnings.extend(told);
        warnings.truncate(WARNINGS_MAX);
        Ok(BotSnapshot {
            repos,
            github,
            warnings,
        })
    }

    /// The database, and the page of every repository; again of those in which the two disagree,
    /// because homu may have gone on between the one and the other. Beside them the repositories for
    /// builds of which homu waits although its configuration did not have them.
    async fn witnesses(&self) -> Result<(Vec<OfRepo<'_>>, Vec<RepoName>), ProbeError> {
        let mut rows = match self.read_database().await {
            Ok(rows) => rows,
            Err(error) => return Err(self.silent_too(error).await),
        };
        let mut witnesses = Vec::new();
        for (label, cfg) in &self.cfg.repos {
            let page = self.read_page(label).await?;
            let mut fresh = Fresh {
                fork: rows.fork,
                rows: rows.repos.remove(label).unwrap_or_default(),
                page,
            };
            if !settled(&fresh.rows, &fresh.page) {
                fresh = self.fresh(label).await?;
            }
            self.same_homu(label, &fresh)?;
            witnesses.push((label, cfg, fresh));
        }
        // homu keeps the rows of a repository that it serves no more, but starts nothing there.
        let waits = |rows: &RepoRows| rows.pulls.values().any(|row| row.status == "pending");
        let left = rows.repos.into_iter().filter(|(_, rows)| waits(rows));
        Ok((witnesses, left.map(|(label, _)| label).collect()))
    }

    /// A database that cannot be read says nothing of the process; where nothing comes back from that
    /// either, this is what counts.
    async fn silent_too(&self, database: ProbeError) -> ProbeError {
        match self.index().await {
            Err(page) if page.failure.is_no_answer() => {
                let detail = format!("{}; and {}", page.detail, database.detail);
                ProbeError::new(page.failure, detail)
            }
            Ok(_) | Err(_) => database,
        }
    }

    /// Its first page, which is made of its configuration alone.
    async fn index(&self) -> Result<Answer, ProbeError> {
        let request = self.to_host(Request::get(self.url.clone()));
        self.client.send(request).await
    }

    /// What database and page say of one repository now.
    async fn fresh(&self, label: &RepoName) -> Result<Fresh, ProbeError> {
        let mut rows = self.read_database().await?;
        Ok(Fresh {
            fork: rows.fork,
            rows: rows.repos.remove(label).unwrap_or_default(),
            page: self.read_page(label).await?,
        })
    }

    async fn read_database(&self) -> Result<Rows, ProbeError> {
        let rows = self.database.read().await?;
        *self.fork() = Some(rows.fork);
        Ok(rows)
    }

    async fn read_page(&self, label: &RepoName) -> Result<Vec<PageRow>, ProbeError> {
        let url = remedies::endpoint(&self.url, &format!("queue/{label}"));
        let request = self.to_host(Request::get(url).body_max(page::PAGE_MAX));
        let answer = self.client.send(request).await?;
        if answer.status.is_redirection() {
            return Err(ProbeError::new(
                ProbeFailure::HttpStatus,
                format!(
                    "{} answered {}: homu redirects to its web.canonical_url; is `url` right?",
                    answer.shown_url, answer.status
                ),
            ));
        }
        // 0.2.0 fails over a repository that it does not know; the forks have no page for it.
        let unknown = matches!(answer.status.as_u16(), 404 | 500);
        let answer = answer.success().map_err(|mut error| {
            if unknown {
                error
                    .detail
                    .push_str(&format!("; does the running homu serve {label}?"));
            }
            error
        })?;
        // A page of megabytes takes longer to read than a worker of the runtime may be kept.
        let reading =
            tokio::task::spawn_blocking(move || page::parse(&answer.shown_url, &answer.text()));
        reading.await.unwrap_or_else(|error| {
            Err(ProbeError::new(
                ProbeFailure::Io,
                format!("the thread that reads homu's page ended: {error}"),
            ))
        })
    }

    fn same_homu(&self, label: &RepoName, fresh: &Fresh) -> Result<(), ProbeError> {
        if !foreign(&fresh.rows, &fresh.page) {
            return Ok(());
        }
        Err(ProbeError::new(
            ProbeFailure::Parse,
            format!(
                "{}: knows no pull request of {label}, and {} shows pending ones; are `database` \
                 and `url` of the same homu?",
                self.database.path().display(),
                crate::http::shown(&self.url)
            ),
        ))
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.github.is_none() {
            warnings.push(format!(
                "{}: homu's cfg.toml has no github.access_token, so GitHub is not asked: closed \
                 pull requests, moved heads and try builds are not known",
                self.name
            ));
        }
        if let Some(login) = self
            .login
            .as_ref()
            .filter(|it| Some(*it) != self.mention.as_ref())
        {
            let deaf: Vec<&str> = self
                .cfg
                .repos
                .iter()
                .filter(|(_, repo)| !self.listens(repo, login))
                .map(|(label, _)| label.as_str())
                .collect();
            if !deaf.is_empty() {
                let more = if deaf.len() > NAMED_MAX { ", …" } else { "" };
                warnings.push(format!(
                    "{}: homu takes no command from {login} in {}{more}: put that name into their \
                     reviewers (in the forks try_users is enough), or leave `login` out",
                    self.name,
                    deaf[..deaf.len().min(NAMED_MAX)].join(", ")
                ));
            }
        }
        warnings
    }

    /// A warning of repositories that homu got after its configuration was read.
    fn since_the_start(&self, unserved: &[RepoName]) -> Option<String> {
        if unserved.is_empty() {
            return None;
        }
        let more = if unserved.len() > NAMED_MAX {
            ", …"
        } else {
            ""
        };
        let named: Vec<&str> = unserved.iter().map(RepoName::as_str).collect();
        Some(format!(
            "{}: homu waits for builds of {}{more}, which its cfg.toml did not have when it was \
             read: reload",
            self.name,
            named[..named.len().min(NAMED_MAX)].join(", ")
        ))
    }

    /// Whether homu takes a `retry` from a login, as far as its configuration tells.
    fn listens(&self, repo: &RepoCfg, login: &str) -> bool {
        let forked = *self.fork() != Some(Fork::Pypi);
        repo.reviewers.contains(login)
            || (forked && (repo.try_users.contains(login) || repo.others))
    }

    /// The name that homu answers to.
    async fn mention(&self) -> Result<String, ProbeError> {
        match (&self.mention, &self.github) {
            (Some(mention), _) => Ok(mention.clone()),
            (None, Some(github)) => github.login().await,
            (None, None) => Err(ProbeError::new(
                ProbeFailure::Auth,
                "homu's cfg.toml has no github.access_token: set `mention` in the [[bot]] table",
            )),
        }
    }

    /// The request as homu expects it: the rust-lang fork redirects every host but its own away, and
    /// a redirected POST is lost (`server.py`: `redirect_to_canonical_host`).
    fn to_host(&self, request: Request) -> Request {
        match &self.host {
            Some(host) => request.host(host),
            None => request,
        }
    }

    /// Whether it starts builds after a minute only, as the rust-lang fork does. Only that one has a
    /// canonical address; its database may not be there yet.
    fn is_slow(&self) -> bool {
        match *self.fork() {
            Some(Fork::RustLang) => true,
            Some(Fork::Pypi | Fork::Barosl | Fork::Servo) => false,
            None => self.cfg.canonical_url.is_some(),
        }
    }

    fn fork(&self) -> std::sync::MutexGuard<'_, Option<Fork>> {
        self.fork
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Reads the rest of a `[[bot]]` table and homu's own `cfg.toml`.
fn connect(name: BotName, keys: &mut Keys<'_>) -> Option<Box<dyn Bot>> {
    let config = keys.path("config");
    let database = keys.path("database");
    let url = keys.url("url");
    let mention = login(keys, "mention");
    let login = login(keys, "login");
    let github_url = keys.url("github_url");
    let ca = keys.path("ca");
    // Everything is looked at before any of it is given up, so that all mistakes are told at once.
    if !keys.has("config") {
        keys.mistake(
            "config",
            "is missing; it is the path of homu's own cfg.toml",
        );
    }
    let cfg = config.as_deref().and_then(|path| read_cfg(path, keys));
    let url = match (url, &cfg) {
        (Some(url), _) => Some(url),
        (None, Some(cfg)) if !keys.has("url") => {
            let own = own_url(cfg);
            if own.is_none() {
                keys.mistake(
                    "url",
                    "is missing, and homu's cfg.toml has neither web.port nor web.canonical_url",
                );
            }
            own
        }
        (None, Some(_) | None) => None,
    };
    let clients = clients(ca.as_deref()).map_err(|why| keys.mistake("ca", why));
    let (config, cfg, url, (client, github_client)) = (config?, cfg?, url?, clients.ok()?);
    let github_url = match github_url {
        Some(url) => url,
        None => Url::parse(GITHUB_URL).ok()?,
    };
    let github = cfg
        .github_token
        .clone()
        .map(|token| Github::new(github_client, github_url, token));
    if github.is_none() && mention.is_none() {
        keys.warning(
            "mention",
            "is missing, and homu's cfg.toml has no github.access_token to ask for it; homu cannot \
             be given a command",
        );
    }
    let database = Database::at(database.unwrap_or_else(|| beside(&config, &cfg)));
    let fork = database.fork();
    Some(Box::new(Homu {
        name,
        database,
        url,
        client,
        github,
        mention,
        login,
        host: cfg.canonical_url.as_deref().and_then(host),
        nobody: nobody(&cfg),
        rows: remedies::rows(false),
        slow_rows: remedies::rows(true),
        fork: Mutex::new(fork),
        rotation: Mutex::default(),
        cfg,
    }))
}

/// homu's own configuration; `None` after having told its mistakes.
fn read_cfg(path: &Path, keys: &mut Keys<'_>) -> Option<Cfg> {
    let told = |mistake: String| keys.mistake("config", mistake);
    Cfg::read(path)
        .map_err(|mistakes| mistakes.into_iter().for_each(told))
        .ok()
}

/// The clients for homu and for GitHub.
fn clients(ca: Option<&Path>) -> Result<(Client, Client), String> {
    let ca_pem = ca.map(read_ca).transpose()?;
    let client = || {
        Client::new(ClientOptions {
            ca_pem: ca_pem.clone(),
            ..ClientOptions::default()
        })
    };
    Ok((client()?, client()?))
}

/// A login of GitHub.
fn login(keys: &mut Keys<'_>, key: &str) -> Option<String> {
    let login = keys.string(key)?;
    if is_login(&login) {
        return Some(login);
    }
    keys.mistake(key, "is no login of GitHub; write it without @");
    None
}

/// Where homu listens, on this machine where it has a port.
fn own_url(cfg: &Cfg) -> Option<Url> {
    let host = cfg.host.as_deref().unwrap_or("127.0.0.1");
    match cfg.port {
        Some(port) => Url::parse(&format!("http://{host}:{port}")).ok(),
        None => Url::parse(cfg.canonical_url.as_deref()?).ok(),
    }
}

/// The host and port of a URL, letter by letter as homu compares them (Python's `netloc`).
fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    (!host.is_empty()).then(|| host.to_owned())
}

/// The database that homu opens: in its working directory, which is where `cfg.toml` lies.
fn beside(config: &Path, cfg: &Cfg) -> PathBuf {
    let file = cfg.database.as_deref().unwrap_or("main.db");
    let folder = config.parent().unwrap_or(Path::new(""));
    folder.join(file)
}

/// A builder's name that no repository has.
fn nobody(cfg: &Cfg) -> String {
    let mut name = replay::NOBODY.to_owned();
    while cfg
        .repos
        .values()
        .any(|repo| repo.builders(None).contains(name.as_str()))
    {
        name.push_str("-nobody");
    }
    name
}
