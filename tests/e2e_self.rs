//! What befalls the watchdog itself, beside a real homu 0.2.0 and a real Buildbot 4.3: it is stopped,
//! its clock is set, its disk is full, it is killed in the middle of each. Whatever it was, everything
//! is looked at afresh first, what lives is left alone, and what is dead is repaired once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use std::fs;
use std::time::{Duration, SystemTime};

use ci_watchdog::demo::github::Times;
use serde_json::{Value, json};
use stack::config::{RepositoryConfig, StackConfig};
use stack::ending::{release, result, retry, unanswered};
use stack::jobs::Order;
use stack::message::{Pattern, Sender};
use stack::wall_clock::{WallClock, YEAR, years_from_now};
use stack::watchdog::WatchdogSettings;
use stack::{Stack, patience};

/// How long the watchdog looks on before it acts, in these tests; long enough to be seen.
const SETTLE: Duration = Duration::from_secs(4);

/// How long it is stopped: longer than every timeout here, and than a look may take with all that the
/// loop allows for (25 s), so that no stop of this length goes unseen.
const STOPPED: Duration = Duration::from_secs(27);

/// How long a report may take: on a busy machine Buildbot's reporter may need some seconds, and what
/// the watchdog does then is not what these tests are about.
const REPORT: Duration = Duration::from_secs(6);

fn patient() -> WatchdogSettings {
    WatchdogSettings::quick().set("timeouts.report", &format!("\"{}s\"", REPORT.as_secs()))
}

fn settings() -> WatchdogSettings {
    patient()
        .set("timeouts.heartbeat", "\"25s\"")
        .set("timeouts.total", "\"26s\"")
        .set("safety.settle", &format!("\"{}s\"", SETTLE.as_secs()))
        .set("safety.outage_window", "\"20s\"")
}

/// Approves a repository's first pull request, and waits until homu heard that every run of it goes
/// on, so that the start slot is free.
async fn build_goes_on(stack: &Stack, label: &str, builders: &[&str]) -> String {
    stack.approve(label, 1).await;
    let sha = stack.wait_pending(label, 1, &[]).await;
    for builder in builders {
        stack.wait_running(builder, &sha).await;
    }
    stack
        .wait_until("homu to hear of every start", async || {
            stack.stored(label, 1).unwrap().results.len() == builders.len()
        })
        .await;
    sha
}

/// Loses the push for a repository's first pull request: its build is dead.
async fn build_gets_lost(stack: &Stack, label: &str) -> String {
    stack.github.drop_pushes("auto", Times::Once);
    stack.approve(label, 1).await;
    stack.wait_pending(label, 1, &[]).await
}

async fn status(stack: &Stack) -> Value {
    stack.watchdog.get_json("/api/v1/status").await.unwrap()
}

/// Waits until the watchdog says that it looks afresh, and why.
async fn looks_afresh(stack: &Stack, cause: &str) {
    patience(&format!("it to look afresh: {cause}"), async || {
        let status = stack.watchdog.get_json("/api/v1/status").await.ok()?;
        let why = status["not_settled"].as_str()?.to_owned();
        (why.contains(cause) && why.contains("looking afresh")).then_some(())
    })
    .await;
}

/// When a builder's run gave its last sign of life, as the watchdog tells.
async fn heartbeat(stack: &Stack, label: &str, builder: &str) -> Option<SystemTime> {
    let build = stack.pending_build(label, 1).await?;
    let builders = build["expectations"].as_array().unwrap();
    let told = builders.iter().find(|it| it["builder"] == builder)?["heartbeat"].as_str()?;
    Some(told.parse::<jiff::Timestamp>().unwrap().into())
}

/// Waits until a pending build's commit is not this one.
async fn rebuilt(stack: &Stack, label: &str, lost: &str) -> String {
    stack.wait_pending(label, 1, &[lost]).await
}

/// Nothing was told to homu until the watchdog had looked on for long enough since `begun`.
fn nothing_was_told_before_it_settled(stack: &Stack, begun: Duration) {
    for request in stack.watchdog_requests() {
        assert!(request.at >= begun + SETTLE, "{begun:?}: {request:?}");
    }
}

