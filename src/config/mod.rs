//! Strict reading of the configuration file into a policy, a server, a journal and the adapters.

mod adapters;
mod journal;
mod load;
mod policy;
mod restart;
mod server;
mod stops;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::bots::{self, Bot};
use crate::decision::policy::Policy;
use crate::decision::restart::Restart;
use crate::model::BotName;
use crate::providers::{self, Provider};

pub use journal::JournalSettings;
pub use load::{Mistakes, NotFound, PLACES, find, load, load_with, read};
pub(crate) use policy::listed;
pub use server::{Server, Token};
pub use stops::{Exclusion, Maintenance};

/// Everything that the configuration file says. It never changes: a reload makes another one.
pub struct Config {
    /// The file, as it was named.
    pub path: PathBuf,
    /// The core's limits and durations; they were checked.
    pub policy: Policy,
    /// The HTTP server.
    pub server: Server,
    /// The journal.
    pub journal: JournalSettings,
    /// What is left alone always.
    pub exclusions: Vec<Exclusion>,
    /// What is left alone at set times.
    pub maintenance: Vec<Maintenance>,
    /// At least one; names are unique over bots, the GitHub behind each, and providers.
    pub bots: Vec<Box<dyn Bot>>,
    /// May be none; then every build stays unknown.
    pub providers: Vec<Box<dyn Provider>>,
    /// How bots are restarted that answer nothing; only those for which the operator wants it.
    pub restarts: BTreeMap<BotName, Restart>,
    /// What is allowed and doubtful, one line each with file, line and key; to be shown once.
    pub warnings: Vec<String>,
}

/// The kinds of bot and provider that a configuration can name.
#[derive(Clone, Copy)]
pub struct Kinds<'a> {
    /// The kinds of bot.
    pub bots: &'a [bots::Kind],
    /// The kinds of provider.
    pub providers: &'a [providers::Kind],
}

impl Kinds<'static> {
    /// Every kind that there is.
    pub const ALL: Self = Self {
        bots: bots::KINDS,
        providers: providers::KINDS,
    };
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bots: Vec<_> = self.bots.iter().map(|bot| bot.name()).collect();
        let providers: Vec<_> = self.providers.iter().map(|one| one.name()).collect();
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("policy", &self.policy)
            .field("server", &self.server)
            .field("journal", &self.journal)
            .field("exclusions", &self.exclusions)
            .field("maintenance", &self.maintenance)
            .field("bots", &bots)
            .field("providers", &providers)
            .field("restarts", &self.restarts)
            .field("warnings", &self.warnings)
            .finish()
    }
}
