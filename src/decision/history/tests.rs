//! What was done: how intents end, and what budgets count.

use std::collections::BTreeSet;

use super::super::samples::*;
use super::*;
use crate::model::{CiSystem, RunEnd, RunId, RunReport, RunState, WorkerName};

fn intent(target: Target, remedy: Remedy, ordinal: u32, step: Step) -> Intent {
    Intent {
        attempt: AttemptId {
            target,
            remedy,
            ordinal,
        },
        step,
        zones: BTreeSet::new(),
        ..retry_intent(1, 1)
    }
}

fn result_intent(green: bool, ordinal: u32) -> Intent {
    let target = Target::Expectation {
        build: build(1),
        builder: "linux".into(),
    };
    let step = Step::ReplayResult {
        pull: PULL,
        sha: "merge1".into(),
        builder: "linux".into(),
        system: CiSystem::Buildbot,
        report: RunReport {
            run: "1".into(),
            green,
            end: RunEnd::Success,
            number: Some(1),
            url: None,
        },
    };
    intent(target, Remedy::ReplayResult, ordinal, step)
}

fn release_intent(ordinal: u32) -> Intent {
    let step = Step::ReleaseSlot {
        shas: vec!["merge1".into()],
    };
    intent(Target::Build(build(1)), Remedy::ReleaseSlot, ordinal, step)
}

/// Two runs and a pending build that was looked at for a minute.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Success));
    scene.runs(2, "mac", RunState::Running);
    scene.wait(60);
    scene
}

fn closing_of(scene: &Scene, id: IntentId) -> Option<Closing> {
    let state = scene.core.history().intent(id).expect("it was written");
    state.closing.map(|(_, closing)| closing)
}

/// Sends an intent, changes the scene, and looks for so long.
#[track_caller]
fn ends(
    intent: Intent,
    outcome: Option<Outcome>,
    change: impl Fn(&mut Scene),
    seconds: u64,
) -> Option<Closing> {
    let mut scene = scene();
    let id = scene.intend(intent, outcome);
    change(&mut scene);
    scene.wait(seconds);
    closing_of(&scene, id)
}

fn nothing(_: &mut Scene) {}

fn accepted_() -> Option<Outcome> {
    Some(accepted())
}

#[test]
fn a_request_that_was_not_sent_or_refused_is_settled_at_once() {
    let not_sent = Some(Outcome::NotSent("refused connection".to_owned()));
    let refused = Some(Outcome::Refused("HTTP 500".to_owned()));
    let retry = || retry_intent(1, 1);
    assert_eq!(ends(retry(), not_sent, nothing, 10), Some(Closing::NotSent));
    assert_eq!(ends(retry(), refused, nothing, 10), Some(Closing::Refused));
}

#[test]
fn a_release_has_no_effect_of_its_own_to_wait_for_and_is_never_in_doubt() {
    let done = Some(Closing::Done);
    assert_eq!(ends(release_intent(1), accepted_(), nothing, 10), done);
    assert_eq!(ends(release_intent(1), None, nothing, 10), done);
}

#[test]
fn an_accepted_request_has_2_minutes_to_show_its_effect() {
    let retry = || retry_intent(1, 1);
    assert_eq!(ends(retry(), accepted_(), nothing, 119), None);
    assert_eq!(
        ends(retry(), accepted_(), nothing, 120),
        Some(Closing::NoEffect)
    );
}

#[test]
fn a_request_in_doubt_may_act_later_by_act_deadline_and_timeout() {
    for outcome in [None, Some(Outcome::Unanswered("timeout".to_owned()))] {
        let retry = || retry_intent(1, 1);
        assert_eq!(ends(retry(), outcome.clone(), nothing, 134), None);
        assert_eq!(
            ends(retry(), outcome, nothing, 135),
            Some(Closing::NoEffect)
        );
    }
}

#[test]
fn time_in_which_the_bot_was_silent_says_nothing_about_an_effect() {
    let mut scene = scene();
    let id = scene.intend(retry_intent(1, 1), accepted_());
    let bot = std::mem::replace(&mut scene.bot, Err(failed()));
    scene.wait(600);
    assert_eq!(closing_of(&scene, id), None);
    scene.bot = bot;
    scene.wait(110);
    assert_eq!(closing_of(&scene, id), None);
    scene.wait(20);
    assert_eq!(closing_of(&scene, id), Some(Closing::NoEffect));
}

