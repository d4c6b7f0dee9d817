//! How requests come in: tokens, limits, ETags, pages, and the log of it all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header, request};
use jiff::{SignedDuration, Timestamp};
use ring::digest;
use serde_json::{Value, json};

use super::answers::Answers;
use super::outbox::{Outbox, PushNews};
use super::routes::{self, Answer, Call, Content};
use super::webhooks;
use super::world::{Event, Refusal, World};

/// The largest request body read. GitHub's own limits are higher, but nothing
/// that a merge bot sends comes near this.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Requests remembered, and the bytes kept of each body; the oldest go first.
const REQUESTS_MAX: usize = 10_000;
const BODY_BYTES_KEPT: usize = 4_096;

/// Requests per hour with a token and without
/// ("Rate limits for the REST API": 5000 for a user, 60 unauthenticated).
const HOURLY_WITH_TOKEN: u32 = 5_000;
const HOURLY_WITHOUT_TOKEN: u32 = 60;

/// Entries per page where the client does not say, and at most
/// ("Using pagination in the REST API").
const PER_PAGE: usize = 30;
const PER_PAGE_MAX: usize = 100;

/// One request that came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it came.
    pub at: Timestamp,
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Whose token it carried.
    pub login: Option<String>,
    /// What the client calls itself.
    pub user_agent: String,
    /// The first 4096 bytes.
    pub body: String,
    /// The status that it was answered with.
    pub status: u16,
}

/// What the server, the outbox and the handle share.
pub struct Shared {
    url: String,
    /// Links start with it, also where requests come through a proxy.
    state: Mutex<Everything>,
}

/// All state of the fake, behind one lock, so that events leave in the order in
/// which things happened.
pub struct Everything {
    pub world: World,
    pub outbox: Outbox,
    pub requests: VecDeque<Request>,
    /// When set, every request is answered with this status and nothing is done.
    pub outage: Option<u16>,
    quotas: BTreeMap<Option<String>, Quota>,
}

struct Quota {
    limit: u32,
    used: u32,
    reset: Timestamp,
}

impl Shared {
    /// An empty GitHub reachable under `url`.
    pub fn new(url: String) -> Self {
        let state = Mutex::new(Everything {
            world: World::default(),
            outbox: Outbox::default(),
            requests: VecDeque::new(),
            outage: None,
            quotas: BTreeMap::new(),
        });
        Self { url, state }
    }

    /// The address of this GitHub, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes the one lock. A panic while it was held, which only a bug in the
    /// fake can cause, must not hide the first failure behind a second.
    pub fn lock(&self) -> MutexGuard<'_, Everything> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what happened to the webhooks and listeners of a repository.
    pub fn announce(&self, state: &mut Everything, full_name: &str, events: &[Event]) {
        let Everything { world, outbox, .. } = state;
        let answers = Answers {
            world,
            url: &self.url,
        };
        let Ok(repository) = world.repository(full_name) else {
            return;
        };
        for event in events {
            let Ok(payload) = webhooks::payload(&answers, repository, event) else {
                continue;
            };
            outbox.send_webhook(full_name, &payload);
            if let Event::Push {
                reference,
                after,
                sender,
                ..
            } = event
                && let Some(branch) = reference.strip_prefix("refs/heads/")
                && let Some(commit) = repository.commits.get(after)
            {
                outbox.send_push(
                    full_name,
                    &PushNews {
                        branch,
                        sha: after,
                        clone_url: &format!("{}/{full_name}.git", self.url),
                        author: sender,
                        message: &commit.message,
                    },
                );
            }
        }
    }
}

impl Everything {
    /// Sets how many requests a login (or nobody) has left in this hour.
    pub fn set_remaining(&mut self, login: Option<&str>, remaining: u32) {
        let quota = self.quota(login);
        quota.used = quota.limit.saturating_sub(remaining);
    }

