//! Workers that are killed and frozen, on a real homu 0.2.0 and a real Buildbot 4.3: what Buildbot
//! repairs by itself is awaited, what nobody else would repair is built again once, and an outage of
//! many workers is left to people.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use serde_json::Value;
use stack::Stack;
use stack::account::{brief, evidence, verdict_on};
use stack::buildbot::{RETRY, SUCCESS};
use stack::config::{RepositoryConfig, StackConfig};
use stack::ending::{release, retry};
use stack::jobs::Order;
use stack::message::{Pattern, Sender};
use stack::watchdog::WatchdogSettings;

/// The rerun of a build whose only lacking run was frozen, while homu had the rest of it green.
const RERUN_BESIDE_GREEN: &str = "stalled: release_slot accepted done, forget_green accepted effect, \
                                  retry accepted effect";

/// The word for: homu was made to forget the green result of a builder.
fn forget(builder: &str, sha: &str) -> String {
    format!("start {builder} {sha}")
}

/// The series that says whether a builder of a repository needs somebody; the alert of stuck builds
/// reads it.
fn stuck(label: &str, builder: &str) -> String {
    format!(
        "ci_watchdog_stuck_builds{{bot=\"homu\",builder={builder:?},provider=\"buildbot\",\
         repo={label:?}}}"
    )
}

/// The series that says whether a builder's workers are in a state.
fn zone(builder: &str, state: &str) -> String {
    format!("ci_watchdog_zone_state{{builder={builder:?},provider=\"buildbot\",state={state:?}}}")
}

/// Waits until a series has a value.
async fn wait_series(stack: &Stack, series: &str, value: &str) {
    stack
        .wait_until(&format!("{series} to be {value}"), async || {
            stack.watchdog.metric(series).await == value
        })
        .await;
}

/// Waits until a run of a commit goes on at a builder, and homu was told of its start; the worker
/// that has it.
async fn worker_at_work(stack: &Stack, builder: &str, sha: &str) -> String {
    let run = stack.wait_running(builder, sha).await;
    let start = Pattern::started()
        .of(builder)
        .at(sha)
        .from(Sender::Reporter);
    stack
        .wait_until(
            &format!("homu to hear of the start at {builder}"),
            async || !stack.bridge.matching(&start).is_empty(),
        )
        .await;
    stack.buildbot.worker_of(&run).await
}

/// Waits until homu was told how a builder's run of a commit ended.
async fn late_result(stack: &Stack, builder: &str, sha: &str) {
    let end = Pattern::finished()
        .of(builder)
        .at(sha)
        .from(Sender::Reporter);
    stack
        .wait_until(&format!("the late result of {builder}"), async || {
            !stack.bridge.matching(&end).is_empty()
        })
        .await;
}

/// The seconds without a heartbeat that an attempt's evidence names, of each of its builders.
fn silences(attempt: &Value) -> Vec<u64> {
    let facts = attempt["evidence"].as_array().unwrap().iter();
    let said = facts.filter_map(|fact| {
        let (_, ago) = fact.as_str()?.split_once("last heartbeat ")?;
        ago.strip_suffix("s ago")?.parse().ok()
    });
    said.collect()
}

