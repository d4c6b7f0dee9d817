//! What people ask the running loop for: repairs by hand, and orders to leave something alone.

use ci_watchdog::app::{HandReport, OrderWish};
use ci_watchdog::decision::hand::{Refusal, Repair, Wish};
use ci_watchdog::model::{BuildId, Closing, Remedy, Scope, StopKind};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// A loop that runs beside the test.
struct Running {
    world: SharedWorld,
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    fn start(bench: Bench) -> Self {
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(bench.app.run(async {
            let _ = stopped.await;
        }));
        Self {
            world: bench.world,
            shared: bench.shared,
            stop,
            ended,
        }
    }

    async fn by_hand(&self, repair: Repair) -> Result<HandReport, Refusal> {
        self.ask(repair, false, false).await
    }

    async fn ask(
        &self,
        repair: Repair,
        even_if_alive: bool,
        dry_run: bool,
    ) -> Result<HandReport, Refusal> {
        let wish = Wish {
            repair,
            even_if_alive,
            by: "alice".to_owned(),
        };
        self.shared.request_by_hand(wish, dry_run).await.unwrap()
    }

    async fn order(&self, wish: OrderWish) -> Result<Vec<String>, Refusal> {
        let answer = self.shared.request_order(wish, false).await.unwrap();
        answer.map(|taken| taken.scopes)
    }

    fn sent(&self) -> Vec<StepKind> {
        self.world.lock().unwrap().sent.clone()
    }

