//! The client that the fakes use among themselves: a deadline and a byte cap on every call.

use std::io;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// From a request's first byte to the answer's last. The other side is on loopback.
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest answer that is read, bytes.
const BODY_MAX: usize = 1 << 20;

/// A client that calls itself by one name.
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
}

/// A complete answer.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client with this `User-Agent`.
    ///
    /// # Errors
    ///
    /// When no TLS set-up can be made.
    pub fn new(user_agent: &str) -> io::Result<Self> {
        // The client asks for a TLS provider even where it only speaks plain HTTP. A second call
        // finds the first one's provider, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = reqwest::Client::builder()
            .user_agent(user_agent)
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { inner })
    }

    /// Sends JSON, or nothing, with `headers`.
    ///
    /// # Errors
    ///
    /// No connection, no complete answer in time, or one that is too long.
    pub async fn json(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, url, "application/json", headers, body.into_bytes())
            .await
    }

    /// Posts a form.
    ///
    /// # Errors
    ///
    /// As [`Client::json`].
    pub async fn form(&self, url: &str, fields: &[(&str, &str)]) -> io::Result<Answer> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let kind = "application/x-www-form-urlencoded";
        self.send(Method::POST, url, kind, &[], body.into_bytes())
            .await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: &'static str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> io::Result<Answer> {
        let mut all = HeaderMap::new();
        if !body.is_empty() {
            all.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
            all.insert(HeaderName::from_static(name), value);
        }
        let request = self.inner.request(method, url).headers(all).body(body);
        let mut answer = request.send().await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let mut body = vec![];
        while let Some(chunk) = answer.chunk().await.map_err(io::Error::other)? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(io::Error::other(format!(
                    "{url}: more than {BODY_MAX} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// The body as JSON; `Null` where it is none.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
