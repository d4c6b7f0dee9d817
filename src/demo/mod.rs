//! Fakes of the outside world, for `ci-watchdog demo` and the tests.

pub mod buildbot;
mod client;
pub mod github;
pub mod homu;
pub mod requests;
mod server;
