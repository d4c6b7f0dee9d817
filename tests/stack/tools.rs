//! The programs that the tests run and do not build: Python with homu and Buildbot, Prometheus,
//! libfaketime.

use std::path::{Path, PathBuf};

/// The directory that `tests/stack/install.sh` filled: `CI_WATCHDOG_TOOLS`, or
/// `target/tools`.
pub fn tools_dir() -> PathBuf {
    std::env::var_os("CI_WATCHDOG_TOOLS").map_or_else(|| root().join("target/tools"), PathBuf::from)
}

/// The Python that has homu, Buildbot and its worker.
pub fn python() -> PathBuf {
    tool("venv/bin/python")
}

/// Twisted's launcher, which runs Buildbot's master and workers.
pub fn twistd() -> PathBuf {
    tool("venv/bin/twistd")
}

/// A database of a Buildbot master that has run nothing yet.
pub fn fresh_master_database() -> PathBuf {
    tool("master/state.sqlite")
}

/// A program of the Prometheus packages: `prometheus`, `promtool`, `alertmanager`.
pub fn prometheus_tool(name: &str) -> PathBuf {
    tool(&format!("bin/{name}"))
}

/// The library that gives one process a wall clock of its own.
pub fn libfaketime() -> PathBuf {
    tool("faketime/libfaketime.so.1")
}

/// A file of this repository.
pub fn repository_file(path: &str) -> PathBuf {
    root().join(path)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A missing tool fails the test: a skipped test would look like a good one.
fn tool(path: &str) -> PathBuf {
    let tool = tools_dir().join(path);
    assert!(
        tool.exists(),
        "{} is missing: run tests/stack/install.sh",
        tool.display()
    );
    tool
}
