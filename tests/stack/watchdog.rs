//! The watchdog beside the bot: its configuration, its process, its pages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use super::disk::SmallDisk;
use super::process::{Process, Workplace};
use super::{http_client, patience};

/// The token for requests that change something.
pub const TOKEN: &str = "token-of-the-watchdog";

/// What a test changes in the watchdog's configuration.
#[derive(Debug, Clone)]
pub struct WatchdogSettings {
    /// `section.key` -> value, as written in TOML. The key `mode` has no section.
    values: BTreeMap<String, String>,
    /// Tables added at the end, such as `[repo.alpha.timeouts]`.
    more: String,
    /// Whether its configuration names the file of a token.
    token: bool,
}

/// The watchdog of a stack, once it was started.
pub struct Watchdog {
    workplace: Arc<Workplace>,
    dir: PathBuf,
    port: u16,
    process: Mutex<Option<Process>>,
    /// The disk under its directory, where it has one of its own.
    disk: Mutex<Option<SmallDisk>>,
    client: reqwest::Client,
}

impl WatchdogSettings {
    /// Acts, with deadlines short enough for a test: five looks a second, and
    /// what takes minutes by default takes one to three seconds.
    pub fn quick() -> Self {
        let quick = Self {
            values: BTreeMap::new(),
            more: String::new(),
            token: true,
        };
        [
            ("mode", "\"act\""),
            ("loop.tick", "\"200ms\""),
            ("timeouts.start", "\"3s\""),
            ("timeouts.report", "\"1500ms\""),
            ("timeouts.heartbeat", "\"8s\""),
            ("timeouts.worker_lost", "\"2s\""),
            ("timeouts.queue", "\"5s\""),
            ("timeouts.total", "\"10m\""),
            ("timeouts.effect", "\"5s\""),
            ("timeouts.outdated", "\"2s\""),
            ("timeouts.wedged", "\"2s\""),
            ("timeouts.orphaned", "\"2s\""),
            ("timeouts.pinging", "\"3s\""),
            ("safety.looks", "3"),
            ("safety.settle", "\"600ms\""),
            ("safety.source_good_for", "\"1s\""),
            ("safety.cooldown", "\"2s\""),
            ("safety.storm_cooldown", "\"5s\""),
            ("safety.outage_window", "\"30s\""),
        ]
        .into_iter()
        .fold(quick, |settings, (key, value)| settings.set(key, value))
    }

    /// The same with more patience for workers and messages that are healthy and late, as they are on
    /// a busy machine: for cases in which that would be one more death.
    pub fn unhurried() -> Self {
        [
            ("timeouts.pinging", "\"20s\""),
            ("timeouts.report", "\"10s\""),
            ("timeouts.worker_lost", "\"4s\""),
        ]
        .into_iter()
        .fold(Self::quick(), |settings, (key, value)| {
            settings.set(key, value)
        })
    }

    /// Judges and reports, and sends nothing.
    pub fn observing(self) -> Self {
        self.set("mode", "\"observe\"")
    }

    /// Sets `section.key` to a value as written in TOML.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.values.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Names no token, so that nothing can be changed from outside.
    pub fn without_token(mut self) -> Self {
        self.token = false;
        self
    }

    /// Leaves `section.key` out, so that its default holds.
    pub fn unset(mut self, key: &str) -> Self {
        self.values.remove(key);
        self
    }

    /// Adds tables at the end.
    pub fn add(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self
    }
}

/// Where the watchdog finds the others.
pub struct Surroundings {
    pub homu_config: PathBuf,
    pub homu_database: PathBuf,
    pub homu_url: String,
    pub github_url: String,
    pub buildbot_url: String,
    pub buildbot_login: Option<(&'static str, &'static str)>,
}

impl Watchdog {
    /// A watchdog that is not running yet.
    pub fn new(workplace: &Arc<Workplace>) -> Self {
        Self {
            workplace: Arc::clone(workplace),
            dir: workplace.make_dir("watchdog"),
            port: workplace.reserve_port(),
            process: Mutex::new(None),
            disk: Mutex::new(None),
            client: http_client(),
        }
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("ci-watchdog.toml")
    }