#[test]
fn nothing_is_settled_by_a_look_from_before_the_request() {
    let mut scene = scene();
    scene.repo_mut().pending.clear();
    let id = scene.intend(retry_intent(1, 1), accepted_());
    scene.settle();
    assert_eq!(closing_of(&scene, id), None);
    scene.wait(10);
    assert_eq!(closing_of(&scene, id), Some(Closing::Effect));
}

#[test]
fn a_rerun_took_effect_when_the_build_left_pending_has_another_commit_or_a_new_run() {
    let left = |scene: &mut Scene| scene.repo_mut().pending.clear();
    let other = |scene: &mut Scene| {
        scene.pending_mut().merge_sha = crate::model::MergeSha::Known("merge2".into());
    };
    let new_run = |scene: &mut Scene| scene.runs(3, "linux", RunState::Queued);
    let effect = Some(Closing::Effect);
    let retry = || retry_intent(1, 1);
    assert_eq!(ends(retry(), accepted_(), left, 10), effect);
    assert_eq!(ends(retry(), accepted_(), other, 10), effect);
    assert_eq!(ends(retry(), accepted_(), new_run, 10), effect);
}

#[test]
fn a_run_that_was_known_before_proves_no_rerun() {
    let mut known = retry_intent(1, 1);
    known.runs = [RunId::from("3")].into();
    let late = |scene: &mut Scene| scene.runs(3, "linux", RunState::Queued);
    assert_eq!(ends(known, accepted_(), late, 10), None);
}

#[test]
fn a_result_took_effect_when_the_bot_has_it_or_left_pending() {
    let green = |scene: &mut Scene| scene.told("linux", Told::Green { url: url(1) });
    let red = |scene: &mut Scene| scene.told("linux", Told::Red { url: url(1) });
    let left = |scene: &mut Scene| scene.repo_mut().pending.clear();
    let effect = Some(Closing::Effect);
    assert_eq!(ends(result_intent(true, 1), accepted_(), green, 10), effect);
    // With a red row it failed, and is built again since.
    assert_eq!(ends(result_intent(true, 1), accepted_(), red, 10), effect);
    assert_eq!(ends(result_intent(true, 1), accepted_(), left, 10), effect);
    // One that is left from before is the effect of no green result.
    for (green, closing) in [(true, None), (false, effect)] {
        let mut scene = scene();
        red(&mut scene);
        scene.wait(10);
        let mut replay = result_intent(green, 1);
        replay.attempt.target = Target::Expectation {
            build: build(2),
            builder: "linux".into(),
        };
        let id = scene.intend(replay, accepted_());
        scene.wait(10);
        assert_eq!(closing_of(&scene, id), closing, "{green}");
    }
}

#[test]
fn green_is_forgotten_when_no_named_row_is_green() {
    let forget = || {
        let step = Step::ForgetGreen {
            pull: PULL,
            sha: "merge1".into(),
            builders: vec![("linux".into(), url(1))],
        };
        intent(Target::Build(build(1)), Remedy::Rerun, 1, step)
    };
    let green = |scene: &mut Scene| scene.told("linux", Told::Green { url: url(1) });
    let started = |scene: &mut Scene| {
        scene.told("linux", Told::Started { url: url(1) });
        scene.told("mac", Told::Green { url: url(2) });
    };
    assert_eq!(ends(forget(), accepted_(), green, 10), None);
    assert_eq!(
        ends(forget(), accepted_(), started, 10),
        Some(Closing::Effect)
    );
}

#[test]
fn a_nudge_took_effect_when_something_is_pending_to_be_merged() {
    let queue = || Target::Queue {
        bot: homu(),
        repo: "servo".into(),
    };
    let nudge = || intent(queue(), Remedy::Unwedge, 1, Step::Nudge { pull: 8 });
    let none = |scene: &mut Scene| scene.repo_mut().pending.clear();
    let only_try = |scene: &mut Scene| scene.pending_mut().kind = crate::model::BuildKind::Try;
    assert_eq!(ends(nudge(), accepted_(), none, 10), None);
    assert_eq!(ends(nudge(), accepted_(), only_try, 10), None);
    assert_eq!(
        ends(nudge(), accepted_(), nothing, 10),
        Some(Closing::Effect)
    );
}

