//! The contract of a provider's adapter, and the kinds of provider that there are.

pub mod buildbot;

use std::future::Future;
use std::pin::Pin;

use crate::keys::Keys;
use crate::model::{ProbeError, ProviderName, ProviderSnapshot, Question};

/// A future that an adapter's method returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A kind of provider that the configuration can name.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The word for it in the configuration.
    pub name: &'static str,
    /// Makes one from the rest of its table; `None` after having told a mistake. No network is used.
    pub connect: fn(ProviderName, &mut Keys<'_>) -> Option<Box<dyn Provider>>,
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
