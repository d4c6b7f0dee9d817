//! The command line: what its subcommands print, where, and with which exit code.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

#[path = "cli/hand.rs"]
mod hand;
#[path = "cli/report.rs"]
mod report;
mod sample;

#[path = "cli/journal.rs"]
mod journal;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ci_watchdog::app::{HandReport, Health, Instruction, OrderWish};
use ci_watchdog::config::Token;
use ci_watchdog::decision::hand::{Refusal, Wish};
use ci_watchdog::journal::Journal;
use ci_watchdog::metrics::Metrics;
use ci_watchdog::model::{
    AttemptId, BuildId, BuildKey, BuildKind, Closing, Intent, Moment, Outcome, Remedy, Sighting,
    SightingCause, Step, Target, Verdict,
};
use ci_watchdog::report::Report;
use ci_watchdog::web::{Daemon, Web, router, serve};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CONFIG: i32 = 78;
const SECRET: &str = "hunter2-hunter2-hunter2";

/// A folder with a configuration that is good, and homu's own.
struct Place {
    folder: TempDir,
}

impl Place {
    /// `listen` is where a watchdog answers, or nobody.
    fn new(listen: SocketAddr) -> Self {
        let place = Self {
            folder: TempDir::new().unwrap(),
        };
        place.write("ci-watchdog.toml", &good(listen));
        place.write(
            "cfg.toml",
            &format!(
                "[github]\naccess_token = \"{SECRET}\"\napp_client_id = \"x\"\n\
                 app_client_secret = \"x\"\n[web]\nport = 54856\n[repo.widgets]\nowner = \"acme\"\n\
                 name = \"widgets\"\nreviewers = [\"ann\"]\n[repo.widgets.github]\n\
                 secret = \"{SECRET}\"\n[repo.widgets.buildbot]\nurl = \"http://127.0.0.1:8010\"\n\
                 secret = \"{SECRET}\"\nbuilders = [\"linux\"]\nusername = \"\"\npassword = \"\"\n"
            ),
        );
        place.write("main.db", "");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Runs the program in the folder, where it finds its configuration by itself.
    fn run(&self, arguments: &[&str]) -> Answer {
        run_in(self.folder.path(), arguments)
    }

    /// Writes a journal with two sightings and one attempt of two requests.
    fn fill_journal(&self) {
        let (mut journal, _) = Journal::open(&self.path("journal.db")).unwrap();
        let wall = SystemTime::now();
        let build = |repo: &str, pull| BuildId {
            key: BuildKey {
                bot: "homu".into(),
                repo: repo.into(),
                pull,
                kind: BuildKind::Auto,
            },
            generation: 1,
        };
        for (repo, pull) in [("widgets", 7), ("gears", 1)] {
            let sighting = Sighting {
                build: build(repo, pull),
                merge_sha: Some("cafe".repeat(10).as_str().into()),
                head_sha: None,
                at: Moment::ZERO,
                cause: SightingCause::First,
                before: BTreeSet::new(),
            };
            journal.sight(&sighting, wall).unwrap();
        }
        let intent = Intent {
            attempt: AttemptId {
                target: Target::Build(build("widgets", 7)),
                remedy: Remedy::Rerun,
                ordinal: 1,
            },
            step: Step::ReleaseSlot { shas: Vec::new() },
            verdict: Verdict::NoShow,
            evidence: vec!["the whole history has no run of cafecaf".to_owned()],
            merge_sha: None,
            head_sha: None,
            runs: BTreeSet::new(),
            zones: BTreeSet::new(),
            lost_workers: BTreeSet::new(),
            by: None,
        };
        let id = journal.intend(intent, Moment::ZERO, wall).unwrap().id();
        let outcome = Outcome::Accepted("HTTP 200 \u{1b}]0;owned\u{7}".to_owned());
        journal.outcome(id, Moment::ZERO, wall, &outcome).unwrap();
        journal
            .close(id, Moment::ZERO, wall, Closing::Done)
            .unwrap();
    }
}

fn good(listen: SocketAddr) -> String {
    format!(
        "[server]\nlisten = \"{listen}\"\n[[bot]]\nname = \"homu\"\nkind = \"homu\"\n\
         config = \"cfg.toml\"\nmention = \"bors\"\n"
    )
}

fn run_in(folder: &Path, arguments: &[&str]) -> Answer {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_ci-watchdog"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let answer = Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    let said = format!("{}{}", answer.out, answer.err);
    assert!(!said.contains(SECRET), "{said}");
    assert!(
        !said.chars().any(|c| c.is_control() && c != '\n'),
        "a terminal would obey it: {said:?}"
    );
    answer
}

#[derive(Debug)]
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (0, ""));
        serde_json::from_str(&self.out).unwrap()
    }

    /// Failed with this code, with all these words on standard error and nothing on standard output.
    fn assert_failed(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {}", self.err);
        }
    }
}

