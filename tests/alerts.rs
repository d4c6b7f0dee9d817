//! The alerts: promtool accepts the rules, each fires and stays silent in a test, and each leads to
//! a runbook.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod promtool;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use promtool::{assert_content, promtool};
use saphyr::{LoadableYamlNode, Yaml};

const RULES: &str = "alerts/ci-watchdog.rules.yml";
const TESTS: &str = "alerts/ci-watchdog.test.yml";
const RUNBOOKS: &str = "https://github.com/ci-watchdog/ci-watchdog/blob/main/alerts/runbooks";
const HEADINGS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

#[test]
fn promtool_accepts_the_rules() {
    assert_content(&promtool(&["check", "rules", RULES], ""));
}

#[test]
fn the_rules_fire_and_stay_silent_as_their_tests_say() {
    assert_content(&promtool(&["test", "rules", TESTS], ""));
}

#[test]
fn every_rule_has_a_test_in_which_it_fires_and_one_in_which_it_stays_silent() {
    let text = read(TESTS);
    let file = yaml(&text);
    let mut fires = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for test in list(&file, "tests") {
        let checks = list(test, "alert_rule_test");
        assert!(
            !checks.is_empty(),
            "{} checks no alert",
            string(test, "name")
        );
        let ever: BTreeSet<String> = checks
            .iter()
            .filter(|check| !list(check, "exp_alerts").is_empty())
            .map(|check| string(check, "alertname"))
            .collect();
        let all = checks.iter().map(|check| string(check, "alertname"));
        silent.extend(all.filter(|name| !ever.contains(name)));
        fires.extend(ever);
    }
    let names = names();
    assert_eq!(
        fires, names,
        "left: alerts that a test makes fire, right: all"
    );
    assert_eq!(
        silent, names,
        "left: alerts that a test finds silent throughout, right: all"
    );
}

#[test]
fn every_rule_says_what_is_wrong_and_what_to_do() {
    let text = read(RULES);
    let file = yaml(&text);
    for rule in rules(&file) {
        let name = string(rule, "alert");
        let labels = get(rule, "labels");
        let severity = string(labels, "severity");
        assert!(
            ["critical", "warning"].contains(&severity.as_str()),
            "{name}: {severity}"
        );
        let annotations = get(rule, "annotations");
        let summary = string(annotations, "summary");
        assert!(
            summary.ends_with('.') && !summary.contains("{{"),
            "{name}: {summary}"
        );
        let description = string(annotations, "description");
        assert!(
            description.contains("`ci-watchdog "),
            "{name} names no command: {description}"
        );
        assert_eq!(
            string(annotations, "runbook_url"),
            format!("{RUNBOOKS}/{name}.md")
        );
    }
}

#[test]
fn every_rule_has_a_runbook_with_its_four_parts_and_every_runbook_a_rule() {
    let folder = root().join("alerts/runbooks");
    for name in names() {
        let page = std::fs::read_to_string(folder.join(format!("{name}.md")))
            .unwrap_or_else(|error| panic!("{name} has no runbook: {error}"));
        assert!(
            page.starts_with(&format!("# {name}\n")),
            "{name}: another title"
        );
        let found: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        assert_eq!(found, HEADINGS, "{name}");
        for part in page.split("\n## ").skip(1) {
            let (heading, text) = part.split_once('\n').expect("a heading and its text");
            assert!(!text.trim().is_empty(), "{name}: {heading} is empty");
            let exact = heading != "Diagnosis" || text.contains("\n```sh\n");
            assert!(exact, "{name}: the diagnosis has no exact command");
        }
    }
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(pages, names(), "left: runbooks, right: rules");
}

fn names() -> BTreeSet<String> {
    let text = read(RULES);
    let file = yaml(&text);
    let rules = rules(&file);
    let names: BTreeSet<String> = rules.iter().map(|rule| string(rule, "alert")).collect();
    assert_eq!(names.len(), rules.len(), "an alert is there twice");
    assert!(!names.is_empty());
    names
}

fn rules<'a>(file: &'a Yaml<'a>) -> Vec<&'a Yaml<'a>> {
    list(file, "groups")
        .into_iter()
        .flat_map(|group| list(group, "rules"))
        .collect()
}

fn get<'a>(yaml: &'a Yaml<'a>, key: &str) -> &'a Yaml<'a> {
    yaml.as_mapping_get(key)
        .unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

fn list<'a>(yaml: &'a Yaml<'a>, key: &str) -> Vec<&'a Yaml<'a>> {
    let list = get(yaml, key).as_vec();
    list.unwrap_or_else(|| panic!("{key} is no list in {yaml:?}"))
        .iter()
        .collect()
}

fn string(yaml: &Yaml<'_>, key: &str) -> String {
    let string = get(yaml, key).as_str();
    string
        .unwrap_or_else(|| panic!("{key} is no text in {yaml:?}"))
        .to_owned()
}

fn yaml(text: &str) -> Yaml<'_> {
    Yaml::load_from_str(text).unwrap().remove(0)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
