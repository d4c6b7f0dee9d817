//! How time passes in the fake Buildbot: requests are claimed, steps go on, builds end.

use std::time::{Duration, Instant};

use super::reporter::News;
use super::world::{Build, Completed, RETRY, SUCCESS, Step, Worker, World, epoch};

/// How long a worker takes to answer and prepare.
const PREPARES: Duration = Duration::from_millis(200);
/// How long workers take to come back to a master that was started again. Six seconds were seen;
/// a demo has less time.
const REATTACHES: Duration = Duration::from_secs(1);
/// The first lines of every step's log: its command and its environment.
const HEADER_LINES: u64 = 40;

/// Something that the reporter tells: the index of a build, and what became of it.
pub type Event = (usize, News);

impl World {
    /// Lets time pass until `now`.
    pub fn advance(&mut self, now: Instant) -> Vec<Event> {
        let mut events = vec![];
        if self.down {
            return events;
        }
        for worker in &mut self.workers {
            if worker.returns.is_some_and(|returns| returns <= now) {
                worker.returns = None;
                worker.connected = true;
            }
        }
        for index in 0..self.builds.len() {
            if self.builds[index].completed.is_none() && self.work(index, now) {
                events.push((index, News::Finished));
            }
        }
        for request in 0..self.requests.len() {
            if let Some(build) = self.claim(request, now) {
                events.push((build, News::Started));
            }
        }
        events
    }

    /// Freezes a worker: it looks connected, and nothing of it moves on.
    pub fn freeze(&mut self, worker: usize, now: Instant) {
        self.workers[worker].frozen = true;
        for build in self.open_builds_of(worker) {
            build.frozen.push((now, None));
        }
    }

    /// Lets a frozen worker go on. Its job went on all the while, so that it catches up at once.
    pub fn thaw(&mut self, worker: usize, now: Instant) {
        self.workers[worker].frozen = false;
        for build in self.open_builds_of(worker) {
            build.worked += std::mem::take(&mut build.hidden);
            if let Some((_, end @ None)) = build.frozen.last_mut() {
                *end = Some(now);
            }
        }
    }

    /// Cuts off a worker: its builds end as RETRY, and their requests wait for another.
    pub fn disconnect(&mut self, worker: usize, now: Instant) {
        self.workers[worker].connected = false;
        let lost: Vec<usize> = self.open_indices(|build| build.worker == worker);
        for index in lost {
            self.retry(index, now);
            self.builds[index].state = "retry lost connection (retry)".to_owned();
        }
    }

    /// Takes the master's process away, without a word to anybody.
    pub fn crash(&mut self) {
        self.down = true;
    }

    /// Starts the master again: what was open has ended as RETRY, with the words from before, and
    /// is begun anew when the workers are back. Nobody is told of those ends.
    pub fn restart(&mut self, now: Instant) {
        self.down = false;
        for index in self.open_indices(|_| true) {
            self.retry(index, now);
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.connected) {
            worker.connected = false;
            worker.returns = Some(now + REATTACHES);
        }
    }

    fn open_builds_of(&mut self, worker: usize) -> impl Iterator<Item = &mut Build> {
        self.builds
            .iter_mut()
            .filter(move |build| build.worker == worker && build.completed.is_none())
    }

    fn open_indices(&self, matches: impl Fn(&Build) -> bool) -> Vec<usize> {
        (0..self.builds.len())
            .filter(|&index| {
                let build = &self.builds[index];
                build.completed.is_none() && matches(build)
            })
            .collect()
    }

    fn retry(&mut self, index: usize, now: Instant) {
        let build = &mut self.builds[index];
        build.end(RETRY, now);
        self.requests[build.request].claimed_at = None;
    }

