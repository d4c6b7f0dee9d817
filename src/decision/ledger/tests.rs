//! What is known, over looks, gaps and restarts.

use std::collections::BTreeSet;

use super::super::samples::*;
use super::*;
use crate::model::{MergeSha, Record, RunEnd, RunId, Told};

fn tracked(scene: &Scene) -> &Tracked {
    scene.core.ledger().build(&key()).expect("it is pending")
}

fn last_sighting(scene: &Scene) -> &Sighting {
    scene
        .records
        .iter()
        .rev()
        .find_map(|record| match record {
            Record::Sighting(sighting) => Some(sighting),
            Record::Intent { .. }
            | Record::Outcome { .. }
            | Record::Closed { .. }
            | Record::Order(_)
            | Record::Finding(_)
            | Record::Ending(_) => None,
        })
        .expect("something was seen")
}

#[test]
fn the_first_sight_of_a_build_is_kept_over_a_restart() {
    let mut scene = Scene::new();
    scene.wait(60);
    let first = tracked(&scene).first_seen;
    scene.restart();
    scene.wait(60);
    assert_eq!(tracked(&scene).first_seen, first);
    assert_eq!(tracked(&scene).start_from, first);
    assert_eq!(tracked(&scene).id.generation, 1);
}

#[test]
fn a_new_commit_opens_a_generation_and_names_its_cause() {
    for (head, cause) in [
        ("head1", SightingCause::OthersRerun),
        ("head2", SightingCause::NewHead),
    ] {
        let mut scene = Scene::new();
        scene.wait(60);
        scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
        scene.pending_mut().head_sha = Some(head.into());
        scene.wait(10);
        assert_eq!(tracked(&scene).id.generation, 2);
        assert_eq!(tracked(&scene).first_seen, at(70));
        assert_eq!(last_sighting(&scene).cause, cause, "{head}");
    }
}

#[test]
fn runs_that_were_over_do_not_count_when_the_same_commit_is_pending_again() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Exception));
    scene.runs(2, "linux", RunState::Ended(RunEnd::Failure));
    scene.runs(3, "mac", RunState::Ended(RunEnd::Success));
    scene.runs(4, "mac", RunState::Running);
    scene.wait(30);
    let pending = std::mem::take(&mut scene.repo_mut().pending);
    scene.wait(10);
    scene.repo_mut().pending = pending;
    scene.wait(10);
    assert_eq!(tracked(&scene).id.generation, 2);
    let before: BTreeSet<RunId> = [RunId::from("1"), RunId::from("2")].into();
    assert_eq!(tracked(&scene).before, before);
    assert_eq!(last_sighting(&scene).before, before);
}

#[test]
fn what_was_over_at_the_first_look_does_not_count_where_a_restart_forgot_which_runs_were() {
    let mut scene = Scene::new();
    scene.wait(30);
    let pending = std::mem::take(&mut scene.repo_mut().pending);
    scene.wait(10);
    scene.restart();
    scene.wait(10);
    scene.repo_mut().pending = pending;
    scene.runs(1, "linux", RunState::Ended(RunEnd::Failure));
    scene.runs(2, "mac", RunState::Running);
    scene.ci_mut().history.clear();
    scene.wait(10);
    // What ends after that counts, also where the history comes later.
    scene.runs(2, "mac", RunState::Ended(RunEnd::Failure));
    scene
        .ci_mut()
        .history
        .insert("merge1".into(), History::Complete);
    scene.wait(10);
    assert_eq!(tracked(&scene).before, [RunId::from("1")].into());
}

#[test]
fn a_first_sight_from_the_journal_is_of_the_past_after_the_first_look() {
    let mut scene = Scene::new();
    scene.wait(60);
    scene.restart();
    let pending = std::mem::take(&mut scene.repo_mut().pending);
    scene.wait(600);
    scene.repo_mut().pending = pending;
    scene.wait(10);
    assert_eq!(tracked(&scene).first_seen, scene.now());
    assert_eq!(tracked(&scene).id.generation, 2);
}

#[test]
fn a_commit_that_becomes_known_later_is_awaited_from_then() {
    let mut scene = Scene::new();
    scene.pending_mut().merge_sha = MergeSha::NotStored;
    scene.wait(600);
    scene.pending_mut().merge_sha = MergeSha::Known("merge1".into());
    scene.wait(10);
    assert_eq!(tracked(&scene).id.generation, 1);
    assert_eq!(tracked(&scene).first_seen, at(10));
    assert_eq!(tracked(&scene).start_from, at(610));
    scene.restart();
    scene.wait(10);
    assert_eq!(tracked(&scene).id.generation, 1);
    assert_eq!(tracked(&scene).start_from, at(610), "over a restart too");
}

#[test]
fn a_commit_that_became_known_during_a_restart_opens_no_generation() {
    let mut scene = Scene::new();
    scene.pending_mut().merge_sha = MergeSha::NotStored;
    scene.wait(60);
    scene.restart();
    scene.pending_mut().merge_sha = MergeSha::Known("merge1".into());
    scene.wait(10);
    assert_eq!(tracked(&scene).id.generation, 1);
    assert_eq!(tracked(&scene).start_from, at(70));
}

#[test]
fn a_build_that_may_have_been_rebuilt_during_a_restart_is_awaited_from_then() {
    let mut scene = Scene::new();
    scene.told("linux", Told::Green { url: url(1) });
    scene.told("mac", Told::Red { url: url(2) });
    scene.wait(60);
    scene.restart();
    scene.wait(10);
    assert_eq!(tracked(&scene).first_seen, at(10));
    assert_eq!(tracked(&scene).start_from, at(70));
}

