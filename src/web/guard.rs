//! What every request passes: the count, the bound on its head, the name it asks for, the headers of
//! every answer, and for what changes something the token.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Web;
use crate::metrics::Metrics;

/// The longest body of a request, bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// The longest head of a request, bytes: its first line and its headers.
pub const HEAD_MAX: usize = 64 * 1024;
/// From the end of the headers to the end of the body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The routes that only read.
const READING: [&str; 10] = [
    "/",
    "/style.css",
    "/metrics",
    "/-/healthy",
    "/-/ready",
    "/api/v1/status",
    "/api/v1/builds",
    "/api/v1/builds/{id}",
    "/api/v1/providers",
    "/api/v1/attempts",
];
/// The routes that change something. No other is ever reached by a method that could.
const CHANGING: [&str; 8] = [
    "/-/reload",
    "/api/v1/builds/{id}/retry",
    "/api/v1/builds/{id}/reset",
    "/api/v1/bots/{bot}/release-slot",
    "/api/v1/pause",
    "/api/v1/resume",
    "/api/v1/exclude",
    "/api/v1/include",
];
/// What asks for anything else is counted as.
const OTHER: &str = "other";

const NO_TOKEN: &str = "off: changing something needs a token, and server.token_file names none; \
    make one with (umask 077; head -c 32 /dev/urandom | base64 > ci-watchdog.token), name it in \
    the configuration, and send the watchdog a SIGHUP\n";

/// Starts the counts of usual answers at zero.
pub(super) fn begin(metrics: &Metrics) {
    for handler in READING.into_iter().chain(CHANGING) {
        metrics.handles(handler, StatusCode::OK.as_u16());
    }
    metrics.handles(OTHER, StatusCode::NOT_FOUND.as_u16());
}

/// Guards one request and its answer.
pub(super) async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    let mut known = READING.into_iter().chain(CHANGING);
    let handler = known.find(|name| *name == path).unwrap_or(OTHER);
    let mut response = match admit(&web, handler, request).await {
        Ok(request) => explained(next.run(request).await),
        Err(refused) => refused,
    };
    harden(response.headers_mut());
    web.metrics.answered(handler, response.status().as_u16());
    response
}

/// Lets a request through that only reads, or that may change something and is whole.
async fn admit(web: &Web, handler: &str, request: Request) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    if head(&parts) > HEAD_MAX {
        let text = format!("the head is longer than {HEAD_MAX} bytes\n");
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text).into_response());
    }
    // A web page that made its own name lead to loopback sends that name; it must read nothing.
    if !asks_for_us(&parts.headers) {
        let text = "the Host header does not name loopback: ask http://127.0.0.1:PORT itself; a \
                    proxy in between must send that as Host\n";
        return Err((StatusCode::FORBIDDEN, text).into_response());
    }
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(Request::from_parts(parts, Body::empty()));
    }
    if READING.contains(&handler) {
        let allow = [(header::ALLOW, "GET, HEAD")];
        let text = "this only reads: GET it\n";
        return Err((StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response());
    }
    if !CHANGING.contains(&handler) {
        return Err(super::nothing_here().await);
    }
    if let Some(refused) = refusal(web, &parts.headers) {
        return Err(refused);
    }
    // Read before any handler runs, so that none waits for a slow client.
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => Ok(Request::from_parts(parts, Body::from(body))),
        Ok(Err(_)) => {
            let text = format!("the body is longer than {BODY_MAX} bytes, or ended early\n");
            Err((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
        }
        Err(_) => {
            let text = format!("the body took longer than {} s\n", BODY_TIMEOUT.as_secs());
            Err((StatusCode::REQUEST_TIMEOUT, text).into_response())
        }
    }
}

/// Why a request that would change something is refused, where it is.
fn refusal(web: &Web, headers: &HeaderMap) -> Option<Response> {
    let Some(token) = web.shared.token() else {
        return Some((StatusCode::FORBIDDEN, NO_TOKEN).into_response());
    };
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '));
    let good = presented.is_some_and(|(scheme, presented)| {
        scheme.eq_ignore_ascii_case("Bearer") && token.matches(presented.trim())
    });
    if good {
        return None;
    }
    Some(
        (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "a changing request needs: Authorization: Bearer TOKEN\n",
        )
            .into_response(),
    )
}

/// The length of a request's head as HTTP/1.1 writes it, without what separates its parts.
fn head(parts: &Parts) -> usize {
    let headers = parts.headers.iter();
    let target = parts.uri.path_and_query().map_or(0, |it| it.as_str().len());
    headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .fold(parts.method.as_str().len() + target, usize::saturating_add)
}

/// Whether a request names this host, once: the server listens on loopback only.
fn asks_for_us(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    host.is_some_and(is_loopback) && hosts.next().is_none()
}

/// The router's own refusals are empty; they get a sentence.
fn explained(response: Response) -> Response {
    let text = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => "this only changes something: POST it\n",
        StatusCode::BAD_REQUEST => "the path holds bytes that are no UTF-8\n",
        _ => return response,
    };
    let mut explained = (response.status(), text).into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        explained.headers_mut().insert(header::ALLOW, allow.clone());
    }
    explained
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_taken_for_this_host() {
        for host in [
            "127.0.0.1:9923",
            "localhost",
            "localhost:1",
            "[::1]:9923",
            "127.0.0.2",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9923",
            "10.0.0.1",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
