//! A real homu that is down, fails, is locked out of its database or contradicts itself, and requests
//! to it of which the fate is unknown: nothing is sent while it is not known well, nothing is sent
//! twice, and what was lost is repaired once homu is well again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use ci_watchdog::demo::github::Times;
use serde_json::Value;
use stack::Stack;
use stack::account::{brief, evidence, verdict_on};
use stack::bridge::Passage;
use stack::buildbot::SUCCESS;
use stack::config::{BOT, REVIEWER, StackConfig};
use stack::ending::{release, result, retry, that_got_lost, unanswered};
use stack::jobs::Order;
use stack::message::{Pattern, Sender};
use stack::watchdog::WatchdogSettings;

const BUILDERS: [&str; 2] = ["alpha-linux", "alpha-mac"];

/// Quick, but for runs that are silent until the test lets them end.
fn patient() -> WatchdogSettings {
    WatchdogSettings::quick().set("timeouts.heartbeat", "\"2m\"")
}

/// The watchdog waits for alpha#1 beside a homu that is well; Buildbot never heard of the commit,
/// which this returns.
async fn a_lost_push(settings: &WatchdogSettings) -> (Stack, String) {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(settings).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_verdict("alpha", 1, "starting").await;
    (stack, lost)
}

/// Both builders run alpha#1, in silence, and homu knows it; returns the commit.
async fn a_live_build(stack: &Stack) -> String {
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    for builder in BUILDERS {
        stack.wait_running(builder, &sha).await;
    }
    stack
        .wait_until("homu to hear both starts", async || {
            stack.stored("alpha", 1).unwrap().results.len() == 2
        })
        .await;
    stack.wait_verdict("alpha", 1, "alive").await;
    sha
}

/// Lets the runs of a commit end well, one after the other.
async fn end_well(stack: &Stack, sha: &str) {
    for builder in BUILDERS {
        stack.jobs.set(builder, Order::Green);
        stack
            .wait_until(&format!("{builder} to end"), async || {
                let runs = stack.buildbot_runs(sha).await;
                let mut of_builder = runs.iter().filter(|run| run.builder == builder);
                of_builder.any(|run| run.results == Some(SUCCESS))
            })
            .await;
    }
}

/// alpha#1 is merged under a new commit, which ran once at each builder, and the lost one never.
async fn merged_anew(stack: &Stack, lost: &str, told: &[String]) {
    stack.wait_merged("alpha", 1).await;
    let merged = stack.branch("alpha", "master").unwrap();
    assert_ne!(merged, lost, "tested under a new commit");
    stack.check_the_end(told, &[(lost, 0), (&merged, 2)]).await;
}

/// alpha#1 is merged as it was built, and each builder ran it once.
async fn merged_as_built(stack: &Stack, sha: &str, told: &[String]) {
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), sha);
    stack.check_the_end(told, &[(sha, 2)]).await;
}

/// What was attempted, in short words, oldest first.
async fn attempted(stack: &Stack) -> Vec<String> {
    stack.attempts().await.iter().map(brief).collect()
}

/// While homu is not known well its build is `unknown` for this reason, and nothing is sent.
async fn it_is_unknown(stack: &Stack, why: &str) {
    let unknown = stack.wait_verdict("alpha", 1, "unknown").await;
    let evidence = evidence(&unknown);
    assert!(evidence.contains(why), "{why:?} is not in: {evidence}");
    for builder in BUILDERS {
        assert_eq!(verdict_on(&unknown, builder), "unknown");
    }
    stack.explains("alpha#1", &["alpha#1: unknown", why]).await;
    assert_eq!(stack.told(), Vec::<String>::new());
}

#[tokio::test]
async fn results_that_came_while_homu_was_down_are_replayed_after_its_return() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.start_watchdog(&patient()).await;
    let sha = a_live_build(&stack).await;

    stack.kill9_homu();
    end_well(&stack, &sha).await;
    stack
        .wait_until("Buildbot to give both results up", async || {
            let log = std::fs::read_to_string(stack.buildbot.log()).unwrap();
            let lost = |builder| format!("buildFinished of {builder}/1 is lost");
            BUILDERS.iter().all(|builder| log.contains(&lost(builder)))
        })
        .await;
    it_is_unknown(&stack, "homu is silent for").await;

    stack.start_homu().await;
    let told = BUILDERS.map(|builder| result(builder, &sha));
    merged_as_built(&stack, &sha, &told).await;
    assert_eq!(
        attempted(&stack).await,
        ["unreported: replay_result accepted effect"; 2]
    );
}

