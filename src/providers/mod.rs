//! The contract of a provider's adapter, and the kinds of provider that there are.

pub mod buildbot;

use std::future::Future;
use std::pin::Pin;

use url::Url;

use crate::keys::Keys;
use crate::model::{ProbeError, ProviderName, ProviderSnapshot, Question};
use crate::secret::Secret;

/// A future that an adapter's method returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A kind of provider that the configuration can name.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The word for it in the configuration.
    pub name: &'static str,
    /// Makes one from the rest of its table, and from what the bots know of systems of its kind;
    /// `None` after having told a mistake, or where what it lacks a bot might have known that was
    /// refused itself. No network is used. It asks for every key that there can be, also after a
    /// mistake: the others are told as unknown.
    pub connect: fn(ProviderName, &mut Keys<'_>, &Advice) -> Option<Box<dyn Provider>>,
}

/// What the bots' own configurations tell of systems of one kind.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    /// The systems with an address, each address once.
    pub systems: Vec<Advised>,
    /// Where the systems without one would have theirs: file and key.
    pub without: Vec<String>,
    /// Whether a bot was refused, so that there may be more.
    pub incomplete: bool,
}

/// A system at one address.
#[derive(Clone, Debug)]
pub struct Advised {
    /// The address.
    pub url: Url,
    /// A user name there and its password.
    pub login: Option<(String, Secret)>,
    /// Where the address is given: file and key.
    pub places: Vec<String>,
}

impl Advised {
    /// Whether it has this address; a slash at the end makes no other one.
    pub fn is_at(&self, url: &Url) -> bool {
        let plain = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        plain(&self.url) == plain(url)
    }
}

/// Every kind of provider that there is.
pub const KINDS: &[Kind] = &[buildbot::KIND];

/// A CI system. It is read; its work is never started, stopped or cancelled.
pub trait Provider: Send + Sync {
    /// The name that the configuration gives it.
    fn name(&self) -> &ProviderName;

    /// The kind, for labels and for matching with what a bot waits for: `buildbot`.
    fn kind(&self) -> &'static str;

    /// Its base URL, for matching with the bot's own configuration and for people.
    fn url(&self) -> &str;

    /// Looks at its workers and at all runs that serve the questions, complete or an error.
    ///
    /// # Errors
    ///
    /// Any failed or partial look.
    fn observe<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<ProviderSnapshot, ProbeError>>;
}
