//! What is done by hand from the command line: what is asked, told, confirmed, and waited for.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use ci_watchdog::app::{HandReport, Instruction, OrderWish, SentReport};
use ci_watchdog::decision::hand::{Refusal, Repair, Wish};
use ci_watchdog::model::{Gate, StepKind, StopKind};
use ci_watchdog::report::StepReport;

use super::*;

const TOKEN: &str = "0123456789abcdefghij";

/// A loop that does what it is asked to in the report that it shows.
struct DoingLoop {
    report: Mutex<Arc<Report>>,
    token: Arc<Token>,
    /// How every repair ends.
    closing: Closing,
    refusal: Option<Refusal>,
    /// What the report after the next shows: an effect is not seen at once.
    next: Mutex<Option<Report>>,
    wishes: Mutex<Vec<(Wish, bool)>>,
    orders: Mutex<Vec<(OrderWish, bool)>>,
}

impl DoingLoop {
    fn repair(&self, wish: &Wish, dry_run: bool) -> HandReport {
        let (target, remedy) = match &wish.repair {
            Repair::Retry(build) => (Target::Build(build.clone()), Remedy::Rerun),
            Repair::Reset(build) => (Target::Build(build.clone()), Remedy::Reset),
            Repair::ReleaseSlot(bot) => (Target::Bot(bot.clone()), Remedy::ReleaseSlot),
        };
        let id = AttemptId {
            target: target.clone(),
            remedy,
            ordinal: 1,
        };
        if !dry_run {
            let next = self.next.lock().unwrap().take();
            let mut report = next.unwrap_or_else(|| Report::clone(&self.report()));
            let mut attempt = report.attempts[0].clone();
            let step = |closing| StepReport {
                closing,
                ..attempt.steps[0].clone()
            };
            let (open, closed) = (step(None), step(Some(self.closing)));
            attempt.id = id.to_string();
            attempt.steps = vec![open];
            report.attempts.insert(0, attempt);
            *self.report.lock().unwrap() = Arc::new(report.clone());
            report.attempts[0].steps = vec![closed];
            *self.next.lock().unwrap() = Some(report);
        }
        HandReport {
            attempt: id.to_string(),
            bot: "homu".to_owned(),
            target: target.to_string(),
            remedy,
            verdict: Verdict::WorkerLost,
            evidence: vec!["its worker went away".to_owned()],
            warning: wish.even_if_alive.then(|| "linux is alive".to_owned()),
            plan: vec![StepKind::ReleaseSlot, StepKind::Retry],
            dry_run,
            sent: vec![SentReport {
                step: StepKind::Retry,
                outcome: if self.closing == Closing::Refused {
                    "refused"
                } else {
                    "accepted"
                },
                detail: "HTTP 200".to_owned(),
            }],
            stopped: None,
        }
    }
}

impl Daemon for DoingLoop {
    fn report(&self) -> Arc<Report> {
        let mut report = self.report.lock().unwrap();
        let now = Arc::clone(&report);
        if let Some(next) = self.next.lock().unwrap().take() {
            *report = Arc::new(next);
        }
        now
    }

    fn health(&self) -> Health {
        unreachable!("the command line does not ask for it")
    }

    fn token(&self) -> Option<Arc<Token>> {
        Some(Arc::clone(&self.token))
    }

    fn request_reload(&self) -> oneshot::Receiver<Result<(), String>> {
        unreachable!("the command line does not ask for it")
    }

