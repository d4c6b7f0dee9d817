//! A real Buildbot 4.3: a master, its workers, and what its API says.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::config::StackConfig;
use super::homu::BUILDBOT_SECRET;
use super::process::{Process, Workplace};
use super::{http_client, patience, tools};

/// How long one answer of the master may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Runs and requests asked for at once. A test makes some ten.
const ITEMS_MAX: u32 = 200;

const WORKER_PASSWORD: &str = "password-of-the-workers";

/// The results of a run, as Buildbot numbers them (`buildbot/process/results.py`).
pub const SUCCESS: i64 = 0;
pub const WARNINGS: i64 = 1;
pub const FAILURE: i64 = 2;
pub const EXCEPTION: i64 = 4;
pub const RETRY: i64 = 5;
pub const CANCELLED: i64 = 6;

/// The Buildbot of a stack.
pub struct Buildbot {
    workplace: Arc<Workplace>,
    web_port: u16,
    login: Option<(&'static str, &'static str)>,
    /// The cookie of the last login.
    cookie: Mutex<Option<String>>,
    client: reqwest::Client,
    master: Mutex<Option<Process>>,
    machines: BTreeMap<String, Machine>,
}

/// A machine that executes runs, with its workers: most often one, of the same name.
pub struct Machine {
    workplace: Arc<Workplace>,
    name: String,
    workers: Vec<String>,
    dir: PathBuf,
    process: Mutex<Option<Process>>,
}

/// One run, as the API tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub id: i64,
    pub builder: String,
    /// Counted per builder.
    pub number: i64,
    /// What it serves; a run that is repeated after its worker was lost keeps it.
    pub request: i64,
    pub revision: String,
    pub branch: String,
    /// None while it runs.
    pub results: Option<i64>,
    pub state: String,
}

/// One wish for a run, as the API tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: i64,
    pub builder: String,
    pub revision: String,
    pub claimed: bool,
    /// None while it is open.
    pub results: Option<i64>,
}

impl Buildbot {
    /// Writes the settings of the master and its workers.
    pub fn new(
        workplace: &Arc<Workplace>,
        config: &StackConfig,
        jobs: &std::path::Path,
        homu_url: &str,
        clone_url: impl Fn(&str) -> String,
    ) -> Self {
        let (web_port, worker_port) = (workplace.reserve_port(), workplace.reserve_port());
        let dir = workplace.make_dir("master");
        let sources = tools::repository_file("tests/stack/buildbot");
        let copy = |from: PathBuf, to: PathBuf| {
            fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        };
        copy(sources.join("master.cfg"), dir.join("master.cfg"));
        copy(sources.join("master.tac"), dir.join("buildbot.tac"));
        copy(tools::fresh_master_database(), dir.join("state.sqlite"));

        let builders = config.builders().into_iter().map(|builder| {
            let able = config
                .workers
                .iter()
                .filter(|worker| worker.builders.iter().any(|it| it == builder));
            json!({
                "name": builder,
                "workers": able.map(|worker| &worker.name).collect::<Vec<_>>(),
            })
        });
        let repositories = config.repositories.iter().map(|repository| {
            json!({
                "label": repository.label,
                "repository": clone_url(&repository.full_name()),
                "branches": {"auto": repository.builders, "try": repository.try_builders},
            })
        });
        let login = config.buildbot_login;
        let settings = json!({
            "url": format!("http://127.0.0.1:{web_port}"),
            "web_port": web_port,
            "worker_port": worker_port,
            "worker_password": WORKER_PASSWORD,
            "workers": config.workers.iter().map(|worker| &worker.name).collect::<Vec<_>>(),
            "builders": builders.collect::<Vec<_>>(),
            "repositories": repositories.collect::<Vec<_>>(),
            "steps": config.steps,
            "step_timeout_seconds": config.step_timeout_seconds,
            "python": tools::python(),
            "job": sources.join("job.py"),
            "control_dir": jobs,
            "reporter_dir": tools::repository_file("contrib/buildbot"),
            "homu_url": homu_url,
            "homu_secret": BUILDBOT_SECRET,
            "reporter_timeout_seconds": 10,
            "reporter_retry_delays_seconds": config.reporter_retry_delays_seconds,
            "login": login.map(|(user, password)| json!({"user": user, "password": password})),
        });
        fs::write(dir.join("settings.json"), settings.to_string())
            .expect("the master's settings can be written");

        let mut workers: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for worker in &config.workers {
            let machine = workers.entry(&worker.machine).or_default();
            machine.push(worker.name.clone());
        }
        let machines = workers.into_iter().map(|(name, workers)| {
            let dir = workplace.make_dir(&format!("worker-{name}"));
            for worker in &workers {
                let info = dir.join(worker).join("info");
                fs::create_dir_all(info).expect("a worker's directory can be made");
            }
            copy(sources.join("worker.tac"), dir.join("buildbot.tac"));
            let settings = json!({
                "names": workers,
                "password": WORKER_PASSWORD,
                "port": worker_port,
                "output_delay_seconds": config.output_delay_seconds,
            });
            fs::write(dir.join("settings.json"), settings.to_string())
                .expect("a worker's settings can be written");
            let machine = Machine {
                workplace: Arc::clone(workplace),
                name: name.clone(),
                workers,
                dir,
                process: Mutex::new(None),
            };
            (name.clone(), machine)
        });
        Self {
            workplace: Arc::clone(workplace),
            web_port,
            login,
            cookie: Mutex::new(None),
            client: http_client(),
            master: Mutex::new(None),
            machines: machines.collect(),
        }
    }

