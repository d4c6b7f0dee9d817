//! The core and its simulator as a crate of their own: built in seconds, optimized, and with a planted
//! bug where one is wanted.

#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the core is built with.
const CRATES: [&str; 3] = ["serde", "thiserror", "humantime"];

/// A copy of the core and its simulator. Its folder is kept from run to run, so that only what changed
/// is built again; the crates that it is built with are built once for all copies.
pub struct Copy {
    folder: PathBuf,
}

/// A bug: a piece of text that occurs once, and what is put in its place.
pub struct Edit<'a> {
    /// Where.
    pub file: &'a Path,
    /// What is replaced.
    pub find: &'a str,
    /// By what.
    pub replace: &'a str,
}

/// This package's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Both streams of a command that ended.
pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

impl Copy {
    /// The copy of this name.
    pub fn new(name: &str) -> Self {
        let folder = copies().join(name);
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::create_dir_all(folder.join("tests")).unwrap();
        let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
        write(&folder.join("Cargo.toml"), &manifest(name, &lock));
        fs::write(folder.join("Cargo.lock"), lock).unwrap();
        let modules = "//! The pure core alone.\npub mod decision;\npub mod model;\n";
        write(&folder.join("src/lib.rs"), modules);
        Self { folder }
    }

    /// The core and the simulator as they are.
    pub fn fill(&self) {
        for part in ["src/model", "src/decision", "tests/simulation"] {
            copy(&root().join(part), &self.folder.join(part));
        }
        let test = fs::read_to_string(root().join("tests/simulation.rs")).unwrap();
        write(&self.folder.join("tests/simulation.rs"), &test);
    }

    /// Plants a bug.
    pub fn plant(&self, name: &str, edit: &Edit<'_>) {
        let path = self.folder.join(edit.file);
        let sound = fs::read_to_string(&path).unwrap();
        let times = sound.matches(edit.find).count();
        let file = edit.file.display();
        assert_eq!(times, 1, "{name}: its text occurs {times} times in {file}");
        write(&path, &sound.replace(edit.find, edit.replace));
    }

    /// Runs the simulator with these variables.
    pub fn simulate(&self, variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["test", "--offline", "--quiet", "--test", "simulation"])
            .args(["every_seed_keeps_every_rule", "--", "--nocapture"])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", copies().join("target"))
            .env_remove("CARGO_INCREMENTAL")
            .env_remove("RUSTFLAGS");
        for variable in ["SEEDS", "FROM", "SEED", "FIRST", "WITH", "WITHOUT"] {
            command.env_remove(format!("CI_WATCHDOG_{variable}"));
        }
        command.envs(variables.iter().copied()).output().unwrap()
    }
}

fn copies() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("core-alone")
}

/// The manifest of a copy, with the very versions that the core is shipped with. Copies differ in their
/// version: cargo tells what it built for one from what it built for another by that, not by the folder.
fn manifest(copy: &str, lock: &str) -> String {
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
        "[package]\nname = \"ci-watchdog\"\nversion = \"0.0.0-{copy}\"\nedition = \"2024\"\n\n\
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
