//! What the Buildbot adapter makes of the answers of real masters, and of answers that are none.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what the tests share may fail them, as the tests themselves may"
)]

#[path = "contracts/buildbot/fake_master.rs"]
mod fake_master;
#[path = "contracts/buildbot/faults.rs"]
mod faults;
#[path = "contracts/buildbot/login.rs"]
mod login;
#[path = "contracts/buildbot/past.rs"]
mod past;
#[path = "contracts/buildbot/runs.rs"]
mod runs;

use std::fmt::Write as _;
use std::path::Path;

use ci_watchdog::keys;
use ci_watchdog::model::{BuilderName, ProviderName, ProviderSnapshot, Question, Sha};
use ci_watchdog::providers::{Advice, KINDS, Provider};
use fake_master::FakeMaster;

const BOTH: &[&str] = &["auto-linux", "auto-mac"];

fn sha(digit: char) -> Sha {
    Sha::new(digit.to_string().repeat(40))
}

fn question(digit: char, builders: &[&str]) -> Question {
    Question {
        sha: sha(digit),
        builders: builders
            .iter()
            .map(|name| BuilderName::from(*name))
            .collect(),
    }
}

/// A provider as the configuration makes it.
fn provider(table: &str) -> Result<Box<dyn Provider>, Vec<String>> {
    let kind = KINDS.iter().find(|kind| kind.name == "buildbot").unwrap();
    let reading = keys::read(Path::new("/etc/ci-watchdog.toml"), table, |keys| {
        (kind.connect)(ProviderName::new("buildbot"), keys, &Advice::default())
    });
    if reading.mistakes.is_empty() {
        Ok(reading.value.flatten().unwrap())
    } else {
        Err(reading.mistakes.iter().map(ToString::to_string).collect())
    }
}

fn connect(master: &FakeMaster) -> Box<dyn Provider> {
    provider(&format!("url = {:?}", master.url)).unwrap()
}

fn show(snapshot: &ProviderSnapshot) -> String {
    let mut text = String::new();
    for run in &snapshot.runs {
        let number = run
            .number
            .map_or_else(|| "-".to_owned(), |number| format!("#{number}"));
        let worker = run.worker.as_ref().map_or("-", |worker| worker.as_str());
        let _ = write!(
            text,
            "{} {} {} {:?} {number} {worker}",
            run.id,
            run.builder,
            run.sha.short(),
            run.state
        );
        if let Some(behind) = &run.behind {
            let _ = write!(text, " behind {behind}");
        }
        let _ = writeln!(text, ": {}", run.detail);
    }
    for (sha, history) in &snapshot.history {
        let _ = writeln!(text, "history of {} {history:?}", sha.short());
    }
    text
}

#[test]
fn a_mistaken_table_says_what_would_be_right() {
    for (table, expected) in [
        ("", "url: is missing"),
        (
            "url = \"http://a\"\nusername = \"wd\"",
            "password: is missing beside `username`",
        ),
        (
            "url = \"http://a\"\npassword = { env = \"PATH\" }",
            "username: is missing beside `password`",
        ),
        (
            "url = \"http://a\"\nca = \"/no/such/file.pem\"",
            "ca: /no/such/file.pem: ",
        ),
        ("url = \"http://a\"\ntoken = \"x\"", "token: "),
        ("url = \"ftp://a\"", "url: "),
    ] {
        let mistakes = provider(table).map(|_| ()).unwrap_err();
        assert!(
            mistakes.len() == 1 && mistakes[0].contains(expected),
            "{table:?}: {mistakes:?} should contain {expected:?}"
        );
    }
}

#[test]
fn a_provider_knows_its_place_without_asking() {
    let provider = provider("url = \"https://ci.example.org/buildbot/\"").unwrap();
    assert_eq!(provider.url(), "https://ci.example.org/buildbot");
    assert_eq!(
        (provider.kind(), provider.name().as_str()),
        ("buildbot", "buildbot")
    );
}
