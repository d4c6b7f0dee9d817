//! The dashboard and the rules: every query parses, and asks only for what is exported.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod dashboard;
mod sample;
mod scrape;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dashboard::{dashboards, panels, queries};
use promql_parser::label::Matcher;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use saphyr::{LoadableYamlNode, Yaml};
use scrape::{Family, parse};

const RULES: &str = "alerts/ci-watchdog.rules.yml";

/// What Prometheus adds to each sample, and what a bucket has.
const GIVEN_LABELS: [&str; 3] = ["job", "instance", "le"];

#[test]
fn every_query_of_the_dashboards_asks_for_what_is_exported() {
    let exported = exported();
    let mut seen = 0;
    for (path, dashboard) in dashboards() {
        for (place, query) in queries(&dashboard) {
            check(&exported, &query)
                .unwrap_or_else(|why| panic!("{path}, {place}: {why}\n{query}"));
            seen += 1;
        }
    }
    assert!(seen >= 12, "only {seen} queries were found");
}

#[test]
fn every_rule_asks_for_what_is_exported() {
    let exported = exported();
    let text = std::fs::read_to_string(root().join(RULES)).unwrap();
    let file = Yaml::load_from_str(&text).unwrap().remove(0);
    let mut seen = 0;
    for group in file["groups"].as_vec().unwrap() {
        for rule in group["rules"].as_vec().unwrap() {
            let query = rule["expr"].as_str().unwrap();
            check(&exported, query).unwrap_or_else(|why| panic!("{why}: {query}"));
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_check_refuses_what_is_not_exported() {
    let exported = exported();
    for (query, part) in [
        ("ci_watchdog_stuck_build > 0", "no metric"),
        (
            "ci_watchdog_stuck_builds{builders=\"x\"}",
            "no label builders",
        ),
        ("sum by (sha) (ci_watchdog_stuck_builds)", "no label sha"),
        ("ci_watchdog_detection_seconds", "no metric"),
        (
            "ci_watchdog_source_up{role=\"providers\"}",
            "matches no sample",
        ),
        ("{__name__=~\"ci_watchdog_.*\"}", "names no metric"),
        ("sum(ci_watchdog_stuck_builds", "unclosed"),
    ] {
        let why = check(&exported, query).expect_err(query);
        assert!(why.contains(part), "{query}: {why}");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_what_unit() {
    for (path, dashboard) in dashboards() {
        let mut titles = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap_or_default();
            assert!(!title.is_empty(), "{path}: a panel has no title");
            assert!(
                titles.insert(title),
                "{path}: two panels are called {title}"
            );
            assert!(
                ids.insert(panel["id"].as_u64()),
                "{path}, {title}: its id is taken"
            );
            if panel["type"] == "row" {
                continue;
            }
            let place = format!("{path}, {title}");
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.ends_with('.'), "{place}: no description");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(
                unit.is_some_and(|unit| !unit.is_empty()),
                "{place}: no unit"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            let targets = panel["targets"].as_array().map_or(0, Vec::len);
            assert!(targets > 0, "{place}: no query");
        }
        assert!(titles.len() >= 12, "{path}: {} panels", titles.len());
    }
}

#[test]
fn panels_do_not_overlap() {
    for (path, dashboard) in dashboards() {
        let mut cells = BTreeMap::new();
        for panel in panels(&dashboard) {
            let side = |key: &str| panel["gridPos"][key].as_u64().expect(key);
            assert!(
                side("x") + side("w") <= 24,
                "{path}, {}: too wide",
                panel["title"]
            );
            for x in side("x")..side("x") + side("w") {
                for y in side("y")..side("y") + side("h") {
                    let other = cells.insert((x, y), &panel["title"]);
                    assert!(
                        other.is_none(),
                        "{path}: {} lies on {other:?}",
                        panel["title"]
                    );
                }
            }
        }
    }
}

#[test]
fn every_panel_follows_the_variables() {
    for (path, dashboard) in dashboards() {
        let variables = dashboard["templating"]["list"]
            .as_array()
            .expect("variables");
        let names: Vec<&str> = variables
            .iter()
            .filter_map(|v| v["name"].as_str())
            .collect();
        assert_eq!(names, ["datasource", "job", "instance", "repo"], "{path}");
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().expect("a query");
                for selector in selectors(query).unwrap() {
                    let place = format!("{path}, {}: {query}", panel["title"]);
                    let has = |label: &str| matchers(&selector).any(|m| m.name == label);
                    assert!(has("job") && has("instance"), "{place}");
                    let name = selector.name.as_deref().unwrap_or_default();
                    let by_repo = exported_labels(name).contains("repo");
                    assert_eq!(has("repo"), by_repo, "{place}: repo of {name}");
                }
            }
        }
    }
}

/// Whether a query parses, and why it asks for something that no scrape holds.
fn check(exported: &BTreeMap<String, Family>, query: &str) -> Result<(), String> {
    let expression = parse_query(query)?;
    let mut visitor = Names::default();
    walk_expr(&mut visitor, &expression).map_err(|()| "it cannot be walked".to_owned())?;
    let mut labels: BTreeSet<&str> = BTreeSet::from(GIVEN_LABELS);
    let mut own = false;
    for selector in &visitor.selectors {
        let name = selector
            .name
            .as_deref()
            .ok_or("a selector names no metric")?;
        if name == "up" || name.starts_with("process_") {
            continue;
        }
        own = true;
        let family = family(exported, name).ok_or_else(|| format!("no metric {name}"))?;
        let known = family.labels();
        for matcher in matchers(selector) {
            let given = GIVEN_LABELS.contains(&matcher.name.as_str());
            if !given && !known.contains(matcher.name.as_str()) {
                return Err(format!("no label {} in {name}", matcher.name));
            }
        }
        let matching = family.samples.iter().filter(|sample| {
            sample.name == name
                && matchers(selector)
                    .filter(|matcher| !["job", "instance"].contains(&matcher.name.as_str()))
                    .all(|m| m.is_match(sample.labels.get(&m.name).map_or("", String::as_str)))
        });
        if matching.count() == 0 {
            return Err(format!("{name} with these labels matches no sample"));
        }
        labels.extend(known);
    }
    match visitor
        .grouping
        .iter()
        .find(|label| own && !labels.contains(label.as_str()))
    {
        Some(label) => Err(format!("no label {label} to group by")),
        None => Ok(()),
    }
}

#[derive(Default)]
struct Names {
    selectors: Vec<VectorSelector>,
    grouping: BTreeSet<String>,
}

impl ExprVisitor for Names {
    type Error = ();

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, ()> {
        if let Expr::VectorSelector(selector) = expression {
            self.selectors.push(selector.clone());
        } else if let Expr::MatrixSelector(matrix) = expression {
            self.selectors.push(matrix.vs.clone());
        } else if let Expr::Aggregate(aggregate) = expression
            && let Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) =
                &aggregate.modifier
        {
            self.grouping.extend(labels.labels.iter().cloned());
        }
        Ok(true)
    }
}

fn selectors(query: &str) -> Result<Vec<VectorSelector>, String> {
    let mut visitor = Names::default();
    walk_expr(&mut visitor, &parse_query(query)?).map_err(|()| "it cannot be walked".to_owned())?;
    Ok(visitor.selectors)
}

fn matchers(selector: &VectorSelector) -> impl Iterator<Item = &Matcher> {
    let matchers = &selector.matchers;
    matchers
        .matchers
        .iter()
        .chain(matchers.or_matchers.iter().flatten())
}

/// Parses a query as Grafana would send it: with every variable at "all".
fn parse_query(query: &str) -> Result<Expr, String> {
    let mut query = query.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "5m"),
        ("$__range", "1h"),
        ("$__interval", "1m"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$repo", ".+"),
    ] {
        query = query.replace(variable, value);
    }
    if query.contains('$') {
        return Err("it has a variable that the dashboard does not define".to_owned());
    }
    parser::parse(&query)
}

/// The family that holds samples of this name.
fn family<'a>(exported: &'a BTreeMap<String, Family>, name: &str) -> Option<&'a Family> {
    exported
        .values()
        .find(|family| family.samples.iter().any(|sample| sample.name == name))
}

fn exported() -> BTreeMap<String, Family> {
    parse(&scrape::metrics().render(&sample::report()))
}

fn exported_labels(name: &str) -> BTreeSet<String> {
    let exported = exported();
    let family = family(&exported, name);
    family.map_or_else(BTreeSet::new, |f| {
        f.labels().into_iter().map(str::to_owned).collect()
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
