//! Verdicts: each with its deadline, and which comes first.

use std::time::Duration;

use super::super::samples::*;
use crate::model::{
    History, MergeSha, PullOnGithub, Remedy, RunEnd, RunState, Told, Verdict, Witnesses,
};

/// The verdicts on `linux` just before and at a deadline, where nothing changes in between.
#[track_caller]
fn before_and_at(scene: &mut Scene, deadline: u64) -> (Verdict, Verdict) {
    // The first look, from which the deadline counts.
    scene.look();
    let before = scene.wait(deadline - 1);
    let after = scene.wait(1);
    (verdict(&before, "linux"), verdict(&after, "linux"))
}

#[test]
fn a_build_without_a_run_is_starting_for_5_minutes_and_then_a_no_show() {
    let mut scene = Scene::new();
    let seen = before_and_at(&mut scene, 300);
    assert_eq!(seen, (Verdict::Starting, Verdict::NoShow));
}

#[test]
fn a_run_with_a_heartbeat_in_time_is_alive_however_old_it_is_but_people_are_told() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    let decision = scene.wait_beating(6 * 3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
    assert!(!decision.builds[0].expectations[0].overdue);
    let decision = scene.wait_beating(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
    assert!(decision.builds[0].expectations[0].overdue);
    assert!(attempt(&decision, Remedy::Rerun).is_none());
}

/// Two masters that both have a builder `linux` and a builder `mac`.
fn two_masters() -> Scene {
    let mut scene = Scene::new();
    scene.core.configure(acting(), setup_of_two());
    scene.second = Some(Ok(idle_ci()));
    scene
}

#[test]
fn a_run_at_any_master_that_has_the_builder_counts() {
    for run_at_second in [false, true] {
        let mut scene = two_masters();
        let mut running = idle_ci();
        running.runs = vec![run(1, "linux", RunState::Running)];
        if run_at_second {
            scene.second = Some(Ok(running));
        } else {
            scene.ci = Ok(running);
        }
        let decision = scene.wait(400);
        assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
        assert_eq!(verdict(&decision, "mac"), Verdict::NoShow);
    }
}

#[test]
fn nothing_is_dead_before_it_is_dead_at_every_master() {
    let mut scene = two_masters();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Retry));
    let mut elsewhere = idle_ci();
    elsewhere.history.clear();
    scene.second = Some(Ok(elsewhere));
    let decision = scene.wait(400);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
    assert_eq!(verdict(&decision, "mac"), Verdict::Unknown);
    scene.second = Some(Ok(idle_ci()));
    let decision = scene.wait(400);
    assert_eq!(verdict(&decision, "linux"), Verdict::WorkerLost);
    assert_eq!(verdict(&decision, "mac"), Verdict::NoShow);
}

#[test]
fn a_silent_master_that_may_have_the_builder_leaves_a_death_unknown() {
    let mut scene = two_masters();
    scene.second = Some(Err(failed()));
    scene.runs(1, "linux", RunState::Running);
    let decision = scene.wait(400);
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
    assert_eq!(verdict(&decision, "mac"), Verdict::Unknown, "never seen");
    let mut without = idle_ci();
    without.pools.clear();
    scene.second = Some(Ok(without));
    scene.wait(20);
    scene.second = Some(Err(failed()));
    let decision = scene.wait(400);
    assert_eq!(verdict(&decision, "mac"), Verdict::NoShow, "it has no mac");
}

#[test]
fn a_run_without_a_heartbeat_is_stalled_after_25_minutes() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    let seen = before_and_at(&mut scene, 25 * 60);
    assert_eq!(seen, (Verdict::Alive, Verdict::Stalled));
}

#[test]
fn a_worker_that_does_not_answer_its_ping_stalls_the_run_after_a_minute() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Preparing);
    let seen = before_and_at(&mut scene, 60);
    assert_eq!(seen, (Verdict::Alive, Verdict::Stalled));
}

