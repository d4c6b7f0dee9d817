//! A bridge before a server: it records every request, and loses some on command.
//!
//! Buildbot's reporter, GitHub's webhooks, the watchdog and the test itself all
//! reach homu through one, so that a test can say what homu was told, and by
//! whom. The watchdog and homu reach Buildbot through another one. Answers pass
//! whole, so a stream of events that never ends does not pass.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::http_client;
use super::message::{Message, Pattern, Sender, messages, sender};
use super::rebuild;

/// The largest request or answer passed on.
const BODY_BYTES_MAX: usize = 10 << 20;

/// Requests remembered; the oldest go first. A watchdog that looks ten times a
/// second for a minute makes some thousand.
const EXCHANGES_MAX: usize = 50_000;

/// How long the server may take: homu calls GitHub before it answers.
const SERVER_DEADLINE: Duration = Duration::from_secs(60);

/// After this a read is sent once more. A read of Buildbot was once seen to hang for ten seconds,
/// with nothing in the master's log; the watchdog rightly held then, which is not what the case was
/// about. A server that is down or frozen does not answer the second one either.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// Headers that belong to one connection and are not passed on.
const OF_THE_CONNECTION: [header::HeaderName; 4] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

/// What the bridge did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The server answered with this status, and the sender got the answer.
    Answered(u16),
    /// The server answered with this status, and the sender got no answer.
    AnswerLost(u16),
    /// The server never saw it; the sender was told `200 OK`, or nothing where it was cut.
    Dropped,
    /// The server never saw it; the sender got the test's own answer.
    Replaced(u16),
    /// The server did not answer.
    Unreachable,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Counted from 0, in the order in which they were decided.
    pub number: u64,
    /// When it came, since the bridge was made.
    pub at: Duration,
    pub sender: Sender,
    pub method: String,
    /// Path and query.
    pub path: String,
    pub body: String,
    pub messages: Vec<Message>,
    pub passage: Passage,
}

/// The running bridge. It ends when it is dropped.
pub struct Bridge {
    shared: Arc<Shared>,
    port: u16,
    url: String,
    /// While there is one, connections are accepted.
    door: Mutex<Option<DropGuard>>,
}

struct Shared {
    /// Whether Buildbot 0.8's way to ask for a rebuild is understood.
    old_speech: bool,
    started: Instant,
    client: reqwest::Client,
    state: Mutex<BridgeState>,
}

#[derive(Default)]
struct BridgeState {
    server: String,
    rules: Vec<Rule>,
    exchanges: VecDeque<Exchange>,
    recorded: u64,
}

struct Rule {
    pattern: Pattern,
    effect: Effect,
    once: bool,
}

#[derive(Clone)]
enum Effect {
    Drop,
    Cut,
    Replace(u16, String),
    LoseAnswer,
    HoldRequest(Arc<Gate>),
    HoldAnswer(Arc<Gate>),
}

/// The two ends of a hold: the request says that it is here, the test lets it go.
struct Gate {
    reached: watch::Sender<bool>,
    go: Mutex<Option<oneshot::Receiver<Release>>>,
}

enum Release {
    PassOn,
    Discard,
}

/// A request that the bridge holds, or will hold when it comes.
pub struct Hold {
    reached: watch::Receiver<bool>,
    go: oneshot::Sender<Release>,
}

impl Bridge {
    /// A bridge at this port of loopback. Its door is closed: connections are refused.
    pub fn new(port: u16) -> Self {
        Self::with_speech(port, false)
    }

    /// The same before a Buildbot 4: it also understands how homu asks a
    /// Buildbot 0.8 to rebuild (see [`rebuild`]).
    pub fn with_rebuilds(port: u16) -> Self {
        Self::with_speech(port, true)
    }

    fn with_speech(port: u16, old_speech: bool) -> Self {
        let shared = Arc::new(Shared {
            old_speech,
            started: Instant::now(),
            client: http_client(),
            state: Mutex::default(),
        });
        Self {
            shared,
            port,
            url: format!("http://127.0.0.1:{port}"),
            door: Mutex::new(None),
        }
    }