#[tokio::test]
async fn what_a_killed_worker_leaves_is_buildbots_to_repeat_and_without_another_worker_is_starved()
{
    let config = StackConfig::one_repository().with_spare_worker("mac2", "mac");
    let stack = Stack::start(config).await;
    stack.jobs.set("alpha-mac", Order::Chatter);
    stack.start_watchdog(&WatchdogSettings::unhurried()).await;
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    let first = worker_at_work(&stack, "alpha-mac", &sha).await;

    // Another one is able: Buildbot gives it the run by itself.
    let lost = stack.wait_running("alpha-mac", &sha).await;
    stack.buildbot.worker(&first).kill9();
    let again = stack.wait_running_after(&lost).await;
    let second = stack.buildbot.worker_of(&again).await;
    assert_ne!(first, second);
    // Longer than a lost run may wait for its successor.
    stack.look_on(6).await;
    let build = stack.wait_verdict("alpha", 1, "alive").await;
    assert_eq!(build["hold"], Value::Null, "{build:#}");
    assert_eq!(stack.told(), [] as [&str; 0]);

    // None is able any more: no rerun could help, and people are told.
    stack.buildbot.worker(&second).kill9();
    let build = stack.wait_verdict("alpha", 1, "starved").await;
    assert_eq!(build["hold"], Value::Null, "nothing is wanted: {build:#}");
    wait_series(&stack, &stuck("alpha", "alpha-mac"), "1").await;
    assert_eq!(
        stack.watchdog.metric(&zone("alpha-mac", "outage")).await,
        "1"
    );
    let words = ["alpha-mac (buildbot): starved", "0 of 2 workers are able"];
    stack.explains("alpha#1", &words).await;
    stack.look_on(6).await;
    stack.wait_verdict("alpha", 1, "starved").await;
    assert_eq!(stack.told(), [] as [&str; 0]);

    // A worker returns.
    stack.buildbot.worker(&first).start();
    stack.wait_running_after(&again).await;
    stack.wait_verdict("alpha", 1, "alive").await;
    wait_series(&stack, &stuck("alpha", "alpha-mac"), "0").await;
    stack.jobs.set("alpha-mac", Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), sha);
    stack.check_the_end(&[], &[(&sha, 4)]).await;
    let ends = stack.buildbot.runs(&sha).await;
    let mut ends: Vec<_> = ends.iter().map(|run| run.results.unwrap()).collect();
    ends.sort_unstable();
    assert_eq!(ends, [SUCCESS, SUCCESS, RETRY, RETRY]);
}

#[tokio::test]
async fn a_frozen_workers_run_is_built_again_once_as_a_new_commit_and_its_late_result_is_void() {
    // homu would build the missing part again, on the same commit, wherever it may.
    let config = StackConfig::one_repository()
        .with_spare_worker("linux2", "linux")
        .with_spare_worker("mac2", "mac")
        .with_rebuilds();
    let stack = Stack::start(config).await;
    stack.jobs.set_all(Order::Chatter);
    stack.start_watchdog(&WatchdogSettings::unhurried()).await;

    // Both runs are frozen, and the watchdog is stopped at its first request.
    stack.approve("alpha", 1).await;
    let old = stack.wait_pending("alpha", 1, &[]).await;
    let linux = worker_at_work(&stack, "alpha-linux", &old).await;
    let mac = worker_at_work(&stack, "alpha-mac", &old).await;
    let mut first = stack
        .bridge
        .hold_next(Pattern::change().from(Sender::Watchdog));
    stack.buildbot.worker(&linux).freeze();
    stack.buildbot.worker(&mac).freeze();
    first.reached().await;
    let words = [
        "alpha#1: stalled",
        "alpha-linux (buildbot): stalled",
        "alpha-mac (buildbot): stalled",
        &format!("under way on {linux}"),
        &format!("under way on {mac}"),
    ];
    stack.explains("alpha#1", &words).await;
    first.release();
    let new = stack.wait_pending("alpha", 1, &[&old]).await;
    // They thaw while homu waits for the new commit, and their runs end red.
    for (builder, able) in [("alpha-linux", &linux), ("alpha-mac", &mac)] {
        assert_ne!(&worker_at_work(&stack, builder, &new).await, able);
        stack.jobs.set_commit(builder, &old, Order::Red);
        stack.buildbot.worker(able).thaw();
        late_result(&stack, builder, &old).await;
    }
    stack.wait_verdict("alpha", 1, "alive").await;
    let stored = stack.stored("alpha", 1).unwrap();
    assert_eq!(
        (stored.status.as_str(), &stored.merge_sha),
        ("pending", &new)
    );
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), new);

    // One of two is frozen. What of the build lives holds the rerun back.
    stack.jobs.set_all(Order::Chatter);
    stack.approve("alpha", 2).await;
    let stale = stack.wait_pending("alpha", 2, &[]).await;
    worker_at_work(&stack, "alpha-linux", &stale).await;
    let mac = worker_at_work(&stack, "alpha-mac", &stale).await;
    stack.buildbot.worker(&mac).freeze();
    let build = stack.wait_held("alpha", 2, "law_of_reruns").await;
    assert_eq!(verdict_on(&build, "alpha-linux"), "alive");
    assert_eq!(verdict_on(&build, "alpha-mac"), "stalled");
    wait_series(&stack, &stuck("alpha", "alpha-mac"), "1").await;
    let told = [release(&old), retry("alpha", 1)];
    assert_eq!(stack.told(), told);

    // It ends green, and homu is made to forget that, or it would wait for the frozen commit again.
    stack.jobs.set_commit("alpha-linux", &stale, Order::Green);
    let fresh = stack.wait_pending("alpha", 2, &[&stale]).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 2).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), fresh);
    stack.buildbot.worker(&mac).thaw();
    late_result(&stack, "alpha-mac", &stale).await;
    let then = [
        release(&stale),
        forget("alpha-linux", &stale),
        retry("alpha", 2),
    ];
    stack
        .check_the_end(
            &[told.to_vec(), then.to_vec()].concat(),
            &[(&old, 2), (&new, 2), (&stale, 2), (&fresh, 2)],
        )
        .await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), fresh);
    let attempts = stack.attempts().await;
    let done: Vec<String> = attempts.iter().map(brief).collect();
    let rerun = "stalled: release_slot accepted done, retry accepted effect";
    assert_eq!(done, [rerun, RERUN_BESIDE_GREEN]);
    for (attempt, dead) in attempts.iter().zip([2, 1]) {
        let silent = silences(attempt);
        assert_eq!(silent.len(), dead, "{attempt:#}");
        assert!(silent.iter().all(|seconds| *seconds >= 8), "{attempt:#}");
    }
}

