//! The gauges: made from a report at scrape time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use prometheus::{GaugeVec, Opts, Registry};

use super::{Metrics, flag, register};
use crate::decision::policy::Mode;
use crate::model::{Gate, Verdict};
use crate::report::{Report, ZoneState};

impl Metrics {
    pub(super) fn gauges(&self, registry: &Registry, report: &Report) {
        self.own_gauges(registry, report);
        self.source_gauges(registry, report);
        self.build_gauges(registry, report);
        self.zone_gauges(registry, report);
    }

    fn own_gauges(&self, registry: &Registry, report: &Report) {
        let info = self.family(
            registry,
            "build_info",
            "A metric with a constant 1 value, labelled by version.",
            &["version"],
        );
        info.set(&[report.version], 1.0);
        let acting = self.family(
            registry,
            "acting",
            "Whether plans are acted on (1) or only reported (0).",
            &[],
        );
        acting.set(&[], flag(report.mode == Mode::Act));
        let settled = self.family(
            registry,
            "settled",
            "Whether everything was looked at well for long enough to act.",
            &[],
        );
        settled.set(&[], flag(report.not_settled.is_none()));
        let last = self.family(
            registry,
            "loop_last_run_timestamp_seconds",
            "Unix time at which the loop last completed a tick; 0 before the first.",
            &[],
        );
        last.set(
            &[],
            if report.tick == 0 {
                0.0
            } else {
                report.at.unix()
            },
        );
        let journal = &report.journal;
        for (name, help, value) in [
            (
                "journal_writable",
                "Whether the journal can be written; while it cannot, nothing is acted on.",
                flag(journal.writable),
            ),
            (
                "journal_records",
                "Records in the journal.",
                count(journal.records),
            ),
            (
                "journal_size_bytes",
                "Size of the journal.",
                count(journal.bytes),
            ),
            (
                "open_intents",
                "Requests whose effect is not settled.",
                small(journal.open_intents),
            ),
        ] {
            self.family(registry, name, help, &[]).set(&[], value);
        }
        let holds = self.family(
            registry,
            "held_remedies",
            "Remedies held now, by the gate that holds them.",
            &["gate"],
        );
        let held = report
            .builds
            .iter()
            .flat_map(|build| &build.holds)
            .chain(report.queues.iter().filter_map(|queue| queue.hold.as_ref()))
            .chain(
                report
                    .sources
                    .iter()
                    .filter_map(|source| source.hold.as_ref()),
            );
        let mut by_gate: BTreeMap<Gate, usize> =
            Gate::ALL.into_iter().map(|gate| (gate, 0)).collect();
        for hold in held {
            *by_gate.entry(hold.gate).or_default() += 1;
        }
        for (gate, holding) in by_gate {
            holds.set(&[gate.as_str()], small(holding));
        }
    }

    fn source_gauges(&self, registry: &Registry, report: &Report) {
        const LABELS: [&str; 3] = ["source", "role", "kind"];
        let up = self.family(
            registry,
            "source_up",
            "Whether the last look at a source was good.",
            &LABELS,
        );
        let success = self.family(
            registry,
            "source_last_success_timestamp_seconds",
            "Unix time of the last good look at a source; 0 before one.",
            &LABELS,
        );
        let remaining = self.family(
            registry,
            "api_rate_limit_remaining",
            "Requests left in a source's rate-limit window.",
            &["source"],
        );
        let limit = self.family(
            registry,
            "api_rate_limit_limit",
            "Requests allowed in a source's rate-limit window.",
            &["source"],
        );
        for source in &report.sources {
            let labels = [source.source.as_str(), source.role.as_str(), source.kind];
            up.set(&labels, flag(source.up == Some(true)));
            success.set(&labels, source.last_success.map_or(0.0, |at| at.unix()));
            if let Some(quota) = source.quota {
                remaining.set(&[&source.source], count(quota.remaining));
                limit.set(&[&source.source], count(quota.limit));
            }
        }
    }

