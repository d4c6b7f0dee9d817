//! What the bot's adapter does with a request, and what may become of it on the way.

use ci_watchdog::model::{Intent, Outcome, Sha, Step};

use super::bot::{Crash, Packet, Status};
use super::github::Commit;
use super::tally::Fault;
use super::world::{Event, MINUTE, SECOND, World};

/// A request that reached the bot and has its effect later.
#[derive(Clone, Debug)]
pub struct Late {
    /// The repository.
    pub repo: usize,
    /// The request.
    pub step: Step,
    /// The attempt it belongs to.
    pub attempt: String,
}

impl World {
    /// Sends one request; gives back what the adapter says of it, and how long that took.
    pub fn request(&mut self, bot: usize, repo: usize, intent: &Intent) -> (Outcome, u64) {
        let step = &intent.step;
        let quick = self.random.range(20, 800);
        if let Step::Restart { .. } = step {
            return self.restart(bot);
        }
        if let Err(why) = self.precondition(bot, repo, intent) {
            return (Outcome::NotSent(why), quick);
        }
        let unreachable = self
            .views
            .bot_unreachable
            .get(&bot)
            .is_some_and(|until| self.now < *until);
        if !self.bots[bot].up || unreachable || self.strikes(Fault::RequestNotSent) {
            return (Outcome::NotSent("connection refused".to_owned()), quick);
        }
        let late = Late {
            repo,
            step: step.clone(),
            attempt: intent.attempt.to_string(),
        };
        if self.strikes(Fault::RequestRefused) {
            return (Outcome::Refused("HTTP 502".to_owned()), quick);
        }
        if self.strikes(Fault::RequestLost) {
            return (Outcome::Unanswered("timeout".to_owned()), 10 * SECOND);
        }
        if self.strikes(Fault::EffectSlow) {
            let pause = self.random.range(5 * SECOND, 100 * SECOND);
            self.after(pause, Event::Late(late));
            return (Outcome::Unanswered("timeout".to_owned()), 10 * SECOND);
        }
        let crash = self.apply(&late).is_err();
        if self.strikes(Fault::AnswerLost) {
            (Outcome::Unanswered("timeout".to_owned()), 10 * SECOND)
        } else if crash || self.strikes(Fault::RefusedAndDone) {
            (Outcome::Refused("HTTP 500".to_owned()), quick)
        } else {
            (Outcome::Accepted("HTTP 200".to_owned()), quick)
        }
    }

    /// The operator's command: it ends the bot's process, and starts another.
    fn restart(&mut self, bot: usize) -> (Outcome, u64) {
        let took = self.random.range(SECOND / 2, 4 * SECOND);
        if self.strikes(Fault::RestartFails) {
            return (Outcome::Refused("exit status: 1".to_owned()), took);
        }
        self.tell(format_args!("bot {bot} is restarted"));
        self.bots[bot].up = false;
        self.bots[bot].wedged = false;
        let pause = took + self.random.range(SECOND, 2 * MINUTE);
        self.after(pause, Event::BotUp(bot));
        (Outcome::Accepted("exit status: 0".to_owned()), took)
    }

    /// A request has its effect late.
    pub fn apply_late(&mut self, late: &Late) {
        if self.bots[self.repos[late.repo].bot].up {
            // Nobody hears of a crash any more.
            let _ = self.apply(late);
        }
    }

    /// What the adapter reads right before it sends.
    fn precondition(&self, bot: usize, repo: usize, intent: &Intent) -> Result<(), String> {
        // A message wants both witnesses, a command takes either.
        let pending = |pull: u64, sha: Option<&Sha>, both: bool| {
            let row = self.repos[repo].rows.get(&pull);
            let stored = row.is_some_and(|row| row.status == Status::Pending);
            let states = &self.repos[repo].states;
            let on_page = states.get(&pull).map(|state| state.status);
            let shown = on_page == Some(Status::Pending);
            if !stored && !shown || both && stored != shown {
                return Err("not pending any more".to_owned());
            }
            match (row.and_then(|row| row.merge), sha) {
                (Some(stored), Some(sha)) if &stored.sha() != sha => {
                    Err("pending on another commit".to_owned())
                }
                (Some(_) | None, Some(_) | None) => Ok(()),
            }
        };
        let on_github = |pull: u64, head: Option<&Sha>| {
            let true_one = self.github.pulls.get(&pull).filter(|_| !self.github.down);
            match (true_one, head) {
                (Some(pull), Some(head)) if pull.open && &pull.head.sha() == head => Ok(()),
                (Some(pull), None) if !pull.open => Ok(()),
                (Some(_) | None, Some(_) | None) => Err("GitHub says otherwise".to_owned()),
            }
        };
        let github_answers = || {
            if self.github.down {
                Err("GitHub does not answer".to_owned())
            } else {
                Ok(())
            }
        };
        match &intent.step {
            Step::ReleaseSlot { .. } => Ok(()),
            Step::ReplayResult { .. } if !self.bots[bot].replays => {
                Err("results of this system cannot be replayed".to_owned())
            }
            Step::ReplayResult { pull, sha, .. } | Step::ForgetGreen { pull, sha, .. } => {
                pending(*pull, Some(sha), true)
            }
            Step::Retry { pull } => {
                pending(*pull, intent.merge_sha.as_ref(), false)?;
                github_answers()
            }
            Step::Nudge { .. } => github_answers(),
            Step::ReplayClosed { pull } => on_github(*pull, None),
            Step::ReplaySynchronize { pull, head } => on_github(*pull, Some(head)),
            // A command, and no request to it.
            Step::Restart { .. } => Ok(()),
        }
    }

