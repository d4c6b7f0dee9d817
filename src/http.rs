//! The one HTTP client: a deadline and a byte cap on every call, conditional GET, `Retry-After`,
//! and errors that hold no secret.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, RETRY_AFTER,
};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::model::{ProbeError, ProbeFailure, Quota};

/// The longest answer that is read unless a caller says otherwise, bytes.
pub const BODY_MAX: usize = 1 << 20;
/// The longest time that a source can ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// How many answers are kept for conditional requests.
const ETAGS_MAX: usize = 512;
/// How much of those answers is kept in all, bytes; a page of GitHub's is some 100 KiB.
const ETAG_BYTES_MAX: usize = 32 << 20;
/// How much of a body is quoted in an error, characters.
const QUOTE_MAX: usize = 120;

/// A client for one source. Clones share its connections and its conditional answers.
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
    timeout: Duration,
    etags: Arc<Mutex<Etags>>,
}

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// From the request's first byte to the answer's last.
    pub timeout: Duration,
    /// A PEM file of certificate authorities to trust beside the system's.
    pub ca_pem: Option<Vec<u8>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            ca_pem: None,
        }
    }
}

/// An answer whose status was read and whose body is complete.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most the request's cap.
    pub body: Vec<u8>,
    /// The URL without credentials and query, for errors.
    pub shown_url: String,
}

/// A request in the making.
pub struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    body_max: usize,
    conditional: bool,
}

impl Client {
    /// Makes a client: rustls with ring, no redirects, no proxy, no cookies, no compression.
    ///
    /// # Errors
    ///
    /// A CA file that holds no certificate.
    pub fn new(options: ClientOptions) -> Result<Self, String> {
        // Fails only where another part of the process installed one first; that one is good too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ci-watchdog/", env!("CARGO_PKG_VERSION")))
            .timeout(options.timeout)
            .connect_timeout(options.timeout.min(Duration::from_secs(5)))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(pem) = &options.ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|error| format!("not a PEM certificate: {error}"))?;
            if certificates.is_empty() {
                return Err("the file holds no PEM certificate".to_owned());
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let inner = builder
            .build()
            .map_err(|error| format!("the TLS set-up failed: {error}"))?;
        Ok(Self {
            inner,
            timeout: options.timeout,
            etags: Arc::default(),
        })
    }

