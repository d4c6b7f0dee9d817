//! homu's own `cfg.toml`: repositories, builders, secrets and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::cfg_file::{self, Table};
use super::database::Fork;
use crate::model::{BuildKind, BuilderName, CiSystem, RepoName};
use crate::secret::Secret;

/// homu's own timeout where its configuration gives none (servo and rust-lang:
/// `DEFAULT_TEST_TIMEOUT`; barosl: `TEST_TIMEOUT`, which no configuration changes).
pub const OWN_TIMEOUT: Duration = Duration::from_secs(36_000);

/// What the watchdog needs of `cfg.toml`.
#[derive(Debug)]
pub struct Cfg {
    /// homu's token for GitHub.
    pub github_token: Option<Secret>,
    /// The address at which homu listens (forks: `web.host`); `None`: on all of them.
    pub host: Option<String>,
    /// The port at which homu listens.
    pub port: Option<u16>,
    /// The address that the rust-lang fork answers to only (`web.canonical_url`).
    pub canonical_url: Option<String>,
    /// The database's file (rust-lang fork: `db.file`), relative to homu's working directory.
    pub database: Option<String>,
    /// The repositories by their labels.
    pub repos: BTreeMap<RepoName, RepoCfg>,
}

/// One repository of `cfg.toml`.
#[derive(Debug)]
pub struct RepoCfg {
    /// The owner on GitHub.
    pub owner: String,
    /// The name on GitHub.
    pub name: String,
    /// The secret that signs webhooks of this repository.
    pub webhook_secret: Secret,
    /// Who may give every command.
    pub reviewers: BTreeSet<String>,
    /// Who may try and retry, in the forks.
    pub try_users: BTreeSet<String>,
    /// Whether others may give commands too, whom only GitHub or a team's list names
    /// (`auth_collaborators`, `rust_team`).
    pub others: bool,
    /// Its Buildbot, where it has one.
    pub buildbot: Option<Buildbot>,
    /// Its Travis, where it has one.
    pub travis: Option<Travis>,
    /// What it waits for among GitHub's commit statuses.
    pub status: Contexts,
    /// What it waits for among GitHub's check runs.
    pub checks: Contexts,
    /// The branch that auto builds are pushed to.
    pub auto_branch: String,
    /// The branch that try builds are pushed to.
    pub try_branch: String,
    /// homu's own timeout for a build here, where the file gives one.
    pub timeout: Option<Duration>,
}

/// A repository's Travis, as homu knows it.
#[derive(Debug)]
pub struct Travis {
    /// The file and key of its token.
    pub place: String,
    /// The token that signs its messages (`[repo.X.travis] token`).
    pub token: Option<Secret>,
}

/// A repository's Buildbot, as homu knows it.
#[derive(Debug)]
pub struct Buildbot {
    /// The file and key of its address.
    pub place: String,
    /// Where homu asks it to stop, to start anew and for logs (`[repo.X.buildbot] url`; `main.py`:
    /// `start_rebuild`, `server.py`: `buildbot`).
    pub url: Option<Url>,
    /// Who homu logs in as for that, and the password (`username`, `password`).
    pub login: Option<(String, Secret)>,
    /// The secret in the packets that it sends.
    pub secret: Secret,
    /// What an auto build waits for.
    pub builders: Vec<String>,
    /// What a try build waits for.
    pub try_builders: Vec<String>,
    /// What a try build of a kind waits for (servo: `try=KIND`).
    pub try_choosers: BTreeMap<String, Vec<String>>,
}

/// What a repository waits for of one part of GitHub's API.
#[derive(Debug, Default)]
pub struct Contexts {
    /// One of no name (barosl: `[repo.X.status]` with a `context`).
    pub one: bool,
    /// By its key (servo, rust-lang: `[repo.X.status.KEY]`, `[repo.X.checks.KEY]`), whether an auto
    /// and whether a try build waits for it.
    pub named: BTreeMap<String, (bool, bool)>,
}

