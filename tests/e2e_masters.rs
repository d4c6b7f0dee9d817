//! Buildbot masters that are stopped, killed and frozen in the middle of runs, on a real homu 0.2.0
//! and a real Buildbot 4.3: nothing is sent while they are silent, and what they lost is repaired as
//! they tell of it when they are back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use serde_json::Value;
use stack::Stack;
use stack::account::{brief, evidence, verdict_on};
use stack::buildbot::{CANCELLED, RETRY, Run, SUCCESS};
use stack::config::StackConfig;
use stack::ending::{release, retry};
use stack::jobs::Order;
use stack::message::{Pattern, Sender};
use stack::watchdog::WatchdogSettings;

/// Longer than any deadline after which something counts as dead in these tests.
const LONG: u64 = 9;

/// The series that says whether Buildbot answers; the alert of a silent provider reads it.
const UP: &str = "ci_watchdog_source_up{kind=\"buildbot\",role=\"provider\",source=\"buildbot\"}";

/// The series that says whether a builder of alpha needs somebody; the alert of stuck builds reads it.
fn stuck(builder: &str) -> String {
    format!(
        "ci_watchdog_stuck_builds{{bot=\"homu\",builder={builder:?},provider=\"buildbot\",\
         repo=\"alpha\"}}"
    )
}

/// Waits until a series has a value.
async fn wait_series(stack: &Stack, series: &str, value: &str) {
    stack
        .wait_until(&format!("{series} to be {value}"), async || {
            stack.watchdog.metric(series).await == value
        })
        .await;
}

/// alpha#1 and then beta#1 at work on both of their builders, as homu knows, and a watchdog beside
/// them; the commits.
async fn two_at_work() -> (Stack, [String; 2]) {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.jobs.set_all(Order::Chatter);
    let settings = WatchdogSettings::unhurried().set("timeouts.effect", "\"30s\"");
    stack.start_watchdog(&settings).await;
    let mut shas = vec![];
    for label in ["alpha", "beta"] {
        stack.approve(label, 1).await;
        let sha = stack.wait_pending(label, 1, &[]).await;
        for platform in ["linux", "mac"] {
            stack
                .wait_running(&format!("{label}-{platform}"), &sha)
                .await;
        }
        stack
            .wait_until("homu to hear both starts", async || {
                stack.stored(label, 1).unwrap().results.len() == 2
            })
            .await;
        stack.wait_verdict(label, 1, "alive").await;
        shas.push(sha);
    }
    (stack, shas.try_into().unwrap())
}

/// Both are unknown because Buildbot is silent, for long, and nothing is sent.
async fn nothing_is_sent_while_unknown(stack: &Stack) {
    for label in ["alpha", "beta"] {
        let build = stack.wait_verdict(label, 1, "unknown").await;
        for builder in [format!("{label}-linux"), format!("{label}-mac")] {
            assert_eq!(verdict_on(&build, &builder), "unknown");
        }
        assert!(
            evidence(&build).contains("buildbot is silent for"),
            "{build:#}"
        );
    }
    wait_series(stack, UP, "0").await;
    stack.look_on(LONG).await;
    for label in ["alpha", "beta"] {
        let build = stack.pending_build(label, 1).await.unwrap();
        assert_eq!(build["verdict"], "unknown", "{build:#}");
        assert_eq!(build["hold"], Value::Null, "nothing is wanted: {build:#}");
    }
    wait_series(stack, &stuck("alpha-linux"), "1").await;
    assert_eq!(stack.told(), [] as [&str; 0]);
}

/// The master is gone: connections to it are refused.
fn gone(stack: &Stack) {
    stack.buildbot_bridge.close_door();
}

/// It is there again, and so are its workers.
async fn comes_back(stack: &Stack) {
    stack.buildbot.start_master().await;
    stack.buildbot_bridge.lead_to(&stack.buildbot.url()).await;
}