/// How a stopped watchdog goes on.
#[derive(Clone, Copy, PartialEq)]
enum Resume {
    /// `SIGCONT`.
    Thaw,
    /// `kill -9`, and a new start.
    Restart,
}

/// The watchdog is stopped while one build is dead, one is silent and alive, and one comes to its end.
/// It may act only from then on, so that nothing but what it knows of itself holds it back.
async fn stopped_while_much_happens(resume: Resume) {
    let repositories = [
        ("alpha", &["linux", "mac"][..]),
        ("beta", &["linux", "mac"]),
    ];
    let mut repositories: Vec<RepositoryConfig> = repositories
        .into_iter()
        .map(|(label, platforms)| RepositoryConfig::of(label, platforms))
        .collect();
    repositories.push(RepositoryConfig::of("gamma", &["linux"]));
    let stack = Stack::start(StackConfig::of(repositories)).await;
    stack.jobs.set_all(Order::Silent);
    stack.start_watchdog(&settings().observing()).await;
    let silent = build_goes_on(&stack, "beta", &["beta-linux", "beta-mac"]).await;
    let ending = build_goes_on(&stack, "gamma", &["gamma-linux"]).await;
    let dead = build_gets_lost(&stack, "alpha").await;
    let held = stack.wait_held("alpha", 1, "observe").await;
    assert_eq!(held["verdict"], "no_show");
    patience("beta-linux to be silent for a while", async || {
        let last = heartbeat(&stack, "beta", "beta-linux").await?;
        let silent_for = SystemTime::now().duration_since(last).ok()?;
        (silent_for >= Duration::from_secs(5)).then_some(())
    })
    .await;

    stack.watchdog_config(&settings());
    stack.watchdog.freeze();
    stack.watchdog.reload();
    let begun = stack.age();
    stack.jobs.set("gamma-linux", Order::Green);
    stack.jobs.set("beta-mac", Order::Green);
    stack.wait_merged("gamma", 1).await;
    stack
        .wait_until(
            "the result of beta-mac, and the end of the stop",
            async || {
                let stored = stack.stored("beta", 1).unwrap();
                stored.results["beta-mac"].green == Some(true) && stack.age() - begun >= STOPPED
            },
        )
        .await;
    assert_eq!(stack.told(), Vec::<String>::new());
    stack.jobs.set("alpha-linux", Order::Green);
    stack.jobs.set("alpha-mac", Order::Green);

    let (went_on, wall) = (stack.bridge.age(), SystemTime::now());
    match resume {
        Resume::Thaw => {
            stack.watchdog.thaw();
            looks_afresh(&stack, "a tick came late").await;
            assert_ne!(
                stack
                    .watchdog
                    .metric("ci_watchdog_loop_late_ticks_total")
                    .await,
                "0"
            );
        }
        Resume::Restart => {
            stack.kill9_watchdog();
            stack.watchdog.start().await;
            looks_afresh(&stack, "started a moment ago").await;
        }
    }
    stack.wait_held("alpha", 1, "not_settled").await;
    let last = heartbeat(&stack, "beta", "beta-linux").await.unwrap();
    assert!(last >= wall, "{last:?} is from before {wall:?}");
    // It was silent for longer than its deadline, of which nobody saw much.
    stack.jobs.set("beta-linux", Order::Chatter);

    let repaired = rebuilt(&stack, "alpha", &dead).await;
    stack.wait_merged("alpha", 1).await;
    nothing_was_told_before_it_settled(&stack, went_on);
    let alive = stack.wait_verdict("beta", 1, "alive").await;
    assert_eq!(
        (&alive["merge_sha"], &alive["generation"]),
        (&json!(silent), &json!(1))
    );
    stack.jobs.set("beta-linux", Order::Green);
    stack.wait_merged("beta", 1).await;
    let runs = [
        (dead.as_str(), 0),
        (&repaired, 2),
        (&silent, 2),
        (&ending, 1),
    ];
    stack
        .check_the_end(&[release(&dead), retry("alpha", 1)], &runs)
        .await;
    assert_eq!(stack.attempts().await.len(), 1);
}

