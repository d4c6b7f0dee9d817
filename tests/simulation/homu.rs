//! What homu 0.2.0 does (`main.py`, `server.py`), as far as it decides.

use std::collections::BTreeMap;

use ci_watchdog::model::BuilderName;

use super::bot::{Crash, Fork, Packet, State, Status, Told};
use super::github::Commit;
use super::tally::Fault;
use super::world::{MINUTE, Message, World};

impl World {
    /// `process_queue`.
    ///
    /// # Errors
    ///
    /// An exception: GitHub down, a head that is not GitHub's, Buildbot down in a rebuild.
    pub fn process_queue(&mut self, bot: usize) -> Result<(), Crash> {
        let places = self.bots[bot].repos.clone();
        for repo in places {
            let mut order: Vec<((u8, bool, i64, u64), u64)> = self.repos[repo]
                .states
                .iter()
                .map(|(number, state)| (state.order(*number), *number))
                .collect();
            order.sort_unstable();
            let closed = self.repos[repo].tree_closed;
            for (_, pull) in &order {
                let Some(state) = self.repos[repo].states.get_mut(pull) else {
                    continue;
                };
                if state.status == Status::Pending && !state.try_ {
                    break;
                }
                let may_start = closed.is_none_or(|least| state.priority >= least);
                if state.status == Status::None && state.approved && may_start {
                    if self.start_rebuild(bot, repo, *pull)?
                        || self.start_build(bot, repo, *pull)?
                    {
                        return Ok(());
                    }
                } else if state.status == Status::Success && state.try_ && state.approved {
                    state.try_ = false;
                    if self.start_build(bot, repo, *pull)? {
                        return Ok(());
                    }
                }
            }
            for (_, pull) in &order {
                let tries = self.repos[repo]
                    .states
                    .get(pull)
                    .is_some_and(|state| state.status == Status::None && state.try_);
                if tries && self.start_build(bot, repo, *pull)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// `start_build`.
    fn start_build(&mut self, bot: usize, repo: usize, pull: u64) -> Result<bool, Crash> {
        if self.bots[bot].fork == Fork::Pypi && self.bots[bot].slot.is_some() {
            return Ok(true);
        }
        self.github_answers()?;
        let fork = self.bots[bot].fork;
        let now = self.now;
        let on_github = self.github.pulls.get(&pull).map(|pull| pull.head);
        let Some(state) = self.repos[repo].states.get_mut(&pull) else {
            return Ok(false);
        };
        if on_github != Some(state.head) {
            // `assert state.head_sha == state.repo.pull_request(state.num).head.sha`
            return Err(Crash);
        }
        let try_ = state.try_;
        let head = state.head;
        let Some(branches) = self.github.branches.get(&repo).copied() else {
            return Err(Crash);
        };
        let merge = self.github.merge(branches.master, head);
        if let Some(branches) = self.github.branches.get_mut(&repo) {
            if try_ {
                branches.try_ = Some(merge);
            } else {
                branches.auto = Some(merge);
            }
        }
        let repository = &mut self.repos[repo];
        repository.forget_results(pull);
        let expected: Vec<usize> = repository.expected(try_).to_vec();
        if let Some(state) = repository.states.get_mut(&pull) {
            state.results = expected.iter().map(|one| (*one, Told::default())).collect();
            state.merge = Some(merge);
            state.status = Status::Pending;
            state.pending_since = now;
        }
        self.save(repo, pull);
        if fork == Fork::Pypi {
            self.bots[bot].slot = Some(merge);
        }
        self.tell(format_args!("bot starts #{pull} as {merge:?} (try {try_})"));
        self.push(repo, merge, try_);
        Ok(true)
    }

    /// `start_rebuild`: only what is not green, on the same commit, without the slot.
    fn start_rebuild(&mut self, bot: usize, repo: usize, pull: u64) -> Result<bool, Crash> {
        if self.bots[bot].fork != Fork::Pypi {
            return Ok(false);
        }
        let repository = &self.repos[repo];
        let Some(state) = repository.states.get(&pull) else {
            return Ok(false);
        };
        let all_known = state.results.values().all(|told| told.number.is_some());
        let (green, rest): (Vec<usize>, Vec<usize>) = state
            .results
            .iter()
            .map(|(builder, told)| (*builder, told.green == Some(true)))
            .fold((Vec::new(), Vec::new()), |mut both, (builder, green)| {
                if green { &mut both.0 } else { &mut both.1 }.push(builder);
                both
            });
        let Some(merge) = state.merge.filter(|_| all_known) else {
            return Ok(false);
        };
        if green.is_empty() || rest.is_empty() {
            return Ok(false);
        }
        self.github_answers()?;
        let base = self.github.parents.get(&merge).map(|(base, _)| *base);
        let master = self.github.branches.get(&repo).map(|one| one.master);
        if base != master {
            return Ok(false);
        }
        if !self.cis[repository.ci].up || self.cis[repository.ci].frozen_until.is_some() {
            // `requests` raises `ConnectionError`.
            return Err(Crash);
        }
        if self.strikes(Fault::RebuildRefused) {
            return Ok(false);
        }
        let now = self.now;
        let ci = self.repos[repo].ci;
        for builder in rest {
            self.rebuild(ci, builder, merge);
        }
        if let Some(state) = self.repos[repo].states.get_mut(&pull) {
            state.status = Status::Pending;
            state.pending_since = now;
        }
        self.save(repo, pull);
        self.tell(format_args!("bot rebuilds #{pull} in part on {merge:?}"));
        Ok(true)
    }

    /// `set_status`; the database may be locked for longer than the bot waits, which it does not
    /// notice.
    fn save(&mut self, repo: usize, pull: u64) {
        let fork = self.bots[self.repos[repo].bot].fork;
        // A row of servo's that is left from a build of the other kind is not modelled.
        if fork == Fork::Servo || !self.strikes(Fault::WriteLost) {
            self.repos[repo].save(fork, pull);
        }
    }

    fn github_answers(&self) -> Result<(), Crash> {
        if self.github.down { Err(Crash) } else { Ok(()) }
    }

    /// `report_build_res`.
    fn report(
        &mut self,
        (repo, pull): (usize, u64),
        builder: usize,
        number: u64,
        green: bool,
    ) -> Result<(), Crash> {
        let bot = self.repos[repo].bot;
        self.repos[repo].set_result(
            pull,
            builder,
            Told {
                green: Some(green),
                number: Some(number),
            },
        );
        let now = self.now;
        if !green {
            let ci = self.repos[repo].ci;
            self.heard_red.insert((ci, builder, number));
        }
        let Some(state) = self.repos[repo].states.get_mut(&pull) else {
            return Ok(());
        };
        let all_green = state.results.values().all(|told| told.green == Some(true));
        if green && all_green {
            state.status = Status::Success;
            let (merge, merges) = (state.merge, state.approved && !state.try_);
            self.save(repo, pull);
            self.tally.tell(now, format_args!("bot: #{pull} is green"));
            self.github_answers()?;
            if let (true, Some(merge)) = (merges, merge) {
                self.fast_forward(repo, pull, merge);
            }
        } else if !green && state.status == Status::Pending {
            state.status = Status::Failure;
            self.save(repo, pull);
            self.tally.failed += 1;
            self.tally.tell(now, format_args!("bot: #{pull} failed"));
            self.github_answers()?;
        }
        self.process_queue(bot)
    }

    fn fast_forward(&mut self, repo: usize, pull: u64, merge: Commit) {
        let base = self.github.parents.get(&merge).map(|(base, _)| *base);
        let fork = self.bots[self.repos[repo].bot].fork;
        let master = self.github.branches.get(&repo).map(|one| one.master);
        if base != master {
            if let Some(state) = self.repos[repo].states.get_mut(&pull) {
                state.status = Status::Error;
            }
            self.repos[repo].save(fork, pull);
            return;
        }
        self.check_merge(repo, pull, merge);
        if let Some(branches) = self.github.branches.get_mut(&repo) {
            branches.master = merge;
        }
        if let Some(on_github) = self.github.pulls.get_mut(&pull) {
            on_github.open = false;
            on_github.merged = true;
        }
        self.tally.merged += 1;
        self.tell(format_args!("merged #{pull} by {merge:?}"));
        self.post(Message::Closed { repo, pull });
    }

    /// `POST /buildbot` and `POST /travis`.
    ///
    /// # Errors
    ///
    /// An exception; packets before it had their effect.
    pub fn packets(&mut self, bot: usize, packets: &[Packet]) -> Result<(), Crash> {
        for packet in packets {
            match packet {
                Packet::Started {
                    builder,
                    commit,
                    number,
                } => self.started(bot, builder.as_ref(), *commit, *number)?,
                Packet::Finished {
                    builder,
                    commit,
                    number,
                    green,
                } => {
                    let Some((repo, pull)) = self.find_state(bot, *commit) else {
                        continue;
                    };
                    let Some(place) = self.place_of(repo, pull, builder) else {
                        continue;
                    };
                    self.report((repo, pull), place, *number, *green)?;
                }
            }
        }
        Ok(())
    }

    fn started(
        &mut self,
        bot: usize,
        builder: Option<&BuilderName>,
        commit: Commit,
        number: u64,
    ) -> Result<(), Crash> {
        // A bot that builds on Travis hears of no starts.
        if self.bots[bot].fork == Fork::Servo {
            return Ok(());
        }
        if let (Some(builder), Some((repo, pull))) = (builder, self.find_state(bot, commit))
            && let Some(place) = self.place_of(repo, pull, builder)
        {
            self.repos[repo].set_result(
                pull,
                place,
                Told {
                    green: None,
                    number: Some(number),
                },
            );
        }
        if self.bots[bot].slot == Some(commit) {
            self.bots[bot].slot = None;
            self.tell(format_args!("bot: slot free of {commit:?}"));
            self.process_queue(bot)?;
        }
        Ok(())
    }

    /// `find_state`: whatever its status.
    pub fn find_state(&self, bot: usize, commit: Commit) -> Option<(usize, u64)> {
        self.bots[bot].repos.iter().find_map(|repo| {
            self.repos[*repo]
                .states
                .iter()
                .find(|(_, state)| state.merge == Some(commit))
                .map(|(pull, _)| (*repo, *pull))
        })
    }

    fn place_of(&self, repo: usize, pull: u64, builder: &BuilderName) -> Option<usize> {
        let place = self.cis[self.repos[repo].ci].builder(builder)?;
        let state = self.repos[repo].states.get(&pull)?;
        state.results.contains_key(&place).then_some(place)
    }

    /// A comment with `retry`.
    ///
    /// # Errors
    ///
    /// An exception; what it did before it stays.
    pub fn retry(&mut self, repo: usize, pull: u64) -> Result<(), Crash> {
        let bot = self.repos[repo].bot;
        let fork = self.bots[bot].fork;
        if let Some(state) = self.repos[repo].states.get_mut(&pull) {
            state.status = Status::None;
            self.repos[repo].save(fork, pull);
            self.process_queue(bot)
        } else {
            Ok(())
        }
    }

    /// A comment with `r+`.
    ///
    /// # Errors
    ///
    /// See [`World::retry`].
    pub fn approve(&mut self, repo: usize, pull: u64, head: Commit) -> Result<(), Crash> {
        let bot = self.repos[repo].bot;
        match self.repos[repo].states.get_mut(&pull) {
            Some(state) if state.head == head => {
                state.approved = true;
                self.process_queue(bot)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A comment with `try`.
    ///
    /// # Errors
    ///
    /// See [`World::retry`].
    pub fn try_pull(&mut self, repo: usize, pull: u64) -> Result<(), Crash> {
        let bot = self.repos[repo].bot;
        if let Some(state) = self.repos[repo].states.get_mut(&pull) {
            state.try_ = true;
            state.merge = None;
            state.results.clear();
            self.repos[repo].forget_results(pull);
        }
        self.process_queue(bot)
    }

    /// `pull_request` with `closed`.
    ///
    /// # Errors
    ///
    /// See [`World::retry`]; also for a pull request that it does not know.
    pub fn closed(&mut self, repo: usize, pull: u64) -> Result<(), Crash> {
        let bot = self.repos[repo].bot;
        let repository = &mut self.repos[repo];
        repository.states.remove(&pull).ok_or(Crash)?;
        repository.rows.remove(&pull);
        repository.forget_results(pull);
        self.process_queue(bot)
    }

    /// The process starts: memory is made from GitHub and the database.
    pub fn boot(&mut self, bot: usize) -> bool {
        if self.github.down {
            return false;
        }
        let fork = self.bots[bot].fork;
        self.bots[bot].up = true;
        self.bots[bot].wedged = false;
        self.bots[bot].slot = None;
        for repo in self.bots[bot].repos.clone() {
            let open: Vec<(u64, Commit, bool)> = self
                .github
                .pulls
                .iter()
                .filter(|(_, pull)| pull.repo == repo && pull.open)
                .map(|(number, pull)| (*number, pull.head, pull.approved == Some(pull.head)))
                .collect();
            let repository = &mut self.repos[repo];
            repository
                .rows
                .retain(|number, _| open.iter().any(|(one, _, _)| one == number));
            let builders = repository.builders.clone();
            let mut states = BTreeMap::new();
            for (number, head, approved) in open {
                let mut state = State::new(head);
                state.approved = approved;
                state.priority = repository.states.get(&number).map_or(0, |s| s.priority);
                let since = repository
                    .states
                    .get(&number)
                    .map_or(0, |s| s.pending_since);
                if let Some(row) = repository.rows.get(&number) {
                    state.status = row.status;
                    state.try_ = row.try_;
                    state.pending_since = since;
                    match row.merge {
                        Some(merge) => {
                            state.merge = Some(merge);
                            state.results =
                                builders.iter().map(|one| (*one, Told::default())).collect();
                        }
                        // In memory only: the database still says pending.
                        None if state.status == Status::Pending => state.status = Status::None,
                        None => {}
                    }
                }
                states.insert(number, state);
            }
            repository
                .results
                .retain(|(number, builder), (merge, told)| {
                    let known = states.get_mut(number).filter(|state| {
                        state.merge == Some(*merge) && state.results.contains_key(builder)
                    });
                    match known {
                        Some(state) => {
                            state.results.insert(*builder, *told);
                            true
                        }
                        None => false,
                    }
                });
            repository.states = states;
        }
        self.tell(format_args!("bot {bot} starts ({fork:?})"));
        // An exception here ends the main thread; the server's goes on.
        let _ = self.process_queue(bot);
        true
    }

    /// A push to a branch that the CI system builds.
    fn push(&mut self, repo: usize, commit: Commit, try_: bool) {
        self.post(Message::Push { repo, commit, try_ });
    }

    /// `POST <url>/rebuild`: answered well, and then the request is there at once, late, or never.
    fn rebuild(&mut self, ci: usize, builder: usize, commit: Commit) {
        if self.strikes(Fault::LostRebuild) {
            return;
        }
        let delay = if self.strikes(Fault::SlowRebuild) {
            self.random.range(MINUTE / 2, 4 * MINUTE)
        } else {
            0
        };
        self.post_after(
            delay,
            Message::Rebuild {
                ci,
                builder,
                commit,
            },
        );
    }
}
