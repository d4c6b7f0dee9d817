//! Every gate: when it shuts, and when it opens.

use std::collections::BTreeMap;

use super::super::super::gates::Operator;
use super::super::super::policy::{BuildSafety, OnSilence};
use super::super::super::samples::*;
use super::super::*;
use super::{dead, gate_of, rerun_gate, unreported};
use crate::model::{
    Gate, GithubState, MergeSha, Order, PullOnGithub, Quota, Remedy, RunEnd, RunState, Scope, Stop,
    StopKind, Told,
};

/// A stop of everything that fits.
fn stop(kind: StopKind, scope: Scope, second: u64, until: Option<u64>) -> Stop {
    Stop {
        kind,
        scope,
        reason: "upgrade".to_owned(),
        by: "alice".to_owned(),
        at: at(second),
        until: until.map(at),
    }
}

fn everything() -> Scope {
    Scope::default()
}

fn of(repo: &str, pull: Option<u64>, builder: Option<&str>) -> Scope {
    Scope {
        repo: Some(repo.into()),
        pull,
        builder: builder.map(BuilderName::from),
    }
}

#[test]
fn gate_paused_until_it_ends_by_itself_or_by_an_order() {
    let mut scene = dead();
    let now = scene.now().as_millis() / 1000;
    let pause = stop(StopKind::Pause, everything(), now, Some(now + 25));
    scene
        .core
        .record(&Record::Order(Order::Stop(pause.clone())));
    let decision = scene.wait(10);
    let held = hold(&decision, Remedy::Rerun).unwrap();
    assert_eq!(held.gate, Gate::Paused);
    assert_eq!(held.reason, "paused by alice (everything): upgrade");
    assert_eq!(held.until, pause.until);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Paused));
    assert_eq!(rerun_gate(&mut scene, 10), None, "it ended by itself");

    let forever = stop(StopKind::Pause, everything(), now, None);
    scene.core.record(&Record::Order(Order::Stop(forever)));
    assert_eq!(rerun_gate(&mut scene, 3600), Some(Gate::Paused));
    let go = |kind, scope| {
        Record::Order(Order::Go {
            kind,
            scope,
            at: at(now),
            by: "bob".to_owned(),
        })
    };
    let others = [
        (StopKind::Exclusion, None),
        (StopKind::Pause, Some(of("servo", None, None))),
    ];
    for (kind, scope) in others {
        scene.core.record(&go(kind, scope));
        assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Paused));
    }
    scene.core.record(&go(StopKind::Pause, None));
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn gate_paused_and_gate_excluded_bind_what_fits_their_scope() {
    let scopes = [
        (everything(), true),
        (of("servo", None, None), true),
        (of("servo", Some(PULL), None), true),
        (of("servo", None, Some("mac")), true),
        (of("other", None, None), false),
        (of("servo", Some(PULL + 1), None), false),
        (of("servo", None, Some("android")), false),
    ];
    for (scope, binds) in scopes {
        for (kind, gate) in [
            (StopKind::Pause, Gate::Paused),
            (StopKind::Exclusion, Gate::Excluded),
        ] {
            let mut scene = dead();
            scene.core.operator(Operator {
                stops: vec![stop(kind, scope.clone(), 0, None)],
                ..Operator::default()
            });
            let expected = binds.then_some(gate);
            assert_eq!(rerun_gate(&mut scene, 10), expected, "{scope}");
            scene.core.operator(Operator::default());
            assert_eq!(rerun_gate(&mut scene, 10), None);
        }
    }
}

#[test]
fn gate_silenced_binds_a_repository_or_a_builder() {
    for builder in [None, Some("mac".into())] {
        let mut scene = dead();
        scene.core.operator(Operator {
            silenced: BTreeMap::from([(("servo".into(), builder), "known".to_owned())]),
            ..Operator::default()
        });
        assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Silenced));
    }
}

