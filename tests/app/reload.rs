//! Reading the configuration again while the loop runs.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ci_watchdog::bots;
use ci_watchdog::config::{Kinds, load_with};
use ci_watchdog::keys::Keys;
use ci_watchdog::providers;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

const OLD_TOKEN: &str = "0123456789abcdef-old";
const NEW_TOKEN: &str = "0123456789abcdef-new";
const SERVER: &str = "[server]\nlisten = \"127.0.0.1:9923\"\n";
const WITH_TOKEN: &str = "[server]\nlisten = \"127.0.0.1:9923\"\ntoken_file = \"token\"\n";

const KINDS: Kinds<'static> = Kinds {
    bots: &[bots::Kind {
        name: "fake",
        connect: bot,
    }],
    providers: &[providers::Kind {
        name: "fake",
        connect: provider,
    }],
};

thread_local! {
    /// What a configuration's adapters look at; each test has a thread of its own.
    static WORLD: RefCell<Option<SharedWorld>> = const { RefCell::new(None) };
}

fn the_world() -> SharedWorld {
    WORLD.with_borrow(|world| Arc::clone(world.as_ref().unwrap()))
}

fn bot(name: BotName, _: &mut Keys<'_>) -> Option<Box<dyn Bot>> {
    let world = the_world();
    Some(Box::new(FakeBot { name, world }))
}

fn provider(
    name: ProviderName,
    _: &mut Keys<'_>,
    _: &providers::Advice,
) -> Option<Box<dyn Provider>> {
    let world = the_world();
    Some(Box::new(FakeProvider { name, world }))
}

/// Counts reloads: good ones and bad ones.
#[derive(Default)]
struct Reloads(Mutex<(u32, u32)>);

impl Observer for Reloads {
    fn tick(&self, _: &Report) {}

    fn reload(&self, good: bool, _: SystemTime) {
        let mut counts = self.0.lock().unwrap();
        if good {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
    }
}

/// A loop that runs beside the test, by a configuration file.
struct Running {
    folder: TempDir,
    world: SharedWorld,
    shared: Arc<Shared>,
    reloads: Arc<Reloads>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    fn start(server: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = world();
        WORLD.with_borrow_mut(|shared| *shared = Some(Arc::clone(&world)));
        let path = folder.path().join("ci-watchdog.toml");
        write_token(folder.path(), OLD_TOKEN, 0o600);
        std::fs::write(&path, text("act", server, "homu")).unwrap();
        let config = load_with(&path, KINDS).unwrap();
        let (journal, memory) = Journal::in_memory().unwrap();
        let reloads = Arc::new(Reloads::default());
        let observer: Arc<dyn Observer> = Arc::<Reloads>::clone(&reloads);
        let app = App::with_journal(config, journal, memory, clock(), observer).with_kinds(KINDS);
        let shared = app.shared();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        Self {
            folder,
            world,
            shared,
            reloads,
            stop,
            ended,
        }
    }

    fn write(&self, mode: &str, server: &str, bot: &str) {
        let path = self.folder.path().join("ci-watchdog.toml");
        std::fs::write(path, text(mode, server, bot)).unwrap();
    }

    async fn reload(&self) -> Result<(), String> {
        self.shared.request_reload().await.unwrap()
    }

