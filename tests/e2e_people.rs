//! People beside the watchdog, on a real homu 0.2.0 and a real Buildbot 4.3: they retry when it does,
//! close and push without homu's knowledge, want another pull request first, try, and build in part.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use ci_watchdog::demo::github::Times;
use serde_json::json;
use stack::Stack;
use stack::account::{brief, evidence, verdict_on};
use stack::buildbot::{FAILURE, Run};
use stack::config::{BOT, REVIEWER, StackConfig};
use stack::ending::{release, result, retry};
use stack::jobs::Order;
use stack::message::{Pattern, Sender};
use stack::watchdog::WatchdogSettings;

/// Quick, but for runs that are silent until the test lets them end.
fn patient() -> WatchdogSettings {
    WatchdogSettings::quick().set("timeouts.heartbeat", "\"2m\"")
}

/// The same with many looks before a death counts, so that the test sees what comes before that.
fn careful() -> WatchdogSettings {
    patient().set("safety.looks", "15")
}

/// The rerun that brought alpha#1 back from a lost push.
const RERUN: &str = "no_show: release_slot accepted done, retry accepted effect";

/// A stack on which alpha#1 waits for a commit that Buildbot never heard of, and that commit.
async fn a_lost_push(settings: &WatchdogSettings) -> (Stack, String) {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.start_watchdog(settings).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    (stack, lost)
}

/// A person wants alpha#1 built again.
fn a_person_retries(stack: &Stack) {
    stack.say("alpha", 1, REVIEWER, &format!("@{BOT} retry"));
}

/// A person's command to build alpha#1 again.
fn a_persons_retry() -> Pattern {
    Pattern::comment()
        .about("alpha", 1)
        .saying("retry")
        .from(Sender::Github)
}

/// Waits until homu has taken so many commands of people to build alpha#1 again.
async fn homu_took(stack: &Stack, times: usize) {
    stack
        .wait_until("homu to take a person's retry", async || {
            stack.bridge.matching(&a_persons_retry()).len() >= times
        })
        .await;
}

/// Waits until homu was told of the starts of a commit at both builders.
async fn homu_heard_the_starts(stack: &Stack, label: &str, pull: u64) {
    stack
        .wait_until("homu to hear both starts", async || {
            stack
                .stored(label, pull)
                .is_some_and(|stored| stored.results.len() == 2)
        })
        .await;
}

/// Waits until the watchdog tells of alpha#1 in this generation; its commit.
async fn generation(stack: &Stack, number: u64) -> String {
    let what = format!("seen in generation {number}");
    let build = stack
        .wait_build("alpha", 1, &what, |build| build["generation"] == number)
        .await;
    build["merge_sha"].as_str().unwrap().to_owned()
}

/// What was attempted, in short words, oldest first.
async fn attempted(stack: &Stack) -> Vec<String> {
    stack.attempts().await.iter().map(brief).collect()
}

fn master(stack: &Stack, label: &str) -> String {
    stack.branch(label, "master").unwrap()
}

/// The gate that holds the next rerun counts this many reruns of the head, people's included.
async fn held_after(stack: &Stack, reruns: u32) {
    let held = stack.wait_held("alpha", 1, "pull_budget").await;
    assert_eq!(held["verdict"], "no_show");
    let words = format!("{reruns} reruns of this head in a day took effect already");
    let reason = held["hold"]["reason"].as_str().unwrap();
    assert!(reason.starts_with(&words), "{reason}");
    stack.explains("alpha#1", &[&words]).await;
}

#[tokio::test]
async fn a_person_who_retries_before_our_first_request_spares_it_and_counts() {
    let settings = careful().set("safety.reruns_per_pull", "1");
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Always);
    stack.start_watchdog(&settings).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_held("alpha", 1, "confirming").await;
    // The slot is still held: homu leaves the build and starts none.
    a_person_retries(&stack);
    stack.wait_status("alpha", 1, "").await;
    assert_eq!(stack.branch("alpha", "auto").unwrap(), lost);

    // What the watchdog finds then is a queue that stands still.
    let again = stack.wait_pending("alpha", 1, &[&lost]).await;
    assert_eq!(generation(&stack, 2).await, again);
    assert_eq!(
        attempted(&stack).await,
        ["wedged: release_slot accepted done"]
    );
    // The new commit is lost, too, and the person's rerun was the one that there may be.
    held_after(&stack, 1).await;
    stack
        .check_the_end(&[release(&lost)], &[(&lost, 0), (&again, 0)])
        .await;
}

