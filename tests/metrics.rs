//! The metrics: what is documented is exported, and the exposition stays good whatever it is fed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod promtool;
mod sample;
mod scrape;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ci_watchdog::app::Observer;
use ci_watchdog::metrics::{Metrics, SERIES_MAX};
use ci_watchdog::model::Remedy;
use ci_watchdog::report::{Event, Report, ZoneReport};
use promtool::{assert_content, promtool};
use scrape::{Family, parse};

/// Type, labels and help of a family.
type Description = (String, BTreeSet<String>, String);

#[test]
fn the_document_describes_every_exported_family_and_no_other() {
    let exported: BTreeMap<String, Description> = parse(&scrape(&sample::report()))
        .into_iter()
        .filter(|(name, _)| expected_here(name))
        .map(|(name, family)| {
            let labels = family.labels().into_iter().map(str::to_owned).collect();
            (name, (family.kind, labels, family.help))
        })
        .collect();
    let documented = documented();
    let names = |map: &BTreeMap<String, Description>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(&documented),
        names(&exported),
        "left docs/metrics.md, right the scrape"
    );
    for (name, description) in &exported {
        assert_eq!(
            &documented[name], description,
            "{name}: left docs/metrics.md"
        );
    }
}

#[test]
fn promtool_accepts_the_scrape() {
    assert_content(&promtool(&["check", "metrics"], &scrape(&sample::report())));
}

#[test]
fn the_scrape_before_the_first_tick_is_good_too() {
    let text = Metrics::new().render(&Report::empty(
        ci_watchdog::decision::policy::Mode::Observe,
        std::time::SystemTime::UNIX_EPOCH,
    ));
    assert_content(&promtool(&["check", "metrics"], &text));
    assert_eq!(
        only(&parse(&text), "ci_watchdog_loop_last_run_timestamp_seconds"),
        0.0
    );
}

#[test]
fn every_documented_family_is_there_after_a_tick_in_which_nothing_happened() {
    let metrics = Metrics::new();
    metrics.handles("/metrics", 200);
    let mut report = sample::report();
    report.events.clear();
    report.builds.clear();
    metrics.tick(&report);
    let families = parse(&metrics.render(&report));
    for name in documented().keys() {
        // Of builds there are none.
        if name != "ci_watchdog_expectations" {
            assert!(families.contains_key(name), "{name}");
        }
    }
    let attempts = &families["ci_watchdog_attempts_total"].samples;
    assert!(attempts.iter().all(|sample| sample.value == 0.0));
}

#[test]
fn a_configured_builder_that_is_not_stuck_is_zero() {
    let families = parse(&scrape(&sample::report()));
    let stuck = |builder: &str, provider: &str| {
        let samples = &families["ci_watchdog_stuck_builds"].samples;
        let found = samples.iter().find(|sample| {
            sample.labels["repo"] == "widgets"
                && sample.labels["builder"] == builder
                && sample.labels["provider"] == provider
        });
        found.map(|sample| sample.value)
    };
    assert_eq!(stuck("docs", ""), Some(0.0));
    assert_eq!(stuck("linux", "linux-ci"), Some(1.0));
    assert_eq!(stuck("mac", "mac-ci"), Some(1.0));
    assert_eq!(stuck("mac", ""), None, "no second series beside it");
}

#[test]
fn hostile_label_values_come_back_as_they_were() {
    let hostile = [
        "a\"b",
        "two\nlines",
        "back\\slash",
        "\\n",
        "end\\",
        "\"} 1\nci_watchdog_acting 5",
        "{x=\"y\"}",
        "a,b=c",
        "tab\tand \u{1F41B} \u{2028}",
        "",
    ];
    for value in hostile {
        let mut report = sample::report();
        report.builds[0].expectations[0].builder = value.to_owned();
        report.builds[0].repo = value.to_owned();
        report.queues[0].repo = value.to_owned();
        report.sources[0].source = value.to_owned();
        report.zones[0].provider = value.to_owned();
        let text = scrape(&report);
        assert_content(&promtool(&["check", "metrics"], &text));
        let families = parse(&text);
        for (name, label) in [
            ("ci_watchdog_stuck_builds", "builder"),
            ("ci_watchdog_pending_builds", "repo"),
            ("ci_watchdog_source_up", "source"),
            ("ci_watchdog_zone_state", "provider"),
            ("ci_watchdog_attempts_total", "repo"),
        ] {
            let found = families[name]
                .samples
                .iter()
                .any(|s| s.labels[label] == value);
            assert!(found, "{value:?} is lost in {label} of {name}");
        }
        assert_eq!(only(&families, "ci_watchdog_acting"), 1.0, "{value:?}");
    }
}

