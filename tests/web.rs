//! The server over real loopback sockets: what it answers, what it refuses, and what it endures.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

#[path = "web/hand.rs"]
mod hand;
mod sample;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ci_watchdog::app::{HandReport, Health, Instruction, OrderWish};
use ci_watchdog::bots::{Bot, BoxFuture};
use ci_watchdog::config::{self, Kinds, Token};
use ci_watchdog::decision::hand::{Refusal, Wish};
use ci_watchdog::decision::policy::Mode;
use ci_watchdog::journal::Permit;
use ci_watchdog::keys::Keys;
use ci_watchdog::metrics::Metrics;
use ci_watchdog::model::{
    BotName, BotSnapshot, BuildKey, BuilderName, Outcome, ProbeError, ProviderName, RemedyRow,
    RepoName, Sha, SourceName,
};
use ci_watchdog::report::{JournalReport, Report};
use ci_watchdog::web::{
    BODY_MAX, BODY_TIMEOUT, CONNECTION_MAX, CONNECTIONS_MAX, Daemon, HEAD_MAX, HEADER_TIMEOUT, Web,
    router, serve,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

const TOKEN: &str = "0123456789abcdefghij";
/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for an answer that would come at once to have come.
const MOMENT: Duration = Duration::from_millis(300);

/// How the fake loop takes a request to reload.
#[derive(Clone, Copy)]
enum Reload {
    Good,
    Bad,
    Never,
}

/// A loop that stands still.
struct FakeLoop {
    report: Mutex<Arc<Report>>,
    health: Mutex<Health>,
    token: Option<Arc<Token>>,
    reload: Reload,
    reloads: AtomicUsize,
    /// Those who ask for a reload that never comes.
    waiting: Mutex<Vec<oneshot::Sender<Result<(), String>>>>,
    hands: hand::Hands,
}

impl Daemon for FakeLoop {
    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report.lock().unwrap())
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    fn token(&self) -> Option<Arc<Token>> {
        self.token.clone()
    }

    fn request_reload(&self) -> oneshot::Receiver<Result<(), String>> {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        let (reply, answer) = oneshot::channel();
        match self.reload {
            Reload::Good => reply.send(Ok(())).unwrap(),
            Reload::Bad => reply
                .send(Err("ci-watchdog.toml:3: mode".to_owned()))
                .unwrap(),
            Reload::Never => self.waiting.lock().unwrap().push(reply),
        }
        answer
    }

    fn request_by_hand(
        &self,
        wish: Wish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<HandReport, Refusal>> {
        self.hands.wish(wish, dry_run)
    }

    fn request_order(
        &self,
        wish: OrderWish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<Instruction, Refusal>> {
        self.hands.order(wish, dry_run)
    }
}

/// A server on a free port, and what stands behind it.
struct Server {
    address: SocketAddr,
    behind: Arc<FakeLoop>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(token: Option<Token>, reload: Reload) -> Self {
        let behind = Arc::new(FakeLoop {
            report: Mutex::new(Arc::new(sample::report())),
            health: Mutex::new(Health {
                loop_alive: true,
                last_tick: Some(SystemTime::UNIX_EPOCH),
                journal_writable: true,
                sources_seen: true,
                reasons: Vec::new(),
            }),
            token: token.map(Arc::new),
            reload,
            reloads: AtomicUsize::new(0),
            waiting: Mutex::default(),
            hands: hand::Hands::default(),
        });
        let web = Arc::new(Web {
            shared: Arc::<FakeLoop>::clone(&behind),
            metrics: Arc::new(Metrics::new()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, router(web), async {
            let _ = stopped.await;
        }));
        Self {
            address,
            behind,
            stop: Some(stop),
            served,
        }
    }

    async fn reading() -> Self {
        Self::start(None, Reload::Good).await
    }

    async fn with_token(reload: Reload) -> Self {
        Self::start(Some(token()), reload).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends the bytes of a request and reads until the server closes.
    async fn send(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        self.ask_with(method, path, "").await
    }

    /// `headers` are whole lines, each with its `\r\n`.
    async fn ask_with(&self, method: &str, path: &str, headers: &str) -> Answer {
        let host = self.address;
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        let mut report = sample::report();
        change(&mut report);
        *self.behind.report.lock().unwrap() = Arc::new(report);
    }

    fn reloads(&self) -> usize {
        self.behind.reloads.load(Ordering::SeqCst)
    }
}

/// A token as the daemon has it: read from a file by the configuration.
fn token() -> Token {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = "[server]\ntoken_file = \"token\"\n[[bot]]\nname = \"b\"\nkind = \"none\"\n";
    let kinds = Kinds {
        bots: &[ci_watchdog::bots::Kind {
            name: "none",
            connect: no_bot,
        }],
        providers: &[ci_watchdog::providers::Kind {
            name: "none",
            connect: no_provider,
        }],
    };
    let config = config::read(&folder.path().join("ci-watchdog.toml"), text, kinds).unwrap();
    config.server.token.unwrap()
}

/// Makes a bot that is never asked for anything.
fn no_bot(name: BotName, _: &mut Keys<'_>) -> Option<Box<dyn Bot>> {
    Some(Box::new(IdleBot(name)))
}

struct IdleBot(BotName);

impl Bot for IdleBot {
    fn name(&self) -> &BotName {
        &self.0
    }

    fn kind(&self) -> &'static str {
        "none"
    }

    fn github(&self) -> SourceName {
        SourceName::new(format!("{}.github", self.0))
    }

    fn repos(&self) -> BTreeMap<RepoName, Vec<BuilderName>> {
        BTreeMap::new()
    }

    fn own_timeout(&self, _: &RepoName) -> Option<Duration> {
        None
    }

    fn observe<'a>(
        &'a self,
        _: &'a BTreeMap<BuildKey, Sha>,
    ) -> BoxFuture<'a, Result<BotSnapshot, ProbeError>> {
        unreachable!("there is no loop")
    }

    fn rows(&self) -> &[RemedyRow] {
        &[]
    }

    fn send<'a>(&'a self, _: Permit) -> BoxFuture<'a, Outcome> {
        unreachable!("there is no loop")
    }
}