    /// The request has its effect in the bot.
    fn apply(&mut self, late: &Late) -> Result<(), Crash> {
        let Late {
            repo,
            step,
            attempt,
        } = late;
        let repo = *repo;
        let bot = self.repos[repo].bot;
        match step {
            Step::ReleaseSlot { shas } => {
                let packets: Vec<Packet> = shas
                    .iter()
                    .filter_map(Commit::of)
                    .map(|commit| Packet::Started {
                        builder: None,
                        commit,
                        number: 0,
                    })
                    .collect();
                self.packets(bot, &packets)
            }
            Step::ReplayResult {
                sha,
                builder,
                report,
                ..
            } => match Commit::of(sha) {
                Some(commit) => self.packets(
                    bot,
                    &[Packet::Finished {
                        builder: builder.clone(),
                        commit,
                        number: report.number.unwrap_or(0),
                        green: report.green,
                    }],
                ),
                None => Ok(()),
            },
            Step::ForgetGreen { sha, builders, .. } => {
                let packets: Vec<Packet> = builders
                    .iter()
                    .filter_map(|(builder, url)| {
                        let number = url.rsplit('/').next()?.parse().ok()?;
                        Some(Packet::Started {
                            builder: Some(builder.clone()),
                            commit: Commit::of(sha)?,
                            number,
                        })
                    })
                    .collect();
                self.packets(bot, &packets)
            }
            Step::Retry { pull } => {
                let pending = self.repos[repo]
                    .states
                    .get(pull)
                    .is_some_and(|state| state.status == Status::Pending);
                let database = self.repos[repo]
                    .rows
                    .get(pull)
                    .is_some_and(|row| row.status == Status::Pending);
                if pending || database {
                    self.tally.reruns += 1;
                    self.note_rerun(repo, *pull, attempt);
                }
                self.retry(repo, *pull)
            }
            Step::Nudge { .. } => self.process_queue(bot),
            Step::ReplayClosed { pull } => self.closed(repo, *pull),
            // A command, and no request to it.
            Step::Restart { .. } => Ok(()),
            Step::ReplaySynchronize { pull, head } => {
                let fork = self.bots[bot].fork;
                match Commit::of(head) {
                    Some(head) if self.repos[repo].states.contains_key(pull) => {
                        self.repos[repo].head_advanced(fork, *pull, head);
                        Ok(())
                    }
                    Some(_) | None => Err(Crash),
                }
            }
        }
    }

    fn note_rerun(&mut self, repo: usize, pull: u64, attempt: &str) {
        let label = self.repos[repo].label.clone();
        self.tell(format_args!(
            "rerun of {label}#{pull} took effect ({attempt})"
        ));
        let times = self.effective.entry(attempt.to_owned()).or_default();
        *times += 1;
        if *times > 1 {
            let times = *times;
            self.break_rule(format!("attempt {attempt} took effect {times} times"));
        }
    }

    /// How long a look at one source takes.
    pub fn look_time(&mut self) -> u64 {
        if self.strikes(Fault::SlowLook) {
            self.random.range(4 * SECOND, 19 * SECOND)
        } else {
            self.random.range(30, 900)
        }
    }

    /// How long the process is away.
    pub fn downtime(&mut self) -> u64 {
        if self.random.chance(750) {
            self.random.range(SECOND, MINUTE)
        } else {
            self.random.range(MINUTE, 45 * MINUTE)
        }
    }
}
