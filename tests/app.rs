//! The real loop with the real core and journal, fake adapters, and a paused clock.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

#[path = "app/found.rs"]
mod found;
#[path = "app/hand.rs"]
mod hand;
#[path = "app/journal.rs"]
mod journal;
#[path = "app/reload.rs"]
mod reload;
#[path = "app/restart.rs"]
mod restart;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use ci_watchdog::app::{ACT_BUDGET, App, Observer, Shared};
use ci_watchdog::bots::{Bot, BoxFuture};
use ci_watchdog::clock::Clock;
use ci_watchdog::config::{Config, JournalSettings, Server};
use ci_watchdog::decision::policy::{Mode, Policy};
use ci_watchdog::decision::restart::Restart;
use ci_watchdog::journal::{Journal, Memory, Permit};
use ci_watchdog::metrics::Metrics;
use ci_watchdog::model::{
    BotName, BotSnapshot, BuildKey, BuildKind, BuilderName, CiSystem, Closing, Effect, Expectation,
    Gate, GithubState, History, Knock, MergeSha, Outcome, PendingBuild, Pool, ProbeError,
    ProbeFailure, ProviderName, ProviderSnapshot, PullOnGithub, Question, RemedyRow, RepoName,
    RepoSnapshot, Run, RunEnd, RunState, Sha, SourceName, Step, StepKind, Told, Verdict, Witnesses,
    Worker,
};
use ci_watchdog::providers::Provider;
use ci_watchdog::report::Report;
use ci_watchdog::web::{Web, router};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";

/// Commits of further pull requests, whose green results were lost.
const LOST: [&str; 8] = [
    "a000000000000000000000000000000000000000",
    "a100000000000000000000000000000000000000",
    "a200000000000000000000000000000000000000",
    "a300000000000000000000000000000000000000",
    "a400000000000000000000000000000000000000",
    "a500000000000000000000000000000000000000",
    "a600000000000000000000000000000000000000",
    "a700000000000000000000000000000000000000",
];

/// What the fake bot and provider share: one repository, one builder.
#[derive(Default)]
struct World {
    /// The commit that the bot waits for in pull request 7; `None`: it is not pending.
    pending: Option<&'static str>,
    /// The commits that it waits for in further pull requests, each with a result that was lost.
    lost: Vec<&'static str>,
    /// The provider's runs, each with the commit that it tests.
    runs: Vec<(&'static str, RunState)>,
    provider_down: bool,
    provider_hangs: bool,
    /// How long a look at the bot takes, and one at the provider.
    slow_looks: Duration,
    bot_looks: u32,
    /// Nothing at all comes back from the bot.
    bot_silent: bool,
    /// At this look at the bot it answers again.
    bot_answers_at_look: Option<u32>,
    /// How often it was knocked at, and whether its GitHub does not answer then.
    knocks: u32,
    github_down: bool,
    /// At this look at the bot the lost run is there after all.
    run_appears_at_look: Option<u32>,
    sent: Vec<StepKind>,
    /// How long the bot takes to answer a request.
    slow_answer: Duration,
    /// Whether a `retry` makes the bot start a new commit.
    retry_works: bool,
    /// Where the machine is suspended once, after how many looks at the bot, and its clock.
    suspend: Option<(Place, u32, Arc<PausedClock>)>,
}

/// A place in the loop at which the machine may be suspended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    BotLook,
    ProviderLook,
    AfterProviderLook,
    Request,
}

impl World {
    /// Suspends the machine for ten hours where that is to be here.
    fn suspend_at(&mut self, place: Place) {
        let here = (place, self.bot_looks);
        let suspend = self.suspend.take_if(|(at, look, _)| (*at, *look) == here);
        if let Some((_, _, clock)) = suspend {
            let later = match place {
                Place::AfterProviderLook => &clock.suspended_at_wall,
                Place::BotLook | Place::ProviderLook | Place::Request => &clock.suspended,
            };
            *later.lock().unwrap() += minutes(600);
        }
    }
}

type SharedWorld = Arc<Mutex<World>>;

struct FakeBot {
    name: BotName,
    world: SharedWorld,
}

const ROWS: [RemedyRow; 3] = [
    RemedyRow {
        kind: StepKind::ReplayResult,
        effect: Effect::ResultKnownOrLeftPending,
        deadline_min: Duration::ZERO,
    },
    RemedyRow {
        kind: StepKind::ReleaseSlot,
        effect: Effect::None,
        deadline_min: Duration::ZERO,
    },
    RemedyRow {
        kind: StepKind::Retry,
        effect: Effect::NewRunOrLeftPending,
        deadline_min: Duration::ZERO,
    },
];