#[tokio::test]
async fn on_silence_alert_only_tells_and_a_worker_frozen_while_idle_is_found_by_its_first_contact()
{
    let config = StackConfig::one_repository().with_spare_worker("mac2", "mac");
    let stack = Stack::start(config).await;
    stack.jobs.set("alpha-linux", Order::Green);
    stack.jobs.set("alpha-mac", Order::Chatter);
    let soon = WatchdogSettings::unhurried().set("timeouts.pinging", "\"6s\"");
    let alert = soon.clone().set("safety.on_silence", "\"alert\"");
    stack.start_watchdog(&alert).await;

    // Frozen in the middle of a run.
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    let worker = worker_at_work(&stack, "alpha-mac", &sha).await;
    stack.buildbot.worker(&worker).freeze();
    let build = stack.wait_held("alpha", 1, "on_silence").await;
    assert_eq!(build["verdict"], "stalled");
    wait_series(&stack, &stuck("alpha", "alpha-mac"), "1").await;
    let words = ["alpha-mac is only silent, and on_silence = \"alert\""];
    stack.explains("alpha#1", &words).await;
    stack.wait_ticks(10).await;
    assert_eq!(stack.told(), [] as [&str; 0]);
    stack.buildbot.worker(&worker).thaw();
    stack.wait_verdict("alpha", 1, "alive").await;
    stack.jobs.set("alpha-mac", Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), sha);

    // Frozen while idle, and the next run is given to it.
    stack.jobs.set("alpha-mac", Order::Chatter);
    stack.buildbot.set_paused("mac2", true).await;
    stack.buildbot.worker("mac").freeze();
    stack.approve("alpha", 2).await;
    let stale = stack.wait_pending("alpha", 2, &[]).await;
    let build = stack.wait_held("alpha", 2, "on_silence").await;
    assert_eq!(verdict_on(&build, "alpha-mac"), "stalled");
    let facts = evidence(&build);
    for words in [
        "under way on mac (pinging worker)",
        "its worker does not answer for ",
    ] {
        assert!(facts.contains(words), "{words:?} is not in {facts}");
    }
    wait_series(&stack, &stuck("alpha", "alpha-mac"), "1").await;

    // It may act on silence now, and still not where nobody else is able.
    stack.watchdog_config(&soon);
    stack.watchdog.reload();
    stack.wait_held("alpha", 2, "zone_outage").await;
    let words = ["alpha-mac at buildbot is in outage: none of its 2 workers is able"];
    stack.explains("alpha#2", &words).await;
    stack.wait_ticks(10).await;
    assert_eq!(stack.told(), [] as [&str; 0]);
    stack.buildbot.set_paused("mac2", false).await;
    let fresh = stack.wait_pending("alpha", 2, &[&stale]).await;
    assert_eq!(worker_at_work(&stack, "alpha-mac", &fresh).await, "mac2");
    stack.jobs.set("alpha-mac", Order::Green);
    stack.wait_merged("alpha", 2).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), fresh);

    // When it thaws it executes what it was given, for nobody.
    stack.buildbot.worker("mac").thaw();
    late_result(&stack, "alpha-mac", &stale).await;
    let told = [
        release(&stale),
        forget("alpha-linux", &stale),
        retry("alpha", 2),
    ];
    stack
        .check_the_end(&told, &[(&sha, 2), (&stale, 2), (&fresh, 2)])
        .await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), fresh);
    let attempts: Vec<String> = stack.attempts().await.iter().map(brief).collect();
    assert_eq!(attempts, [RERUN_BESIDE_GREEN]);
}

