//! What the fake Buildbot knows: builders, workers, requests and builds.

use std::time::{Duration, Instant, SystemTime};

/// The codes of results (`buildbot/process/results.py` of 4.3.0).
pub const SUCCESS: u8 = 0;
/// Green, with warnings.
pub const WARNINGS: u8 = 1;
/// Red.
pub const FAILURE: u8 = 2;
/// Not executed.
pub const SKIPPED: u8 = 3;
/// The master failed.
pub const EXCEPTION: u8 = 4;
/// To be tried again.
pub const RETRY: u8 = 5;
/// Stopped by somebody.
pub const CANCELLED: u8 = 6;

/// Requests that are taken in all; more pushes are refused. A demo makes some tens.
const REQUESTS_MAX: usize = 5_000;

/// A step of a run, as it is to go.
#[derive(Debug, Clone)]
pub struct StepScript {
    /// Its name.
    pub name: String,
    /// How long it takes.
    pub lasts: Duration,
    /// How many lines it logs, evenly over that time.
    pub lines: u64,
}

/// A builder.
pub struct Builder {
    pub name: String,
    pub steps: Vec<StepScript>,
    /// How its runs end.
    pub results: u8,
}

/// A worker.
pub struct Worker {
    pub name: String,
    /// Indices of the builders that it is configured for.
    pub builders: Vec<usize>,
    pub connected: bool,
    pub paused: bool,
    /// Looks connected, and does nothing.
    pub frozen: bool,
    /// When it connects again by itself.
    pub returns: Option<Instant>,
}

/// Which pushes start which builders.
pub struct Scheduler {
    /// The address that a repository is cloned from, as pushes name it.
    pub repository: String,
    pub branch: String,
    pub builders: Vec<usize>,
}

/// A buildset with its one source stamp; both have the same number.
pub struct Buildset {
    pub repository: String,
    pub project: String,
    pub branch: String,
    pub revision: String,
    pub submitted_at: i64,
}

/// A build request: one builder's part of a buildset. It stays the same over retries.
pub struct Request {
    /// Index of the buildset.
    pub buildset: usize,
    /// Index of the builder.
    pub builder: usize,
    pub submitted_at: i64,
    pub claimed_at: Option<i64>,
    pub completed: Option<Completed>,
}

/// How and when something ended.
#[derive(Clone, Copy)]
pub struct Completed {
    pub at: i64,
    pub results: u8,
}

/// A build: one try of a request.
pub struct Build {
    /// Counts from 1 for each builder.
    pub number: u64,
    /// Index of the request.
    pub request: usize,
    /// Index of the builder.
    pub builder: usize,
    /// Index of the worker.
    pub worker: usize,
    pub started_at: i64,
    pub completed: Option<Completed>,
    pub state: String,
    pub steps: Vec<Step>,
    /// How it is to end.
    pub results: u8,
    /// How long its job has been at work.
    pub worked: Duration,
    /// How long its worker's silence has hidden that.
    pub hidden: Duration,
    /// Until when time has passed for it.
    pub until: Instant,
    pub began: Instant,
    pub ended: Option<Instant>,
    /// The spans of time in which its worker was frozen.
    pub frozen: Vec<(Instant, Option<Instant>)>,
}

/// A step of a build.
pub struct Step {
    pub name: String,
    /// When it ends, in the build's own working time.
    pub due: Duration,
    pub lasts: Duration,
    /// Lines that it logs; a step without a log has `None`.
    pub lines: Option<u64>,
    pub started_at: Option<i64>,
    pub completed: Option<Completed>,
}

/// Everything in the fake Buildbot.
#[derive(Default)]
pub struct World {
    pub builders: Vec<Builder>,
    pub workers: Vec<Worker>,
    pub schedulers: Vec<Scheduler>,
    pub buildsets: Vec<Buildset>,
    pub requests: Vec<Request>,
    pub builds: Vec<Build>,
    /// Whether the master's process is not there.
    pub down: bool,
}

/// A push, as the change hook was told of it.
pub struct Push {
    pub repository: String,
    pub project: String,
    pub branch: String,
    pub revision: String,
}

impl World {
    /// Takes a push: one buildset for each scheduler that it concerns.
    ///
    /// # Errors
    ///
    /// When there are as many requests as there may be.
    pub fn push(&mut self, push: &Push) -> Result<(), &'static str> {
        let concerned: Vec<Vec<usize>> = self
            .schedulers
            .iter()
            .filter(|scheduler| {
                scheduler.repository == push.repository && scheduler.branch == push.branch
            })
            .map(|scheduler| scheduler.builders.clone())
            .collect();
        for builders in concerned {
            if self.requests.len() + builders.len() > REQUESTS_MAX {
                return Err("the fake Buildbot has as many requests as it takes");
            }
            let now = epoch();
            self.buildsets.push(Buildset {
                repository: push.repository.clone(),
                project: push.project.clone(),
                branch: push.branch.clone(),
                revision: push.revision.clone(),
                submitted_at: now,
            });
            let buildset = self.buildsets.len() - 1;
            self.requests
                .extend(builders.into_iter().map(|builder| Request {
                    buildset,
                    builder,
                    submitted_at: now,
                    claimed_at: None,
                    completed: None,
                }));
        }
        Ok(())
    }

    /// The index of a builder.
    pub fn builder(&self, name: &str) -> Option<usize> {
        self.builders
            .iter()
            .position(|builder| builder.name == name)
    }

    /// A worker by its name.
    pub fn worker_mut(&mut self, name: &str) -> Option<(usize, &mut Worker)> {
        self.workers
            .iter_mut()
            .enumerate()
            .find(|(_, worker)| worker.name == name)
    }

    /// The commit that a build tests.
    pub fn revision(&self, build: &Build) -> &str {
        let request = &self.requests[build.request];
        &self.buildsets[request.buildset].revision
    }

    /// How a buildset ended: when the last of its requests did, with the worst of their results.
    pub fn completed(&self, buildset: usize) -> Option<Completed> {
        self.requests
            .iter()
            .filter(|request| request.buildset == buildset)
            .map(|request| request.completed)
            .reduce(|one, other| {
                let (one, other) = (one?, other?);
                let results = one.results.max(other.results);
                Some(Completed {
                    at: one.at.max(other.at),
                    results,
                })
            })
            .flatten()
    }
}

/// Unix time, seconds, as Buildbot writes it.
pub fn epoch() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