#[test]
fn another_try_of_a_run_is_pinged_anew() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Preparing);
    scene.wait(50);
    scene.ci_mut().runs[0].number = Some(2);
    let decision = scene.wait(30);
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
}

#[test]
fn a_run_whose_worker_is_gone_is_lost_after_3_minutes() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.worker("linux", "linux-1", |worker| worker.connected = false);
    let seen = before_and_at(&mut scene, 180);
    assert_eq!(seen, (Verdict::Alive, Verdict::WorkerLost));
}

/// Buildbot 4.3 was seen to leave a run at `pinging worker` for ever: its worker was killed between the
/// run's creation and its first command. The worker came back and did other work.
#[test]
fn a_run_does_not_come_back_with_its_worker() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Preparing);
    let connected = |scene: &mut Scene, is: bool| {
        scene.worker("linux", "linux-1", |worker| worker.connected = is);
    };
    connected(&mut scene, false);
    scene.wait(20);
    connected(&mut scene, true);
    assert_eq!(verdict(&scene.wait(150), "linux"), Verdict::Alive);
    assert_eq!(verdict(&scene.wait(30), "linux"), Verdict::WorkerLost);
}

#[test]
fn a_run_that_moves_on_after_its_worker_was_gone_lives() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    let connected = |scene: &mut Scene, is: bool| {
        scene.worker("linux", "linux-1", |worker| worker.connected = is);
    };
    connected(&mut scene, false);
    scene.wait(20);
    connected(&mut scene, true);
    scene.wait(10);
    scene.beat();
    assert_eq!(verdict(&scene.wait(200), "linux"), Verdict::Alive);

    // Gone in one look only: it may be the worker's return that was seen by half.
    connected(&mut scene, false);
    scene.wait(10);
    connected(&mut scene, true);
    assert_eq!(verdict(&scene.wait(200), "linux"), Verdict::Alive);
}

#[test]
fn a_run_that_ended_without_a_result_waits_3_minutes_for_its_successor() {
    for end in [
        RunEnd::Exception,
        RunEnd::Retry,
        RunEnd::Cancelled,
        RunEnd::Skipped,
    ] {
        let mut scene = Scene::new();
        scene.runs(1, "linux", RunState::Running);
        scene.wait(10);
        scene.runs(1, "linux", RunState::Ended(end));
        let seen = before_and_at(&mut scene, 180);
        assert_eq!(seen, (Verdict::Starting, Verdict::WorkerLost), "{end:?}");
    }
}

#[test]
fn a_run_that_was_over_when_it_was_found_leaves_its_successor_the_time_to_start() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Exception));
    let seen = before_and_at(&mut scene, 300);
    assert_eq!(seen, (Verdict::Starting, Verdict::WorkerLost));
}

#[test]
fn a_successor_takes_the_place_of_a_lost_run() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Exception));
    scene.wait(200);
    scene.runs(2, "linux", RunState::Running);
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
}

#[test]
fn a_finished_run_is_unreported_after_2_minutes() {
    for end in [RunEnd::Success, RunEnd::Warnings, RunEnd::Failure] {
        let mut scene = Scene::new();
        scene.runs(1, "linux", RunState::Ended(end));
        let seen = before_and_at(&mut scene, 120);
        assert_eq!(seen, (Verdict::Alive, Verdict::Unreported), "{end:?}");
    }
}

#[test]
fn a_result_that_the_bot_has_is_reported_whatever_the_provider_says() {
    let mut scene = Scene::new();
    scene.told("linux", Told::Green { url: url(1) });
    scene.ci = Err(failed());
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Reported);
}

#[test]
fn a_queued_run_is_queued_behind_a_live_worker_and_starved_without_one() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Queued);
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Queued);
    scene.workers("linux", |worker| worker.paused = true);
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Starved);
}