#[tokio::test]
async fn a_homu_that_is_down_for_longer_than_every_deadline_is_repaired_once_it_is_back() {
    let settings = WatchdogSettings::quick()
        .set("timeouts.heartbeat", "\"4s\"")
        .set("timeouts.queue", "\"2s\"")
        .set("timeouts.total", "\"9s\"")
        .set("timeouts.effect", "\"2s\"")
        .set("safety.storm_cooldown", "\"2s\"");
    let (stack, lost) = a_lost_push(&settings).await;
    stack.kill9_homu();
    stack.look_on(10).await;
    it_is_unknown(&stack, "homu is silent for").await;

    stack.start_homu().await;
    merged_anew(&stack, &lost, &[release(&lost), retry("alpha", 1)]).await;
    assert_eq!(
        attempted(&stack).await,
        ["no_show: release_slot accepted done, retry accepted effect"]
    );
}

#[tokio::test]
async fn a_homu_that_answers_500_is_not_known_and_what_it_refused_so_is_in_doubt() {
    let settings = WatchdogSettings::quick().set("timeouts.effect", "\"1s\"");
    let (stack, lost) = a_lost_push(&settings).await;
    let page = Pattern::read().to("/queue/").from(Sender::Watchdog);
    stack
        .bridge
        .answer_every(page, 500, "Internal Server Error");
    it_is_unknown(&stack, "500").await;
    // For longer than its start may take.
    stack.look_on(5).await;
    it_is_unknown(&stack, "500").await;

    // Its page is well, and it fails over what it is told.
    stack.bridge.heal();
    let request = Pattern::comment().from(Sender::Watchdog);
    stack
        .bridge
        .answer_every(request, 500, "Internal Server Error");
    let held = stack.wait_held("alpha", 1, "in_doubt").await;
    let reason = held["hold"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("whether the bot took it is unknown"),
        "{reason}"
    );
    let told = vec![release(&lost), that_got_lost(retry("alpha", 1))];
    assert_eq!(stack.told(), told);
    stack.bridge.heal();

    // Nothing changed for as long as it could have: it was not taken, and another one may be sent.
    let then = [release(&lost), retry("alpha", 1)];
    merged_anew(&stack, &lost, &[told, then.to_vec()].concat()).await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts.iter().map(brief).collect::<Vec<_>>(),
        [
            "no_show: release_slot accepted done, retry unanswered no_effect",
            "no_show: release_slot accepted done, retry accepted effect",
        ]
    );
    settled_before_the_next(&attempts);
}

/// The first attempt's main request was settled before the second one began. Times of one form sort
/// as text.
fn settled_before_the_next(attempts: &[Value]) {
    let [first, second] = attempts else {
        panic!("two attempts: {attempts:#?}");
    };
    let steps = first["steps"].as_array().unwrap();
    let settled = steps.last().unwrap()["closed_at"].as_str().unwrap();
    assert!(settled <= second["at"].as_str().unwrap(), "{attempts:#?}");
}

#[tokio::test]
async fn results_that_came_while_homus_database_was_locked_are_replayed_once_it_is_not() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.start_watchdog(&patient()).await;
    let sha = a_live_build(&stack).await;

    let lock = stack.homu.lock_database();
    end_well(&stack, &sha).await;
    // homu waits five seconds for each write, and fails.
    stack
        .wait_until("homu to fail over both results", async || {
            let heard = stack.bridge.matching(&Pattern::finished());
            heard
                .iter()
                .filter(|it| it.passage == Passage::Answered(500))
                .count()
                == 2
        })
        .await;
    it_is_unknown(&stack, "something holds it locked").await;

    drop(lock);
    // It has both in memory, and so the first one that is told again is enough.
    merged_as_built(&stack, &sha, &[result(BUILDERS[0], &sha)]).await;
    assert_eq!(
        attempted(&stack).await,
        ["unreported: replay_result accepted effect"]
    );
}

#[tokio::test]
async fn a_build_that_homu_has_left_and_its_database_has_not_is_orphaned_and_built_again() {
    // It has its time to start also where homu has left it, and is not to be taken for one that never did.
    let settings = WatchdogSettings::quick().set("timeouts.start", "\"15s\"");
    let (stack, lost) = a_lost_push(&settings).await;
    stack
        .send_packet("buildStarted", "nobody", &lost, &[])
        .await;

    // A person's command cannot be written down: homu's memory has it, and its database has not.
    let lock = stack.homu.lock_database();
    stack.say("alpha", 1, REVIEWER, &format!("@{BOT} retry"));
    let command = Pattern::comment().saying("retry").from(Sender::Github);
    stack
        .wait_until("homu to fail over the command", async || {
            let heard = stack.bridge.matching(&command);
            heard.iter().any(|it| it.passage == Passage::Answered(500))
        })
        .await;
    it_is_unknown(&stack, "something holds it locked").await;
    drop(lock);
    assert_eq!(stack.stored("alpha", 1).unwrap().status, "pending");
    assert_eq!(stack.queued("alpha", 1).await.unwrap().status, "approved");

    merged_anew(&stack, &lost, &[release(&lost), retry("alpha", 1)]).await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts.iter().map(brief).collect::<Vec<_>>(),
        ["orphaned: release_slot accepted done, retry accepted effect"]
    );
    let evidence = attempts[0]["evidence"].to_string();
    let words = r#"the bot's database says \"pending\", its page \"approved\""#;
    assert!(evidence.contains(words), "{evidence}");
}