fn ends(runs: &[Run]) -> Vec<i64> {
    let mut ends: Vec<i64> = runs.iter().map(|run| run.results.unwrap()).collect();
    ends.sort_unstable();
    ends
}

#[tokio::test]
async fn what_a_stopped_master_cancelled_is_built_again_oldest_first_and_one_at_a_time() {
    let (stack, [alpha, beta]) = two_at_work().await;
    stack.buildbot.stop_master().await;
    gone(&stack);
    nothing_is_sent_while_unknown(&stack).await;

    // The first retry is on its way for long.
    let mut retried = stack
        .bridge
        .hold_next(Pattern::comment().from(Sender::Watchdog));
    stack.jobs.set_all(Order::Green);
    comes_back(&stack).await;
    retried.reached().await;
    stack.wait_held("beta", 1, "rerun_in_flight").await;
    stack.wait_ticks(5).await;
    assert_eq!(stack.told(), [release(&alpha)]);
    retried.release();
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    wait_series(&stack, UP, "1").await;
    let next = ["alpha", "beta"].map(|label| stack.branch(label, "master").unwrap());
    stack
        .check_the_end(
            &[
                release(&alpha),
                retry("alpha", 1),
                release(&beta),
                retry("beta", 1),
            ],
            &[(&alpha, 2), (&beta, 2), (&next[0], 2), (&next[1], 2)],
        )
        .await;
    for sha in [&alpha, &beta] {
        assert_eq!(ends(&stack.buildbot.runs(sha).await), [CANCELLED; 2]);
    }
    let attempts = stack.attempts().await;
    let done: Vec<String> = attempts.iter().map(brief).collect();
    assert_eq!(
        done,
        ["unanswered", "accepted"].map(|outcome| format!(
            "worker_lost: release_slot accepted done, retry {outcome} effect"
        ))
    );
    for attempt in &attempts {
        let facts = attempt["evidence"].to_string();
        assert!(facts.contains("ended as cancelled"), "{attempt:#}");
    }
}

#[tokio::test]
async fn what_a_killed_master_repeats_and_a_frozen_one_tells_late_needs_nothing() {
    let (stack, [alpha, beta]) = two_at_work().await;

    // Killed: it repeats by itself what it had under way.
    let mut lost = vec![];
    for (label, sha) in [("alpha", &alpha), ("beta", &beta)] {
        for platform in ["linux", "mac"] {
            lost.push(
                stack
                    .wait_running(&format!("{label}-{platform}"), sha)
                    .await,
            );
        }
    }
    stack.buildbot.kill9_master();
    gone(&stack);
    nothing_is_sent_while_unknown(&stack).await;
    comes_back(&stack).await;
    for run in &lost {
        stack.wait_running_after(run).await;
    }
    for label in ["alpha", "beta"] {
        stack.wait_verdict(label, 1, "alive").await;
    }
    wait_series(&stack, &stuck("alpha-linux"), "0").await;

    // Frozen: it takes every connection and answers none, while the runs end.
    stack.buildbot.freeze_master();
    stack.jobs.set_all(Order::Green);
    nothing_is_sent_while_unknown(&stack).await;
    for label in ["alpha", "beta"] {
        let build = stack.pending_build(label, 1).await.unwrap();
        let facts = evidence(&build);
        assert!(facts.contains("(timeout: "), "{facts}");
    }
    assert_eq!(stack.bridge.matching(&Pattern::finished()).len(), 0);
    stack.buildbot.thaw_master();
    for (label, sha) in [("alpha", &alpha), ("beta", &beta)] {
        stack.wait_merged(label, 1).await;
        assert_eq!(&stack.branch(label, "master").unwrap(), sha);
    }
    stack.check_the_end(&[], &[(&alpha, 4), (&beta, 4)]).await;
    for sha in [&alpha, &beta] {
        let ends = ends(&stack.buildbot.runs(sha).await);
        assert_eq!(ends, [SUCCESS, SUCCESS, RETRY, RETRY]);
    }
}
