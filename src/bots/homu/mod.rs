//! homu as a bot: 0.2.0 of PyPI, and by the columns of their databases its barosl, servo and
//! rust-lang forks.

mod cfg;
mod database;
mod github;
mod page;
mod remedies;
mod replay;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use url::Url;

use self::cfg::Cfg;
use self::database::{Fork, Rows};
use self::github::Github;
use self::page::PageRow;
use self::state::{Asked, Witnessed, agree};
use super::{Bot, BoxFuture, Kind};
use crate::http::{Client, ClientOptions, Request, read_ca};
use crate::journal::Permit;
use crate::keys::Keys;
use crate::model::{
    BotName, BotSnapshot, BuildKey, BuilderName, GithubState, Outcome, ProbeError, ProbeFailure,
    RemedyRow, RepoName, Sha, SourceName,
};

pub(super) const KIND: Kind = Kind {
    name: "homu",
    connect,
};

/// Where GitHub's API is unless the configuration says otherwise.
const GITHUB_URL: &str = "https://api.github.com";

/// One homu.
pub struct Homu {
    name: BotName,
    cfg: Cfg,
    database: PathBuf,
    url: Url,
    client: Client,
    github: Option<Github>,
    /// The name that homu answers to, where the configuration tells it.
    mention: Option<String>,
    /// In whose name commands are given; homu's own where it is left out.
    login: Option<String>,
    /// A builder's name that no repository of this homu has.
    nobody: String,
    rows: Vec<RemedyRow>,
    /// The fork that the last look told.
    fork: Mutex<Option<Fork>>,
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
        let builders = |repo: &cfg::RepoCfg| {
            let all: BTreeSet<BuilderName> = repo
                .auto
                .iter()
                .chain(&repo.tries)
                .map(|(builder, _)| builder.clone())
                .collect();
            all.into_iter().collect()
        };
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
            Some(Fork::Barosl) => Some(cfg::OWN_TIMEOUT),
            Some(Fork::Servo | Fork::RustLang) | None => {
                Some(configured.unwrap_or(cfg::OWN_TIMEOUT))
            }
        }
    }

    fn observe<'a>(
        &'a self,
        remembered: &'a BTreeMap<BuildKey, Sha>,
    ) -> BoxFuture<'a, Result<BotSnapshot, ProbeError>> {
        Box::pin(self.look(remembered))
    }

    fn rows(&self) -> &[RemedyRow] {
        &self.rows
    }

    fn send<'a>(&'a self, permit: Permit) -> BoxFuture<'a, Outcome> {
        Box::pin(remedies::send(self, permit))
    }
}