#[test]
fn a_family_of_gauges_holds_series_max_and_counts_the_rest() {
    let mut report = sample::report();
    report.zones = zones("zone", SERIES_MAX + 7);
    let families = parse(&Metrics::new().render(&report));
    assert_eq!(
        families["ci_watchdog_zone_workers_able"].samples.len(),
        SERIES_MAX
    );
    assert_eq!(dropped(&families, "zone_workers_able"), 7.0);
}

#[test]
fn a_family_of_counters_holds_series_max_and_counts_the_rest() {
    let metrics = Metrics::new();
    let mut report = sample::report();
    report.queues.clear();
    report.events = (0..SERIES_MAX + 7)
        .map(|number| Event::Attempted {
            bot: "homu".to_owned(),
            repo: format!("repo-{number}"),
            remedy: Remedy::Rerun,
        })
        .collect();
    metrics.tick(&report);
    let families = parse(&metrics.render(&sample::report()));
    assert_eq!(
        families["ci_watchdog_attempts_total"].samples.len(),
        SERIES_MAX
    );
    assert_eq!(dropped(&families, "attempts_total"), 7.0);
}

#[test]
fn what_left_the_report_leaves_the_scrape_and_its_room() {
    let metrics = Metrics::new();
    let mut report = sample::report();
    for generation in ["first", "second", "third"] {
        report.zones = zones(generation, SERIES_MAX);
        let families = parse(&metrics.render(&report));
        let family = &families["ci_watchdog_zone_workers_able"];
        assert_eq!(family.samples.len(), SERIES_MAX);
        assert!(
            family
                .samples
                .iter()
                .all(|s| s.labels["builder"].starts_with(generation))
        );
        assert_eq!(dropped(&families, "zone_workers_able"), 0.0);
    }
}

#[test]
fn no_label_holds_a_commit_a_pull_request_or_a_build() {
    let report = sample::report();
    let text = scrape(&report);
    for build in &report.builds {
        let shas = [&build.merge_sha, &build.head_sha].map(|sha| sha.clone().unwrap());
        for word in [&build.id, &build.url, &build.title]
            .into_iter()
            .chain(&shas)
        {
            assert!(!text.contains(word.as_str()), "{word} is in the scrape");
        }
    }
    for family in parse(&text).values() {
        assert!(
            family
                .labels()
                .is_disjoint(&BTreeSet::from(["pull", "sha", "build", "id", "run"]))
        );
    }
}

fn scrape(report: &Report) -> String {
    let metrics = scrape::metrics();
    metrics.tick(report);
    metrics.render(report)
}

/// The rows of the tables of families, as `| name | type | labels | help | unit |`.
fn documented() -> BTreeMap<String, Description> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut families = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, help, unit] = cells[..] else {
            continue;
        };
        let Some(name) = name
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
        else {
            continue;
        };
        assert!(!unit.is_empty(), "{name} has no unit");
        let labels = labels.split(", ").filter(|label| *label != "-");
        let labels = labels
            .map(|label| label.trim_matches('`').to_owned())
            .collect();
        let description = (kind.to_owned(), labels, help.to_owned());
        let twice = families.insert(name.to_owned(), description);
        assert!(twice.is_none(), "{name} stands twice in {}", path.display());
    }
    families.retain(|name, _| expected_here(name));
    families
}

/// The process' own families exist on Linux only.
fn expected_here(name: &str) -> bool {
    cfg!(target_os = "linux") || !name.starts_with("process_")
}

fn zones(prefix: &str, number: usize) -> Vec<ZoneReport> {
    let zone = sample::report().zones.remove(0);
    (0..number)
        .map(|at| ZoneReport {
            builder: format!("{prefix}-{at}"),
            ..zone.clone()
        })
        .collect()
}

fn only(families: &BTreeMap<String, Family>, name: &str) -> f64 {
    let samples = &families[name].samples;
    assert_eq!(samples.len(), 1, "{name}: {samples:?}");
    samples[0].value
}

fn dropped(families: &BTreeMap<String, Family>, family: &str) -> f64 {
    let samples = &families["ci_watchdog_series_dropped_total"].samples;
    let found = samples
        .iter()
        .find(|sample| sample.labels["family"] == family);
    found.map_or(0.0, |sample| sample.value)
}