    /// Where everybody finds the server, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How long this bridge has been there: the clock of [`Exchange::at`].
    pub fn age(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Accepts connections, and leads them to the server at this address.
    pub async fn lead_to(&self, server: &str) {
        self.lock().server = server.to_owned();
        let listener = TcpListener::bind(("127.0.0.1", self.port))
            .await
            .expect("the port is reserved");
        let stop = CancellationToken::new();
        let serving = serve(listener, Arc::clone(&self.shared), stop.clone());
        tokio::spawn(serving);
        *self.door.lock().unwrap() = Some(stop.drop_guard());
    }

    /// Refuses connections, and closes those that are open, as a server
    /// that is down does.
    pub fn close_door(&self) {
        drop(self.door.lock().unwrap().take());
    }

    /// Loses the next request like this before the server sees it. Its sender believes
    /// that it arrived.
    pub fn drop_next(&self, pattern: Pattern) {
        self.add(pattern, Effect::Drop, true);
    }

    /// Closes the connection of the next request like this before the server sees it: its
    /// sender gets no answer.
    pub fn cut_next(&self, pattern: Pattern) {
        self.add(pattern, Effect::Cut, true);
    }

    /// Loses every request like this, until [`Bridge::heal`].
    pub fn drop_every(&self, pattern: Pattern) {
        self.add(pattern, Effect::Drop, false);
    }

    /// Answers every request like this in the server's place, until [`Bridge::heal`].
    pub fn answer_every(&self, pattern: Pattern, status: u16, body: &str) {
        self.add(pattern, Effect::Replace(status, body.to_owned()), false);
    }

    /// Lets the server see the next request like this, and loses its answer: the
    /// sender's connection closes without one.
    pub fn lose_next_answer(&self, pattern: Pattern) {
        self.add(pattern, Effect::LoseAnswer, true);
    }

    /// Holds the next request like this before the server sees it.
    pub fn hold_next(&self, pattern: Pattern) -> Hold {
        let (gate, hold) = gate();
        self.add(pattern, Effect::HoldRequest(gate), true);
        hold
    }

    /// Lets the server see the next request like this, and holds its answer.
    pub fn hold_next_answer(&self, pattern: Pattern) -> Hold {
        let (gate, hold) = gate();
        self.add(pattern, Effect::HoldAnswer(gate), true);
        hold
    }

    /// Loses, refuses and holds nothing more.
    pub fn heal(&self) {
        self.lock().rules.clear();
    }

    /// Every request that came, oldest first. One that is under way is not here yet.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.iter().cloned().collect()
    }

    /// The requests like this, oldest first.
    pub fn matching(&self, pattern: &Pattern) -> Vec<Exchange> {
        let state = self.lock();
        let exchanges = state.exchanges.iter();
        exchanges
            .filter(|it| pattern.matches(it.sender, &it.path, &it.messages))
            .cloned()
            .collect()
    }

    fn add(&self, pattern: Pattern, effect: Effect, once: bool) {
        self.lock().rules.push(Rule {
            pattern,
            effect,
            once,
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BridgeState> {
        self.shared.state.lock().unwrap()
    }
}

impl Hold {
    /// Waits until the request is here.
    pub async fn reached(&mut self) {
        self.reached
            .wait_for(|reached| *reached)
            .await
            .expect("the bridge lives with the test");
    }

    /// Lets it go on.
    pub fn release(self) {
        // Whoever waited may be gone, which is what some tests want.
        let _ = self.go.send(Release::PassOn);
    }

    /// Loses it, as [`Bridge::drop_next`] or [`Bridge::lose_next_answer`] would.
    pub fn discard(self) {
        let _ = self.go.send(Release::Discard);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        // A connection that breaks while it is accepted is its sender's matter.
        let Ok((stream, _)) = accepted else { continue };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // It also ends in an error where an answer was lost on purpose.
            let _ = stop.run_until_cancelled(connection).await;
        });
    }
}

/// Answers one request; an error closes its connection without an answer.
async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    // In a task of its own: a sender that dies while it waits takes nothing back
    // of what the server was told.
    let exchange = tokio::spawn(exchange(shared, request)).await;
    exchange
        .map_err(io::Error::other)?
        .ok_or_else(|| io::Error::other("the answer is lost"))
}