#[tokio::test]
async fn stopped_for_longer_than_every_timeout_it_looks_at_everything_afresh() {
    stopped_while_much_happens(Resume::Thaw).await;
}

#[tokio::test]
async fn killed_while_it_is_stopped_it_looks_at_everything_afresh() {
    stopped_while_much_happens(Resume::Restart).await;
}

/// Waits until the watchdog's own times are so many years from the machine's.
async fn tells_the_year(stack: &Stack, years: i64) {
    patience(&format!("{years} years to have passed"), async || {
        let status = stack.watchdog.get_json("/api/v1/status").await.ok()?;
        (years_from_now(status["at"].as_str()?) == years).then_some(())
    })
    .await;
}

/// The watchdog's log tells of no tick that came late by years: time since boot was not set.
fn no_years_were_missed(stack: &Stack) {
    let log = fs::read_to_string(stack.watchdog.log()).unwrap();
    let late = log.lines().filter(|line| line.contains("a tick came late"));
    for line in late {
        let by = line.rsplit_once("by=").map(|(_, by)| by);
        let by = by.and_then(|by| by.strip_suffix('s')?.parse::<f64>().ok());
        assert!(by.unwrap() < YEAR.as_secs_f64(), "{line}");
    }
}

/// Kills the watchdog and starts it with this clock.
async fn restart_in(stack: &Stack, clock: &WallClock, years: i32) {
    stack.kill9_watchdog();
    clock.set(years);
    stack.watchdog.start_with(&clock.environment()).await;
    looks_afresh(stack, "started a moment ago").await;
    tells_the_year(stack, years.into()).await;
    let started = status(stack).await["started"].as_str().unwrap().to_owned();
    assert_eq!(years_from_now(&started), i64::from(years));
}

#[tokio::test]
async fn a_wall_clock_that_is_set_by_ten_years_changes_no_decision() {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.jobs.set_all(Order::Silent);
    let clock = WallClock::new(stack.jobs.dir());
    // As few reruns, and as short a memory, as can be: what was done is forgotten by watched time only.
    let settings = patient()
        .set("timeouts.heartbeat", "\"5m\"")
        .set("safety.reruns_per_pull", "1")
        .set("journal.retention", "\"24h\"");
    stack.watchdog_config(&settings);
    stack.watchdog.start_with(&clock.environment()).await;
    tells_the_year(&stack, 0).await;
    let silent = build_goes_on(&stack, "beta", &["beta-linux", "beta-mac"]).await;

    // A dead build, and its successor, which dies in the same way. Ten years ahead, nothing is due
    // sooner.
    let asked = stack.bridge.age();
    let dead = build_gets_lost(&stack, "alpha").await;
    stack.github.drop_pushes("auto", Times::Once);
    clock.set(10);
    tells_the_year(&stack, 10).await;
    let dead_too = rebuilt(&stack, "alpha", &dead).await;
    let start = Duration::from_secs(3);
    let told = stack.watchdog_requests();
    assert!(told[0].at >= asked + start, "{asked:?}: {told:?}");
    stack.wait_held("alpha", 1, "pull_budget").await;
    stack.check_metrics().await;
    assert!(
        stack
            .watchdog
            .get("/")
            .await
            .unwrap()
            .contains("pull_budget")
    );

    // Twenty years back, nothing is due later.
    clock.set(-10);
    tells_the_year(&stack, -10).await;
    stack
        .bridge
        .drop_next(Pattern::finished().of("beta-mac").from(Sender::Reporter));
    let asked = stack.bridge.age();
    stack.jobs.set("beta-mac", Order::Green);
    stack
        .wait_until("the result of beta-mac to be replayed", async || {
            stack.told().len() == 3
        })
        .await;
    let told = stack.watchdog_requests();
    assert!(told[2].at >= asked + REPORT, "{asked:?}: {told:?}");
    stack.check_metrics().await;

    // The journal is pruned at each start: in any year it keeps what the budget counts.
    let records = patience("every request to be settled", async || {
        let journal = status(&stack).await["journal"].clone();
        (journal["open_intents"] == 0).then(|| journal["records"].clone())
    })
    .await;
    for years in [10, -10] {
        restart_in(&stack, &clock, years).await;
        stack.wait_held("alpha", 1, "pull_budget").await;
        assert_eq!(status(&stack).await["journal"]["records"], records);
        let build = stack.pending_build("beta", 1).await.unwrap();
        assert_eq!(build["verdict"], "alive", "{build:#}");
        stack
            .explains("alpha#1", &["held by the gate pull_budget"])
            .await;
        let history = stack.watchdog.run(&["history"]).await;
        assert!(history.status.success(), "{history:?}");
    }
    assert_eq!(stack.told().len(), 3, "{:?}", stack.told());

    // The budget alone held it.
    stack.watchdog_config(&settings.set("safety.reruns_per_pull", "2"));
    stack.watchdog.reload();
    let repaired = rebuilt(&stack, "alpha", &dead_too).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    let told = [
        release(&dead),
        retry("alpha", 1),
        result("beta-mac", &silent),
        release(&dead_too),
        retry("alpha", 1),
    ];
    let runs = [
        (dead.as_str(), 0),
        (&dead_too, 0),
        (&repaired, 2),
        (&silent, 2),
    ];
    stack.check_the_end(&told, &runs).await;
    tells_the_year(&stack, -10).await;
    no_years_were_missed(&stack);
    stack.watchdog.stop().await;
}

