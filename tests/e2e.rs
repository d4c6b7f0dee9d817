//! The watchdog beside a real homu 0.2.0 and a real Buildbot 4.3: what gets stuck gets going again,
//! with the smallest repair, and with no hand on it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use std::io::Write as _;
use std::process::{Command, Stdio};

use ci_watchdog::demo::github::Times;
use serde_json::Value;
use stack::bridge::{Exchange, Passage};
use stack::config::StackConfig;
use stack::jobs::Order;
use stack::message::{Message, Pattern, Sender};
use stack::watchdog::WatchdogSettings;
use stack::{Stack, patience, tools};

/// What the watchdog told homu, in short words, oldest first.
fn told(stack: &Stack) -> Vec<String> {
    stack.watchdog_requests().iter().map(word).collect()
}

fn word(exchange: &Exchange) -> String {
    let words: Vec<String> = exchange
        .messages
        .iter()
        .map(|message| match message {
            Message::Started { builder, revision } => {
                assert_eq!(
                    builder, "ci-watchdog",
                    "released under a name that nobody has"
                );
                format!("release {revision}")
            }
            Message::Finished {
                builder, revision, ..
            } => format!("result {builder} {revision}"),
            Message::Comment { pull, body, .. } => {
                let command = body.split_whitespace().last().unwrap_or_default();
                format!("{command} #{pull}")
            }
            Message::Pull { pull, action, .. } => format!("{action} #{pull}"),
            Message::Push { .. } | Message::Read | Message::Other => "?".to_owned(),
        })
        .collect();
    words.join(" + ")
}

/// How many of the watchdog's retries homu saw.
fn retries_seen(stack: &Stack) -> usize {
    let commands = stack
        .bridge
        .matching(&Pattern::comment().from(Sender::Watchdog).saying("retry"));
    commands
        .iter()
        .filter(|exchange| match exchange.passage {
            Passage::Answered(_) | Passage::AnswerLost(_) => true,
            Passage::Dropped | Passage::Replaced(_) | Passage::Unreachable => false,
        })
        .count()
}

async fn builds(stack: &Stack) -> Vec<Value> {
    match stack.watchdog.get_json("/api/v1/builds").await {
        Ok(Value::Array(builds)) => builds,
        Ok(other) => panic!("not a list: {other}"),
        // It may be starting.
        Err(_) => Vec::new(),
    }
}

async fn build(stack: &Stack, repo: &str, pull: u64) -> Option<Value> {
    builds(stack)
        .await
        .into_iter()
        .find(|build| build["repo"] == repo && build["pull"] == pull)
}