/// Passes a request on as the rules say; None is an answer to lose.
async fn exchange(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let at = shared.started.elapsed();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Some(status(413, "too much for the bridge"));
    };
    let body = body.to_bytes();
    let path = parts.uri.to_string();
    let sender = sender(&parts.headers);
    let messages = messages(parts.method.as_str(), &path, &parts.headers, &body);
    let (server, effect) = {
        let mut state = shared.state.lock().unwrap();
        let index = state
            .rules
            .iter()
            .position(|rule| rule.pattern.matches(sender, &path, &messages));
        let effect = index.map(|index| {
            let effect = state.rules[index].effect.clone();
            if state.rules[index].once {
                state.rules.remove(index);
            }
            effect
        });
        (state.server.clone(), effect)
    };
    let record = |passage: Passage| {
        let mut state = shared.state.lock().unwrap();
        if state.exchanges.len() == EXCHANGES_MAX {
            state.exchanges.pop_front();
        }
        let number = state.recorded;
        state.recorded += 1;
        state.exchanges.push_back(Exchange {
            number,
            at,
            sender,
            method: parts.method.to_string(),
            path: path.clone(),
            body: String::from_utf8_lossy(&body).into_owned(),
            messages: messages.clone(),
            passage,
        });
        number
    };
    match &effect {
        Some(Effect::Drop) => {
            record(Passage::Dropped);
            return Some(status(200, "OK"));
        }
        Some(Effect::Cut) => {
            record(Passage::Dropped);
            return None;
        }
        Some(Effect::Replace(code, body)) => {
            record(Passage::Replaced(*code));
            return Some(status(*code, body));
        }
        Some(Effect::HoldRequest(gate)) => match gate.wait().await {
            Release::PassOn => {}
            Release::Discard => {
                record(Passage::Dropped);
                return Some(status(200, "OK"));
            }
        },
        Some(Effect::LoseAnswer | Effect::HoldAnswer(_)) | None => {}
    }

    let passed_on = match rebuild::order(parts.method.as_str(), &path) {
        Some(order) if shared.old_speech => {
            Answer::here(rebuild::obey(&shared.client, &server, &order).await)
        }
        Some(_) | None => pass_on(&shared.client, &server, &parts, &body).await,
    };
    let answer = match passed_on {
        Ok(answer) => answer,
        Err(error) => {
            record(Passage::Unreachable);
            return Some(status(502, &error.to_string()));
        }
    };
    let code = answer.status.as_u16();
    match effect {
        Some(Effect::LoseAnswer) => {
            record(Passage::AnswerLost(code));
            return None;
        }
        Some(Effect::HoldAnswer(gate)) => {
            // What the server did is done, so it is on record before the answer leaves.
            let number = record(Passage::AnswerLost(code));
            match gate.wait().await {
                Release::PassOn => {}
                Release::Discard => return None,
            }
            let mut state = shared.state.lock().unwrap();
            if let Some(it) = state
                .exchanges
                .iter_mut()
                .rev()
                .find(|it| it.number == number)
            {
                it.passage = Passage::Answered(code);
            }
        }
        Some(Effect::HoldRequest(_) | Effect::Drop | Effect::Cut | Effect::Replace(..)) | None => {
            record(Passage::Answered(code));
        }
    }
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Some(response)
}

/// What the server answered.
struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    body: Bytes,
}

impl Answer {
    /// An answer that the bridge made from what it asked the server.
    fn here(made: reqwest::Result<(u16, String)>) -> reqwest::Result<Self> {
        made.map(|(code, text)| Self {
            status: StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY),
            headers: header::HeaderMap::new(),
            body: Bytes::from(text),
        })
    }
}

async fn pass_on(
    client: &reqwest::Client,
    server: &str,
    parts: &hyper::http::request::Parts,
    body: &Bytes,
) -> reqwest::Result<Answer> {
    if parts.method == hyper::Method::GET {
        match pass_once(client, server, parts, body, READ_AGAIN_AFTER).await {
            Err(error) if error.is_timeout() => {}
            answered => return answered,
        }
    }
    pass_once(client, server, parts, body, SERVER_DEADLINE).await
}

async fn pass_once(
    client: &reqwest::Client,
    server: &str,
    parts: &hyper::http::request::Parts,
    body: &Bytes,
    deadline: Duration,
) -> reqwest::Result<Answer> {
    let mut request = client
        .request(parts.method.clone(), format!("{server}{}", parts.uri))
        .timeout(deadline)
        .body(body.clone());
    for (name, value) in &parts.headers {
        if !OF_THE_CONNECTION.contains(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await?;
    let status = answer.status();
    let mut headers = answer.headers().clone();
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
    Ok(Answer {
        status,
        headers,
        body: answer.bytes().await?,
    })
}

impl Gate {
    async fn wait(&self) -> Release {
        let go = self.go.lock().unwrap().take();
        self.reached.send_replace(true);
        match go {
            // A hold that was dropped holds nothing.
            Some(go) => go.await.unwrap_or(Release::PassOn),
            None => Release::PassOn,
        }
    }
}

fn gate() -> (Arc<Gate>, Hold) {
    let (reached, reached_by) = watch::channel(false);
    let (go, go_by) = oneshot::channel();
    let gate = Gate {
        reached,
        go: Mutex::new(Some(go_by)),
    };
    (
        Arc::new(gate),
        Hold {
            reached: reached_by,
            go,
        },
    )
}

fn status(code: u16, message: &str) -> Response<Full<Bytes>> {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = Response::new(Full::from(message.to_owned()));
    *response.status_mut() = code;
    response
}
