//! Fakes of the outside world, for `ci-watchdog demo` and the tests, and the demo's story.
//!
//! Reading order: [`town`] (the three fakes and how they are joined), [`github`], [`buildbot`] and
//! [`homu`] (each fake), `watchdog` (the real one beside them), `stage` and `story` (what is
//! played), `summary` (what it came to), `play` (all of it).

pub mod buildbot;
mod client;
pub mod github;
pub mod homu;
mod play;
pub mod requests;
mod sent;
mod server;
mod stage;
mod story;
mod summary;
pub mod town;
mod watchdog;

pub use play::{DemoOptions, run};
pub use stage::Tell;
pub use summary::{Row, Summary};
pub use watchdog::{Ended, Start};
