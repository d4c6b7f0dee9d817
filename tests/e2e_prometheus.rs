//! A real Prometheus scrapes a watchdog that has found something stuck: the dashboard has data, and
//! the rules are on their way to fire.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod dashboard;
mod stack;

use ci_watchdog::demo::github::Times;
use dashboard::{dashboards, queries};
use stack::config::StackConfig;
use stack::prometheus::{JOB, Prometheus};
use stack::watchdog::WatchdogSettings;
use stack::{Stack, patience};

#[tokio::test]
async fn every_query_of_the_dashboards_has_data_on_a_real_scrape() {
    let (stack, prometheus) = stuck().await;
    for (path, dashboard) in dashboards() {
        for (place, query) in queries(&dashboard) {
            // What is filtered away when all is well is not what is asked here.
            let query = as_grafana_asks(&query);
            let query = query.strip_suffix(" > 0").unwrap_or(&query);
            patience(&format!("{path}, {place}: data for {query}"), async || {
                let series = prometheus.query(query).await;
                let series = series.unwrap_or_else(|why| panic!("{path}, {place}: {why}"));
                (!series.is_empty()).then_some(())
            })
            .await;
        }
    }
    drop(stack);
}

#[tokio::test]
async fn a_build_that_is_stuck_is_on_its_way_to_the_alert() {
    let (stack, prometheus) = stuck().await;
    let pending = patience("the rule to wait for its time", async || {
        let rules = prometheus.rules().await;
        for rule in &rules {
            assert!(
                rule["health"] == "ok" || rule["health"] == "unknown",
                "{rule}"
            );
        }
        rules
            .into_iter()
            .find(|rule| rule["name"] == "CIWatchdogBuildStuck" && rule["state"] == "pending")
    })
    .await;
    assert_eq!(pending["alerts"][0]["labels"]["repo"], "alpha", "{pending}");
    for rule in prometheus.rules().await {
        let stuck = rule["name"]
            .as_str()
            .unwrap()
            .starts_with("CIWatchdogBuildStuck");
        assert!(stuck || rule["state"] == "inactive", "{rule}");
    }
    drop(stack);
}

/// A watchdog that found a lost push and may only look, and a Prometheus that has seen that.
async fn stuck() -> (Stack, Prometheus) {
    let stack = Stack::start(StackConfig::one_repository()).await;
    stack.github.drop_pushes("auto", Times::Once);
    stack
        .start_watchdog(&WatchdogSettings::quick().observing())
        .await;
    let prometheus = stack.start_prometheus().await;
    stack.approve("alpha", 1).await;
    patience("Prometheus to know of the stuck build", async || {
        let series = prometheus.query("sum(ci_watchdog_stuck_builds) > 0").await;
        (!series.ok()?.is_empty()).then_some(())
    })
    .await;
    (stack, prometheus)
}

/// A query with the dashboard's variables filled in as Grafana does it for "all".
fn as_grafana_asks(query: &str) -> String {
    query
        .replace("$job", JOB)
        .replace("$instance", ".*")
        .replace("$repo", ".*")
        .replace("$__rate_interval", "10s")
}
