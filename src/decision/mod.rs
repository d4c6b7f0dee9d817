//! The pure core: what is dead, and may we act. No I/O, clock, async, randomness or `HashMap`.

mod core;
mod endings;
pub mod gates;
pub mod hand;
pub mod health;
pub mod history;
pub mod judge;
pub mod ledger;
pub mod plan;
pub mod policy;
pub mod queues;
pub mod restart;
#[cfg(test)]
mod samples;
pub mod tracked;
pub mod watched;
pub mod zones;

pub use self::core::{Core, Decision, Detected, Look, Setup};
