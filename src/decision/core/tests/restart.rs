//! The last rung: when a bot is restarted, what holds that, and what is believed of it.

use super::super::super::gates::Operator;
use super::super::super::policy::Mode;
use super::super::super::samples::*;
use super::super::*;
use super::{attempt, gate_of};
use crate::model::{
    Effect, Gate, GithubState, Order, ProbeFailure, Remedy, RunState, Scope, Step, Stop, StopKind,
    Target,
};

const MINUTE: u64 = 60;
/// How long the bot must be silent.
const AFTER: u64 = 15 * MINUTE;
/// The window of its one restart.
const PER: u64 = 6 * 60 * MINUTE;

fn restart() -> Restart {
    Restart {
        command: ["systemctl", "restart", "homu"].map(str::to_owned).to_vec(),
        after: Duration::from_secs(AFTER),
        times: 1,
        per: Duration::from_secs(PER),
    }
}

fn restarting() -> Setup {
    let mut setup = setup();
    setup.restarts.insert(homu(), restart());
    setup.rows.get_mut(&homu()).unwrap().push(RemedyRow {
        kind: StepKind::Restart,
        effect: Effect::BotAnswers,
        deadline_min: Restart::EFFECT_MIN,
    });
    setup
}

/// Everything is well, and a build runs.
fn well() -> Scene {
    let mut scene = Scene::new();
    scene.core.configure(acting(), restarting());
    scene.runs(1, "linux", RunState::Running);
    scene.runs(2, "mac", RunState::Running);
    scene.wait(120);
    scene
}

/// Silent for so long.
fn silent(seconds: u64) -> (Scene, Decision) {
    let mut scene = well();
    scene.bot = Err(failed());
    scene.wait(10);
    let decision = scene.wait(seconds);
    (scene, decision)
}

/// Silent for so long that a restart is due at the next look.
fn wedged() -> Scene {
    silent(AFTER - 10).0
}

fn is_planned(decision: &Decision) -> bool {
    attempt(decision, Remedy::Restart).is_some()
}

/// Neither planned nor held: there is no reason for it.
fn is_unthought_of(decision: &Decision) -> bool {
    !is_planned(decision) && hold(decision, Remedy::Restart).is_none()
}

#[track_caller]
fn next_gate(scene: &mut Scene) -> Option<Gate> {
    gate_of(&scene.wait(10), Remedy::Restart)
}

fn answered(failure: ProbeFailure) -> Result<BotSnapshot, ProbeError> {
    Err(ProbeError::new(failure, "not as it should be"))
}

#[test]
fn a_bot_that_answers_nothing_for_15_minutes_is_restarted_by_the_command() {
    let mut scene = wedged();
    assert!(is_unthought_of(&scene.look()), "not yet");
    let decision = scene.wait(10);
    let planned = attempt(&decision, Remedy::Restart).unwrap();
    assert_eq!(planned.id.target, Target::Bot(homu()));
    let command = restart().command;
    assert_eq!(planned.steps, [Step::Restart { command }]);
    assert_eq!(
        planned.evidence.to_string(),
        "homu is silent for 15m (timeout: no answer)"
    );
    let others = decision.plan.attempts.len();
    assert_eq!(others, 1, "nothing is sent to a bot that does not answer");
}

#[test]
fn without_a_command_nothing_is_restarted() {
    let mut scene = well();
    scene.core.configure(acting(), setup());
    scene.bot = Err(failed());
    assert!(is_unthought_of(&scene.wait(10 * AFTER)));
}

#[test]
fn a_bot_that_refuses_us_or_answers_something_else_is_not_restarted() {
    for failure in ProbeFailure::ALL {
        let mut scene = well();
        scene.bot = answered(failure);
        let no_answer = matches!(failure, ProbeFailure::Connect | ProbeFailure::Timeout);
        let decision = scene.wait(2 * AFTER);
        assert_eq!(is_planned(&decision), no_answer, "{failure}");
        assert_eq!(is_unthought_of(&decision), !no_answer, "{failure}");
    }
}

