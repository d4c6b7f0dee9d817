//! A small fake of homu 0.2.0 behind real HTTP on loopback, with its faults.
//!
//! It keeps its state in memory and in `main.db` with 0.2.0's tables, shows the same queue page,
//! takes GitHub's webhooks and Buildbot's packets, and talks to a GitHub over HTTP. The one start
//! slot is a single cell in memory, and a start while it is held returns without a word, as in
//! `start_build` of homu's `main.py`. Left out: Travis, rollups, `force`, builds that were
//! interrupted, and the look at GitHub at start: it begins with no pull request.
//!
//! Reading order: `config` (what it is told), `pull` and `database` (what it knows), `queue` (what
//! it starts), `commands`, `events` and `packets` (what it hears), `page` (what it shows), `fake`
//! (the handle).

mod commands;
mod config;
mod database;
mod events;
mod fake;
mod github;
mod packets;
mod page;
mod pull;
mod queue;

pub use config::{HomuOptions, RepoOptions};
pub use fake::{FakeHomu, Retried};
pub use pull::{BuildResult, PullState, Status};
pub use queue::short;
