//! The handle on the fake homu: it looks at its memory, and counts what it was asked.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, header};
use tokio::net::TcpListener;

use super::super::requests::{Received, RequestLog, kept};
use super::super::server::Server;
use super::config::HomuOptions;
use super::page;
use super::pull::PullState;
use super::queue::{Failure, Homu};

/// The largest body that is read; homu's own limit is ten times this.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A `retry` that homu obeyed.
#[derive(Debug, Clone)]
pub struct Retried {
    /// When.
    pub at: Instant,
    /// The repository's label.
    pub label: String,
    /// The pull request.
    pub pull: u64,
    /// The commit that was under test; empty: none.
    pub merge_sha: String,
}

/// A running fake homu. It stops when the last clone of this handle is dropped.
#[derive(Clone)]
pub struct FakeHomu {
    shared: Arc<Shared>,
    url: String,
    options: HomuOptions,
    _server: Arc<Server>,
}

struct Shared {
    // Held over the calls to GitHub, so that one request is done with before the next begins.
    homu: tokio::sync::Mutex<Homu>,
    log: Mutex<RequestLog>,
}

impl FakeHomu {
    /// Starts on a port of loopback that the system chooses, and writes `cfg.toml`.
    ///
    /// # Errors
    ///
    /// When no port can be had, the folder cannot be written, or GitHub does not know the token.
    pub async fn start(options: HomuOptions) -> io::Result<Self> {
        Self::serve(Server::bind()?, options).await
    }

    /// The same on a socket that the caller bound.
    ///
    /// # Errors
    ///
    /// As [`FakeHomu::start`].
    pub async fn serve(listener: TcpListener, options: HomuOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        options.write(address.port())?;
        let homu = tokio::sync::Mutex::new(Homu::start(options.clone()).await?);
        let shared = Arc::new(Shared {
            homu,
            log: Mutex::default(),
        });
        let router = Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&shared));
        let server = Arc::new(Server::start(listener, router)?);
        Ok(Self {
            shared,
            url: format!("http://{address}"),
            options,
            _server: server,
        })
    }

    /// Its address, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where GitHub sends its webhooks.
    pub fn webhook_url(&self) -> String {
        format!("{}/github", self.url)
    }

    /// Where Buildbot sends its packets.
    pub fn packets_url(&self) -> String {
        format!("{}/buildbot", self.url)
    }

    /// Its `cfg.toml`.
    pub fn config_path(&self) -> PathBuf {
        self.options.path()
    }

    /// The merge SHA whose start it waits for, while it starts nothing else.
    pub async fn slot(&self) -> Option<String> {
        let slot = self.shared.homu.lock().await.slot.clone();
        (!slot.is_empty()).then_some(slot)
    }

    /// A pull request as it holds it.
    pub async fn pull(&self, label: &str, number: u64) -> Option<PullState> {
        self.shared
            .homu
            .lock()
            .await
            .pulls
            .get(label)?
            .get(&number)
            .cloned()
    }

    /// The retries that it obeyed, oldest first.
    pub async fn retried(&self) -> Vec<Retried> {
        self.shared
            .homu
            .lock()
            .await
            .retried
            .iter()
            .cloned()
            .collect()
    }

    /// The requests that it received from this number on, oldest first.
    pub fn requests_since(&self, number: u64) -> Vec<Received> {
        self.shared
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .since(number)
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    request: axum::extract::Request,
) -> Response<Body> {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return reply(413, "text/plain", "Too large".to_owned());
    };
    let path = parts.uri.path();
    let mut homu = shared.homu.lock().await;
    let answer = answer(&mut homu, &parts.method, path, &parts.headers, &body).await;
    drop(homu);
    let answer = answer.unwrap_or_else(|failure| match failure {
        Failure::Exception(why) => {
            tracing::debug!(path, why, "the fake homu fails");
            reply(
                500,
                "text/html",
                "Error: 500 Internal Server Error".to_owned(),
            )
        }
        Failure::Refused(why) => reply(400, "text/html", why.to_owned()),
    });
    let user_agent = parts
        .headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let received = Received {
        number: 0,
        at,
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        user_agent: user_agent.unwrap_or_default().to_owned(),
        body: kept(&body),
        status: answer.status().as_u16(),
    };
    shared
        .log
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(received);
    answer
}

async fn answer(
    homu: &mut Homu,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response<Body>, Failure> {
    match (method.as_str(), path) {
        ("GET", "/") => Ok(html(page::index(homu))),
        ("GET", path) if path.starts_with("/queue/") => {
            let labels = path.trim_start_matches("/queue/");
            page::queue(homu, labels)
                .map(html)
                .ok_or_else(|| Failure::Exception(format!("KeyError: {labels}")))
        }
        ("POST", "/github") => {
            homu.hear_webhook(headers, body).await?;
            Ok(ok())
        }
        ("POST", "/buildbot") => {
            homu.hear_packets(body).await?;
            Ok(ok())
        }
        _ => Ok(reply(404, "text/html", "Error: 404 Not Found".to_owned())),
    }
}

fn ok() -> Response<Body> {
    reply(200, "text/plain", "OK".to_owned())
}

fn html(page: String) -> Response<Body> {
    reply(200, "text/html; charset=UTF-8", page)
}

fn reply(status: u16, content_type: &str, body: String) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::from(body))
        .unwrap_or_default()
}
