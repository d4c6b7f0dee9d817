//! What goes wrong in the simulated world, and how it gets better.

use ci_watchdog::model::RunEnd;

use super::bot::{Fork, Status};
use super::ci::{Health, Stage};
use super::operators::Ask;
use super::tally::Fault;
use super::world::{Event, HOUR, MINUTE, Message, SECOND, World};

/// How often a reviewer comes back to an approval that the bot did not take.
pub const PATIENCE: u32 = 20;

impl World {
    /// Something goes wrong, somewhere; where nothing can, nothing does.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the other faults strike where they belong: a message that is sent, a look, a request"
    )]
    pub fn strike(&mut self, fault: Fault) {
        let ci = self.random.index(self.cis.len());
        let bot = self.random.index(self.bots.len());
        let until = |minutes| self.now + minutes * MINUTE;
        match fault {
            Fault::WorkerKilled => self.kill_one(ci),
            Fault::WorkerFrozen => self.freeze_one(ci, fault),
            Fault::IdleWorkerFrozen => self.freeze_one(ci, fault),
            Fault::WorkerPaused => self.pause_one(ci),
            Fault::PoolDown => self.kill_all(ci),
            Fault::HalfPoolDown => self.kill_half(ci),
            Fault::DeathSeries => {
                self.fault(fault);
                for minute in 0..self.random.range(6, 9) {
                    self.after(minute * MINUTE, Event::RunsDie(ci));
                }
            }
            Fault::RunException => self.end_one(ci, fault, RunEnd::Exception),
            Fault::RunCancelled => self.end_one(ci, fault, RunEnd::Cancelled),
            Fault::QueuedCancelled => self.cancel_queued(ci),
            Fault::MasterStopped | Fault::MasterKilled => self.master_down(ci, fault),
            Fault::MasterFrozen => self.freeze_master(ci),
            Fault::ProviderUnreachable => {
                let minutes = if self.random.chance(400) {
                    self.random.range(20, 60)
                } else {
                    self.random.range(1, 4)
                };
                self.views
                    .ci_unreachable
                    .insert(ci, self.now + minutes * MINUTE);
                self.fault(fault);
            }
            Fault::ProviderErrors => {
                let end = self.now + self.short_or_long();
                self.views.ci_errors.insert(ci, end);
            }
            Fault::BotErrors => {
                let end = self.now + self.short_or_long();
                self.views.bot_errors.insert(bot, end);
            }
            Fault::DatabaseLocked => {
                let end = self.now + self.short_or_long();
                self.views.locked.insert(bot, end);
            }
            Fault::HistoryPartial => {
                let end = until(self.random.range(2, 25));
                self.views.partial.insert(ci, end);
            }
            Fault::HistoryUnasked => {
                let end = until(self.random.range(2, 25));
                self.views.unasked.insert(ci, end);
            }
            Fault::Blink => {
                let end = self.now + self.random.range(2 * SECOND, 11 * SECOND);
                let last = self.views.blink.get(&ci).copied().unwrap_or(0);
                if self.now >= last + 2 * MINUTE || last == 0 {
                    self.views.blink.insert(ci, end);
                }
            }
            Fault::BotRestart => {
                let pause = self.random.range(2 * SECOND, 4 * MINUTE);
                self.restart_bot(bot, fault, pause);
            }
            Fault::BotDownLong => {
                let pause = self.random.range(10 * MINUTE, 50 * MINUTE);
                self.restart_bot(bot, fault, pause);
            }
            Fault::BotWedged => self.wedge_bot(bot),
            Fault::HandRetry
            | Fault::HandRetryMeant
            | Fault::HandReset
            | Fault::HandRelease
            | Fault::Paused
            | Fault::Excluded => self.operator_asks(fault, bot),
            Fault::BotUnreachable => {
                let end = until(self.random.range(1, 12));
                self.views.bot_unreachable.insert(bot, end);
                self.fault(fault);
            }
            Fault::GithubDown if !self.github.down => {
                self.github.down = true;
                self.fault(fault);
                let pause = self.random.range(20 * SECOND, 15 * MINUTE);
                self.after(pause, Event::GithubUp);
            }
            Fault::QuotaLow => {
                self.github.quota_low = true;
                self.fault(fault);
                let pause = self.random.range(5 * MINUTE, 40 * MINUTE);
                self.after(pause, Event::QuotaBack);
            }
            Fault::TreeClosed => self.close_tree(),
            Fault::PersonRetry => self.person_retries(),
            Fault::PersonCloses => self.person_closes(),
            Fault::PersonPushes => self.person_pushes(),
            Fault::PersonTries => self.person_tries(),
            Fault::UrgentPull => self.urgent_pull(),
            Fault::WallClockSteps => {
                self.fault(fault);
                let ten_years = 10 * 365 * 24 * i64::try_from(HOUR).unwrap_or(0);
                self.wall_is_off = *self.random.pick(&[ten_years, -ten_years, 0]).unwrap_or(&0);
                let says = self.wall_clock().as_secs();
                self.tell(format_args!("the wall clock says {says} s"));
            }
            Fault::Crowd => {
                let count = self.random.range(4, 25);
                let builder = self.random.index(self.cis[ci].builders.len());
                let commit = self.github.commit();
                for _ in 0..count {
                    self.cis[ci].submit(self.now, builder, commit);
                }
                self.fault(fault);
                self.after(SECOND, Event::Claim(ci));
            }
            _ => {}
        }
    }

    /// One look, or many.
    fn short_or_long(&mut self) -> u64 {
        if self.random.chance(600) {
            self.random.range(SECOND, 25 * SECOND)
        } else {
            self.random.range(MINUTE, 15 * MINUTE)
        }
    }

    fn some_worker(&mut self, ci: usize, busy: bool) -> Option<usize> {
        let fit: Vec<usize> = self.cis[ci]
            .workers
            .iter()
            .enumerate()
            .filter(|(_, worker)| {
                worker.health == Health::Well && worker.connected && (worker.run.is_some() || !busy)
            })
            .map(|(place, _)| place)
            .collect();
        self.random.pick(&fit).copied()
    }

    fn kill_one(&mut self, ci: usize) {
        let busy = self.random.chance(700);
        if let Some(worker) = self.some_worker(ci, busy) {
            self.fault(Fault::WorkerKilled);
            let notice = self.random.range(0, 2 * MINUTE);
            let back = self.random.range(4 * MINUTE, 90 * MINUTE);
            self.kill(ci, worker, notice, back);
        }
    }

    fn kill_all(&mut self, ci: usize) {
        self.fault(Fault::PoolDown);
        for worker in 0..self.cis[ci].workers.len() {
            let notice = self.random.range(0, MINUTE);
            let back = self.random.range(10 * MINUTE, 50 * MINUTE);
            self.kill(ci, worker, notice, back);
        }
    }

    /// Half of a builder's workers are gone, or a few more.
    fn kill_half(&mut self, ci: usize) {
        self.fault(Fault::HalfPoolDown);
        let builder = self.random.index(self.cis[ci].builders.len());
        let serves = |one: &super::ci::Worker| one.serves.contains(&builder);
        let pool: Vec<usize> = (0..self.cis[ci].workers.len())
            .filter(|place| serves(&self.cis[ci].workers[*place]))
            .collect();
        for worker in pool.iter().take(pool.len().div_ceil(2)) {
            let notice = self.random.range(0, MINUTE);
            let back = self.random.range(10 * MINUTE, 50 * MINUTE);
            self.kill(ci, *worker, notice, back);
        }
    }

    /// What runs on a worker that is well.
    fn running(&self, ci: usize) -> Vec<u64> {
        let workers = self.cis[ci].workers.iter();
        let busy = workers.filter(|worker| worker.health == Health::Well);
        busy.filter_map(|worker| worker.run)
            .filter(|id| {
                let request = self.cis[ci].requests.get(id);
                request.is_some_and(|request| request.stage == Stage::Running)
            })
            .collect()
    }

    /// Everything that runs ends without a result.
    pub fn runs_die(&mut self, ci: usize) {
        for id in self.running(ci) {
            self.end_run(ci, id, RunEnd::Exception);
        }
    }

    fn kill(&mut self, ci: usize, worker: usize, notice: u64, back: u64) {
        // What nobody uses, nobody waits for.
        let busy = self.cis[ci].workers[worker].run.is_some();
        let notice = if busy { notice } else { 0 };
        self.cis[ci].workers[worker].health = Health::Dead;
        self.after(notice, Event::Notice { ci, worker });
        self.after(notice + back, Event::Revive { ci, worker });
    }

    /// The master notices that a worker is gone.
    pub fn notice(&mut self, ci: usize, worker: usize) {
        let now = self.now;
        let one = &mut self.cis[ci].workers[worker];
        if one.health == Health::Well || !one.connected {
            return;
        }
        one.connected = false;
        let Some(run) = one.run else {
            return;
        };
        if self.strikes(Fault::WorkerLossUnnoticed) {
            if let Some(request) = self.cis[ci].requests.get_mut(&run) {
                request.worker_gone = Some(now);
            }
        } else if self.strikes(Fault::NoSuccessor) {
            self.cis[ci].end(now, run, RunEnd::Retry);
        } else {
            self.cis[ci].requeue(run);
        }
        self.after(SECOND, Event::Claim(ci));
    }

    /// A worker comes back.
    pub fn revive(&mut self, ci: usize, worker: usize) {
        // What it executed is over, also where the master had not noticed.
        self.cis[ci].workers[worker].connected = true;
        self.cis[ci].workers[worker].health = Health::Well;
        if let Some(run) = self.cis[ci].workers[worker].run {
            self.cis[ci].requeue(run);
        }
        if !self.cis[ci].up {
            self.cis[ci].workers[worker].connected = false;
        }
        self.after(SECOND, Event::Claim(ci));
    }

    /// A busy worker, or an idle one that is found out when it is given work.
    fn freeze_one(&mut self, ci: usize, fault: Fault) {
        let busy = fault == Fault::WorkerFrozen;
        if let Some(worker) = self.some_worker(ci, busy) {
            if !busy && self.cis[ci].workers[worker].run.is_some() {
                return;
            }
            self.fault(fault);
            self.cis[ci].workers[worker].health = Health::Frozen;
            let pause = self.random.range(3 * MINUTE, 2 * HOUR);
            self.after(pause, Event::Thaw { ci, worker });
        }
    }

    /// A frozen worker goes on where it was.
    pub fn thaw(&mut self, ci: usize, worker: usize) {
        let up = self.cis[ci].up;
        let one = &mut self.cis[ci].workers[worker];
        if one.health != Health::Frozen {
            return;
        }
        one.health = Health::Well;
        one.connected = up;
        let Some(id) = self.cis[ci].workers[worker].run else {
            self.after(SECOND, Event::Claim(ci));
            return;
        };
        if let Some(request) = self.cis[ci].requests.get_mut(&id)
            && std::mem::take(&mut request.stopped)
        {
            let tries = request.tries;
            let late = self.now.saturating_sub(request.beat) > 20 * MINUTE;
            if late && self.weather.set.without.contains(&Fault::LateResult) {
                // Its machine is restarted instead.
                self.revive(ci, worker);
                return;
            }
            if late {
                self.fault(Fault::LateResult);
            }
            self.after(
                SECOND,
                Event::Run {
                    ci,
                    request: id,
                    tries,
                },
            );
        }
    }

    fn pause_one(&mut self, ci: usize) {
        if let Some(worker) = self.some_worker(ci, false) {
            self.fault(Fault::WorkerPaused);
            self.cis[ci].workers[worker].paused = true;
            let pause = self.random.range(5 * MINUTE, 40 * MINUTE);
            self.after(pause, Event::Unpause { ci, worker });
        }
    }

    fn end_one(&mut self, ci: usize, fault: Fault, end: RunEnd) {
        let running = self.running(ci);
        if let Some(id) = self.random.pick(&running).copied() {
            self.fault(fault);
            self.end_run(ci, id, end);
        }
    }

    fn cancel_queued(&mut self, ci: usize) {
        let queued: Vec<u64> = self.cis[ci]
            .requests
            .iter()
            .filter(|(_, request)| request.stage == Stage::Queued)
            .map(|(id, _)| *id)
            .collect();
        if let Some(id) = self.random.pick(&queued).copied() {
            self.fault(Fault::QueuedCancelled);
            self.cis[ci].end(self.now, id, RunEnd::Cancelled);
        }
    }

    fn freeze_master(&mut self, ci: usize) {
        if !self.cis[ci].up || self.cis[ci].frozen_until.is_some() {
            return;
        }
        self.fault(Fault::MasterFrozen);
        let pause = self.random.range(30 * SECOND, 30 * MINUTE);
        self.cis[ci].frozen_until = Some(self.now + pause);
        self.after(pause, Event::MasterUp(ci));
    }

    fn master_down(&mut self, ci: usize, fault: Fault) {
        if !self.cis[ci].up || self.cis[ci].frozen_until.is_some() {
            return;
        }
        self.fault(fault);
        self.cis[ci].up = false;
        for worker in 0..self.cis[ci].workers.len() {
            self.cis[ci].workers[worker].connected = false;
            if let Some(run) = self.cis[ci].workers[worker].run {
                if fault == Fault::MasterStopped && self.random.chance(500) {
                    // It has the time to end what it was at.
                    self.cis[ci].end(self.now, run, RunEnd::Cancelled);
                } else {
                    // After its restart it tries again what it was at.
                    self.cis[ci].requeue(run);
                }
            }
        }
        let pause = self.random.range(20 * SECOND, 12 * MINUTE);
        self.after(pause, Event::MasterUp(ci));
    }

    /// A master is back, and soon its workers.
    pub fn master_up(&mut self, ci: usize) {
        if self.cis[ci].frozen_until.take().is_some() {
            self.after(SECOND, Event::Claim(ci));
            return;
        }
        self.cis[ci].up = true;
        for worker in 0..self.cis[ci].workers.len() {
            if self.cis[ci].workers[worker].health == Health::Well {
                let pause = self.random.range(2 * SECOND, MINUTE);
                self.after(pause, Event::Revive { ci, worker });
            }
        }
    }

    fn restart_bot(&mut self, bot: usize, fault: Fault, pause: u64) {
        if !self.bots[bot].up {
            return;
        }
        self.fault(fault);
        self.bots[bot].up = false;
        self.after(pause, Event::BotUp(bot));
    }

    /// It answers nothing until somebody restarts it: we, or a person who comes to it at last.
    fn wedge_bot(&mut self, bot: usize) {
        if !self.bots[bot].up {
            return;
        }
        self.fault(Fault::BotWedged);
        self.bots[bot].up = false;
        self.bots[bot].wedged = true;
        let pause = self.random.range(20 * MINUTE, 3 * HOUR);
        self.after(pause, Event::BotUp(bot));
    }

    fn close_tree(&mut self) {
        let fit: Vec<usize> = (0..self.repos.len())
            .filter(|repo| self.bots[self.repos[*repo].bot].fork == Fork::Servo)
            .collect();
        if let Some(repo) = self.random.pick(&fit).copied() {
            self.fault(Fault::TreeClosed);
            self.repos[repo].tree_closed = Some(1);
            let pause = self.random.range(5 * MINUTE, 30 * MINUTE);
            self.after(pause, Event::TreeOpens(repo));
        }
    }

    fn some_pull(&mut self, fit: impl Fn(&Self, usize, u64) -> bool) -> Option<(usize, u64)> {
        let open: Vec<(usize, u64)> = self
            .github
            .pulls
            .iter()
            .filter(|(_, pull)| pull.open)
            .map(|(number, pull)| (pull.repo, *number))
            .collect();
        let fit: Vec<(usize, u64)> = open
            .into_iter()
            .filter(|(repo, pull)| fit(self, *repo, *pull))
            .collect();
        self.random.pick(&fit).copied()
    }

    /// Somebody loses patience with a pending or failed pull request.
    fn person_retries(&mut self) {
        let waits = |world: &Self, repo: usize, pull: u64| {
            world.repos[repo].states.get(&pull).is_some_and(|state| {
                let old = world.now.saturating_sub(state.pending_since) > 5 * MINUTE;
                match state.status {
                    Status::Pending => old,
                    Status::Failure => true,
                    Status::None | Status::Success | Status::Error => false,
                }
            })
        };
        if let Some((repo, pull)) = self.some_pull(waits) {
            self.fault(Fault::PersonRetry);
            self.post(Message::Retry { repo, pull });
        }
    }

    fn person_closes(&mut self) {
        if let Some((repo, pull)) = self.some_pull(|_, _, _| true) {
            self.fault(Fault::PersonCloses);
            if let Some(on_github) = self.github.pulls.get_mut(&pull) {
                on_github.open = false;
            }
            self.post(Message::Closed { repo, pull });
        }
    }

    fn person_pushes(&mut self) {
        if let Some((repo, pull)) = self.some_pull(|_, _, _| true) {
            self.fault(Fault::PersonPushes);
            let head = self.github.commit();
            if let Some(on_github) = self.github.pulls.get_mut(&pull) {
                on_github.head = head;
                on_github.red_on = None;
            }
            self.post(Message::Synchronize { repo, pull, head });
            let pause = self.random.range(MINUTE, 20 * MINUTE);
            self.after(
                pause,
                Event::Approve {
                    repo,
                    pull,
                    patience: PATIENCE,
                },
            );
        }
    }

    fn person_tries(&mut self) {
        let idle = |world: &Self, repo: usize, pull: u64| {
            world.repos[repo]
                .states
                .get(&pull)
                .is_some_and(|state| state.status == Status::None && !state.approved)
        };
        if let Some((repo, pull)) = self.some_pull(idle) {
            self.fault(Fault::PersonTries);
            self.post(Message::Try { repo, pull });
        }
    }

    /// Something that is more important than all that waits.
    fn urgent_pull(&mut self) {
        let new = |world: &Self, repo: usize, pull: u64| {
            let state = world.repos[repo].states.get(&pull);
            state.is_some_and(|state| state.status == Status::None && state.priority < 10)
        };
        if let Some((repo, pull)) = self.some_pull(new) {
            self.fault(Fault::UrgentPull);
            if let Some(state) = self.repos[repo].states.get_mut(&pull) {
                state.priority = 10;
            }
            let patience = PATIENCE;
            self.after(
                0,
                Event::Approve {
                    repo,
                    pull,
                    patience,
                },
            );
        }
    }

    /// A reviewer approves, and comes back if the bot did not take it.
    pub fn person_approves(&mut self, repo: usize, pull: u64, patience: u32) {
        let Some(on_github) = self.github.pulls.get_mut(&pull).filter(|pull| pull.open) else {
            return;
        };
        let head = on_github.head;
        on_github.approved = Some(head);
        let bot = self.repos[repo].bot;
        let state = self.repos[repo].states.get(&pull);
        if state.is_some_and(|state| state.approved && state.head == head) {
            return;
        }
        if self.bots[bot].up && state.is_some_and(|state| state.head == head) {
            // A crash in it is homu's; the approval stands.
            let _ = self.approve(repo, pull, head);
        } else if let Some(patience) = patience.checked_sub(1) {
            self.after(
                3 * MINUTE,
                Event::Approve {
                    repo,
                    pull,
                    patience,
                },
            );
        }
    }

    /// Faults are over: everything that was broken is mended within minutes.
    pub fn calm(&mut self) {
        self.weather.calm = true;
        self.tell(format_args!("calm"));
        for ci in 0..self.cis.len() {
            for worker in 0..self.cis[ci].workers.len() {
                let pause = self.random.range(SECOND, 10 * MINUTE);
                let health = self.cis[ci].workers[worker].health;
                match health {
                    Health::Well => {}
                    Health::Dead => {
                        self.after(2 * MINUTE + pause, Event::Revive { ci, worker });
                    }
                    Health::Frozen if self.stays_frozen(ci, worker) => {}
                    Health::Frozen => self.after(pause, Event::Thaw { ci, worker }),
                }
                self.after(pause, Event::Unpause { ci, worker });
            }
        }
        let soon = self.now + MINUTE;
        for ends in [
            &mut self.views.ci_unreachable,
            &mut self.views.partial,
            &mut self.views.unasked,
            &mut self.views.blink,
            &mut self.views.bot_unreachable,
            &mut self.views.ci_errors,
            &mut self.views.bot_errors,
            &mut self.views.locked,
        ] {
            for end in ends.values_mut() {
                *end = soon.min(*end);
            }
        }
        self.after(MINUTE, Event::Ask(Ask::Resume));
        for bot in 0..self.bots.len() {
            if self.bots[bot].wedged {
                self.after(2 * MINUTE, Event::BotUp(bot));
            }
        }
        self.after(MINUTE, Event::GithubUp);
        self.after(MINUTE, Event::QuotaBack);
        for repo in 0..self.repos.len() {
            self.after(MINUTE, Event::TreeOpens(repo));
        }
    }

    /// A machine may stay frozen for good where others can do its work.
    fn stays_frozen(&mut self, ci: usize, worker: usize) -> bool {
        let others = self.cis[ci].workers[worker].serves.iter().all(|builder| {
            self.cis[ci].workers.iter().enumerate().any(|(place, one)| {
                place != worker
                    && one.health == Health::Well
                    && one.connected
                    && one.serves.contains(builder)
            })
        });
        others && self.random.chance(500)
    }
}