#[tokio::test]
async fn a_person_who_retries_between_our_release_and_our_retry_spares_it_and_counts() {
    let settings = WatchdogSettings::quick().set("safety.reruns_per_pull", "1");
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Always);
    let mut released = stack
        .bridge
        .hold_next_answer(Pattern::started().from(Sender::Watchdog));
    stack.start_watchdog(&settings).await;
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    released.reached().await;
    // The last look before our retry.
    let mut look = stack
        .bridge
        .hold_next(Pattern::read().to("/queue/").from(Sender::Watchdog));
    released.release();
    look.reached().await;
    a_person_retries(&stack);
    let again = stack.wait_pending("alpha", 1, &[&lost]).await;
    look.release();

    assert_eq!(generation(&stack, 2).await, again);
    held_after(&stack, 1).await;
    stack
        .check_the_end(&[release(&lost)], &[(&lost, 0), (&again, 0)])
        .await;
    let attempts = attempted(&stack).await;
    let [attempt] = attempts.as_slice() else {
        panic!("one attempt: {attempts:#?}");
    };
    // Where the database was read before the command and the page after it, only the adapter's own
    // look finds the other commit, after the intent.
    let one_of = [
        "no_show: release_slot accepted done",
        "no_show: release_slot accepted done, retry not_sent not_sent",
    ];
    assert!(one_of.contains(&attempt.as_str()), "{attempt}");
}

#[tokio::test]
async fn a_person_whose_retry_overtakes_ours_on_its_way_leads_to_no_second_one_of_ours() {
    let (stack, lost) = a_lost_push(&patient()).await;
    stack.jobs.set_all(Order::Silent);
    let mut ours = stack
        .bridge
        .hold_next(Pattern::comment().from(Sender::Watchdog));
    ours.reached().await;
    a_person_retries(&stack);
    let theirs = stack.wait_pending("alpha", 1, &[&lost]).await;
    homu_heard_the_starts(&stack, "alpha", 1).await;
    // It was on its way when theirs was taken, so homu takes it for a command about their build.
    ours.release();
    let last = stack.wait_pending("alpha", 1, &[&lost, &theirs]).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(master(&stack, "alpha"), last);
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 1)],
            &[(&lost, 0), (&theirs, 2), (&last, 2)],
        )
        .await;
    assert_eq!(attempted(&stack).await, [RERUN]);
}

#[tokio::test]
async fn a_person_whose_retry_comes_with_ours_or_after_its_effect_is_let_be_and_counts() {
    let settings = patient().set("safety.reruns_per_pull", "2");
    let (stack, lost) = a_lost_push(&settings).await;
    stack.jobs.set_all(Order::Silent);
    // Theirs is on its way when ours is sent, and comes in right behind it.
    let mut theirs = stack.bridge.hold_next(a_persons_retry());
    a_person_retries(&stack);
    theirs.reached().await;
    let first = stack.wait_pending("alpha", 1, &[&lost]).await;
    homu_heard_the_starts(&stack, "alpha", 1).await;
    assert_eq!(generation(&stack, 2).await, first);
    // The next commit never reaches Buildbot.
    stack.github.drop_pushes("auto", Times::Always);
    theirs.release();
    homu_took(&stack, 1).await;
    let second = stack.wait_pending("alpha", 1, &[&lost, &first]).await;
    assert_eq!(generation(&stack, 3).await, second);
    stack.jobs.set_all(Order::Green);

    held_after(&stack, 2).await;
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 1)],
            &[(&lost, 0), (&first, 2), (&second, 0)],
        )
        .await;
    assert_eq!(attempted(&stack).await, [RERUN]);
    assert!(!stack.is_merged("alpha", 1));
}

/// Drops what GitHub tells homu of alpha#1 from here on, does something to it, and waits until that
/// is lost.
async fn unheard(stack: &Stack, act: impl FnOnce(&Stack)) {
    stack
        .bridge
        .drop_every(Pattern::pull_event().from(Sender::Github));
    let lost = stack.bridge.matching(&Pattern::pull_event()).len();
    act(stack);
    stack
        .wait_until("GitHub's message to be lost", async || {
            stack.bridge.matching(&Pattern::pull_event()).len() > lost
        })
        .await;
    stack.bridge.heal();
}

