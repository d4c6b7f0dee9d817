//! The simulated world: its parts, its clock, and what happens in it when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::bot::{Bot, Packet, Repo, Status};
use super::ci::{Ci, Stage};
use super::github::{Commit, Github};
use super::operators::Ask;
use super::random::Random;
use super::tally::{Fault, FaultSet, Tally};

/// Milliseconds in a second.
pub const SECOND: u64 = 1000;
/// Milliseconds in a minute.
pub const MINUTE: u64 = 60 * SECOND;
/// Milliseconds in an hour.
pub const HOUR: u64 = 60 * MINUTE;

/// Everything but the watchdog.
#[derive(Clone, Debug)]
pub struct World {
    /// Real time, ms.
    pub now: u64,
    /// How far the wall clock is from it, ms.
    pub wall_is_off: i64,
    /// The source of chance.
    pub random: Random,
    /// What happened.
    pub tally: Tally,
    /// How often what goes wrong.
    pub weather: Weather,
    /// GitHub.
    pub github: Github,
    /// The bots.
    pub bots: Vec<Bot>,
    /// All repositories of all bots.
    pub repos: Vec<Repo>,
    /// The CI systems.
    pub cis: Vec<Ci>,
    /// What the watchdog cannot see for now.
    pub views: Views,
    /// Red results that a bot took in: CI system, builder, number.
    pub heard_red: BTreeSet<(usize, usize, u64)>,
    /// What operators ask the watchdog for, in its order.
    pub asks: VecDeque<Ask>,
    /// How often each attempt to rerun took effect.
    pub effective: BTreeMap<String, u32>,
    /// Rules of the world that were broken; the seed fails.
    pub broken: Vec<String>,
    agenda: BTreeMap<(u64, u64), Event>,
    sequence: u64,
}

/// How often what goes wrong, times in a thousand.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Faults are over.
    pub calm: bool,
    /// By kind.
    pub rates: BTreeMap<Fault, u64>,
    /// What is forced on or off.
    pub set: FaultSet,
}

/// Until when the watchdog's view of a source is spoilt, by the place of the source.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// A CI system does not answer.
    pub ci_unreachable: BTreeMap<usize, u64>,
    /// It answers with errors.
    pub ci_errors: BTreeMap<usize, u64>,
    /// It answers its history in part.
    pub partial: BTreeMap<usize, u64>,
    /// It is not asked for its history.
    pub unasked: BTreeMap<usize, u64>,
    /// Runs are missing in its answers, because they moved while it was read.
    pub blink: BTreeMap<usize, u64>,
    /// A bot does not answer the watchdog.
    pub bot_unreachable: BTreeMap<usize, u64>,
    /// It answers with errors.
    pub bot_errors: BTreeMap<usize, u64>,
    /// Its database is locked.
    pub locked: BTreeMap<usize, u64>,
}

/// A message on its way.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Message {
    Push {
        repo: usize,
        commit: Commit,
        try_: bool,
    },
    Rebuild {
        ci: usize,
        builder: usize,
        commit: Commit,
    },
    Packet {
        bot: usize,
        packet: Packet,
    },
    Closed {
        repo: usize,
        pull: u64,
    },
    Synchronize {
        repo: usize,
        pull: u64,
        head: Commit,
    },
    Retry {
        repo: usize,
        pull: u64,
    },
    Try {
        repo: usize,
        pull: u64,
    },
}

/// What happens by itself.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Event {
    Message(Message),
    Claim(usize),
    Run {
        ci: usize,
        request: u64,
        tries: u32,
    },
    Notice {
        ci: usize,
        worker: usize,
    },
    Revive {
        ci: usize,
        worker: usize,
    },
    Thaw {
        ci: usize,
        worker: usize,
    },
    Unpause {
        ci: usize,
        worker: usize,
    },
    MasterUp(usize),
    RunsDie(usize),
    BotUp(usize),
    GithubUp,
    QuotaBack,
    TreeOpens(usize),
    Ask(Ask),
    Approve {
        repo: usize,
        pull: u64,
        patience: u32,
    },
    Late(super::requests::Late),
    Strike(Fault),
}

impl Message {
    /// The fault that loses it.
    fn loss(&self) -> Option<Fault> {
        match self {
            Self::Push { .. } => Some(Fault::LostPush),
            Self::Packet {
                packet: Packet::Started { .. },
                ..
            } => Some(Fault::LostStarted),
            Self::Packet {
                packet: Packet::Finished { .. },
                ..
            } => Some(Fault::LostFinished),
            Self::Closed { .. } => Some(Fault::LostClosed),
            Self::Synchronize { .. } => Some(Fault::LostSynchronize),
            Self::Rebuild { .. } | Self::Retry { .. } | Self::Try { .. } => None,
        }
    }
}

