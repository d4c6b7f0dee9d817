//! Finding the configuration file, and reading it whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::bots::Bot;
use crate::decision::policy::Policy;
use crate::decision::restart::Restart;
use crate::keys::{self, Keys, Mistake};
use crate::model::{BotName, BuilderName, RepoName};
use crate::providers::Provider;

use super::{
    Config, Exclusion, JournalSettings, Kinds, Maintenance, Server, adapters, journal, policy,
    restart, server, stops,
};

/// Where a configuration is looked for when none is named, in this order.
pub const PLACES: [&str; 2] = ["ci-watchdog.toml", "/etc/ci-watchdog/ci-watchdog.toml"];
/// The largest file that is read as a configuration, bytes; a thousand repositories need a tenth.
const FILE_MAX: u64 = 1 << 20;

/// Why a configuration is refused: every mistake, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// No configuration was named, and there is none where one is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound;

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [here, system] = PLACES;
        write!(
            f,
            "there is no configuration: neither {here} in this folder nor {system}; \
             name one with --config FILE, or start from ci-watchdog.example.toml"
        )
    }
}

impl std::error::Error for NotFound {}

/// The configuration file to read: the one that was named, else the first of [`PLACES`] that is there.
///
/// # Errors
///
/// None was named and none is there. Whether a named one is there, [`load`] finds out.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, NotFound> {
    match explicit {
        Some(path) => Ok(path.to_owned()),
        None => first_of(PLACES.map(PathBuf::from)).ok_or(NotFound),
    }
}

/// Reads and checks a configuration file, with the files that it names (secrets, the bot's own
/// configuration). No network is used. The same path can be loaded again at any time.
///
/// # Errors
///
/// Every mistake that can be found at once, each with its line, its key, and what would be right.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    load_with(path, Kinds::ALL)
}

/// Like [`load`], with other kinds of bot and provider.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(path: &Path, kinds: Kinds<'_>) -> Result<Config, Mistakes> {
    let text = read_file(path).map_err(|message| {
        Mistakes(vec![Mistake {
            file: path.to_owned(),
            line: None,
            column: None,
            key: String::new(),
            message,
        }])
    })?;
    read(path, &text, kinds)
}

/// Like [`load_with`], with `text` as the contents of the file.
///
/// # Errors
///
/// As [`load`].
pub fn read(path: &Path, text: &str, kinds: Kinds<'_>) -> Result<Config, Mistakes> {
    let reading = keys::read(path, text, |root| sections(root, kinds));
    let warnings = reading.warnings.iter().map(ToString::to_string).collect();
    match reading.value.flatten() {
        Some(sections) if reading.mistakes.is_empty() => Ok(Config {
            path: path.to_owned(),
            policy: sections.policy,
            server: sections.server,
            journal: sections.journal,
            exclusions: sections.exclusions,
            maintenance: sections.maintenance,
            bots: sections.bots,
            providers: sections.providers,
            restarts: sections.restarts,
            warnings,
        }),
        Some(_) | None => Err(Mistakes(reading.mistakes)),
    }
}

struct Sections {
    policy: Policy,
    server: Server,
    journal: JournalSettings,
    exclusions: Vec<Exclusion>,
    maintenance: Vec<Maintenance>,
    bots: Vec<Box<dyn Bot>>,
    providers: Vec<Box<dyn Provider>>,
    restarts: BTreeMap<BotName, Restart>,
}

/// Reads every section, whatever is wrong in the others; `None` only after having told a mistake.
fn sections(root: &mut Keys<'_>, kinds: Kinds<'_>) -> Option<Sections> {
    let server = server::read(root);
    let journal = journal::read(root);
    let adapters = adapters::read(root, kinds);
    let known = adapters.complete.then(|| labels(&adapters.bots));
    let policy = policy::read(root, known.as_ref());
    let restarts = restart::read(adapters.restarts, policy.tick);
    let exclusions = stops::exclusions(root, known.as_ref());
    let maintenance = stops::maintenance(root, known.as_ref());
    Some(Sections {
        policy,
        server: server?,
        journal: journal?,
        exclusions,
        maintenance,
        bots: adapters.bots,
        providers: adapters.providers,
        restarts,
    })
}

/// The repositories of all bots, with the builders of each.
fn labels(bots: &[Box<dyn Bot>]) -> BTreeMap<RepoName, Vec<BuilderName>> {
    let mut labels: BTreeMap<RepoName, Vec<BuilderName>> = BTreeMap::new();
    for (repo, builders) in bots.iter().flat_map(|bot| bot.repos()) {
        labels.entry(repo).or_default().extend(builders);
    }
    for builders in labels.values_mut() {
        builders.sort();
        builders.dedup();
    }
    labels
}

/// A file that cannot be looked at is there: reading it will tell what is wrong with it.
fn first_of(places: [PathBuf; 2]) -> Option<PathBuf> {
    places.into_iter().find(|place| {
        place.symlink_metadata().map_or_else(
            |error| !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
            |_| true,
        )
    })
}

fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // Opening a pipe must not wait for its writer.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("is not a regular file; name one".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!(
            "is larger than {FILE_MAX} bytes, more than any configuration needs"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..good).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8; write the file as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_taken_even_where_it_is_missing() {
        let path = Path::new("/nowhere/else.toml");
        assert_eq!(find(Some(path)), Ok(path.to_owned()));
    }

    #[test]
    fn the_first_place_that_is_there_is_taken() {
        let here = PathBuf::from("Cargo.toml");
        let nowhere = PathBuf::from("Cargo.toml/nothing");
        let missing = PathBuf::from("/nowhere/else.toml");
        let found = first_of([here.clone(), missing.clone()]);
        assert_eq!(found.as_ref(), Some(&here));
        assert_eq!(first_of([missing.clone(), here.clone()]), Some(here));
        assert_eq!(first_of([missing, nowhere]), None);
    }

    #[test]
    fn a_missing_configuration_says_where_it_was_looked_for_and_what_to_do() {
        let message = NotFound.to_string();
        for word in [PLACES[0], PLACES[1], "--config", "example"] {
            assert!(message.contains(word), "{word} in {message}");
        }
    }
}