/// alpha#1 is built, and alpha#2 waits behind it; returns the commit of alpha#1.
async fn one_is_built_and_one_waits(stack: &Stack) -> String {
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    stack.wait_running("alpha-mac", &sha).await;
    homu_heard_the_starts(stack, "alpha", 1).await;
    stack.approve("alpha", 2).await;
    stack.wait_verdict("alpha", 1, "alive").await;
    sha
}

#[tokio::test]
async fn a_pull_request_that_was_closed_unheard_is_told_and_the_next_one_starts() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.start_watchdog(&patient()).await;
    let sha = one_is_built_and_one_waits(&stack).await;
    unheard(&stack, |stack| stack.close("alpha", 1)).await;

    let next = stack.wait_pending("alpha", 2, &[]).await;
    assert_eq!(stack.stored("alpha", 1), None);
    // Its runs end well, and merge nothing.
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 2).await;
    assert!(!stack.is_merged("alpha", 1));
    let master = stack.github.commit("octo/alpha", &master(&stack, "alpha"));
    assert!(!master.unwrap().parents.contains(&sha));
    stack
        .check_the_end(
            &["closed alpha#1".to_owned(), release(&sha)],
            &[(&sha, 2), (&next, 2)],
        )
        .await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts.iter().map(brief).collect::<Vec<_>>(),
        ["outdated: replay_closed accepted effect, release_slot accepted done"]
    );
    let evidence = attempts[0]["evidence"].to_string();
    assert!(
        evidence.contains("the pull request is closed on GitHub"),
        "{evidence}"
    );
}

#[tokio::test]
async fn a_head_that_moved_unheard_is_told_and_its_late_result_is_not() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    // So that its results are missed before the head is told of.
    let settings = patient().set("timeouts.outdated", "\"10s\"");
    stack.start_watchdog(&settings).await;
    let sha = one_is_built_and_one_waits(&stack).await;
    let old = stack.github.pull("octo/alpha", 1).unwrap().head_sha;
    unheard(&stack, |stack| {
        stack.push("alpha", 1);
    })
    .await;
    // Its runs end well before homu is told of the head, and what they report is lost.
    stack
        .bridge
        .drop_every(Pattern::finished().at(&sha).from(Sender::Reporter));
    for builder in ["alpha-linux", "alpha-mac"] {
        stack.jobs.set_commit(builder, &sha, Order::Green);
    }

    let held = stack.wait_held("alpha", 1, "outdated").await;
    assert_eq!(held["verdict"], "unreported");
    assert_eq!(held["hold"]["plan"], json!(["replay_result"]));
    assert_eq!(stack.told(), Vec::<String>::new());

    let next = stack.wait_pending("alpha", 2, &[]).await;
    assert_eq!(stack.queued("alpha", 1).await.unwrap().approved_by, "");
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 2).await;
    assert!(!stack.is_merged("alpha", 1));
    stack
        .check_the_end(
            &[
                "synchronize alpha#1".to_owned(),
                release(&sha),
                "p= alpha#2".to_owned(),
            ],
            &[(&sha, 2), (&next, 2)],
        )
        .await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts.iter().map(brief).collect::<Vec<_>>(),
        [
            "outdated: replay_synchronize accepted effect, release_slot accepted done, nudge accepted effect"
        ]
    );
    let evidence = attempts[0]["evidence"].to_string();
    let words = format!("the bot tests head {}, GitHub has ", &old[..7]);
    assert!(evidence.contains(&words), "{words} is not in: {evidence}");
}

#[tokio::test]
async fn a_rerun_lets_a_pull_request_of_higher_priority_go_first() {
    let (stack, lost) = a_lost_push(&WatchdogSettings::quick()).await;
    stack.say("alpha", 2, REVIEWER, &format!("@{BOT} p=10"));
    stack.approve("alpha", 2).await;
    let urgent = stack.wait_pending("alpha", 2, &[]).await;
    // "approved, waiting" is all that the rerun could have come to by then.
    assert_eq!(stack.stored("alpha", 1).unwrap().status, "");
    stack.wait_merged("alpha", 2).await;
    stack.wait_merged("alpha", 1).await;
    let last = master(&stack, "alpha");
    let parents = stack.github.commit("octo/alpha", &last).unwrap().parents;
    assert_eq!(parents[0], urgent, "the urgent one was merged first");
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 1)],
            &[(&lost, 0), (&urgent, 2), (&last, 2)],
        )
        .await;
    assert_eq!(attempted(&stack).await, [RERUN]);
}

