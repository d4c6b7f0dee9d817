//! A CI system in the simulated world: requests, workers, runs, and what is really alive.

use std::collections::BTreeMap;

use ci_watchdog::model::{BuilderName, CiSystem, ProviderName, RunEnd, WorkerName};

use super::github::Commit;

/// A CI system.
#[derive(Clone, Debug)]
pub struct Ci {
    /// Its name as a provider.
    pub name: ProviderName,
    /// What kind of system it is.
    pub system: CiSystem,
    /// The bot that it reports to.
    pub bot: usize,
    /// Whether its master runs.
    pub up: bool,
    /// Until when its master is stopped: it accepts, and never answers.
    pub frozen_until: Option<u64>,
    /// Its builders.
    pub builders: Vec<Builder>,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// Everything that it was ever asked to build, in the order of submission.
    pub requests: BTreeMap<u64, Request>,
    next: u64,
}

/// A named job.
#[derive(Clone, Debug)]
pub struct Builder {
    /// Its name.
    pub name: BuilderName,
    /// The number of its next run.
    next: u64,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name.
    pub name: WorkerName,
    /// The builders that it serves, by their places.
    pub serves: Vec<usize>,
    /// What it really is.
    pub health: Health,
    /// Whether the master holds a connection to it.
    pub connected: bool,
    /// Whether an operator paused it.
    pub paused: bool,
    /// The request that it executes.
    pub run: Option<u64>,
}

/// What a worker really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Working.
    Well,
    /// Stopped for now; goes on where it was when it thaws.
    Frozen,
    /// Gone, with what it executed.
    Dead,
}

/// Something that it was asked to build.
#[derive(Clone, Debug)]
pub struct Request {
    /// The builder's place.
    pub builder: usize,
    /// The commit.
    pub commit: Commit,
    /// Where it stands.
    pub stage: Stage,
    /// The number of its latest try.
    pub number: Option<u64>,
    /// The worker of its latest try.
    pub worker: Option<usize>,
    /// How often it was tried; events of earlier tries are void.
    pub tries: u32,
    /// Pauses between the signs of progress that are still to come, ms; the last one ends it.
    pub script: Vec<u64>,
    /// How it will end.
    pub outcome: RunEnd,
    /// When its latest try began.
    pub started: u64,
    /// Signs of progress so far.
    pub beats: u32,
    /// When the last sign of progress was.
    pub beat: u64,
    /// Since when the master knows that its worker is gone, where the run was left as it is.
    pub worker_gone: Option<u64>,
    /// Whether a step of it is due and its worker is frozen.
    pub stopped: bool,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No worker has it.
    Queued,
    /// A worker was chosen and has not answered.
    Preparing {
        /// Since when.
        since: u64,
    },
    /// A worker executes it.
    Running,
    /// Over.
    Ended {
        /// How.
        end: RunEnd,
        /// When.
        at: u64,
    },
}

impl Request {
    /// Whether it is not over.
    pub fn open(&self) -> bool {
        match self.stage {
            Stage::Queued | Stage::Preparing { .. } | Stage::Running => true,
            Stage::Ended { .. } => false,
        }
    }
}

impl Ci {
    /// A CI system with these builders and workers.
    pub fn new(
        name: &str,
        system: CiSystem,
        bot: usize,
        builders: &[&str],
        workers: Vec<Vec<usize>>,
    ) -> Self {
        Self {
            name: name.into(),
            system,
            bot,
            up: true,
            frozen_until: None,
            builders: builders
                .iter()
                .map(|name| Builder {
                    name: (*name).into(),
                    next: 1,
                })
                .collect(),
            workers: workers
                .into_iter()
                .enumerate()
                .map(|(place, serves)| Worker {
                    name: WorkerName::new(format!("{name}-{place}")),
                    serves,
                    health: Health::Well,
                    connected: true,
                    paused: false,
                    run: None,
                })
                .collect(),
            requests: BTreeMap::new(),
            next: 1,
        }
    }

    /// Takes a request in.
    pub fn submit(&mut self, now: u64, builder: usize, commit: Commit) -> u64 {
        let id = self.next;
        self.next += 1;
        self.requests.insert(
            id,
            Request {
                builder,
                commit,
                stage: Stage::Queued,
                number: None,
                worker: None,
                tries: 0,
                script: Vec::new(),
                outcome: RunEnd::Success,
                started: now,
                beats: 0,
                beat: now,
                worker_gone: None,
                stopped: false,
            },
        );
        id
    }

    /// Gives queued requests to free workers; gives back those that got one, with their tries.
    pub fn claim(&mut self, now: u64) -> Vec<(u64, u32)> {
        let mut claimed = Vec::new();
        if !self.up || self.frozen_until.is_some() {
            return claimed;
        }
        for (id, request) in &mut self.requests {
            if request.stage != Stage::Queued {
                continue;
            }
            let free = self.workers.iter_mut().enumerate().find(|(_, worker)| {
                worker.connected
                    && !worker.paused
                    && worker.run.is_none()
                    && worker.serves.contains(&request.builder)
            });
            let Some((place, worker)) = free else {
                continue;
            };
            worker.run = Some(*id);
            request.worker = Some(place);
            request.stage = Stage::Preparing { since: now };
            request.tries += 1;
            request.started = now;
            request.beats = 0;
            request.beat = now;
            request.stopped = false;
            if let Some(builder) = self.builders.get_mut(request.builder) {
                request.number = Some(builder.next);
                builder.next += 1;
            }
            claimed.push((*id, request.tries));
        }
        claimed
    }

    /// Ends a request and frees its worker.
    pub fn end(&mut self, now: u64, id: u64, end: RunEnd) {
        self.free(id);
        if let Some(request) = self.requests.get_mut(&id) {
            request.stage = Stage::Ended { end, at: now };
            request.worker_gone = None;
        }
    }

    /// Takes a request from its worker and queues it again; the master tries it once more.
    pub fn requeue(&mut self, id: u64) {
        self.free(id);
        if let Some(request) = self.requests.get_mut(&id) {
            request.stage = Stage::Queued;
            request.tries += 1;
            request.worker_gone = None;
            request.stopped = false;
        }
    }

    fn free(&mut self, id: u64) {
        for worker in &mut self.workers {
            if worker.run == Some(id) {
                worker.run = None;
            }
        }
    }

    /// The workers that serve a builder.
    pub fn pool(&self, builder: usize) -> impl Iterator<Item = &Worker> {
        self.workers
            .iter()
            .filter(move |worker| worker.serves.contains(&builder))
    }

    /// Whether a worker looks able to the master.
    pub fn able(worker: &Worker) -> bool {
        worker.connected && !worker.paused
    }

    /// A builder's place.
    pub fn builder(&self, name: &BuilderName) -> Option<usize> {
        self.builders.iter().position(|one| &one.name == name)
    }

    /// A builder's name.
    pub fn builder_name(&self, place: usize) -> BuilderName {
        self.builders
            .get(place)
            .map_or_else(|| "?".into(), |one| one.name.clone())
    }

    /// The requests of a commit for a builder, in the order of submission.
    pub fn of(&self, commit: Commit, builder: usize) -> impl Iterator<Item = (&u64, &Request)> {
        self.requests
            .iter()
            .filter(move |(_, one)| one.commit == commit && one.builder == builder)
    }
}