/// Repositories that share the builder `linux`; each has one more builder, all of them on the worker
/// `check`.
const FLEET: [(&str, &str); 6] = [
    ("one", "one-check"),
    ("two", "two-check"),
    ("three", "three-check"),
    ("four", "four-check"),
    ("five", "five-check"),
    ("six", "six-check"),
];

/// The fleet: twelve workers for `linux`, three of them on one machine, three on another, and six on
/// a third one. So many chatter slowly, and are looked at slowly, or the master does nothing else.
fn fleet() -> (StackConfig, WatchdogSettings) {
    let repositories = FLEET.map(|(label, check)| RepositoryConfig {
        label,
        builders: vec!["linux".to_owned(), check.to_owned()],
        try_builders: vec![],
        pulls: 1,
    });
    let mut config = StackConfig::of(repositories.to_vec());
    for number in 2..=12 {
        let machine = match number {
            2..=3 => "linux",
            4..=6 => "linux4",
            _ => "linux7",
        };
        config = config.with_spare_worker_on(machine, &format!("linux{number}"), "linux");
    }
    config.output_delay_seconds = 1.5;
    let settings = WatchdogSettings::unhurried()
        .set("loop.tick", "\"1s\"")
        .set("safety.settle", "\"3s\"")
        .set("safety.source_good_for", "\"2s\"")
        .set("timeouts.heartbeat", "\"10s\"")
        .set("safety.outage_window", "\"10m\"")
        .set("safety.storm_cooldown", "\"12s\"")
        .set("timeouts.effect", "\"30s\"")
        .set("safety.reruns_per_zone_hour", "6");
    let patient = FLEET.iter().fold(settings, |settings, (label, check)| {
        settings.add(&format!(
            "[repo.{label}.builder.{check}.timeouts]\nheartbeat = \"5m\"\n"
        ))
    });
    (config, patient)
}