#[test]
fn what_a_silent_provider_would_tell_is_unknown_once_its_answer_is_two_ticks_old() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.wait(60);
    scene.ci = Err(failed());
    let decision = scene.wait(20);
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
}

#[test]
fn a_failed_probe_is_not_evidence_of_death() {
    let mut scene = Scene::new();
    scene.wait(60);
    scene.ci = Err(failed());
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
    assert!(!decision.builds[0].any_dead());
}

#[test]
fn a_silent_bot_makes_everything_unknown() {
    let mut scene = Scene::new();
    scene.wait(400);
    scene.bot = Err(failed());
    let decision = scene.wait(40);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
    assert_eq!(decision.builds[0].own, None);
}

#[test]
fn absence_is_not_read_from_open_work_alone() {
    let mut scene = Scene::new();
    scene.ci_mut().history.clear();
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
}

#[test]
fn absence_is_not_read_from_a_part_of_the_history() {
    let mut scene = Scene::new();
    let partial = History::Partial("still reading".to_owned());
    scene.ci_mut().history.insert("merge1".into(), partial);
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
}

#[test]
fn a_lost_run_is_not_condemned_before_the_history_is_known() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Exception));
    scene.ci_mut().history.clear();
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
}

#[test]
fn a_commit_that_nobody_knows_is_unknown() {
    let mut scene = Scene::new();
    scene.pending_mut().merge_sha = MergeSha::NotStored;
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
}

#[test]
fn a_builder_that_no_provider_has_is_unknown() {
    let mut scene = Scene::new();
    scene.ci_mut().pools.remove("linux");
    let decision = scene.wait(3600);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
}

#[test]
fn a_build_that_was_not_looked_for_is_not_a_no_show_by_that_time() {
    let mut scene = Scene::new();
    scene.wait(60);
    scene.ci = Err(failed());
    scene.wait(600);
    scene.ci = Ok(idle_ci());
    let decision = scene.wait(200);
    assert_eq!(verdict(&decision, "linux"), Verdict::Starting);
    let decision = scene.wait(100);
    assert_eq!(verdict(&decision, "linux"), Verdict::NoShow);
}

#[test]
fn a_closed_pull_request_is_outdated_after_2_minutes_before_all_else() {
    let mut scene = Scene::new();
    scene.wait(400);
    scene.pending_mut().github = PullOnGithub::Closed;
    scene.pending_mut().merge_sha = MergeSha::Missing;
    let decision = scene.wait(120);
    assert_ne!(decision.builds[0].verdict, Verdict::Outdated);
    let decision = scene.wait(10);
    assert_eq!(decision.builds[0].verdict, Verdict::Outdated);
}

#[test]
fn a_build_goes_by_the_longest_outdated_time_of_its_builders() {
    let mut policy = acting();
    let mut slow = policy.timeouts.global.clone();
    slow.outdated = Duration::from_secs(600);
    let mac = ("servo".into(), "mac".into());
    policy.timeouts.builders.insert(mac, slow);
    let mut scene = Scene::with(policy);
    scene.pending_mut().github = PullOnGithub::Closed;
    scene.wait(10);
    assert_eq!(scene.wait(590).builds[0].own, None);
    assert_eq!(scene.wait(10).builds[0].own, Some(Verdict::Outdated));
}

#[test]
fn a_head_that_moved_is_outdated() {
    let mut scene = Scene::new();
    scene.pending_mut().github = open("head2");
    let decision = scene.wait(140);
    assert_eq!(decision.builds[0].verdict, Verdict::Outdated);
}

#[test]
fn an_unknown_pull_request_is_not_outdated() {
    let mut scene = Scene::new();
    scene.pending_mut().github = PullOnGithub::Unknown;
    let decision = scene.wait(240);
    assert_eq!(decision.builds[0].own, None);
}