#[test]
fn gate_not_settled_after_a_start_and_after_a_late_tick() {
    let mut scene = dead();
    scene.restart();
    assert_eq!(rerun_gate(&mut scene, 50), Some(Gate::NotSettled));
    assert_eq!(rerun_gate(&mut scene, 20), None);
    let late = Tick {
        late: true,
        good: 2,
        bad: 0,
    };
    scene.core.record_tick(scene.now(), late);
    assert_eq!(rerun_gate(&mut scene, 50), Some(Gate::NotSettled));
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn gate_bot_silent() {
    let mut scene = dead();
    let bot = std::mem::replace(&mut scene.bot, Err(failed()));
    // The last answer is still used: it is the gate that holds.
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::BotSilent));
    scene.bot = bot;
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn gate_in_doubt_until_an_open_intent_is_settled() {
    let mut scene = unreported();
    let decision = scene.wait_beating(10);
    let tell = attempt(&decision, Remedy::ReplayResult).unwrap().clone();
    let step = tell.steps.last().unwrap().clone();
    scene.intend(tell.intent(&step), None);
    let decision = scene.wait_beating(130);
    assert_eq!(
        gate_of(&decision, Remedy::ReplayResult),
        Some(Gate::InDoubt)
    );
    let decision = scene.wait_beating(10);
    assert_eq!(gate_of(&decision, Remedy::ReplayResult), None);
}

#[test]
fn an_open_intent_on_a_build_holds_its_rerun() {
    let mut scene = dead();
    let mut open = retry_intent(1, 1);
    open.attempt.target = crate::model::Target::Expectation {
        build: build(1),
        builder: "linux".into(),
    };
    open.attempt.remedy = Remedy::ReplayResult;
    scene.intend(open, None);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::InDoubt));
}

#[test]
fn gate_journal() {
    let mut scene = dead();
    scene.core.operator(Operator {
        journal: Some("the disk is full".to_owned()),
        ..Operator::default()
    });
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Journal));
}

#[test]
fn gate_confirming_until_the_third_look_in_a_row() {
    let mut scene = Scene::new();
    assert_eq!(attempt(&scene.wait(300), Remedy::Rerun), None);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Confirming));
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Confirming));
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn one_look_at_life_starts_the_confirmation_over() {
    let mut scene = dead();
    scene.runs(1, "linux", RunState::Running);
    scene.wait(10);
    scene.ci_mut().runs.clear();
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Confirming));
}

#[test]
fn a_look_that_failed_confirms_nothing() {
    let mut scene = Scene::new();
    scene.wait(310);
    let ci = std::mem::replace(&mut scene.ci, Err(failed()));
    scene.wait(20);
    scene.ci = ci;
    let decision = scene.wait(10);
    let held = hold(&decision, Remedy::Rerun).unwrap();
    assert_eq!(held.gate, Gate::Confirming, "{}", held.reason);
}

#[test]
fn gate_message_sent_a_moment_ago_and_for_good_after_3_times() {
    let mut scene = unreported();
    for times in 1..=3 {
        let decision = scene.wait_beating(10);
        let tell = attempt(&decision, Remedy::ReplayResult)
            .unwrap_or_else(|| panic!("{times}: {:?}", decision.plan.holds))
            .clone();
        let step = tell.steps.last().unwrap().clone();
        let refused = Outcome::Refused("HTTP 500".to_owned());
        scene.send(&tell, &step, refused);
        let decision = scene.wait_beating(100);
        assert_eq!(
            gate_of(&decision, Remedy::ReplayResult),
            Some(Gate::MessageSent)
        );
        scene.wait_beating(20);
    }
    let decision = scene.wait_beating(24 * 3600);
    let held = hold(&decision, Remedy::ReplayResult).unwrap();
    assert_eq!((held.gate, held.until), (Gate::MessageSent, None));
}

#[test]
fn what_cannot_be_sent_is_tried_ever_more_rarely() {
    let mut scene = unreported();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let begun = scene.seconds;
        let tell = loop {
            let decision = scene.wait_beating(10);
            if let Some(tell) = attempt(&decision, Remedy::ReplayResult) {
                break tell.clone();
            }
        };
        pauses.push(scene.seconds - begun);
        let step = tell.steps.last().unwrap().clone();
        scene.send(&tell, &step, Outcome::NotSent("no connection".to_owned()));
    }
    assert_eq!(pauses, [10, 120, 240]);
}

#[test]
fn an_attempt_that_is_not_carried_through_is_begun_again_ever_more_rarely() {
    let mut scene = dead();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let begun = scene.seconds;
        let rerun = loop {
            let decision = scene.wait(10);
            if let Some(rerun) = attempt(&decision, Remedy::Rerun) {
                break rerun.clone();
            }
        };
        pauses.push(scene.seconds - begun);
        scene.send(
            &rerun,
            &rerun.steps[0],
            Outcome::Unanswered("timeout".to_owned()),
        );
    }
    assert_eq!(pauses, [10, 120, 120, 120, 120, 120, 3600, 3600]);
}

