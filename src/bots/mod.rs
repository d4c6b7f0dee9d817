//! The contract of a merge bot's adapter, and the kinds of bot that there are.

pub mod homu;
pub mod restart;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use url::Url;

use crate::journal::Permit;
use crate::keys::Keys;
use crate::model::{
    BotName, BotSnapshot, BuildKey, CiSystem, GithubState, Knock, Outcome, ProbeError, RemedyRow,
    RepoName, Sha, SourceName,
};
use crate::secret::Secret;

/// A future that an adapter's method returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A kind of bot that the configuration can name.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The word for it in the configuration.
    pub name: &'static str,
    /// Makes one from the rest of its table; `None` after having told a mistake. No network is used.
    /// It asks for every key that there can be, also after a mistake: the others are told as unknown.
    pub connect: fn(BotName, &mut Keys<'_>) -> Option<Box<dyn Bot>>,
}

/// A CI system of one repository, as the bot's own configuration has it: advice for who reads it.
#[derive(Clone, Debug)]
pub struct KnownCi {
    /// What it is.
    pub system: CiSystem,
    /// The file and the key in it that name the system, or would, for people.
    pub place: String,
    /// Its address, where one is given that can be asked.
    pub url: Option<Url>,
    /// The bot's user name there and its password.
    pub login: Option<(String, Secret)>,
    /// The bot's token there.
    pub token: Option<Secret>,
}

/// Every kind of bot that there is.
pub const KINDS: &[Kind] = &[homu::KIND];

/// A merge bot: it reports what it waits for, and takes remedies. It has no opinion.
pub trait Bot: Send + Sync {
    /// The name that the configuration gives it.
    fn name(&self) -> &BotName;

    /// The kind, for labels: `homu`.
    fn kind(&self) -> &'static str;

    /// The name under which the GitHub behind this bot is a source of its own.
    fn github(&self) -> SourceName;

    /// The repositories and builders that it serves, from its configuration; labels and
    /// configuration checks use them before the first look.
    fn repos(&self) -> BTreeMap<RepoName, Vec<crate::model::BuilderName>>;

    /// The bot's own timeout for a pending build, where it has one, as far as is known now.
    fn own_timeout(&self, repo: &RepoName) -> Option<std::time::Duration>;

    /// The CI systems of its repositories, as far as its configuration tells of them.
    fn known_ci(&self) -> Vec<KnownCi> {
        Vec::new()
    }

    /// Looks at everything that the bot says of itself, complete or an error.
    ///
    /// `remembered` are the merge SHAs that earlier looks saw for builds, from the journal; an
    /// adapter uses them where the bot no longer tells.
    ///
    /// # Errors
    ///
    /// Any failed or partial look at the bot itself. A failed look at the GitHub behind it is part
    /// of the snapshot.
    fn observe<'a>(
        &'a self,
        remembered: &'a BTreeMap<BuildKey, Sha>,
    ) -> BoxFuture<'a, Result<BotSnapshot, ProbeError>>;

    /// Asks the bot one cheap thing, to which any answer will do, and the GitHub behind it another: is
    /// it wedged, or only too slow for a whole look, or waiting for GitHub? Asked only where it has been
    /// silent for so long that its restart is near. A kind of bot that cannot tell is never restarted.
    fn knock(&self) -> BoxFuture<'_, Knock> {
        Box::pin(async {
            Knock {
                bot: Ok(()),
                github: GithubState::NotConfigured,
            }
        })
    }

    /// The requests that it understands, each with the effect that proves it, as far as is known now.
    fn rows(&self) -> &[RemedyRow];

    /// Sends the one request that the permit allows, once, and says what became of the sending.
    /// Checks the request's precondition against the bot first; an unmet one is [`Outcome::NotSent`].
    fn send<'a>(&'a self, permit: Permit) -> BoxFuture<'a, Outcome>;
}