#[test]
fn pending_without_a_stored_commit_is_orphaned_after_5_minutes() {
    let mut scene = Scene::new();
    scene.pending_mut().merge_sha = MergeSha::Missing;
    scene.look();
    let decision = scene.wait(299);
    assert_eq!(decision.builds[0].own, Some(Verdict::Unknown));
    let decision = scene.wait(1);
    assert_eq!(decision.builds[0].own, Some(Verdict::Orphaned));
}

#[test]
fn a_build_that_waits_for_nothing_is_orphaned_after_5_minutes() {
    let mut scene = Scene::new();
    for expectation in &mut scene.pending_mut().expectations {
        let url = "http://ci/linux/builds/1".to_owned();
        expectation.told = Told::Green { url };
    }
    scene.runs(1, "linux", RunState::Ended(RunEnd::Success));
    scene.look();
    let decision = scene.wait(299);
    assert_eq!(decision.builds[0].own, Some(Verdict::Unknown));
    assert_eq!(
        decision.builds[0].evidence.sentences(),
        ["it is pending, and the bot has every result"]
    );
    let decision = scene.wait(1);
    assert_eq!(decision.builds[0].own, Some(Verdict::Orphaned));
    // Found so in three looks.
    let decision = scene.wait(20);
    assert!(attempt(&decision, Remedy::Rerun).is_some());
}

#[test]
fn a_bot_that_contradicts_itself_orphans_a_build_unless_a_run_lives() {
    let page = "approved".to_owned();
    let mut scene = Scene::new();
    scene.pending_mut().witnesses = Witnesses::DatabaseOnly { page };
    scene.runs(1, "linux", RunState::Running);
    let decision = scene.wait_beating(400);
    assert_eq!(decision.builds[0].own, Some(Verdict::Unknown));
    scene.runs(1, "linux", RunState::Ended(RunEnd::Cancelled));
    // Its successor has its time.
    scene.look();
    let decision = scene.wait(179);
    assert_eq!(decision.builds[0].own, Some(Verdict::Unknown));
    let decision = scene.wait(1);
    assert_eq!(decision.builds[0].own, Some(Verdict::Orphaned));
}

#[test]
fn approved_work_that_does_not_start_wedges_a_queue_after_5_minutes() {
    let mut scene = Scene::new();
    scene.repo_mut().pending.clear();
    scene.repo_mut().approved = vec![approved(8)];
    scene.look();
    let decision = scene.wait(299);
    assert_eq!(decision.queues[0].verdict, Verdict::Alive);
    // The clock starts with the decision on the first look, and stops with the next one.
    let decision = scene.wait(1);
    assert_eq!(decision.queues[0].verdict, Verdict::Wedged);
}

#[test]
fn a_queue_is_not_wedged_by_work_that_the_bot_would_not_start() {
    let mut closed = approved(8);
    closed.github = PullOnGithub::Closed;
    let mut conflict = approved(8);
    conflict.mergeable = Some(false);
    let mut moved = approved(8);
    moved.github = open("newer");
    for pull in [closed, conflict, moved] {
        let mut scene = Scene::new();
        scene.repo_mut().pending.clear();
        scene.repo_mut().approved = vec![pull.clone()];
        let decision = scene.wait(900);
        assert_ne!(decision.queues[0].verdict, Verdict::Wedged, "{pull:?}");
    }
    let mut scene = Scene::new();
    scene.repo_mut().pending.clear();
    scene.repo_mut().approved = vec![approved(8)];
    scene.repo_mut().tree_closed = Some(1);
    assert_ne!(scene.wait(900).queues[0].verdict, Verdict::Wedged);
}