#[tokio::test]
async fn a_lost_try_is_built_again_and_the_build_beside_it_is_let_be() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.start_watchdog(&careful()).await;
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    homu_heard_the_starts(&stack, "alpha", 1).await;
    stack.github.drop_pushes("try", Times::Once);
    stack.try_build("alpha", 2);
    stack.wait_status("alpha", 2, "pending").await;
    let lost = stack.branch("alpha", "try").unwrap();
    let told = stack.wait_verdict("alpha", 2, "no_show").await;
    assert_eq!(told["try"], true);
    assert_eq!(told["merge_sha"], lost.as_str());
    assert_eq!(verdict_on(&told, "alpha-linux"), "no_show");
    let evidence = evidence(&told);
    assert!(
        evidence.contains("the whole history has no run of"),
        "{evidence}"
    );

    let mut tried = String::new();
    stack
        .wait_until("another commit to be tried", async || {
            tried = stack.branch("alpha", "try").unwrap();
            tried != lost
        })
        .await;
    let beside = stack.pending_build("alpha", 1).await.unwrap();
    assert_eq!(beside["verdict"], "alive");
    assert_eq!(beside["merge_sha"], sha.as_str());
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_status("alpha", 2, "success").await;
    assert_eq!(master(&stack, "alpha"), sha);
    assert!(!stack.is_merged("alpha", 2));
    stack
        .check_the_end(
            &[release(&lost), retry("alpha", 2)],
            &[(&sha, 2), (&lost, 0), (&tried, 1)],
        )
        .await;
    assert_eq!(attempted(&stack).await, [RERUN]);
}

/// The one run of a commit at a builder that is not known yet.
async fn other_run(stack: &Stack, builder: &str, sha: &str, known: &Run) -> Run {
    let mut runs = stack.buildbot_runs(sha).await.into_iter();
    let other = runs.find(|run| run.builder == builder && run.id != known.id);
    other.unwrap()
}