fn no_provider(
    _: ProviderName,
    _: &mut Keys<'_>,
    _: &ci_watchdog::providers::Advice,
) -> Option<Box<dyn ci_watchdog::providers::Provider>> {
    None
}

/// An answer as it came.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes))
            .await
            .expect("the server answers and closes")
            .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

const READING: [&str; 10] = [
    "/",
    "/style.css",
    "/metrics",
    "/-/healthy",
    "/-/ready",
    "/api/v1/status",
    "/api/v1/builds",
    "/api/v1/builds/homu:widgets:7:auto:1",
    "/api/v1/providers",
    "/api/v1/attempts",
];

#[tokio::test]
async fn every_answer_forbids_scripts_frames_and_guessing() {
    let server = Server::reading().await;
    for path in READING.into_iter().chain(["/nothing"]) {
        let answer = server.ask("GET", path).await;
        assert_eq!(
            answer.status,
            if path == "/nothing" { 404 } else { 200 },
            "{path}"
        );
        let policy = answer.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "style-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn head_answers_as_get_does_without_a_body() {
    let server = Server::reading().await;
    for path in READING {
        let answer = server.ask("HEAD", path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_is_404_and_a_method_that_does_not_fit_405() {
    let server = Server::with_token(Reload::Good).await;
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        assert_eq!(server.ask_with(method, "/nothing", &good).await.status, 404);
    }
    for path in READING {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = server.ask_with(method, path, &good).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let answer = server.ask_with(method, "/-/reload", &good).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    assert_eq!(server.reloads(), 0);
}

#[tokio::test]
async fn builds_are_a_list_with_everything_that_is_promised() {
    let server = Server::reading().await;
    let builds = server.ask("GET", "/api/v1/builds").await.json();
    let build = &builds.as_array().unwrap()[0];
    for key in [
        "id",
        "bot",
        "repo",
        "pull",
        "try",
        "merge_sha",
        "generation",
        "first_seen",
        "verdict",
        "hold",
        "expectations",
        "attempts",
    ] {
        assert!(build.get(key).is_some(), "{key}");
    }
    for key in ["builder", "provider", "verdict", "evidence", "deadline"] {
        assert!(build["expectations"][0].get(key).is_some(), "{key}");
    }
    assert_eq!(build["hold"]["gate"], "zone_outage");
    assert_eq!(build["hold"]["reason"], "zone mac-ci/mac is in outage");
    let one = server
        .ask("GET", "/api/v1/builds/homu:widgets:7:auto:1")
        .await;
    assert_eq!(&one.json(), build);
    let escaped = server
        .ask("GET", "/api/v1/builds/homu%3Awidgets%3A7%3Aauto%3A1")
        .await;
    assert_eq!(&escaped.json(), build);
}

#[tokio::test]
async fn an_unknown_build_is_an_error_in_json() {
    let server = Server::reading().await;
    let answer = server
        .ask("GET", "/api/v1/builds/homu:widgets:99:auto:1")
        .await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("homu:widgets:99:auto:1"), "{error}");
}

#[tokio::test]
async fn status_sums_up_and_providers_are_providers_only() {
    let server = Server::reading().await;
    let status = server.ask("GET", "/api/v1/status").await.json();
    assert_eq!(status["mode"], "act");
    assert_eq!(status["settled"], true);
    assert_eq!(
        (&status["pending"], &status["stuck"], &status["held"]),
        (&2.into(), &2.into(), &1.into())
    );
    assert_eq!(status["journal"]["writable"], true);
    let providers = server.ask("GET", "/api/v1/providers").await.json();
    let names: Vec<&str> = providers
        .as_array()
        .unwrap()
        .iter()
        .map(|provider| provider["source"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["linux-ci", "mac-ci"]);
}

#[tokio::test]
async fn healthy_and_ready_say_what_is_wrong() {
    let server = Server::reading().await;
    assert_eq!(server.ask("GET", "/-/healthy").await.status, 200);
    *server.behind.health.lock().unwrap() = Health {
        loop_alive: true,
        last_tick: None,
        journal_writable: false,
        sources_seen: true,
        reasons: vec!["the journal cannot be written: disk full".to_owned()],
    };
    assert_eq!(server.ask("GET", "/-/healthy").await.status, 200);
    let ready = server.ask("GET", "/-/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("disk full"), "{}", ready.body);
    server.behind.health.lock().unwrap().loop_alive = false;
    assert_eq!(server.ask("GET", "/-/healthy").await.status, 503);
}

#[tokio::test]
async fn nothing_from_outside_reaches_the_page_unescaped() {
    const EVIL: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&";
    let server = Server::reading().await;
    server.change(|report| {
        let evil = || EVIL.to_owned();
        report.not_settled = Some(evil());
        report.warnings = vec![evil()];
        report.journal.writable = false;
        report.journal.error = Some(evil());
        for source in &mut report.sources {
            source.source = evil();
            source.error = Some(evil());
        }
        for build in &mut report.builds {
            build.bot = evil();
            build.repo = evil();
            build.title = evil();
            build.url = format!("https://example.org/{EVIL}");
            build.merge_sha = Some(evil());
            build.evidence = vec![evil()];
            for hold in &mut build.holds {
                hold.reason = evil();
            }
            for expectation in &mut build.expectations {
                expectation.builder = evil();
                expectation.provider = Some(evil());
                expectation.evidence = vec![evil()];
                expectation.run = Some(evil());
                expectation.url = Some(format!("http://example.org/{EVIL}"));
            }
        }
        for queue in &mut report.queues {
            queue.bot = evil();
            queue.repo = evil();
            queue.evidence = vec![evil()];
            queue.hold = report.builds[0].hold.clone();
        }
        for zone in &mut report.zones {
            zone.provider = evil();
            zone.builder = evil();
            zone.reason = Some(evil());
        }
        for attempt in &mut report.attempts {
            attempt.repo = evil();
            attempt.evidence = vec![evil()];
        }
    });
    let page = server.ask("GET", "/").await.body;
    for tag in ["<script", "<img", "onerror=alert(1)>", "'>", "\"'"] {
        assert!(!page.contains(tag), "{tag} in {page}");
    }
    assert!(page.matches("&#60;script&#62;").count() > 20, "{page}");
}

#[tokio::test]
async fn an_address_that_is_no_web_page_is_not_linked() {
    let server = Server::reading().await;
    server.change(|report| {
        for build in &mut report.builds {
            build.url = "javascript:alert(1)".to_owned();
            for expectation in &mut build.expectations {
                expectation.url = Some("data:text/html,x".to_owned());
            }
        }
    });
    let page = server.ask("GET", "/").await.body;
    assert!(!page.contains("javascript:"), "{page}");
    assert!(!page.contains("data:"), "{page}");
    assert!(page.contains("widgets#7"), "{page}");
}

#[tokio::test]
async fn the_page_says_in_words_what_is_empty_and_what_is_wrong() {
    let server = Server::reading().await;
    let full = server.ask("GET", "/").await.body;
    for text in [
        "acting",
        "zone mac-ci/mac is in outage",
        "zone_outage",
        "release_slot, retry",
        "no complete answer within 10s",
        "replay_result: accepted, its effect is awaited",
        "the CI of gears has no configured provider",
        "its worker went away",
    ] {
        assert!(full.contains(text), "{text}");
    }
    server.change(|report| *report = Report::empty(Mode::Observe, SystemTime::UNIX_EPOCH));
    let empty = server.ask("GET", "/").await.body;
    for text in [
        "observing",
        "not settled",
        "the first look is under way",
        "No bot was read yet.",
        "Nothing was looked at yet.",
        "No provider told of its workers yet.",
        "Nothing was sent yet.",
    ] {
        assert!(empty.contains(text), "{text}");
    }
    server.change(|report| {
        report.journal = JournalReport {
            error: Some("disk full".to_owned()),
            ..JournalReport::default()
        };
    });
    let sick = server.ask("GET", "/").await.body;
    server.change(|report| {
        *report = sample::report();
        report.builds.clear();
    });
    let idle = server.ask("GET", "/").await.body;
    assert!(idle.contains("No bot waits for anything."), "{idle}");
    server.change(|report| {
        *report = sample::report();
        report.builds.clear();
        report.sources[0].up = Some(false);
    });
    let silent = server.ask("GET", "/").await.body;
    assert!(
        silent.contains("What homu waits for is not known."),
        "{silent}"
    );
    assert!(
        sick.contains("it cannot be written, so nothing is sent (disk full)"),
        "{sick}"
    );
}

#[tokio::test]
async fn the_page_needs_nothing_but_its_own_style() {
    let server = Server::reading().await;
    let page = server.ask("GET", "/").await.body;
    assert!(page.contains("<meta http-equiv=\"refresh\""));
    assert!(page.contains("name=\"viewport\""));
    assert!(
        !page.contains(" style=") && !page.contains("<style"),
        "the policy would drop it"
    );
    let style = server.ask("GET", "/style.css").await;
    assert_eq!(
        style.header("content-type"),
        Some("text/css; charset=utf-8")
    );
    assert!(style.body.contains("prefers-color-scheme: dark"));
    assert!(!style.body.contains("url("), "the policy would drop it");
}

#[tokio::test]
async fn a_reload_needs_the_token() {
    let server = Server::with_token(Reload::Good).await;
    let refused = [
        String::new(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Bearer {}\r\n", TOKEN.to_uppercase()),
        format!("Cookie: token={TOKEN}\r\n"),
    ];
    for headers in &refused {
        let answer = server.ask_with("POST", "/-/reload", headers).await;
        assert_eq!(answer.status, 401, "{headers}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.body.contains(TOKEN));
    }
    let in_the_address = format!("/-/reload?token={TOKEN}");
    assert_eq!(server.ask("POST", &in_the_address).await.status, 401);
    assert_eq!(server.reloads(), 0);

    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let answer = server.ask_with("POST", "/-/reload", &good).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "reloaded\n"));
    assert_eq!(server.reloads(), 1);
}

#[tokio::test]
async fn what_is_refused_changes_nothing_but_a_counter() {
    let server = Server::with_token(Reload::Good).await;
    let before = server.ask("GET", "/api/v1/status").await.body;
    for _ in 0..3 {
        server.ask("POST", "/-/reload").await;
        server.ask("POST", "/such/a/path").await;
    }
    assert_eq!(server.ask("GET", "/api/v1/status").await.body, before);
    let metrics = server.ask("GET", "/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let refused = "ci_watchdog_http_requests_total{code=\"401\",handler=\"/-/reload\"} 3\n";
    assert!(metrics.body.contains(refused), "{}", metrics.body);
    let other = "ci_watchdog_http_requests_total{code=\"404\",handler=\"other\"} 3\n";
    assert!(metrics.body.contains(other), "{}", metrics.body);
    assert!(!metrics.body.contains("such"), "a path is no label");
}

#[tokio::test]
async fn without_a_token_changing_is_off_and_says_how_to_turn_it_on() {
    let server = Server::reading().await;
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    for headers in ["", "Authorization: Bearer \r\n", good.as_str()] {
        let answer = server.ask_with("POST", "/-/reload", headers).await;
        assert_eq!(answer.status, 403, "{headers}");
        assert!(answer.body.contains("server.token_file"), "{}", answer.body);
    }
    assert_eq!(server.reloads(), 0);
}

#[tokio::test]
async fn a_name_that_was_led_to_loopback_reads_and_changes_nothing() {
    let server = Server::with_token(Reload::Good).await;
    let ask = async |request: &str, host: &str| {
        let request = format!(
            "{request} HTTP/1.1\r\n{host}Connection: close\r\n\
             Authorization: Bearer {TOKEN}\r\n\r\n"
        );
        server.send(&request).await.status
    };
    let asked = [
        "POST /-/reload",
        "GET /api/v1/builds",
        "HEAD /",
        "GET /metrics",
    ];
    for host in [
        "",
        "Host: \r\n",
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: evil.example:9923\r\n",
        "Host: 192.168.0.1\r\n",
        "Host: 127.0.0.1\r\nHost: evil.example\r\n",
    ] {
        for request in asked {
            assert_eq!(ask(request, host).await, 403, "{request} {host:?}");
        }
    }
    assert_eq!(server.reloads(), 0);
    for host in [
        "Host: localhost\r\n",
        "Host: [::1]:9923\r\n",
        "Host: [::ffff:127.0.0.1]:1\r\n",
        "Host: 127.0.0.1\r\n",
    ] {
        for request in asked {
            assert_eq!(ask(request, host).await, 200, "{request} {host:?}");
        }
    }
}

#[tokio::test]
async fn a_head_has_a_longest_length() {
    let server = Server::reading().await;
    let ask = async |length: usize| {
        let filler = "x".repeat(length);
        server
            .ask_with("GET", "/-/healthy", &format!("X-Filler: {filler}\r\n"))
            .await
    };
    assert_eq!(ask(HEAD_MAX - 1024).await.status, 200);
    let longer = ask(HEAD_MAX).await;
    assert_eq!(longer.status, 431);
    assert!(longer.body.contains("65536 bytes"), "{}", longer.body);
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let server = Server::with_token(Reload::Good).await;
    let method = server.ask("GET", "/-/reload").await;
    assert_eq!((method.status, method.header("allow")), (405, Some("POST")));
    assert!(method.body.contains("POST it"), "{}", method.body);
    let path = server.ask("GET", "/api/v1/builds/%ff").await;
    assert_eq!(path.status, 400);
    assert!(path.body.contains("no UTF-8"), "{}", path.body);
}

#[tokio::test]
async fn a_reload_of_a_bad_configuration_answers_with_its_mistakes() {
    let server = Server::with_token(Reload::Bad).await;
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let answer = server.ask_with("POST", "/-/reload", &good).await;
    assert_eq!(answer.status, 422);
    assert!(
        answer.body.contains("ci-watchdog.toml:3: mode"),
        "{}",
        answer.body
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_not_wait_for_a_stalled_loop_for_ever() {
    let server = Server::with_token(Reload::Never).await;
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let mut stream = server.connect().await;
    let request =
        format!("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{good}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn headers_that_trickle_in_are_cut_off() {
    let server = Server::reading().await;
    let began = tokio::time::Instant::now();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: loc")
        .await
        .unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    assert!(began.elapsed() < HEADER_TIMEOUT * 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_more_is_closed() {
    let server = Server::reading().await;
    let began = tokio::time::Instant::now();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("healthy\n"), "{answer}");
    assert!(began.elapsed() < HEADER_TIMEOUT * 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_is_cut_off() {
    let server = Server::with_token(Reload::Good).await;
    let began = tokio::time::Instant::now();
    let mut stream = server.connect().await;
    let request = format!(
        "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: 100\r\n\r\nsome"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(began.elapsed() < BODY_TIMEOUT * 2);
    assert_eq!(server.reloads(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_loses_its_place() {
    let server = Server::reading().await;
    // More than any socket buffer takes.
    server.change(|report| report.warnings = vec!["x".repeat(1 << 20); 32]);
    let began = tokio::time::Instant::now();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(CONNECTION_MAX + HEADER_TIMEOUT).await;
    let mut read = Vec::new();
    let ended = stream.read_to_end(&mut read).await;
    assert!(read.len() < 32 << 20, "cut off in the middle");
    assert!(ended.is_err() || !read.is_empty());
    assert!(began.elapsed() < CONNECTION_MAX * 2);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let server = Server::with_token(Reload::Good).await;
    let body = "x".repeat(BODY_MAX + 1);
    let length = body.len();
    let head = format!(
        "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\n"
    );
    let whole = server
        .send(&format!("{head}Content-Length: {length}\r\n\r\n{body}"))
        .await;
    assert_eq!(whole.status, 413);
    let chunked = server
        .send(&format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(chunked.status, 413);
    assert_eq!(server.reloads(), 0);
    let most = "x".repeat(BODY_MAX);
    let fits = server
        .send(&format!("{head}Content-Length: {BODY_MAX}\r\n\r\n{most}"))
        .await;
    assert_eq!(fits.status, 200);
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_read() {
    let server = Server::with_token(Reload::Good).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
        .await
        .unwrap();
    let mut status = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut status))
        .await
        .expect("the answer does not wait for the body")
        .unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
}

#[tokio::test]
async fn what_is_no_http_harms_nobody() {
    let server = Server::reading().await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /api/v1/builds/%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long.as_str(),
    ] {
        let mut stream = server.connect().await;
        // The server may have closed before it read all.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the server closes");
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        assert!(!answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
    assert_eq!(server.ask("GET", "/-/healthy").await.status, 200);
}

#[tokio::test]
async fn no_more_connections_are_served_than_are_allowed() {
    let server = Server::reading().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut first))
            .await
            .expect("it is served")
            .unwrap();
        held.push(stream);
    }
    let mut next = server.connect().await;
    next.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0; 1];
    assert!(
        timeout(MOMENT, next.read(&mut byte)).await.is_err(),
        "it waits for its turn"
    );
    held.pop();
    timeout(PATIENCE, next.read_exact(&mut byte))
        .await
        .expect("a place was free")
        .unwrap();
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end_and_takes_nothing_new() {
    let mut server = Server::with_token(Reload::Never).await;
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let mut stream = server.connect().await;
    let request = format!("POST /-/reload HTTP/1.1\r\nHost: localhost\r\n{good}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    timeout(PATIENCE, async {
        while server.reloads() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the request arrives");
    server.stop.take().unwrap().send(()).unwrap();
    let ended = timeout(MOMENT, &mut server.served).await;
    assert!(ended.is_err(), "it waits for what is under way");
    let waiting = server.behind.waiting.lock().unwrap().pop().unwrap();
    waiting.send(Ok(())).unwrap();
    let answer = Answer::read(&mut stream).await;
    assert_eq!(answer.status, 200);
    timeout(PATIENCE, &mut server.served)
        .await
        .expect("it ends")
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