#[test]
fn a_queue_is_not_wedged_while_a_build_of_another_repository_is_about_to_start() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Queued);
    scene.runs(2, "mac", RunState::Queued);
    let other = crate::model::RepoSnapshot {
        approved: vec![approved(8)],
        ..crate::model::RepoSnapshot::default()
    };
    scene.bot_mut().repos.insert("mozjs".into(), other);
    let decision = scene.wait(900);
    assert_eq!(decision.queues[0].verdict, Verdict::Alive);
    scene.runs(1, "linux", RunState::Running);
    scene.runs(2, "mac", RunState::Running);
    let decision = scene.wait_beating(320);
    assert_eq!(decision.queues[0].verdict, Verdict::Wedged);
}

#[test]
fn a_red_row_from_before_and_all_runs_before_it_do_not_count() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Failure));
    scene.runs(2, "linux", RunState::Ended(RunEnd::Failure));
    scene.told("linux", Told::Red { url: url(2) });
    let seen = before_and_at(&mut scene, 300);
    assert_eq!(seen, (Verdict::Starting, Verdict::NoShow));
}

#[test]
fn a_result_from_after_a_red_row_counts() {
    let mut scene = Scene::new();
    scene.runs(2, "linux", RunState::Ended(RunEnd::Failure));
    scene.runs(3, "linux", RunState::Ended(RunEnd::Failure));
    scene.told("linux", Told::Red { url: url(2) });
    let decision = scene.wait(140);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unreported);
}

#[test]
fn an_older_run_that_lives_counts_where_the_newest_is_dead() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.runs(2, "linux", RunState::Ended(RunEnd::Cancelled));
    let decision = scene.wait_beating(400);
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
}

#[test]
fn an_older_red_run_does_not_count_where_the_newest_is_dead() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Failure));
    scene.runs(2, "linux", RunState::Ended(RunEnd::Cancelled));
    let decision = scene.wait(400);
    assert_eq!(verdict(&decision, "linux"), Verdict::WorkerLost);
}

#[test]
fn a_dead_run_is_not_the_last_word_where_a_newer_one_has_left_open_work() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.worker("linux", "linux-1", |worker| worker.connected = false);
    scene.wait(100);
    scene.runs(2, "linux", RunState::Running);
    scene.wait(20);
    scene.ci_mut().runs.pop();
    scene.ci_mut().history.clear();
    let decision = scene.wait(400);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unknown);
    scene
        .ci_mut()
        .history
        .insert("merge1".into(), History::Complete);
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::WorkerLost);
}

#[test]
fn a_result_that_was_told_3_times_without_effect_counts_as_dead() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Success));
    for times in 1..=3 {
        let decision = scene.wait(300);
        let attempt = attempt(&decision, Remedy::ReplayResult)
            .unwrap_or_else(|| panic!("{times}: {:?}", decision.plan.holds))
            .clone();
        let step = attempt.steps.last().unwrap().clone();
        scene.send(&attempt, &step, accepted());
        let decision = scene.wait(130);
        let linux = &decision.builds[0].expectations[0];
        assert_eq!(linux.verdict, Verdict::Unreported);
        assert_eq!(linux.dead, times == 3, "{times}");
    }
}

#[test]
fn what_the_bot_was_made_to_forget_is_spared_while_nothing_of_the_rest_shows_life() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Ended(RunEnd::Success));
    scene.runs(2, "mac", RunState::Running);
    scene.told("linux", Told::Green { url: url(1) });
    scene.told("mac", Told::Started { url: url(2) });
    let decision = scene.wait(25 * 60 + 60);
    let rerun = attempt(&decision, Remedy::Rerun).unwrap().clone();
    assert_eq!(steps(&rerun).len(), 3, "{:?}", rerun.steps);
    scene.send(&rerun, &rerun.steps[1], accepted());
    scene.told("linux", Told::Started { url: url(1) });
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Reported);
    assert!(decision.builds[0].rerun_is_lawful());
    // It ends, and may have a successor: no life yet.
    scene.runs(2, "mac", RunState::Ended(RunEnd::Retry));
    let decision = scene.wait(170);
    assert_eq!(verdict(&decision, "mac"), Verdict::Starting);
    assert_eq!(verdict(&decision, "linux"), Verdict::Reported);
    scene.runs(2, "mac", RunState::Running);
    // The rest shows life: now the result is lost like any other.
    scene.beat();
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Unreported);
}