    /// Its journal.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.db")
    }

    /// Its log, over all its starts.
    pub fn log(&self) -> PathBuf {
        self.workplace.dir().join("watchdog.log")
    }

    /// Its address, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Writes its configuration and the file of its token.
    pub fn configure(&self, settings: &WatchdogSettings, around: &Surroundings) {
        let token = self.dir.join("ci-watchdog.token");
        write_secret(&token, TOKEN);
        let mut toml = String::new();
        if let Some(mode) = settings.values.get("mode") {
            writeln!(toml, "mode = {mode}\n").expect("a string can be written to");
        }
        let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (key, value) in &settings.values {
            if let Some((section, key)) = key.rsplit_once('.') {
                sections
                    .entry(section)
                    .or_default()
                    .push(format!("{key} = {value}"));
            }
        }
        let server = sections.entry("server").or_default();
        server.push(format!("listen = \"127.0.0.1:{}\"", self.port));
        if settings.token {
            server.push("token_file = \"ci-watchdog.token\"".to_owned());
        }
        sections
            .entry("journal")
            .or_default()
            .push("url = \"sqlite:journal.db\"".to_owned());
        for (section, lines) in sections {
            writeln!(toml, "[{section}]\n{}\n", lines.join("\n"))
                .expect("a string can be written to");
        }
        write!(
            toml,
            "[[bot]]\nname = \"homu\"\nkind = \"homu\"\nconfig = \"{}\"\ndatabase = \"{}\"\n\
             url = \"{}\"\ngithub_url = \"{}\"\n\n\
             [[provider]]\nname = \"buildbot\"\nkind = \"buildbot\"\nurl = \"{}\"\n",
            around.homu_config.display(),
            around.homu_database.display(),
            around.homu_url,
            around.github_url,
            around.buildbot_url,
        )
        .expect("a string can be written to");
        if let Some((user, password)) = around.buildbot_login {
            write_secret(&self.dir.join("buildbot.password"), password);
            writeln!(
                toml,
                "username = \"{user}\"\npassword = {{ file = \"buildbot.password\" }}"
            )
            .expect("a string can be written to");
        }
        toml.push('\n');
        toml.push_str(&settings.more);
        fs::write(self.config_file(), toml).expect("the configuration can be written");
    }

    /// Starts it and waits until it says that it is healthy.
    pub async fn start(&self) {
        self.start_with(&[]).await;
    }

    /// The same with these variables in its environment.
    pub async fn start_with(&self, environment: &[(&str, &str)]) {
        self.spawn(environment);
        let url = format!("{}/-/healthy", self.url());
        patience("the watchdog to be healthy", async || {
            if let Some(process) = self.process.lock().unwrap().as_mut() {
                process.assert_running();
            }
            let answer = self.client.get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Starts it with these variables in its environment, and waits for nothing.
    pub fn spawn(&self, environment: &[(&str, &str)]) {
        let mut command = match self.disk.lock().unwrap().as_ref() {
            None => self.command(&["run"]),
            Some(disk) => self.command_after(&disk.prefix(), &["run"]),
        };
        command.envs(environment.iter().copied());
        *self.process.lock().unwrap() = Some(self.workplace.spawn("watchdog", &mut command));
    }

    /// Ends it as `kill -9` does.
    pub fn kill9(&self) {
        drop(self.process.lock().unwrap().take());
    }

    /// Stops it in its tracks: it keeps its connections and does nothing.
    pub fn freeze(&self) {
        self.with_process(Process::freeze);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.with_process(Process::thaw);
    }

    /// Ends it as `systemctl stop` does, and waits until it has.
    pub async fn stop(&self) {
        let process = self.process.lock().unwrap().take();
        if let Some(mut process) = process {
            process.terminate().await;
        }
    }

    /// Tells it to read its configuration again (`SIGHUP`).
    pub fn reload(&self) {
        self.with_process(Process::hang_up);
    }

    fn with_process<T>(&self, what: impl FnOnce(&Process) -> T) -> T {
        let process = self.process.lock().unwrap();
        what(process.as_ref().expect("it was started"))
    }

    /// Asks it to read its configuration again (`POST /-/reload`), with this token or none; the
    /// status and the text of its answer.
    pub async fn ask_reload(&self, token: Option<&str>) -> (u16, String) {
        let request = self.client.post(format!("{}/-/reload", self.url()));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        answer(request).await
    }

    /// The status and the text of one of its pages.
    pub async fn look_at(&self, path: &str) -> (u16, String) {
        answer(self.client.get(format!("{}{path}", self.url()))).await
    }

    /// The value of a metric that has no labels.
    pub async fn metric(&self, name: &str) -> String {
        let metrics = self.get("/metrics").await.expect("it answers");
        let mut values = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = values.next().map(str::to_owned);
        value.unwrap_or_else(|| panic!("no {name} in:\n{metrics}"))
    }

    /// Waits until its log says this.
    pub async fn wait_log(&self, words: &str) {
        patience(&format!("{words:?} in the watchdog's log"), async || {
            let log = fs::read_to_string(self.log()).ok()?;
            log.contains(words).then_some(())
        })
        .await;
    }

    /// Moves its journal away from under it. Root may write wherever there is a file, and so only
    /// a file that is not there cannot be written by root.
    pub fn take_journal_away(&self) {
        fs::rename(self.journal(), self.journal_elsewhere()).expect("a file can be moved");
    }

    /// Puts a copy in the place of the journal that was taken away.
    pub fn put_another_journal(&self) {
        fs::copy(self.journal_elsewhere(), self.journal()).expect("a file can be copied");
    }

    /// Moves it back, over what lies there.
    pub fn bring_journal_back(&self) {
        fs::rename(self.journal_elsewhere(), self.journal()).expect("a file can be moved");
    }

    fn journal_elsewhere(&self) -> PathBuf {
        self.dir.join("journal.elsewhere")
    }

    /// Gives it a small disk for its files, before it is configured.
    pub fn use_small_disk(&self) {
        *self.disk.lock().unwrap() = Some(SmallDisk::under(&self.dir));
    }

    /// Leaves no room on its disk, and says what its journal will complain of.
    pub fn fill_disk(&self) -> &'static str {
        self.with_disk(|disk, process| {
            disk.fill(process);
            disk.complaint()
        })
    }

    /// Gives the room on its disk back.
    pub fn free_disk(&self) {
        self.with_disk(SmallDisk::free);
    }

    fn with_disk<T>(&self, what: impl FnOnce(&mut SmallDisk, Option<u32>) -> T) -> T {
        let process = self.process.lock().unwrap().as_ref().map(Process::id);
        let mut disk = self.disk.lock().unwrap();
        what(disk.as_mut().expect("it has a disk of its own"), process)
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&self) -> Option<std::process::ExitStatus> {
        self.process.lock().unwrap().as_mut()?.ended()
    }

    /// Reads one of its pages.
    pub async fn get(&self, path: &str) -> reqwest::Result<String> {
        let answer = self
            .client
            .get(format!("{}{path}", self.url()))
            .send()
            .await?;
        answer.error_for_status()?.text().await
    }

    /// Reads one of its JSON answers.
    pub async fn get_json(&self, path: &str) -> reqwest::Result<serde_json::Value> {
        let answer = self
            .client
            .get(format!("{}{path}", self.url()))
            .send()
            .await?;
        answer.error_for_status()?.json().await
    }

    /// Runs another of its subcommands to its end, such as `explain alpha#1`.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        // On another thread: it may ask the fakes that this one serves.
        let output = tokio::task::spawn_blocking(move || command.output());
        output
            .await
            .expect("the thread does not panic")
            .expect("the program starts")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_after(&[], arguments)
    }

    /// Its command after those that start it in some way.
    fn command_after(&self, prefix: &[&str], arguments: &[&str]) -> Command {
        let words = [prefix, &[env!("CARGO_BIN_EXE_ci-watchdog")], arguments].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("--config")
            .arg(self.config_file())
            .current_dir(&self.dir)
            .env("NO_COLOR", "1");
        command
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.expect("the watchdog answers");
    let status = answer.status().as_u16();
    (status, answer.text().await.expect("a whole answer"))
}

fn write_secret(path: &Path, secret: &str) {
    fs::write(path, secret).expect("a secret can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it can be hidden");
}