impl Cfg {
    /// Reads the file, with `${NAME}` replaced by the watchdog's own environment.
    ///
    /// # Errors
    ///
    /// Every mistake that would keep the watchdog from working, as `FILE:LINE: KEY: MESSAGE`;
    /// without any value of the file.
    pub fn read(path: &Path) -> Result<Self, Vec<String>> {
        cfg_file::read(path, read_root)
    }
}

impl RepoCfg {
    /// What a build waits for; which of a repository's systems count differs between the forks
    /// (`main.py`: `start_build`). `chosen` is servo's kind of try build.
    pub fn expected(
        &self,
        fork: Fork,
        kind: BuildKind,
        chosen: Option<&str>,
    ) -> Vec<(BuilderName, CiSystem)> {
        let mut expected = Vec::new();
        let mut add = |builder: &str, system: CiSystem| {
            let builder = BuilderName::new(builder);
            if !expected.iter().any(|(known, _)| known == &builder) {
                expected.push((builder, system));
            }
        };
        let first_only = match fork {
            Fork::Pypi | Fork::Barosl => true,
            Fork::Servo | Fork::RustLang => false,
        };
        if let Some(buildbot) = &self.buildbot {
            for builder in buildbot.builders(fork, kind, chosen) {
                add(builder, CiSystem::Buildbot);
            }
            if first_only {
                return expected;
            }
        }
        if self.travis.is_some() {
            add("travis", CiSystem::Travis);
            if first_only {
                return expected;
            }
        }
        match fork {
            Fork::Pypi => {}
            Fork::Barosl => {
                if self.status.one {
                    add("status", CiSystem::Status);
                }
            }
            Fork::Servo | Fork::RustLang => {
                for key in self.status.of(kind) {
                    add(&format!("status-{key}"), CiSystem::Status);
                }
                for key in self.checks.of(kind) {
                    add(&format!("checks-{key}"), CiSystem::Check);
                }
            }
        }
        expected
    }

    /// Every builder that any build of this repository may wait for; of an unknown fork, those of
    /// all of them.
    pub fn builders(&self, fork: Option<Fork>) -> BTreeSet<BuilderName> {
        let forks = fork.map_or(Fork::ALL.to_vec(), |fork| vec![fork]);
        let choosers = self.buildbot.iter().flat_map(|it| it.try_choosers.keys());
        let chosen: Vec<Option<&str>> = choosers.map(|key| Some(key.as_str())).collect();
        let mut builders = BTreeSet::new();
        for fork in forks {
            for kind in [BuildKind::Auto, BuildKind::Try] {
                for chosen in chosen.iter().copied().chain([None]) {
                    let expected = self.expected(fork, kind, chosen);
                    builders.extend(expected.into_iter().map(|(builder, _)| builder));
                }
            }
        }
        builders
    }

    /// The branch that 0.2.0 pushes a try build to: without a Buildbot that of auto builds.
    pub fn pypi_try_branch(&self) -> &str {
        if self.buildbot.is_some() {
            &self.try_branch
        } else {
            &self.auto_branch
        }
    }
}

impl Buildbot {
    fn builders(&self, fork: Fork, kind: BuildKind, chosen: Option<&str>) -> &[String] {
        match (kind, fork, chosen) {
            (BuildKind::Auto, _, _) => &self.builders,
            (BuildKind::Try, Fork::Servo, Some(chosen)) => {
                self.try_choosers.get(chosen).map_or(&[], Vec::as_slice)
            }
            (BuildKind::Try, Fork::Servo, None)
            | (BuildKind::Try, Fork::Pypi | Fork::Barosl | Fork::RustLang, _) => &self.try_builders,
        }
    }
}

impl Contexts {
    fn of(&self, kind: BuildKind) -> impl Iterator<Item = &String> {
        self.named
            .iter()
            .filter(move |(_, (auto, tries))| match kind {
                BuildKind::Auto => *auto,
                BuildKind::Try => *tries,
            })
            .map(|(key, _)| key)
    }
}

