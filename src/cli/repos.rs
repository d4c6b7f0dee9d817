//! Repositories as the command line names them: REPO or BOT/REPO, and whether there is one, because a
//! misspelt one must not read as a quiet one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::daemon::text;
use crate::config::{Config, listed};
use crate::journal::Reader;
use crate::model::RepoName;

/// A repository by its label in the bot, and where several bots have one of that label, its bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RepoPlace {
    /// The bot, where it is named.
    pub(super) bot: Option<String>,
    /// The label.
    pub(super) repo: String,
}

impl FromStr for RepoPlace {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let (bot, repo) = match name.split_once('/') {
            Some((bot, repo)) => (Some(bot.to_owned()), repo),
            None => (None, name),
        };
        if repo.is_empty() || bot.as_deref() == Some("") {
            return Err(format!(
                "{name:?} names no repository; write REPO, or BOT/REPO"
            ));
        }
        Ok(Self {
            bot,
            repo: repo.to_owned(),
        })
    }
}

impl fmt::Display for RepoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bot) = &self.bot {
            write!(f, "{bot}/")?;
        }
        f.write_str(&self.repo)
    }
}

impl RepoPlace {
    /// Whether something of the daemon's answers is of it.
    pub(super) fn has(&self, value: &Value) -> bool {
        let bot = self.bot.as_ref();
        text(value, "repo") == self.repo && bot.is_none_or(|bot| text(value, "bot") == bot)
    }
}

/// Takes the name of a repository of the configuration, or of one that the journal still tells of.
///
/// # Errors
///
/// It is neither, with those that there are; the journal cannot be read.
pub(super) fn known(config: &Config, reader: &Reader, repo: &RepoName) -> Result<(), String> {
    let mut labels: BTreeSet<RepoName> = config
        .bots
        .iter()
        .flat_map(|bot| bot.repos().into_keys())
        .collect();
    if labels.contains(repo) {
        return Ok(());
    }
    labels.extend(reader.repos().map_err(|error| error.to_string())?);
    if labels.contains(repo) {
        return Ok(());
    }
    Err(format!(
        "--repo: no bot has a repository {:?}, and the journal tells of none{}",
        repo.as_str(),
        listed(labels.iter().map(RepoName::as_str))
    ))
}
