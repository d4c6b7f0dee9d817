//! What every request passes: the count, the headers of every answer, and for what changes
//! something the token.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Web;

/// The routes by which requests are counted; everything else is `other`.
const HANDLERS: [&str; 11] = [
    "/",
    "/style.css",
    "/metrics",
    "/-/healthy",
    "/-/ready",
    "/-/reload",
    "/api/v1/status",
    "/api/v1/builds",
    "/api/v1/builds/{id}",
    "/api/v1/providers",
    "/api/v1/attempts",
];

const NO_TOKEN: &str = "off: changing something needs a token, and server.token_file names none; \
    make one with (umask 077; head -c 32 /dev/urandom | base64 > ci-watchdog.token), name it in \
    the configuration, and restart\n";

/// Guards one request and its answer.
pub(super) async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let handler = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| HANDLERS.into_iter().find(|name| *name == path.as_str()))
        .unwrap_or("other");
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let refused = if reads {
        None
    } else {
        refusal(&web, request.headers())
    };
    let mut response = match refused {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    harden(response.headers_mut());
    web.metrics.answered(handler, response.status().as_u16());
    response
}

/// Why a request that would change something is refused, where it is.
fn refusal(web: &Web, headers: &HeaderMap) -> Option<Response> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // A page that made its own name lead to loopback sends that name.
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        return Some((StatusCode::FORBIDDEN, "the Host header names another host\n").into_response());
    }
    let Some(token) = &web.token else {
        return Some((StatusCode::FORBIDDEN, NO_TOKEN).into_response());
    };
    let presented = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    if presented.is_some_and(|presented| token.matches(presented.trim())) {
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

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
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
        for host in ["127.0.0.1:9923", "localhost", "localhost:1", "[::1]:9923", "127.0.0.2"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9923", "10.0.0.1", "127.0.0.1.evil.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