    fn build_gauges(&self, registry: &Registry, report: &Report) {
        let pending = self.family(
            registry,
            "pending_builds",
            "Builds that a bot waits for.",
            &["bot", "repo"],
        );
        let approved = self.family(
            registry,
            "approved_pull_requests",
            "Approved pull requests that are not pending.",
            &["bot", "repo"],
        );
        let expectations = self.family(
            registry,
            "expectations",
            "Builders that a bot waits for, by verdict.",
            &["bot", "repo", "provider", "verdict"],
        );
        let stuck = self.family(
            registry,
            "stuck_builds",
            "Pending builds and queues that need somebody; of a whole build or queue the builder is empty.",
            &["bot", "repo", "builder", "provider"],
        );
        for queue in &report.queues {
            let place = [queue.bot.as_str(), queue.repo.as_str()];
            pending.set(&place, small(queue.pending));
            approved.set(&place, small(queue.approved));
            let wedged = matches!(queue.verdict, Verdict::Wedged | Verdict::Outdated);
            stuck.add(&[place[0], place[1], "", ""], flag(wedged));
        }
        for build in &report.builds {
            let place = [build.bot.as_str(), build.repo.as_str()];
            let parts = build.expectations.iter().any(|e| e.stuck);
            stuck.add(&[place[0], place[1], "", ""], flag(build.stuck && !parts));
            for expectation in &build.expectations {
                let provider = expectation.provider.as_deref().unwrap_or("");
                for verdict in Verdict::ALL {
                    expectations.add(&[place[0], place[1], provider, verdict.as_str()], 0.0);
                }
                let verdict = expectation.verdict.as_str();
                expectations.add(&[place[0], place[1], provider, verdict], 1.0);
                let labels = [place[0], place[1], expectation.builder.as_str(), provider];
                stuck.add(&labels, flag(expectation.stuck));
            }
        }
        // Last, so that a full family turns away a zero first.
        for queue in &report.queues {
            for builder in &queue.builders {
                for provider in providers(report, builder) {
                    stuck.add(&[&queue.bot, &queue.repo, builder, provider], 0.0);
                }
            }
        }
    }

    fn zone_gauges(&self, registry: &Registry, report: &Report) {
        let state = self.family(
            registry,
            "zone_state",
            "Whether a zone is in this state (1) or not (0).",
            &["provider", "builder", "state"],
        );
        let able = self.family(
            registry,
            "zone_workers_able",
            "Workers of a zone that could take a run.",
            &["provider", "builder"],
        );
        let configured = self.family(
            registry,
            "zone_workers_configured",
            "Workers that are configured for a zone.",
            &["provider", "builder"],
        );
        for zone in &report.zones {
            let place = [zone.provider.as_str(), zone.builder.as_str()];
            for each in ZoneState::ALL {
                state.set(
                    &[place[0], place[1], each.as_str()],
                    flag(zone.state == each),
                );
            }
            able.set(&place, small(zone.able));
            configured.set(&place, small(zone.configured));
        }
    }

    fn family<'a>(
        &'a self,
        registry: &Registry,
        name: &'static str,
        help: &str,
        labels: &[&str],
    ) -> Family<'a> {
        let vec = GaugeVec::new(Opts::new(format!("ci_watchdog_{name}"), help), labels)
            .expect("its name and labels are fixed");
        register(registry, Box::new(vec.clone()));
        Family {
            metrics: self,
            name,
            vec,
            taken: RefCell::default(),
        }
    }
}

/// One family of gauges in the making. What an earlier report named takes no room in it.
struct Family<'a> {
    metrics: &'a Metrics,
    name: &'static str,
    vec: GaugeVec,
    taken: RefCell<BTreeSet<Vec<String>>>,
}

impl Family<'_> {
    fn set(&self, labels: &[&str], value: f64) {
        if self.room(labels) {
            self.vec.with_label_values(labels).set(value);
        }
    }

    fn add(&self, labels: &[&str], value: f64) {
        if self.room(labels) {
            self.vec.with_label_values(labels).add(value);
        }
    }

    fn room(&self, labels: &[&str]) -> bool {
        let mut taken = self.taken.borrow_mut();
        self.metrics.take(self.name, &mut taken, labels)
    }
}

/// The providers that have a pool of workers for a builder; an empty name where none has.
fn providers<'a>(report: &'a Report, builder: &str) -> Vec<&'a str> {
    let pools = report.zones.iter().filter(|zone| zone.builder == builder);
    let providers: Vec<&str> = pools.map(|zone| zone.provider.as_str()).collect();
    if providers.is_empty() {
        vec![""]
    } else {
        providers
    }
}

/// A count as a sample; beyond 2^53 the nearest number that a sample can hold.
#[allow(clippy::cast_precision_loss, reason = "samples are floats")]
fn count(number: u64) -> f64 {
    number as f64
}

fn small(number: usize) -> f64 {
    count(u64::try_from(number).unwrap_or(u64::MAX))
}
