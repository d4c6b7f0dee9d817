//! Restarting a bot by the operator's command: one process, no shell, a deadline, and what it said.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use crate::journal::Permit;
use crate::model::{Outcome, Step};

/// How long the command may take; then it is killed.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How much of what it says is kept of each of its two outputs, bytes; the rest is read and dropped.
const OUTPUT_MAX: usize = 2048;
/// How much of that stands in the outcome, characters.
const QUOTE_MAX: usize = 200;
/// What a command may still say once it has ended: a process that it left behind may keep the output open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// What it sees of the daemon's environment: what programs and `systemctl` need. The rest may hold
/// secrets.
const PASSED: [&str; 6] = [
    "PATH",
    "HOME",
    "LANG",
    "USER",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// Runs the command that the permit allows, once, and says what became of it. That the bot answers
/// again is not said.
pub async fn run(permit: Permit) -> Outcome {
    let Step::Restart { command } = permit.step() else {
        return Outcome::NotSent("it is no restart".to_owned());
    };
    run_within(command, DEADLINE).await
}

async fn run_within(command: &[String], deadline: Duration) -> Outcome {
    let Some((program, arguments)) = command.split_first() else {
        return Outcome::NotSent("the command is empty".to_owned());
    };
    let environment = PASSED
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Of its own, so that all of it can be killed, and none of it hears what the daemon hears.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Outcome::NotSent(format!("{program} could not be started: {error}")),
    };
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let ended = {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let listening = async {
            tokio::join!(keep(stdout, &mut said), keep(stderr, &mut complained));
        };
        let mut listening = std::pin::pin!(listening.fuse());
        let ended = tokio::time::timeout(deadline, async {
            tokio::select! {
                status = child.wait() => status,
                () = &mut listening => child.wait().await,
            }
        });
        let ended = ended.await.ok();
        if ended.is_none() {
            kill(&mut child);
        }
        if !listening.is_terminated() {
            let _ = tokio::time::timeout(LAST_WORDS, listening).await;
        }
        ended
    };
    let output = shown(&said, &complained);
    tracing::info!(?command, output, "the restart's command ended");
    outcome(ended, &output, deadline)
}

/// `None`: it was killed.
fn outcome(
    status: Option<std::io::Result<ExitStatus>>,
    output: &str,
    deadline: Duration,
) -> Outcome {
    let last = output.lines().last().unwrap_or_default().trim();
    let said: String = last.chars().take(QUOTE_MAX).collect();
    let said = if said.is_empty() {
        said
    } else {
        format!(": {said}")
    };
    match status {
        Some(Ok(status)) if status.success() => Outcome::Accepted(format!("{status}{said}")),
        Some(Ok(status)) => Outcome::Refused(format!("{status}{said}")),
        Some(Err(error)) => Outcome::Unanswered(format!("how it ended is not known: {error}")),
        None => Outcome::Unanswered(format!(
            "killed after {}{said}",
            humantime::format_duration(deadline)
        )),
    }
}

