//! homu's own `cfg.toml`: repositories, builders, secrets and addresses.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::model::{BuilderName, CiSystem, RepoName};
use crate::secret::Secret;

/// homu's own timeout where its configuration gives none (servo and rust-lang forks:
/// `DEFAULT_TEST_TIMEOUT`; barosl: `TEST_TIMEOUT`, not configurable).
pub const OWN_TIMEOUT: Duration = Duration::from_secs(36_000);

/// What the watchdog needs of `cfg.toml`.
#[derive(Debug)]
pub struct Cfg {
    /// homu's token for GitHub.
    pub github_token: Option<Secret>,
    /// Where homu listens.
    pub port: Option<u16>,
    /// The address that the rust-lang fork answers to only; other hosts are redirected away.
    pub canonical_url: Option<String>,
    /// The database's file (rust-lang fork: `db.file`).
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
    /// Who may approve, and on 0.2.0 retry.
    pub reviewers: Vec<String>,
    /// Who may try and retry, in the forks.
    pub try_users: Vec<String>,
    /// Its Buildbot, where it has one.
    pub buildbot: Option<BuildbotCfg>,
    /// What an auto build waits for.
    pub auto: Vec<(BuilderName, CiSystem)>,
    /// What a try build waits for.
    pub tries: Vec<(BuilderName, CiSystem)>,
    /// The branch that auto builds are pushed to.
    pub auto_branch: String,
    /// The branch that try builds are pushed to.
    pub try_branch: String,
    /// homu's own timeout for a build here, where the file gives one.
    pub timeout: Option<Duration>,
}

/// A repository's Buildbot, as homu knows it.
#[derive(Debug)]
pub struct BuildbotCfg {
    /// The secret in the packets that it sends.
    pub secret: Secret,
}

impl Cfg {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Every mistake that would keep the watchdog from working, one line each, with the file.
    pub fn read(path: &Path) -> Result<Self, Vec<String>> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("cannot read homu's {shown}: {error}")])?;
        Self::parse(&text).map_err(|mistakes| {
            mistakes
                .into_iter()
                .map(|mistake| format!("{shown}: {mistake}"))
                .collect()
        })
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    ///
    /// As [`Cfg::read`], without the file's name.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            vec![format!("line {line}: {}", error.message())]
        })?;
        let root = Node {
            table: &table,
            path: String::new(),
        };
        let mut mistakes = Vec::new();
        let cfg = read_root(root, &mut mistakes);
        if mistakes.is_empty() {
            Ok(cfg)
        } else {
            Err(mistakes)
        }
    }
}

/// A table of the file with the path to it.
#[derive(Clone)]
struct Node<'a> {
    table: &'a toml::Table,
    path: String,
}

