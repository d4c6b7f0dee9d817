//! The watchdog beside a real homu 0.2.0 and a real Buildbot 4.3: what gets stuck gets going again,
//! with the smallest repair, and with no hand on it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use ci_watchdog::demo::github::Times;
use serde_json::{Value, json};
use stack::bridge::Hold;
use stack::config::StackConfig;
use stack::ending::{release, result, retry, that_got_lost, unanswered};
use stack::jobs::Order;
use stack::message::{Pattern, Sender};
use stack::watchdog::{TOKEN, WatchdogSettings};
use stack::{Stack, patience};

/// A pending build as the watchdog tells of it.
async fn build(stack: &Stack, repo: &str, pull: u64) -> Option<Value> {
    // It may be starting.
    let builds = stack.watchdog.get_json("/api/v1/builds").await.ok()?;
    let mut builds = builds.as_array().unwrap().iter();
    builds
        .find(|build| build["repo"] == repo && build["pull"] == pull)
        .cloned()
}

/// Waits until a pending build is held by a gate, and says what is told of it then.
async fn held_by(stack: &Stack, gate: &str) -> Value {
    patience(&format!("alpha#1 to be held by {gate}"), async || {
        let build = build(stack, "alpha", 1).await?;
        (build["hold"]["gate"] == gate).then_some(build)
    })
    .await
}

/// Everything that was attempted, newest first.
async fn attempts(stack: &Stack) -> Vec<Value> {
    let attempts = stack.watchdog.get_json("/api/v1/attempts").await.unwrap();
    attempts.as_array().unwrap().clone()
}

/// The kinds of an attempt's requests, in order.
fn steps(attempt: &Value) -> Vec<Value> {
    let steps = attempt["steps"].as_array().unwrap();
    steps.iter().map(|step| step["step"].clone()).collect()
}

/// What the watchdog says about alpha#1 on its command line.
async fn explain(stack: &Stack) -> String {
    let explained = stack.watchdog.run(&["explain", "alpha#1"]).await;
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.status.success(), "{text}");
    text
}

/// A stack on which alpha#1 waits for a commit that Buildbot never heard of, and that commit.
async fn stack_with_a_lost_push() -> (Stack, String) {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    (stack, lost)
}

/// The commit that a repository's master is at: that of its last merge.
fn merged(stack: &Stack, label: &str) -> String {
    stack.branch(label, "master").unwrap()
}

/// The lost push is repaired: alpha#1 is merged under a new commit, and this is what it took.
async fn it_is_merged_after(stack: &Stack, lost: &str, told: &[String]) {
    stack.wait_merged("alpha", 1).await;
    let merged = merged(stack, "alpha");
    assert_ne!(merged, lost, "tested under a new commit");
    stack.check_the_end(told, &[(lost, 0), (&merged, 2)]).await;
}

/// What a lost push takes: the slot is released and the build retried, as one attempt.
async fn it_is_repaired_by_one_attempt(stack: &Stack, lost: &str) -> Value {
    it_is_merged_after(stack, lost, &[release(lost), retry("alpha", 1)]).await;
    let attempts = attempts(stack).await;
    let [attempt] = attempts.as_slice() else {
        panic!("one attempt: {attempts:#?}");
    };
    assert_eq!(attempt["verdict"], "no_show");
    assert_eq!(steps(attempt), ["release_slot", "retry"]);
    assert_eq!(attempt["steps"][1]["closing"], "effect");
    attempt.clone()
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
    let next = stack.wait_pending("beta", 1, &[]).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    stack
        .check_the_end(&[release(&sha)], &[(&sha, 2), (&next, 2)])
        .await;
}

#[tokio::test]
async fn case_2_a_push_that_got_lost_is_released_and_retried_as_one_attempt() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    it_is_repaired_by_one_attempt(&stack, &lost).await;
}