/// What holds at the end of every case: the metrics parse, nothing was asked of Buildbot, and no
/// command but `retry` was ever sent.
async fn check_the_end(stack: &Stack) {
    let metrics = stack.watchdog.get("/metrics").await.unwrap();
    let mut promtool = Command::new(tools::prometheus_tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "promtool: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(stack.watchdog_orders_to_buildbot().is_empty());
    for exchange in stack.watchdog_requests() {
        for message in &exchange.messages {
            if let Message::Comment { body, .. } = message {
                assert!(body.ends_with("retry") || body.ends_with("p="), "{body:?}");
            }
        }
    }
}

#[tokio::test]
async fn case_1_a_lost_start_of_a_live_run_frees_the_slot_and_retries_nothing() {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.jobs.set_all(Order::Chatter);
    stack
        .bridge
        .drop_every(Pattern::started().from(Sender::Reporter));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    stack.approve("beta", 1).await;
    stack
        .wait_until("both starts to be lost", async || {
            stack.bridge.matching(&Pattern::started().at(&sha)).len() >= 2
        })
        .await;
    stack.bridge.heal();

    // The watchdog lets the other repository start.
    stack.wait_pending("beta", 1, &[]).await;
    // homu starts it before it answers, and the bridge records the answered request.
    stack
        .wait_until("the release to be answered", async || {
            !told(&stack).is_empty()
        })
        .await;
    assert_eq!(told(&stack), [format!("release {sha}")]);
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    assert_eq!(stack.buildbot_runs(&sha).await.len(), 2, "built once");
    assert_eq!(told(&stack), [format!("release {sha}")]);
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_2_a_push_that_got_lost_is_released_and_retried_as_one_attempt() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    let again = stack.wait_pending("alpha", 1, &[&lost]).await;
    stack.wait_merged("alpha", 1).await;

    assert_eq!(
        told(&stack),
        [format!("release {lost}"), "retry #1".to_owned()]
    );
    assert_eq!(stack.buildbot_runs(&lost).await.len(), 0);
    assert_eq!(stack.buildbot_runs(&again).await.len(), 2);
    let attempts = stack.watchdog.get_json("/api/v1/attempts").await.unwrap();
    let attempts = attempts.as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{attempts:#?}");
    assert_eq!(attempts[0]["verdict"], "no_show");
    let steps = attempts[0]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[1]["closing"], "effect");
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_2_a_jam_that_is_older_than_the_watchdog_is_repaired_too() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(
        told(&stack),
        [format!("release {lost}"), "retry #1".to_owned()]
    );
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_2_a_second_repository_that_waits_for_the_slot_gets_it() {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    stack.approve("beta", 1).await;
    stack.wait_merged("beta", 1).await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.buildbot_runs(&lost).await.len(), 0);
    assert_eq!(retries_seen(&stack), 1);
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_3_one_lost_result_is_replayed_and_nothing_is_built_again() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack
        .bridge
        .drop_next(Pattern::finished().of("alpha-linux").from(Sender::Reporter));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), sha);
    // homu merges before it answers, and the bridge records the answered request.
    stack
        .wait_until("the replay to be answered", async || {
            !told(&stack).is_empty()
        })
        .await;
    assert_eq!(told(&stack), [format!("result alpha-linux {sha}")]);
    assert_eq!(stack.buildbot_runs(&sha).await.len(), 2);
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_4_all_messages_lost_are_replayed_and_the_next_pull_request_starts() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack
        .bridge
        .drop_every(Pattern::packet().from(Sender::Reporter));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack
        .wait_until("all four messages to be lost", async || {
            stack.bridge.matching(&Pattern::packet().at(&sha)).len() >= 4
        })
        .await;
    stack.bridge.heal();
    stack.approve("alpha", 2).await;
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("alpha", 2).await;

    let told = told(&stack);
    assert_eq!(stack.buildbot_runs(&sha).await.len(), 2, "built once");
    for builder in ["alpha-linux", "alpha-mac"] {
        let results = told
            .iter()
            .filter(|word| **word == format!("result {builder} {sha}"));
        assert_eq!(results.count(), 1, "{told:?}");
    }
    assert!(told.contains(&format!("release {sha}")), "{told:?}");
    assert_eq!(retries_seen(&stack), 0);
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_5_a_lost_red_result_is_replayed_and_fails_honestly() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set("alpha-mac", Order::Red);
    stack
        .bridge
        .drop_next(Pattern::finished().of("alpha-mac").from(Sender::Reporter));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_status("alpha", 1, "failure").await;
    // homu writes the status before it answers, and the bridge records the answered request.
    stack
        .wait_until("the replay to be answered", async || {
            !told(&stack).is_empty()
        })
        .await;
    assert_eq!(told(&stack), [format!("result alpha-mac {sha}")]);
    assert_eq!(stack.buildbot_runs(&sha).await.len(), 2, "no second run");
    assert!(!stack.is_merged("alpha", 1));
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_6_a_long_healthy_build_is_left_alone() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    let settings = WatchdogSettings::quick().set("timeouts.heartbeat", "\"30s\"");
    stack.start_watchdog(&settings).await;
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    // Silent for three start deadlines, in its first step and then in its second.
    for builder in ["alpha-linux", "alpha-mac"] {
        let begun = stack.age();
        stack
            .wait_until("nine quiet seconds", async || {
                (stack.age() - begun).as_secs() >= 9
            })
            .await;
        let build = build(&stack, "alpha", 1).await.unwrap();
        assert_eq!(build["verdict"], "alive", "{build:#}");
        stack.jobs.set_step(builder, "compile", Order::Green);
    }
    stack.jobs.set_step("alpha-mac", "compile", Order::Green);
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(told(&stack), Vec::<String>::new());
    assert_eq!(stack.buildbot_runs(&sha).await.len(), 2);
    check_the_end(&stack).await;
}

#[tokio::test]
async fn case_7_observing_judges_and_plans_the_same_and_sends_nothing() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack
        .start_watchdog(&WatchdogSettings::quick().observing())
        .await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    let held = patience("the plan to be held", async || {
        let build = build(&stack, "alpha", 1).await?;
        (build["hold"]["gate"] == "observe").then_some(build)
    })
    .await;
    assert_eq!(held["verdict"], "no_show");
    assert_eq!(held["merge_sha"], lost.as_str());
    assert_eq!(held["generation"], 1);
    assert_eq!(held["try"], false);
    assert_eq!(
        held["hold"]["plan"],
        serde_json::json!(["release_slot", "retry"])
    );
    let explained = stack.watchdog.run(&["explain", "alpha#1"]).await;
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.status.success(), "{text}");
    for word in ["no_show", "observe", "retry", "alpha-linux"] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    assert_eq!(told(&stack), Vec::<String>::new());
    assert_eq!(stack.stored("alpha", 1).unwrap().merge_sha, lost);
    check_the_end(&stack).await;
}

