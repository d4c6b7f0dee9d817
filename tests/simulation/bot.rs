//! A merge bot's memory and database in the simulated world.

use std::collections::BTreeMap;

use ci_watchdog::model::{BotName, BuilderName, RepoName};

use super::github::Commit;

/// A bot: its memory and its database.
#[derive(Clone, Debug)]
pub struct Bot {
    /// Its name.
    pub name: BotName,
    /// Which of homu's forks it is like.
    pub fork: Fork,
    /// Whether its adapter can give it results at all.
    pub replays: bool,
    /// Whether it runs.
    pub up: bool,
    /// Whether it does not, and its process is there all the same: it takes every connection, and
    /// answers none.
    pub wedged: bool,
    /// The one start slot: the commit whose start it waits for.
    pub slot: Option<Commit>,
    /// The places of its repositories, in the order of its configuration.
    pub repos: Vec<usize>,
}

/// What differs between forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// 0.2.0: one start slot, rebuilds in part on Buildbot, stores no commit of a try build.
    Pypi,
    /// Servo's, with Travis: no slot, no rebuild in part, stores everything.
    Servo,
}

/// A repository, in its bot's configuration and memory.
#[derive(Clone, Debug)]
pub struct Repo {
    /// The bot that serves it.
    pub bot: usize,
    /// Its label.
    pub label: RepoName,
    /// The CI system that builds it.
    pub ci: usize,
    /// Builders of auto builds, by their places in the CI system.
    pub builders: Vec<usize>,
    /// Builders of try builds.
    pub try_builders: Vec<usize>,
    /// Only pull requests of at least this priority start.
    pub tree_closed: Option<i64>,
    /// The bot's memory of its pull requests.
    pub states: BTreeMap<u64, State>,
    /// The bot's database.
    pub rows: BTreeMap<u64, Row>,
    /// The database's results.
    pub results: BTreeMap<(u64, usize), (Commit, Told)>,
}

/// `PullReqState`.
#[derive(Clone, Debug)]
pub struct State {
    /// The head that it knows.
    pub head: Commit,
    /// Whether that is approved.
    pub approved: bool,
    /// Its status.
    pub status: Status,
    /// Whether it is a try build.
    pub try_: bool,
    /// The commit under test.
    pub merge: Option<Commit>,
    /// What it was told of each builder.
    pub results: BTreeMap<usize, Told>,
    /// Its priority.
    pub priority: i64,
    /// When it last became pending.
    pub pending_since: u64,
}

/// A row of the database.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its status.
    pub status: Status,
    /// The commit under test.
    pub merge: Option<Commit>,
    /// Whether it is a try build; 0.2.0 does not store it.
    pub try_: bool,
}

/// `build_res`: a result, and the number in its URL where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Green, red, or not known.
    pub green: Option<bool>,
    /// The run's number.
    pub number: Option<u64>,
}

/// `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing to do, or approved and waiting.
    None,
    /// Waiting for results.
    Pending,
    /// Green.
    Success,
    /// Red.
    Failure,
    /// It could not be merged.
    Error,
}

/// The bot's server answered 500: an exception ended what it did, half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash;

/// What came in a `packets` request.
#[derive(Clone, Debug)]
pub enum Packet {
    /// `buildStarted`.
    Started {
        /// The builder; `None`: one that the bot does not know.
        builder: Option<BuilderName>,
        /// The commit.
        commit: Commit,
        /// The run's number.
        number: u64,
    },
    /// `buildFinished`.
    Finished {
        /// The builder.
        builder: BuilderName,
        /// The commit.
        commit: Commit,
        /// The run's number.
        number: u64,
        /// Green.
        green: bool,
    },
}

impl State {
    /// A pull request that was just opened.
    pub fn new(head: Commit) -> Self {
        Self {
            head,
            approved: false,
            status: Status::None,
            try_: false,
            merge: None,
            results: BTreeMap::new(),
            priority: 0,
            pending_since: 0,
        }
    }

    /// `get_status` and `sort_key`.
    pub fn order(&self, number: u64) -> (u8, bool, i64, u64) {
        let rank = match (self.status, self.approved) {
            (Status::Success, _) => 0,
            (Status::Pending, _) => 1,
            (Status::None, true) => 2,
            (Status::None, false) => 3,
            (Status::Error, _) => 4,
            (Status::Failure, _) => 5,
        };
        (rank, !self.approved, -self.priority, number)
    }
}

impl Repo {
    /// `set_status`: the row is replaced, so that a try build's commit is lost in 0.2.0.
    pub fn save(&mut self, fork: Fork, pull: u64) {
        if let Some(state) = self.states.get(&pull) {
            let stored = !state.try_ || fork == Fork::Servo;
            self.rows.insert(
                pull,
                Row {
                    status: state.status,
                    merge: state.merge.filter(|_| stored),
                    try_: state.try_ && fork == Fork::Servo,
                },
            );
        }
    }

    /// `set_build_res`.
    pub fn set_result(&mut self, pull: u64, builder: usize, told: Told) {
        if let Some(state) = self.states.get_mut(&pull)
            && let Some(merge) = state.merge
        {
            state.results.insert(builder, told);
            self.results.insert((pull, builder), (merge, told));
        }
    }

    /// `init_build_res`, in the database.
    pub fn forget_results(&mut self, pull: u64) {
        self.results.retain(|(number, _), _| *number != pull);
    }

    /// `head_advanced`.
    pub fn head_advanced(&mut self, fork: Fork, pull: u64, head: Commit) {
        if let Some(state) = self.states.get_mut(&pull) {
            *state = State {
                priority: state.priority,
                ..State::new(head)
            };
            self.forget_results(pull);
            self.save(fork, pull);
        }
    }

    /// The places of the builders that a build of this kind waits for.
    pub fn expected(&self, try_: bool) -> &[usize] {
        if try_ {
            &self.try_builders
        } else {
            &self.builders
        }
    }
}
