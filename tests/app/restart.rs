//! A bot that answers nothing: the knocks, the command, and what people see of it.
//!
//! The command is a real process, so that the last tick runs in real time.

use tempfile::TempDir;

use super::*;

/// How often the loop of these tests looks.
const TICK: Duration = Duration::from_secs(10);

/// A loop whose bot may be restarted by a script that notes it in a file and brings the bot back.
struct Wedge {
    bench: Bench,
    folder: TempDir,
}

impl Wedge {
    fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("note");
        let script = format!("echo \"$0\" >> '{}'", note.display());
        let restart = Restart {
            command: ["sh", "-c", &script, "homu"].map(str::to_owned).to_vec(),
            after: minutes(15),
            times: 1,
            per: minutes(360),
        };
        let restarts = BTreeMap::from([("homu".into(), restart)]);
        let bench = Bench::with_restarts(mode, Journal::in_memory().unwrap(), restarts);
        // A run that goes on: nothing else is to be done.
        bench.change(|world| world.runs.push((OLD, RunState::Running)));
        Self { bench, folder }
    }

    /// What the script noted.
    fn noted(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("note")).unwrap_or_default()
    }

    /// The next tick, ten seconds later, in real time from then on.
    async fn tick_for_real(&mut self) {
        tokio::time::advance(TICK).await;
        tokio::time::resume();
        self.bench.app.tick(TICK).await;
        tokio::time::pause();
    }

    /// Lets the bot fall silent, and goes on until its restart is due at the next tick.
    async fn wedge(&mut self) {
        self.bench.run_for(minutes(2)).await;
        self.bench.change(|world| world.bot_silent = true);
        self.bench.run_for(minutes(15)).await;
        assert!(self.bench.shared.report().attempts.is_empty());
    }

    async fn page(&self) -> String {
        get(&self.bench.shared, "/").await.1
    }

    async fn metric(&self, line: &str) -> bool {
        let (_, metrics) = get(&self.bench.shared, "/metrics").await;
        metrics.contains(&format!("\n{line}\n"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_wedged_bot_is_restarted_once_by_the_command_and_believed_when_it_answers() {
    let mut wedge = Wedge::new(Mode::Act);
    wedge.wedge().await;
    let report = wedge.bench.shared.report();
    assert!(report.sources[0].silent_since.is_some());
    assert!(wedge.page().await.contains("nothing at all came back"));

    wedge.tick_for_real().await;
    assert_eq!(wedge.noted(), "homu\n");
    let report = wedge.bench.shared.report();
    let step = &report.attempts[0].steps[0];
    assert_eq!(
        (step.step, step.outcome),
        (StepKind::Restart, Some("accepted"))
    );
    assert_eq!(step.closing, None, "its effect is awaited");
    let hold = report.sources[0].hold.as_ref().unwrap();
    assert_eq!(hold.gate, Gate::InDoubt, "one at a time");
    assert_eq!(wedge.bench.sent(), [], "it is told nothing");

    wedge.bench.change(|world| world.bot_silent = false);
    wedge.bench.run_for(minutes(1)).await;
    let report = wedge.bench.shared.report();
    assert_eq!(report.attempts[0].steps[0].closing, Some(Closing::Effect));
    let bot = &report.sources[0];
    assert!(bot.hold.is_none() && bot.silent_since.is_none());
    assert_eq!(wedge.noted(), "homu\n", "once");
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_stays_silent_is_not_restarted_again_within_the_budget() {
    let mut wedge = Wedge::new(Mode::Act);
    wedge.wedge().await;
    wedge.tick_for_real().await;
    wedge.bench.run_for(minutes(300)).await;
    assert_eq!(wedge.noted(), "homu\n");
    let report = wedge.bench.shared.report();
    assert_eq!(report.attempts[0].steps[0].closing, Some(Closing::NoEffect));
    let hold = report.sources[0].hold.clone().unwrap();
    assert_eq!(hold.gate, Gate::RestartBudget);
    assert!(hold.until.is_some());
    let page = wedge.page().await;
    assert!(page.contains("restart held by restart_budget"), "{page}");
    let held = "ci_watchdog_held_remedies{gate=\"restart_budget\"} 1";
    assert!(wedge.metric(held).await);
}

#[tokio::test(start_paused = true)]
async fn it_is_knocked_at_only_where_its_restart_is_near_and_held_while_github_is_down() {
    let mut wedge = Wedge::new(Mode::Act);
    wedge.bench.change(|world| world.github_down = true);
    wedge.bench.run_for(minutes(2)).await;
    wedge.bench.change(|world| world.bot_silent = true);
    wedge.bench.run_for(minutes(10)).await;
    assert_eq!(wedge.bench.world.lock().unwrap().knocks, 0);
    wedge.bench.run_for(minutes(10)).await;
    assert!(wedge.bench.world.lock().unwrap().knocks > 30);
    let report = wedge.bench.shared.report();
    let hold = report.sources[0].hold.clone().unwrap();
    assert_eq!(hold.gate, Gate::GithubNotGood, "{}", hold.reason);
    assert_eq!(hold.plan, [StepKind::Restart]);
    assert_eq!(wedge.noted(), "");
    wedge.bench.change(|world| world.github_down = false);
    // Due at the next tick: a command that started on the paused clock would be killed at once.
    let good_for = minutes(5).checked_sub(TICK).unwrap();
    wedge.bench.run_for(good_for).await;
    assert!(wedge.bench.shared.report().attempts.is_empty());
    wedge.tick_for_real().await;
    assert_eq!(wedge.noted(), "homu\n");
}

#[tokio::test(start_paused = true)]
async fn the_last_look_finds_it_answering() {
    let mut wedge = Wedge::new(Mode::Act);
    wedge.wedge().await;
    let looks = wedge.bench.world.lock().unwrap().bot_looks;
    wedge
        .bench
        .change(|world| world.bot_answers_at_look = Some(looks + 2));
    wedge.tick_for_real().await;
    assert_eq!(wedge.bench.world.lock().unwrap().bot_looks, looks + 2);
    assert_eq!(wedge.noted(), "");
    assert!(wedge.bench.shared.report().attempts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_is_killed_and_the_loop_looks_alive_all_the_time() {
    let mut wedge = Wedge::new(Mode::Act);
    let restart = Restart {
        command: ["sleep", "3600"].map(str::to_owned).to_vec(),
        after: minutes(15),
        times: 1,
        per: minutes(360),
    };
    let restarts = BTreeMap::from([("homu".into(), restart)]);
    wedge.bench = Bench::with_restarts(Mode::Act, Journal::in_memory().unwrap(), restarts);
    wedge
        .bench
        .change(|world| world.runs.push((OLD, RunState::Running)));
    wedge.wedge().await;
    // Its deadline passes on the paused clock.
    tokio::time::advance(TICK).await;
    wedge.bench.tick_alive().await;
    let report = wedge.bench.shared.report();
    let step = &report.attempts[0].steps[0];
    assert_eq!(step.outcome, Some("unanswered"));
    assert_eq!(step.detail.as_deref(), Some("killed after 1m"));
}

#[tokio::test(start_paused = true)]
async fn while_observing_it_is_only_told_what_would_be_run() {
    let mut wedge = Wedge::new(Mode::Observe);
    wedge.wedge().await;
    wedge.tick_for_real().await;
    let report = wedge.bench.shared.report();
    let hold = report.sources[0].hold.clone().unwrap();
    assert_eq!(hold.gate, Gate::Observe);
    assert_eq!(wedge.noted(), "");
}