fn read_root(root: &Table<'_>) -> Cfg {
    let web = root.table("web");
    let github = root.table("github");
    let repos: BTreeMap<RepoName, RepoCfg> = root
        .tables("repo")
        .into_iter()
        .map(|(label, table)| (RepoName::new(label), read_repo(&table)))
        .collect();
    if repos.is_empty() {
        root.mistake("repo", "is missing: homu serves no repository");
    }
    // All interfaces are reached on this machine by its loopback.
    let host = web.as_ref().and_then(|web| web.string("host"));
    let host = host.filter(|host| !["", "0.0.0.0", "::", "[::]"].contains(&host.as_str()));
    Cfg {
        github_token: github
            .and_then(|github| github.string("access_token"))
            .filter(|token| !token.is_empty())
            .map(Secret::new),
        host,
        port: web.as_ref().and_then(|web| web.port("port")),
        canonical_url: web.as_ref().and_then(|web| web.string("canonical_url")),
        database: root.table("db").and_then(|db| db.string("file")),
        repos,
    }
}

fn read_repo(repo: &Table<'_>) -> RepoCfg {
    let branch = repo.table("branch");
    let branch = |key: &str| {
        let named = branch.as_ref().and_then(|branch| branch.string(key));
        named.unwrap_or_else(|| key.to_owned())
    };
    let webhook_secret = match repo.table("github") {
        Some(github) => github.required("secret", "the secret of this repository's webhooks"),
        None => repo.required("github.secret", "the secret of this repository's webhooks"),
    };
    let buildbot = repo.table("buildbot").map(|buildbot| Buildbot {
        place: buildbot.place("url"),
        url: buildbot.advice("url").as_deref().and_then(address),
        login: buildbot
            .advice("username")
            .zip(buildbot.advice("password").map(Secret::new)),
        secret: Secret::new(buildbot.required("secret", "the secret of Buildbot's packets")),
        builders: buildbot.required_strings("builders", "the builders that a build waits for"),
        try_builders: buildbot.strings("try_builders"),
        try_choosers: buildbot
            .table("try_choosers")
            .map(|choosers| choosers.each(Table::strings))
            .unwrap_or_default(),
    });
    RepoCfg {
        owner: repo.required("owner", "the owner of the repository on GitHub"),
        name: repo.required("name", "the name of the repository on GitHub"),
        webhook_secret: Secret::new(webhook_secret),
        reviewers: repo.strings("reviewers").into_iter().collect(),
        try_users: repo.strings("try_users").into_iter().collect(),
        others: repo.flag("auth_collaborators") || repo.flag("rust_team"),
        buildbot,
        travis: repo.table("travis").map(|travis| Travis {
            place: travis.place("token"),
            token: travis.advice("token").map(Secret::new),
        }),
        status: repo
            .table("status")
            .map_or_else(Contexts::default, |status| {
                if status.has("context") && !status.is_table("context") {
                    return Contexts {
                        one: true,
                        named: BTreeMap::new(),
                    };
                }
                contexts(&status, |context| {
                    let waits = context.has("context");
                    (waits, waits && context.flag_or("try", true))
                })
            }),
        checks: repo
            .table("checks")
            .map_or_else(Contexts::default, |checks| {
                contexts(&checks, |check| {
                    let named = check.has("name");
                    (named, named || check.has("try_name"))
                })
            }),
        auto_branch: branch("auto"),
        try_branch: branch("try"),
        timeout: repo.seconds("timeout"),
    }
}

/// An address that can be asked and shown: of a web server, without a name or password in it.
fn address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (plain && matches!(url.scheme(), "http" | "https")).then_some(url)
}

fn contexts(table: &Table<'_>, read: impl Fn(&Table<'_>) -> (bool, bool)) -> Contexts {
    let named = table.all_tables().into_iter();
    Contexts {
        one: false,
        named: named.map(|(key, table)| (key, read(&table))).collect(),
    }
}
