//! Prometheus' own checker, from the tools that the tests are given.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs promtool in the root of the repository; a missing one is a failure, not a skip.
pub fn promtool(arguments: &[&str], input: &str) -> Output {
    let program = tools().join("bin/promtool");
    let mut child = Command::new(&program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{} cannot be run: {error}; run tests/stack/install.sh",
                program.display()
            )
        });
    let mut stdin = child.stdin.take().expect("it was asked for above");
    // A promtool that ends without reading breaks the pipe; its exit code then says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it was started above")
}

/// Fails with everything that promtool said, unless it was content.
#[track_caller]
pub fn assert_content(output: &Output) {
    assert!(
        output.status.success(),
        "promtool: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn tools() -> PathBuf {
    std::env::var_os("CI_WATCHDOG_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools"),
        PathBuf::from,
    )
}