#[tokio::test]
async fn case_2_a_jam_that_is_older_than_the_watchdog_is_repaired_too() {
    let (stack, lost) = stack_with_a_lost_push().await;
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    it_is_repaired_by_one_attempt(&stack, &lost).await;
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
    let (alpha, beta) = (merged(&stack, "alpha"), merged(&stack, "beta"));
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 1)],
            &[(&lost, 0), (&alpha, 2), (&beta, 2)],
        )
        .await;
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
    assert_eq!(merged(&stack, "alpha"), sha);
    stack
        .check_the_end(&[result("alpha-linux", &sha)], &[(&sha, 2)])
        .await;
}

#[tokio::test]
async fn case_4_all_messages_lost_are_replayed_and_the_next_pull_request_starts() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack
        .bridge
        .drop_every(Pattern::packet().from(Sender::Reporter));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.jobs.set_all(Order::Chatter);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    // One after the other, so that what is sent has one order on every machine: while both live,
    // the slot is released; then the first result is missed, and then the second.
    stack
        .wait_until("the release", async || !stack.told().is_empty())
        .await;
    let lost = async |packet: Pattern| {
        let lost = packet.at(&sha).from(Sender::Reporter);
        stack
            .wait_until("a message to be lost", async || {
                !stack.bridge.matching(&lost).is_empty()
            })
            .await;
    };
    for builder in ["alpha-linux", "alpha-mac"] {
        stack.jobs.set(builder, Order::Green);
        lost(Pattern::started().of(builder)).await;
        lost(Pattern::finished().of(builder)).await;
    }
    stack.bridge.heal();
    stack.jobs.set_all(Order::Green);
    stack.approve("alpha", 2).await;
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("alpha", 2).await;

    let next = merged(&stack, "alpha");
    let parents = stack.github.commit("octo/alpha", &next).unwrap().parents;
    assert_eq!(parents[0], sha, "merged as it was built");
    stack
        .check_the_end(
            &[
                release(&sha),
                // Nothing was heard of this commit yet, so it goes before the first result, too.
                release(&sha),
                result("alpha-linux", &sha),
                result("alpha-mac", &sha),
            ],
            &[(&sha, 2), (&next, 2)],
        )
        .await;
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
    stack
        .check_the_end(&[result("alpha-mac", &sha)], &[(&sha, 2)])
        .await;
    assert!(!stack.is_merged("alpha", 1));
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
    stack.check_the_end(&[], &[(&sha, 2)]).await;
}

#[tokio::test]
async fn case_7_observing_plans_what_acting_does_and_sends_nothing() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let quick = WatchdogSettings::quick;
    stack.start_watchdog(&quick().observing()).await;
    let held = held_by(&stack, "observe").await;
    assert_eq!(held["merge_sha"], lost.as_str());
    assert_eq!(held["generation"], 1);
    assert_eq!(held["try"], false);
    let explained = explain(&stack).await;
    for words in [
        "alpha#1: no_show",
        "alpha-linux (buildbot): no_show",
        "alpha-mac (buildbot): no_show",
        "rerun is held by the gate observe",
        "it would send: release_slot, then retry",
        "Nothing was sent for it.",
    ] {
        assert!(explained.contains(words), "{words} is not in:\n{explained}");
    }
    stack.check_the_end(&[], &[(&lost, 0)]).await;
    assert_eq!(stack.stored("alpha", 1).unwrap().merge_sha, lost);

    // The same watchdog may act now, and does what it planned, which is what case 2 does.
    stack.watchdog_config(&quick());
    stack.watchdog.reload();
    let done = it_is_repaired_by_one_attempt(&stack, &lost).await;
    assert_eq!(done["remedy"], held["hold"]["remedy"]);
    assert_eq!(done["verdict"], held["verdict"]);
    assert_eq!(json!(steps(&done)), held["hold"]["plan"]);
}

/// What the journal has about requests after a watchdog's death, in short words, oldest first.
async fn written(stack: &Stack) -> Vec<String> {
    let history = stack.watchdog.run(&["history", "--json"]).await;
    let mut records: Vec<Value> = serde_json::from_slice(&history.stdout).unwrap();
    records.sort_by_key(|it| it["seq"].as_i64());
    let words = records.iter().filter_map(|it| {
        let record = &it["record"];
        let word = match record["record"].as_str().unwrap() {
            "sighting" | "finding" | "ending" | "order" => return None,
            "intent" => &record["intent"]["step"]["step"],
            "outcome" => &record["outcome"]["outcome"],
            "closed" => &record["closing"],
            other => panic!("{other}"),
        };
        Some(word.as_str().unwrap().to_owned())
    });
    words.collect()
}