#[test]
fn a_replayed_pull_request_took_effect_when_the_bot_agrees_with_github() {
    let closed = |scene: &mut Scene| scene.pending_mut().github = PullOnGithub::Closed;
    let gone = |scene: &mut Scene| scene.repo_mut().pending.clear();
    let held = |scene: &mut Scene| {
        scene.repo_mut().pending.clear();
        let mut pull = approved(PULL);
        pull.github = PullOnGithub::Closed;
        scene.repo_mut().approved = vec![pull];
    };
    let replay = || {
        let step = Step::ReplayClosed { pull: PULL };
        intent(Target::Build(build(1)), Remedy::ReplayPull, 1, step)
    };
    assert_eq!(ends(replay(), accepted_(), closed, 10), None);
    assert_eq!(ends(replay(), accepted_(), held, 10), None);
    assert_eq!(ends(replay(), accepted_(), gone, 10), Some(Closing::Effect));
}

#[test]
fn an_attempt_goes_on_under_its_name_until_its_main_request_is_written() {
    let mut scene = scene();
    let next = |scene: &Scene| {
        let target = Target::Build(build(1));
        scene.core.history().next_attempt(&target, Remedy::Rerun)
    };
    assert_eq!(next(&scene).ordinal, 1);
    let mut release = release_intent(1);
    release.attempt.remedy = Remedy::Rerun;
    scene.intend(release, Some(accepted()));
    assert_eq!(next(&scene).ordinal, 1);
    scene.intend(retry_intent(1, 1), None);
    assert_eq!(next(&scene).ordinal, 2);
}

#[test]
fn only_replays_that_were_answered_well_count_as_told_without_effect() {
    let mut scene = scene();
    let times = |scene: &Scene| {
        let history = scene.core.history();
        history.told_without_effect(&build(1), &"linux".into())
    };
    for outcome in [
        Outcome::Refused("HTTP 500".to_owned()),
        Outcome::Unanswered("timeout".to_owned()),
        Outcome::NotSent("no connection".to_owned()),
    ] {
        scene.intend(result_intent(true, 1), Some(outcome));
        scene.wait(150);
    }
    assert_eq!(times(&scene), 0);
    scene.intend(result_intent(true, 1), accepted_());
    scene.wait(120);
    assert_eq!(times(&scene), 1);
}

#[test]
fn requests_that_were_not_sent_are_counted_in_a_row() {
    let mut scene = scene();
    let target = Target::Build(build(1));
    let unsent = |scene: &Scene| {
        let history = scene.core.history();
        history
            .unsent(&target, Remedy::Rerun)
            .map(|(_, times)| times)
    };
    let not_sent = || Some(Outcome::NotSent("no connection".to_owned()));
    assert_eq!(unsent(&scene), None);
    scene.intend(retry_intent(1, 1), not_sent());
    scene.intend(retry_intent(1, 2), not_sent());
    assert_eq!(unsent(&scene), Some(2));
    scene.intend(retry_intent(1, 3), accepted_());
    assert_eq!(unsent(&scene), None);
}

#[test]
fn a_zones_reruns_leave_its_budget_after_an_hour() {
    let mut scene = scene();
    let zone = (buildbot(), BuilderName::from("linux"));
    scene.intend(retry_intent(1, 1), accepted_());
    let not_sent = Some(Outcome::NotSent("no connection".to_owned()));
    scene.intend(retry_intent(1, 2), not_sent);
    let history = scene.core.history();
    let count = |second| history.zone_reruns(&zone, at(second)).len();
    assert_eq!(count(60), 1);
    assert_eq!(count(60 + 3600), 1);
    assert_eq!(count(61 + 3600), 0);
    let other = (buildbot(), BuilderName::from("mac"));
    assert!(history.zone_reruns(&other, at(60)).is_empty());
}

