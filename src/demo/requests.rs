//! The bounded log of the requests that a fake received.

use std::collections::VecDeque;
use std::time::Instant;

/// Requests remembered; the oldest go first. A demo makes some thousand.
const REQUESTS_MAX: usize = 5_000;
/// Bytes kept of each body; a watchdog's packets for many commits fit.
const BODY_BYTES_KEPT: usize = 16_384;

/// One request that a fake received.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its number; counts from 0.
    pub number: u64,
    /// When it came.
    pub at: Instant,
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// What the sender calls itself.
    pub user_agent: String,
    /// The first 16384 bytes of the body.
    pub body: String,
    /// The HTTP status that it was answered with.
    pub status: u16,
}

/// The requests that a fake received, oldest first.
#[derive(Default)]
pub struct RequestLog {
    requests: VecDeque<Received>,
    next: u64,
}

impl RequestLog {
    /// Remembers a request, and numbers it.
    pub fn push(&mut self, mut request: Received) {
        request.number = self.next;
        self.next += 1;
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    /// The requests from this number on, oldest first.
    pub fn since(&self, number: u64) -> Vec<Received> {
        self.requests
            .iter()
            .filter(|request| request.number >= number)
            .cloned()
            .collect()
    }
}

/// The part of a body that a log keeps, as text.
pub fn kept(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..BODY_BYTES_KEPT).unwrap_or(body)).into_owned()
}