impl<'a> Node<'a> {
    fn table(&self, key: &str) -> Option<Node<'a>> {
        let table = self.table.get(key)?.as_table()?;
        Some(Node {
            table,
            path: self.name(key),
        })
    }

    fn tables(&self, key: &str) -> Vec<(String, Node<'a>)> {
        let Some(node) = self.table(key) else {
            return Vec::new();
        };
        node.table
            .keys()
            .filter_map(|name| Some((name.clone(), node.table(name)?)))
            .collect()
    }

    fn text(&self, key: &str) -> Option<String> {
        self.table.get(key)?.as_str().map(expand)
    }

    fn demand(&self, key: &str, mistakes: &mut Vec<String>) -> String {
        self.text(key).unwrap_or_else(|| {
            mistakes.push(format!("{} is missing or no string", self.name(key)));
            String::new()
        })
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let values = self.table.get(key).and_then(toml::Value::as_array);
        values
            .into_iter()
            .flatten()
            .filter_map(toml::Value::as_str)
            .map(expand)
            .collect()
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

fn read_root(root: Node<'_>, mistakes: &mut Vec<String>) -> Cfg {
    let web = root.table("web");
    let github = root.table("github");
    let repos: BTreeMap<RepoName, RepoCfg> = root
        .tables("repo")
        .into_iter()
        .map(|(label, node)| (RepoName::new(label), read_repo(&node, mistakes)))
        .collect();
    if repos.is_empty() {
        mistakes.push("[repo.…] is missing: homu serves no repository".to_owned());
    }
    Cfg {
        github_token: github
            .and_then(|node| node.text("access_token"))
            .filter(|token| !token.is_empty())
            .map(Secret::new),
        port: web.as_ref().and_then(|node| {
            let port = node.table.get("port")?.as_integer()?;
            u16::try_from(port).ok()
        }),
        canonical_url: web.and_then(|node| node.text("canonical_url")),
        database: root.table("db").and_then(|node| node.text("file")),
        repos,
    }
}

fn read_repo(node: &Node<'_>, mistakes: &mut Vec<String>) -> RepoCfg {
    let branch = node.table("branch");
    let branch = |key: &str| {
        branch
            .as_ref()
            .and_then(|node| node.text(key))
            .unwrap_or_else(|| key.to_owned())
    };
    let webhook_secret = match node.table("github") {
        Some(github) => Secret::new(github.demand("secret", mistakes)),
        None => {
            mistakes.push(format!("{} is missing", node.name("github.secret")));
            Secret::new("")
        }
    };
    let mut auto = Vec::new();
    let mut tries = Vec::new();
    let buildbot = node.table("buildbot").map(|buildbot| {
        let named = |names: Vec<String>| {
            names
                .into_iter()
                .map(|name| (BuilderName::new(name), CiSystem::Buildbot))
                .collect::<Vec<_>>()
        };
        auto.extend(named(buildbot.texts("builders")));
        tries.extend(named(buildbot.texts("try_builders")));
        BuildbotCfg {
            secret: Secret::new(buildbot.demand("secret", mistakes)),
        }
    });
    if node.table("travis").is_some() {
        auto.push((BuilderName::new("travis"), CiSystem::Travis));
        // 0.2.0 tries on Travis with the same builder.
        if buildbot.is_none() {
            tries.push((BuilderName::new("travis"), CiSystem::Travis));
        }
    }
    for (key, system) in [("status", CiSystem::Status), ("checks", CiSystem::Check)] {
        // barosl: one `[status]` with a context; the later forks: `[status.NAME]`.
        let Some(one) = node.table(key) else { continue };
        if one.text("context").is_some() {
            auto.push((BuilderName::new(key), system));
            tries.push((BuilderName::new(key), system));
            continue;
        }
        for (name, context) in node.tables(key) {
            let builder = BuilderName::new(format!("{key}-{name}"));
            auto.push((builder.clone(), system));
            let try_only = context.text("try_context").or(context.text("try_name"));
            if context.text("context").is_some()
                || context.text("name").is_some()
                || try_only.is_some()
            {
                tries.push((builder, system));
            }
        }
    }
    let seconds = node
        .table
        .get("timeout")
        .and_then(toml::Value::as_integer)
        .and_then(|seconds| u64::try_from(seconds).ok());
    RepoCfg {
        owner: node.demand("owner", mistakes),
        name: node.demand("name", mistakes),
        webhook_secret,
        reviewers: node.texts("reviewers"),
        try_users: node.texts("try_users"),
        buildbot,
        auto,
        tries,
        auto_branch: branch("auto"),
        try_branch: branch("try"),
        timeout: seconds.map(Duration::from_secs),
    }
}

/// Replaces `${NAME}` by the environment's value, as the newer forks do when they read the file; a
/// name that is not set is left as it is.
fn expand(text: &str) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        expanded.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let Some(end) = after.find('}') else {
            rest = &rest[start..];
            break;
        };
        match std::env::var(&after[..end]) {
            Ok(value) => expanded.push_str(&value),
            Err(_) => expanded.push_str(&rest[start..start + 2 + end + 1]),
        }
        rest = &after[end + 1..];
    }
    expanded.push_str(rest);
    expanded
}
