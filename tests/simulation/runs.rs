//! How runs go in the simulated world: claimed, begun, step by step, ended, reported.

use ci_watchdog::model::{BuilderName, RunEnd};

use super::bot::Packet;
use super::ci::{Health, Stage};
use super::github::Commit;
use super::tally::Fault;
use super::world::{Event, MINUTE, Message, SECOND, World};

impl World {
    /// Gives work to free workers.
    pub fn claim(&mut self, ci: usize) {
        for (request, tries) in self.cis[ci].claim(self.now) {
            let delay = self.random.range(500, 4 * SECOND);
            self.after(delay, Event::Run { ci, request, tries });
        }
    }

    /// A run's next sign of progress, its start, or its end.
    pub fn advance_run(&mut self, ci: usize, id: u64, tries: u32) {
        let now = self.now;
        if let Some(thaws) = self.cis[ci].frozen_until {
            // The master takes it in when it goes on.
            let request = id;
            let later = thaws.saturating_sub(now) + self.random.range(100, 4 * SECOND);
            self.after(later, Event::Run { ci, request, tries });
            return;
        }
        let up = self.cis[ci].up;
        let Some(request) = self.cis[ci].requests.get(&id) else {
            return;
        };
        let Some(worker) = request.worker.filter(|_| request.tries == tries && up) else {
            return;
        };
        match self.cis[ci].workers[worker].health {
            Health::Dead => return,
            Health::Frozen => {
                if let Some(request) = self.cis[ci].requests.get_mut(&id) {
                    request.stopped = true;
                }
                return;
            }
            Health::Well => {}
        }
        let (stage, commit, builder) = (request.stage, request.commit, request.builder);
        let number = request.number.unwrap_or(0);
        let next = match stage {
            Stage::Preparing { .. } => {
                let (script, outcome) = self.write_script(ci, commit, builder);
                if let Some(request) = self.cis[ci].requests.get_mut(&id) {
                    request.stage = Stage::Running;
                    request.script = script;
                    request.outcome = outcome;
                }
                self.report_run(
                    ci,
                    |builder| Packet::Started {
                        builder: Some(builder),
                        commit,
                        number,
                    },
                    builder,
                );
                true
            }
            Stage::Running => true,
            Stage::Queued | Stage::Ended { .. } => false,
        };
        if !next {
            return;
        }
        let Some(request) = self.cis[ci].requests.get_mut(&id) else {
            return;
        };
        request.beats += 1;
        request.beat = now;
        match request.script.pop() {
            Some(pause) => self.after(
                pause,
                Event::Run {
                    ci,
                    request: id,
                    tries,
                },
            ),
            None => {
                let end = request.outcome;
                self.end_run(ci, id, end);
            }
        }
    }

    /// Ends a run as its worker would; a result is reported.
    pub fn end_run(&mut self, ci: usize, id: u64, end: RunEnd) {
        let Some(request) = self.cis[ci].requests.get(&id) else {
            return;
        };
        let (commit, builder) = (request.commit, request.builder);
        let number = request.number.unwrap_or(0);
        self.cis[ci].end(self.now, id, end);
        self.tell(format_args!(
            "ci {ci} request {id} of {commit:?} at builder {builder} number {number} ended as {end:?}"
        ));
        if let Some(green) = end.green() {
            self.report_run(
                ci,
                |builder| Packet::Finished {
                    builder,
                    commit,
                    number,
                    green,
                },
                builder,
            );
        }
        self.after(SECOND, Event::Claim(ci));
    }

    fn report_run(
        &mut self,
        ci: usize,
        packet: impl FnOnce(BuilderName) -> Packet,
        builder: usize,
    ) {
        let packet = packet(self.cis[ci].builder_name(builder));
        let bot = self.cis[ci].bot;
        self.post(Message::Packet { bot, packet });
    }

    /// How a run goes: pauses between its signs of progress, and its end.
    fn write_script(&mut self, ci: usize, commit: Commit, builder: usize) -> (Vec<u64>, RunEnd) {
        let minutes = match self.random.below(20) {
            0..=9 => self.random.range(2, 8),
            10..=16 => self.random.range(8, 20),
            17 | 18 => self.random.range(20, 40),
            _ => self.random.range(40, 70),
        };
        let mut left = minutes * MINUTE;
        let mut script = Vec::new();
        while left > 0 {
            let pause = self.random.range(5 * SECOND, 5 * MINUTE).min(left);
            script.push(pause);
            left -= pause;
        }
        if self.strikes(Fault::LongSilence) {
            let pause = self.random.range(10 * MINUTE, 23 * MINUTE);
            let place = self.random.index(script.len());
            script.insert(place, pause);
        }
        let red = self.really_red(ci, commit, builder) || self.strikes(Fault::FlakyRed);
        let outcome = if red {
            RunEnd::Failure
        } else if self.random.chance(50) {
            RunEnd::Warnings
        } else {
            RunEnd::Success
        };
        (script, outcome)
    }

    fn really_red(&self, ci: usize, commit: Commit, builder: usize) -> bool {
        let head = self.github.parents.get(&commit).map(|(_, head)| *head);
        self.github.pulls.values().any(|pull| {
            Some(pull.head) == head
                && self.repos[pull.repo].ci == ci
                && pull
                    .red_on
                    .and_then(|place| self.repos[pull.repo].builders.get(place))
                    == Some(&builder)
        })
    }
}
