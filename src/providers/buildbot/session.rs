//! Asking one Buildbot master over HTTP, and logging in where it asks for that.

use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::StatusCode;
use reqwest::header::SET_COOKIE;
use serde::de::DeserializeOwned;
use url::Url;

use crate::http::{Answer, Client, Request};
use crate::model::{ProbeError, ProbeFailure};
use crate::secret::Secret;

/// The name of the cookie that holds a login (`buildbot/www/auth.py`, `buildbot/www/service.py`).
const COOKIE: &str = "TWISTED_SESSION";

/// A user of the master and their password.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret,
}

/// A master, and the login that it last gave us.
pub(super) struct Session {
    client: Client,
    /// Ends in a slash.
    base: Url,
    login: Option<Login>,
    cookie: Mutex<Option<Secret>>,
}

impl Session {
    /// A session with the master at `base`; a path that does not end in a slash gets one.
    pub(super) fn new(client: Client, mut base: Url, login: Option<Login>) -> Self {
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Self {
            client,
            base,
            login,
            cookie: Mutex::default(),
        }
    }

    /// Asks for `path` below `api/v2/`, and reads the answer, of at most `body_max` bytes.
    ///
    /// # Errors
    ///
    /// Every answer but a whole one of the expected shape.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body_max: usize,
    ) -> Result<T, ProbeError> {
        let mut url = self.place(&format!("api/v2/{path}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let answer = self.get(&url, body_max).await?;
        if !refused(&answer) {
            return answer.success()?.json();
        }
        let Some(login) = &self.login else {
            let mut error = as_error(answer);
            error.detail.push_str(
                "; this master shows nothing without a login: give `username` and `password`",
            );
            return Err(error);
        };
        // One login for one refusal: a master that refuses its own login must not be asked in a loop.
        let cookie = self.log_in(login).await?;
        *self.cookie() = Some(cookie);
        let answer = self.get(&url, body_max).await?;
        if !refused(&answer) {
            return answer.success()?.json();
        }
        let mut error = as_error(answer);
        error.detail.push_str(&format!(
            "; it took the password of {:?}, but does not let them read this",
            login.username
        ));
        Err(error)
    }

    /// Asks for what every master serves without a login, outside of its API.
    ///
    /// # Errors
    ///
    /// As [`Session::ask`].
    pub(super) async fn ask_plain<T: DeserializeOwned>(
        &self,
        path: &str,
        body_max: usize,
    ) -> Result<T, ProbeError> {
        let url = self.place(path)?;
        self.get(&url, body_max).await?.success()?.json()
    }

    async fn get(&self, url: &Url, body_max: usize) -> Result<Answer, ProbeError> {
        // With this the master leaves out the line breaks and indents of its JSON.
        let mut request = Request::get(url.clone())
            .header("accept", "application/json")
            .body_max(body_max);
        if let Some(cookie) = self.cookie().clone() {
            request = request.cookie(cookie.expose());
        }
        self.client.send(request).await
    }

    /// `GET auth/login` with the password answers 302 and two cookies: the first of an anonymous
    /// session, the last of ours.
    async fn log_in(&self, login: &Login) -> Result<Secret, ProbeError> {
        let credential =
            base64(format!("{}:{}", login.username, login.password.expose()).as_bytes());
        let request =
            Request::get(self.place("auth/login")?).authorization(&format!("Basic {credential}"));
        let answer = self.client.send(request).await?;
        if refused(&answer) {
            return Err(ProbeError::new(
                ProbeFailure::Auth,
                format!(
                    "{} answered {}: the master does not know the user {:?} with this password",
                    answer.shown_url, answer.status, login.username
                ),
            ));
        }
        if !answer.status.is_redirection() && !answer.status.is_success() {
            return Err(as_error(answer));
        }
        let cookie = answer
            .headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(|value| value.split(';').next())
            .rfind(|pair| pair.starts_with(COOKIE))
            .map(|pair| Secret::new(pair.trim()));
        cookie.ok_or_else(|| {
            ProbeError::new(
                ProbeFailure::Auth,
                format!("{} answered without a {COOKIE} cookie", answer.shown_url),
            )
        })
    }

    fn place(&self, path: &str) -> Result<Url, ProbeError> {
        self.base.join(path).map_err(|error| {
            ProbeError::new(
                ProbeFailure::Io,
                format!(
                    "{} and {path:?} make no URL: {error}",
                    crate::http::shown(&self.base)
                ),
            )
        })
    }

    fn cookie(&self) -> MutexGuard<'_, Option<Secret>> {
        self.cookie.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a login could help; a rate limit that speaks by 403 is none.
fn refused(answer: &Answer) -> bool {
    match answer.status {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => !answer.headers.contains_key(reqwest::header::RETRY_AFTER),
        _ => false,
    }
}

fn as_error(answer: Answer) -> ProbeError {
    let (status, shown_url) = (answer.status, answer.shown_url.clone());
    match answer.success() {
        Err(error) => error,
        Ok(_) => ProbeError::new(
            ProbeFailure::HttpStatus,
            format!("{shown_url} answered {status}"),
        ),
    }
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .chain(std::iter::repeat(&0))
            .take(3)
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text, "{bytes:?}");
        }
    }
}
