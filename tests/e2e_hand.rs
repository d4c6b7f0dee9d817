//! What people do by hand, on a real homu 0.2.0 and a real Buildbot 4.3: by the command line, with the
//! token, verified by its effect, journalled with their name.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use std::process::Output;

use ci_watchdog::demo::github::Times;
use stack::Stack;
use stack::config::StackConfig;
use stack::ending::{release, retry};
use stack::jobs::Order;
use stack::message::{Pattern, Sender};
use stack::watchdog::WatchdogSettings;

/// Runs a subcommand as alice, who means it.
async fn alice(stack: &Stack, arguments: &[&str]) -> Output {
    let named = [arguments, &["--yes", "--as", "alice"]].concat();
    stack.watchdog.run(&named).await
}

/// What a subcommand that must succeed says.
#[track_caller]
fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    out
}

/// Why a subcommand that must fail was refused.
#[track_caller]
fn refused(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{err}");
    err
}

/// Waits until alpha#1 shows this verdict.
async fn wait_verdict(stack: &Stack, verdict: &str) {
    stack
        .wait_until(&format!("alpha#1 to be {verdict}"), async || {
            let Ok(builds) = stack.watchdog.get_json("/api/v1/builds").await else {
                return false;
            };
            let mut builds = builds.as_array().unwrap().iter();
            builds.any(|build| build["pull"] == 1 && build["verdict"] == verdict)
        })
        .await;
}

#[tokio::test]
async fn a_lost_push_is_retried_by_hand_while_paused_and_observing() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack
        .start_watchdog(&WatchdogSettings::quick().observing())
        .await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    wait_verdict(&stack, "no_show").await;
    let paused = said(&alice(&stack, &["pause", "--reason", "the CI moves"]).await);
    assert!(paused.contains("everything: paused"), "{paused}");
    let page = stack.watchdog.get("/").await.unwrap();
    assert!(page.contains("the CI moves"), "the page tells of it");

    let dry = said(&alice(&stack, &["retry", "alpha#1", "--dry-run"]).await);
    assert!(dry.contains("release_slot, then retry"), "{dry}");
    assert!(stack.told().is_empty(), "a dry run tells homu nothing");
    let done = said(&alice(&stack, &["retry", "alpha#1"]).await);
    assert!(done.contains("its effect was seen"), "{done}");
    stack.wait_merged("alpha", 1).await;
    let merged = stack.branch("alpha", "master").unwrap();
    assert_ne!(merged, lost);
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 1)],
            &[(&lost, 0), (&merged, 2)],
        )
        .await;
    let history = said(&stack.watchdog.run(&["history"]).await);
    for text in [
        "retry by alice because no_show",
        "paused",
        "by alice: the CI moves",
    ] {
        assert!(history.contains(text), "{text}: {history}");
    }
    let page = stack.watchdog.get("/").await.unwrap();
    assert!(page.contains("by alice"), "the page tells who");
}

#[tokio::test]
async fn a_live_build_is_reset_only_where_that_is_meant_and_its_late_results_change_nothing() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set("alpha-mac", Order::Chatter);
    stack
        .start_watchdog(&WatchdogSettings::quick().observing())
        .await;
    stack.approve("alpha", 1).await;
    let old = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-mac", &old).await;
    // The other builder is green: left alone, homu would build only this one again, on the same commit.
    stack
        .wait_until("alpha-linux to be green in homu", async || {
            let stored = stack.stored("alpha", 1).unwrap();
            let linux = stored.results.get("alpha-linux");
            linux.is_some_and(|result| result.green == Some(true))
        })
        .await;
    wait_verdict(&stack, "alive").await;
    let why = refused(&alice(&stack, &["reset", "alpha#1"]).await);
    assert!(why.contains("alpha-mac is alive"), "{why}");
    assert!(why.contains("--even-if-alive"), "{why}");
    assert!(stack.told().is_empty());

    let done = said(&alice(&stack, &["reset", "alpha#1", "--even-if-alive"]).await);
    assert!(done.contains("WARNING"), "{done}");
    assert!(done.contains("its effect was seen"), "{done}");
    let new = stack.wait_pending("alpha", 1, &[&old]).await;
    stack.jobs.set("alpha-mac", Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), new);
    let forget = format!("start alpha-linux {old}");
    stack
        .check_the_end(
            &[release(&old), forget, retry("alpha", 1)],
            &[(&old, 2), (&new, 2)],
        )
        .await;
}

#[tokio::test]
async fn all_that_is_pending_is_reset_and_the_queue_goes_on_by_itself() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack
        .start_watchdog(&WatchdogSettings::quick().observing())
        .await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    wait_verdict(&stack, "no_show").await;
    let done = said(&alice(&stack, &["reset", "--all-pending", "alpha"]).await);
    assert!(done.contains("alpha#1: its effect was seen"), "{done}");
    stack.wait_merged("alpha", 1).await;
    let merged = stack.branch("alpha", "master").unwrap();
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 1)],
            &[(&lost, 0), (&merged, 2)],
        )
        .await;
    let why = refused(&alice(&stack, &["reset", "--all-pending", "alpha"]).await);
    assert!(why.contains("nothing is pending"), "{why}");
}

#[tokio::test]
async fn the_start_slot_is_released_by_hand_and_the_other_repository_starts() {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.jobs.set_all(Order::Chatter);
    stack
        .bridge
        .drop_every(Pattern::started().from(Sender::Reporter));
    stack
        .start_watchdog(&WatchdogSettings::quick().observing())
        .await;
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    stack.wait_running("alpha-mac", &sha).await;
    stack.approve("beta", 1).await;
    stack
        .wait_until("both starts to be lost", async || {
            stack.bridge.matching(&Pattern::started().at(&sha)).len() >= 2
        })
        .await;
    stack.bridge.heal();
    wait_verdict(&stack, "alive").await;
    let done = said(&alice(&stack, &["release-slot"]).await);
    assert!(done.contains("release_slot accepted"), "{done}");
    let next = stack.wait_pending("beta", 1, &[]).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    stack
        .check_the_end(&[release(&sha)], &[(&sha, 2), (&next, 2)])
        .await;
}

#[tokio::test]
async fn a_pause_holds_what_would_be_done_over_a_restart_until_it_ends() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    let settings = WatchdogSettings::quick();
    stack.start_watchdog(&settings).await;
    let pause = [
        "pause",
        "--repo",
        "alpha",
        "--for",
        "1h",
        "--reason",
        "the CI moves",
    ];
    let paused = said(&alice(&stack, &pause).await);
    assert!(paused.contains("alpha: paused until"), "{paused}");
    stack.kill9_watchdog();
    stack.start_watchdog(&settings).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    stack
        .wait_until("alpha#1 to be held by the pause", async || {
            let Ok(builds) = stack.watchdog.get_json("/api/v1/builds").await else {
                return false;
            };
            let mut builds = builds.as_array().unwrap().iter();
            builds.any(|build| build["hold"]["gate"] == "paused")
        })
        .await;
    stack.wait_ticks(5).await;
    assert!(stack.told().is_empty());
    let status = said(&stack.watchdog.run(&["status"]).await);
    assert!(status.contains("PAUSED alpha by alice"), "{status}");
    said(&alice(&stack, &["resume"]).await);
    stack.wait_merged("alpha", 1).await;
    let merged = stack.branch("alpha", "master").unwrap();
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 1)],
            &[(&lost, 0), (&merged, 2)],
        )
        .await;
}