/// A watchdog whose loop stands still.
struct StandingLoop(Arc<Report>);

impl Daemon for StandingLoop {
    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.0)
    }

    fn health(&self) -> Health {
        unreachable!("the command line does not ask for it")
    }

    fn token(&self) -> Option<Arc<Token>> {
        unreachable!("the command line changes nothing")
    }

    fn request_reload(&self) -> oneshot::Receiver<Result<(), String>> {
        unreachable!("the command line does not ask for it")
    }

    fn request_by_hand(&self, _: Wish, _: bool) -> oneshot::Receiver<Result<HandReport, Refusal>> {
        unreachable!("without a token nothing is done")
    }

    fn request_order(
        &self,
        _: OrderWish,
        _: bool,
    ) -> oneshot::Receiver<Result<Instruction, Refusal>> {
        unreachable!("without a token nothing is ordered")
    }
}

/// A watchdog that answers with this report, and a place whose configuration names it.
async fn watchdog(report: Report) -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::new(listener.local_addr().unwrap());
    let web = Web {
        shared: Arc::new(StandingLoop(Arc::new(report))),
        metrics: Arc::new(Metrics::new()),
    };
    let forever = std::future::pending();
    tokio::spawn(serve(listener, router(Arc::new(web)), forever));
    place
}

/// A place whose configuration names an address at which nobody answers.
fn alone() -> Place {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Place::new(listener.local_addr().unwrap())
}

#[test]
fn help_documents_the_exit_codes_and_every_subcommand() {
    let help = alone().run(&["--help"]);
    assert_eq!(help.code, 0);
    for word in [
        "run",
        "check-config",
        "status",
        "explain",
        "history",
        "report",
        "retry",
        "reset",
        "release-slot",
        "pause",
        "resume",
        "exclude",
        "include",
        "demo",
        "78",
        "Exit codes",
    ] {
        assert!(help.out.contains(word), "{word}: {}", help.out);
    }
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    let place = alone();
    place.run(&["mend"]).assert_failed(USAGE, &["mend"]);
    place.run(&[]).assert_failed(USAGE, &["Usage"]);
    place
        .run(&["history", "--since", "yesterday"])
        .assert_failed(USAGE, &["--since"]);
    for wrong in ["widgets", "widgets#", "widgets#seven", "#7"] {
        place
            .run(&["explain", wrong])
            .assert_failed(USAGE, &["REPO#NUMBER", "servo#1234"]);
    }
}

#[test]
fn without_a_configuration_it_says_where_it_looked() {
    let empty = TempDir::new().unwrap();
    for command in ["run", "check-config", "status", "history"] {
        run_in(empty.path(), &[command]).assert_failed(
            CONFIG,
            &["ci-watchdog.toml", "/etc/ci-watchdog", "--config"],
        );
    }
    run_in(empty.path(), &["status", "--config", "else.toml"])
        .assert_failed(CONFIG, &["else.toml"]);
}

