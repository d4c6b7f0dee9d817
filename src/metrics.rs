//! Every metric: its name, help and labels; a view of the reports.
//!
//! Counters and histograms follow the events of each tick. Gauges of builds, sources and zones are
//! made from the latest report at scrape time, so that what has gone vanishes at once. No label is
//! a commit, a pull request or a build: their names come from the configuration and from closed
//! sets, and each family takes at most [`SERIES_MAX`] label sets.

mod gauges;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry, TextEncoder,
};

use crate::app::Observer;
use crate::model::{Closing, Gate, ProbeFailure, Remedy, StepKind, Verdict};
use crate::report::{Event, Report};

/// The most label sets of one family; a set beyond it is dropped and counted.
pub const SERIES_MAX: usize = 2000;

/// What an outcome of a request is called; see [`crate::model::Outcome::as_str`].
const OUTCOMES: [&str; 4] = ["accepted", "refused", "not_sent", "unanswered"];

/// Upper bounds of how long looks and ticks take, seconds.
const SHORT: [f64; 9] = [0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0, 20.0];
/// Upper bounds of how long deaths and repairs take, seconds.
const LONG: [f64; 10] = [
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 36_000.0,
];

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    ticks: IntCounter,
    late_ticks: IntCounter,
    tick_duration: HistogramVec,
    reload_good: Gauge,
    reload_time: Gauge,
    probes: IntCounterVec,
    probe_failures: IntCounterVec,
    probe_duration: HistogramVec,
    detections: IntCounterVec,
    detection: HistogramVec,
    false_alarms: IntCounterVec,
    holds: IntCounterVec,
    attempts: IntCounterVec,
    requests: IntCounterVec,
    closed: IntCounterVec,
    recovery: HistogramVec,
    journal_failures: IntCounter,
    http: IntCounterVec,
    dropped: CounterVec,
    sets: Mutex<Sets>,
}

