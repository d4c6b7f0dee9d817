//! The core as a whole: confirmation, the last look, what is sent in which order, generations.

mod endings;
mod gates;
mod hand;
mod restart;

use std::time::Duration;

use super::super::samples::*;
use super::*;
use crate::model::{
    Gate, MergeSha, PullOnGithub, Remedy, RepoSnapshot, RunEnd, RunState, StepKind, Told,
};

/// Both builders are no-shows, confirmed, and nothing holds the rerun.
fn dead() -> Scene {
    let mut scene = Scene::new();
    scene.wait(400);
    scene
}

/// `linux` has a result that the bot has not heard of.
fn unreported() -> Scene {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Success));
    scene.runs(2, "mac", RunState::Running);
    scene.wait_beating(200);
    scene
}

/// The gate that holds a remedy now; `None` where it is planned.
#[track_caller]
fn gate_of(decision: &Decision, remedy: Remedy) -> Option<Gate> {
    if attempt(decision, remedy).is_some() {
        return None;
    }
    let held = hold(decision, remedy);
    Some(held.expect("it is either planned or held").gate)
}

#[track_caller]
fn rerun_gate(scene: &mut Scene, seconds: u64) -> Option<Gate> {
    gate_of(&scene.wait(seconds), Remedy::Rerun)
}

#[test]
fn a_dead_build_is_rerun_by_a_release_and_a_retry() {
    let decision = dead().wait(10);
    let rerun = attempt(&decision, Remedy::Rerun).expect("nothing holds it");
    assert_eq!(steps(rerun), [StepKind::ReleaseSlot, StepKind::Retry]);
    assert_eq!(rerun.zones.len(), 2);
}

#[test]
fn the_last_look_sees_life() {
    let mut scene = dead();
    let decision = scene.wait(10);
    let rerun = attempt(&decision, Remedy::Rerun).unwrap().clone();
    let wanted = |scene: &mut Scene| {
        scene.see();
        let now = scene.now();
        scene.core.still_wanted(now, &rerun, &rerun.steps[0], true)
    };
    assert!(wanted(&mut scene));
    scene.runs(1, "linux", RunState::Running);
    assert!(!wanted(&mut scene));
    scene.ci_mut().runs.clear();
    assert!(!wanted(&mut scene), "the death is to be confirmed anew");
}

#[test]
fn a_harmless_follow_up_waits_for_the_effect_before_it() {
    let mut scene = Scene::new();
    scene.pending_mut().github = PullOnGithub::Closed;
    scene.repo_mut().approved = vec![approved(8)];
    let decision = scene.wait(200);
    let replay = attempt(&decision, Remedy::ReplayPull).unwrap().clone();
    let kinds = [
        StepKind::ReplayClosed,
        StepKind::ReleaseSlot,
        StepKind::Nudge,
    ];
    assert_eq!(steps(&replay), kinds);
    scene.send(&replay, &replay.steps[0], accepted());
    let wanted = |scene: &mut Scene, step: usize| {
        scene.seconds += 1;
        scene.see();
        scene.settle();
        let now = scene.now();
        scene
            .core
            .still_wanted(now, &replay, &replay.steps[step], false)
    };
    assert!(!wanted(&mut scene, 1), "the bot still holds it");
    scene.repo_mut().pending.clear();
    assert!(wanted(&mut scene, 1));
    assert!(wanted(&mut scene, 2));
    scene.bot = Err(failed());
    assert!(!wanted(&mut scene, 2), "nobody knows");
}

#[test]
fn a_rerun_on_the_same_commit_opens_a_generation_of_ours() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Cancelled));
    scene.told("mac", Told::Green { url: url(2) });
    let decision = scene.wait(400);
    let rerun = attempt(&decision, Remedy::Rerun).unwrap().clone();
    scene.send(&rerun, rerun.steps.last().unwrap(), accepted());
    scene.runs(3, "linux", RunState::Queued);
    let decision = scene.wait(10);
    assert_eq!(decision.builds[0].id, build(2));
    assert_eq!(verdict(&decision, "linux"), Verdict::Queued);
    // Its first run is cancelled too: it is not the old one that counts.
    scene.ci_mut().runs.pop();
    let decision = scene.wait(200);
    assert_eq!(verdict(&decision, "linux"), Verdict::Starting);
}

#[test]
fn a_new_commit_after_our_retry_is_our_rerun_and_after_none_somebody_elses() {
    for (ours, cause) in [
        (true, SightingCause::OurRerun),
        (false, SightingCause::OthersRerun),
    ] {
        let mut scene = dead();
        if ours {
            scene.intend(retry_intent(1, 1), None);
        }
        scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
        scene.wait(10);
        let seen = scene.records.iter().any(|record| {
            matches!(record, Record::Sighting(one) if one.build == build(2) && one.cause == cause)
        });
        assert!(seen, "{cause:?}");
    }
}