    fn gate(&self) -> Option<Gate> {
        let report = self.shared.report();
        let hold = report.builds.first()?.hold.as_ref()?;
        Some(hold.gate)
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

fn build() -> BuildId {
    BuildId {
        key: BuildKey {
            bot: "homu".into(),
            repo: "servo".into(),
            pull: 7,
            kind: BuildKind::Auto,
        },
        generation: 1,
    }
}

fn pause(scope: Scope, lasts: Option<Duration>) -> OrderWish {
    OrderWish::Stop {
        kind: StopKind::Pause,
        scope,
        reason: "upgrade of the CI".to_owned(),
        by: "bob".to_owned(),
        lasts,
    }
}

fn resume() -> OrderWish {
    OrderWish::Go {
        kind: StopKind::Pause,
        scope: None,
        by: "bob".to_owned(),
    }
}

fn of(repo: &str) -> Scope {
    Scope {
        repo: Some(repo.into()),
        ..Scope::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_repair_by_hand_is_sent_while_paused_and_observing_and_says_who() {
    let mut bench = Bench::new(Mode::Observe);
    bench.run_for(minutes(6)).await;
    let running = Running::start(bench);
    running.order(pause(Scope::default(), None)).await.unwrap();
    assert_eq!(running.gate(), Some(Gate::Paused), "shown at once");
    let report = running.by_hand(Repair::Retry(build())).await.unwrap();
    let plan = [StepKind::ReleaseSlot, StepKind::Retry];
    assert_eq!(report.plan, plan);
    assert_eq!(report.stopped, None);
    assert_eq!(running.sent(), plan);
    tokio::time::sleep(minutes(1)).await;
    let shown = running.shared.report();
    let attempt = &shown.attempts[0];
    assert_eq!(attempt.id, report.attempt);
    assert_eq!(attempt.by.as_deref(), Some("alice"));
    assert_eq!(attempt.remedy, Remedy::Rerun);
    assert_eq!(attempt.steps[1].closing, Some(Closing::Effect));
    let stop = &shown.stops[0];
    let told = [&stop.scope, &stop.by, &stop.reason];
    assert_eq!(told, ["everything", "bob", "upgrade of the CI"]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_what_would_be_sent_and_sends_nothing() {
    let mut bench = Bench::new(Mode::Observe);
    bench.run_for(minutes(6)).await;
    let running = Running::start(bench);
    let records = running.shared.report().journal.records;
    let report = running.ask(Repair::Reset(build()), false, true).await;
    let report = report.unwrap();
    assert!(report.dry_run);
    assert_eq!(report.remedy, Remedy::Reset);
    assert_eq!(report.plan, [StepKind::ReleaseSlot, StepKind::Retry]);
    let wish = pause(Scope::default(), None);
    running
        .shared
        .request_order(wish, true)
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(running.sent(), []);
    let shown = running.shared.report();
    assert_eq!(shown.journal.records, records);
    assert!(shown.stops.is_empty());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_lives_is_only_built_again_by_hand_where_that_is_meant() {
    let mut bench = Bench::new(Mode::Act);
    bench.change(|world| world.runs.push((OLD, RunState::Running)));
    bench.run_for(minutes(2)).await;
    let running = Running::start(bench);
    let refusal = running.by_hand(Repair::Retry(build())).await.unwrap_err();
    let gate = match &refusal {
        Refusal::Shut { gate, .. } => *gate,
        Refusal::Gone(_) | Refusal::Nothing(_) | Refusal::Busy(_) => panic!("{refusal:?}"),
    };
    assert_eq!(gate, Gate::LawOfReruns);
    assert_eq!(running.sent(), []);
    let report = running.ask(Repair::Retry(build()), true, false).await;
    let report = report.unwrap();
    let warning = report.warning.unwrap();
    assert!(warning.contains("linux is alive"), "{warning}");
    assert_eq!(running.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_found_dead_by_few_looks_may_be_alive() {
    let mut bench = Bench::new(Mode::Observe);
    let mut report = bench.shared.report();
    while !report
        .builds
        .first()
        .is_some_and(|build| build.verdict.dead())
    {
        bench.run_for(Duration::from_secs(10)).await;
        report = bench.shared.report();
    }
    let running = Running::start(bench);
    let refusal = running.by_hand(Repair::Retry(build())).await.unwrap_err();
    assert!(matches!(
        refusal,
        Refusal::Shut {
            gate: Gate::Confirming,
            ..
        }
    ));
    let why = refusal.reason();
    assert!(
        why.starts_with("it may only look dead: found dead in 2 looks"),
        "{why}"
    );
    assert_eq!(running.sent(), []);
    tokio::time::sleep(minutes(1)).await;
    running.by_hand(Repair::Retry(build())).await.unwrap();
    assert_eq!(running.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_built_again_by_hand_while_github_does_not_say_that_it_is_open() {
    let mut bench = Bench::new(Mode::Observe);
    bench.run_for(minutes(6)).await;
    bench.change(|world| world.github_down = true);
    let running = Running::start(bench);
    for even_if_alive in [false, true] {
        let refusal = running
            .ask(Repair::Retry(build()), even_if_alive, false)
            .await;
        assert!(matches!(
            refusal.unwrap_err(),
            Refusal::Shut {
                gate: Gate::GithubNotGood,
                ..
            }
        ));
    }
    assert_eq!(running.sent(), []);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn each_request_by_hand_is_looked_at_afresh() {
    let mut bench = Bench::new(Mode::Observe);
    bench.run_for(minutes(6)).await;
    // One look before the release, and at the one after it the lost run is there.
    let looks = bench.world.lock().unwrap().bot_looks;
    let running = Running::start(bench);
    // The loop begins with a tick.
    let at = looks + 3;
    running.world.lock().unwrap().run_appears_at_look = Some(at);
    let report = running.by_hand(Repair::Retry(build())).await.unwrap();
    assert_eq!(running.sent(), [StepKind::ReleaseSlot]);
    let why = report.stopped.unwrap();
    assert!(why.contains("linux is alive"), "{why}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_went_away_before_it_was_begun_wanted_nothing() {
    let mut bench = Bench::new(Mode::Observe);
    bench.run_for(minutes(6)).await;
    let wish = Wish {
        repair: Repair::Retry(build()),
        even_if_alive: true,
        by: "alice".to_owned(),
    };
    drop(bench.shared.request_by_hand(wish, false));
    drop(
        bench
            .shared
            .request_order(pause(Scope::default(), None), false),
    );
    let running = Running::start(bench);
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(running.sent(), []);
    assert!(running.shared.report().stops.is_empty());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_kept_over_a_restart_and_ends_by_an_order_or_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let open = || Bench::with_journal(Mode::Act, Journal::open(&path).unwrap());
    let running = Running::start(open());
    tokio::time::sleep(minutes(1)).await;
    running
        .order(pause(of("servo"), Some(minutes(30))))
        .await
        .unwrap();
    running.end().await;

    let running = Running::start(open());
    tokio::time::sleep(minutes(8)).await;
    assert_eq!(running.gate(), Some(Gate::Paused));
    let stops = running.shared.report().stops.clone();
    assert_eq!(stops.len(), 1, "{stops:?}");
    assert!(stops[0].until.is_some());
    assert_eq!(running.sent(), []);
    let ended = running.order(resume()).await.unwrap();
    assert_eq!(ended, ["servo"]);
    let refusal = running.order(resume()).await.unwrap_err();
    assert!(
        refusal.reason().contains("nothing is paused"),
        "{refusal:?}"
    );
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(running.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_about_nothing_is_refused() {
    let running = Running::start(Bench::new(Mode::Act));
    tokio::time::sleep(minutes(1)).await;
    let refusal = running.order(pause(of("srevo"), None)).await.unwrap_err();
    let why = refusal.reason();
    assert!(why.contains("\"srevo\"") && why.contains("servo"), "{why}");
    let builder = Scope {
        builder: Some("linus".into()),
        ..of("servo")
    };
    let refusal = running.order(pause(builder, None)).await.unwrap_err();
    let why = refusal.reason();
    assert!(why.contains("\"linus\"") && why.contains("linux"), "{why}");
    for pull in 0..100 {
        let scope = Scope {
            pull: Some(pull),
            ..of("servo")
        };
        running.order(pause(scope, None)).await.unwrap();
    }
    let refusal = running.order(pause(of("servo"), None)).await.unwrap_err();
    assert!(refusal.reason().contains("100"), "{refusal:?}");
    running.end().await;
}