#[test]
fn gate_outdated_holds_replays_and_reruns() {
    let mut scene = dead();
    scene.pending_mut().github = PullOnGithub::Closed;
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Outdated));
    let mut scene = unreported();
    scene.pending_mut().github = open("head2");
    let decision = scene.wait_beating(10);
    assert_eq!(
        gate_of(&decision, Remedy::ReplayResult),
        Some(Gate::Outdated)
    );
}

#[test]
fn a_silent_github_holds_replays_too() {
    let mut scene = unreported();
    scene.bot_mut().github = GithubState::Failed(failed());
    scene.pending_mut().github = PullOnGithub::Unknown;
    let decision = scene.wait_beating(10);
    let gate = gate_of(&decision, Remedy::ReplayResult);
    assert_eq!(gate, Some(Gate::GithubNotGood));
    scene.bot_mut().github = GithubState::NotConfigured;
    let decision = scene.wait_beating(10);
    assert_eq!(gate_of(&decision, Remedy::ReplayResult), None);
}

#[test]
fn gate_law_of_reruns() {
    let mut scene = dead();
    scene.runs(1, "mac", RunState::Queued);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::LawOfReruns));
}

#[test]
fn gate_on_silence_until_the_run_is_older_than_any_may_be() {
    let mut policy = acting();
    policy.builds.global.on_silence = OnSilence::Alert;
    let mut scene = Scene::with(policy);
    scene.runs(1, "linux", RunState::Running);
    scene.runs(2, "mac", RunState::Running);
    assert_eq!(rerun_gate(&mut scene, 3600), Some(Gate::OnSilence));
    assert_eq!(rerun_gate(&mut scene, 6 * 3600), None);
}

#[test]
fn gate_provider_not_good_for_5_minutes() {
    let mut scene = dead();
    let ci = std::mem::replace(&mut scene.ci, Err(failed()));
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::ProviderNotGood));
    scene.ci = ci;
    assert_eq!(rerun_gate(&mut scene, 290), Some(Gate::ProviderNotGood));
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn gate_github_not_good_for_5_minutes() {
    let mut scene = dead();
    let good = std::mem::replace(&mut scene.bot_mut().github, GithubState::Failed(failed()));
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::GithubNotGood));
    scene.bot_mut().github = good;
    assert_eq!(rerun_gate(&mut scene, 290), Some(Gate::GithubNotGood));
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn gate_zone_outage_then_storm_cooldown() {
    let mut scene = dead();
    scene.workers("mac", |worker| worker.connected = false);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::ZoneOutage));
    scene.workers("mac", |worker| worker.connected = true);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Confirming));
    assert_eq!(rerun_gate(&mut scene, 580), Some(Gate::StormCooldown));
    assert_eq!(rerun_gate(&mut scene, 20), None);
}

#[test]
fn the_time_of_an_outage_counts_for_no_age() {
    let mut scene = Scene::new();
    scene.wait(200);
    scene.workers("mac", |worker| worker.connected = false);
    scene.wait(3600);
    scene.workers("mac", |worker| worker.connected = true);
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "mac"), Verdict::Starting);
    let decision = scene.wait(100);
    assert_eq!(verdict(&decision, "mac"), Verdict::NoShow);
}

#[test]
fn gate_cooldown() {
    let mut scene = dead();
    scene.intend(retry_intent(1, 1), Some(accepted()));
    assert_eq!(rerun_gate(&mut scene, 290), Some(Gate::Cooldown));
    // Its jitter is at most a tenth.
    assert_eq!(rerun_gate(&mut scene, 40), None);
}

#[test]
fn gate_pull_budget_refills_after_a_day() {
    let mut scene = dead();
    for generation in [2, 3] {
        let mut theirs = sighting(generation, Some("merge1"), scene.seconds);
        theirs.cause = SightingCause::OthersRerun;
        scene.write(Record::Sighting(theirs));
    }
    assert_eq!(rerun_gate(&mut scene, 3600), Some(Gate::PullBudget));
    assert_eq!(rerun_gate(&mut scene, 23 * 3600 + 10), None);
}