/// Starts the watchdog, kills it where `hold` stops it, and says what it had written by then.
async fn killed_at(stack: &Stack, mut hold: Hold) -> Vec<String> {
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    hold.reached().await;
    stack.kill9_watchdog();
    hold.discard();
    written(stack).await
}

#[tokio::test]
async fn case_8_killed_before_the_intent_nothing_is_forgotten() {
    let (stack, lost) = stack_with_a_lost_push().await;
    // It needs many looks, so that this one is seen to need some more.
    let careful = WatchdogSettings::quick().set("safety.looks", "20");
    stack.start_watchdog(&careful).await;
    held_by(&stack, "confirming").await;
    let mut look = stack
        .bridge
        .hold_next(Pattern::read().from(Sender::Watchdog));
    look.reached().await;
    stack.kill9_watchdog();
    look.discard();
    assert_eq!(written(&stack).await, Vec::<String>::new());
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    it_is_repaired_by_one_attempt(&stack, &lost).await;
}

#[tokio::test]
async fn case_8_killed_after_the_intent_of_the_release_nothing_is_sent_twice() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let held = stack
        .bridge
        .hold_next(Pattern::started().from(Sender::Watchdog));
    let before = killed_at(&stack, held).await;
    assert_eq!(before, ["release_slot"]);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    it_is_merged_after(
        &stack,
        &lost,
        &[
            that_got_lost(release(&lost)),
            release(&lost),
            retry("alpha", 1),
        ],
    )
    .await;
}

#[tokio::test]
async fn case_8_killed_after_the_request_of_the_release_the_retry_is_not_forgotten() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let answer = stack
        .bridge
        .hold_next_answer(Pattern::started().from(Sender::Watchdog));
    let before = killed_at(&stack, answer).await;
    assert_eq!(before, ["release_slot"]);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let told = [
        unanswered(release(&lost)),
        release(&lost),
        retry("alpha", 1),
    ];
    it_is_merged_after(&stack, &lost, &told).await;
}

#[tokio::test]
async fn case_8_killed_after_the_outcome_of_the_release_the_retry_is_not_forgotten() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let mut answer = stack
        .bridge
        .hold_next_answer(Pattern::started().from(Sender::Watchdog));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    answer.reached().await;
    // The last look before the retry.
    let mut look = stack
        .bridge
        .hold_next(Pattern::read().from(Sender::Watchdog));
    answer.release();
    look.reached().await;
    stack.kill9_watchdog();
    look.discard();
    let before = written(&stack).await;
    assert_eq!(before[..2], ["release_slot", "accepted"], "{before:?}");
    assert!(!before.contains(&"retry".to_owned()), "{before:?}");
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let told = [release(&lost), release(&lost), retry("alpha", 1)];
    it_is_merged_after(&stack, &lost, &told).await;
}

#[tokio::test]
async fn case_8_killed_after_the_intent_a_retry_that_got_lost_is_settled_first() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let held = stack
        .bridge
        .hold_next(Pattern::comment().from(Sender::Watchdog));
    let before = killed_at(&stack, held).await;
    assert_eq!(before.last().unwrap(), "retry", "{before:?}");
    let told = vec![release(&lost), that_got_lost(retry("alpha", 1))];

    stack.start_watchdog(&WatchdogSettings::quick()).await;
    held_by(&stack, "in_doubt").await;
    assert_eq!(stack.told(), told, "in doubt nothing is sent again");
    // It is in doubt also for the next one.
    stack.kill9_watchdog();
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let then = [release(&lost), retry("alpha", 1)];
    it_is_merged_after(&stack, &lost, &[told, then.to_vec()].concat()).await;
}

