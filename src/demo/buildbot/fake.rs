//! The handle on the fake Buildbot: it sets up builders, breaks things, and looks at the runs.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Response, header};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::client::Client;
use super::super::github::Times;
use super::super::requests::{Received, RequestLog, kept};
use super::super::server::Server;
use super::reporter::{self, Message, News, Outbox};
use super::routes::{self, Reply};
pub use super::world::StepScript;
use super::world::{Builder, SUCCESS, Scheduler, Worker, World};

/// How often time passes in the world.
const PULSE: Duration = Duration::from_millis(50);
/// The largest body that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A builder to set up.
#[derive(Debug, Clone)]
pub struct BuilderOptions {
    /// Its name.
    pub name: String,
    /// Its workers; one name in two builders is one worker.
    pub workers: Vec<String>,
    /// What its runs do.
    pub steps: Vec<StepScript>,
}

/// A try of a run, as it truly went.
#[derive(Debug, Clone)]
pub struct RunSeen {
    /// The builder.
    pub builder: String,
    /// The build's number.
    pub number: u64,
    /// The build request; a try that follows another has the same.
    pub request: u64,
    /// The commit.
    pub revision: String,
    /// The worker.
    pub worker: String,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Option<Instant>,
    /// How it ended.
    pub results: Option<u8>,
    /// When its worker was frozen.
    pub frozen: Vec<(Instant, Option<Instant>)>,
}

impl RunSeen {
    /// Whether somebody was at work on it at that time.
    pub fn is_alive_at(&self, at: Instant) -> bool {
        let within = |from: Instant, to: Option<Instant>| from <= at && to.is_none_or(|to| at < to);
        within(self.began, self.ended) && !self.frozen.iter().any(|(from, to)| within(*from, *to))
    }
}

/// A running fake Buildbot. It stops when the last clone of this handle is dropped.
#[derive(Clone)]
pub struct FakeBuildbot {
    shared: Arc<Mutex<Shared>>,
    server: Arc<Server>,
    url: String,
    stop: CancellationToken,
    _guard: Arc<DropGuard>,
}

/// What the server, the pulse, the reporter and the handle share.
#[derive(Default)]
pub struct Shared {
    world: World,
    pub(super) outbox: Outbox,
    log: RequestLog,
}