/// The label sets that each family of counters or histograms has taken.
type Sets = BTreeMap<&'static str, BTreeSet<Vec<String>>>;

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Every family, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            ticks: counter(&registry, "loop_ticks_total", "Ticks of the loop."),
            late_ticks: counter(
                &registry,
                "loop_late_ticks_total",
                "Ticks that came so late that everything was looked at afresh.",
            ),
            tick_duration: histogram(
                &registry,
                "loop_tick_duration_seconds",
                "Duration of ticks.",
                &[],
                &SHORT,
            ),
            reload_good: gauge(
                &registry,
                "config_last_reload_successful",
                "Whether the last attempt to read the configuration was good.",
            ),
            reload_time: gauge(
                &registry,
                "config_last_reload_success_timestamp_seconds",
                "Unix time at which the configuration was last read well.",
            ),
            probes: counters(
                &registry,
                "probes_total",
                "Looks at sources.",
                &["source", "role", "kind"],
            ),
            probe_failures: counters(
                &registry,
                "probe_failures_total",
                "Looks at sources that failed, by reason.",
                &["source", "role", "kind", "reason"],
            ),
            probe_duration: histogram(
                &registry,
                "probe_duration_seconds",
                "Duration of looks at sources.",
                &["source", "role", "kind"],
                &SHORT,
            ),
            detections: counters(
                &registry,
                "stuck_detections_total",
                "Builds and queues found stuck, by verdict.",
                &["bot", "repo", "verdict"],
            ),
            detection: histogram(
                &registry,
                "detection_seconds",
                "Time from the last sign of life to the detection of what is stuck.",
                &["bot"],
                &LONG,
            ),
            false_alarms: counters(
                &registry,
                "false_alarms_total",
                "Signs of life after a death had counted.",
                &["bot", "repo"],
            ),
            holds: counters(
                &registry,
                "holds_total",
                "Remedies newly held, by the gate that held them.",
                &["gate"],
            ),
            attempts: counters(
                &registry,
                "attempts_total",
                "Attempts begun, by remedy.",
                &["bot", "repo", "remedy"],
            ),
            requests: counters(
                &registry,
                "requests_total",
                "Requests to bots, by what their sending came to.",
                &["bot", "step", "outcome"],
            ),
            closed: counters(
                &registry,
                "requests_closed_total",
                "Requests settled, by how they ended.",
                &["bot", "step", "closing"],
            ),
            recovery: histogram(
                &registry,
                "recovery_seconds",
                "Time from a request to its effect.",
                &["bot", "remedy"],
                &LONG,
            ),
            journal_failures: counter(
                &registry,
                "journal_write_failures_total",
                "Writes to the journal that failed.",
            ),
            http: counters(
                &registry,
                "http_requests_total",
                "HTTP requests answered, by handler and status.",
                &["handler", "code"],
            ),
            dropped: {
                let opts = Opts::new(
                    "ci_watchdog_series_dropped_total",
                    "Label sets that were not exported because their family was full.",
                );
                let vec =
                    CounterVec::new(opts, &["family"]).expect("its name and labels are fixed");
                register(&registry, Box::new(vec.clone()));
                vec
            },
            sets: Mutex::default(),
            registry,
        };
        metrics.tick_duration.with_label_values::<&str>(&[]);
        for gate in Gate::ALL {
            metrics.holds.with_label_values(&[gate.as_str()]);
        }
        #[cfg(target_os = "linux")]
        register(
            &metrics.registry,
            Box::new(prometheus::process_collector::ProcessCollector::for_self()),
        );
        metrics
    }

    /// Starts the count of a route's usual answer at zero; `handler` is its name.
    pub fn handles(&self, handler: &'static str, code: u16) {
        let labels = [handler, &code.to_string()];
        self.begin("http_requests_total", &self.http, &labels);
    }

    /// Counts an answered request; `handler` is a route's name, never a path.
    pub fn answered(&self, handler: &'static str, code: u16) {
        self.count(
            "http_requests_total",
            &self.http,
            &[handler, &code.to_string()],
        );
    }

    /// The exposition in Prometheus' text format 0.0.4, with the gauges of this report.
    pub fn render(&self, report: &Report) -> String {
        let gauges = Registry::new();
        // First, because it counts what it drops.
        self.gauges(&gauges, report);
        let mut families = self.registry.gather();
        families.extend(gauges.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        encode(&families)
    }

    fn count(&self, family: &'static str, vec: &IntCounterVec, labels: &[&str]) {
        if self.room(family, labels) {
            vec.with_label_values(labels).inc();
        }
    }

    /// Starts a histogram's label set at zero.
    fn begin_time(&self, family: &'static str, vec: &HistogramVec, labels: &[&str]) {
        if self.room(family, labels) {
            vec.with_label_values(labels);
        }
    }

    /// Starts a counter's label set at zero.
    fn begin(&self, family: &'static str, vec: &IntCounterVec, labels: &[&str]) {
        if self.room(family, labels) {
            vec.with_label_values(labels);
        }
    }

    fn time(&self, family: &'static str, vec: &HistogramVec, labels: &[&str], seconds: f64) {
        if self.room(family, labels) {
            vec.with_label_values(labels).observe(seconds);
        }
    }

    /// Whether a family of counters or histograms may have this label set.
    fn room(&self, family: &'static str, labels: &[&str]) -> bool {
        let mut sets = self
            .sets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.take(family, sets.entry(family).or_default(), labels)
    }

    /// Whether a label set is among those taken, or now joins them; else the drop is counted.
    fn take(&self, family: &str, taken: &mut BTreeSet<Vec<String>>, labels: &[&str]) -> bool {
        let set: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if taken.contains(&set) {
            return true;
        }
        let dropped = self.dropped.with_label_values(&[family]);
        if taken.len() >= SERIES_MAX {
            dropped.inc();
            return false;
        }
        taken.insert(set)
    }

    /// Starts every label set that can come, so that a rate sees its first step.
    fn begin_all(&self, report: &Report) {
        for source in &report.sources {
            let labels = [source.source.as_str(), source.role.as_str(), source.kind];
            self.begin("probes_total", &self.probes, &labels);
            self.begin_time("probe_duration_seconds", &self.probe_duration, &labels);
            for failure in ProbeFailure::ALL {
                let labels = [labels[0], labels[1], labels[2], failure.as_str()];
                self.begin("probe_failures_total", &self.probe_failures, &labels);
            }
        }
        for queue in &report.queues {
            let (bot, repo) = (queue.bot.as_str(), queue.repo.as_str());
            for verdict in Verdict::ALL
                .into_iter()
                .filter(|v| *v >= Verdict::Unreported)
            {
                self.begin(
                    "stuck_detections_total",
                    &self.detections,
                    &[bot, repo, verdict.as_str()],
                );
            }
            self.begin("false_alarms_total", &self.false_alarms, &[bot, repo]);
            self.begin_time("detection_seconds", &self.detection, &[bot]);
            for remedy in Remedy::ALL {
                let labels = [bot, remedy.as_str()];
                self.begin_time("recovery_seconds", &self.recovery, &labels);
                self.begin(
                    "attempts_total",
                    &self.attempts,
                    &[bot, repo, remedy.as_str()],
                );
            }
            for step in StepKind::ALL {
                for outcome in OUTCOMES {
                    self.begin(
                        "requests_total",
                        &self.requests,
                        &[bot, step.as_str(), outcome],
                    );
                }
                for closing in Closing::ALL {
                    let labels = [bot, step.as_str(), closing.as_str()];
                    self.begin("requests_closed_total", &self.closed, &labels);
                }
            }
        }
    }

    fn event(&self, event: &Event) {
        match event {
            Event::Probed {
                source,
                role,
                kind,
                took,
                failure,
            } => {
                let labels = [source.as_str(), role.as_str(), *kind];
                self.count("probes_total", &self.probes, &labels);
                self.time(
                    "probe_duration_seconds",
                    &self.probe_duration,
                    &labels,
                    took.as_secs_f64(),
                );
                if let Some(failure) = failure {
                    let labels = [labels[0], labels[1], labels[2], failure.as_str()];
                    self.count("probe_failures_total", &self.probe_failures, &labels);
                }
            }
            Event::LateTick { .. } => self.late_ticks.inc(),
            Event::Detected {
                bot,
                repo,
                verdict,
                after,
            } => {
                self.count(
                    "stuck_detections_total",
                    &self.detections,
                    &[bot, repo, verdict.as_str()],
                );
                self.time(
                    "detection_seconds",
                    &self.detection,
                    &[bot],
                    after.as_secs_f64(),
                );
            }
            Event::Held { gate, .. } => self.count("holds_total", &self.holds, &[gate.as_str()]),
            Event::Attempted { bot, repo, remedy } => {
                self.count(
                    "attempts_total",
                    &self.attempts,
                    &[bot, repo, remedy.as_str()],
                );
            }
            Event::Sent { bot, step, outcome } => {
                self.count(
                    "requests_total",
                    &self.requests,
                    &[bot, step.as_str(), outcome],
                );
            }
            Event::Settled {
                bot,
                remedy,
                step,
                closing,
                after,
            } => {
                let labels = [bot.as_str(), step.as_str(), closing.as_str()];
                self.count("requests_closed_total", &self.closed, &labels);
                if *closing == Closing::Effect {
                    let labels = [bot.as_str(), remedy.as_str()];
                    self.time(
                        "recovery_seconds",
                        &self.recovery,
                        &labels,
                        after.as_secs_f64(),
                    );
                }
            }
            Event::FalseAlarm { bot, repo } => {
                self.count("false_alarms_total", &self.false_alarms, &[bot, repo]);
            }
            Event::JournalFailed => self.journal_failures.inc(),
        }
    }
}

