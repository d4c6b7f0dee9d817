//! What an operator orders: to leave something alone, and to go on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BuilderName, Moment, RepoName};

/// An operator's order, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum Order {
    /// Leave something alone.
    Stop(Stop),
    /// Go on.
    Go {
        /// Which kind of stop ends.
        kind: StopKind,
        /// The stop of exactly this scope; `None`: every one.
        scope: Option<Scope>,
        /// When, in watched time.
        at: Moment,
        /// Who said so.
        by: String,
    },
}

impl Order {
    /// When it was given, in watched time.
    pub const fn at(&self) -> Moment {
        match self {
            Self::Stop(stop) => stop.at,
            Self::Go { at, .. } => *at,
        }
    }
}

/// The ways to be left alone. Neither binds what people ask for by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// For a while: nothing is sent.
    Pause,
    /// Until further notice: not the watchdog's business.
    Exclusion,
}

impl StopKind {
    /// The word for it: `paused`, `excluded`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Exclusion => "excluded",
        }
    }
}

/// Something that is left alone, why, and by whose word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which way.
    pub kind: StopKind,
    /// What.
    pub scope: Scope,
    /// Why, in a few words.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// When, in watched time.
    pub at: Moment,
    /// When it ends by itself, in watched time; `None`: never.
    pub until: Option<Moment>,
}

impl Stop {
    /// Whether it is in force.
    pub fn holds_at(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// What a stop is for: everything, or all that fits what is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// One repository, by its label in the bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoName>,
    /// One pull request of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<u64>,
    /// One builder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<BuilderName>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.repo, self.pull) {
            (None, None) if self.builder.is_none() => return f.write_str("everything"),
            (None, _) => {}
            (Some(repo), None) => write!(f, "{repo}")?,
            (Some(repo), Some(pull)) => write!(f, "{repo}#{pull}")?,
        }
        match (&self.repo, &self.builder) {
            (_, None) => Ok(()),
            (None, Some(builder)) => write!(f, "builder {builder}"),
            (Some(_), Some(builder)) => write!(f, "/{builder}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_told_by_what_it_names() {
        let scope = |repo: Option<&str>, pull, builder: Option<&str>| {
            let repo = repo.map(RepoName::new);
            let builder = builder.map(BuilderName::new);
            Scope {
                repo,
                pull,
                builder,
            }
            .to_string()
        };
        assert_eq!(scope(None, None, None), "everything");
        assert_eq!(scope(Some("servo"), None, None), "servo");
        assert_eq!(scope(Some("servo"), Some(7), None), "servo#7");
        assert_eq!(scope(None, None, Some("mac")), "builder mac");
        assert_eq!(scope(Some("servo"), None, Some("mac")), "servo/mac");
    }
}