#[test]
fn gate_worker_killer_after_two_different_workers_on_one_head() {
    let mut scene = dead();
    let mut before = retry_intent(1, 1);
    before.lost_workers = ["linux-1".into(), "linux-2".into()].into();
    scene.intend(before, Some(accepted()));
    assert_eq!(rerun_gate(&mut scene, 400), Some(Gate::WorkerKiller));
}

/// What holds the rerun of a build both of whose runs, on a worker each, ended like this.
fn gate_after_both_ended(end: RunEnd) -> Option<Gate> {
    let mut scene = Scene::new();
    let runs = [(1, "linux"), (2, "mac")];
    for (id, builder) in runs {
        scene.runs(id, builder, RunState::Running);
    }
    scene.wait(10);
    for (id, builder) in runs {
        scene.runs(id, builder, RunState::Ended(end));
    }
    rerun_gate(&mut scene, 400)
}

#[test]
fn runs_that_were_stopped_lost_no_worker() {
    let killer = Some(Gate::WorkerKiller);
    assert_eq!(gate_after_both_ended(RunEnd::Exception), killer);
    assert_eq!(gate_after_both_ended(RunEnd::Cancelled), None);
}

#[test]
fn gate_rerun_in_flight_on_the_same_bot() {
    let mut scene = dead();
    let mut other = retry_intent(1, 1);
    other.attempt.target = crate::model::Target::Build(crate::model::BuildId {
        key: BuildKey { pull: 99, ..key() },
        generation: 1,
    });
    other.merge_sha = None;
    scene.intend(other, None);
    // The other build is not pending, so the next look settles it.
    let decision = scene.core.decide(scene.now(), Look::Again);
    assert_eq!(gate_of(&decision, Remedy::Rerun), Some(Gate::RerunInFlight));
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn one_rerun_of_a_bot_is_planned_at_a_time_oldest_first() {
    let mut scene = Scene::new();
    scene.wait(20);
    let mut second = pending();
    second.pull = 3;
    second.merge_sha = MergeSha::Known("merge3".into());
    scene.repo_mut().pending.push(second);
    let whole = crate::model::History::Complete;
    scene.ci_mut().history.insert("merge3".into(), whole);
    let decision = scene.wait(400);
    let reruns: Vec<Option<u64>> = decision
        .plan
        .attempts
        .iter()
        .map(|attempt| attempt.id.target.pull())
        .collect();
    assert_eq!(reruns, [Some(PULL)]);
    let held = hold(&decision, Remedy::Rerun).unwrap();
    assert_eq!(held.gate, Gate::RerunInFlight);
}

#[test]
fn gate_zone_budget_refills_after_an_hour() {
    let mut scene = dead();
    for ordinal in 1..=3 {
        let mut other = retry_intent(1, ordinal);
        other.attempt.target = crate::model::Target::Build(crate::model::BuildId {
            key: BuildKey {
                pull: 90 + u64::from(ordinal),
                ..key()
            },
            generation: 1,
        });
        scene.intend(other, Some(accepted()));
    }
    assert_eq!(rerun_gate(&mut scene, 3600), Some(Gate::ZoneBudget));
    assert_eq!(rerun_gate(&mut scene, 10), None);
}

#[test]
fn gate_quota_low() {
    let mut scene = dead();
    let low = Quota {
        limit: 5000,
        remaining: 499,
        reset: 0,
    };
    scene.bot_mut().github = GithubState::Good(Some(low));
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::QuotaLow));
}

#[test]
fn gate_tree_closed() {
    let mut scene = dead();
    scene.repo_mut().tree_closed = Some(1);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::TreeClosed));
}

#[test]
fn gate_observe_is_the_last() {
    let mut scene = Scene::with(Policy::default());
    scene.wait(400);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Observe));
    scene.repo_mut().tree_closed = Some(1);
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::TreeClosed));
}

#[test]
fn the_first_gate_that_fails_is_the_reason() {
    let mut scene = dead();
    scene.repo_mut().tree_closed = Some(1);
    scene.bot_mut().github = GithubState::Failed(failed());
    scene.pending_mut().github = PullOnGithub::Closed;
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Outdated));
    scene.core.operator(Operator {
        stops: vec![stop(StopKind::Pause, everything(), 0, None)],
        journal: Some("full".to_owned()),
        ..Operator::default()
    });
    assert_eq!(rerun_gate(&mut scene, 10), Some(Gate::Paused));
}

