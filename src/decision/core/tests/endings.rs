//! How generations end, and what would have been done about them.

use super::*;
use crate::model::{BuildKind, End, Ending, Target, Witnesses};

fn endings(scene: &Scene) -> Vec<Ending> {
    let endings = scene.records.iter().filter_map(|record| match record {
        Record::Ending(ending) => Some(ending.clone()),
        Record::Sighting(_)
        | Record::Intent { .. }
        | Record::Outcome { .. }
        | Record::Closed { .. }
        | Record::Order(_)
        | Record::Finding(_) => None,
    });
    endings.collect()
}

fn findings(scene: &Scene) -> Vec<Finding> {
    let findings = scene.records.iter().filter_map(|record| match record {
        Record::Finding(finding) => Some(finding.clone()),
        Record::Sighting(_)
        | Record::Intent { .. }
        | Record::Outcome { .. }
        | Record::Closed { .. }
        | Record::Order(_)
        | Record::Ending(_) => None,
    });
    findings.collect()
}

/// The one ending so far, without its time.
#[track_caller]
fn ended(scene: &Scene) -> (u32, Verdict, End) {
    let all = endings(scene);
    let [ending] = all.as_slice() else {
        panic!("one generation is over: {all:?}");
    };
    (ending.build.generation, ending.verdict, ending.end)
}

fn observing() -> Scene {
    Scene::with(Policy::default())
}

/// Both builders run.
fn running() -> Scene {
    let mut scene = observing();
    scene.runs(1, "linux", RunState::Running);
    scene.runs(2, "mac", RunState::Running);
    scene.wait_beating(60);
    scene
}

/// It leaves pending in the very look at which these ends of its runs are first seen.
fn leaves(scene: &mut Scene, linux: RunState, mac: RunState) {
    scene.runs(1, "linux", linux);
    scene.runs(2, "mac", mac);
    scene.repo_mut().pending.clear();
    scene.wait(10);
}

const GREEN: RunState = RunState::Ended(RunEnd::Success);
const RED: RunState = RunState::Ended(RunEnd::Failure);

#[test]
fn a_build_ends_by_the_results_of_its_runs_that_are_seen_in_the_look_after_it_left() {
    for (mac, end) in [
        (GREEN, End::Green),
        (RED, End::Red),
        (RunState::Ended(RunEnd::Exception), End::Left),
    ] {
        let mut scene = running();
        leaves(&mut scene, GREEN, mac);
        assert_eq!(ended(&scene), (1, Verdict::Alive, end), "{mac:?}");
        scene.wait(100);
        assert_eq!(endings(&scene).len(), 1, "it is told once");
    }
}

#[test]
fn a_bot_may_hear_of_the_end_of_a_run_before_its_provider_tells_of_it() {
    for (last, end) in [(GREEN, End::Green), (RunState::Running, End::Left)] {
        let mut scene = running();
        leaves(&mut scene, GREEN, RunState::Running);
        assert_eq!(endings(&scene), []);
        scene.runs(2, "mac", last);
        scene.wait(30);
        assert_eq!(ended(&scene), (1, Verdict::Alive, end), "{last:?}");
    }
}

#[test]
fn a_run_that_goes_on_after_a_rerun_does_not_end_the_build_before() {
    let mut scene = running();
    scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
    scene.wait(10);
    scene.runs(2, "mac", RED);
    scene.wait(10);
    assert_eq!(ended(&scene).2, End::Rerun);
}

#[test]
fn what_the_bot_was_told_counts_where_no_run_tells() {
    let mut scene = observing();
    for builder in ["linux", "mac"] {
        scene.told(builder, Told::Green { url: url(1) });
    }
    scene.wait(20);
    scene.repo_mut().pending.clear();
    scene.wait(10);
    assert_eq!(ended(&scene).2, End::Green);
}

#[test]
fn the_provider_is_asked_for_the_last_results_until_the_end_is_known_and_no_longer() {
    let mut scene = running();
    scene.runs(2, "mac", RunState::Ended(RunEnd::Cancelled));
    scene.runs(1, "linux", GREEN);
    scene.repo_mut().pending.clear();
    let now = scene.now();
    scene.core.record_bot(now, &homu(), scene.bot.clone());
    assert_eq!(scene.core.questions(&buildbot()).len(), 1);
    scene
        .core
        .record_provider(now, &buildbot(), scene.ci.clone());
    // It is told, and not written: told again, and nothing is asked for it any more.
    assert_eq!(scene.core.endings(now), scene.core.endings(now));
    assert_eq!(scene.core.endings(now).len(), 1);
    assert!(scene.core.questions(&buildbot()).is_empty());
}

