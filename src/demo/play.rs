//! `ci-watchdog demo` from start to end: the folder, the fakes, the watchdog, the story, the summary.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::stage::{Stage, Tell};
use super::story;
use super::summary::Summary;
use super::town::{REPOS, Town};
use super::watchdog::{Start, Watchdog};

/// With `--keep-running`: the time between two pull requests, so that there is something to see.
const NEXT_PULL: Duration = Duration::from_secs(20);
/// With `--keep-running`: how many there are; the fakes keep each of them in memory.
const PULLS_MAX: usize = 1_000;

/// What a demo needs.
pub struct DemoOptions {
    /// Whether it goes on after the story until it is interrupted.
    pub keep_running: bool,
    /// How long to wait after the title of each act.
    pub reading_time: Duration,
    /// Takes its lines.
    pub tell: Tell,
    /// Starts the real watchdog.
    pub start: Start,
}

/// Runs the demo to its end.
///
/// # Errors
///
/// When the fakes or the watchdog cannot be started or stopped, or the demo was interrupted. What
/// was not as told is part of the summary.
pub async fn run(options: DemoOptions) -> anyhow::Result<Summary> {
    let interrupted = on_interrupt().context("signals cannot be handled")?;
    let folder = Folder::make().context("no folder for the demo can be made")?;
    let town = Town::start(folder.path())
        .await
        .context("the fakes cannot be started")?;
    let watchdog =
        Watchdog::start(&town, options.start).context("the watchdog cannot be started")?;
    let mut stage = Stage::new(town, watchdog, options.tell, options.reading_time);
    introduce(&stage);
    let summary = interrupted
        .run_until_cancelled(story::play(&mut stage))
        .await;
    if let Some(summary) = &summary {
        stage.title("");
        stage.title(&summary.to_string());
        if options.keep_running {
            // Only the interrupt ends it.
            let _ = interrupted.run_until_cancelled(go_on(&mut stage)).await;
        }
    }
    stage
        .into_watchdog()
        .stop()
        .await
        .map_err(anyhow::Error::msg)?;
    summary.context("the demo was interrupted before its end")
}

/// Cancelled by Ctrl-C and by SIGTERM, so that the watchdog stops between two ticks and nothing is
/// left in the temporary folder.
fn on_interrupt() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let interrupted = CancellationToken::new();
    let token = interrupted.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(interrupted)
}

/// Keeps the town alive, with a pull request now and then.
async fn go_on(stage: &mut Stage) {
    stage.title("");
    stage.title(&format!(
        "The page stays at {} until Ctrl-C; a pull request comes every {} s.",
        stage.watchdog().url(),
        NEXT_PULL.as_secs()
    ));
    for (number, label) in REPOS.into_iter().cycle().take(PULLS_MAX).enumerate() {
        stage.pass(NEXT_PULL).await;
        let title = format!("Change number {}", number + 1);
        if let Ok(pull) = stage.open(label, &title).await {
            // Whether it comes to be approved is nothing that the rest depends on.
            let _ = stage.ask(label, pull);
        }
    }
    loop {
        stage.pass(NEXT_PULL).await;
    }
}

fn introduce(stage: &Stage) {
    stage.title(&format!(
        "A fake homu, a fake Buildbot and a fake GitHub on loopback, and the real ci-watchdog \
         beside them.\nEverything is broken once, and repaired without a hand; what takes minutes \
         in earnest takes seconds.\n\n  page    {}\n  config  {}\n  homu    {}/queue/all",
        stage.watchdog().url(),
        stage.watchdog().config().display(),
        stage.town.homu.url(),
    ));
}

/// A folder of our own that goes away with us.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("ci-watchdog-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a few files in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
