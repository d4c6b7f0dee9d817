//! The names of bots, providers, repositories, builders, workers, runs and commits.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a name as it was read; nothing is changed or checked.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as it was read.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A merge bot, as the configuration calls it.
    BotName
}
name! {
    /// A CI system that runs builds, as the configuration calls it.
    ProviderName
}
name! {
    /// A repository by its label in the bot (homu: the key under `[repo.…]`), not `owner/name`.
    RepoName
}
name! {
    /// A named job that a build must pass.
    BuilderName
}
name! {
    /// A machine that executes runs, as its provider calls it.
    WorkerName
}
name! {
    /// A run's name at its provider; for Buildbot the build request's number, because a retried
    /// request keeps it while every try is a new build.
    RunId
}
name! {
    /// A full commit hash in lower-case hexadecimal.
    Sha
}
name! {
    /// Anything that is probed: a bot, a provider, or the GitHub that stands behind a bot.
    SourceName
}

impl Sha {
    /// The first seven digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..7).unwrap_or(&self.0)
    }
}