#[test]
fn a_good_configuration_is_summed_up() {
    let place = alone();
    let answer = place.run(&["check-config"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.out.contains("good; 1 bot with 1 repository, "),
        "{answer:?}"
    );
    assert_eq!(place.run(&["check-config", "--json"]).json()["good"], true);
}

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let place = alone();
    let bad = "mode = \"heal\"\n[loop]\ntick = 10\n";
    place.write("bad.toml", bad);
    let answer = place.run(&["check-config", "--config", "bad.toml"]);
    answer.assert_failed(CONFIG, &["bad.toml:1", "mode", "bad.toml:3", "tick", "bot"]);
    let json = place.run(&["check-config", "--config", "bad.toml", "--json"]);
    assert_eq!(json.code, CONFIG);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["good"], false);
    assert!(json["mistakes"].as_array().unwrap().len() >= 3, "{json}");
    place
        .run(&["run", "--config", "bad.toml"])
        .assert_failed(CONFIG, &["bad.toml:1"]);
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    let place = alone();
    // Every write to it says that there is no space left.
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ci-watchdog"));
    command
        .current_dir(place.folder.path())
        .stderr(full.unwrap());
    let mut watchdog = command.arg("run").spawn().unwrap();

    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = place.run(&["status", "--json"]);
        if status.code == 0 && status.json()["status"]["tick"].as_u64() > Some(0) {
            break;
        }
        let ended = watchdog.try_wait().unwrap();
        if ended.is_some() || Instant::now() > deadline {
            let _ = watchdog.kill();
            panic!("ended: {ended:?}; {status:?}");
        }
    }
    let pid = Pid::from_raw(i32::try_from(watchdog.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(watchdog.wait().unwrap().code(), Some(0));

    let status = command.args(["--config", "missing.toml"]).status().unwrap();
    assert_eq!(status.code(), Some(CONFIG));
}

#[test]
fn a_watchdog_that_is_not_running_is_said_with_what_to_do() {
    let place = alone();
    for arguments in [&["status"][..], &["explain", "widgets#7"]] {
        place.run(arguments).assert_failed(
            FAILED,
            &["no watchdog answers at 127.0.0.1:", "ci-watchdog run"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_sources_builds_holds_and_zones() {
    let place = watchdog(sample::report()).await;
    let answer = place.run(&["status"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    for text in [
        "provider mac-ci (buildbot): DOWN: no complete answer within 10s",
        "bot homu (homu): answers",
        "zone mac-ci/mac: outage: no worker is able",
        "queue homu/gears: wedged",
        "warning: the CI of gears has no configured provider",
        "widgets#7        worker_lost",
        "zone_outage: zone mac-ci/mac is in outage",
        "widgets#8 (try)  unreported",
    ] {
        assert!(
            answer.out.contains(text),
            "{text:?} is not in\n{}",
            answer.out
        );
    }
    let json = place.run(&["status", "--json"]).json();
    assert_eq!(json["status"]["pending"], 2);
    assert_eq!(json["builds"][0]["pull"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_all_that_is_known_of_a_pull_request() {
    let place = watchdog(sample::report()).await;
    place.fill_journal();
    let answer = place.run(&["explain", "widgets#7"]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
    for text in [
        "widgets#7: worker_lost (Turn the widgets the other way)",
        "homu waits for an auto build of aaaa",
        "mac (mac-ci): worker_lost",
        "its worker went away",
        "rerun is held by the gate zone_outage: zone mac-ci/mac is in outage",
        "it would send: release_slot, then retry",
        "Nothing was sent for it.",
        "What was done earlier, from the journal:",
        "release_slot because no_show: the whole history has no run of cafecaf",
        "accepted: HTTP 200",
    ] {
        assert!(
            answer.out.contains(text),
            "{text:?} is not in\n{}",
            answer.out
        );
    }
    assert!(!answer.out.contains("widgets#8"), "{}", answer.out);

    let named = place.run(&["explain", "homu/widgets#8"]);
    assert!(named.out.contains("replay_result accepted"), "{named:?}");
    assert!(named.out.contains("a try build"), "{named:?}");
    let json = place.run(&["explain", "widgets#7", "--json"]).json();
    assert_eq!(json["builds"][0]["hold"]["gate"], "zone_outage");
    assert_eq!(json["earlier"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_watchdog_told_of_is_not_told_again_from_the_journal() {
    let mut report = sample::report();
    let mut attempt = report.attempts[0].clone();
    attempt.id = "homu:widgets:7:auto:1:rerun:1".to_owned();
    report.builds[0].attempts = vec![attempt];
    let place = watchdog(report).await;
    place.fill_journal();
    let answer = place.run(&["explain", "widgets#7"]);
    assert!(answer.out.contains("What was done, oldest first:"));
    assert!(!answer.out.contains("earlier"), "{}", answer.out);
    let json = place.run(&["explain", "widgets#7", "--json"]).json();
    assert_eq!(json["earlier"], Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_bot_that_does_not_answer_nothing_is_said_to_be_known() {
    let mut report = sample::report();
    report.builds.clear();
    let idle = watchdog(report.clone()).await.run(&["status"]);
    assert!(idle.out.contains("No bot waits for anything."), "{idle:?}");
    report.sources[0].up = Some(false);
    let place = watchdog(report).await;
    let silent = place.run(&["status"]);
    assert!(
        silent.out.contains("What homu waits for is not known."),
        "{silent:?}"
    );
    let silent = place.run(&["explain", "gears#12"]);
    let known = "Whether homu waits for a build of gears#12 is not known.";
    assert!(silent.out.contains(known), "{silent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_when_nothing_is_pending_or_known() {
    let place = watchdog(sample::report()).await;
    place.fill_journal();
    let idle = place.run(&["explain", "gears#12"]);
    assert_eq!(idle.code, 0);
    assert!(
        idle.out.contains("No bot waits for a build of gears#12."),
        "{idle:?}"
    );
    assert!(
        idle.out.contains("The queue of homu/gears: wedged"),
        "{idle:?}"
    );
    place
        .run(&["explain", "cogs#1"])
        .assert_failed(FAILED, &["\"cogs\"", "homu/gears, homu/widgets"]);
    place
        .run(&["explain", "bors/widgets#7"])
        .assert_failed(FAILED, &["bors does not serve", "homu/widgets"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_goes_on_without_the_journal_and_says_so() {
    let place = watchdog(sample::report()).await;
    let answer = place.run(&["explain", "widgets#7"]);
    assert_eq!(answer.code, 0);
    assert!(answer.out.contains("worker_lost"), "{answer:?}");
    assert!(
        answer.err.contains("what was done earlier is not shown"),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_cannot_command_the_terminal() {
    let mut report = sample::report();
    for build in &mut report.builds {
        build.title = "\u{1b}[2J\u{9b}31mred\r".to_owned();
        build.evidence = vec!["two\nlines\u{1b}c".to_owned()];
    }
    let place = watchdog(report).await;
    // Looked at by every run.
    for arguments in [&["status"][..], &["explain", "widgets#7"]] {
        assert_eq!(place.run(arguments).code, 0);
    }
}

#[test]
fn history_without_a_journal_says_what_is_missing() {
    alone()
        .run(&["history"])
        .assert_failed(FAILED, &["journal.db", "was the watchdog ever run"]);
}

#[test]
fn history_filters_by_repository_pull_request_time_and_number() {
    let place = alone();
    place.fill_journal();
    let count = |arguments: &[&str]| {
        let all: Vec<&str> = ["history", "--json"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        place.run(&all).json().as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 5);
    assert_eq!(count(&["--repo", "gears"]), 1);
    assert_eq!(count(&["--repo", "widgets", "--pull", "7"]), 4);
    assert_eq!(count(&["--pull", "99"]), 0);
    assert_eq!(count(&["--limit", "2"]), 2);
    assert_eq!(count(&["--since", "1h"]), 5);
    assert_eq!(count(&["--since", "0s"]), 0);
    let none = place.run(&["history", "--pull", "99"]);
    assert_eq!(
        (none.code, none.out.as_str()),
        (0, "Nothing was seen or done that fits.\n")
    );
}

#[test]
fn history_is_a_table_that_says_what_each_request_was_for() {
    let place = alone();
    place.fill_journal();
    let answer = place.run(&["history", "--repo", "widgets"]);
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines.len(), 5, "{}", answer.out);
    assert!(lines[0].starts_with("WHEN "), "{}", lines[0]);
    assert!(
        lines[1].contains("seen       homu:widgets:7:auto:1"),
        "{}",
        lines[1]
    );
    for (line, word) in lines[2..].iter().zip(["no_show", "HTTP 200", "done"]) {
        assert!(line.contains("homu:widgets:7:auto:1:rerun:1"), "{line}");
        assert!(line.contains(word), "{line}");
    }
}