    /// The address of the master's pages and API, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.web_port)
    }

    /// Where the master hears of pushes.
    pub fn change_hook_url(&self) -> String {
        format!("{}/change_hook/base", self.url())
    }

    /// Starts the master and waits until it answers.
    pub async fn start_master(&self) {
        let dir = self.workplace.make_dir("master");
        let process = self.workplace.spawn("master", twistd().current_dir(dir));
        *self.master.lock().unwrap() = Some(process);
        patience("Buildbot to answer", async || {
            self.assert_running();
            self.client.get(self.url()).send().await.ok()
        })
        .await;
    }

    /// Starts every worker and waits until all are connected.
    pub async fn start_workers(&self) {
        for machine in self.machines.values() {
            machine.start();
        }
        for name in self.machines.values().flat_map(|machine| &machine.workers) {
            patience("the workers to connect", async || {
                self.assert_running();
                self.is_connected(name).await.then_some(())
            })
            .await;
        }
    }

    /// Ends the master as `kill -9` does.
    pub fn kill9_master(&self) {
        drop(self.master.lock().unwrap().take());
    }

    /// Ends the master as `systemctl stop` does; what runs is cancelled, and not repeated.
    pub async fn stop_master(&self) {
        let master = self.master.lock().unwrap().take();
        if let Some(mut master) = master {
            master.terminate().await;
        }
    }

    /// The same, but a master that does not end in time is killed. Whether it ended by itself.
    pub async fn stop_or_kill_master(&self) -> bool {
        let master = self.master.lock().unwrap().take();
        match master {
            Some(mut master) => master.terminate_or_kill().await,
            None => true,
        }
    }

    /// Stops the master in its tracks: it accepts connections and answers nothing.
    pub fn freeze_master(&self) {
        self.with_master(|master| master.freeze());
    }

    /// Lets a frozen master go on.
    pub fn thaw_master(&self) {
        self.with_master(|master| master.thaw());
    }

    /// The machine of a worker.
    pub fn worker(&self, name: &str) -> &Machine {
        let mut machines = self.machines.values();
        machines
            .find(|machine| machine.workers.iter().any(|worker| worker == name))
            .unwrap_or_else(|| panic!("no worker is named {name}"))
    }

    /// The master's own log, over all its starts.
    pub fn log(&self) -> PathBuf {
        self.workplace.dir().join("master.log")
    }

    /// Whether the master holds a connection to a worker.
    pub async fn is_connected(&self, worker: &str) -> bool {
        let Ok(answer) = self.get("workers").await else {
            return false;
        };
        let workers = answer["workers"].as_array().cloned().unwrap_or_default();
        workers.iter().any(|it| {
            it["name"] == worker
                && it["connected_to"]
                    .as_array()
                    .is_some_and(|to| !to.is_empty())
        })
    }

    /// All runs, oldest first.
    pub async fn all_runs(&self) -> Vec<Run> {
        let names = self.builder_names().await;
        let path =
            format!("builds?property=revision&property=branch&order=buildid&limit={ITEMS_MAX}");
        let answer = self.must_get(&path).await;
        let runs = answer["builds"]
            .as_array()
            .expect("a list of builds")
            .iter()
            .map(|run| {
                let property = |name: &str| {
                    run["properties"][name][0]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                };
                let number = |field: &str| run[field].as_i64().expect("a number");
                Run {
                    id: number("buildid"),
                    builder: names[&number("builderid")].clone(),
                    number: number("number"),
                    request: number("buildrequestid"),
                    revision: property("revision"),
                    branch: property("branch"),
                    results: run["results"].as_i64(),
                    state: run["state_string"].as_str().unwrap_or_default().to_owned(),
                }
            });
        runs.collect()
    }

    /// The runs of one commit, oldest first.
    pub async fn runs(&self, sha: &str) -> Vec<Run> {
        self.all_runs()
            .await
            .into_iter()
            .filter(|run| run.revision == sha)
            .collect()
    }

    /// The requests of one commit, oldest first.
    pub async fn requests(&self, sha: &str) -> Vec<Request> {
        let names = self.builder_names().await;
        let sets = self
            .must_get(&format!("buildsets?order=bsid&limit={ITEMS_MAX}"))
            .await;
        let sets = sets["buildsets"].as_array().expect("a list of buildsets");
        let sets: Vec<&Value> = sets
            .iter()
            .filter(|set| set["sourcestamps"][0]["revision"] == sha)
            .map(|set| &set["bsid"])
            .collect();
        let path = format!("buildrequests?order=buildrequestid&limit={ITEMS_MAX}");
        let requests = self.must_get(&path).await;
        let requests = requests["buildrequests"]
            .as_array()
            .expect("a list of requests");
        requests
            .iter()
            .filter(|request| sets.contains(&&request["buildsetid"]))
            .map(|request| Request {
                id: request["buildrequestid"].as_i64().expect("a number"),
                builder: names[&request["builderid"].as_i64().expect("a number")].clone(),
                revision: sha.to_owned(),
                claimed: request["claimed"] == true,
                results: request["results"].as_i64().filter(|results| *results >= 0),
            })
            .collect()
    }

    /// The name of the worker that a run was given to.
    pub async fn worker_of(&self, run: &Run) -> String {
        let given = self.must_get(&format!("builds/{}", run.id)).await;
        let id = &given["builds"][0]["workerid"];
        let workers = self.must_get("workers").await;
        let workers = workers["workers"].as_array().expect("a list of workers");
        let worker = workers.iter().find(|it| &it["workerid"] == id);
        worker
            .and_then(|it| it["name"].as_str())
            .unwrap_or_else(|| panic!("{run:?} has no worker: {given}"))
            .to_owned()
    }

    /// Stops a run by hand, as a person does on the master's pages.
    pub async fn stop_run(&self, run: i64) {
        let order = json!({
            "jsonrpc": "2.0", "id": 1, "method": "stop", "params": {"reason": "by hand"},
        });
        let request = self
            .client
            .post(format!("{}/api/v2/builds/{run}", self.url()))
            .json(&order);
        let answer = self
            .with_cookie(request)
            .send()
            .await
            .expect("the master answers");
        assert_eq!(answer.status(), 200, "stopping run {run}");
    }

    /// Runs the same commit at the same builder once more, as a person does on the master's pages.
    pub async fn rebuild_run(&self, run: i64) {
        let order = json!({"jsonrpc": "2.0", "id": 1, "method": "rebuild", "params": {}});
        let request = self
            .client
            .post(format!("{}/api/v2/builds/{run}", self.url()))
            .json(&order);
        let answer = self
            .with_cookie(request)
            .send()
            .await
            .expect("the master answers");
        assert_eq!(answer.status(), 200, "rebuilding run {run}");
    }

    /// Pauses or resumes a worker, as a person does on the master's pages.
    pub async fn set_paused(&self, worker: &str, paused: bool) {
        let workers = self.must_get("workers").await;
        let workers = workers["workers"].as_array().expect("a list of workers");
        let id = workers
            .iter()
            .find(|it| it["name"] == worker)
            .and_then(|it| it["workerid"].as_i64())
            .unwrap_or_else(|| panic!("the master knows no worker {worker}"));
        let method = if paused { "pause" } else { "unpause" };
        let order = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}});
        let request = self
            .client
            .post(format!("{}/api/v2/workers/{id}", self.url()))
            .json(&order);
        let answer = self
            .with_cookie(request)
            .send()
            .await
            .expect("the master answers");
        assert_eq!(answer.status(), 200, "{method} of worker {worker}");
    }

    /// Panics with the end of a log if the master or a worker ended by itself.
    pub fn assert_running(&self) {
        let machines = self.machines.values().map(|machine| &machine.process);
        for process in std::iter::once(&self.master).chain(machines) {
            if let Some(process) = process.lock().unwrap().as_mut() {
                process.assert_running();
            }
        }
    }

    /// An answer of the API, below `/api/v2/`.
    pub async fn get(&self, path: &str) -> reqwest::Result<Value> {
        let url = format!("{}/api/v2/{path}", self.url());
        let mut answer = self.with_cookie(self.client.get(&url)).send().await?;
        if answer.status() == 403 && self.login.is_some() {
            self.log_in().await?;
            answer = self.with_cookie(self.client.get(&url)).send().await?;
        }
        answer.error_for_status()?.json().await
    }

    /// Asks again where an answer breaks off: a master that is busy on a loaded machine does that,
    /// and it is not what any test is about.
    async fn must_get(&self, path: &str) -> Value {
        let mut tries = 0;
        loop {
            match self.get(path).await {
                Ok(answer) => return answer,
                Err(error) if tries == 3 => panic!("Buildbot's {path}: {error:?}"),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn builder_names(&self) -> BTreeMap<i64, String> {
        let answer = self.must_get("builders").await;
        let builders = answer["builders"].as_array().expect("a list of builders");
        let named = builders.iter().filter_map(|builder| {
            Some((
                builder["builderid"].as_i64()?,
                builder["name"].as_str()?.to_owned(),
            ))
        });
        named.collect()
    }

    /// Buildbot gives two cookies for a login; the last one is the logged-in session.
    async fn log_in(&self) -> reqwest::Result<()> {
        let Some((user, password)) = self.login else {
            return Ok(());
        };
        let request = self.client.get(format!("{}/auth/login", self.url()));
        let answer = request.basic_auth(user, Some(password)).send().await?;
        let cookies = answer.headers().get_all("set-cookie").iter();
        let session = cookies
            .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
            .next_back();
        *self.cookie.lock().unwrap() = session.map(str::to_owned);
        Ok(())
    }

    fn with_cookie(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let request = request.timeout(ANSWER_DEADLINE);
        match self.cookie.lock().unwrap().as_ref() {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    fn with_master(&self, act: impl FnOnce(&Process)) {
        act(self
            .master
            .lock()
            .unwrap()
            .as_ref()
            .expect("the master was started"));
    }
}

impl Machine {
    /// Starts it; it connects within a second or two.
    pub fn start(&self) {
        let name = format!("worker-{}", self.name);
        let process = self.workplace.spawn(&name, twistd().current_dir(&self.dir));
        *self.process.lock().unwrap() = Some(process);
    }

    /// Ends it as a power cut does. The master sees its connection close.
    pub fn kill9(&self) {
        drop(self.process.lock().unwrap().take());
    }

    /// Stops it in its tracks: it stays connected and does nothing.
    pub fn freeze(&self) {
        self.process
            .lock()
            .unwrap()
            .as_ref()
            .expect("the worker was started")
            .freeze();
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.process
            .lock()
            .unwrap()
            .as_ref()
            .expect("the worker was started")
            .thaw();
    }
}

fn twistd() -> Command {
    let mut command = Command::new(tools::twistd());
    // Without a file for its process id, a killed one can be started again.
    command
        .args([
            "--nodaemon",
            "--no_save",
            "--pidfile=",
            "--python=buildbot.tac",
        ])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
