//! What `report` says after a bad day that was only observed, on a real homu 0.2.0 and a real
//! Buildbot 4.3.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use ci_watchdog::demo::github::Times;
use serde_json::Value;
use stack::Stack;
use stack::config::{BOT, REVIEWER, StackConfig};
use stack::jobs::Order;
use stack::patience;
use stack::watchdog::WatchdogSettings;

async fn report(stack: &Stack) -> Value {
    let output = stack.watchdog.run(&["report", "--json"]).await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The case of the first generation of a pull request's build, once it is of this class.
async fn wait_case(stack: &Stack, pull: u64, class: &str) -> Value {
    let what = format!("alpha#{pull} to be told as {class}");
    patience(&what, async || {
        let report = report(stack).await;
        let mut cases = report["cases"].as_array().unwrap().iter();
        cases
            .find(|case| {
                case["target"] == format!("homu:alpha:{pull}:auto:1") && case["class"] == class
            })
            .cloned()
    })
    .await
}

/// A person wants a pull request built again, by a comment.
fn retry(stack: &Stack, pull: u64) {
    stack.say("alpha", pull, REVIEWER, &format!("@{BOT} retry"));
}

#[tokio::test]
async fn what_was_found_is_told_against_what_people_did() {
    let mut config = StackConfig::one_repository().with_spare_worker("linux-2", "linux");
    config.repositories[0].pulls = 3;
    let stack = Stack::start(config).await;
    stack
        .start_watchdog(&WatchdogSettings::quick().observing())
        .await;

    // A lost push, which a person then retries and frees the start slot of.
    stack.github.drop_pushes("auto", Times::Once);
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    let open = wait_case(&stack, 1, "open").await;
    assert_eq!(open["verdict"], "no_show");
    assert_eq!(open["remedy"], "rerun");
    retry(&stack, 1);
    let hit = wait_case(&stack, 1, "hit").await;
    assert_eq!(hit["people"]["what"], "rerun");
    assert_eq!(hit["end"], "rerun");
    assert_eq!(hit["found"], open["found"]);
    stack
        .send_packet("buildStarted", "nobody", &lost, &[])
        .await;
    stack.wait_merged("alpha", 1).await;

    // A run that is silent beyond its deadline, and then goes on.
    stack.jobs.set("alpha-linux", Order::Silent);
    stack.approve("alpha", 2).await;
    let open = wait_case(&stack, 2, "open").await;
    assert_eq!(open["verdict"], "stalled");
    stack.jobs.set("alpha-linux", Order::Green);
    stack.wait_merged("alpha", 2).await;
    let alarm = wait_case(&stack, 2, "false_alarm").await;
    assert_eq!(alarm["end"], "green");
    assert_eq!(alarm["people"], Value::Null);

    // A live build, which a person would rather have anew; with a part of it green, homu would ask
    // Buildbot for the other part only.
    for builder in ["alpha-linux", "alpha-mac"] {
        stack.jobs.set(builder, Order::Chatter);
    }
    stack.approve("alpha", 3).await;
    let live = stack.wait_pending("alpha", 3, &[]).await;
    stack.wait_running("alpha-linux", &live).await;
    stack.wait_running("alpha-mac", &live).await;
    stack
        .wait_until("alpha#3 to be alive", async || {
            let Ok(builds) = stack.watchdog.get_json("/api/v1/builds").await else {
                return false;
            };
            let mut builds = builds.as_array().unwrap().iter();
            builds.any(|build| build["pull"] == 3 && build["verdict"] == "alive")
        })
        .await;
    retry(&stack, 3);
    let miss = wait_case(&stack, 3, "miss").await;
    assert_eq!(miss["verdict"], "alive");
    assert_eq!(miss["people"]["what"], "rerun");
    for builder in ["alpha-linux", "alpha-mac"] {
        stack.jobs.set(builder, Order::Green);
    }
    stack.wait_merged("alpha", 3).await;

    assert!(stack.told().is_empty(), "it only observed");
    let report = report(&stack).await;
    let totals = &report["totals"];
    assert_eq!(totals["hits"], 1);
    assert_eq!(totals["false_alarms"], 1);
    assert_eq!(totals["misses"], 1);
    assert_eq!(totals["misses_of_live_builds"], 1);
    assert_eq!(totals["findings"]["rerun"], 2);
    assert_eq!(totals["open"], 0);
    assert_eq!(totals["saved_seconds"], hit["seconds"]);
    // The journal tells the same without its watchdog.
    stack.watchdog.stop().await;
    let after = self::report(&stack).await;
    assert_eq!(after["totals"], report["totals"]);
    assert_eq!(after["cases"], report["cases"]);
    let told = stack.watchdog.run(&["report"]).await;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("too little to judge by"), "{told}");
}