/// Nothing can be written to the journal: this is what is said of it, while everything else goes on.
async fn nothing_can_be_written(stack: &Stack, gate: &str, complaint: &str) {
    let held = stack.wait_held("alpha", 1, gate).await;
    assert_eq!(held["verdict"], "no_show", "{held:#}");
    patience("it to be not ready", async || {
        let (status, said) = stack.watchdog.look_at("/-/ready").await;
        (status == 503 && said.contains(complaint)).then_some(())
    })
    .await;
    assert_eq!(stack.watchdog.look_at("/-/healthy").await.0, 200);
    let metric = async |name| stack.watchdog.metric(name).await;
    assert_eq!(metric("ci_watchdog_journal_writable").await, "0");
    assert_ne!(
        metric("ci_watchdog_journal_write_failures_total").await,
        "0"
    );
    stack.check_metrics().await;
}

/// It can be written again, and is.
async fn it_is_ready(stack: &Stack) {
    patience("it to be ready", async || {
        (stack.watchdog.look_at("/-/ready").await.0 == 200).then_some(())
    })
    .await;
}

/// A stack whose watchdog has a small disk.
async fn stack_with_a_small_disk(settings: &WatchdogSettings) -> Stack {
    let stack = Stack::start(StackConfig::two_repositories()).await;
    stack.jobs.set_all(Order::Silent);
    stack.watchdog.use_small_disk();
    stack.start_watchdog(settings).await;
    it_is_ready(&stack).await;
    stack
}

#[tokio::test]
async fn on_a_full_disk_it_sends_nothing_also_after_a_restart_and_with_room_goes_on() {
    let settings = settings()
        .set("timeouts.heartbeat", "\"5m\"")
        .set("timeouts.total", "\"10m\"");
    let stack = stack_with_a_small_disk(&settings).await;
    let silent = build_goes_on(&stack, "beta", &["beta-linux", "beta-mac"]).await;
    stack.wait_verdict("beta", 1, "alive").await;
    let complaint = stack.watchdog.fill_disk();
    let dead = build_gets_lost(&stack, "alpha").await;
    nothing_can_be_written(&stack, "journal", complaint).await;

    stack.kill9_watchdog();
    stack.watchdog.start().await;
    looks_afresh(&stack, "started a moment ago").await;
    nothing_can_be_written(&stack, "journal", complaint).await;
    stack.wait_verdict("beta", 1, "alive").await;
    stack.wait_ticks(5).await;
    assert_eq!(stack.told(), Vec::<String>::new());

    stack.watchdog.free_disk();
    let repaired = rebuilt(&stack, "alpha", &dead).await;
    it_is_ready(&stack).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("beta", 1).await;
    let runs = [(dead.as_str(), 0), (&repaired, 2), (&silent, 2)];
    stack
        .check_the_end(&[release(&dead), retry("alpha", 1)], &runs)
        .await;
}

