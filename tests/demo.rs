//! The demo tells its story to the end, and all of it comes as told.

use std::process::Command;

#[test]
fn the_demo_ends_by_itself_with_everything_as_told() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ci-watchdog"));
    let output = command
        .args(["demo", "--reading-time", "0s"])
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{told}\n{complaints}",
        output.status
    );
    for line in [
        "6. ",
        "what broke",
        "0 live runs restarted",
        "Everything went as told",
    ] {
        assert!(told.contains(line), "{line:?} is missing:\n{told}");
    }
    assert_eq!(complaints, "");
}
