//! The homu adapter beside a real homu 0.2.0, without the rest of the watchdog: what it reads of it,
//! and what each of its requests does to it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what the tests share may fail them, as the tests themselves may"
)]

#[path = "contracts/homu/adapter.rs"]
mod adapter;
mod stack;

use adapter::{build, connect, look, queue, send};
use ci_watchdog::bots::Bot;
use ci_watchdog::model::{
    BuildKind, CiSystem, GithubState, MergeSha, Outcome, PullOnGithub, RepoSnapshot, RunEnd,
    RunReport, Sha, Step, Target, Told, Witnesses,
};
use stack::Stack;
use stack::config::StackConfig;
use stack::jobs::Order;
use stack::message::{Pattern, Sender};

/// The adapter of a stack's homu; its configuration needs no more than the addresses, because the
/// others reach homu through a bridge, and GitHub is a fake.
fn bot(stack: &Stack) -> Box<dyn Bot> {
    let table = format!(
        "config = {:?}\nurl = {:?}\ngithub_url = {:?}",
        stack.homu.config_file(),
        stack.bridge.url(),
        stack.github.url()
    );
    connect(&stack.homu.config_file(), &table).unwrap()
}

async fn alpha(bot: &dyn Bot) -> RepoSnapshot {
    let mut snapshot = look(bot).await.unwrap();
    assert!(
        matches!(snapshot.github, GithubState::Good(_)),
        "{:?}",
        snapshot.github
    );
    snapshot.repos.remove("alpha").unwrap()
}

fn accepted(outcome: &Outcome) {
    assert_eq!(*outcome, Outcome::Accepted("HTTP 200".to_owned()));
}

fn auto(pull: u64) -> Target {
    build(pull, BuildKind::Auto)
}

fn head(stack: &Stack, pull: u64) -> Sha {
    Sha::new(stack.github.pull("octo/alpha", pull).unwrap().head_sha)
}

#[tokio::test]
async fn a_real_homu_is_read_from_approval_to_merge() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    let bot = bot(&stack);
    let repo = alpha(&*bot).await;
    assert_eq!((repo.pending.len(), repo.approved.len()), (0, 0));

    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack.wait_running("alpha-linux", &sha).await;
    stack.wait_running("alpha-mac", &sha).await;
    stack.approve("alpha", 2).await;
    stack
        .wait_until("homu to know both starts", async || {
            stack.stored("alpha", 1).unwrap().results.len() == 2
        })
        .await;

    let repo = alpha(&*bot).await;
    let build = &repo.pending[0];
    assert_eq!(repo.pending.len(), 1);
    assert_eq!((build.pull, build.kind), (1, BuildKind::Auto));
    assert_eq!(build.merge_sha, MergeSha::Known(Sha::new(sha.as_str())));
    assert_eq!(build.head_sha, Some(head(&stack, 1)));
    assert_eq!(
        build.github,
        PullOnGithub::Open {
            head: head(&stack, 1)
        }
    );
    assert_eq!(build.witnesses, Witnesses::Agree);
    assert_eq!(build.title, "Change 1");
    for expectation in &build.expectations {
        assert_eq!(expectation.system, CiSystem::Buildbot);
        assert!(
            matches!(expectation.told, Told::Started { .. }),
            "{expectation:?}"
        );
    }
    let waiting = &repo.approved[0];
    assert_eq!((waiting.pull, waiting.priority), (2, 0));
    assert_eq!(waiting.head_sha, Some(head(&stack, 2)));
    assert_eq!(repo.slot_suspects, [Sha::new(sha.as_str())]);

    stack.jobs.set("alpha-linux", Order::Green);
    stack
        .wait_until("homu to have a green result", async || {
            let repo = alpha(&*bot).await;
            let told = &repo.pending[0].expectations[0].told;
            matches!(told, Told::Green { .. })
        })
        .await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.wait_merged("alpha", 2).await;
    let repo = alpha(&*bot).await;
    assert_eq!((repo.pending.len(), repo.approved.len()), (0, 0));
}

