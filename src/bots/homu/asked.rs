//! GitHub while one look asks it: until when, what failed, and what that is worth.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::github::Github;
use crate::model::{ProbeError, ProbeFailure};

/// GitHub while one look asks it: the first failure, after which it is not asked again, so that one
/// outage costs one request; a failed answer leaves what it would have told unknown.
pub struct Asked<'a> {
    github: Option<&'a Github>,
    mention: Option<&'a str>,
    until: Instant,
    /// How many requests GitHub had answered before.
    answered: u64,
    found: Mutex<Found>,
}

/// What came of asking.
#[derive(Default)]
struct Found {
    stopped: bool,
    /// Whether all that pending builds need was asked.
    essential_is_done: bool,
    failed: Option<ProbeError>,
    /// A failure after that.
    beside: Option<Beside>,
    warnings: Vec<String>,
}

/// A failure of a request that no pending build needs.
enum Beside {
    Failed(ProbeError),
    OutOfTime(ProbeError),
}

impl<'a> Asked<'a> {
    /// Asks until then; `mention` is the name that homu answers to, where the configuration tells it.
    pub fn new(github: Option<&'a Github>, mention: Option<&'a str>, until: Instant) -> Self {
        Self {
            github,
            mention,
            until,
            answered: github.map_or(0, Github::answered),
            found: Mutex::default(),
        }
    }

    /// The failure of GitHub as a whole, and what the operator should know. Where pending builds got
    /// what they need, a failure over something else is only doubtful, and the lack of time for it
    /// is nothing at all; but a GitHub that answered nothing has failed.
    pub fn end(self) -> (Option<ProbeError>, Vec<String>) {
        let answered = self.github.map_or(0, Github::answered) > self.answered;
        let found = self.found.into_inner();
        let mut found = found.unwrap_or_else(PoisonError::into_inner);
        match found.beside {
            Some(Beside::Failed(error) | Beside::OutOfTime(error)) if !answered => {
                found.failed.get_or_insert(error);
            }
            Some(Beside::Failed(error)) => found.warnings.push(format!(
                "GitHub did not tell all of what is approved: {error}"
            )),
            Some(Beside::OutOfTime(_)) | None => {}
        }
        (found.failed, found.warnings)
    }

    /// From now on nothing is asked that a pending build needs.
    pub fn essential_is_done(&self) {
        self.lock().essential_is_done = true;
    }

    pub fn warn(&self, warning: String) {
        self.lock().warnings.push(warning);
    }

    /// The GitHub to ask; none after a failure.
    pub fn github(&self) -> Option<&'a Github> {
        self.github.filter(|_| !self.lock().stopped)
    }

    /// Waits for an answer; `None` where it failed.
    pub async fn wait<T>(&self, answer: impl Future<Output = Result<T, ProbeError>>) -> Option<T> {
        let answer = match tokio::time::timeout_at(self.until, answer).await {
            Ok(answer) => answer.map_err(Beside::Failed),
            Err(_) => Err(Beside::OutOfTime(ProbeError::new(
                ProbeFailure::Timeout,
                "GitHub took too long for all that a look asks of it",
            ))),
        };
        let failure = match answer {
            Ok(answer) => return Some(answer),
            Err(failure) => failure,
        };
        let mut found = self.lock();
        found.stopped = true;
        if found.essential_is_done {
            found.beside.get_or_insert(failure);
        } else {
            let (Beside::Failed(error) | Beside::OutOfTime(error)) = failure;
            found.failed.get_or_insert(error);
        }
        None
    }

    /// That GitHub lacks what it must have is a failure, too.
    pub fn fail(&self, error: ProbeError) {
        self.lock().failed.get_or_insert(error);
    }

    /// The name that homu answers to.
    pub async fn mention(&self) -> Option<String> {
        match self.mention {
            Some(mention) => Some(mention.to_owned()),
            None => {
                let github = self.github()?;
                self.wait(github.login()).await
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why GitHub did not tell something.
pub enum NotTold {
    /// It was asked for this.
    Failed,
    /// It was not, because it had failed before.
    Stopped,
}