    /// Sends a request and reads its whole answer, whatever its status.
    ///
    /// # Errors
    ///
    /// No connection, no complete answer before the deadline, or more bytes than the cap.
    pub async fn send(&self, request: Request) -> Result<Answer, ProbeError> {
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(ProbeError::new(
                ProbeFailure::Timeout,
                format!(
                    "no answer within {}",
                    humantime::format_duration(self.timeout)
                ),
            )),
        }
    }

    /// Sends a GET and demands success; a 304 is answered from the kept body.
    ///
    /// # Errors
    ///
    /// As [`Client::send`], and every status that is not success.
    pub async fn get(&self, request: Request) -> Result<Answer, ProbeError> {
        self.send(request).await?.success()
    }

    /// As [`Client::get`], and parses the body as JSON.
    ///
    /// # Errors
    ///
    /// As [`Client::get`], and a body that is not the JSON that is expected.
    pub async fn get_json<T: DeserializeOwned>(&self, request: Request) -> Result<T, ProbeError> {
        self.get(request).await?.json()
    }

    async fn exchange(&self, request: Request) -> Result<Answer, ProbeError> {
        let shown_url = shown(&request.url);
        let mut headers = request.headers;
        let key = etag_key(&request.url, &headers);
        let kept = request
            .conditional
            .then(|| self.etags().get(&key))
            .flatten();
        if let Some(kept) = &kept {
            headers.insert(IF_NONE_MATCH, kept.tag.clone());
        }
        let mut outgoing = self
            .inner
            .request(request.method, request.url)
            .headers(headers);
        if let Some(body) = request.body {
            outgoing = outgoing.body(body);
        }
        let mut response = outgoing
            .send()
            .await
            .map_err(|error| failed(&shown_url, &error))?;
        let status = response.status();
        let headers = response.headers().clone();
        if status == StatusCode::NOT_MODIFIED
            && let Some(kept) = kept
        {
            return Ok(Answer {
                status: StatusCode::OK,
                headers,
                body: kept.body.clone(),
                shown_url,
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| failed(&shown_url, &error))?
        {
            if body.len() + chunk.len() > request.body_max {
                return Err(ProbeError::new(
                    ProbeFailure::TooLarge,
                    format!(
                        "{shown_url}: the answer is longer than {} bytes",
                        request.body_max
                    ),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        if request.conditional
            && status == StatusCode::OK
            && let Some(tag) = headers.get(ETAG)
        {
            self.etags().keep(
                key,
                Kept {
                    tag: tag.clone(),
                    body: body.clone(),
                },
            );
        }
        Ok(Answer {
            status,
            headers,
            body,
            shown_url,
        })
    }

    fn etags(&self) -> std::sync::MutexGuard<'_, Etags> {
        self.etags
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Request {
    /// A GET.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// A POST of a form.
    pub fn form(url: Url, fields: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let mut request = Self::new(Method::POST, url);
        request.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        request.body = Some(body.into_bytes());
        request
    }

    /// A POST of these exact bytes as JSON.
    pub fn json(url: Url, body: Vec<u8>) -> Self {
        let mut request = Self::new(Method::POST, url);
        request
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.body = Some(body);
        request
    }

    fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            body_max: BODY_MAX,
            conditional: false,
        }
    }

    /// Adds a header; a value that no header can hold is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// Adds an `Authorization` header that no log shows.
    #[must_use]
    pub fn authorization(self, value: &str) -> Self {
        self.secret(AUTHORIZATION, value)
    }

    /// Adds a `Cookie` header that no log shows.
    #[must_use]
    pub fn cookie(self, value: &str) -> Self {
        self.secret(COOKIE, value)
    }

    /// Names the host in the `Host` header, where it is not the URL's.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(host) {
            self.headers.insert(HOST, value);
        }
        self
    }

    /// Allows an answer of up to so many bytes, instead of [`BODY_MAX`].
    #[must_use]
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes;
        self
    }

    /// Asks only for what changed: sends the kept `ETag`, and answers a 304 from the kept body.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    fn secret(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        self
    }
}