#[tokio::test]
async fn a_retry_whose_answer_got_lost_is_settled_by_what_homu_shows() {
    let (stack, lost) = a_lost_push(&WatchdogSettings::quick()).await;
    stack
        .bridge
        .lose_next_answer(Pattern::comment().from(Sender::Watchdog));
    let told = [release(&lost), unanswered(retry("alpha", 1))];
    merged_anew(&stack, &lost, &told).await;
    assert_eq!(
        attempted(&stack).await,
        ["no_show: release_slot accepted done, retry unanswered effect"]
    );
}

#[tokio::test]
async fn a_retry_that_never_reached_homu_has_no_effect_before_another_one_is_sent() {
    let (stack, lost) = a_lost_push(&WatchdogSettings::quick()).await;
    // Something on the way said 200 in homu's place.
    stack
        .bridge
        .drop_next(Pattern::comment().from(Sender::Watchdog));
    let held = stack.wait_held("alpha", 1, "in_doubt").await;
    let reason = held["hold"]["reason"].as_str().unwrap();
    assert!(reason.contains("its effect is awaited"), "{reason}");
    let told = [
        release(&lost),
        that_got_lost(retry("alpha", 1)),
        release(&lost),
        retry("alpha", 1),
    ];
    assert_eq!(stack.told(), told[..2]);
    merged_anew(&stack, &lost, &told).await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts.iter().map(brief).collect::<Vec<_>>(),
        [
            "no_show: release_slot accepted done, retry accepted no_effect",
            "no_show: release_slot accepted done, retry accepted effect",
        ]
    );
    settled_before_the_next(&attempts);
}

#[tokio::test]
async fn a_replay_is_told_again_only_where_homu_did_not_take_it() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    let ours = |builder| Pattern::finished().of(builder).from(Sender::Watchdog);
    for builder in BUILDERS {
        let theirs = Pattern::finished().of(builder).from(Sender::Reporter);
        stack.bridge.drop_next(theirs);
    }
    stack.bridge.lose_next_answer(ours(BUILDERS[0]));
    stack.bridge.cut_next(ours(BUILDERS[1]));
    let settings = patient().set("timeouts.effect", "\"1s\"");
    stack.start_watchdog(&settings).await;
    let sha = a_live_build(&stack).await;
    end_well(&stack, &sha).await;

    let held = stack.wait_held("alpha", 1, "in_doubt").await;
    assert_eq!(held["verdict"], "unreported");
    let [linux, mac] = BUILDERS.map(|builder| result(builder, &sha));
    let told = [unanswered(linux), that_got_lost(mac.clone()), mac];
    merged_as_built(&stack, &sha, &told).await;
    assert_eq!(
        attempted(&stack).await,
        [
            "unreported: replay_result unanswered effect",
            "unreported: replay_result unanswered no_effect",
            "unreported: replay_result accepted effect",
        ]
    );
}

#[tokio::test]
async fn a_homu_that_takes_longer_than_any_answer_may_is_waited_for() {
    let (stack, lost) = a_lost_push(&WatchdogSettings::quick()).await;
    let mut slow = stack
        .bridge
        .hold_next(Pattern::comment().from(Sender::Watchdog));
    slow.reached().await;
    let held = stack.wait_held("alpha", 1, "in_doubt").await;
    assert_eq!(held["verdict"], "no_show");
    stack
        .explains("alpha#1", &["rerun is held by the gate in_doubt"])
        .await;
    stack.wait_ticks(5).await;
    assert_eq!(stack.told(), [release(&lost)], "nothing else is sent");
    slow.release();
    merged_anew(&stack, &lost, &[release(&lost), retry("alpha", 1)]).await;
    assert_eq!(
        attempted(&stack).await,
        ["no_show: release_slot accepted done, retry unanswered effect"]
    );
}

#[tokio::test]
async fn a_try_that_homu_forgot_at_its_restart_leaves_its_database_too() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack.start_watchdog(&patient()).await;
    stack.try_build("alpha", 2);
    stack.wait_status("alpha", 2, "pending").await;
    let tried = stack.branch("alpha", "try").unwrap();
    stack.wait_running("alpha-linux", &tried).await;
    // homu 0.2.0 stores neither that it only tries nor its commit.
    stack.kill9_homu();
    stack.start_homu().await;

    stack.wait_status("alpha", 2, "").await;
    stack.jobs.set_all(Order::Green);
    // It was not approved, so that there is nothing to build.
    stack
        .check_the_end(&[retry("alpha", 2)], &[(&tried, 1)])
        .await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts.iter().map(brief).collect::<Vec<_>>(),
        ["orphaned: retry accepted effect"]
    );
    let evidence = attempts[0]["evidence"].to_string();
    let words = r#"the bot's database says \"pending\", its page \"\""#;
    assert!(evidence.contains(words), "{evidence}");
}