/// `linux` is a no-show, `mac` is what the test makes it.
fn beside_a_dead_sibling(change: impl Fn(&mut Scene)) -> (Verdict, bool) {
    let mut scene = Scene::new();
    scene.wait(290);
    change(&mut scene);
    let decision = scene.wait(60);
    assert_eq!(verdict(&decision, "linux"), Verdict::NoShow);
    (
        verdict(&decision, "mac"),
        decision.builds[0].rerun_is_lawful(),
    )
}

#[test]
fn the_law_of_reruns_wants_everything_that_is_lacking_to_be_dead() {
    let alive = |scene: &mut Scene| scene.runs(1, "mac", RunState::Running);
    let queued = |scene: &mut Scene| scene.runs(1, "mac", RunState::Queued);
    let starved = |scene: &mut Scene| {
        scene.runs(1, "mac", RunState::Queued);
        scene.workers("mac", |worker| worker.connected = false);
    };
    let starting = |scene: &mut Scene| scene.runs(1, "mac", RunState::Ended(RunEnd::Retry));
    let unknown = |scene: &mut Scene| {
        scene.ci_mut().pools.remove("mac");
    };
    let dead = |_: &mut Scene| {};
    let green = |scene: &mut Scene| scene.told("mac", Told::Green { url: url(1) });
    assert_eq!(beside_a_dead_sibling(alive), (Verdict::Alive, false));
    assert_eq!(beside_a_dead_sibling(queued), (Verdict::Queued, false));
    assert_eq!(beside_a_dead_sibling(starved), (Verdict::Starved, false));
    assert_eq!(beside_a_dead_sibling(starting), (Verdict::Starting, false));
    assert_eq!(beside_a_dead_sibling(unknown), (Verdict::Unknown, false));
    assert_eq!(beside_a_dead_sibling(dead), (Verdict::NoShow, true));
    assert_eq!(beside_a_dead_sibling(green), (Verdict::Reported, true));
}

#[test]
fn a_result_that_can_be_told_is_no_death() {
    let unreported = |scene: &mut Scene| scene.runs(1, "mac", RunState::Ended(RunEnd::Success));
    let mut scene = Scene::new();
    unreported(&mut scene);
    let decision = scene.wait(400);
    assert_eq!(verdict(&decision, "mac"), Verdict::Unreported);
    assert!(!decision.builds[0].rerun_is_lawful());
}

#[test]
fn a_build_that_lacks_nothing_is_not_rerun_at_once() {
    let mut scene = Scene::new();
    scene.told("linux", Told::Green { url: url(1) });
    scene.told("mac", Told::Green { url: url(2) });
    scene.look();
    // The bot is about to conclude from it.
    let decision = scene.wait(299);
    assert!(!decision.builds[0].rerun_is_lawful());
    assert_eq!(decision.plan.attempts, []);
}

#[test]
fn a_start_that_the_bot_has_not_heard_of_releases_the_slot_after_2_minutes_and_once() {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Running);
    scene.runs(2, "mac", RunState::Queued);
    scene.look();
    let decision = scene.wait_beating(119);
    assert_eq!(attempt(&decision, Remedy::ReleaseSlot), None);
    let decision = scene.wait_beating(1);
    let release = attempt(&decision, Remedy::ReleaseSlot).unwrap().clone();
    assert_eq!(verdict(&decision, "linux"), Verdict::Alive);
    scene.send(&release, &release.steps[0], accepted());
    let decision = scene.wait_beating(3600);
    assert_eq!(attempt(&decision, Remedy::ReleaseSlot), None);
    assert_eq!(
        attempt(&decision, Remedy::Rerun),
        None,
        "it never escalates"
    );
}