#[test]
fn a_silent_provider_is_waited_for_and_not_for_long() {
    let mut scene = running();
    scene.repo_mut().pending.clear();
    let answer = std::mem::replace(&mut scene.ci, Err(failed()));
    scene.wait(30);
    assert_eq!(endings(&scene), []);
    scene.wait(10);
    assert_eq!(ended(&scene).2, End::Unknown);

    let mut scene = running();
    scene.repo_mut().pending.clear();
    scene.ci = Err(failed());
    scene.wait(10);
    scene.ci = answer;
    scene.runs(1, "linux", GREEN);
    scene.runs(2, "mac", GREEN);
    scene.wait(10);
    assert_eq!(ended(&scene).2, End::Green);
}

#[test]
fn without_a_provider_nobody_knows_how_it_ended() {
    let mut scene = observing();
    scene.core = Core::new(
        Policy::default(),
        Setup {
            routes: Routes::default(),
            ..setup()
        },
        &[],
        at(0),
    );
    scene.wait(20);
    scene.repo_mut().pending.clear();
    scene.wait(10);
    assert_eq!(ended(&scene).2, End::Unknown);
}

#[test]
fn a_build_that_goes_back_to_approved_or_gets_a_new_commit_was_rerun() {
    let mut scene = running();
    scene.repo_mut().pending.clear();
    scene.repo_mut().approved = vec![approved(PULL)];
    scene.wait(10);
    assert_eq!(ended(&scene), (1, Verdict::Alive, End::Rerun));

    for (head, end) in [("head1", End::Rerun), ("head2", End::NewHead)] {
        let mut scene = running();
        scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
        scene.pending_mut().head_sha = Some(head.into());
        scene.wait(10);
        assert_eq!(ended(&scene), (1, Verdict::Alive, end), "{head}");
    }
}

#[test]
fn a_red_build_that_is_built_again_at_once_ended_red() {
    let mut scene = running();
    scene.runs(2, "mac", RED);
    scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
    scene.wait(10);
    assert_eq!(ended(&scene).2, End::Red);
}

#[test]
fn a_build_that_failed_and_began_anew_on_its_commit_between_two_looks_ended_red() {
    let mut scene = running();
    scene.told("mac", Told::Red { url: url(2) });
    scene.wait(10);
    assert_eq!(ended(&scene), (1, Verdict::Alive, End::Red));
}

#[test]
fn a_lost_result_does_not_end_what_is_built_again() {
    let mut scene = running();
    scene.runs(2, "mac", RED);
    scene.wait_beating(200);
    scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
    scene.wait(10);
    assert_eq!(ended(&scene), (1, Verdict::Unreported, End::Rerun));

    let mut late = running();
    late.runs(2, "mac", RED);
    late.wait_beating(200);
    late.repo_mut().pending.clear();
    late.wait(10);
    assert_eq!(ended(&late).2, End::Red, "the bot heard of it after all");
}

#[test]
fn the_approval_says_nothing_of_a_try_build() {
    let mut scene = observing();
    scene.pending_mut().kind = BuildKind::Try;
    scene.wait(20);
    scene.repo_mut().pending.clear();
    scene.repo_mut().approved = vec![approved(PULL)];
    scene.wait(10);
    assert_eq!(ended(&scene).2, End::Left);
}

#[test]
fn what_github_knew_first_ended_it() {
    for (github, end) in [
        (PullOnGithub::Closed, End::Closed),
        (open("head2"), End::NewHead),
    ] {
        let mut scene = running();
        scene.pending_mut().github = github;
        scene.wait(10);
        scene.repo_mut().pending.clear();
        scene.wait(40);
        assert_eq!(ended(&scene).2, end);
    }
}

#[test]
fn a_merge_closes_the_pull_request_too() {
    for (seconds, end) in [(10, End::Green), (200, End::Closed)] {
        let mut scene = running();
        scene.pending_mut().github = PullOnGithub::Closed;
        scene.wait_beating(seconds);
        leaves(&mut scene, GREEN, GREEN);
        assert_eq!(ended(&scene).2, end);
    }
}

#[test]
fn a_build_without_a_result_that_leaves_after_the_bots_own_timeout_timed_out() {
    for (seconds, end) in [(590, End::Left), (600, End::TimedOut)] {
        let timeout = Duration::from_secs(600);
        let own_timeouts = [((homu(), "servo".into()), timeout)].into();
        let setup = Setup {
            own_timeouts,
            ..setup()
        };
        let mut scene = observing();
        scene.core = Core::new(Policy::default(), setup, &[], at(0));
        // First seen at 10 s.
        scene.wait(seconds);
        scene.repo_mut().pending.clear();
        scene.wait(10);
        assert_eq!(ended(&scene).2, end);
    }
}

