//! What the homu adapter makes of the databases and pages of four homus, of the GitHub behind them,
//! and of answers that are none; and what it sends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what the tests share may fail them, as the tests themselves may"
)]

#[path = "contracts/homu/acts.rs"]
mod acts;
#[path = "contracts/homu/adapter.rs"]
mod adapter;
#[path = "contracts/homu/busy.rs"]
mod busy;
#[path = "contracts/homu/configuration.rs"]
mod configuration;
#[path = "contracts/homu/faults.rs"]
mod faults;
#[path = "contracts/homu/looks.rs"]
mod looks;
#[path = "contracts/homu/server.rs"]
mod server;
#[path = "contracts/homu/world.rs"]
mod world;