    fn takes(&self, token: &str) -> bool {
        self.shared.token().is_some_and(|ours| ours.matches(token))
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

fn text(mode: &str, server: &str, bot: &str) -> String {
    format!(
        "mode = \"{mode}\"\n{server}[[bot]]\nname = \"{bot}\"\nkind = \"fake\"\n\
         [[provider]]\nname = \"buildbot\"\nkind = \"fake\"\n"
    )
}

fn write_token(folder: &Path, token: &str, mode: u32) {
    let path = folder.join("token");
    std::fs::write(&path, token).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Asks for a reload over HTTP; the loop that would answer stands still meanwhile, so only what is
/// refused comes back.
async fn post(shared: &Arc<Shared>, token: &str) -> (u16, String) {
    let request = Request::post("/-/reload")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"));
    ask(shared, request.body(Body::empty()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_good_file_is_taken_and_a_bad_one_is_not() {
    let running = Running::start(SERVER);
    tokio::time::sleep(minutes(1)).await;
    running.write("observe", SERVER, "homu");
    assert_eq!(running.reload().await, Ok(()));
    running.write("heal", SERVER, "homu");
    let mistakes = running.reload().await.unwrap_err();
    assert!(mistakes.contains("ci-watchdog.toml:1: mode"), "{mistakes}");
    assert_eq!(*running.reloads.0.lock().unwrap(), (1, 1));
    tokio::time::sleep(minutes(9)).await;
    assert_eq!(running.shared.report().mode, Mode::Observe);
    assert_eq!(running.world.lock().unwrap().sent, []);
    running.write("act", SERVER, "homu");
    assert_eq!(running.reload().await, Ok(()));
    tokio::time::sleep(minutes(2)).await;
    let sent = running.world.lock().unwrap().sent.clone();
    assert_eq!(sent, [StepKind::ReleaseSlot, StepKind::Retry]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_token_in_force_is_that_of_the_last_good_file() {
    let running = Running::start(WITH_TOKEN);
    let folder = running.folder.path();
    assert!(running.takes(OLD_TOKEN));
    write_token(folder, NEW_TOKEN, 0o600);
    assert!(running.takes(OLD_TOKEN), "nobody asked for it yet");
    assert_eq!(post(&running.shared, NEW_TOKEN).await.0, 401);
    assert_eq!(post(&running.shared, OLD_TOKEN).await.0, 200);
    assert!(running.takes(NEW_TOKEN));
    assert_eq!(post(&running.shared, OLD_TOKEN).await.0, 401, "revoked");

    write_token(folder, OLD_TOKEN, 0o644);
    let (status, mistakes) = post(&running.shared, NEW_TOKEN).await;
    assert_eq!(status, 422);
    assert!(mistakes.contains("server.token_file"), "{mistakes}");
    assert!(running.takes(NEW_TOKEN), "the good one stays");

    running.write("act", SERVER, "homu");
    assert_eq!(post(&running.shared, NEW_TOKEN).await.0, 200);
    let (status, how) = post(&running.shared, NEW_TOKEN).await;
    assert_eq!(status, 403, "changing is off");
    assert!(how.contains("server.token_file"), "{how}");

    running.write("act", WITH_TOKEN, "homu");
    write_token(folder, OLD_TOKEN, 0o600);
    assert_eq!(running.reload().await, Ok(()));
    assert!(running.takes(OLD_TOKEN));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn another_address_needs_a_restart() {
    let running = Running::start(SERVER);
    let moved = SERVER.replace("9923", "9924");
    running.write("observe", &moved, "homu");
    let why = running.reload().await.unwrap_err();
    for word in [
        "server.listen",
        "127.0.0.1:9923",
        "127.0.0.1:9924",
        "restart",
    ] {
        assert!(why.contains(word), "{word} in {why}");
    }
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(running.shared.report().mode, Mode::Act, "the whole file");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_sources_are_those_of_the_new_file() {
    let running = Running::start(SERVER);
    tokio::time::sleep(minutes(1)).await;
    running.write("act", SERVER, "bors");
    assert_eq!(running.reload().await, Ok(()));
    tokio::time::sleep(minutes(1)).await;
    let report = running.shared.report();
    let names: Vec<&str> = report
        .sources
        .iter()
        .map(|one| one.source.as_str())
        .collect();
    assert_eq!(names, ["bors", "buildbot"]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn reloads_do_not_crowd_the_looks() {
    let running = Running::start(SERVER);
    tokio::time::sleep(minutes(2) + Duration::from_secs(1)).await;
    let looks = || running.world.lock().unwrap().bot_looks;
    let before = looks();
    for _ in 0..5 {
        assert_eq!(running.reload().await, Ok(()));
    }
    assert_eq!(looks(), before, "the pause goes on");
    // A reload each second: a look every ten seconds all the same, no more and no less.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(running.reload().await, Ok(()));
    }
    let after = looks() - before;
    assert!((5..=7).contains(&after), "{after} looks in a minute");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_heeded_between_two_attempts() {
    let running = Running::start(SERVER);
    {
        let mut world = running.world.lock().unwrap();
        world.pending = None;
        world.lost = LOST.to_vec();
        world.slow_answer = Duration::from_secs(3);
    }
    first_request(&running.world).await;
    running.write("observe", SERVER, "homu");
    assert_eq!(running.reload().await, Ok(()));
    tokio::time::sleep(minutes(5)).await;
    let sent = running.world.lock().unwrap().sent.clone();
    assert_eq!(sent, [StepKind::ReleaseSlot, StepKind::ReplayResult]);
    running.end().await;
}