#[tokio::test]
async fn case_8_killed_after_the_request_its_effect_is_read() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let answer = stack
        .bridge
        .hold_next_answer(Pattern::comment().from(Sender::Watchdog));
    let before = killed_at(&stack, answer).await;
    assert_eq!(before.last().unwrap(), "retry", "{before:?}");
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let told = [release(&lost), unanswered(retry("alpha", 1))];
    it_is_merged_after(&stack, &lost, &told).await;
}

#[tokio::test]
async fn case_8_killed_after_the_outcome_it_is_remembered() {
    let (stack, lost) = stack_with_a_lost_push().await;
    stack.jobs.set_all(Order::Chatter);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    patience("the outcome of the retry", async || {
        let attempts = stack.watchdog.get_json("/api/v1/attempts").await.ok()?;
        let steps = attempts.get(0)?["steps"].as_array()?.clone();
        let retry = steps.iter().find(|step| step["step"] == "retry")?;
        (retry["outcome"] == "accepted").then_some(())
    })
    .await;
    stack.kill9_watchdog();
    let before = written(&stack).await;
    let retried = before.iter().position(|word| word == "retry").unwrap();
    assert_eq!(before[retried + 1], "accepted", "{before:?}");
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let again = patience("the attempt to be known after the restart", async || {
        let build = build(&stack, "alpha", 1).await?;
        (build["generation"] == 2).then_some(build)
    })
    .await;
    assert_eq!(again["attempts"].as_array().unwrap().len(), 1);
    stack.jobs.set_all(Order::Green);
    it_is_repaired_by_one_attempt(&stack, &lost).await;
}

#[tokio::test]
async fn a_second_watchdog_on_the_same_journal_says_who_has_it_and_ends() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    let second = stack.watchdog.run(&["run"]).await;
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another watchdog"), "{said}");
    stack.check_the_end(&[], &[]).await;
}

#[tokio::test]
async fn a_buildbot_that_asks_for_a_login_is_read_with_one() {
    let config = StackConfig::one_repository().with_buildbot_login("watchdog", "open sesame");
    let stack = Stack::start(config).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    it_is_repaired_by_one_attempt(&stack, &lost).await;
}

/// Writes a configuration with a mistake in it, and where the mistake is: `FILE:LINE:`.
fn break_the_configuration(stack: &Stack, settings: &WatchdogSettings) -> String {
    let file = stack.watchdog_config(&settings.clone().set("loop.tick", "\"soon\""));
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines = text.lines();
    let before = lines.position(|line| line.contains("soon")).unwrap();
    format!("{}:{}:", file.display(), before + 1)
}

const RELOADED: &str = "ci_watchdog_config_last_reload_successful";

#[tokio::test]
async fn a_broken_configuration_leaves_an_observing_watchdog_observing() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let quick = WatchdogSettings::quick;
    stack.start_watchdog(&quick().observing()).await;
    held_by(&stack, "observe").await;
    assert_eq!(stack.watchdog.metric(RELOADED).await, "1");

    // It says "act", and there is a mistake in it.
    let place = break_the_configuration(&stack, &quick());
    stack.watchdog.reload();
    stack.watchdog.wait_log(&place).await;
    patience("the metric of the bad reload", async || {
        (stack.watchdog.metric(RELOADED).await == "0").then_some(())
    })
    .await;
    let (status, said) = stack.watchdog.ask_reload(Some(TOKEN)).await;
    assert_eq!(status, 422, "{said}");
    assert!(said.contains(&place), "{said}");
    stack.check_the_end(&[], &[(&lost, 0)]).await;
    held_by(&stack, "observe").await;

    // A good one that also says "act" is taken from those only who have the token.
    stack.watchdog_config(&quick());
    for token in [None, Some("another"), Some("")] {
        let (status, said) = stack.watchdog.ask_reload(token).await;
        assert_eq!(status, 401, "{token:?}: {said}");
    }
    stack.check_the_end(&[], &[(&lost, 0)]).await;
    assert_eq!(stack.watchdog.metric(RELOADED).await, "0");
    let (status, said) = stack.watchdog.ask_reload(Some(TOKEN)).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(stack.watchdog.metric(RELOADED).await, "1");
    it_is_repaired_by_one_attempt(&stack, &lost).await;
}