impl Weather {
    /// How often this goes wrong now.
    pub fn rate(&self, fault: Fault) -> u64 {
        if self.calm || self.set.without.contains(&fault) {
            0
        } else {
            self.rates.get(&fault).copied().unwrap_or(0)
        }
    }
}

impl World {
    /// A world in which nothing is yet.
    pub fn new(seed: u64, verbose: bool) -> Self {
        Self {
            now: 0,
            wall_is_off: 0,
            random: Random::new(seed),
            tally: Tally::new(verbose),
            weather: Weather::default(),
            github: Github::default(),
            bots: Vec::new(),
            repos: Vec::new(),
            cis: Vec::new(),
            views: Views::default(),
            heard_red: BTreeSet::new(),
            asks: VecDeque::new(),
            effective: BTreeMap::new(),
            broken: Vec::new(),
            agenda: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// The clock that counts suspend, since boot.
    pub fn boot_clock(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    /// The wall clock, since the world began; it may be set.
    pub fn wall_clock(&self) -> Duration {
        Duration::from_millis(self.now.saturating_add_signed(self.wall_is_off))
    }

    /// Lets everything happen that is due up to then.
    pub fn run_until(&mut self, until: u64) {
        while let Some(entry) = self.agenda.first_entry() {
            let due = entry.key().0;
            if due > until {
                break;
            }
            let event = entry.remove();
            self.now = self.now.max(due);
            self.happen(event);
        }
        self.now = self.now.max(until);
    }

    /// Puts something on the agenda.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.agenda
            .insert((self.now.saturating_add(delay), self.sequence), event);
    }

    /// Whether messages, late requests or approvals are on their way.
    pub fn quiet(&self) -> bool {
        self.agenda.values().all(|event| match event {
            Event::Message(_)
            | Event::Late(_)
            | Event::Approve { .. }
            | Event::BotUp(_)
            | Event::Ask(_) => false,
            Event::Claim(_)
            | Event::Run { .. }
            | Event::Notice { .. }
            | Event::Revive { .. }
            | Event::Thaw { .. }
            | Event::Unpause { .. }
            | Event::MasterUp(_)
            | Event::RunsDie(_)
            | Event::GithubUp
            | Event::QuotaBack
            | Event::TreeOpens(_)
            | Event::Strike(_) => true,
        })
    }

    /// The late requests that are still on their way.
    pub fn late_requests(&self) -> impl Iterator<Item = &super::requests::Late> {
        self.agenda.values().filter_map(|event| {
            if let Event::Late(late) = event {
                Some(late)
            } else {
                None
            }
        })
    }

    /// Whether a fault strikes now; then it is counted.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let rate = self.weather.rate(fault);
        let strikes = rate > 0 && self.random.chance(rate);
        if strikes {
            self.fault(fault);
        }
        strikes
    }

    /// Counts a fault.
    pub fn fault(&mut self, fault: Fault) {
        self.tally.fault(self.now, fault);
    }

    /// Writes something into the trace.
    pub fn tell(&mut self, what: fmt::Arguments<'_>) {
        self.tally.tell(self.now, what);
    }

    /// A rule was broken.
    pub fn break_rule(&mut self, what: String) {
        self.tally.tell(self.now, format_args!("BROKEN {what}"));
        self.broken
            .push(format!("at {:.1} s: {what}", self.now as f64 / 1000.0));
    }

    /// Sends a message after its usual time, or loses it.
    pub fn post(&mut self, message: Message) {
        self.post_after(0, message);
    }

    /// The same, so much later.
    pub fn post_after(&mut self, later: u64, message: Message) {
        if message.loss().is_some_and(|loss| self.strikes(loss)) {
            return;
        }
        let usual = match &message {
            Message::Push { .. } if self.strikes(Fault::SlowPush) => {
                self.random.range(MINUTE / 2, 4 * MINUTE)
            }
            Message::Push { .. } => self.random.range(500, 8 * SECOND),
            // The answer to the bot comes when the request is there.
            Message::Rebuild { .. } => 0,
            Message::Packet { .. }
            | Message::Closed { .. }
            | Message::Synchronize { .. }
            | Message::Retry { .. }
            | Message::Try { .. } => self.random.range(100, 4 * SECOND),
        };
        if later + usual == 0 {
            self.deliver(message);
        } else {
            self.after(later + usual, Event::Message(message));
        }
    }

    /// Whether a bot is down, so that a message does not reach it: it is lost, or sent once more.
    fn misses(&mut self, bot: usize, message: &Message) -> bool {
        if self.bots[bot].up {
            return false;
        }
        let loss = message.loss();
        let lost = loss.is_some_and(|loss| self.weather.rate(loss) > 0);
        if lost && self.weather.rate(Fault::MessageWhileDown) > 0 {
            self.fault(Fault::MessageWhileDown);
        } else if loss.is_some() {
            self.after(MINUTE / 2, Event::Message(message.clone()));
        }
        true
    }

    fn deliver(&mut self, message: Message) {
        let bot = match &message {
            Message::Packet { bot, .. } => Some(*bot),
            Message::Closed { repo, .. }
            | Message::Synchronize { repo, .. }
            | Message::Retry { repo, .. }
            | Message::Try { repo, .. } => Some(self.repos[*repo].bot),
            Message::Push { .. } | Message::Rebuild { .. } => None,
        };
        if bot.is_some_and(|bot| self.misses(bot, &message)) {
            return;
        }
        match message {
            Message::Push { repo, commit, try_ } => {
                let ci = self.repos[repo].ci;
                if let Some(thaws) = self.cis[ci].frozen_until {
                    // It is accepted, and taken in later.
                    let later = thaws.saturating_sub(self.now) + SECOND;
                    self.after(later, Event::Message(Message::Push { repo, commit, try_ }));
                    return;
                }
                if !self.cis[ci].up {
                    // Lost as any other, or found by a poller.
                    if self.weather.rate(Fault::LostPush) > 0 {
                        self.fault(Fault::LostPush);
                    } else {
                        self.after(MINUTE, Event::Message(Message::Push { repo, commit, try_ }));
                    }
                    return;
                }
                let builders = self.repos[repo].expected(try_).to_vec();
                for builder in builders {
                    self.cis[ci].submit(self.now, builder, commit);
                }
                self.after(SECOND, Event::Claim(ci));
            }
            Message::Rebuild {
                ci,
                builder,
                commit,
            } => {
                self.cis[ci].submit(self.now, builder, commit);
                self.after(SECOND, Event::Claim(ci));
            }
            Message::Packet { bot, packet } => {
                // What a crash leaves half done is part of the world.
                let _ = self.packets(bot, &[packet]);
            }
            Message::Closed { repo, pull } => {
                let _ = self.closed(repo, pull);
            }
            Message::Synchronize { repo, pull, head } => {
                let fork = self.bots[self.repos[repo].bot].fork;
                self.repos[repo].head_advanced(fork, pull, head);
            }
            Message::Retry { repo, pull } => {
                let _ = self.retry(repo, pull);
            }
            Message::Try { repo, pull } => {
                // A person who sees that it was approved meanwhile does not try it.
                let state = self.repos[repo].states.get(&pull);
                if state.is_some_and(|state| state.status == Status::None && !state.approved) {
                    let _ = self.try_pull(repo, pull);
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.deliver(message),
            Event::Claim(ci) => self.claim(ci),
            Event::Run { ci, request, tries } => self.advance_run(ci, request, tries),
            Event::Notice { ci, worker } => self.notice(ci, worker),
            Event::Revive { ci, worker } => self.revive(ci, worker),
            Event::Thaw { ci, worker } => self.thaw(ci, worker),
            Event::Unpause { ci, worker } => {
                self.cis[ci].workers[worker].paused = false;
                self.claim(ci);
            }
            Event::MasterUp(ci) => self.master_up(ci),
            Event::RunsDie(ci) => self.runs_die(ci),
            Event::BotUp(bot) => {
                let wanted = !self.bots[bot].up;
                if wanted && !self.boot(bot) {
                    self.after(MINUTE, Event::BotUp(bot));
                }
            }
            Event::GithubUp => self.github.down = false,
            Event::QuotaBack => self.github.quota_low = false,
            Event::TreeOpens(repo) => self.repos[repo].tree_closed = None,
            Event::Ask(ask) => self.asks.push_back(ask),
            Event::Approve {
                repo,
                pull,
                patience,
            } => self.person_approves(repo, pull, patience),
            Event::Late(late) => self.apply_late(&late),
            Event::Strike(fault) => {
                if !self.weather.calm {
                    self.strike(fault);
                }
            }
        }
    }

    /// Only what every builder really passed may be merged, and only while it is open and approved.
    pub fn check_merge(&mut self, repo: usize, pull: u64, merge: Commit) {
        let ci = &self.cis[self.repos[repo].ci];
        let green = self.repos[repo].builders.iter().all(|builder| {
            ci.of(merge, *builder)
                .any(|(_, request)| match request.stage {
                    Stage::Ended { end, .. } => end.green() == Some(true),
                    Stage::Queued | Stage::Preparing { .. } | Stage::Running => false,
                })
        });
        if !green {
            self.break_rule(format!(
                "#{pull} was merged by {merge:?}, which is not green"
            ));
        }
    }
}