/// Kills the command and all that it started in its group.
fn kill(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(group) = group.and_then(Pid::from_raw) {
        // It may have ended this very moment.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Reads an output to its end, and keeps its beginning.
async fn keep(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let room = OUTPUT_MAX.saturating_sub(kept.len()).min(count);
        kept.extend(buffer.iter().take(room));
    }
}

/// What it said as printable lines.
fn shown(said: &[u8], complained: &[u8]) -> String {
    let text = [said, complained].map(String::from_utf8_lossy).concat();
    let printable = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let text: String = text.chars().map(printable).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::journal::Journal;
    use crate::model::{AttemptId, Intent, Moment, Remedy, Target, Verdict};

    /// Longer than any of these commands takes, unless it is meant to be killed.
    const LONG: Duration = Duration::from_secs(60);

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|word| (*word).to_owned()).collect()
    }

    async fn shell(script: &str) -> Outcome {
        run_within(&words(&["sh", "-c", script]), LONG).await
    }

    #[tokio::test]
    async fn the_command_of_the_permit_is_run_without_a_shell() {
        let (mut journal, _) = Journal::in_memory().expect("it is made in memory");
        let folder = tempfile::TempDir::new().expect("a folder can be made");
        let file = folder.path().join("$HOME *");
        let command = words(&["touch", file.to_str().expect("it is UTF-8")]);
        let intent = Intent {
            attempt: AttemptId {
                target: Target::Bot("homu".into()),
                remedy: Remedy::Restart,
                ordinal: 1,
            },
            step: Step::Restart { command },
            verdict: Verdict::Unknown,
            evidence: Vec::new(),
            merge_sha: None,
            head_sha: None,
            runs: Default::default(),
            zones: Default::default(),
            lost_workers: Default::default(),
            by: None,
        };
        let wall = std::time::SystemTime::UNIX_EPOCH;
        let permit = journal.intend(intent, Moment::from_millis(0), wall);
        let outcome = run(permit.expect("it is written")).await;
        assert_eq!(outcome, Outcome::Accepted("exit status: 0".to_owned()));
        assert!(file.exists());
    }

    #[tokio::test]
    async fn how_it_ends_is_what_it_came_to_with_its_last_words() {
        let said = shell("echo out; echo err >&2; exit 3").await;
        assert_eq!(said, Outcome::Refused("exit status: 3: err".to_owned()));
        let killed = shell("kill -9 $$").await;
        assert_eq!(killed, Outcome::Refused("signal: 9 (SIGKILL)".to_owned()));
        let missing = run_within(&words(&["/nowhere/restart"]), LONG).await;
        assert!(matches!(missing, Outcome::NotSent(_)), "{missing:?}");
        let nothing = run_within(&[], LONG).await;
        assert!(matches!(nothing, Outcome::NotSent(_)), "{nothing:?}");
    }

    #[tokio::test]
    async fn what_outlasts_its_deadline_is_killed_with_all_that_it_started() {
        let folder = tempfile::TempDir::new().expect("a folder can be made");
        let file = folder.path().join("child");
        let script = format!("sleep 600 & echo $! > {}; echo wait; wait", file.display());
        let command = words(&["sh", "-c", &script]);
        let outcome = run_within(&command, Duration::from_secs(1)).await;
        assert_eq!(
            outcome,
            Outcome::Unanswered("killed after 1s: wait".to_owned())
        );
        let child = std::fs::read_to_string(file).expect("it was written");
        let stat = std::path::Path::new("/proc")
            .join(child.trim())
            .join("stat");
        let until = Instant::now() + LONG;
        // A killed one that nobody has buried yet is a zombie.
        while let Ok(text) = std::fs::read_to_string(&stat)
            && !text.contains(") Z ")
        {
            assert!(Instant::now() < until, "{text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_it_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let outcome = shell("sleep 30 & echo started").await;
        assert_eq!(
            outcome,
            Outcome::Accepted("exit status: 0: started".to_owned())
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn it_may_say_more_than_is_kept_and_nothing_that_is_not_printable() {
        let outcome = shell("head -c 1000000 /dev/zero; exit 1").await;
        assert_eq!(outcome, Outcome::Refused("exit status: 1".to_owned()));
        let outcome = shell("printf 'a\\033[2Jb%0300d' 0").await;
        let detail = outcome.detail();
        assert!(detail.contains("a [2Jb"), "{detail}");
        assert_eq!(detail.chars().count(), "exit status: 0: ".len() + QUOTE_MAX);
    }

    #[tokio::test]
    async fn of_a_long_output_only_the_beginning_is_kept() {
        let long = vec![b'x'; 10 * OUTPUT_MAX];
        let mut kept = Vec::new();
        keep(Some(long.as_slice()), &mut kept).await;
        assert_eq!(kept.len(), OUTPUT_MAX);
    }

    #[tokio::test]
    async fn it_sees_nothing_of_the_environment_but_what_programs_need() {
        // Cargo sets this one for every test.
        let outcome = shell("test -n \"$PATH\" && test -z \"$CARGO_PKG_NAME\" && pwd").await;
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        assert_eq!(outcome, Outcome::Accepted("exit status: 0: /".to_owned()));
    }
}
