//! The durable record of what was seen and done, and the only maker of a [`Permit`].
//!
//! [`Journal`] writes: one SQLite file, every write in a transaction of its own that is on disk
//! when the call returns. [`Reader`] looks into it beside a running watchdog. Each write either is
//! on disk, whole, and returns `Ok`, or counts as never made. The records are a chain of checksums,
//! whose end a file beside it repeats: damage, and a lost tail, are seen before anything is acted on.

mod append;
mod begin;
mod chain;
mod clock;
mod error;
mod file;
mod head;
mod load;
mod lock;
mod prune;
mod reader;
mod row;
mod schema;
mod sqlite;
mod undo;
mod versions;

pub use error::{JournalError, JournalFailure};
pub use head::ACCEPT;
pub use load::Memory;
pub use prune::{PRUNED_MAX, WATCHED_KEPT};
pub use reader::{HISTORY_MAX, HistoryFilter, Reader};
pub use row::Stamped;
pub use sqlite::{Journal, Size};

use crate::model::{AttemptId, Intent, IntentId, Step};

/// Proof that an intent is on disk. It cannot be made elsewhere, copied, or used twice:
/// [`crate::bots::Bot::send`] takes it by value.
///
/// With a permit from the journal, a request is sent once:
///
/// ```
/// use ci_watchdog::{bots::Bot, journal::Permit};
///
/// async fn once(bot: &dyn Bot, permit: Permit) {
///     bot.send(permit).await;
/// }
/// ```
///
/// Sending consumes it:
///
/// ```compile_fail,E0382
/// use ci_watchdog::{bots::Bot, journal::Permit};
///
/// async fn twice(bot: &dyn Bot, permit: Permit) {
///     bot.send(permit).await;
///     bot.send(permit).await;
/// }
/// ```
///
/// It cannot be copied to be sent again:
///
/// ```compile_fail,E0599
/// use ci_watchdog::{bots::Bot, journal::Permit};
///
/// async fn twice(bot: &dyn Bot, permit: Permit) {
///     bot.send(permit.clone()).await;
///     bot.send(permit).await;
/// }
/// ```
///
/// Nobody but the journal makes one:
///
/// ```compile_fail,E0451
/// use ci_watchdog::journal::Permit;
/// use ci_watchdog::model::{Intent, IntentId};
///
/// fn forge(intent: Intent) -> Permit {
///     Permit { id: IntentId(1), intent }
/// }
/// ```
///
/// Nor does it come out of a text:
///
/// ```compile_fail,E0277
/// use ci_watchdog::journal::Permit;
///
/// fn forge(text: &str) -> Permit {
///     serde_json::from_str(text).unwrap()
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    id: IntentId,
    intent: Intent,
}

impl Permit {
    /// The intent's number.
    pub fn id(&self) -> IntentId {
        self.id
    }

    /// The attempt that it belongs to.
    pub fn attempt(&self) -> &AttemptId {
        &self.intent.attempt
    }

    /// The intent as it is on disk.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// The one request that it allows.
    pub fn step(&self) -> &Step {
        &self.intent.step
    }
}
