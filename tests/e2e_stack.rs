//! The stack by itself, with no watchdog: homu, Buildbot and GitHub work together
//! as they do in the world, and break as they do there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use ci_watchdog::demo::github::{Fate, Times};
use stack::bridge::{Bridge, Passage};
use stack::buildbot::{CANCELLED, FAILURE, SUCCESS};
use stack::config::{BOT, REVIEWER, StackConfig};
use stack::jobs::Order;
use stack::message::{Message, Pattern, Sender};
use stack::process::{Leash, Workplace, tail};
use stack::{Stack, http_client, patience};

#[tokio::test]
async fn an_approved_pull_request_is_built_and_merged() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    let before = stack.branch("alpha", "master").unwrap();

    stack.approve("alpha", 1).await;
    stack.wait_merged("alpha", 1).await;

    let master = stack.branch("alpha", "master").unwrap();
    let merge = stack.github.commit("octo/alpha", &master).unwrap();
    let head = stack.github.pull("octo/alpha", 1).unwrap().head_sha;
    assert_eq!(merge.parents, [before, head]);

    let runs = stack.buildbot_runs(&master).await;
    let mut ended: Vec<_> = runs
        .iter()
        .map(|run| (run.builder.as_str(), run.results))
        .collect();
    ended.sort_unstable();
    assert_eq!(
        ended,
        [("alpha-linux", Some(SUCCESS)), ("alpha-mac", Some(SUCCESS))]
    );
    assert_eq!(
        stack
            .bridge
            .matching(&Pattern::started().from(Sender::Reporter))
            .len(),
        2
    );
    assert_eq!(
        stack
            .bridge
            .matching(&Pattern::finished().from(Sender::Reporter))
            .len(),
        2
    );
}

#[tokio::test]
async fn a_red_run_fails_the_pull_request() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set("alpha-linux", Order::Silent);
    stack.jobs.set("alpha-mac", Order::Red);

    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_status("alpha", 1, "failure").await;

    let runs = stack.buildbot_runs(&sha).await;
    let mac = runs.iter().find(|run| run.builder == "alpha-mac").unwrap();
    assert_eq!(mac.results, Some(FAILURE));
    stack
        .wait_until("homu to say so", async || {
            stack
                .bot_comments("alpha", 1)
                .iter()
                .any(|said| said.contains("Test failed"))
        })
        .await;
    assert!(!stack.is_merged("alpha", 1));
}

#[tokio::test]
async fn a_lost_start_jams_every_repository_until_the_slot_is_released() {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.jobs.set_all(Order::Silent);
    stack
        .bridge
        .drop_every(Pattern::started().from(Sender::Reporter));

    stack.approve("alpha", 1).await;
    let jammed = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &jammed).await;
    stack.wait_running("alpha-mac", &jammed).await;
    stack
        .wait_until("both starts to be lost", async || {
            stack.bridge.matching(&Pattern::started()).len() == 2
        })
        .await;
    stack.bridge.heal();

    // homu looks at its queue only when something happens. An approval and a
    // command are two such moments, and neither starts anything.
    stack.approve("beta", 1).await;
    assert_eq!(stack.queued("beta", 1).await.unwrap().status, "approved");
    stack.say("beta", 1, REVIEWER, &format!("@{BOT} p=5"));
    stack
        .wait_until("homu to hear the command", async || {
            !stack
                .bridge
                .matching(&Pattern::comment().about("beta", 1).saying("p=5"))
                .is_empty()
        })
        .await;
    assert_eq!(stack.queued("beta", 1).await.unwrap().status, "approved");
    assert_eq!(stack.stored("alpha", 1).unwrap().results.len(), 0);

    // Even a result of the jammed build changes nothing for the others.
    stack.jobs.set("alpha-linux", Order::Green);
    stack
        .wait_until("the result of alpha-linux", async || {
            !stack
                .bridge
                .matching(&Pattern::finished().of("alpha-linux"))
                .is_empty()
        })
        .await;
    assert_eq!(stack.queued("beta", 1).await.unwrap().status, "approved");

    stack
        .send_packet("buildStarted", "nobody", &jammed, &[])
        .await;
    let next = stack.wait_pending("beta", 1, &[]).await;
    assert_ne!(next, jammed);
    assert_eq!(
        stack.stored("alpha", 1).unwrap().merge_sha,
        jammed,
        "nothing was lost by it"
    );

    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    assert_eq!(
        stack.buildbot_runs(&jammed).await.len(),
        2,
        "nothing was built again"
    );
}

#[tokio::test]
async fn two_repositories_take_turns_at_the_one_slot() {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.jobs.set_all(Order::Chatter);
    let mut hold = stack
        .bridge
        .hold_next(Pattern::started().from(Sender::Reporter));
    let mut other = stack
        .bridge
        .hold_next(Pattern::started().from(Sender::Reporter));

    stack.approve("alpha", 1).await;
    let first = stack.wait_pending("alpha", 1, &[]).await;
    hold.reached().await;
    other.reached().await;
    stack.approve("beta", 1).await;
    assert_eq!(
        stack.queued("beta", 1).await.unwrap().status,
        "approved",
        "the slot is taken"
    );

    hold.release();
    let second = stack.wait_pending("beta", 1, &[]).await;
    other.release();
    assert_eq!(
        stack.stored("alpha", 1).unwrap().status,
        "pending",
        "both are built at once"
    );

    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    for sha in [first, second] {
        assert_eq!(stack.buildbot_runs(&sha).await.len(), 2);
    }
}

