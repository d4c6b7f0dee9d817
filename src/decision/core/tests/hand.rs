//! Repairs that people ask for: what they send, what binds them, and what does not.

use super::super::super::gates::Operator;
use super::super::super::hand::{Refusal, Repair, Wish};
use super::super::super::samples::*;
use super::super::*;
use super::{dead, unreported};
use crate::model::{
    BuildId, Gate, Order, PullOnGithub, Record, Remedy, RunEnd, RunState, Scope, Step, StepKind,
    Stop, StopKind, Told,
};

fn wish(repair: Repair) -> Wish {
    Wish {
        repair,
        even_if_alive: false,
        by: "alice".to_owned(),
    }
}

fn meant(repair: Repair) -> Wish {
    Wish {
        even_if_alive: true,
        ..wish(repair)
    }
}

fn ask(scene: &mut Scene, wish: &Wish) -> Result<(Attempt, Option<String>), Refusal> {
    scene.see();
    let now = scene.now();
    scene.core.by_hand(now, wish)
}

/// The gate that shuts a wish out.
#[track_caller]
fn shut(scene: &mut Scene, wish: &Wish) -> (Gate, String) {
    match ask(scene, wish).unwrap_err() {
        Refusal::Shut { gate, reason } => (gate, reason),
        other @ (Refusal::Gone(_) | Refusal::Nothing(_) | Refusal::Busy(_)) => panic!("{other:?}"),
    }
}

#[track_caller]
fn plan_of(scene: &mut Scene, wish: &Wish) -> Vec<StepKind> {
    steps(&ask(scene, wish).unwrap().0)
}

/// `linux` runs, `mac` is green.
fn half_green() -> Scene {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.told("linux", Told::Started { url: url(1) });
    scene.told("mac", Told::Green { url: url(2) });
    scene.wait_beating(60);
    scene
}

#[test]
fn a_dead_build_is_retried_by_the_same_requests_as_without_a_hand_and_says_who() {
    let mut scene = dead();
    let decision = scene.wait(10);
    let (attempt, warning) = ask(&mut scene, &wish(Repair::Retry(build(1)))).unwrap();
    let planned = super::attempt(&decision, Remedy::Rerun).unwrap();
    assert_eq!((&attempt.id, &attempt.steps), (&planned.id, &planned.steps));
    assert_eq!(warning, None);
    assert_eq!(
        attempt.intent(&attempt.steps[0]).by.as_deref(),
        Some("alice")
    );
}

#[test]
fn neither_a_pause_nor_a_budget_nor_observing_nor_a_missing_confirmation_binds_a_hand() {
    let mut scene = Scene::with(Policy::default());
    scene.wait(310);
    for ordinal in 1..=2 {
        let id = scene.intend(retry_intent(1, ordinal), Some(accepted()));
        let at = scene.now();
        scene.write(Record::Closed {
            id,
            at,
            closing: Closing::Effect,
        });
    }
    for kind in [StopKind::Pause, StopKind::Exclusion] {
        let stop = Stop {
            kind,
            scope: Scope::default(),
            reason: "upgrade".to_owned(),
            by: "bob".to_owned(),
            at: scene.now(),
            until: None,
        };
        scene.write(Record::Order(Order::Stop(stop)));
    }
    scene.restart();
    scene.see();
    for repair in [Repair::Retry(build(1)), Repair::ReleaseSlot(homu())] {
        ask(&mut scene, &meant(repair)).unwrap();
    }
}

#[test]
fn what_may_be_alive_is_told_and_must_be_meant() {
    let mut scene = half_green();
    for repair in [Repair::Retry(build(1)), Repair::Reset(build(1))] {
        let (gate, reason) = shut(&mut scene, &wish(repair.clone()));
        assert_eq!(gate, Gate::LawOfReruns);
        assert!(reason.contains("linux is alive"), "{reason}");
        let (attempt, warning) = ask(&mut scene, &meant(repair)).unwrap();
        assert_eq!(warning, Some(reason));
        // What lives may yet report: it must not hit a rebuild of the same commit.
        let kinds = [
            StepKind::ReleaseSlot,
            StepKind::ForgetGreen,
            StepKind::Retry,
        ];
        assert_eq!(steps(&attempt), kinds);
    }
}

#[test]
fn a_result_that_only_got_lost_is_no_reason_to_build_again() {
    let mut scene = unreported();
    scene.told("mac", Told::Green { url: url(2) });
    let (gate, reason) = shut(&mut scene, &wish(Repair::Retry(build(1))));
    assert_eq!(gate, Gate::LawOfReruns);
    assert!(
        reason.contains("linux is over, and only its result got lost"),
        "{reason}"
    );
}

