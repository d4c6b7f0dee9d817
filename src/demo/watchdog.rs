//! The real watchdog beside the fakes: its configuration file, and the way to start it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::server::Server;
use super::town::Town;

/// Ready when the watchdog has stopped, with what it ended on.
pub type Ended = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Starts a watchdog from its configuration file, on a socket that was bound for it, until the
/// token is cancelled.
pub type Start = fn(&Path, TcpListener, CancellationToken) -> Result<Ended, String>;

/// How long a stop may take: a tick, and a look that is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(25);

/// A running watchdog.
pub struct Watchdog {
    config: PathBuf,
    address: SocketAddr,
    client: Client,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), String>>,
}

impl Watchdog {
    /// Writes the configuration into the town's folder, and starts a watchdog with it.
    ///
    /// # Errors
    ///
    /// When no port can be had, the file cannot be written, or the watchdog does not start.
    pub fn start(town: &Town, start: Start) -> io::Result<Self> {
        let listener = Server::bind()?;
        let address = listener.local_addr()?;
        let config = town.folder().join("ci-watchdog.toml");
        std::fs::write(&config, configuration(town, address))?;
        let stop = CancellationToken::new();
        let ended = start(&config, listener, stop.clone()).map_err(io::Error::other)?;
        let ended = tokio::spawn(ended);
        Ok(Self {
            config,
            address,
            client: Client::new("demo")?,
            stop,
            ended,
        })
    }

    /// Its page.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Reads one of its answers, such as `api/v1/builds`.
    ///
    /// # Errors
    ///
    /// When it does not answer with 200.
    pub async fn read(&self, path: &str) -> io::Result<Value> {
        let url = format!("{}{path}", self.url());
        let answer = self
            .client
            .json(reqwest::Method::GET, &url, &[], None)
            .await?;
        if answer.status != 200 {
            return Err(io::Error::other(format!(
                "{url} answered {}",
                answer.status
            )));
        }
        Ok(answer.value())
    }

    /// Stops it between two ticks.
    ///
    /// # Errors
    ///
    /// When it does not stop in time, or ended badly.
    pub async fn stop(self) -> Result<(), String> {
        self.stop.cancel();
        match tokio::time::timeout(STOP_PATIENCE, self.ended).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => Err(format!("the watchdog ended badly: {error}")),
            Err(_) => Err(format!(
                "the watchdog did not stop within {STOP_PATIENCE:?}"
            )),
        }
    }
}

/// As a person would write it, but for the times: what takes minutes takes seconds here.
fn configuration(town: &Town, address: SocketAddr) -> String {
    format!(
        r#"mode = "act"

[server]
listen = "{address}"

[journal]
url = "sqlite:journal.db"

[loop]
tick = "500ms"

[timeouts]
start = "4s"
report = "2s"
heartbeat = "6s"
worker_lost = "5s"
queue = "10s"
total = "10m"
effect = "5s"
outdated = "3s"
wedged = "5s"
orphaned = "5s"
pinging = "4s"

[safety]
looks = 4
settle = "2s"
source_good_for = "2s"
cooldown = "2s"
storm_cooldown = "3s"
outage_window = "10s"

[[bot]]
name = "homu"
kind = "homu"
config = {homu_config}
url = "{homu}"
github_url = "{github}"

[[provider]]
name = "buildbot"
kind = "buildbot"
url = "{buildbot}"
"#,
        homu_config = toml::Value::from(town.homu.config_path().display().to_string()),
        homu = town.homu.url(),
        github = town.github.url(),
        buildbot = town.buildbot.url(),
    )
}
