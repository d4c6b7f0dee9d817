//! What the fake homu is told, in the form of homu's own `cfg.toml`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// How a fake homu is set up.
#[derive(Clone)]
pub struct HomuOptions {
    /// Where `cfg.toml` and `main.db` are; it exists.
    pub folder: PathBuf,
    /// GitHub's API, without a slash at its end.
    pub github_url: String,
    /// The bot's token there.
    pub github_token: String,
    /// The repositories by label.
    pub repos: BTreeMap<String, RepoOptions>,
}

/// One repository.
#[derive(Clone)]
pub struct RepoOptions {
    /// The owner on GitHub.
    pub owner: String,
    /// The name on GitHub.
    pub name: String,
    /// Who may give commands, beside the bot itself.
    pub reviewers: Vec<String>,
    /// What GitHub signs webhooks with.
    pub github_secret: String,
    /// Buildbot's address, without a slash at its end.
    pub buildbot_url: String,
    /// What Buildbot sends along.
    pub buildbot_secret: String,
    /// The builders that must be green before a merge.
    pub builders: Vec<String>,
    /// The builders that must be green in a try.
    pub try_builders: Vec<String>,
}

impl HomuOptions {
    /// homu's own configuration file.
    pub fn path(&self) -> PathBuf {
        self.folder.join("cfg.toml")
    }

    /// homu's database.
    pub fn database(&self) -> PathBuf {
        self.folder.join("main.db")
    }

    /// Writes `cfg.toml` with the keys that homu 0.2.0 reads.
    pub(super) fn write(&self, port: u16) -> io::Result<()> {
        let repo = self
            .repos
            .iter()
            .map(|(label, repo)| (label.as_str(), repo.file()))
            .collect();
        let file = File {
            github: Github {
                access_token: &self.github_token,
                app_client_id: "none",
                app_client_secret: "none",
            },
            web: Web { port },
            repo,
        };
        let text = toml::to_string(&file).map_err(io::Error::other)?;
        write_private(&self.path(), &text)
    }
}

impl RepoOptions {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    fn file(&self) -> Repo<'_> {
        Repo {
            owner: &self.owner,
            name: &self.name,
            reviewers: &self.reviewers,
            github: Secret {
                secret: &self.github_secret,
            },
            buildbot: Buildbot {
                url: &self.buildbot_url,
                secret: &self.buildbot_secret,
                username: "homu",
                password: "homu",
                builders: &self.builders,
                try_builders: &self.try_builders,
            },
        }
    }
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

#[derive(Serialize)]
struct File<'a> {
    github: Github<'a>,
    web: Web,
    repo: BTreeMap<&'a str, Repo<'a>>,
}

#[derive(Serialize)]
struct Github<'a> {
    access_token: &'a str,
    app_client_id: &'a str,
    app_client_secret: &'a str,
}

#[derive(Serialize)]
struct Web {
    port: u16,
}

#[derive(Serialize)]
struct Repo<'a> {
    owner: &'a str,
    name: &'a str,
    reviewers: &'a [String],
    github: Secret<'a>,
    buildbot: Buildbot<'a>,
}

#[derive(Serialize)]
struct Secret<'a> {
    secret: &'a str,
}

#[derive(Serialize)]
struct Buildbot<'a> {
    url: &'a str,
    secret: &'a str,
    username: &'a str,
    password: &'a str,
    builders: &'a [String],
    try_builders: &'a [String],
}