#[tokio::test]
async fn six_deaths_and_half_of_the_workers_gone_are_an_outage_and_its_end_is_no_stampede() {
    let (config, settings) = fleet();
    let stack = Stack::start(config).await;
    stack.jobs.set_all(Order::Silent);
    stack.jobs.set("linux", Order::Chatter);
    // Nothing is given to the third machine at first.
    let third: Vec<String> = (7..=12).map(|number| format!("linux{number}")).collect();
    for worker in &third {
        stack.buildbot.set_paused(worker, true).await;
    }
    stack.start_watchdog(&settings).await;
    let mut shas = vec![];
    let mut workers = vec![];
    for (label, check) in FLEET {
        stack.approve(label, 1).await;
        let sha = stack.wait_pending(label, 1, &[]).await;
        workers.push(worker_at_work(&stack, "linux", &sha).await);
        worker_at_work(&stack, check, &sha).await;
        shas.push(sha);
    }
    for worker in &third {
        stack.buildbot.set_paused(worker, false).await;
    }

    // The rest of each build lives until the outage is known: no death comes before the others.
    stack.buildbot.worker("linux").freeze();
    stack.buildbot.worker("linux4").freeze();
    wait_series(&stack, &zone("linux", "outage"), "1").await;
    for (_, check) in FLEET {
        stack.jobs.set(check, Order::Green);
    }
    for (label, _) in FLEET {
        let build = stack.wait_held(label, 1, "zone_outage").await;
        assert_eq!(verdict_on(&build, "linux"), "stalled");
    }
    let words = ["linux at buildbot is in outage: 6 builds died in a short time"];
    stack.explains("four#1", &words).await;
    let metrics = stack.watchdog.get("/metrics").await.unwrap();
    let outages = metrics.lines().filter(|line| {
        line.starts_with("ci_watchdog_zone_state{") && line.ends_with("state=\"outage\"} 1")
    });
    assert_eq!(outages.count(), 1, "one outage of one zone:\n{metrics}");
    let able = "ci_watchdog_zone_workers_able{builder=\"linux\",provider=\"buildbot\"}";
    assert_eq!(stack.watchdog.metric(able).await, "6", "half of them");
    assert_eq!(stack.told(), [] as [&str; 0]);

    // The first machine comes back by itself, and what it has goes on.
    let first = ["linux", "linux2", "linux3"];
    let (back, gone): (Vec<usize>, Vec<usize>) =
        (0..6).partition(|index| first.contains(&workers[*index].as_str()));
    assert_eq!(back.len(), 3, "{workers:?}");
    stack.buildbot.worker("linux").thaw();
    for index in &back {
        stack.jobs.set_commit("linux", &shas[*index], Order::Green);
    }
    for index in &back {
        stack.wait_merged(FLEET[*index].0, 1).await;
    }
    // The others wait until no death is recent any more, and for the end of the storm.
    stack.watchdog_config(&settings.set("safety.outage_window", "\"3s\""));
    stack.watchdog.reload();
    wait_series(&stack, &zone("linux", "cooldown"), "1").await;
    assert_eq!(stack.told(), [] as [&str; 0]);
    // And then for one another: the first retry is on its way for long.
    let mut retried = stack
        .bridge
        .hold_next(Pattern::comment().from(Sender::Watchdog));
    retried.reached().await;
    for index in &gone[1..] {
        stack.wait_held(FLEET[*index].0, 1, "rerun_in_flight").await;
    }
    stack.wait_ticks(3).await;
    let (_, check) = FLEET[gone[0]];
    let sha = &shas[gone[0]];
    assert_eq!(stack.told(), [release(sha), forget(check, sha)]);
    stack.jobs.set("linux", Order::Green);
    retried.release();
    let mut told = vec![];
    let mut runs: Vec<(String, usize)> = shas.iter().map(|sha| (sha.clone(), 2)).collect();
    for index in &gone {
        let (label, check) = FLEET[*index];
        stack.wait_merged(label, 1).await;
        runs.push((stack.branch(label, "master").unwrap(), 2));
        told.push(release(&shas[*index]));
        told.push(forget(check, &shas[*index]));
        told.push(retry(label, 1));
    }
    stack.buildbot.worker("linux4").thaw();
    for index in &gone {
        late_result(&stack, "linux", &shas[*index]).await;
    }
    let runs: Vec<(&str, usize)> = runs
        .iter()
        .map(|(sha, runs)| (sha.as_str(), *runs))
        .collect();
    stack.check_the_end(&told, &runs).await;
    let attempts = stack.attempts().await;
    let done: Vec<String> = attempts.iter().map(brief).collect();
    let in_doubt = RERUN_BESIDE_GREEN.replace("retry accepted", "retry unanswered");
    assert_eq!(done, [&in_doubt, RERUN_BESIDE_GREEN, RERUN_BESIDE_GREEN]);
    wait_series(&stack, &zone("linux", "good"), "1").await;
}