impl Homu {
    async fn look(&self, remembered: &BTreeMap<BuildKey, Sha>) -> Result<BotSnapshot, ProbeError> {
        let (mut rows, mut pages) = self.witnesses().await?;
        let differ = pages.iter().any(|(label, page)| !agree(label, &rows, page));
        if differ {
            // They are read one after the other, and homu may have gone on in between.
            (rows, pages) = self.witnesses().await?;
        }
        *self.fork() = rows.fork;
        let mut warnings = self.warnings(&rows);
        let login = match (&self.github, &self.mention) {
            (_, Some(mention)) => Some(Ok(mention.clone())),
            (Some(github), None) => Some(github.login().await),
            (None, None) => None,
        };
        let (login, failed) = match login {
            Some(Ok(login)) => (Some(login), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let mut asked = Asked::new(self.github.as_ref(), login);
        asked.failed = failed;
        let mut repos = BTreeMap::new();
        for (label, page) in &pages {
            let Some(cfg) = self.cfg.repos.get(label) else {
                continue;
            };
            let witnessed = Witnessed {
                bot: &self.name,
                label,
                cfg,
                rows: &rows,
                page,
                remembered,
            };
            repos.insert(label.clone(), witnessed.snapshot(&mut asked).await);
        }
        let github = match (&self.github, asked.failed) {
            (None, _) => GithubState::NotConfigured,
            (Some(_), Some(error)) => GithubState::Failed(error),
            (Some(github), None) => GithubState::Good(github.quota()),
        };
        if self.github.is_none() {
            warnings.push(format!(
                "{}: homu's cfg.toml has no github.access_token, so GitHub is not asked: closed \
                 pull requests, moved heads and try builds are not known",
                self.name
            ));
        }
        Ok(BotSnapshot {
            repos,
            github,
            warnings,
        })
    }

    /// The database and the page of every repository.
    async fn witnesses(&self) -> Result<(Rows, BTreeMap<RepoName, Vec<PageRow>>), ProbeError> {
        let rows = database::read_async(self.database.clone()).await?;
        let mut pages = BTreeMap::new();
        for label in self.cfg.repos.keys() {
            let url = remedies::endpoint(&self.url, &format!("queue/{label}"));
            let mut request = Request::get(url).body_max(page::PAGE_MAX);
            if let Some(host) = self.canonical_host() {
                request = request.host(&host);
            }
            let answer = self.client.get(request).await?;
            pages.insert(
                label.clone(),
                page::parse(&answer.shown_url, &answer.text())?,
            );
        }
        Ok((rows, pages))
    }

    fn warnings(&self, rows: &Rows) -> Vec<String> {
        let mut warnings = Vec::new();
        if rows.fork.is_none() {
            warnings.push(format!(
                "{}: {} has no table of pull requests yet",
                self.name,
                self.database.display()
            ));
        }
        if let Some(login) = &self.login {
            for (label, repo) in &self.cfg.repos {
                let tries = rows.fork != Some(Fork::Pypi) && repo.try_users.contains(login);
                if !tries && !repo.reviewers.contains(login) {
                    warnings.push(format!(
                        "{}: homu takes no command from {login} in {label}: put that name into its \
                         reviewers (newer forks: try_users), or leave `login` out",
                        self.name
                    ));
                }
            }
        }
        warnings
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

    /// The host that the rust-lang fork answers to; it redirects every other away, and a redirected
    /// POST is lost (`server.py`: `redirect_to_canonical_host`).
    fn canonical_host(&self) -> Option<String> {
        let url = Url::parse(self.cfg.canonical_url.as_deref()?).ok()?;
        let host = url.host_str()?;
        Some(match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
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
    let mention = keys.string("mention");
    let login = keys.string("login");
    let github_url = keys.url("github_url");
    let ca = keys.path("ca");
    let Some(config) = config else {
        if !keys.has("config") {
            keys.mistake(
                "config",
                "is missing; it is the path of homu's own cfg.toml",
            );
        }
        return None;
    };
    let cfg = match Cfg::read(&config) {
        Ok(cfg) => cfg,
        Err(mistakes) => {
            for mistake in mistakes {
                keys.mistake("config", mistake);
            }
            return None;
        }
    };
    let Some(url) = url.or_else(|| own_url(&cfg)) else {
        keys.mistake("url", "is missing, and homu's cfg.toml has no web.port");
        return None;
    };
    let ca_pem = match ca.map(|path| read_ca(&path)).transpose() {
        Ok(pem) => pem,
        Err(why) => {
            keys.mistake("ca", why);
            return None;
        }
    };
    let client = |ca_pem| {
        Client::new(ClientOptions {
            ca_pem,
            ..ClientOptions::default()
        })
    };
    let (client, github_client) = match (client(ca_pem.clone()), client(ca_pem)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(why), _) | (_, Err(why)) => {
            keys.mistake("ca", why);
            return None;
        }
    };
    let github_url = match github_url {
        Some(url) => url,
        None => Url::parse(GITHUB_URL).ok()?,
    };
    let github = cfg
        .github_token
        .clone()
        .map(|token| Github::new(github_client, github_url, token));
    let database = database.unwrap_or_else(|| beside(&config, &cfg));
    let nobody = nobody(&cfg);
    // Only the rust-lang fork redirects to a canonical address, and only it sleeps before a start.
    let slow = cfg.canonical_url.is_some();
    Some(Box::new(Homu {
        name,
        database,
        url,
        client,
        github,
        mention,
        login,
        nobody,
        rows: remedies::rows(slow),
        fork: Mutex::new(None),
        cfg,
    }))
}

/// Where homu listens on this machine.
fn own_url(cfg: &Cfg) -> Option<Url> {
    Url::parse(&format!("http://127.0.0.1:{}", cfg.port?)).ok()
}

/// The database that homu opens: in its working directory, which is where `cfg.toml` lies.
fn beside(config: &Path, cfg: &Cfg) -> PathBuf {
    let file = cfg.database.as_deref().unwrap_or("main.db");
    config
        .parent()
        .map_or_else(|| PathBuf::from(file), |folder| folder.join(file))
}

/// A builder's name that no repository has.
fn nobody(cfg: &Cfg) -> String {
    let taken = |name: &str| {
        cfg.repos.values().any(|repo| {
            repo.auto
                .iter()
                .chain(&repo.tries)
                .any(|(builder, _)| builder.as_str() == name)
        })
    };
    let mut name = replay::NOBODY.to_owned();
    while taken(&name) {
        name.push_str("-nobody");
    }
    name
}