#[test]
fn any_answer_in_between_starts_the_silence_over() {
    for between in [
        Ok(bot_with(vec![pending()])),
        answered(ProbeFailure::HttpStatus),
    ] {
        let mut scene = wedged();
        scene.bot = between;
        scene.look();
        scene.bot = Err(failed());
        scene.wait(10);
        assert!(is_unthought_of(&scene.wait(AFTER - 10)));
        assert!(is_planned(&scene.wait(10)));
    }
}

#[test]
fn a_bot_that_was_never_seen_is_silent_from_our_first_look() {
    let mut scene = Scene::new();
    scene.core.configure(acting(), restarting());
    scene.bot = Err(failed());
    assert!(
        is_unthought_of(&scene.wait(AFTER)),
        "the first look is at 10 s"
    );
    assert!(is_planned(&scene.wait(10)));
}

#[test]
fn a_bot_that_answers_a_knock_is_only_too_slow() {
    for knock in [
        Ok(()),
        Err(ProbeError::new(ProbeFailure::HttpStatus, "500")),
    ] {
        let (mut scene, _) = silent(AFTER - 30);
        scene.knock.as_mut().unwrap().bot = knock;
        assert!(is_unthought_of(&scene.wait(10 * AFTER)));
    }
}

#[test]
fn who_looks_must_knock_once_the_restart_is_near() {
    let good_for = acting().builds.global.source_good_for.as_secs();
    let (scene, _) = silent(AFTER - good_for - 10);
    let near = |scene: &Scene, later| {
        let now = scene.now() + Duration::from_secs(later);
        scene.core.restart_is_near(&homu(), now)
    };
    assert!(!near(&scene, 9));
    assert!(near(&scene, 10));
}

#[test]
fn the_last_look_sees_an_answer() {
    let mut scene = wedged();
    let decision = scene.wait(10);
    let planned = attempt(&decision, Remedy::Restart).unwrap().clone();
    let wanted = |scene: &mut Scene| {
        scene.see();
        let now = scene.now();
        scene
            .core
            .still_wanted(now, &planned, &planned.steps[0], true)
    };
    assert!(wanted(&mut scene));
    let silent = scene.knock.clone();
    scene.knock.as_mut().unwrap().bot = Ok(());
    assert!(!wanted(&mut scene), "it answers a knock");
    let mut scene = wedged();
    scene.wait(10);
    scene.knock = silent;
    scene.bot = Ok(bot_with(vec![pending()]));
    assert!(!wanted(&mut scene), "it answers");
}

#[test]
fn stops_of_everything_bind_it_and_stops_of_a_part_do_not() {
    let repo = Scope {
        repo: Some("servo".into()),
        ..Scope::default()
    };
    for (kind, scope, gate) in [
        (StopKind::Pause, Scope::default(), Some(Gate::Paused)),
        (StopKind::Exclusion, Scope::default(), Some(Gate::Excluded)),
        (StopKind::Pause, repo.clone(), None),
        (StopKind::Exclusion, repo, None),
    ] {
        let mut scene = wedged();
        let stop = Stop {
            kind,
            scope,
            reason: "upgrade".to_owned(),
            by: "alice".to_owned(),
            at: scene.now(),
            until: None,
        };
        scene.core.record(&Record::Order(Order::Stop(stop)));
        assert_eq!(next_gate(&mut scene), gate, "{kind:?}");
    }
}

#[test]
fn what_may_be_our_own_fault_starts_the_silence_over() {
    let mut scene = wedged();
    let late = Tick {
        late: true,
        good: 1,
        bad: 1,
    };
    scene.core.record_tick(scene.now(), late);
    assert!(is_unthought_of(&scene.wait(AFTER - 10)));
    assert!(is_planned(&scene.wait(10)));

    let mut scene = wedged();
    scene.ci = Err(failed());
    scene.wait(20);
    scene.ci = Ok(idle_ci());
    assert!(
        is_unthought_of(&scene.wait(AFTER - 10)),
        "all probes failed"
    );
}

#[test]
fn a_restart_waits_until_we_are_settled() {
    let mut scene = Scene::new();
    let mut setup = restarting();
    setup.restarts.get_mut(&homu()).unwrap().after = Duration::from_secs(20);
    scene.core.configure(acting(), setup);
    scene.bot = Err(failed());
    let decision = scene.wait(40);
    assert_eq!(
        gate_of(&decision, Remedy::Restart),
        Some(Gate::NotSettled),
        "a minute since the start"
    );
    assert_eq!(next_gate(&mut scene), Some(Gate::NotSettled));
    assert_eq!(next_gate(&mut scene), None);
}