#[test]
fn a_rerun_of_ours_on_the_same_commit_ends_the_generation_before() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Cancelled));
    scene.told("mac", Told::Green { url: url(2) });
    let decision = scene.wait(400);
    let rerun = attempt(&decision, Remedy::Rerun).unwrap().clone();
    scene.send(&rerun, rerun.steps.last().unwrap(), accepted());
    scene.runs(3, "linux", RunState::Queued);
    scene.wait(20);
    assert_eq!(ended(&scene), (1, Verdict::WorkerLost, End::Rerun));
}

#[test]
fn a_build_that_ended_while_nobody_looked_ended_unseen_and_once() {
    let mut scene = running();
    scene.repo_mut().pending.clear();
    scene.restart();
    scene.wait(60);
    assert_eq!(ended(&scene), (1, Verdict::Unknown, End::Unknown));
    scene.restart();
    scene.wait(60);
    assert_eq!(endings(&scene).len(), 1);
}

#[test]
fn a_build_that_got_a_new_commit_while_nobody_looked_ended_unseen() {
    let mut scene = running();
    scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
    scene.restart();
    scene.wait(60);
    assert_eq!(ended(&scene), (1, Verdict::Unknown, End::Unknown));
}

#[test]
fn a_build_that_is_still_pending_after_a_restart_has_not_ended() {
    let mut scene = running();
    scene.restart();
    scene.wait(60);
    assert_eq!(endings(&scene), []);
}

#[test]
fn a_build_that_comes_back_after_its_ending_begins_anew_also_with_the_same_commit() {
    let mut scene = running();
    scene.repo_mut().pending.clear();
    scene.wait(60);
    assert_eq!(endings(&scene).len(), 1);
    let mut back = pending();
    back.witnesses = Witnesses::PageOnly {
        database: String::new(),
    };
    scene.repo_mut().pending = vec![back];
    scene.restart();
    let decision = scene.wait(60);
    let judged = &decision.builds[0];
    assert_eq!(judged.id, build(2), "{judged:?}");
    assert_eq!(judged.own, Some(Verdict::Unknown), "not orphaned yet");
    assert_eq!(endings(&scene).len(), 1);
}

#[test]
fn what_would_be_sent_is_found_once_also_over_a_restart() {
    let mut scene = observing();
    scene.wait(2000);
    let found = findings(&scene);
    let [finding] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(finding.attempt.target, Target::Build(build(1)));
    assert_eq!(finding.attempt.remedy, Remedy::Rerun);
    assert_eq!(finding.verdict, Verdict::NoShow);
    assert_eq!(finding.steps, [StepKind::ReleaseSlot, StepKind::Retry]);
    assert!(!finding.evidence.is_empty());
    scene.restart();
    scene.wait(2000);
    assert_eq!(findings(&scene).len(), 1);

    // Its next generation is another matter.
    scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
    let complete = crate::model::History::Complete;
    scene.ci_mut().history.insert("merge2".into(), complete);
    scene.wait(2000);
    let found = findings(&scene);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].attempt.target, Target::Build(build(2)));
}

#[test]
fn what_another_gate_holds_and_what_is_sent_is_no_finding() {
    let mut scene = Scene::new();
    scene.wait(400);
    assert_eq!(findings(&scene), [], "it acts");

    let mut scene = observing();
    scene.pending_mut().github = PullOnGithub::Closed;
    scene.wait(60);
    assert_eq!(findings(&scene), [], "not for long enough");
}

#[test]
fn a_queue_that_went_on_and_got_stuck_again_is_found_again() {
    let mut scene = observing();
    let wedge = |scene: &mut Scene| {
        scene.repo_mut().pending.clear();
        scene.repo_mut().approved = vec![approved(8)];
        scene.wait(1200);
    };
    wedge(&mut scene);
    scene.restart();
    wedge(&mut scene);
    assert_eq!(findings(&scene).len(), 1);
    scene.repo_mut().approved.clear();
    scene.repo_mut().pending = vec![pending()];
    scene.wait(30);
    wedge(&mut scene);
    let found = findings(&scene);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|it| it.attempt.remedy == Remedy::Unwedge));
}

#[test]
fn builds_that_wait_for_their_ending_to_be_written_are_bounded() {
    let mut scene = observing();
    let mut one = pending();
    scene.repo_mut().pending = (1..=300)
        .map(|pull| {
            one.pull = pull;
            one.clone()
        })
        .collect();
    scene.see();
    scene.seconds += 10;
    scene.repo_mut().pending.clear();
    scene.see();
    let now = scene.now();
    assert_eq!(scene.core.endings(now).len(), 256);
}
