//! What a stack consists of: repositories, builders, workers.

use super::jobs::Order;

/// The bot's login, which is also the name that it answers to.
pub const BOT: &str = "homu-bot";
/// The one who may approve.
pub const REVIEWER: &str = "reviewer";
/// The author of all pull requests.
pub const AUTHOR: &str = "contributor";
/// The owner of all repositories.
pub const OWNER: &str = "octo";

/// A stack to start.
#[derive(Debug, Clone)]
pub struct StackConfig {
    pub repositories: Vec<RepositoryConfig>,
    pub workers: Vec<WorkerConfig>,
    /// The steps of every run, in order.
    pub steps: Vec<&'static str>,
    /// What steps do that have no order of their own.
    pub default_order: Order,
    /// Whether a rebuild that homu asks for is made, as by a Buildbot 0.8.
    pub rebuilds: bool,
    /// User and password that Buildbot asks for on every path of its API.
    pub buildbot_login: Option<(&'static str, &'static str)>,
    /// Seconds without output after which a worker ends a step (Buildbot: 1200).
    pub step_timeout_seconds: u32,
    /// Seconds for which a worker keeps back output (Buildbot: 5).
    pub output_delay_seconds: f64,
    /// Seconds between the reporter's tries while homu refuses connections.
    pub reporter_retry_delays_seconds: Vec<f64>,
}

/// A repository, as homu's `cfg.toml` and Buildbot's schedulers know it.
#[derive(Debug, Clone)]
pub struct RepositoryConfig {
    /// The name in homu's configuration; on GitHub it is `octo/LABEL`.
    pub label: &'static str,
    pub builders: Vec<String>,
    pub try_builders: Vec<String>,
    /// How many pull requests are open when homu starts, numbered from 1.
    pub pulls: u64,
}

/// A machine that executes runs.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    pub name: String,
    /// Workers of one machine are killed and frozen together.
    pub machine: String,
    pub builders: Vec<String>,
}

impl StackConfig {
    /// `alpha` with the builders `alpha-linux` and `alpha-mac`, and two pull requests.
    pub fn one_repository() -> Self {
        Self::of(vec![RepositoryConfig::of("alpha", &["linux", "mac"])])
    }

    /// `alpha` and `beta`, each with two builders and two pull requests, on the
    /// workers `linux` and `mac`.
    pub fn two_repositories() -> Self {
        Self::of(vec![
            RepositoryConfig::of("alpha", &["linux", "mac"]),
            RepositoryConfig::of("beta", &["linux", "mac"]),
        ])
    }

    /// These repositories, and one worker for each platform, which is what comes
    /// after the dash in a builder's name.
    pub fn of(repositories: Vec<RepositoryConfig>) -> Self {
        let mut workers: Vec<WorkerConfig> = vec![];
        let builders = repositories
            .iter()
            .flat_map(|repository| repository.builders.iter().chain(&repository.try_builders));
        for builder in builders {
            let platform = builder.rsplit('-').next().unwrap_or(builder);
            let worker = match workers.iter_mut().find(|worker| worker.name == platform) {
                Some(worker) => worker,
                None => {
                    workers.push(WorkerConfig {
                        name: platform.to_owned(),
                        machine: platform.to_owned(),
                        builders: vec![],
                    });
                    workers.last_mut().expect("one was just added")
                }
            };
            if !worker.builders.contains(builder) {
                worker.builders.push(builder.clone());
            }
        }
        Self {
            repositories,
            workers,
            steps: vec!["compile", "test"],
            default_order: Order::Green,
            rebuilds: false,
            buildbot_login: None,
            step_timeout_seconds: 1200,
            output_delay_seconds: 0.2,
            reporter_retry_delays_seconds: vec![0.5, 0.5, 1.0, 2.0],
        }
    }

    /// What steps do that have no order of their own.
    pub fn with_default_order(mut self, order: Order) -> Self {
        self.default_order = order;
        self
    }

    /// One more worker that can do what another one does.
    pub fn with_spare_worker(self, name: &str, like: &str) -> Self {
        self.with_spare_worker_on(name, name, like)
    }

    /// The same on a machine that may have others.
    pub fn with_spare_worker_on(mut self, machine: &str, name: &str, like: &str) -> Self {
        let twin = self.workers.iter().find(|worker| worker.name == like);
        let builders = twin
            .unwrap_or_else(|| panic!("no worker is named {like}"))
            .builders
            .clone();
        self.workers.push(WorkerConfig {
            name: name.to_owned(),
            machine: machine.to_owned(),
            builders,
        });
        self
    }

    /// A rebuild that homu asks for is made, as by a Buildbot 0.8.
    pub fn with_rebuilds(mut self) -> Self {
        self.rebuilds = true;
        self
    }

    /// Buildbot asks for this login on every path of its API.
    pub fn with_buildbot_login(mut self, user: &'static str, password: &'static str) -> Self {
        self.buildbot_login = Some((user, password));
        self
    }

    /// All builders, each once.
    pub fn builders(&self) -> Vec<&str> {
        let mut builders: Vec<&str> = self
            .workers
            .iter()
            .flat_map(|worker| worker.builders.iter().map(String::as_str))
            .collect();
        builders.sort_unstable();
        builders.dedup();
        builders
    }
}

impl RepositoryConfig {
    /// A repository with a builder `LABEL-PLATFORM` for each platform, the first
    /// of which also builds what is only tried, and two open pull requests.
    pub fn of(label: &'static str, platforms: &[&str]) -> Self {
        let builders: Vec<String> = platforms
            .iter()
            .map(|platform| format!("{label}-{platform}"))
            .collect();
        Self {
            label,
            try_builders: builders.iter().take(1).cloned().collect(),
            builders,
            pulls: 2,
        }
    }

    /// `owner/name` on GitHub.
    pub fn full_name(&self) -> String {
        format!("{OWNER}/{}", self.label)
    }
}