#[test]
fn a_death_is_detected_once_and_life_after_it_is_a_false_alarm() {
    let mut scene = Scene::new();
    let mut detected = 0;
    for _ in 0..60 {
        detected += scene.wait(10).detected.len();
    }
    assert_eq!(detected, 2, "one for each builder");
    scene.runs(1, "linux", RunState::Running);
    assert_eq!(scene.wait(10).false_alarms, [key()]);
}

#[test]
fn decisions_depend_on_watched_time_alone() {
    let decide = |start: u64| {
        let mut scene = Scene::new();
        scene.seconds = start;
        scene.core = Core::new(acting(), setup(), &[], at(start));
        let decision = scene.wait(400);
        let attempts = decision.plan.attempts.len();
        (decision.builds[0].verdict, attempts)
    };
    assert_eq!(decide(0), decide(1_000_000_000));
}

#[test]
fn an_orphaned_build_is_rerun_once_confirmed() {
    let mut scene = Scene::new();
    scene.pending_mut().merge_sha = MergeSha::Missing;
    assert_eq!(rerun_gate(&mut scene, 320), Some(Gate::Confirming));
    let decision = scene.wait(10);
    let rerun = attempt(&decision, Remedy::Rerun).unwrap();
    assert_eq!(
        steps(rerun),
        [StepKind::Retry],
        "there is no commit to release"
    );
}

#[test]
fn a_wedged_queue_is_released_and_nudged() {
    let mut scene = Scene::new();
    scene.wait(20);
    scene.repo_mut().pending.clear();
    scene.repo_mut().approved = vec![approved(8)];
    let decision = scene.wait(400);
    let unwedge = attempt(&decision, Remedy::Unwedge).unwrap();
    assert_eq!(steps(unwedge), [StepKind::ReleaseSlot, StepKind::Nudge]);
}

#[test]
fn a_run_that_may_yet_report_makes_the_bot_forget_green_first() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.told("linux", Told::Started { url: url(1) });
    scene.told("mac", Told::Green { url: url(2) });
    let decision = scene.wait(26 * 60);
    let rerun = attempt(&decision, Remedy::Rerun).unwrap();
    let kinds = [
        StepKind::ReleaseSlot,
        StepKind::ForgetGreen,
        StepKind::Retry,
    ];
    assert_eq!(steps(rerun), kinds);
    // One that is known to be over does not report: what is green is kept.
    scene.runs(1, "linux", RunState::Ended(RunEnd::Cancelled));
    let decision = scene.wait(300);
    let rerun = attempt(&decision, Remedy::Rerun).unwrap();
    assert_eq!(steps(rerun), [StepKind::ReleaseSlot, StepKind::Retry]);
}

#[test]
fn a_configuration_that_is_read_again_keeps_what_is_known() {
    let mut scene = dead();
    scene.intend(retry_intent(1, 1), None);
    let mut policy = acting();
    policy.timeouts.global.start = Duration::from_secs(3600);
    scene.core.configure(policy, setup());
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Starting);
    assert_eq!(scene.core.history().intents().count(), 1);
}

#[test]
fn looks_within_a_moment_confirm_no_death() {
    let mut scene = Scene::new();
    scene.wait(310);
    let reloads = (0..5).map(|_| scene.look()).last().unwrap();
    assert_eq!(gate_of(&reloads, Remedy::Rerun), Some(Gate::Confirming));
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Confirming));
    assert_eq!(rerun_gate(&mut scene, 10), None, "two ticks later");
}

#[test]
fn a_bot_that_is_not_configured_any_more_is_forgotten() {
    let mut scene = dead();
    scene.intend(retry_intent(1, 1), None);
    scene.core.configure(acting(), Setup::default());
    scene.seconds += 10;
    let decision = scene.core.decide(scene.now(), Look::Tick);
    assert!(decision.builds.is_empty() && decision.queues.is_empty());
    assert_eq!(scene.core.zones().iter().count(), 0);
    let closed = scene.core.settle(scene.now());
    assert_eq!(closed.len(), 1, "nobody will see its effect any more");
}

#[test]
fn an_outage_every_20_minutes_does_not_hide_a_frozen_run() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.told("mac", Told::Green { url: url(2) });
    let mut found = 0;
    for _ in 0..4 {
        found += usize::from(verdict(&scene.wait(20 * 60), "linux") == Verdict::Stalled);
        scene.workers("linux", |worker| worker.paused = true);
        scene.wait(10);
        scene.workers("linux", |worker| worker.paused = false);
    }
    assert!(found > 0, "no sign of life for 80 minutes");
}

#[test]
fn a_queue_says_whose_start_it_waits_for() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Queued);
    scene.runs(2, "mac", RunState::Queued);
    let beta = RepoSnapshot {
        approved: vec![approved(8)],
        ..RepoSnapshot::default()
    };
    scene.bot_mut().repos.insert("beta".into(), beta);
    let decision = scene.wait(600);
    let beta = decision
        .queues
        .iter()
        .find(|queue| queue.repo == "beta".into());
    let evidence = beta.unwrap().evidence.to_string();
    assert!(
        evidence.contains("wait for the start of servo#7"),
        "{evidence}"
    );
}