#[tokio::test]
async fn a_broken_configuration_leaves_an_acting_watchdog_acting() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    let settings = WatchdogSettings::quick().without_token();
    stack.start_watchdog(&settings).await;
    let place = break_the_configuration(&stack, &settings.clone().observing());
    stack.watchdog.reload();
    stack.watchdog.wait_log(&place).await;

    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    it_is_repaired_by_one_attempt(&stack, &lost).await;
    assert_eq!(stack.watchdog.metric(RELOADED).await, "0");

    // Where it has no token of its own, it reloads for nobody.
    stack.watchdog_config(&settings.observing());
    for token in [None, Some(TOKEN), Some("")] {
        let (status, said) = stack.watchdog.ask_reload(token).await;
        assert_eq!(status, 403, "{token:?}: {said}");
    }
    let status = stack.watchdog.get_json("/api/v1/status").await.unwrap();
    assert_eq!(status["mode"], "act");
}

const WRITABLE: &str = "ci_watchdog_journal_writable";

/// The journal cannot be written: this is what all ways to look at the watchdog say.
async fn the_journal_is_seen_to_be_gone(stack: &Stack, gate: &str) {
    let held = held_by(stack, gate).await;
    assert_eq!(held["verdict"], "no_show");
    assert_eq!(held["hold"]["plan"], json!(["release_slot", "retry"]));
    let (status, said) = stack.watchdog.look_at("/-/ready").await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("the journal cannot be written"), "{said}");
    let (status, said) = stack.watchdog.look_at("/-/healthy").await;
    assert_eq!(status, 200, "everything else goes on: {said}");
    assert_eq!(stack.watchdog.metric(WRITABLE).await, "0");
    let page = stack.watchdog.get("/").await.unwrap();
    let hold = format!("rerun held by {gate}");
    for words in [&hold, "it cannot be written, so nothing is sent"] {
        assert!(page.contains(words), "{words} is not in:\n{page}");
    }
    let explained = explain(stack).await;
    let words = format!("rerun is held by the gate {gate}: ");
    assert!(explained.contains(&words), "{explained}");
}

#[tokio::test]
async fn without_its_journal_it_sends_nothing_and_with_it_goes_on() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    patience("the first look", async || {
        (stack.watchdog.look_at("/-/ready").await.0 == 200).then_some(())
    })
    .await;
    stack.watchdog.take_journal_away();
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    the_journal_is_seen_to_be_gone(&stack, "journal").await;
    stack.check_the_end(&[], &[(&lost, 0)]).await;

    // A copy of it is not the journal.
    stack.watchdog.put_another_journal();
    stack.check_the_end(&[], &[(&lost, 0)]).await;
    the_journal_is_seen_to_be_gone(&stack, "journal").await;

    stack.watchdog.bring_journal_back();
    it_is_repaired_by_one_attempt(&stack, &lost).await;
    let (status, said) = stack.watchdog.look_at("/-/ready").await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(stack.watchdog.metric(WRITABLE).await, "1");
    let written = written(&stack).await;
    assert_eq!(
        written,
        [
            "release_slot",
            "accepted",
            "done",
            "retry",
            "accepted",
            "effect"
        ]
    );
}

#[tokio::test]
async fn a_journal_that_goes_in_the_middle_of_an_attempt_stops_it_there() {
    let (stack, lost) = stack_with_a_lost_push().await;
    let mut released = stack
        .bridge
        .hold_next_answer(Pattern::started().from(Sender::Watchdog));
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    released.reached().await;
    stack.watchdog.take_journal_away();
    released.release();
    // What it sent last is not settled, which comes before that nothing can be written.
    the_journal_is_seen_to_be_gone(&stack, "in_doubt").await;
    stack.wait_ticks(5).await;
    assert_eq!(stack.told(), [release(&lost)]);
    stack.watchdog.bring_journal_back();
    // That the release was sent is in no record, so it goes once more, and the retry once.
    let told = [release(&lost), release(&lost), retry("alpha", 1)];
    it_is_merged_after(&stack, &lost, &told).await;
}
