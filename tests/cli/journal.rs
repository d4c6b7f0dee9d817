//! The real daemon with a journal that it must not believe, and with one that it must not touch.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// The daemon; killed with the test.
struct Daemon(Child);

impl Daemon {
    fn start(place: &Place) -> Self {
        let log = std::fs::File::create(place.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ci-watchdog"))
            .arg("run")
            .current_dir(place.folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn with_a_damaged_journal_the_daemon_runs_and_says_so() {
    let place = alone();
    place.fill_journal();
    let path = place.path("journal.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let text = b"the whole history has no run";
    let found = bytes.windows(text.len()).position(|some| some == text);
    bytes[found.unwrap()] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let _daemon = Daemon::start(&place);
    let patience = Instant::now() + Duration::from_secs(60);
    let said = loop {
        let status = place.run(&["status"]);
        if status.out.contains("the journal cannot be written") {
            break status.out;
        }
        let log = std::fs::read_to_string(place.path("log")).unwrap();
        assert!(
            Instant::now() < patience,
            "{}{}\n{log}",
            status.out,
            status.err
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for part in [
        "journal.db is damaged and was left as it is",
        "record 3 does not follow",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    assert_eq!(
        log.matches("is damaged and was left").count(),
        1,
        "once: {log}"
    );
    assert!(std::fs::read(&path).unwrap() == bytes, "it was touched");
    let history = place.run(&["history"]);
    assert!(history.out.contains("widgets"), "{}", history.out);
}

#[test]
fn with_a_newer_version_s_journal_the_daemon_does_not_start() {
    let place = alone();
    place.fill_journal();
    rusqlite::Connection::open(place.path("journal.db"))
        .unwrap()
        .execute(
            "UPDATE meta SET value = 99 WHERE key = 'schema_version'",
            [],
        )
        .unwrap();
    place
        .run(&["run"])
        .assert_failed(FAILED, &["written by a newer version"]);
}