    fn request_by_hand(
        &self,
        wish: Wish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<HandReport, Refusal>> {
        let (reply, answer) = oneshot::channel();
        // Two more looks, and it was found dead in enough of them.
        let soon = matches!(
            self.refusal,
            Some(Refusal::Shut {
                gate: Gate::Confirming,
                ..
            })
        );
        let confirmed = soon && self.wishes.lock().unwrap().len() >= 2;
        let refused = self.refusal.clone();
        let refused = refused.filter(|_| !wish.even_if_alive && !confirmed);
        let result = refused.map_or_else(|| Ok(self.repair(&wish, dry_run)), Err);
        self.wishes.lock().unwrap().push((wish, dry_run));
        reply.send(result).unwrap();
        answer
    }

    fn request_order(
        &self,
        wish: OrderWish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<Instruction, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let (OrderWish::Stop { kind, .. } | OrderWish::Go { kind, .. }) = &wish;
        let kind = *kind;
        self.orders.lock().unwrap().push((wish, dry_run));
        let taken = Instruction {
            kind,
            scopes: vec!["widgets".to_owned()],
            until: None,
        };
        reply.send(Ok(taken)).unwrap();
        answer
    }
}

/// A watchdog that does what it is asked to, and a place whose configuration names it and its token.
async fn doing(closing: Closing, refusal: Option<Refusal>) -> (Place, Arc<DoingLoop>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let place = Place::new(address);
    place.write("token", TOKEN);
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(place.path("token"), private).unwrap();
    let listen = format!("listen = \"{address}\"\n");
    let with_token = format!("{listen}token_file = \"token\"\n");
    place.write(
        "ci-watchdog.toml",
        &good(address).replace(&listen, &with_token),
    );
    let config = ci_watchdog::config::load(&place.path("ci-watchdog.toml")).unwrap();
    let behind = Arc::new(DoingLoop {
        report: Mutex::new(Arc::new(sample::report())),
        token: Arc::new(config.server.token.unwrap()),
        closing,
        refusal,
        next: Mutex::default(),
        wishes: Mutex::default(),
        orders: Mutex::default(),
    });
    let web = Web {
        shared: Arc::<DoingLoop>::clone(&behind),
        metrics: Arc::new(Metrics::new()),
    };
    let forever = std::future::pending();
    tokio::spawn(serve(listener, router(Arc::new(web)), forever));
    (place, behind)
}

fn done(behind: &DoingLoop) -> Vec<(Repair, bool, String)> {
    let wishes = behind.wishes.lock().unwrap();
    let meant = wishes.iter().filter(|(_, dry_run)| !dry_run);
    meant
        .map(|(wish, _)| (wish.repair.clone(), wish.even_if_alive, wish.by.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_told_before_done_by_name_and_waited_for() {
    let (place, behind) = doing(Closing::Effect, None).await;
    let answer = place.run(&["retry", "widgets#7", "--yes", "--as", "alice"]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
    for text in [
        "widgets#7: worker_lost; rerun sends release_slot, then retry",
        "its worker went away",
        "widgets#7: retry accepted",
        "widgets#7: its effect was seen",
    ] {
        assert!(answer.out.contains(text), "{text:?}: {}", answer.out);
    }
    let [(Repair::Retry(build), false, by)] = &done(&behind)[..] else {
        panic!("{:?}", done(&behind));
    };
    assert_eq!(
        (build.to_string().as_str(), by.as_str()),
        ("homu:widgets:7:auto:1", "alice")
    );
    let json = place.run(&["retry", "widgets#7", "--yes", "--as", "alice", "--json"]);
    assert_eq!(json.json()[0]["attempt"]["steps"][0]["closing"], "effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_it_must_be_confirmed_and_a_dry_run_needs_none() {
    let (place, behind) = doing(Closing::Effect, None).await;
    let asked = place.run(&["retry", "widgets#7", "--as", "alice"]);
    assert_eq!(asked.code, USAGE);
    assert!(asked.err.contains("--yes"), "{asked:?}");
    let dry = place.run(&["reset", "widgets#7", "--dry-run", "--as", "alice"]);
    assert_eq!((dry.code, dry.err.as_str()), (0, ""));
    assert!(
        dry.out.contains("reset sends release_slot, then retry"),
        "{dry:?}"
    );
    let paused = place.run(&["pause", "--reason", "x", "--as", "alice"]);
    assert_eq!(paused.code, USAGE);
    assert_eq!(done(&behind), []);
    let orders = behind.orders.lock().unwrap();
    assert!(orders.iter().all(|(_, dry_run)| *dry_run));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_alive_says_how_to_mean_it() {
    let refusal = Refusal::Shut {
        gate: Gate::LawOfReruns,
        reason: "linux is alive".to_owned(),
    };
    let (place, behind) = doing(Closing::Effect, Some(refusal)).await;
    let alice = ["--yes", "--as", "alice"];
    let refused = place.run(&[&["retry", "widgets#7"][..], &alice].concat());
    refused.assert_failed(FAILED, &["linux is alive", "--even-if-alive"]);
    assert_eq!(done(&behind), []);
    let meant = place.run(&[&["retry", "widgets#7", "--even-if-alive"][..], &alice].concat());
    assert_eq!(meant.code, 0);
    assert!(meant.out.contains("WARNING: linux is alive"), "{meant:?}");
    assert_eq!(done(&behind).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_looks_that_are_lacking_are_waited_for() {
    let refusal = Refusal::Shut {
        gate: Gate::Confirming,
        reason: "found dead in 1 looks in a row of 3".to_owned(),
    };
    let (place, behind) = doing(Closing::Effect, Some(refusal)).await;
    let retried = place.run(&["retry", "widgets#7", "--yes", "--as", "alice"]);
    assert_eq!(retried.code, 0, "{retried:?}");
    let waiting = "waiting for the next looks: found dead in 1 looks in a row of 3";
    assert_eq!(retried.err.matches(waiting).count(), 1, "{retried:?}");
    assert_eq!(done(&behind).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_no_effect_fails_and_says_so() {
    for (closing, word) in [
        (Closing::NoEffect, "no effect was seen in time"),
        (Closing::Refused, "the bot refused it"),
        (Closing::NotSent, "it was not sent"),
    ] {
        let (place, _) = doing(closing, None).await;
        let answer = place.run(&["retry", "widgets#7", "--yes", "--as", "alice"]);
        assert_eq!(answer.code, FAILED);
        assert!(answer.out.contains(word), "{answer:?}");
    }
    let (place, _) = doing(Closing::NoEffect, None).await;
    let alice = ["--yes", "--no-wait", "--as", "alice"];
    let answer = place.run(&[&["retry", "widgets#7"][..], &alice].concat());
    assert_eq!(answer.code, 0, "nobody waited for it");
    let (place, _) = doing(Closing::Refused, None).await;
    let answer = place.run(&[&["retry", "widgets#7"][..], &alice].concat());
    assert_eq!(answer.code, FAILED, "it was not taken: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_pending_is_reset_oldest_first() {
    let (place, behind) = doing(Closing::Effect, None).await;
    {
        let mut report = Report::clone(&behind.report());
        report.builds[0].first_seen = report.at;
        *behind.report.lock().unwrap() = Arc::new(report);
    }
    let answer = place.run(&[
        "reset",
        "--all-pending",
        "widgets",
        "--yes",
        "--as",
        "alice",
    ]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
    let pulls: Vec<u64> = done(&behind)
        .iter()
        .map(|(repair, ..)| match repair {
            Repair::Reset(build) => build.key.pull,
            other @ (Repair::Retry(_) | Repair::ReleaseSlot(_)) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pulls, [8, 7]);
    place
        .run(&["reset", "--all-pending", "cogs", "--yes", "--as", "alice"])
        .assert_failed(FAILED, &["\"cogs\""]);
    place
        .run(&["reset", "--yes"])
        .assert_failed(USAGE, &["REPO#PR"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_two_bots_is_reset_only_in_the_one_that_is_named() {
    let (place, behind) = doing(Closing::Effect, None).await;
    {
        let mut report = Report::clone(&behind.report());
        let mut other = report.builds[0].clone();
        other.bot = "bors".to_owned();
        other.id = other.id.replace("homu", "bors");
        report.builds.push(other);
        *behind.report.lock().unwrap() = Arc::new(report);
    }
    let all = |place_of: &'static str| ["reset", "--all-pending", place_of, "--yes", "--as", "a"];
    let both = place.run(&all("widgets"));
    both.assert_failed(FAILED, &["BOT/widgets", "bors, homu"]);
    assert_eq!(done(&behind), []);
    let one = place.run(&all("bors/widgets"));
    assert_eq!(one.code, 0, "{one:?}");
    let bots: Vec<String> = done(&behind)
        .iter()
        .map(|(repair, _, _)| repair.bot().to_string())
        .collect();
    assert_eq!(bots, ["bors"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_unread_bot_waits_for_is_not_said_to_be_nothing() {
    let (place, behind) = doing(Closing::Effect, None).await;
    {
        let mut report = Report::clone(&behind.report());
        report.builds.clear();
        for source in &mut report.sources {
            source.up = Some(false);
        }
        *behind.report.lock().unwrap() = Arc::new(report);
    }
    for command in [
        ["retry", "widgets#7"].as_slice(),
        &["reset", "--all-pending", "widgets"],
    ] {
        let answer = place.run(&[command, &["--yes", "--as", "alice"]].concat());
        answer.assert_failed(FAILED, &["What homu waits for is not known now"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_the_only_bot_is_released_without_naming_it() {
    let (place, behind) = doing(Closing::Done, None).await;
    let answer = place.run(&["release-slot", "--yes", "--as", "alice"]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
    assert!(
        answer.out.contains("shows no effect of its own"),
        "{answer:?}"
    );
    let release = Repair::ReleaseSlot("homu".into());
    assert_eq!(done(&behind), [(release, false, "alice".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_given_as_they_are_written() {
    let (place, behind) = doing(Closing::Done, None).await;
    let alice = ["--yes", "--as", "alice"];
    let scope = |repo: &str, pull, builder: Option<&str>| ci_watchdog::model::Scope {
        repo: Some(repo.into()),
        pull,
        builder: builder.map(Into::into),
    };
    let pause: &[&str] = &[
        "pause",
        "--for",
        "2h",
        "--repo",
        "widgets",
        "--builder",
        "linux",
        "--reason",
        "upgrade",
    ];
    let exclude: &[&str] = &["exclude", "widgets#7", "--reason", "mine"];
    let by = || "alice".to_owned();
    let cases = [
        (
            pause,
            "widgets: paused",
            OrderWish::Stop {
                kind: StopKind::Pause,
                scope: scope("widgets", None, Some("linux")),
                reason: "upgrade".to_owned(),
                by: by(),
                lasts: Some(Duration::from_secs(7200)),
            },
        ),
        (
            &["resume"],
            "widgets: not paused any more",
            OrderWish::Go {
                kind: StopKind::Pause,
                scope: None,
                by: by(),
            },
        ),
        (
            exclude,
            "widgets: excluded",
            OrderWish::Stop {
                kind: StopKind::Exclusion,
                scope: scope("widgets", Some(7), None),
                reason: "mine".to_owned(),
                by: by(),
                lasts: None,
            },
        ),
        (
            &["include", "--repo", "widgets#7"],
            "widgets: not excluded any more",
            OrderWish::Go {
                kind: StopKind::Exclusion,
                scope: Some(scope("widgets", Some(7), None)),
                by: by(),
            },
        ),
    ];
    for (arguments, told, wish) in cases {
        let answer = place.run(&[arguments, &alice].concat());
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
        assert!(answer.out.contains(told), "{answer:?}");
        let orders: Vec<_> = behind.orders.lock().unwrap().drain(..).collect();
        assert_eq!(orders, [(wish.clone(), true), (wish, false)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_it_says_how_to_get_one() {
    let place = watchdog(sample::report()).await;
    for arguments in [&["retry", "widgets#7"][..], &["resume"]] {
        let answer = place.run(&[arguments, &["--yes", "--as", "alice"]].concat());
        answer.assert_failed(FAILED, &["server.token_file", "urandom"]);
    }
}

/// Runs the program on a terminal on which somebody types an answer; its exit code, and all that the
/// terminal showed.
fn on_a_terminal(place: &Place, arguments: &[&str], typed: &str) -> (i32, String) {
    use std::io::Write as _;
    use std::process::Stdio;
    let spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut child = Command::new("python3")
        .args(["-c", spawn, env!("CARGO_BIN_EXE_ci-watchdog")])
        .args(arguments)
        .current_dir(place.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open: the end of what is typed would end the terminal.
    let mut keyboard = child.stdin.take().unwrap();
    keyboard.write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(keyboard);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks_and_only_yes_means_yes() {
    let (place, behind) = doing(Closing::Effect, None).await;
    let retry = ["retry", "widgets#7", "--as", "alice"];
    for typed in ["n\n", "\n", "yay\n"] {
        let (code, shown) = on_a_terminal(&place, &retry, typed);
        assert_eq!(code, FAILED, "{shown}");
        assert!(shown.contains("Send this to homu? [y/N]"), "{shown}");
        assert!(shown.contains("nothing was done"), "{shown}");
    }
    assert_eq!(done(&behind), []);
    let (code, shown) = on_a_terminal(&place, &retry, "y\n");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(done(&behind).len(), 1);
}
