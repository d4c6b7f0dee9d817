//! A small fake of a Buildbot 4 master and its workers behind real HTTP on loopback.
//!
//! It answers the part of REST v2 that this program reads, takes pushes on `/change_hook/base`,
//! executes runs by a script in real time, and tells homu of their starts and ends by packets of
//! Buildbot 0.8. [`FakeBuildbot`] freezes and cuts off workers, loses messages, and takes the
//! master down. How each of these looks from outside is as it was seen on Buildbot 4.3.0.
//!
//! Reading order: `world` (what there is), `execution` (how time passes in it), `rows` and `query`
//! (how the API words it), `routes` (what is asked), `reporter` (what homu is told), `fake` (the
//! handle).

mod execution;
mod fake;
mod query;
mod reporter;
mod routes;
mod rows;
mod world;

pub use fake::{BuilderOptions, FakeBuildbot, RunSeen, StepScript};
pub use reporter::{Fate, Message, News};
pub use world::{CANCELLED, EXCEPTION, FAILURE, RETRY, SKIPPED, SUCCESS, WARNINGS};
