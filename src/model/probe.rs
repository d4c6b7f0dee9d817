//! Why a look at a source failed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kinds of failed probe; the same value is the log field, the metric label and the cell on
/// the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeFailure {
    /// The host name did not resolve.
    Dns,
    /// No connection: refused, reset, unreachable.
    Connect,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// No complete answer before the probe's deadline.
    Timeout,
    /// An HTTP status that is neither success nor named below.
    HttpStatus,
    /// 401 or 403 without a rate limit: the credential is missing, wrong, or lacks a scope.
    Auth,
    /// 429, or GitHub's 403 with a rate limit.
    RateLimited,
    /// The answer is not what the source's version is known to send.
    Parse,
    /// The answer is longer than its byte cap.
    TooLarge,
    /// The answer is complete in form but known to lack a part.
    Partial,
    /// A local file or database could not be read.
    Io,
}

impl ProbeFailure {
    /// Every kind, in the order of declaration; metrics start each at zero.
    pub const ALL: [Self; 11] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::HttpStatus,
        Self::Auth,
        Self::RateLimited,
        Self::Parse,
        Self::TooLarge,
        Self::Partial,
        Self::Io,
    ];

    /// Whether nothing came back at all: no connection, or no end of the waiting. Whoever refuses us,
    /// or answers something else than is expected, is there.
    pub const fn is_no_answer(self) -> bool {
        match self {
            Self::Connect | Self::Timeout => true,
            Self::Dns
            | Self::Tls
            | Self::HttpStatus
            | Self::Auth
            | Self::RateLimited
            | Self::Parse
            | Self::TooLarge
            | Self::Partial
            | Self::Io => false,
        }
    }

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::HttpStatus => "http_status",
            Self::Auth => "auth",
            Self::RateLimited => "rate_limited",
            Self::Parse => "parse",
            Self::TooLarge => "too_large",
            Self::Partial => "partial",
            Self::Io => "io",
        }
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed probe. It is never evidence of death: what it would have shown is `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}: {detail}")]
pub struct ProbeError {
    /// The kind.
    pub failure: ProbeFailure,
    /// What happened and where, for a person; holds no secret.
    pub detail: String,
    /// How long the source asked to be left alone, at most an hour.
    pub retry_after: Option<Duration>,
}

impl ProbeError {
    /// A failure of the given kind, told to a person by `detail`.
    pub fn new(failure: ProbeFailure, detail: impl Into<String>) -> Self {
        Self {
            failure,
            detail: detail.into(),
            retry_after: None,
        }
    }
}