impl FakeBuildbot {
    /// Starts with these builders, on a port of loopback that the system chooses.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn start(builders: &[BuilderOptions]) -> io::Result<Self> {
        Self::serve(Server::bind()?, builders)
    }

    /// The same on a socket that the caller bound.
    ///
    /// # Errors
    ///
    /// When the socket has no address.
    pub fn serve(listener: TcpListener, builders: &[BuilderOptions]) -> io::Result<Self> {
        let url = format!("http://{}", listener.local_addr()?);
        let mut shared = Shared::default();
        for options in builders {
            shared.world.add_builder(options);
        }
        let shared = Arc::new(Mutex::new(shared));
        let router = Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&shared));
        let server = Arc::new(Server::start(listener, router)?);
        let stop = CancellationToken::new();
        let beating = (Arc::downgrade(&shared), stop.clone());
        tokio::spawn(async move {
            let (shared, stop) = beating;
            let mut pulse = tokio::time::interval(PULSE);
            while stop.run_until_cancelled(pulse.tick()).await.is_some() {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                lock(&shared).advance();
            }
        });
        let guard = Arc::new(stop.clone().drop_guard());
        Ok(Self {
            shared,
            server,
            url,
            stop,
            _guard: guard,
        })
    }

    /// Tells homu, at this address for packets, of starts and ends.
    ///
    /// # Errors
    ///
    /// When no client can be made.
    pub fn report_to(&self, packets_url: &str, secret: &str) -> io::Result<()> {
        let parcels = self.lock().outbox.open();
        let carry = reporter::carry(
            parcels,
            Client::new("homu-reporter/1")?,
            packets_url.to_owned(),
            secret.to_owned(),
            Arc::downgrade(&self.shared),
        );
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(carry).await });
        Ok(())
    }

    /// Its address, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it hears of pushes.
    pub fn hook_url(&self) -> String {
        format!("{}/change_hook/base", self.url)
    }

    /// Starts `builders` when `branch` of the repository with this clone address moves.
    pub fn schedule(&self, repository: &str, branch: &str, builders: &[&str]) {
        let mut shared = self.lock();
        let builders = builders
            .iter()
            .filter_map(|name| shared.world.builder(name))
            .collect();
        let (repository, branch) = (repository.to_owned(), branch.to_owned());
        shared.world.schedulers.push(Scheduler {
            repository,
            branch,
            builders,
        });
    }

    /// Sets what a builder's next runs do.
    pub fn set_steps(&self, builder: &str, steps: &[StepScript]) {
        self.with_builder(builder, |builder| steps.clone_into(&mut builder.steps));
    }

    /// Sets how a builder's next runs end: one of the codes of this module.
    pub fn set_results(&self, builder: &str, results: u8) {
        self.with_builder(builder, |builder| builder.results = results);
    }

    /// Freezes a worker: it looks connected, and nothing of it moves on.
    pub fn freeze(&self, worker: &str) {
        self.with_worker(worker, |world, worker| world.freeze(worker, Instant::now()));
    }

    /// Lets a frozen worker go on; what its job did meanwhile shows at once.
    pub fn thaw(&self, worker: &str) {
        self.with_worker(worker, |world, worker| world.thaw(worker, Instant::now()));
    }

    /// Cuts off a worker: its builds end as RETRY, and their requests wait for another.
    pub fn disconnect(&self, worker: &str) {
        self.with_worker(worker, |world, worker| {
            world.disconnect(worker, Instant::now())
        });
    }

    /// Connects a worker again.
    pub fn connect(&self, worker: &str) {
        self.with_worker(worker, |world, worker| {
            world.workers[worker].connected = true
        });
    }

    /// Pauses a worker, or lets it take work again.
    pub fn set_paused(&self, worker: &str, paused: bool) {
        self.with_worker(worker, |world, worker| {
            world.workers[worker].paused = paused
        });
    }

    /// Loses messages to homu, of one builder or of all.
    pub fn lose(&self, news: News, builder: Option<&str>, times: Times) {
        self.lock().outbox.lose(news, builder, times);
    }

    /// Loses no more messages.
    pub fn restore_messages(&self) {
        self.lock().outbox.restore();
    }

    /// Kills the master: its connections are cut, new ones are refused, nothing moves on.
    ///
    /// # Errors
    ///
    /// When its port cannot be kept.
    pub async fn go_down(&self) -> io::Result<()> {
        self.lock().world.crash();
        self.server.go_down().await
    }

    /// Starts the master again: it begins anew what was open.
    ///
    /// # Errors
    ///
    /// When its port cannot be listened on.
    pub fn come_up(&self) -> io::Result<()> {
        self.lock().world.restart(Instant::now());
        self.server.come_up()
    }

    /// Every try of every run, oldest first.
    pub fn runs(&self) -> Vec<RunSeen> {
        let shared = self.lock();
        let world = &shared.world;
        world
            .builds
            .iter()
            .map(|build| RunSeen {
                builder: world.builders[build.builder].name.clone(),
                number: build.number,
                request: build.request as u64 + 1,
                revision: world.revision(build).to_owned(),
                worker: world.workers[build.worker].name.clone(),
                began: build.began,
                ended: build.ended,
                results: build.completed.map(|completed| completed.results),
                frozen: build.frozen.clone(),
            })
            .collect()
    }

    /// The tries of one commit.
    pub fn runs_of(&self, revision: &str) -> Vec<RunSeen> {
        self.runs()
            .into_iter()
            .filter(|run| run.revision == revision)
            .collect()
    }

    /// The messages to homu, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.lock().outbox.messages()
    }

    /// The requests that it received from this number on, oldest first.
    pub fn requests_since(&self, number: u64) -> Vec<Received> {
        self.lock().log.since(number)
    }

    fn with_builder(&self, name: &str, change: impl FnOnce(&mut Builder)) {
        let mut shared = self.lock();
        let found = shared
            .world
            .builders
            .iter_mut()
            .find(|builder| builder.name == name);
        change(found.expect("the caller set up this builder"));
    }

    fn with_worker(&self, name: &str, change: impl FnOnce(&mut World, usize)) {
        let mut shared = self.lock();
        shared.advance();
        let found = shared.world.worker_mut(name).map(|(index, _)| index);
        change(
            &mut shared.world,
            found.expect("the caller set up this worker"),
        );
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Shared {
    fn advance(&mut self) {
        let events = self.world.advance(Instant::now());
        for (build, news) in events {
            self.outbox
                .send(&self.world, &self.world.builds[build], news);
        }
    }
}

impl World {
    fn add_builder(&mut self, options: &BuilderOptions) {
        let BuilderOptions {
            name,
            workers,
            steps,
        } = options;
        self.builders.push(Builder {
            name: name.clone(),
            steps: steps.clone(),
            results: SUCCESS,
        });
        let builder = self.builders.len() - 1;
        for name in workers {
            if let Some((_, worker)) = self.worker_mut(name) {
                worker.builders.push(builder);
                continue;
            }
            self.workers.push(Worker {
                name: name.clone(),
                builders: vec![builder],
                connected: true,
                paused: false,
                frozen: false,
                returns: None,
            });
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn handle(
    State(shared): State<Arc<Mutex<Shared>>>,
    request: axum::extract::Request,
) -> Response<Body> {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return Response::builder()
            .status(413)
            .body(Body::empty())
            .unwrap_or_default();
    };
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let mut shared = lock(&shared);
    shared.advance();
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    let Reply {
        status,
        content_type,
        body: answer,
    } = routes::answer(&mut shared.world, method, path, &query, &body);
    let user_agent = parts
        .headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    shared.log.push(Received {
        number: 0,
        at,
        method: method.to_owned(),
        path: parts.uri.to_string(),
        user_agent: user_agent.unwrap_or_default().to_owned(),
        body: kept(&body),
        status,
    });
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::from(answer))
        .unwrap_or_default()
}