impl Answer {
    /// The answer where its status is a success.
    ///
    /// # Errors
    ///
    /// Every other status, by kind: 401 and 403 are [`ProbeFailure::Auth`], 429 and a 403 that
    /// speaks of a limit are [`ProbeFailure::RateLimited`], the rest [`ProbeFailure::HttpStatus`].
    pub fn success(self) -> Result<Self, ProbeError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let limited = self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status == StatusCode::FORBIDDEN
                && (self.headers.contains_key(RETRY_AFTER)
                    || self.number("x-ratelimit-remaining") == Some(0)));
        let failure = if limited {
            ProbeFailure::RateLimited
        } else {
            match self.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ProbeFailure::Auth,
                _ => ProbeFailure::HttpStatus,
            }
        };
        let mut error = ProbeError::new(
            failure,
            format!(
                "{} answered {}{}",
                self.shown_url,
                self.status,
                self.quote()
            ),
        );
        error.retry_after = self.retry_after();
        Err(error)
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure::Parse`], with the place in the document.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ProbeError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ProbeError::new(
                ProbeFailure::Parse,
                format!(
                    "{}: not the JSON expected: {error}{}",
                    self.shown_url,
                    self.quote()
                ),
            )
        })
    }

    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The API's rate limit, where the headers tell it (GitHub: `x-ratelimit-*`).
    pub fn quota(&self) -> Option<Quota> {
        Some(Quota {
            limit: self.number("x-ratelimit-limit")?,
            remaining: self.number("x-ratelimit-remaining")?,
            reset: self.number("x-ratelimit-reset").unwrap_or(0),
        })
    }

    /// How long the source asks to be left alone: seconds only, capped; a date is read as one minute.
    fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let asked = match value.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => Duration::from_secs(60),
        };
        Some(asked.min(RETRY_AFTER_MAX))
    }

    fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.trim().parse().ok()
    }

    fn quote(&self) -> String {
        let text: String = self
            .text()
            .chars()
            .filter(|c| !c.is_control())
            .take(QUOTE_MAX)
            .collect();
        if text.is_empty() {
            String::new()
        } else {
            format!(": {text:?}")
        }
    }
}

/// Reads a CA file for [`ClientOptions`].
///
/// # Errors
///
/// The file cannot be read.
pub fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[derive(Clone)]
struct Kept {
    tag: HeaderValue,
    body: Vec<u8>,
}

/// Answers kept for conditional requests; the oldest goes first.
#[derive(Default)]
struct Etags {
    kept: BTreeMap<String, Kept>,
    order: VecDeque<String>,
    /// The bodies' length, all together.
    bytes: usize,
}

impl Etags {
    fn get(&self, key: &str) -> Option<Kept> {
        self.kept.get(key).cloned()
    }

    fn keep(&mut self, key: String, kept: Kept) {
        self.bytes += kept.body.len();
        match self.kept.insert(key.clone(), kept) {
            Some(before) => self.bytes -= before.body.len(),
            None => self.order.push_back(key),
        }
        while self.order.len() > ETAGS_MAX || self.bytes > ETAG_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(gone) = self.kept.remove(&oldest) {
                self.bytes -= gone.body.len();
            }
        }
    }
}

/// An `ETag` depends on the credential, so the key does too.
fn etag_key(url: &Url, headers: &HeaderMap) -> String {
    let credential = headers
        .get(AUTHORIZATION)
        .map(|value| ring::digest::digest(&ring::digest::SHA256, value.as_bytes()))
        .map(|digest| {
            digest
                .as_ref()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        })
        .unwrap_or_default();
    format!("{credential} {url}")
}

/// A URL for people: no user, password, query or fragment.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn failed(shown_url: &str, error: &reqwest::Error) -> ProbeError {
    let mut chain = String::new();
    let mut source = std::error::Error::source(error);
    let mut last = String::new();
    while let Some(cause) = source {
        last = cause.to_string();
        chain.push_str(&last);
        chain.push(' ');
        source = cause.source();
    }
    let failure = if error.is_timeout() {
        ProbeFailure::Timeout
    } else if chain.contains("dns error") || chain.contains("failed to lookup") {
        ProbeFailure::Dns
    } else if chain.contains("certificate") || chain.contains("TLS") || chain.contains("tls") {
        ProbeFailure::Tls
    } else if error.is_connect() {
        ProbeFailure::Connect
    } else if error.is_body() || error.is_decode() {
        ProbeFailure::Partial
    } else {
        ProbeFailure::Connect
    };
    let what = if last.is_empty() {
        error.to_string()
    } else {
        last
    };
    ProbeError::new(failure, format!("{shown_url}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize) -> Kept {
        Kept {
            tag: HeaderValue::from_static("\"1\""),
            body: vec![b'x'; bytes],
        }
    }

    #[test]
    fn kept_answers_are_bounded_in_number_and_in_bytes() {
        let mut etags = Etags::default();
        for number in 0..ETAGS_MAX + 10 {
            etags.keep(number.to_string(), kept(1));
        }
        assert_eq!((etags.kept.len(), etags.bytes), (ETAGS_MAX, ETAGS_MAX));
        assert!(etags.get("9").is_none() && etags.get("10").is_some());
        for number in 0..10 {
            etags.keep(format!("large {number}"), kept(ETAG_BYTES_MAX / 8));
        }
        assert!(etags.bytes <= ETAG_BYTES_MAX, "{}", etags.bytes);
        assert_eq!(etags.kept.len(), 8);
        assert_eq!(etags.order.len(), 8);
        assert!(etags.get("large 9").is_some(), "the newest stays");
        etags.keep("large 9".to_owned(), kept(1));
        let sum: usize = etags.kept.values().map(|kept| kept.body.len()).sum();
        assert_eq!(etags.bytes, sum, "an answer that another one replaces");
        etags.keep("too large".to_owned(), kept(ETAG_BYTES_MAX + 1));
        assert_eq!((etags.kept.len(), etags.bytes), (0, 0));
    }
}