/// A lost push, up to the moment at which the watchdog is killed.
async fn stack_with_a_lost_push() -> (Stack, String) {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    (stack, lost)
}

/// After the kill: it comes back, goes on, and homu saw one retry.
async fn it_goes_on(stack: &Stack, lost: &str) {
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(retries_seen(stack), 1, "{:?}", told(stack));
    assert_eq!(stack.buildbot_runs(lost).await.len(), 0);
    check_the_end(stack).await;
}

#[tokio::test]
async fn case_8_killed_before_the_intent_nothing_is_forgotten() {
    let (stack, lost) = stack_with_a_lost_push().await;
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    patience("the death to be confirmed soon", async || {
        let build = build(&stack, "alpha", 1).await?;
        (build["hold"]["gate"] == "confirming").then_some(())
    })
    .await;
    let mut look = stack
        .bridge
        .hold_next(Pattern::read().from(Sender::Watchdog));
    look.reached().await;
    stack.kill9_watchdog();
    look.discard();
    it_goes_on(&stack, &lost).await;
}

#[tokio::test]
async fn case_8_killed_after_the_intent_of_the_release_nothing_is_sent_twice() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let mut release = stack
        .bridge
        .hold_next(Pattern::started().from(Sender::Watchdog));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    release.reached().await;
    stack.kill9_watchdog();
    release.discard();
    it_goes_on(&stack, &lost).await;
}

#[tokio::test]
async fn case_8_killed_after_the_intent_a_retry_that_got_lost_is_settled_first() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let mut retry = stack
        .bridge
        .hold_next(Pattern::comment().from(Sender::Watchdog));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    retry.reached().await;
    stack.kill9_watchdog();
    retry.discard();
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    patience("the open intent to be seen", async || {
        let build = build(&stack, "alpha", 1).await?;
        (build["hold"]["gate"] == "in_doubt").then_some(())
    })
    .await;
    assert_eq!(retries_seen(&stack), 0, "in doubt nothing is sent again");
    stack.kill9_watchdog();
    it_goes_on(&stack, &lost).await;
}

#[tokio::test]
async fn case_8_killed_after_the_request_its_effect_is_read() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let mut answer = stack
        .bridge
        .hold_next_answer(Pattern::comment().from(Sender::Watchdog));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    answer.reached().await;
    stack.kill9_watchdog();
    answer.discard();
    it_goes_on(&stack, &lost).await;
}

#[tokio::test]
async fn case_8_killed_after_the_outcome_it_is_remembered() {
    let (stack, lost) = stack_with_a_lost_push().await;
    stack.jobs.set_all(Order::Silent);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    patience("the outcome of the retry", async || {
        let attempts = stack.watchdog.get_json("/api/v1/attempts").await.ok()?;
        let steps = attempts.get(0)?["steps"].as_array()?.clone();
        let retry = steps.iter().find(|step| step["step"] == "retry")?;
        (retry["outcome"] == "accepted").then_some(())
    })
    .await;
    stack.kill9_watchdog();
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let again = patience("the attempt to be known after the restart", async || {
        let build = build(&stack, "alpha", 1).await?;
        (build["generation"] == 2).then_some(build)
    })
    .await;
    assert_eq!(again["attempts"].as_array().unwrap().len(), 1);
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(retries_seen(&stack), 1);
    assert_eq!(stack.buildbot_runs(&lost).await.len(), 0);
    check_the_end(&stack).await;
}

#[tokio::test]
async fn a_second_watchdog_on_the_same_journal_says_who_has_it_and_ends() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let second = stack.watchdog.run(&["run"]).await;
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another watchdog"), "{said}");
    check_the_end(&stack).await;
}

#[tokio::test]
async fn a_buildbot_that_asks_for_a_login_is_read_with_one() {
    let config = StackConfig::one_repository().with_buildbot_login("watchdog", "open sesame");
    let stack = Stack::start(config).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(
        told(&stack),
        [format!("release {lost}"), "retry #1".to_owned()]
    );
    check_the_end(&stack).await;
}
