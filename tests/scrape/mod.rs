//! Metrics that were fed the sample, and a strict reader of Prometheus' text format 0.0.4, which
//! panics on a line that it cannot read.

use std::collections::{BTreeMap, BTreeSet};

use ci_watchdog::app::Observer;
use ci_watchdog::metrics::Metrics;

use crate::sample;

/// Metrics that followed the sample's tick and a reload, as after some minutes of work.
pub fn metrics() -> Metrics {
    let report = sample::report();
    let metrics = Metrics::new();
    metrics.reload(true, report.started.0);
    metrics.tick(&report);
    metrics.answered("metrics", 200);
    metrics
}

/// One family of a scrape.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge`, `histogram`.
    pub kind: String,
    /// Its help.
    #[allow(dead_code, reason = "not every test looks at it")]
    pub help: String,
    /// Its samples.
    pub samples: Vec<Sample>,
}

impl Family {
    /// The names of its labels, without a histogram's `le`.
    pub fn labels(&self) -> BTreeSet<&str> {
        let names = self.samples.iter().flat_map(|sample| sample.labels.keys());
        names
            .map(String::as_str)
            .filter(|name| *name != "le")
            .collect()
    }
}

/// One line of a scrape.
#[allow(dead_code, reason = "not every test looks at values")]
#[derive(Debug)]
pub struct Sample {
    /// The name, with a histogram's suffix.
    pub name: String,
    /// Its labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Every family by its name.
pub fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let sample = sample(line);
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| sample.name.strip_suffix(suffix))
                .find(|base| families.get(*base).is_some_and(|f| f.kind == "histogram"));
            let name = base.unwrap_or(&sample.name).to_owned();
            let family = families.get_mut(&name);
            family
                .unwrap_or_else(|| panic!("no family of {line}"))
                .samples
                .push(sample);
        }
    }
    families
}

fn sample(line: &str) -> Sample {
    let end = line
        .find(['{', ' '])
        .unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect(line);
            let (value, after) = value(after).unwrap_or_else(|| panic!("open quote: {line}"));
            assert!(plain(label), "{label:?} in {line}");
            assert!(
                labels.insert(label.to_owned(), value).is_none(),
                "twice: {line}"
            );
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    assert!(plain(name), "{name:?} in {line}");
    let number = rest.strip_prefix(' ').expect(line);
    Sample {
        name: name.to_owned(),
        labels,
        value: number
            .parse()
            .unwrap_or_else(|_| panic!("not a number: {line}")),
    }
}

/// A label's value up to its quote, and what stands behind the quote.
fn value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            _ => value.push(character),
        }
    }
    None
}

fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