impl Bot for FakeBot {
    fn name(&self) -> &BotName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn github(&self) -> SourceName {
        "fake.github".into()
    }

    fn repos(&self) -> BTreeMap<RepoName, Vec<BuilderName>> {
        BTreeMap::from([("servo".into(), vec!["linux".into()])])
    }

    fn own_timeout(&self, _: &RepoName) -> Option<Duration> {
        None
    }

    fn observe<'a>(
        &'a self,
        _: &'a BTreeMap<BuildKey, Sha>,
    ) -> BoxFuture<'a, Result<BotSnapshot, ProbeError>> {
        Box::pin(async move {
            let slow = self.world.lock().unwrap().slow_looks;
            tokio::time::sleep(slow).await;
            let mut world = self.world.lock().unwrap();
            world.bot_looks += 1;
            world.suspend_at(Place::BotLook);
            if Some(world.bot_looks) == world.bot_answers_at_look {
                world.bot_silent = false;
            }
            if world.bot_silent {
                return Err(silent());
            }
            if Some(world.bot_looks) == world.run_appears_at_look {
                world.runs.push((OLD, RunState::Running));
            }
            let first = world.pending.map(|sha| (7, sha));
            let others = (100..)
                .zip(LOST)
                .filter(|(_, sha)| world.lost.contains(sha));
            let repo = RepoSnapshot {
                pending: first.into_iter().chain(others).map(pending).collect(),
                ..RepoSnapshot::default()
            };
            Ok(BotSnapshot {
                repos: BTreeMap::from([("servo".into(), repo)]),
                github: if world.github_down {
                    GithubState::Failed(silent())
                } else {
                    GithubState::NotConfigured
                },
                warnings: Vec::new(),
            })
        })
    }

    fn knock(&self) -> BoxFuture<'_, Knock> {
        Box::pin(async {
            let mut world = self.world.lock().unwrap();
            world.knocks += 1;
            Knock {
                bot: if world.bot_silent {
                    Err(silent())
                } else {
                    Ok(())
                },
                github: if world.github_down {
                    GithubState::Failed(silent())
                } else {
                    GithubState::Good(None)
                },
            }
        })
    }

    fn rows(&self) -> &[RemedyRow] {
        &ROWS
    }

    fn send<'a>(&'a self, permit: Permit) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let pause = {
                let mut world = self.world.lock().unwrap();
                let kind = permit.step().kind();
                world.sent.push(kind);
                world.suspend_at(Place::Request);
                if let Step::ReplayResult { sha, .. } = permit.step() {
                    world.lost.retain(|lost| sha.as_str() != *lost);
                }
                if kind == StepKind::Retry && world.retry_works {
                    world.pending = Some(NEW);
                    world.runs.push((NEW, RunState::Running));
                }
                world.slow_answer
            };
            tokio::time::sleep(pause).await;
            Outcome::Accepted("HTTP 200".to_owned())
        })
    }
}

fn silent() -> ProbeError {
    ProbeError::new(ProbeFailure::Timeout, "no answer within 10s")
}

/// A pull request that waits for `sha`.
fn pending((pull, sha): (u64, &str)) -> PendingBuild {
    PendingBuild {
        pull,
        kind: BuildKind::Auto,
        merge_sha: MergeSha::Known(sha.into()),
        head_sha: Some("abc".into()),
        witnesses: Witnesses::Agree,
        github: PullOnGithub::Open { head: "abc".into() },
        expectations: vec![Expectation {
            builder: "linux".into(),
            system: CiSystem::Buildbot,
            told: if sha == NEW {
                Told::Started { url: String::new() }
            } else {
                Told::Nothing
            },
        }],
        title: "Speed up layout".to_owned(),
        url: format!("https://github.com/servo/servo/pull/{pull}"),
    }
}

struct FakeProvider {
    name: ProviderName,
    world: SharedWorld,
}