#[tokio::test]
async fn the_commit_of_a_try_is_known_before_and_after_its_first_report() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack
        .bridge
        .drop_every(Pattern::packet().from(Sender::Reporter));
    let bot = bot(&stack);
    stack.try_build("alpha", 2);
    stack
        .wait_until("the try to be pending", async || {
            stack.stored("alpha", 2).unwrap().status == "pending"
        })
        .await;
    let tried = Sha::new(stack.branch("alpha", "try").unwrap());
    let repo = alpha(&*bot).await;
    assert_eq!(repo.pending[0].kind, BuildKind::Try);
    assert_eq!(repo.pending[0].merge_sha, MergeSha::Known(tried.clone()));
    assert_eq!(repo.pending[0].head_sha, Some(head(&stack, 2)));
    let waits: Vec<&str> = repo.pending[0]
        .expectations
        .iter()
        .map(|it| it.builder.as_str())
        .collect();
    assert_eq!(waits, ["alpha-linux"]);

    stack.bridge.heal();
    stack
        .send_packet("buildStarted", "alpha-linux", tried.as_str(), &[])
        .await;
    // Now the branch is not needed any more.
    stack
        .github
        .push_to_branch("octo/alpha", "try", "contributor")
        .unwrap();
    let repo = alpha(&*bot).await;
    assert_eq!(repo.pending[0].merge_sha, MergeSha::Known(tried.clone()));
    assert!(matches!(
        repo.pending[0].expectations[0].told,
        Told::Started { .. }
    ));

    // Its lost result.
    let step = Step::ReplayResult {
        pull: 2,
        sha: tried.clone(),
        builder: "alpha-linux".into(),
        system: CiSystem::Buildbot,
        report: report(RunEnd::Success),
    };
    accepted(&send(&*bot, build(2, BuildKind::Try), step, Some(tried)).await);
    assert_eq!(stack.stored("alpha", 2).unwrap().status, "success");
}

fn report(end: RunEnd) -> RunReport {
    RunReport {
        run: "1".into(),
        green: end.green().unwrap(),
        end,
        number: Some(1),
        url: None,
    }
}

#[tokio::test]
async fn a_release_and_a_retry_make_homu_build_again() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack
        .bridge
        .drop_every(Pattern::packet().from(Sender::Reporter));
    let bot = bot(&stack);
    stack.approve("alpha", 1).await;
    let lost = stack.wait_pending("alpha", 1, &[]).await;
    let sha = Sha::new(lost.as_str());

    // What no build holds is released without effect.
    let other = Step::ReleaseSlot {
        shas: vec![Sha::new("0".repeat(40))],
    };
    accepted(&send(&*bot, queue(), other, None).await);
    let retry = || Step::Retry { pull: 1 };
    accepted(&send(&*bot, auto(1), retry(), Some(sha.clone())).await);
    // The slot is still held, so homu only forgot that it was pending.
    assert_eq!(stack.stored("alpha", 1).unwrap().status, "");
    let outcome = send(&*bot, auto(1), retry(), Some(sha.clone())).await;
    assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");

    let release = Step::ReleaseSlot {
        shas: vec![sha.clone()],
    };
    accepted(&send(&*bot, queue(), release, None).await);
    let next = stack.wait_pending("alpha", 1, &[&lost]).await;
    assert_ne!(next, lost);
    let title = stack.queue("alpha").await;
    assert_eq!(title[0].number, 1);
    assert_eq!(
        alpha(&*bot).await.pending[0].title,
        "Change 1",
        "homu keeps the true title"
    );
}

#[tokio::test]
async fn what_is_green_can_be_forgotten_and_red_is_an_honest_failure() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set("alpha-linux", Order::Green);
    stack.jobs.set("alpha-mac", Order::Silent);
    let bot = bot(&stack);
    stack.approve("alpha", 1).await;
    let sha = Sha::new(stack.wait_pending("alpha", 1, &[]).await);
    stack
        .wait_until("the first result", async || {
            let stored = stack.stored("alpha", 1).unwrap();
            let green = stored.results.get("alpha-linux").and_then(|it| it.green);
            green == Some(true) && stored.results.len() == 2
        })
        .await;
    let told = alpha(&*bot).await.pending[0].expectations[0].told.clone();
    let Told::Green { url } = told else {
        panic!("{told:?}");
    };
    let step = Step::ForgetGreen {
        pull: 1,
        sha: sha.clone(),
        builders: vec![("alpha-linux".into(), url.clone())],
    };
    accepted(&send(&*bot, auto(1), step, Some(sha.clone())).await);
    let told = alpha(&*bot).await.pending[0].expectations[0].told.clone();
    assert_eq!(told, Told::Started { url });

    let step = |end| Step::ReplayResult {
        pull: 1,
        sha: sha.clone(),
        builder: "alpha-linux".into(),
        system: CiSystem::Buildbot,
        report: report(end),
    };
    accepted(&send(&*bot, auto(1), step(RunEnd::Warnings), Some(sha.clone())).await);
    let told = alpha(&*bot).await.pending[0].expectations[0].told.clone();
    assert!(matches!(told, Told::Green { .. }), "{told:?}");
    let outcome = send(&*bot, auto(1), step(RunEnd::Success), Some(sha.clone())).await;
    assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");

    let red = Step::ReplayResult {
        pull: 1,
        sha: sha.clone(),
        builder: "alpha-mac".into(),
        system: CiSystem::Buildbot,
        report: report(RunEnd::Failure),
    };
    accepted(&send(&*bot, auto(1), red, Some(sha)).await);
    assert_eq!(stack.stored("alpha", 1).unwrap().status, "failure");
    assert!(!stack.is_merged("alpha", 1));
}