#[test]
fn a_journal_that_cannot_be_written_holds_it() {
    let mut scene = wedged();
    scene.core.operator(Operator {
        journal: Some("disk full".to_owned()),
        ..Operator::default()
    });
    assert_eq!(next_gate(&mut scene), Some(Gate::Journal));
}

#[test]
fn an_outage_of_a_provider_holds_it_until_that_was_good_for_5_minutes() {
    let mut scene = wedged();
    // A second source that answers: not everything is silent.
    scene.core.configure(acting(), {
        let mut setup = setup_of_two();
        setup.restarts = restarting().restarts;
        setup
    });
    scene.second = Some(Ok(idle_ci()));
    scene.ci = Err(failed());
    let tick = |scene: &mut Scene| {
        scene.seconds += 10;
        scene.see();
        let good = 1 + usize::from(scene.ci.is_ok());
        let tick = Tick {
            late: false,
            good,
            bad: 3 - good,
        };
        scene.core.record_tick(scene.now(), tick);
        let decision = scene.core.decide(scene.now(), Look::Tick);
        gate_of(&decision, Remedy::Restart)
    };
    assert_eq!(tick(&mut scene), Some(Gate::ProviderNotGood));
    scene.ci = Ok(idle_ci());
    for _ in 1..30 {
        assert_eq!(tick(&mut scene), Some(Gate::ProviderNotGood));
    }
    assert_eq!(tick(&mut scene), None);
}

#[test]
fn a_bot_that_may_hang_on_github_is_not_restarted() {
    let mut scene = wedged();
    scene.knock.as_mut().unwrap().github = GithubState::Failed(failed());
    assert_eq!(next_gate(&mut scene), Some(Gate::GithubNotGood));
    scene.knock.as_mut().unwrap().github = GithubState::Good(None);
    for _ in 1..30 {
        assert_eq!(next_gate(&mut scene), Some(Gate::GithubNotGood));
    }
    assert_eq!(next_gate(&mut scene), None, "good for 5 minutes");
}

#[test]
fn a_github_that_nobody_asked_just_now_is_not_good() {
    let mut scene = wedged();
    scene.knock = None;
    assert_eq!(next_gate(&mut scene), Some(Gate::GithubNotGood));
}

#[test]
fn a_github_that_is_not_configured_holds_nothing() {
    let mut scene = wedged();
    scene.knock.as_mut().unwrap().github = GithubState::NotConfigured;
    assert_eq!(next_gate(&mut scene), None);
}

#[test]
fn an_outage_of_a_zone_that_it_waits_for_holds_it() {
    let mut scene = wedged();
    scene.workers("linux", |worker| worker.connected = false);
    assert_eq!(next_gate(&mut scene), Some(Gate::ZoneOutage));
    scene.workers("linux", |worker| worker.connected = true);
    assert_eq!(next_gate(&mut scene), Some(Gate::StormCooldown));
    assert_eq!(gate_of(&scene.wait(700), Remedy::Restart), None);
}

#[test]
fn an_outage_of_a_zone_that_it_does_not_wait_for_is_no_matter() {
    let mut scene = well();
    scene.repo_mut().pending.clear();
    scene.wait(10);
    scene.bot = Err(failed());
    scene.workers("linux", |worker| worker.connected = false);
    assert!(is_planned(&scene.wait(AFTER + 10)));
}

/// A restart that was sent at the end of [`wedged`].
fn restarted(outcome: Option<Outcome>) -> (Scene, IntentId) {
    let mut scene = wedged();
    let decision = scene.wait(10);
    let planned = attempt(&decision, Remedy::Restart).unwrap().clone();
    let id = scene.intend(planned.intent(&planned.steps[0]), outcome);
    (scene, id)
}

fn closing(scene: &Scene, id: IntentId) -> Option<Closing> {
    let state = scene.core.history().intent(id).unwrap();
    state.closing.map(|(_, closing)| closing)
}

