//! A stateful fake GitHub behind real HTTP on loopback.
//!
//! It keeps repositories, pull requests, refs, commits, comments and statuses,
//! answers the part of the REST API that merge bots and this program use, and
//! sends signed webhooks. [`FakeGithub`] is the handle through which a demo or a
//! test plays the people, and makes things go wrong.
//!
//! Reading order: `world` and `repository` (what there is), `answers` and
//! `webhooks` (how GitHub words it), `outbox` (how events leave), `routes` and
//! `server` (how requests come in), `fake` (the handle).

mod answers;
mod fake;
mod outbox;
mod repository;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod webhooks;
mod world;

pub use fake::FakeGithub;
pub use outbox::{Delivery, Fate, Times};
pub use repository::{Comment, Commit, Pull, Status};
pub use server::Request;
pub use world::Refusal;