impl Provider for FakeProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "buildbot"
    }

    fn url(&self) -> &str {
        "http://127.0.0.1:8010/"
    }

    fn observe<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> ci_watchdog::providers::BoxFuture<'a, Result<ProviderSnapshot, ProbeError>> {
        Box::pin(async move {
            let (down, hangs, slow) = {
                let world = self.world.lock().unwrap();
                (world.provider_down, world.provider_hangs, world.slow_looks)
            };
            tokio::time::sleep(slow).await;
            if hangs {
                std::future::pending::<()>().await;
            }
            if down {
                return Err(ProbeError::new(ProbeFailure::Connect, "refused"));
            }
            let mut world = self.world.lock().unwrap();
            world.suspend_at(Place::ProviderLook);
            world.suspend_at(Place::AfterProviderLook);
            let worker = Worker {
                connected: true,
                paused: false,
                graceful: false,
            };
            let pool = Pool {
                workers: BTreeMap::from([("w1".into(), worker), ("w2".into(), worker)]),
            };
            let asked: BTreeSet<&Sha> = questions.iter().map(|question| &question.sha).collect();
            let green = RunState::Ended(RunEnd::Success);
            let lost = LOST.iter().map(|sha| (*sha, green));
            let runs =
                lost.chain(world.runs.iter().copied())
                    .enumerate()
                    .map(|(number, (sha, state))| Run {
                        id: number.to_string().as_str().into(),
                        builder: "linux".into(),
                        sha: sha.into(),
                        state,
                        number: Some(number as u64),
                        url: None,
                        worker: Some("w1".into()),
                        progress: String::new(),
                        detail: String::new(),
                        behind: None,
                    });
            Ok(ProviderSnapshot {
                pools: BTreeMap::from([("linux".into(), pool)]),
                runs: runs.filter(|run| asked.contains(&run.sha)).collect(),
                history: asked
                    .iter()
                    .map(|sha| ((*sha).clone(), History::Complete))
                    .collect(),
                version: None,
            })
        })
    }
}

/// A clock that follows tokio's paused one, and that a test can push ahead: a suspended machine.
struct PausedClock {
    start: tokio::time::Instant,
    suspended: Mutex<Duration>,
    /// For how long it is suspended when the wall clock is read next.
    suspended_at_wall: Mutex<Duration>,
}

impl Clock for PausedClock {
    fn boot(&self) -> Duration {
        self.start.elapsed() + *self.suspended.lock().unwrap()
    }

    fn wall(&self) -> SystemTime {
        *self.suspended.lock().unwrap() +=
            std::mem::take(&mut *self.suspended_at_wall.lock().unwrap());
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.boot()
    }
}

struct Nobody;

impl Observer for Nobody {
    fn tick(&self, _: &Report) {}

    fn reload(&self, _: bool, _: SystemTime) {}
}

/// The world in which a look takes no time and `retry` works.
fn world() -> SharedWorld {
    Arc::new(Mutex::new(World {
        pending: Some(OLD),
        retry_works: true,
        ..World::default()
    }))
}

fn clock() -> Arc<PausedClock> {
    Arc::new(PausedClock {
        start: tokio::time::Instant::now(),
        suspended: Mutex::default(),
        suspended_at_wall: Mutex::default(),
    })
}

struct Bench {
    world: SharedWorld,
    clock: Arc<PausedClock>,
    app: App,
    shared: Arc<Shared>,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        Self::with_journal(mode, Journal::in_memory().unwrap())
    }

    fn with_journal(mode: Mode, journal: (Journal, Memory)) -> Self {
        Self::with_restarts(mode, journal, BTreeMap::new())
    }

    fn with_restarts(
        mode: Mode,
        (journal, memory): (Journal, Memory),
        restarts: BTreeMap<BotName, Restart>,
    ) -> Self {
        let world = world();
        let clock = clock();
        let policy = Policy {
            mode,
            ..Policy::default()
        };
        let config = Config {
            path: PathBuf::from("ci-watchdog.toml"),
            policy,
            server: Server::default(),
            journal: JournalSettings {
                path: PathBuf::from("journal.db"),
                retention: JournalSettings::RETENTION,
            },
            bots: vec![Box::new(FakeBot {
                name: "homu".into(),
                world: Arc::clone(&world),
            })],
            providers: vec![Box::new(FakeProvider {
                name: "buildbot".into(),
                world: Arc::clone(&world),
            })],
            exclusions: Vec::new(),
            maintenance: Vec::new(),
            restarts,
            warnings: Vec::new(),
        };
        let clocks: Arc<dyn Clock> = Arc::<PausedClock>::clone(&clock);
        let app = App::with_journal(config, journal, memory, clocks, Arc::new(Nobody));
        let shared = app.shared();
        Self {
            world,
            clock,
            app,
            shared,
        }
    }

    /// Ticks every ten seconds for so long.
    async fn run_for(&mut self, time: Duration) {
        let tick = Duration::from_secs(10);
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(tick).await;
            self.app.tick(tick).await;
        }
    }

    /// One tick, in which the loop must look alive all the time.
    async fn tick_alive(&mut self) {
        let shared = Arc::clone(&self.shared);
        let watch = async {
            loop {
                let health = shared.health();
                assert!(health.loop_alive, "{:?}", health.reasons);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = self.app.tick(Duration::from_secs(10)) => {}
        }
    }

    fn sent(&self) -> Vec<StepKind> {
        self.world.lock().unwrap().sent.clone()
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }

    fn verdict(&self) -> Verdict {
        self.shared.report().builds[0].expectations[0].verdict
    }

    fn gate(&self) -> Option<Gate> {
        self.shared.report().builds[0]
            .hold
            .as_ref()
            .map(|hold| hold.gate)
    }
}