#[test]
fn it_is_believed_when_the_bot_answers() {
    for outcome in [
        Some(accepted()),
        Some(Outcome::Unanswered("killed".into())),
        None,
    ] {
        let (mut scene, id) = restarted(outcome);
        assert_eq!(next_gate(&mut scene), Some(Gate::InDoubt), "one at a time");
        scene.wait(4 * MINUTE);
        assert_eq!(closing(&scene, id), None);
        scene.bot = Ok(bot_with(vec![pending()]));
        assert!(is_unthought_of(&scene.wait(10)));
        assert_eq!(closing(&scene, id), Some(Closing::Effect));
    }
}

#[test]
fn a_bot_that_stays_silent_is_restarted_again_when_the_budget_allows() {
    let (mut scene, id) = restarted(Some(accepted()));
    scene.wait(5 * MINUTE - 10);
    assert_eq!(closing(&scene, id), None, "homu may take 5 minutes");
    let decision = scene.wait(10);
    assert_eq!(closing(&scene, id), Some(Closing::NoEffect));
    let held = hold(&decision, Remedy::Restart).unwrap();
    assert_eq!(held.gate, Gate::RestartBudget);
    assert!(
        held.reason.contains("at_most = \"1 per 6h\""),
        "{}",
        held.reason
    );
    let until = at(120 + 10 + AFTER) + Duration::from_secs(PER);
    assert_eq!(held.until, Some(until));
    let decision = scene.wait(PER - 5 * MINUTE);
    assert_eq!(
        gate_of(&decision, Remedy::Restart),
        Some(Gate::RestartBudget)
    );
    let decision = scene.wait(10);
    assert_eq!(attempt(&decision, Remedy::Restart).unwrap().id.ordinal, 2);
}

#[test]
fn a_command_that_failed_used_up_the_budget_and_one_that_never_ran_did_not() {
    let (mut scene, _) = restarted(Some(Outcome::Refused("exit status: 1".into())));
    assert_eq!(next_gate(&mut scene), Some(Gate::RestartBudget));
    let (mut scene, _) = restarted(Some(Outcome::NotSent("no such file".into())));
    assert_eq!(
        next_gate(&mut scene),
        Some(Gate::MessageSent),
        "after a pause"
    );
    assert_eq!(gate_of(&scene.wait(200), Remedy::Restart), None);
}

#[test]
fn the_budget_outlives_a_restart_of_ours() {
    let (mut scene, _) = restarted(Some(accepted()));
    scene.wait(5 * MINUTE);
    scene.restart();
    scene.core.configure(acting(), restarting());
    let decision = scene.wait(AFTER + 10);
    assert_eq!(
        gate_of(&decision, Remedy::Restart),
        Some(Gate::RestartBudget)
    );
}

#[test]
fn observe_holds_it_last() {
    let policy = Policy {
        mode: Mode::Observe,
        ..Policy::default()
    };
    let (mut scene, _) = restarted(Some(accepted()));
    scene.wait(5 * MINUTE);
    scene.core.configure(policy.clone(), restarting());
    assert_eq!(next_gate(&mut scene), Some(Gate::RestartBudget));
    let mut scene = wedged();
    scene.core.configure(policy, restarting());
    assert_eq!(next_gate(&mut scene), Some(Gate::Observe));
}

#[test]
fn after_it_everything_of_the_bot_is_looked_at_afresh() {
    // Without runs: dead when the bot fell silent, but for the last look.
    let mut scene = Scene::new();
    scene.core.configure(acting(), restarting());
    scene.wait(310);
    scene.bot = Err(failed());
    let decision = scene.wait(AFTER + 10);
    let planned = attempt(&decision, Remedy::Restart).unwrap().clone();
    scene.send(&planned, &planned.steps[0], accepted());
    scene.bot = Ok(bot_with(vec![pending()]));
    let start = acting().timeouts.global.start.as_secs();
    let decision = scene.wait(10);
    assert_eq!(verdict(&decision, "linux"), Verdict::Starting);
    assert_eq!(verdict(&scene.wait(start - 10), "linux"), Verdict::Starting);
    assert_eq!(verdict(&scene.wait(10), "linux"), Verdict::NoShow);
}