    fn quota(&mut self, login: Option<&str>) -> &mut Quota {
        let limit = if login.is_some() {
            HOURLY_WITH_TOKEN
        } else {
            HOURLY_WITHOUT_TOKEN
        };
        let now = Timestamp::now();
        let fresh = || Quota {
            limit,
            used: 0,
            reset: now + SignedDuration::from_hours(1),
        };
        let quota = self
            .quotas
            .entry(login.map(str::to_owned))
            .or_insert_with(fresh);
        if quota.reset <= now {
            *quota = fresh();
        }
        quota
    }
}

/// Answers every request to the fake.
pub async fn handle(
    State(shared): State<Arc<Shared>>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return Reply::message(413, "Payload too large").into_response();
    };
    let mut state = shared.lock();
    let login = token(&parts.headers).map(|token| state.world.login_of(token).map(str::to_owned));
    let mut reply = reply(&shared, &mut state, &parts, &body, login.as_ref());
    let login = login.flatten();
    if parts.method == "GET" && reply.status == 200 {
        reply.apply_etag(&parts.headers);
    }
    // Asking for the limit, and being told that nothing has changed, are free.
    let free = parts.uri.path() == "/rate_limit" || reply.status == 304;
    let quota = state.quota(login.as_deref());
    if !free {
        quota.used = quota.limit.min(quota.used + 1);
    }
    reply.set("x-ratelimit-limit", quota.limit.to_string());
    reply.set(
        "x-ratelimit-remaining",
        (quota.limit - quota.used).to_string(),
    );
    reply.set("x-ratelimit-used", quota.used.to_string());
    reply.set("x-ratelimit-reset", quota.reset.as_second().to_string());
    reply.set("x-ratelimit-resource", "core".to_owned());

    if state.requests.len() == REQUESTS_MAX {
        state.requests.pop_front();
    }
    let kept = body.get(..BODY_BYTES_KEPT).unwrap_or(&body);
    state.requests.push_back(Request {
        at: Timestamp::now(),
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        login,
        user_agent: text(&parts.headers, header::USER_AGENT)
            .unwrap_or_default()
            .to_owned(),
        body: String::from_utf8_lossy(kept).into_owned(),
        status: reply.status,
    });
    drop(state);
    reply.into_response()
}

fn reply(
    shared: &Shared,
    state: &mut Everything,
    parts: &request::Parts,
    body: &Bytes,
    login: Option<&Option<String>>,
) -> Reply {
    if let Some(status) = state.outage {
        return Reply::message(status, "The fake GitHub was told to be out of order");
    }
    let login = match login {
        Some(Some(login)) => Some(login.as_str()),
        Some(None) => return Reply::message(401, "Bad credentials"),
        None => None,
    };
    let path = parts.uri.path();
    if path == "/rate_limit" {
        return Reply::json(200, &limits(state.quota(login)));
    }
    let quota = state.quota(login);
    if quota.used >= quota.limit {
        return Reply::message(403, "API rate limit exceeded");
    }
    if login.is_none() && (parts.method != "GET" || path == "/user") {
        return Reply::message(401, "Requires authentication");
    }

    let segments: Vec<String> = path.split('/').skip(1).map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let call = Call {
        method: parts.method.as_str(),
        segments: &segments,
        query: &query,
        body,
        login,
        url: shared.url(),
    };
    match routes::answer(&mut state.world, &call) {
        Ok(Answer {
            status,
            content,
            events,
        }) => {
            if let Some((full_name, events)) = events {
                shared.announce(state, &full_name, &events);
            }
            match content {
                Content::Nothing => Reply::empty(status),
                Content::One(value) => Reply::json(status, &value),
                Content::List(values) => page(&values, &call, shared.url(), path),
            }
        }
        Err(Refusal::NotThere(_)) => Reply::message(404, "Not Found"),
        Err(Refusal::Invalid(why)) => Reply::message(422, &why),
        Err(Refusal::Conflict) => Reply::message(409, "Merge conflict"),
    }
}