#[test]
fn a_retry_keeps_what_is_green_where_that_is_safe_and_a_reset_keeps_nothing() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Cancelled));
    scene.told("linux", Told::Started { url: url(1) });
    scene.told("mac", Told::Green { url: url(2) });
    scene.wait(400);
    let kinds = plan_of(&mut scene, &wish(Repair::Retry(build(1))));
    assert_eq!(kinds, [StepKind::ReleaseSlot, StepKind::Retry]);
    let (reset, _) = ask(&mut scene, &wish(Repair::Reset(build(1)))).unwrap();
    assert_eq!(reset.id.remedy, Remedy::Reset);
    let kinds = [
        StepKind::ReleaseSlot,
        StepKind::ForgetGreen,
        StepKind::Retry,
    ];
    assert_eq!(steps(&reset), kinds);
}

#[test]
fn a_reset_that_took_effect_opens_a_generation_of_ours_and_counts() {
    let mut scene = dead();
    let (reset, _) = ask(&mut scene, &wish(Repair::Reset(build(1)))).unwrap();
    scene.send(&reset, reset.steps.last().unwrap(), accepted());
    scene.runs(3, "linux", RunState::Queued);
    let decision = scene.wait(10);
    assert_eq!(decision.builds[0].id, build(2));
    let now = scene.now();
    assert_eq!(scene.core.history().effective_reruns(&key(), None, now), 1);
}

#[test]
fn what_makes_a_request_wrong_binds_a_hand_too() {
    let mut scene = dead();
    let retry = meant(Repair::Retry(build(1)));
    scene.pending_mut().github = PullOnGithub::Closed;
    assert_eq!(shut(&mut scene, &retry).0, Gate::Outdated);
    let mut scene = dead();
    let working = scene.bot.clone();
    scene.bot = Err(failed());
    assert_eq!(shut(&mut scene, &retry).0, Gate::BotSilent);
    scene.bot = working;
    scene.core.operator(Operator {
        journal: Some("full".to_owned()),
        ..Operator::default()
    });
    assert_eq!(shut(&mut scene, &retry).0, Gate::Journal);
    scene.core.operator(Operator::default());
    scene.intend(retry_intent(1, 1), None);
    assert_eq!(shut(&mut scene, &retry).0, Gate::InDoubt);
}

#[test]
fn what_is_over_or_unknown_is_gone() {
    let mut scene = dead();
    let other = BuildId {
        generation: 7,
        ..build(1)
    };
    let refusal = ask(&mut scene, &meant(Repair::Retry(other))).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Gone(why) if why.contains("pending now")),
        "{refusal:?}"
    );
    let refusal = ask(&mut scene, &wish(Repair::ReleaseSlot("bors".into()))).unwrap_err();
    assert!(matches!(refusal, Refusal::Gone(_)), "{refusal:?}");
    scene.repo_mut().pending.clear();
    let refusal = ask(&mut scene, &wish(Repair::Retry(build(1)))).unwrap_err();
    assert!(matches!(refusal, Refusal::Gone(_)), "{refusal:?}");
}

#[test]
fn of_a_bot_that_was_not_read_nothing_is_said_but_that() {
    let mut scene = Scene::new();
    let (now, homu) = (scene.now(), homu());
    // A look that failed knows its name, and no commit.
    scene.core.record_bot(now, &homu, Err(failed()));
    let refusal = scene.core.by_hand(now, &wish(Repair::ReleaseSlot(homu)));
    assert!(
        matches!(
            refusal,
            Err(Refusal::Shut {
                gate: Gate::BotSilent,
                ..
            })
        ),
        "{refusal:?}"
    );
}

#[test]
fn a_slot_is_released_of_every_commit_but_those_that_are_about_to_start() {
    let mut scene = Scene::new();
    scene.wait(10);
    let release = Repair::ReleaseSlot(homu());
    let (gate, reason) = shut(&mut scene, &wish(release.clone()));
    assert_eq!(gate, Gate::LawOfReruns);
    assert!(reason.contains("servo#7 is starting"), "{reason}");
    let (attempt, warning) = ask(&mut scene, &meant(release.clone())).unwrap();
    assert!(warning.is_some());
    let shas = vec!["merge1".into()];
    assert_eq!(attempt.steps, [Step::ReleaseSlot { shas }]);

    scene.repo_mut().slot_suspects = vec!["old".into()];
    let (attempt, warning) = ask(&mut scene, &wish(release)).unwrap();
    assert_eq!(warning, None, "what is about to start keeps its slot");
    let shas = vec!["old".into()];
    assert_eq!(attempt.steps, [Step::ReleaseSlot { shas }]);
    let id = scene.send(&attempt, &attempt.steps[0], accepted());
    assert_eq!(scene.settle(), [(id, Closing::Done)]);
}