#[tokio::test]
async fn a_lost_worker_is_sent_as_a_retry_and_its_run_is_repeated() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    let lost = stack.wait_running("alpha-mac", &sha).await;

    stack.buildbot.worker("mac").kill9();
    stack
        .wait_until("the reporter to tell of it", async || {
            let told = stack.bridge.matching(&Pattern::finished().of("alpha-mac"));
            told.iter().any(|it| {
                matches!(&it.messages[0], Message::Finished { text, .. } if text[0] == "retry")
            })
        })
        .await;
    assert_eq!(
        stack.stored("alpha", 1).unwrap().results["alpha-mac"].green,
        None
    );

    stack.buildbot.worker("mac").start();
    let again = stack.wait_running("alpha-mac", &sha).await;
    assert_eq!(
        (again.request, again.number),
        (lost.request, lost.number + 1)
    );
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
}

#[tokio::test]
async fn a_run_cut_off_by_the_masters_end_is_sent_as_a_retry_not_as_red() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    stack.wait_running("alpha-mac", &sha).await;

    stack.buildbot.stop_master().await;
    let told = stack.bridge.matching(&Pattern::finished());
    assert_eq!(told.len(), 2);
    for exchange in told {
        assert!(
            matches!(&exchange.messages[0], Message::Finished { text, .. } if text[0] == "retry"),
            "{exchange:?}"
        );
    }
    assert_eq!(stack.stored("alpha", 1).unwrap().status, "pending");
}

#[tokio::test]
async fn a_result_reaches_a_homu_that_was_down_for_a_moment() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    stack.wait_running("alpha-mac", &sha).await;
    stack
        .wait_until("homu to hear both starts", async || {
            stack.stored("alpha", 1).unwrap().results.len() == 2
        })
        .await;

    stack.kill9_homu();
    stack.jobs.set_all(Order::Green);
    stack
        .wait_until("both runs to end", async || {
            stack
                .buildbot_runs(&sha)
                .await
                .iter()
                .all(|run| run.results == Some(SUCCESS))
        })
        .await;
    stack.start_homu().await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(
        stack.bridge.matching(&Pattern::finished()).len(),
        2,
        "each was heard once"
    );
}

#[tokio::test]
async fn a_frozen_homu_does_not_hold_up_buildbot() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    stack.wait_running("alpha-mac", &sha).await;

    stack.homu.freeze();
    stack.jobs.set_all(Order::Green);
    stack
        .wait_until("both runs to end", async || {
            stack
                .buildbot_runs(&sha)
                .await
                .iter()
                .all(|run| run.results == Some(SUCCESS))
        })
        .await;
    assert!(
        stack.bridge.matching(&Pattern::finished()).is_empty(),
        "no answer yet"
    );
    stack.homu.thaw();
    stack.wait_merged("alpha", 1).await;
}

#[tokio::test]
async fn an_answer_that_got_lost_is_not_sent_again() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack
        .bridge
        .lose_next_answer(Pattern::finished().of("alpha-linux"));
    stack.approve("alpha", 1).await;
    stack.wait_merged("alpha", 1).await;
    stack
        .wait_until("the reporter to leave it at that", async || {
            tail(&stack.buildbot.log(), 200).contains("alpha-linux/1 may be lost")
        })
        .await;
    let told = stack
        .bridge
        .matching(&Pattern::finished().of("alpha-linux"));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].passage, Passage::AnswerLost(200));
}

#[tokio::test]
async fn a_master_with_a_login_serves_only_those_who_have_it() {
    let config = StackConfig::one_repository().with_buildbot_login("watchdog", "open sesame");
    let stack = Stack::start(config).await;
    let anonymous = http_client().get(format!("{}/api/v2/builds", stack.buildbot.url()));
    assert_eq!(anonymous.send().await.unwrap().status(), 403);

    stack.approve("alpha", 1).await;
    stack.wait_merged("alpha", 1).await;
    let master = stack.branch("alpha", "master").unwrap();
    assert_eq!(stack.buildbot_runs(&master).await.len(), 2);
}