#[test]
fn reruns_of_a_head_count_for_a_day_once_their_effect_is_seen_peoples_too() {
    let mut scene = scene();
    scene.intend(retry_intent(1, 1), accepted_());
    let count = |scene: &Scene, head: &str, second: u64| {
        let history = scene.core.history();
        history.effective_reruns(&key(), Some(&head.into()), at(second))
    };
    assert_eq!(count(&scene, "head1", 60), 0, "its effect is not seen");
    scene.repo_mut().pending.clear();
    scene.wait(10);
    assert_eq!(count(&scene, "head1", 70), 1);
    assert_eq!(count(&scene, "head2", 70), 0);
    assert_eq!(count(&scene, "head1", 70 + 24 * 3600), 0);
    let mut theirs = sighting(3, Some("merge3"), 70);
    theirs.cause = SightingCause::OthersRerun;
    scene.write(Record::Sighting(theirs));
    assert_eq!(count(&scene, "head1", 70), 2);
}

#[test]
fn a_rerun_that_may_have_been_sent_starts_the_cooldown() {
    let mut scene = scene();
    let last = |scene: &Scene| scene.core.history().last_rerun(&key(), scene.now());
    assert_eq!(last(&scene), None);
    let not_sent = Some(Outcome::NotSent("no connection".to_owned()));
    scene.intend(retry_intent(1, 1), not_sent);
    assert_eq!(last(&scene), None);
    scene.intend(retry_intent(1, 2), None);
    assert_eq!(last(&scene), Some((at(60), 1)));
}

#[test]
fn lost_workers_are_those_of_the_same_head() {
    let mut scene = scene();
    let mut first = retry_intent(1, 1);
    first.lost_workers = [WorkerName::from("linux-1")].into();
    scene.intend(first, accepted_());
    let history = scene.core.history();
    assert_eq!(history.lost_workers(&key(), Some(&"head1".into())).len(), 1);
    assert!(
        history
            .lost_workers(&key(), Some(&"head2".into()))
            .is_empty()
    );
    assert!(history.lost_workers(&key(), None).is_empty());
}

#[test]
fn a_release_that_the_bot_took_is_known() {
    let mut scene = scene();
    let released = |scene: &Scene| scene.core.history().released(&build(1), &"merge1".into());
    scene.intend(
        release_intent(1),
        Some(Outcome::Unanswered("timeout".to_owned())),
    );
    assert!(!released(&scene));
    scene.intend(release_intent(2), accepted_());
    assert!(released(&scene));
}

#[test]
fn settled_intents_are_forgotten_boundedly_and_open_ones_never() {
    let mut history = History::default();
    let at = at(1);
    for number in 1..=i64::try_from(INTENTS_MAX).expect("small") + 50 {
        let id = IntentId(number);
        history.record(&Record::Intent {
            id,
            at,
            intent: retry_intent(1, 1),
        });
        if number > 1 {
            let closing = Closing::Effect;
            history.record(&Record::Closed { id, at, closing });
        }
    }
    assert_eq!(history.intents().count(), INTENTS_MAX);
    assert_eq!(
        history.open().map(|state| state.id).collect::<Vec<_>>(),
        [IntentId(1)]
    );
}

#[test]
fn the_journals_records_alone_give_the_same_past() {
    let mut scene = scene();
    scene.intend(retry_intent(1, 1), accepted_());
    scene.wait(200);
    let told = |scene: &Scene| {
        let history = scene.core.history();
        let intents: Vec<IntentState> = history.intents().cloned().collect();
        (intents, history.last_rerun(&key(), scene.now()))
    };
    let before = told(&scene);
    scene.restart();
    assert_eq!(told(&scene), before);
}

#[test]
fn the_longest_effect_time_of_the_builders_that_a_request_is_for_counts() {
    let mut policy = Policy::default();
    let mut slow = policy.timeouts.global.clone();
    slow.effect = Duration::from_secs(600);
    let mac = ("servo".into(), "mac".into());
    policy.timeouts.builders.insert(mac, slow);
    let of_both = BTreeSet::from([
        ("buildbot".into(), "linux".into()),
        ("buildbot".into(), "mac".into()),
    ]);
    let result = |builder: &str| Target::Expectation {
        build: build(1),
        builder: builder.into(),
    };
    for (target, zones, seconds) in [
        (result("linux"), BTreeSet::new(), 120),
        (result("mac"), BTreeSet::new(), 600),
        (Target::Build(build(1)), BTreeSet::new(), 120),
        (Target::Build(build(1)), of_both, 600),
    ] {
        let deadline = effect_deadline(None, &policy, &target, &zones);
        assert_eq!(deadline, Duration::from_secs(seconds), "{target:?}");
    }
}
