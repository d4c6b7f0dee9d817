//! Processes that write a journal and are killed, starved of disk, or kept from their folder.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ci_watchdog::journal::{Journal, JournalFailure};
use ci_watchdog::model::{Moment, Record};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::samples::{act, at, sighting, wall, write};

/// Says to a process of this program which part it plays, and on which journal.
const PART: &str = "JOURNAL_TEST_PART";
const JOURNAL: &str = "JOURNAL_TEST_PATH";

/// What a child said that it had done, line by line.
#[derive(Debug, Default)]
pub struct Said {
    /// The journal was open.
    pub ready: bool,
    /// Records that were acknowledged, in order.
    pub records: Vec<Record>,
    /// The latest clock that was acknowledged.
    pub clock: Moment,
    /// Failures, by their kinds.
    pub failures: Vec<String>,
}

/// Starts this program again, in a part.
pub fn start(part: &str, journal: &Path, before: &[&str]) -> Child {
    let exe = std::env::current_exe().unwrap();
    let mut words: Vec<&OsStr> = before.iter().map(OsStr::new).collect();
    words.push(exe.as_os_str());
    words.extend(["--exact", "child", "--ignored", "--nocapture"].map(OsStr::new));
    Command::new(words[0])
        .args(&words[1..])
        .env(PART, part)
        .env(JOURNAL, journal)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills a child with SIGKILL after `delay`, and returns all that it had said.
pub fn kill_after(mut child: Child, delay: Duration) -> Said {
    let output = child.stdout.take().unwrap();
    let (sender, said) = mpsc::channel();
    let reading = std::thread::spawn(move || sender.send(listen(output)));
    // It never ends by itself; this waits, and shows where it does.
    let early = said.recv_timeout(delay);
    assert!(early.is_err(), "it ended by itself: {early:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap().unwrap();
    said.recv().unwrap()
}

/// Waits for a child's own end, and returns all that it said.
pub fn finish(mut child: Child) -> Said {
    let said = listen(child.stdout.take().unwrap());
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {said:?}");
    said
}

/// Reads what a child says until it has acknowledged a record.
pub fn wait_for_a_record(child: &mut Child) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found = lines
        .map(Result::unwrap)
        .find(|line| line.starts_with("ack record "));
    assert!(found.is_some(), "it never wrote");
}

fn listen(output: impl std::io::Read) -> Said {
    let mut said = Said::default();
    for line in BufReader::new(output).lines() {
        let line = line.unwrap();
        // A line that the kill cut short was not acknowledged; the test runner's are not ours.
        let Some(words) = line
            .strip_prefix("ack ")
            .and_then(|line| line.strip_suffix(" end"))
        else {
            continue;
        };
        match words.split_once(' ') {
            Some(("record", text)) => said.records.push(serde_json::from_str(text).unwrap()),
            Some(("clock", millis)) => said.clock = at(millis.parse().unwrap()),
            Some(("failure", kind)) => said.failures.push(kind.to_owned()),
            Some(_) => panic!("{line}"),
            None => said.ready = true,
        }
    }
    said
}

/// Plays the part that the environment names; does nothing without one.
pub fn play() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let path = PathBuf::from(std::env::var_os(JOURNAL).unwrap());
    match part.as_str() {
        "append" => append(&path),
        "limit" => limit(&path),
        "limits" => crate::failing::try_every_limit(&path),
        "folder" => folder(&path),
        other => panic!("no such part: {other}"),
    }
}

pub fn say(words: &str) {
    let mut output = std::io::stdout().lock();
    // The test runner may have begun a line.
    writeln!(output, "\nack {words} end").unwrap();
    output.flush().unwrap();
}

fn say_record(record: &Record) {
    say(&format!(
        "record {}",
        serde_json::to_string(record).unwrap()
    ));
}

/// Appends for ever, and says each record once it is acknowledged.
fn append(path: &Path) {
    let (mut journal, memory) = Journal::open(path).unwrap();
    say("ready");
    let mut next = memory.records.last().map_or(1, |last| last.seq + 1);
    let mut millis = memory.watched.as_millis();
    loop {
        let first = next;
        for mut record in act(first, first.unsigned_abs()) {
            // The number that the permit says counts, not the one that was guessed.
            if let Some(permit) = write(&mut journal, &record, wall(0)).unwrap() {
                assert_eq!(permit.id().0, first);
                record = Record::Intent {
                    id: permit.id(),
                    at: at(first.unsigned_abs() * 10),
                    intent: permit.intent().clone(),
                };
            }
            say_record(&record);
            next += 1;
        }
        millis += 10_000;
        journal.save_clock(at(millis), wall(0)).unwrap();
        say(&format!("clock {millis}"));
    }
}

/// Appends until no file may grow, then gets its room back and appends again.
fn limit(path: &Path) {
    let (mut journal, _) = Journal::open(path).unwrap();
    let free = getrlimit(Resource::Fsize);
    let size = std::fs::metadata(path).unwrap().len();
    let limit = |current| Rlimit {
        current,
        maximum: free.maximum,
    };
    setrlimit(Resource::Fsize, limit(Some(size + 8192))).unwrap();
    let mut sight = |pull: u64| {
        let record = Record::Sighting(sighting(pull, 1, pull));
        match write(&mut journal, &record, wall(pull)) {
            Ok(_) => {
                say_record(&record);
                true
            }
            Err(error) => {
                assert!(error.failure().stops_acting(), "{error}");
                say(&format!("failure {}", error.failure()));
                false
            }
        }
    };
    let full = (0..1000)
        .find(|&pull| !sight(pull))
        .expect("the limit is reached");
    assert!(!sight(full), "still no room");
    setrlimit(Resource::Fsize, limit(free.current)).unwrap();
    assert!(sight(full), "room again");
    assert!(sight(full + 1));
}

/// Writes into a folder that may not be written, then may.
fn folder(path: &Path) {
    let folder = path.parent().unwrap();
    let allow = |mode| {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(0o500);
    let error = Journal::open(path).unwrap_err();
    assert_eq!(error.failure(), JournalFailure::Permission, "{error}");
    say(&format!("failure {}", error.failure()));
    allow(0o700);
    let (mut journal, _) = Journal::open(path).unwrap();
    let [first, second] = [1, 2].map(|pull| Record::Sighting(sighting(pull, 1, 0)));
    allow(0o500);
    let error = write(&mut journal, &first, wall(0)).unwrap_err();
    assert_eq!(error.failure(), JournalFailure::Permission, "{error}");
    say(&format!("failure {}", error.failure()));
    allow(0o700);
    write(&mut journal, &second, wall(0)).unwrap();
    say_record(&second);
}