#[test]
fn time_in_which_a_source_was_silent_ages_nothing() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.wait(60);
    let heartbeat = tracked(&scene).runs["1"].heartbeat;
    scene.ci = Err(failed());
    scene.wait(1000);
    scene.ci = Ok(idle_ci());
    scene.runs(1, "linux", RunState::Running);
    scene.wait(10);
    let after = tracked(&scene).runs["1"].heartbeat;
    assert_eq!(after.since(heartbeat), Duration::from_secs(1010));
}

#[test]
fn a_heartbeat_is_a_change_and_never_moves_back() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.wait(60);
    assert_eq!(tracked(&scene).runs["1"].heartbeat, at(10));
    scene.beat();
    scene.wait(10);
    assert_eq!(tracked(&scene).runs["1"].heartbeat, at(70));
    scene.wait(60);
    assert_eq!(tracked(&scene).runs["1"].heartbeat, at(70));
}

#[test]
fn another_try_of_a_run_starts_anew() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.worker("linux", "linux-1", |worker| worker.connected = false);
    scene.wait(60);
    assert_eq!(tracked(&scene).runs["1"].worker_gone, Some(at(10)));
    let run = &mut scene.ci_mut().runs[0];
    run.number = Some(2);
    run.worker = Some("linux-2".into());
    scene.wait(10);
    let watch = &tracked(&scene).runs["1"];
    assert_eq!((watch.started, watch.worker_gone), (Some(at(70)), None));
}

#[test]
fn a_provider_is_asked_for_what_the_bot_lacks() {
    let mut scene = Scene::new();
    scene.told("linux", Told::Green { url: url(1) });
    scene.wait(10);
    let questions = scene.core.questions(&buildbot());
    let asked = Question {
        sha: "merge1".into(),
        builders: ["mac".into()].into(),
    };
    assert_eq!(questions, [asked]);
    assert_eq!(scene.core.questions(&"travis".into()), []);
}

#[test]
fn the_commits_of_past_builds_are_remembered_newest_first_and_boundedly() {
    let mut scene = Scene::new();
    for number in 0..100 {
        scene.pending_mut().merge_sha = MergeSha::Known(format!("merge{number}").as_str().into());
        scene.wait(10);
    }
    let suspects = scene.core.ledger().slot_suspects(&homu());
    assert_eq!(suspects.len(), REMEMBERED_MAX);
    assert_eq!(suspects[0], "merge99".into());
}

#[test]
fn a_generation_of_ours_leaves_out_the_runs_that_are_over() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Exception));
    scene.runs(2, "linux", RunState::Queued);
    scene.wait(20);
    let mut ledger = scene.core.ledger().clone();
    let opened = ledger
        .open_generation(at(30), &key(), SightingCause::OurRerun)
        .expect("it is pending");
    assert_eq!(opened.build, build(2));
    assert_eq!(opened.before, [RunId::from("1")].into());
    assert_eq!(ledger.build(&key()).map(|one| one.start_from), Some(at(30)));
}

#[test]
fn a_new_red_row_in_a_pending_build_tells_of_a_rerun_between_two_looks() {
    let red = |url: &str| Told::Red {
        url: url.to_owned(),
    };
    let mut scene = Scene::new();
    scene.wait(60);
    for (url, generation, from) in [
        ("builds/1", 2, 70),
        ("builds/1", 2, 70),
        ("builds/2", 3, 90),
    ] {
        scene.pending_mut().expectations[0].told = red(url);
        scene.wait(10);
        assert_eq!(tracked(&scene).id.generation, generation, "{url}");
        assert_eq!(tracked(&scene).first_seen, at(from), "{url}");
        assert_eq!(tracked(&scene).start_from, at(from), "{url}");
    }
    assert_eq!(last_sighting(&scene).cause, SightingCause::OthersRerun);
    assert_eq!(last_sighting(&scene).merge_sha, tracked(&scene).merge_sha);

    // What was red before another commit says nothing of that one.
    scene.pending_mut().merge_sha = MergeSha::Known("merge2".into());
    scene.pending_mut().expectations[0].told = Told::Nothing;
    scene.wait(10);
    assert_eq!(tracked(&scene).id.generation, 4);
    // Nor is a restart a rerun.
    scene.pending_mut().expectations[0].told = red("builds/3");
    scene.restart();
    scene.wait(10);
    assert_eq!(tracked(&scene).id.generation, 4);
}

#[test]
fn a_look_at_life_ends_a_death() {
    let mut scene = Scene::new();
    scene.wait(60);
    let mut ledger = scene.core.ledger().clone();
    let linux = BuilderName::from("linux");
    let looks = |ledger: &mut Ledger, second| {
        let death = ledger.count_death(at(second), &key(), Some(&linux));
        death.map(|death| death.looks)
    };
    assert_eq!(looks(&mut ledger, 70), Some(1));
    assert_eq!(looks(&mut ledger, 80), Some(2));
    assert!(ledger.announce_death(&key(), Some(&linux)));
    assert!(!ledger.announce_death(&key(), Some(&linux)), "once");
    assert!(ledger.clear_death(&key(), Some(&linux)).is_some());
    assert_eq!(looks(&mut ledger, 90), Some(1));
}
