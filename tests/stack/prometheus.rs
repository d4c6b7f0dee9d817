//! A real Prometheus that scrapes the watchdog and evaluates the rules of this repository.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::process::{Process, Workplace};
use super::{http_client, patience, tools};

/// The job under which the watchdog is scraped.
pub const JOB: &str = "ci-watchdog";

/// One Prometheus, until it is dropped.
pub struct Prometheus {
    client: reqwest::Client,
    url: String,
    _process: Process,
}

impl Prometheus {
    /// Starts it, and waits until its first scrape of `target` (`HOST:PORT`) was good.
    pub async fn start(workplace: &Arc<Workplace>, target: &str) -> Self {
        let dir = workplace.make_dir("prometheus");
        let rules = tools::repository_file("alerts/ci-watchdog.rules.yml");
        let config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n  - job_name: {JOB}\n    static_configs:\n      - targets: [{target:?}]\n"
        );
        fs::write(dir.join("prometheus.yml"), config).expect("a file can be written");
        let listen = format!("127.0.0.1:{}", workplace.reserve_port());
        let mut command = Command::new(tools::prometheus_tool("prometheus"));
        command
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={listen}"))
            .current_dir(&dir);
        let prometheus = Self {
            client: http_client(),
            url: format!("http://{listen}"),
            _process: workplace.spawn("prometheus", &mut command),
        };
        patience("Prometheus to scrape the watchdog", async || {
            let up = prometheus.query("up == 1").await.ok()?;
            (!up.is_empty()).then_some(())
        })
        .await;
        prometheus
    }

    /// The series that a query has now, or what Prometheus says against it.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let url = format!("{}/api/v1/query", self.url);
        let request = self.client.post(url).form(&[("query", query)]);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        match answer["data"]["result"].as_array() {
            Some(series) => Ok(series.clone()),
            None => Err(answer.to_string()),
        }
    }

    /// Every alerting rule as Prometheus sees it: `name`, `health`, `state`, `alerts`.
    pub async fn rules(&self) -> Vec<Value> {
        let url = format!("{}/api/v1/rules?type=alert", self.url);
        let answer = self.client.get(url).send().await.expect("it answers");
        let answer: Value = answer.json().await.expect("an answer in JSON");
        let groups = answer["data"]["groups"].as_array().expect("groups").clone();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().expect("rules").clone())
            .collect()
    }
}
