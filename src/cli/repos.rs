//! Whether a repository that the command line names is one: a misspelt one must not read as a quiet one.

use std::collections::BTreeSet;

use crate::config::{Config, listed};
use crate::journal::Reader;
use crate::model::RepoName;

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