#[test]
fn the_strictest_limits_of_the_dead_builders_bind_a_rerun() {
    let with = |change: fn(&mut BuildSafety)| {
        let mut policy = acting();
        let mut safety = policy.builds.global.clone();
        change(&mut safety);
        policy
            .builds
            .builders
            .insert(("servo".into(), "mac".into()), safety);
        let mut scene = Scene::with(policy);
        rerun_gate(&mut scene, 400)
    };
    assert_eq!(with(|_| {}), None);
    let never = with(|safety| safety.reruns_per_pull = 0);
    assert_eq!(never, Some(Gate::PullBudget));
    let looks = with(|safety| safety.looks = 60);
    assert_eq!(looks, Some(Gate::Confirming));
}

#[test]
fn the_longest_source_good_for_of_the_dead_builders_binds_a_rerun() {
    let mut policy = acting();
    let mut careful = policy.builds.global.clone();
    careful.source_good_for = Duration::from_secs(3600);
    let mac = ("servo".into(), "mac".into());
    policy.builds.builders.insert(mac, careful);
    let mut scene = Scene::with(policy);
    scene.wait(400);
    scene.ci = Err(failed());
    scene.wait(10);
    scene.ci = Ok(idle_ci());
    assert_eq!(rerun_gate(&mut scene, 3590), Some(Gate::ProviderNotGood));
    assert_eq!(rerun_gate(&mut scene, 20), None);
}

/// `servo#7` runs on the only worker for `linux` and shows nothing for half an hour; meanwhile
/// `servo#8` waits for `merge2`.
fn one_worker_stands_still() -> Scene {
    let mut scene = Scene::new();
    scene.runs(1, "linux", RunState::Preparing);
    scene.told("mac", Told::Green { url: url(9) });
    let mut other = pending();
    other.pull = PULL + 1;
    other.merge_sha = MergeSha::Known("merge2".into());
    other.expectations[1].told = Told::Green { url: url(9) };
    scene.repo_mut().pending.push(other);
    let ci = scene.ci_mut();
    ci.history
        .insert("merge2".into(), crate::model::History::Complete);
    let pool = ci.pools.get_mut("linux").unwrap();
    pool.workers.retain(|name, _| name.as_str() == "linux-1");
    scene.wait(1800);
    scene
}

/// The run of `merge2` on the same worker.
fn other_run(scene: &mut Scene, state: RunState) {
    let mut other = run(2, "linux", state);
    other.sha = "merge2".into();
    let runs = &mut scene.ci_mut().runs;
    runs.retain(|run| run.id != other.id);
    runs.push(other);
}

#[test]
fn a_worker_that_goes_on_with_another_run_is_able() {
    let linux = || (buildbot(), BuilderName::from("linux"));
    let able = |scene: &Scene| scene.core.zones().get(&linux()).map(|zone| zone.able);
    let mut scene = one_worker_stands_still();
    assert_eq!(verdict(&scene.wait(10), "linux"), Verdict::Stalled);
    assert_eq!(able(&scene), Some(0), "nothing shows that the worker lives");

    // The master alone gives a run out, and ends one whose worker it lost.
    for state in [
        RunState::Queued,
        RunState::Preparing,
        RunState::Ended(RunEnd::Retry),
    ] {
        other_run(&mut scene, state);
        scene.wait(20);
        assert_eq!(able(&scene), Some(0), "{state:?}");
    }
    other_run(&mut scene, RunState::Running);
    let decision = scene.wait(10);
    assert_eq!(able(&scene), Some(1));
    assert_eq!(verdict(&decision, "linux"), Verdict::Stalled);
    let decision = scene.wait(620);
    assert_eq!(
        gate_of(&decision, Remedy::Rerun),
        None,
        "it is rerun at last"
    );
}

#[test]
fn what_a_worker_did_before_its_run_stood_still_is_no_sign() {
    let mut scene = Scene::new();
    scene
        .ci_mut()
        .pools
        .get_mut("linux")
        .unwrap()
        .workers
        .retain(|name, _| name.as_str() == "linux-1");
    scene.runs(1, "linux", RunState::Running);
    scene.told("mac", Told::Green { url: url(9) });
    scene.wait_beating(60);
    let decision = scene.wait(1800);
    assert_eq!(verdict(&decision, "linux"), Verdict::Stalled);
    let zone = (buildbot(), BuilderName::from("linux"));
    assert_eq!(scene.core.zones().get(&zone).unwrap().able, 0);
}