#[tokio::test]
async fn a_partial_success_is_built_anew_or_where_the_bridge_helps_on_the_same_commit() {
    for rebuilds in [false, true] {
        let mut config = StackConfig::one_repository();
        config.rebuilds = rebuilds;
        let stack = Stack::start(config).await;
        stack.jobs.set("alpha-mac", Order::Red);
        stack.approve("alpha", 1).await;
        stack.wait_status("alpha", 1, "failure").await;
        let sha = stack.branch("alpha", "auto").unwrap();
        stack
            .wait_until("both results", async || {
                let results = stack.stored("alpha", 1).unwrap().results;
                results
                    .values()
                    .filter(|result| result.green.is_some())
                    .count()
                    == 2
            })
            .await;

        stack.jobs.set("alpha-mac", Order::Green);
        stack.say("alpha", 1, REVIEWER, &format!("@{BOT} retry"));
        stack.wait_merged("alpha", 1).await;

        let merged = stack.branch("alpha", "master").unwrap();
        assert_eq!(merged == sha, rebuilds);
        let comments = stack.bot_comments("alpha", 1);
        let refused = comments
            .iter()
            .any(|said| said.contains("Failed to start rebuilding"));
        assert_eq!(refused, !rebuilds, "{comments:?}");
        let runs = stack.buildbot_runs(&sha).await;
        assert_eq!(runs.len(), if rebuilds { 3 } else { 2 });
    }
}

#[tokio::test]
async fn a_run_stopped_by_hand_is_sent_as_red() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    let run = stack.wait_running("alpha-mac", &sha).await;
    stack.buildbot.stop_run(run.id).await;
    stack.wait_status("alpha", 1, "failure").await;
    let runs = stack.buildbot_runs(&sha).await;
    assert!(
        runs.iter()
            .any(|it| it.id == run.id && it.results == Some(CANCELLED))
    );
}

#[tokio::test]
async fn a_held_request_arrives_although_its_sender_is_gone() {
    let workplace = Workplace::new();
    let (server, bridge) = (
        Bridge::new(workplace.reserve_port()),
        Bridge::new(workplace.reserve_port()),
    );
    server.lead_to("http://127.0.0.1:1").await;
    server.answer_every(Pattern::any(), 200, "OK");
    bridge.lead_to(server.url()).await;
    let mut hold = bridge.hold_next(Pattern::change());

    let url = format!("{}/github", bridge.url());
    let sender = tokio::spawn(http_client().post(url).body("a command").send());
    hold.reached().await;
    sender.abort();
    assert!(sender.await.unwrap_err().is_cancelled());
    assert!(server.exchanges().is_empty());
    hold.release();
    patience("the request to arrive", async || {
        server.exchanges().first().cloned()
    })
    .await;
    assert_eq!(server.exchanges()[0].body, "a command");
}

#[tokio::test]
async fn a_push_that_buildbot_did_not_hear_starts_nothing() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack
        .wait_until("the push to be lost", async || {
            stack
                .github
                .deliveries()
                .iter()
                .any(|it| it.fate == Fate::Dropped)
        })
        .await;

    // A retry alone helps nothing, for the slot is still held.
    stack.say("alpha", 1, REVIEWER, &format!("@{BOT} retry"));
    stack.wait_status("alpha", 1, "").await;
    assert_eq!(stack.branch("alpha", "auto").unwrap(), sha);
    assert_eq!(stack.buildbot.requests(&sha).await, []);

    stack.send_packet("buildStarted", "nobody", &sha, &[]).await;
    let again = stack.wait_pending("alpha", 1, &[&sha]).await;
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), again);
}

#[tokio::test]
async fn a_try_build_is_built_and_not_merged() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.try_build("alpha", 2);
    stack
        .wait_until("homu to say how it went", async || {
            stack
                .bot_comments("alpha", 2)
                .iter()
                .any(|said| said.contains("Test successful"))
        })
        .await;
    let sha = stack.branch("alpha", "try").unwrap();
    let runs = stack.buildbot_runs(&sha).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (runs[0].builder.as_str(), runs[0].branch.as_str()),
        ("alpha-linux", "try")
    );
    assert!(!stack.is_merged("alpha", 2));
}

#[tokio::test]
async fn homu_hears_of_pushes_conflicts_and_closed_pull_requests() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);

    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.push("alpha", 1);
    stack.wait_status("alpha", 1, "").await;
    assert_eq!(
        stack.stored("alpha", 1).unwrap().merge_sha,
        "",
        "{sha} is forgotten"
    );

    stack.send_packet("buildStarted", "nobody", &sha, &[]).await;
    stack.github.set_conflicts("octo/alpha", 2, true).unwrap();
    stack.approve("alpha", 2).await;
    stack.wait_status("alpha", 2, "error").await;

    stack.close("alpha", 2);
    stack
        .wait_until("homu to forget a closed pull request", async || {
            stack.stored("alpha", 2).is_none()
        })
        .await;
}

#[test]
fn a_test_that_is_killed_leaves_no_process_behind() {
    let started = |seconds: &str| {
        let mut sleep = Command::new("sleep");
        sleep.arg(seconds).process_group(0).spawn().unwrap()
    };
    let (mut held, mut freed) = (started("600"), started("601"));
    let leash = Leash::new();
    leash.hold(held.id());
    leash.hold(freed.id());
    leash.free(freed.id());

    // What the end of the test's process does: it closes the leash's input.
    drop(leash);
    assert_eq!(held.wait().unwrap().signal(), Some(9));
    assert!(freed.try_wait().unwrap().is_none());
    freed.kill().unwrap();
    freed.wait().unwrap();
}