/// One page of a list, with links to its neighbours.
fn page(values: &[Value], call: &Call<'_>, url: &str, path: &str) -> Reply {
    let number = |key: &str| {
        call.query_value(key)
            .and_then(|value| value.parse::<usize>().ok())
    };
    let per_page = number("per_page")
        .unwrap_or(PER_PAGE)
        .clamp(1, PER_PAGE_MAX);
    let last = values.len().div_ceil(per_page).max(1);
    let current = number("page").unwrap_or(1).max(1);
    let chunk = values.chunks(per_page).nth(current - 1).unwrap_or_default();
    let mut reply = Reply::json(200, &Value::Array(chunk.to_vec()));

    let link = |page: usize, name: &str| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in call.query.iter().filter(|(key, _)| key != "page") {
            query.append_pair(key, value);
        }
        let query = query.append_pair("page", &page.to_string()).finish();
        format!("<{url}{path}?{query}>; rel=\"{name}\"")
    };
    let mut links = vec![];
    if current > 1 {
        links.push(link(current.min(last + 1) - 1, "prev"));
        links.push(link(1, "first"));
    }
    if current < last {
        links.push(link(current + 1, "next"));
        links.push(link(last, "last"));
    }
    if !links.is_empty() {
        reply.set("link", links.join(", "));
    }
    reply
}

fn limits(quota: &Quota) -> Value {
    let core = json!({
        "limit": quota.limit,
        "used": quota.used,
        "remaining": quota.limit - quota.used,
        "reset": quota.reset.as_second(),
        "resource": "core",
    });
    json!({"resources": {"core": core}, "rate": core})
}

/// An answer on its way out.
struct Reply {
    status: u16,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

impl Reply {
    fn empty(status: u16) -> Self {
        Self {
            status,
            body: vec![],
            headers: vec![("x-github-media-type", "github.v3".to_owned())],
        }
    }

    fn json(status: u16, value: &Value) -> Self {
        let mut reply = Self::empty(status);
        reply.set("content-type", "application/json; charset=utf-8".to_owned());
        reply.body = value.to_string().into_bytes();
        reply
    }

    fn message(status: u16, message: &str) -> Self {
        let documentation = "https://docs.github.com/rest";
        Self::json(
            status,
            &json!({
                "message": message,
                "documentation_url": documentation,
                "status": status.to_string(),
            }),
        )
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.headers.push((name, value));
    }

    /// Names the content, and answers 304 to a client that has it already.
    fn apply_etag(&mut self, asked: &HeaderMap) {
        let digest = digest::digest(&digest::SHA256, &self.body);
        let hex: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let etag = format!("W/\"{hex}\"");
        if text(asked, header::IF_NONE_MATCH).is_some_and(|known| known.contains(&hex)) {
            self.status = 304;
            self.body.clear();
        }
        self.set("etag", etag);
        self.set(
            "cache-control",
            "private, max-age=60, s-maxage=60".to_owned(),
        );
    }

    fn into_response(self) -> Response<Body> {
        let mut builder = Response::builder()
            .status(StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY));
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Body::from(self.body)).unwrap_or_default()
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let value = text(headers, header::AUTHORIZATION)?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer"))
        .then_some(token.trim())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Decodes the escapes of one path segment.
fn decode(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let escaped = (byte == b'%')
            .then(|| segment.get(index + 1..index + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(escaped) => {
                decoded.push(escaped);
                index += 3;
            }
            None => {
                decoded.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_loses_its_escapes_and_nothing_else() {
        assert_eq!(decode("heads%2Fauto"), "heads/auto");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz"), "%zz");
    }

    #[test]
    fn a_list_names_its_neighbouring_pages() {
        let values: Vec<Value> = (0..5).map(|number| json!(number)).collect();
        let query = vec![
            ("per_page".to_owned(), "2".to_owned()),
            ("page".to_owned(), "2".to_owned()),
        ];
        let call = Call {
            method: "GET",
            segments: &[],
            query: &query,
            body: &[],
            login: None,
            url: "http://fake",
        };
        let reply = page(&values, &call, "http://fake", "/things");
        assert_eq!(reply.body, b"[2,3]");
        let links = reply
            .headers
            .iter()
            .find(|(name, _)| *name == "link")
            .unwrap();
        assert!(
            links
                .1
                .contains("<http://fake/things?per_page=2&page=3>; rel=\"next\"")
        );
        assert!(
            links
                .1
                .contains("<http://fake/things?per_page=2&page=1>; rel=\"prev\"")
        );
    }
}