/// Asks the real server, without a socket: status and body.
async fn ask(shared: &Arc<Shared>, request: Request<Body>) -> (u16, String) {
    let web = Web {
        shared: Arc::<Shared>::clone(shared),
        metrics: Arc::new(Metrics::new()),
    };
    let service = TowerToHyperService::new(router(Arc::new(web)));
    let answer = service.call(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(shared: &Arc<Shared>, path: &str) -> (u16, String) {
    let request = Request::get(path).header("host", "localhost");
    ask(shared, request.body(Body::empty()).unwrap()).await
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

#[tokio::test(start_paused = true)]
async fn a_lost_push_is_released_and_retried_once() {
    let mut bench = Bench::new(Mode::Act);
    bench.run_for(minutes(5)).await;
    assert_eq!(bench.sent(), [], "before its deadline nothing is due");
    bench.run_for(minutes(1)).await;
    assert_eq!(bench.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
    bench.run_for(minutes(10)).await;
    assert_eq!(bench.sent().len(), 2, "the new run lives");
    let report = bench.shared.report();
    assert_eq!(report.builds[0].generation, 2);
    assert_eq!(report.builds[0].merge_sha.as_deref(), Some(NEW));
    assert_eq!(report.journal.open_intents, 0, "its effect was seen");
}

#[tokio::test(start_paused = true)]
async fn observing_sends_nothing_and_says_what_would_be_sent() {
    let mut bench = Bench::new(Mode::Observe);
    bench.run_for(minutes(10)).await;
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.verdict(), Verdict::NoShow);
    assert_eq!(bench.gate(), Some(Gate::Observe));
    let report = bench.shared.report();
    let plan = &report.builds[0].hold.as_ref().unwrap().plan;
    assert_eq!(plan, &[StepKind::ReleaseSlot, StepKind::Retry]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_the_last_look_sees_stops_the_request() {
    let mut bench = Bench::new(Mode::Act);
    bench.run_for(minutes(4)).await;
    while bench.gate() != Some(Gate::Confirming) {
        bench.run_for(Duration::from_secs(10)).await;
    }
    bench.run_for(Duration::from_secs(10)).await;
    assert_eq!(bench.gate(), Some(Gate::Confirming), "two looks of three");
    // The next tick's look confirms the death; the last look is the one after it.
    let last_look = bench.world.lock().unwrap().bot_looks + 2;
    bench.change(|world| world.run_appears_at_look = Some(last_look));
    bench.run_for(minutes(1)).await;
    assert_eq!(bench.sent(), [], "it lives");
    assert_eq!(bench.verdict(), Verdict::Alive);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_unknown_and_the_loop_goes_on() {
    let mut bench = Bench::new(Mode::Act);
    bench.change(|world| world.provider_hangs = true);
    bench.run_for(minutes(20)).await;
    assert_eq!(bench.verdict(), Verdict::Unknown);
    assert_eq!(bench.sent(), []);
    let report = bench.shared.report();
    assert!(report.tick > 30, "{} ticks", report.tick);
    assert_eq!(
        report.not_settled, None,
        "waiting for a probe's deadline is not being stopped"
    );
    assert!(report.builds[0].stuck, "people are told");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_time_of_it_does_not_count() {
    let mut bench = Bench::new(Mode::Act);
    bench.change(|world| world.provider_down = true);
    bench.run_for(minutes(30)).await;
    bench.change(|world| world.provider_down = false);
    bench.run_for(minutes(4)).await;
    assert_eq!(bench.verdict(), Verdict::Starting);
    assert_eq!(bench.sent(), []);
    bench.run_for(minutes(3)).await;
    assert_eq!(bench.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_looks_afresh_before_it_acts() {
    let mut bench = Bench::new(Mode::Act);
    bench.run_for(minutes(4)).await;
    *bench.clock.suspended.lock().unwrap() += minutes(600);
    bench.run_for(Duration::from_secs(40)).await;
    assert_eq!(bench.sent(), []);
    assert!(bench.shared.report().not_settled.is_some());
    assert_eq!(
        bench.verdict(),
        Verdict::Starting,
        "the ten hours did not count"
    );
}

#[tokio::test(start_paused = true)]
async fn wherever_the_machine_is_suspended_everything_is_looked_at_afresh_for_long_enough() {
    let tick = Duration::from_secs(10);
    let mut undisturbed = Bench::new(Mode::Act);
    while undisturbed.sent().is_empty() {
        undisturbed.run_for(tick).await;
    }
    // Of that tick's looks the first was its own, and one came before each of two requests.
    let last = undisturbed.world.lock().unwrap().bot_looks - 1;
    for (place, look, sent) in [
        (Place::BotLook, last - 1, 0),
        (Place::ProviderLook, last - 1, 0),
        (Place::BotLook, last, 0),
        (Place::ProviderLook, last, 0),
        (Place::AfterProviderLook, last, 0),
        (Place::Request, last, 1),
    ] {
        let case = format!("{place:?} {look} of {last}");
        let mut bench = Bench::new(Mode::Act);
        let clock = Arc::clone(&bench.clock);
        bench.change(|world| world.suspend = Some((place, look, clock)));
        while bench.world.lock().unwrap().suspend.is_some() {
            bench.run_for(tick).await;
        }
        bench.run_for(Duration::from_secs(50)).await;
        assert_eq!(bench.sent().len(), sent, "{case}");
        assert!(bench.shared.report().not_settled.is_some(), "{case}");
        bench.run_for(minutes(10)).await;
        let again = [StepKind::ReleaseSlot, StepKind::Retry];
        assert_eq!(bench.sent()[sent..], again, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_attempt_under_way() {
    let bench = Bench::new(Mode::Act);
    bench.change(|world| {
        world.slow_answer = Duration::from_secs(3);
    });
    let world = Arc::clone(&bench.world);
    bench.app.run(first_request(&world)).await;
    assert_eq!(
        world.lock().unwrap().sent,
        [StepKind::ReleaseSlot, StepKind::Retry],
        "the attempt was finished before the stop"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_effect_waits_for_its_cooldown() {
    let mut bench = Bench::new(Mode::Act);
    bench.change(|world| world.retry_works = false);
    bench.run_for(minutes(7)).await;
    assert_eq!(bench.sent().len(), 2);
    assert_eq!(bench.gate(), Some(Gate::InDoubt), "its effect is awaited");
    bench.run_for(minutes(2)).await;
    assert_eq!(bench.gate(), Some(Gate::Cooldown));
    assert_eq!(bench.sent().len(), 2);
    bench.run_for(minutes(4)).await;
    assert_eq!(bench.sent().len(), 4, "a new attempt after the cooldown");
}

#[tokio::test(start_paused = true)]
async fn acting_in_one_tick_has_an_end_and_the_rest_follows() {
    let mut bench = Bench::new(Mode::Act);
    bench.change(|world| {
        world.pending = None;
        world.lost = LOST.to_vec();
    });
    bench.run_for(Duration::from_secs(100)).await;
    assert_eq!(bench.sent(), [], "before its deadline nothing is due");
    bench.change(|world| {
        world.slow_looks = Duration::from_secs(6);
        world.slow_answer = Duration::from_secs(9);
    });
    let mut most = Duration::ZERO;
    for _ in 0..14 {
        let before = tokio::time::Instant::now();
        bench.tick_alive().await;
        most = most.max(before.elapsed());
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let replay = [StepKind::ReleaseSlot, StepKind::ReplayResult];
    assert_eq!(bench.sent(), replay.repeat(LOST.len()));
    // A look, what was begun in time, and the attempt that was under way then.
    let one = Duration::from_secs(2 * (6 + 6 + 9));
    assert!(
        most < Duration::from_secs(12) + ACT_BUDGET + one,
        "{most:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_does_not_look_like_a_loop_that_stands_still() {
    let mut bench = Bench::new(Mode::Act);
    bench.change(|world| {
        world.slow_looks = Duration::from_secs(19);
        world.slow_answer = Duration::from_secs(14);
    });
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        bench.tick_alive().await;
    }
    assert_eq!(bench.sent(), [StepKind::ReleaseSlot, StepKind::Retry]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heeded_between_two_attempts() {
    let bench = Bench::new(Mode::Act);
    bench.change(|world| {
        world.pending = None;
        world.lost = LOST.to_vec();
        world.slow_answer = Duration::from_secs(3);
    });
    let world = Arc::clone(&bench.world);
    bench.app.run(first_request(&world)).await;
    assert_eq!(
        world.lock().unwrap().sent,
        [StepKind::ReleaseSlot, StepKind::ReplayResult]
    );
}

/// Ready while the first request is under way.
async fn first_request(world: &SharedWorld) {
    while world.lock().unwrap().sent.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
