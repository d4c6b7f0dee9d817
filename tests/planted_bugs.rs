//! A simulator that never fails proves nothing: it must catch every bug that is planted in the core.
//!
//! Each file in `tests/simulation/bugs` plants one, by replacing a piece of text that occurs once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use serde::Deserialize;

/// Seeds in which a bug must be caught.
const SEEDS: &str = "3000";
/// Seeds in which the untouched core must pass.
const UNTOUCHED_SEEDS: &str = "200";
/// Bugs that are built and run at a time.
const AT_ONCE: usize = 2;
/// What the core is built with.
const CRATES: [&str; 3] = ["serde", "thiserror", "humantime"];

/// One planted bug.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bug {
    /// What it gets wrong.
    why: String,
    /// Where it is planted.
    file: PathBuf,
    /// What is replaced; it must occur once.
    find: String,
    /// What it is replaced by.
    replace: String,
}

/// A crate of the core and its simulator alone, so that one build takes a second.
struct Copy {
    folder: PathBuf,
}

#[test]
fn the_simulator_catches_every_planted_bug_and_passes_the_untouched_core() {
    let bugs = bugs();
    assert!(
        bugs.len() > 12,
        "the bugs are not where they are looked for"
    );
    let queue = Mutex::new(bugs.iter());
    let missed: Mutex<Vec<String>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for place in 0..AT_ONCE {
            let (queue, missed) = (&queue, &missed);
            scope.spawn(move || {
                let copy = Copy::new(place);
                if place == 0 {
                    copy.fill();
                    let passed = copy.simulate(UNTOUCHED_SEEDS);
                    if !passed.status.success() {
                        missed
                            .lock()
                            .unwrap()
                            .push(format!("the untouched core fails:\n{}", text(&passed)));
                    }
                }
                while let Some((name, bug)) = next(queue) {
                    copy.fill();
                    copy.plant(name, bug);
                    match caught(&copy.simulate(SEEDS)) {
                        Ok(by) => println!("{name}: {by}"),
                        Err(why) => missed
                            .lock()
                            .unwrap()
                            .push(format!("{name} ({}): {why}", bug.why)),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn a_bug_that_changes_nothing_is_not_caught() {
    let passed = Output {
        status: Command::new("true").status().unwrap(),
        stdout: b"3 seeds".to_vec(),
        stderr: Vec::new(),
    };
    assert!(caught(&passed).is_err());
    let not_built = Output {
        status: Command::new("false").status().unwrap(),
        stdout: Vec::new(),
        stderr: b"error: could not compile".to_vec(),
    };
    assert!(
        caught(&not_built).is_err(),
        "a bug that does not compile is none"
    );
}

fn next<'a>(queue: &Mutex<impl Iterator<Item = &'a (String, Bug)>>) -> Option<(&'a str, &'a Bug)> {
    let mut queue = queue.lock().unwrap();
    queue.next().map(|(name, bug)| (name.as_str(), bug))
}

/// By which seed and rule a bug was caught.
fn caught(output: &Output) -> Result<String, String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let seed = stdout.lines().find(|line| line.starts_with("seed "));
    match (output.status.success(), seed) {
        (false, Some(seed)) => {
            let rule = stdout.lines().skip_while(|line| *line != seed).nth(1);
            let seed = seed.split(':').next().unwrap_or_default();
            Ok(format!("{seed}, {}", rule.unwrap_or_default().trim()))
        }
        (true, _) => Err(format!("not caught in {SEEDS} seeds")),
        (false, None) => Err(text(output)),
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bugs() -> Vec<(String, Bug)> {
    let mut bugs: Vec<(String, Bug)> = fs::read_dir(root().join("tests/simulation/bugs"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let bug = toml::from_str(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (name, bug)
        })
        .collect();
    bugs.sort_by(|(a, _), (b, _)| a.cmp(b));
    bugs
}

impl Copy {
    /// Kept from run to run, so that only what changed is built again.
    fn new(place: usize) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("planted-{place}"));
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::create_dir_all(folder.join("tests")).unwrap();
        let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
        fs::write(folder.join("Cargo.toml"), manifest(&lock)).unwrap();
        fs::write(folder.join("Cargo.lock"), lock).unwrap();
        let modules = "//! The pure core alone.\npub mod decision;\npub mod model;\n";
        write(&folder.join("src/lib.rs"), modules);
        Self { folder }
    }

    /// The core and the simulator as they are.
    fn fill(&self) {
        for part in ["src/model", "src/decision", "tests/simulation"] {
            copy(&root().join(part), &self.folder.join(part));
        }
        let test = fs::read_to_string(root().join("tests/simulation.rs")).unwrap();
        write(&self.folder.join("tests/simulation.rs"), &test);
    }

    fn plant(&self, name: &str, bug: &Bug) {
        let path = self.folder.join(&bug.file);
        let sound = fs::read_to_string(&path).unwrap();
        let times = sound.matches(&bug.find).count();
        assert_eq!(
            times,
            1,
            "{name}: its text occurs {times} times in {}",
            bug.file.display()
        );
        write(&path, &sound.replace(&bug.find, &bug.replace));
    }

    fn simulate(&self, seeds: &str) -> Output {
        Command::new(env!("CARGO"))
            .args(["test", "--offline", "--quiet", "--test", "simulation"])
            .args(["every_seed_keeps_every_rule", "--", "--nocapture"])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .env("CI_WATCHDOG_SEEDS", seeds)
            .env("CI_WATCHDOG_FIRST", "1")
            .env_remove("CI_WATCHDOG_SEED")
            .env_remove("CARGO_INCREMENTAL")
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap()
    }
}

/// The manifest of a copy, with the very versions that the core is shipped with.
fn manifest(lock: &str) -> String {
    let lock: toml::Table = toml::from_str(lock).unwrap();
    let packages = lock["package"].as_array().unwrap();
    let version = |name: &str| {
        let package = packages
            .iter()
            .find(|package| package["name"].as_str() == Some(name))
            .unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        package["version"].as_str().unwrap().to_owned()
    };
    let dependencies: Vec<String> = CRATES
        .iter()
        .map(|name| {
            let version = version(name);
            let features = if *name == "serde" {
                "features = [\"derive\"]"
            } else {
                ""
            };
            let comma = if features.is_empty() { "" } else { ", " };
            format!("{name} = {{ version = \"={version}\"{comma}{features} }}")
        })
        .collect();
    format!(
        "[package]\nname = \"ci-watchdog\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{}\n\n\
         [profile.test]\nopt-level = 1\ndebug = 0\nincremental = true\n\n\
         [workspace]\n",
        dependencies.join("\n")
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            write(&target, &fs::read_to_string(&path).unwrap());
        }
    }
}

/// Writes a file only where it changes, so that nothing is built again without need.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::write(path, text).unwrap();
}