#[tokio::test]
async fn a_disk_that_fills_up_in_the_middle_of_an_attempt_stops_it_there() {
    let stack = stack_with_a_small_disk(&patient()).await;
    let mut released = stack
        .bridge
        .hold_next_answer(Pattern::started().from(Sender::Watchdog));
    let dead = build_gets_lost(&stack, "alpha").await;
    released.reached().await;
    let complaint = stack.watchdog.fill_disk();
    released.discard();
    nothing_can_be_written(&stack, "in_doubt", complaint).await;
    let told = vec![unanswered(release(&dead))];
    assert_eq!(stack.told(), told);

    stack.kill9_watchdog();
    stack.watchdog.start().await;
    nothing_can_be_written(&stack, "in_doubt", complaint).await;
    stack.wait_ticks(5).await;
    assert_eq!(stack.told(), told);

    stack.jobs.set_all(Order::Green);
    stack.watchdog.free_disk();
    let repaired = rebuilt(&stack, "alpha", &dead).await;
    stack.wait_merged("alpha", 1).await;
    let then = [release(&dead), retry("alpha", 1)];
    let runs = [(dead.as_str(), 0), (&repaired, 2)];
    stack
        .check_the_end(&[told, then.to_vec()].concat(), &runs)
        .await;
}

/// The same journal, with one bit of a record's text changed.
fn with_a_flipped_bit(mut journal: Vec<u8>) -> Vec<u8> {
    let text = b"\"generation\":1";
    let at = journal.windows(text.len()).position(|it| it == text);
    journal[at.expect("it has seen a build") + text.len() - 1] ^= 2;
    journal
}

#[tokio::test]
async fn with_a_journal_that_cannot_be_believed_it_sends_nothing_until_it_has_the_right_one() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.start_watchdog(&patient()).await;
    it_is_ready(&stack).await;
    let journal = stack.watchdog.journal();
    let older = fs::read(&journal).unwrap();
    // It is killed while homu takes its retry, which makes a build that gets lost, too.
    let mut answer = stack
        .bridge
        .hold_next_answer(Pattern::comment().from(Sender::Watchdog));
    let dead = build_gets_lost(&stack, "alpha").await;
    stack.github.drop_pushes("auto", Times::Once);
    answer.reached().await;
    stack.kill9_watchdog();
    answer.discard();
    let dead_too = rebuilt(&stack, "alpha", &dead).await;
    let told = vec![release(&dead), unanswered(retry("alpha", 1))];
    let right = fs::read(&journal).unwrap();

    // Meanwhile somebody puts an older copy in its place, and then the disk shows what it is worth.
    for (wrong, complaint) in [
        (older, "does not go with"),
        (
            with_a_flipped_bit(right.clone()),
            "is damaged and was left as it is",
        ),
    ] {
        fs::write(&journal, &wrong).unwrap();
        stack.watchdog.start().await;
        looks_afresh(&stack, "started a moment ago").await;
        nothing_can_be_written(&stack, "journal", complaint).await;
        stack
            .explains("alpha#1", &["held by the gate journal"])
            .await;
        stack.wait_ticks(5).await;
        assert_eq!(stack.told(), told);
        stack.kill9_watchdog();
        assert!(fs::read(&journal).unwrap() == wrong, "it was left as it is");
    }

    fs::write(&journal, &right).unwrap();
    stack.watchdog.start().await;
    let repaired = rebuilt(&stack, "alpha", &dead_too).await;
    it_is_ready(&stack).await;
    stack.wait_merged("alpha", 1).await;
    let then = [release(&dead_too), retry("alpha", 1)];
    let runs = [(dead.as_str(), 0), (&dead_too, 0), (&repaired, 2)];
    stack
        .check_the_end(&[told, then.to_vec()].concat(), &runs)
        .await;
    let attempts = stack.attempts().await;
    assert_eq!(
        attempts[0]["steps"][1]["closing"], "effect",
        "{attempts:#?}"
    );
}