/// linux has built alpha#1 well; mac was stopped in the middle, and homu did not hear of it.
async fn half_is_green_and_half_is_lost(stack: &Stack) -> (String, Run) {
    stack.jobs.set("alpha-mac", Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    let run = stack.wait_running("alpha-mac", &sha).await;
    stack
        .wait_until(
            "homu to have the result of linux and the start of mac",
            async || {
                let results = stack.stored("alpha", 1).unwrap().results;
                results.len() == 2 && results["alpha-linux"].green == Some(true)
            },
        )
        .await;
    stack
        .bridge
        .drop_next(Pattern::finished().of("alpha-mac").from(Sender::Reporter));
    stack.buildbot.stop_run(run.id).await;
    stack.jobs.set("alpha-mac", Order::Green);
    (sha, run)
}

#[tokio::test]
async fn a_rerun_keeps_what_is_green_where_the_rest_is_over() {
    let stack = Stack::start(StackConfig::one_repository().with_rebuilds()).await;
    stack.start_watchdog(&careful()).await;
    let (sha, run) = half_is_green_and_half_is_lost(&stack).await;
    let lost = stack.wait_verdict("alpha", 1, "worker_lost").await;
    assert_eq!(verdict_on(&lost, "alpha-linux"), "reported");
    let evidence = evidence(&lost);
    assert!(evidence.contains("ended as cancelled"), "{evidence}");

    stack.wait_merged("alpha", 1).await;
    assert_eq!(master(&stack, "alpha"), sha, "the same commit");
    assert_eq!(
        other_run(&stack, "alpha-mac", &sha, &run).await.results,
        Some(0)
    );
    stack
        .check_the_end(&[release(&sha), retry("alpha", 1)], &[(&sha, 3)])
        .await;
    assert_eq!(
        attempted(&stack).await,
        ["worker_lost: release_slot accepted done, retry accepted effect"]
    );
}

#[tokio::test]
async fn a_rebuild_whose_run_appears_late_is_waited_for() {
    let stack = Stack::start(StackConfig::one_repository().with_rebuilds()).await;
    // Buildbot says yes, and for now does nothing.
    let order = Pattern::any().to("/builders/alpha-mac/builds/1/rebuild");
    stack
        .buildbot_bridge
        .answer_every(order.clone(), 200, "alpha-mac builds again");
    let settings = WatchdogSettings::quick().set("timeouts.effect", "\"20s\"");
    stack.start_watchdog(&settings).await;
    let (sha, run) = half_is_green_and_half_is_lost(&stack).await;
    stack
        .wait_until("homu to ask for a rebuild", async || {
            !stack.buildbot_bridge.matching(&order).is_empty()
        })
        .await;
    stack.buildbot_bridge.heal();
    // Longer than a lost run's successor, a start and a cooldown take.
    stack.look_on(6).await;
    let told = [release(&sha), retry("alpha", 1)];
    assert_eq!(stack.told(), told);

    stack.buildbot.rebuild_run(run.id).await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(master(&stack, "alpha"), sha, "the same commit");
    stack.check_the_end(&told, &[(&sha, 3)]).await;
    assert_eq!(
        attempted(&stack).await,
        ["worker_lost: release_slot accepted done, retry accepted effect"]
    );
}

/// alpha#1 failed on mac alone, and a person retried it: homu builds mac again on the same commit,
/// and keeps the red row. Returns the commit and the red run.
async fn a_partial_rebuild(stack: &Stack) -> (String, Run) {
    stack.jobs.set("alpha-mac", Order::Red);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack
        .wait_until("both results", async || {
            let results = stack.stored("alpha", 1).unwrap().results;
            let results = results.values();
            results.filter(|it| it.green.is_some()).count() == 2
        })
        .await;
    let runs = stack.buildbot_runs(&sha).await;
    let red = runs.into_iter().find(|run| run.results == Some(FAILURE));
    stack.jobs.set("alpha-mac", Order::Green);
    a_person_retries(stack);
    stack.wait_status("alpha", 1, "pending").await;
    let stored = stack.stored("alpha", 1).unwrap();
    assert_eq!(stored.merge_sha, sha);
    (sha, red.unwrap())
}

#[tokio::test]
async fn an_old_red_row_is_not_taken_for_the_result_of_the_rebuild() {
    let stack = Stack::start(StackConfig::one_repository().with_rebuilds()).await;
    stack.start_watchdog(&WatchdogSettings::quick()).await;
    // Of the rebuild homu hears nothing, so that its row stays as it was.
    let second = Pattern::packet().of("alpha-mac").from(Sender::Reporter);
    let mut first = stack
        .bridge
        .hold_next_answer(Pattern::finished().of("alpha-mac").from(Sender::Reporter));
    let rebuild = async {
        first.reached().await;
        stack.bridge.drop_every(second);
        first.release();
    };
    let ((sha, red), ()) = tokio::join!(a_partial_rebuild(&stack), rebuild);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(master(&stack, "alpha"), sha, "the same commit");
    let green = other_run(&stack, "alpha-mac", &sha, &red).await;
    assert_eq!(green.results, Some(0));
    stack
        .check_the_end(&[result("alpha-mac", &sha)], &[(&sha, 3)])
        .await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts.iter().map(brief).collect::<Vec<_>>(),
        ["unreported: replay_result accepted effect"]
    );
    let evidence = attempts[0]["evidence"].to_string();
    assert!(
        evidence.contains("a red row is left from before"),
        "{evidence}"
    );
}

#[tokio::test]
async fn a_rebuild_beside_an_old_red_row_that_never_came_is_asked_for_again() {
    let stack = Stack::start(StackConfig::one_repository().with_rebuilds()).await;
    let order = Pattern::any().to("/builders/alpha-mac/builds/1/rebuild");
    stack
        .buildbot_bridge
        .answer_every(order, 200, "alpha-mac builds again");
    stack.start_watchdog(&careful()).await;
    let (sha, _) = a_partial_rebuild(&stack).await;
    stack.buildbot_bridge.heal();
    let lost = stack.wait_verdict("alpha", 1, "no_show").await;
    assert_eq!(lost["generation"], 2);
    assert_eq!(verdict_on(&lost, "alpha-linux"), "reported");
    let evidence = evidence(&lost);
    assert!(
        evidence.contains("a red row is left from before"),
        "{evidence}"
    );

    stack.wait_merged("alpha", 1).await;
    assert_eq!(master(&stack, "alpha"), sha, "the same commit");
    stack
        .check_the_end(&[release(&sha), retry("alpha", 1)], &[(&sha, 3)])
        .await;
    assert_eq!(attempted(&stack).await, [RERUN]);
}