#[tokio::test]
async fn a_lost_closing_is_told_and_the_next_one_starts() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    stack
        .bridge
        .drop_every(Pattern::packet().from(Sender::Reporter));
    stack
        .bridge
        .drop_next(Pattern::pull_event().from(Sender::Github));
    let bot = bot(&stack);
    stack.approve("alpha", 1).await;
    let sha = Sha::new(stack.wait_pending("alpha", 1, &[]).await);
    stack.approve("alpha", 2).await;
    stack.close("alpha", 1);
    stack
        .wait_until("GitHub's message to be lost", async || {
            !stack.bridge.matching(&Pattern::pull_event()).is_empty()
        })
        .await;
    assert_eq!(alpha(&*bot).await.pending[0].github, PullOnGithub::Closed);

    accepted(&send(&*bot, auto(1), Step::ReplayClosed { pull: 1 }, None).await);
    let repo = alpha(&*bot).await;
    assert!(repo.pending.is_empty(), "{repo:?}");
    let again = send(&*bot, auto(1), Step::ReplayClosed { pull: 1 }, None).await;
    assert!(matches!(again, Outcome::NotSent(_)), "{again:?}");
    // homu forgot the commit, and it still holds the slot; the branch tells it.
    assert!(repo.slot_suspects.contains(&sha), "{repo:?}");
    let release = Step::ReleaseSlot {
        shas: repo.slot_suspects,
    };
    accepted(&send(&*bot, queue(), release, None).await);
    stack.wait_pending("alpha", 2, &[]).await;
}

#[tokio::test]
async fn a_lost_new_head_is_told_and_a_nudge_starts_the_queue() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    let bot = bot(&stack);
    // Both approved, and the first one moved on without a word before it could start.
    stack
        .bridge
        .drop_every(Pattern::webhook().from(Sender::Github));
    let old = head(&stack, 1);
    let new = Sha::new(stack.push("alpha", 1));
    stack
        .wait_until("GitHub's message to be lost", async || {
            let lost = stack.bridge.matching(&Pattern::pull_event());
            !lost.is_empty()
        })
        .await;
    stack.bridge.heal();
    stack.say("alpha", 1, "reviewer", "@homu-bot r+");
    let mut seen = None;
    stack
        .wait_until("homu to approve the head that it knows", async || {
            seen = alpha(&*bot).await.approved.first().cloned();
            seen.as_ref().is_some_and(|pull| pull.head_sha.is_some())
        })
        .await;
    let seen = seen.unwrap();
    assert_eq!(seen.head_sha, Some(old));
    assert_eq!(seen.github, PullOnGithub::Open { head: new.clone() });

    // Every event trips over it, so that the other one does not start.
    stack.say("alpha", 2, "reviewer", "@homu-bot r+");
    stack
        .wait_until("the other one to be approved", async || {
            alpha(&*bot).await.approved.len() == 2
        })
        .await;
    let step = Step::ReplaySynchronize {
        pull: 1,
        head: new.clone(),
    };
    let pull = Target::Pull {
        bot: "homu".into(),
        repo: "alpha".into(),
        pull: 1,
    };
    accepted(&send(&*bot, pull.clone(), step.clone(), None).await);
    let repo = alpha(&*bot).await;
    let left: Vec<u64> = repo.approved.iter().map(|pull| pull.pull).collect();
    assert_eq!((left, repo.pending.len()), (vec![2], 0));
    let again = send(&*bot, pull, step, None).await;
    assert!(matches!(again, Outcome::NotSent(_)), "{again:?}");

    accepted(&send(&*bot, queue(), Step::Nudge { pull: 2 }, None).await);
    stack.wait_pending("alpha", 2, &[]).await;
    let repo = alpha(&*bot).await;
    assert_eq!(repo.pending[0].pull, 2);
    let again = send(&*bot, queue(), Step::Nudge { pull: 2 }, None).await;
    assert!(matches!(again, Outcome::NotSent(_)), "{again:?}");
}

#[tokio::test]
async fn a_homu_that_forgot_a_try_at_its_restart_is_seen_to_disagree_with_its_database() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.jobs.set_all(Order::Silent);
    let bot = bot(&stack);
    stack.try_build("alpha", 2);
    stack
        .wait_until("the try to be pending", async || {
            alpha(&*bot).await.pending.len() == 1
        })
        .await;
    stack.kill9_homu();
    let error = look(&*bot).await.unwrap_err();
    assert!(error.detail.contains("/queue/alpha"), "{error}");
    stack.start_homu().await;
    let repo = alpha(&*bot).await;
    assert_eq!(repo.pending.len(), 1);
    assert_eq!(
        repo.pending[0].witnesses,
        Witnesses::DatabaseOnly {
            page: String::new()
        }
    );
    // A retry makes them agree again.
    let target = build(2, repo.pending[0].kind);
    accepted(&send(&*bot, target, Step::Retry { pull: 2 }, None).await);
    assert!(alpha(&*bot).await.pending.is_empty());
}