impl Observer for Metrics {
    fn tick(&self, report: &Report) {
        self.ticks.inc();
        self.tick_duration
            .with_label_values::<&str>(&[])
            .observe(report.took.as_secs_f64());
        self.begin_all(report);
        for event in &report.events {
            self.event(event);
        }
    }

    fn reload(&self, good: bool, at: SystemTime) {
        self.reload_good.set(flag(good));
        if good {
            self.reload_time.set(crate::report::Stamp(at).unix());
        }
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(format!("ci_watchdog_{name}"), help).expect("its name is fixed");
    register(registry, Box::new(counter.clone()));
    counter
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::new(format!("ci_watchdog_{name}"), help).expect("its name is fixed");
    register(registry, Box::new(gauge.clone()));
    gauge
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(format!("ci_watchdog_{name}"), help), labels)
        .expect("its name and labels are fixed");
    register(registry, Box::new(vec.clone()));
    vec
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let opts = HistogramOpts::new(format!("ci_watchdog_{name}"), help).buckets(buckets.to_vec());
    let vec = HistogramVec::new(opts, labels).expect("its name and labels are fixed");
    register(registry, Box::new(vec.clone()));
    vec
}

fn register(registry: &Registry, collector: Box<dyn Collector>) {
    let names: Vec<String> = collector
        .desc()
        .iter()
        .map(|desc: &&Desc| desc.fq_name.clone())
        .collect();
    registry
        .register(collector)
        .unwrap_or_else(|error| unreachable!("{names:?} are registered once: {error}"));
}

fn encode(families: &[MetricFamily]) -> String {
    let mut text = Vec::new();
    // Writing to memory does not fail, and every family has a name and a type.
    if let Err(error) = TextEncoder::new().encode(families, &mut text) {
        tracing::error!("the metrics could not be written: {error}");
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}