    /// Goes on with a build; true when it has ended.
    fn work(&mut self, index: usize, now: Instant) -> bool {
        let World {
            builds,
            workers,
            builders,
            requests,
            ..
        } = self;
        let build = &mut builds[index];
        let passed = now.saturating_duration_since(build.until);
        build.until = now;
        if workers[build.worker].frozen {
            build.hidden += passed;
            return false;
        }
        build.worked += passed;
        if !build.go_on() {
            return false;
        }
        let results = build.results;
        build.end(results, now);
        build.state = if results == SUCCESS {
            "build successful".to_owned()
        } else {
            let last = build
                .steps
                .last()
                .map_or(&builders[build.builder].name, |step| &step.name);
            format!("failed '{last}'")
        };
        requests[build.request].completed = build.completed;
        true
    }

    /// Begins a build of a request, if it waits and a worker is free.
    fn claim(&mut self, request: usize, now: Instant) -> Option<usize> {
        let waiting = &self.requests[request];
        if waiting.completed.is_some() || waiting.claimed_at.is_some() {
            return None;
        }
        let builder = waiting.builder;
        let busy = |worker: usize| {
            self.builds.iter().any(|build| {
                build.completed.is_none() && build.worker == worker && build.builder == builder
            })
        };
        let worker = (0..self.workers.len())
            .find(|&index| self.workers[index].could_take(builder) && !busy(index))?;
        let number = self
            .builds
            .iter()
            .filter(|build| build.builder == builder)
            .count() as u64
            + 1;
        let mut due = PREPARES;
        let preparation = Step {
            name: "worker_preparation".to_owned(),
            due,
            lasts: due,
            lines: None,
            started_at: Some(epoch()),
            completed: None,
        };
        let steps = self.builders[builder].steps.iter().map(|step| {
            due += step.lasts;
            Step {
                name: step.name.clone(),
                due,
                lasts: step.lasts,
                lines: Some(step.lines),
                started_at: None,
                completed: None,
            }
        });
        let frozen = self.workers[worker].frozen;
        self.builds.push(Build {
            number,
            request,
            builder,
            worker,
            started_at: epoch(),
            completed: None,
            state: "pinging worker".to_owned(),
            steps: std::iter::once(preparation).chain(steps).collect(),
            results: self.builders[builder].results,
            worked: Duration::ZERO,
            hidden: Duration::ZERO,
            until: now,
            began: now,
            ended: None,
            frozen: if frozen { vec![(now, None)] } else { vec![] },
        });
        self.requests[request].claimed_at = Some(epoch());
        Some(self.builds.len() - 1)
    }
}

impl Worker {
    fn could_take(&self, builder: usize) -> bool {
        self.connected && !self.paused && self.builders.contains(&builder)
    }
}

impl Build {
    /// Begins and ends steps as far as the work has come; true when all have ended.
    fn go_on(&mut self) -> bool {
        let (worked, results) = (self.worked, self.results);
        let last = self.steps.len() - 1;
        for (number, step) in self.steps.iter_mut().enumerate() {
            step.started_at.get_or_insert_with(epoch);
            if worked < step.due {
                return false;
            }
            if step.completed.is_none() {
                let results = if number == last { results } else { SUCCESS };
                step.completed = Some(Completed {
                    at: epoch(),
                    results,
                });
                self.state = "building".to_owned();
            }
        }
        true
    }

    fn end(&mut self, results: u8, now: Instant) {
        let completed = Completed {
            at: epoch(),
            results,
        };
        self.completed = Some(completed);
        self.ended = Some(now);
        if let Some((_, end @ None)) = self.frozen.last_mut() {
            *end = Some(now);
        }
        for step in self
            .steps
            .iter_mut()
            .filter(|step| step.started_at.is_some())
        {
            step.completed.get_or_insert(completed);
        }
    }
}

impl Step {
    /// How many lines its log has, when its build has been at work for so long.
    pub fn lines_at(&self, worked: Duration) -> u64 {
        let lines = self.lines.unwrap_or_default();
        let began = self.due.saturating_sub(self.lasts);
        let done = worked.saturating_sub(began).min(self.lasts);
        let share = if self.lasts.is_zero() {
            1.0
        } else {
            done.div_duration_f64(self.lasts)
        };
        HEADER_LINES + (lines as f64 * share) as u64
    }
}
