//! `ci-watchdog` finds the pending builds of a merge bot that no builder is working on any more,
//! and repairs exactly what was lost.
//!
//! Reading order: [`model`] (the nouns), [`decision`] (the pure core: what is dead, and may we
//! act), [`report`] (what one tick found and did), [`journal`] (the durable record, and the only
//! maker of a permit to act), [`review`] (what would have been done against what became of it),
//! [`http`] (the one client), [`bots`] and [`providers`] (the adapters:
//! facts and requests, no opinion), [`config`], [`app`] (the one loop), [`metrics`] and [`web`]
//! (views of a report), [`cli`]. Each may use what stands before it in this list; a test enforces
//! that.

#![forbid(unsafe_code)]

pub mod app;
pub mod bots;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decision;
pub mod demo;
pub mod http;
pub mod journal;
pub mod keys;
pub mod metrics;
pub mod model;
pub mod providers;
pub mod report;
pub mod review;
pub mod secret;
pub mod web;
