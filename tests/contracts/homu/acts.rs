//! What is sent to homu, when it is not, and what becomes of it.

use ci_watchdog::model::{
    BuildKind, CiSystem, Outcome, RunEnd, RunReport, Sha, Step, StepKind, Target,
};
use ring::hmac;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::adapter::{build, connect, look, queue, send};
use super::server::{Asked, Reply};
use super::world::{FORKS, World, recorded, sha};

fn auto(pull: u64) -> Target {
    build(pull, BuildKind::Auto)
}

fn result(builder: &str, commit: Sha, end: RunEnd) -> Step {
    Step::ReplayResult {
        pull: 1,
        sha: commit,
        builder: builder.into(),
        system: CiSystem::Buildbot,
        report: RunReport {
            run: "17".into(),
            green: end.green().unwrap_or(false),
            end,
            number: Some(17),
            url: Some("http://buildbot.example.org/#/builders/2/builds/17".to_owned()),
        },
    }
}

/// The messages that homu got.
fn sent(world: &World) -> Vec<Asked> {
    let asked = world.homu.asked();
    asked.into_iter().filter(|it| it.method == "POST").collect()
}

/// The one message, and its form or body.
fn packets(world: &World) -> (Value, String) {
    let sent = sent(world);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].target, "/buildbot");
    let form: std::collections::BTreeMap<String, String> =
        url::form_urlencoded::parse(&sent[0].body)
            .into_owned()
            .collect();
    let packets = serde_json::from_str(&form["packets"]).unwrap();
    (packets, form["secret"].clone())
}

fn webhook(world: &World, event: &str) -> Value {
    let sent = sent(world);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].target, "/github");
    assert_eq!(sent[0].header("x-github-event"), event);
    assert_eq!(sent[0].header("content-type"), "application/json");
    let key = hmac::Key::new(
        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        b"secret-of-the-webhooks",
    );
    let signature = sent[0].header("x-hub-signature");
    let hex = signature.strip_prefix("sha1=").unwrap();
    let tag: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    hmac::verify(&key, &sent[0].body, &tag).unwrap();
    serde_json::from_slice(&sent[0].body).unwrap()
}

fn accepted(outcome: &Outcome) {
    assert_eq!(*outcome, Outcome::Accepted("HTTP 200".to_owned()));
}

/// Not sent, for a reason with these words.
fn held(world: &World, outcome: &Outcome, words: &str) {
    let Outcome::NotSent(why) = outcome else {
        panic!("{outcome:?} should be held because {words:?}");
    };
    assert!(why.contains(words), "{why:?} should contain {words:?}");
    assert!(sent(world).is_empty());
}

#[tokio::test]
async fn a_release_names_every_commit_under_a_builder_that_nobody_has() {
    for fork in FORKS {
        let world = World::of(fork).await;
        // It is harmless, so nothing is looked at before.
        std::fs::remove_file(world.database()).unwrap();
        let step = Step::ReleaseSlot {
            shas: vec![sha('a'), sha('c')],
        };
        accepted(&send(&*world.bot(), queue(), step, None).await);
        let (packets, _) = packets(&world);
        let packet = |commit: Sha| {
            json!({
                "event": "buildStarted",
                "payload": { "build": {
                    "builderName": "ci-watchdog",
                    "properties": [
                        ["revision", commit.as_str(), "ci-watchdog"],
                        ["buildnumber", 0, "ci-watchdog"],
                    ],
                }},
            })
        };
        assert_eq!(
            packets,
            json!([packet(sha('a')), packet(sha('c'))]),
            "{fork}"
        );
    }
}

#[tokio::test]
async fn a_builder_of_the_watchdogs_name_is_not_released_by_it() {
    let world = World::of("0.2.0").await;
    let cfg = recorded("0.2.0", "cfg.toml");
    world.write("cfg.toml", &cfg.replace("\"mac\"]", "\"ci-watchdog\"]"));
    let step = Step::ReleaseSlot {
        shas: vec![sha('a')],
    };
    accepted(&send(&*world.bot(), queue(), step, None).await);
    let (packets, _) = packets(&world);
    let name = &packets[0]["payload"]["build"]["builderName"];
    assert_eq!(name, "ci-watchdog-nobody");
}

#[tokio::test]
async fn a_lost_result_is_replayed_as_buildbot_0_8_would_have_sent_it() {
    for (end, results, word) in [
        (RunEnd::Success, 0, "successful"),
        (RunEnd::Warnings, 1, "successful"),
        (RunEnd::Failure, 2, "failed"),
    ] {
        for fork in ["0.2.0", "barosl", "servo"] {
            let world = World::of(fork).await;
            let step = result("mac", sha('a'), end);
            accepted(&send(&*world.bot(), auto(1), step, Some(sha('a'))).await);
            let (packets, secret) = packets(&world);
            assert_eq!(secret, "secret-of-the-packets");
            assert_eq!(packets[0]["event"], "buildFinished");
            let build = &packets[0]["payload"]["build"];
            assert_eq!(build["builderName"], "mac");
            assert_eq!(build["results"], results);
            let text = build["text"].as_array().unwrap();
            assert!(text.contains(&json!(word)), "{fork} {end:?}: {text:?}");
            assert_eq!(build["steps"], json!([]));
            let properties = &build["properties"];
            assert_eq!(
                properties[0],
                json!(["revision", sha('a').as_str(), "ci-watchdog"])
            );
            assert_eq!(properties[1], json!(["buildnumber", 17, "ci-watchdog"]));
        }
    }
}

#[tokio::test]
async fn a_result_is_replayed_only_while_its_build_lacks_it() {
    type Change = fn(&World);
    let cases: [(Change, Step, &str); 8] = [
        (
            |world| world.sql("UPDATE state SET status = '' WHERE num = 1"),
            result("mac", sha('a'), RunEnd::Success),
            "disagree",
        ),
        (
            |world| world.edit_page("<td class=\"pending\">pending</td>", "<td>approved</td>"),
            result("mac", sha('a'), RunEnd::Success),
            "disagree",
        ),
        (
            |world| {
                world.sql("UPDATE state SET status = 'success' WHERE num = 1");
                world.edit_page("<td class=\"pending\">pending</td>", "<td>success</td>");
            },
            result("mac", sha('a'), RunEnd::Success),
            "not pending any more",
        ),
        (
            |_| {},
            result("mac", sha('c'), RunEnd::Success),
            "pending on another commit",
        ),
        (
            |_| {},
            result("linux", sha('a'), RunEnd::Success),
            "has the result",
        ),
        (
            |_| {},
            result("wheezy", sha('a'), RunEnd::Success),
            "does not wait for wheezy",
        ),
        (
            |_| {},
            result("mac", sha('a'), RunEnd::Cancelled),
            "no result",
        ),
        (
            |world| std::fs::remove_file(world.database()).unwrap(),
            result("mac", sha('a'), RunEnd::Success),
            "homu could not be read anew",
        ),
    ];
    for (change, step, words) in cases {
        let world = World::of("0.2.0").await;
        let bot = world.bot();
        change(&world);
        let outcome = send(&*bot, auto(1), step, Some(sha('a'))).await;
        held(&world, &outcome, words);
    }
}

#[tokio::test]
async fn results_of_other_systems_are_not_replayed_yet() {
    let world = World::of("rust-lang").await;
    let mut step = result("checks-actions", sha('a'), RunEnd::Success);
    if let Step::ReplayResult { system, .. } = &mut step {
        *system = CiSystem::Check;
    }
    let outcome = send(&*world.bot(), auto(1), step, Some(sha('a'))).await;
    held(&world, &outcome, "of kind check cannot be replayed yet");
}

#[tokio::test]
async fn what_is_green_is_forgotten_by_starts_under_the_builders_own_names() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    let url = "http://buildbot.example.org/builders/linux/builds/41";
    let step = |builder: &str, url: &str| Step::ForgetGreen {
        pull: 1,
        sha: sha('a'),
        builders: vec![(builder.into(), url.to_owned())],
    };
    accepted(&send(&*bot, auto(1), step("linux", url), Some(sha('a'))).await);
    let (packets, secret) = packets(&world);
    assert_eq!(secret, "secret-of-the-packets");
    let build = &packets[0]["payload"]["build"];
    assert_eq!(packets[0]["event"], "buildStarted");
    assert_eq!(build["builderName"], "linux");
    assert_eq!(build["properties"][1][1], 41);

    let outcome = send(&*bot, auto(1), step("mac", url), Some(sha('a'))).await;
    held(&world, &outcome, "no green result of mac");
    let outcome = send(
        &*bot,
        auto(1),
        step("linux", "http://b/latest"),
        Some(sha('a')),
    )
    .await;
    held(&world, &outcome, "does not tell the number");
}

/// rust-lang/homu, `server.py` and `main.py`: a `retry` is logged with the comment's address and text, and
/// neither may be missing.
#[tokio::test]
async fn the_forks_retry_log_takes_our_retry_and_is_no_matter_to_a_look() {
    let world = World::of("rust-lang").await;
    let bot = world.bot();
    let before = look(&*bot).await.unwrap();
    world.pull(1, "open", &sha('1'), "The text on GitHub.");
    let step = Step::Retry { pull: 1 };
    accepted(&send(&*bot, auto(1), step, Some(sha('a'))).await);
    let comment = webhook(&world, "issue_comment")["comment"].clone();
    let database = Connection::open(world.database()).unwrap();
    let logged = database.execute(
        "INSERT INTO retry_log (repo, num, src, msg) VALUES ('alpha', 1, ?, ?)",
        [comment["html_url"].as_str(), comment["body"].as_str()],
    );
    assert_eq!(logged.unwrap(), 1);
    let after = look(&*bot).await.unwrap();
    assert_eq!(after.warnings, before.warnings);
    assert_eq!(after.repos.len(), before.repos.len());
}

#[tokio::test]
async fn a_retry_is_one_signed_comment_with_the_pull_requests_own_words() {
    for fork in FORKS {
        let world = World::of(fork).await;
        world.pull(
            1,
            "open",
            &sha('1'),
            "The text on GitHub.\n@bors force clean",
        );
        let step = Step::Retry { pull: 1 };
        accepted(&send(&*world.bot(), auto(1), step, Some(sha('a'))).await);
        let event = webhook(&world, "issue_comment");
        assert_eq!(event["action"], "created");
        assert_eq!(
            event["repository"],
            json!({ "name": "alpha", "owner": { "login": "octo" } })
        );
        assert_eq!(event["comment"]["body"], "@bors retry", "{fork}");
        assert_eq!(event["comment"]["user"]["login"], "bors");
        assert!(event["comment"]["user"]["id"].is_number());
        assert!(event["comment"]["html_url"].is_string());
        let issue = &event["issue"];
        assert_eq!(issue["number"], 1);
        assert!(issue["pull_request"].is_object());
        let (title, body) = match fork {
            "0.2.0" => ("Title 1", "The text on GitHub.\n@bors force clean"),
            _ => ("One & only <b>", "The text of one."),
        };
        assert_eq!(
            (&issue["title"], &issue["body"]),
            (&json!(title), &json!(body)),
            "{fork}"
        );
    }
}

#[tokio::test]
async fn a_pull_request_without_a_text_keeps_none() {
    let world = World::of("barosl").await;
    let target = build(2, BuildKind::Try);
    let step = Step::Retry { pull: 2 };
    accepted(&send(&*world.bot(), target, step, Some(sha('b'))).await);
    assert_eq!(
        webhook(&world, "issue_comment")["issue"]["body"],
        Value::Null
    );
}

#[tokio::test]
async fn who_retries_and_who_is_spoken_to_can_be_configured() {
    let world = World::of("barosl").await;
    let bot = world
        .connect("mention = \"homu-bot\"\nlogin = \"trish\"")
        .unwrap();
    accepted(&send(&*bot, auto(1), Step::Retry { pull: 1 }, Some(sha('a'))).await);
    let event = webhook(&world, "issue_comment");
    assert_eq!(event["comment"]["body"], "@homu-bot retry");
    assert_eq!(event["comment"]["user"]["login"], "trish");
    assert!(world.github.asked().is_empty());
}

#[tokio::test]
async fn a_retry_is_sent_only_while_its_own_build_is_pending() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    let outcome = send(&*bot, auto(1), Step::Retry { pull: 1 }, Some(sha('c'))).await;
    held(&world, &outcome, "pending on another commit");
    let outcome = send(&*bot, auto(4), Step::Retry { pull: 4 }, Some(sha('d'))).await;
    held(&world, &outcome, "not pending any more");
    let outcome = send(&*bot, auto(2), Step::Retry { pull: 2 }, None).await;
    held(&world, &outcome, "not pending any more");
    world.reply("/repos/octo/alpha/pulls/1", Reply::Reset);
    let outcome = send(&*bot, auto(1), Step::Retry { pull: 1 }, Some(sha('a'))).await;
    held(&world, &outcome, "could not be read from GitHub");
}

#[tokio::test]
async fn a_build_that_only_one_witness_calls_pending_can_be_retried() {
    for (table, judged) in [("status = ''", Some(sha('a'))), ("merge_sha = NULL", None)] {
        let world = World::of("0.2.0").await;
        world.sql(&format!("UPDATE state SET {table} WHERE num = 1"));
        accepted(&send(&*world.bot(), auto(1), Step::Retry { pull: 1 }, judged).await);
        assert_eq!(sent(&world).len(), 1);
    }
}

#[tokio::test]
async fn nothing_is_said_to_a_homu_whose_name_is_not_known() {
    let world = World::of("barosl").await;
    world.say("/user", json!({ "login": "bors force", "id": 1 }));
    let bot = world.bot();
    let outcome = send(&*bot, auto(1), Step::Retry { pull: 1 }, Some(sha('a'))).await;
    held(
        &world,
        &outcome,
        "the name that homu answers to is not known",
    );
}

/// Without the build that blocks the queue.
fn idle(world: &World) {
    let table = if world.fork == "0.2.0" {
        "state"
    } else {
        "pull"
    };
    world.sql(&format!(
        "UPDATE {table} SET status = 'success' WHERE num = 1"
    ));
    let page = recorded(world.fork, "page.html");
    let row = page.find("data-num=\"1\"").unwrap();
    let (before, after) = page.split_at(row);
    let after = after.replacen("pending", "success", 2);
    world.page("/queue/alpha", Reply::Body(format!("{before}{after}")));
}

#[tokio::test]
async fn a_nudge_changes_nothing_and_each_fork_has_its_own() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let bot = world.bot();
        let outcome = send(&*bot, queue(), Step::Nudge { pull: 3 }, None).await;
        held(&world, &outcome, "alpha#1 is pending meanwhile");

        idle(&world);
        accepted(&send(&*bot, queue(), Step::Nudge { pull: 3 }, None).await);
        let body = webhook(&world, "issue_comment")["comment"]["body"].clone();
        let expected = match fork {
            "0.2.0" | "barosl" => "@bors p=",
            _ => "@bors ping",
        };
        assert_eq!(body, expected, "{fork}");

        let outcome = send(&*bot, queue(), Step::Nudge { pull: 77 }, None).await;
        held(&world, &outcome, "homu has no alpha#77");
    }
}

#[tokio::test]
async fn a_closed_pull_request_is_told_as_github_would() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let bot = world.bot();
        let step = Step::ReplayClosed { pull: 1 };
        let outcome = send(&*bot, auto(1), step.clone(), None).await;
        held(&world, &outcome, "open on GitHub meanwhile");

        world.pull(1, "closed", &sha('1'), "");
        accepted(&send(&*bot, auto(1), step, None).await);
        let event = webhook(&world, "pull_request");
        assert_eq!(event["action"], "closed");
        assert_eq!(event["number"], 1);
        assert_eq!(event["repository"]["owner"]["login"], "octo");
        assert_eq!(event["pull_request"]["head"]["sha"], sha('1').as_str());
        assert_eq!(event["pull_request"]["state"], "closed");

        let outcome = send(&*bot, auto(9), Step::ReplayClosed { pull: 9 }, None).await;
        held(&world, &outcome, "homu has no alpha#9");
    }
}

#[tokio::test]
async fn a_new_head_is_told_only_where_homu_has_another() {
    for fork in FORKS {
        for pull in [1, 3] {
            let world = World::of(fork).await;
            let bot = world.bot();
            let target = Target::Pull {
                bot: "homu".into(),
                repo: "alpha".into(),
                pull,
            };
            let known = sha(if pull == 1 { '1' } else { '3' });
            let tell = |head| Step::ReplaySynchronize { pull, head };
            let outcome = send(&*bot, target.clone(), tell(known), None).await;
            held(&world, &outcome, "has this head already");

            world.pull(pull, "open", &sha('7'), "new");
            let outcome = send(&*bot, target.clone(), tell(sha('8')), None).await;
            held(&world, &outcome, "changed on GitHub meanwhile");
            accepted(&send(&*bot, target, tell(sha('7')), None).await);
            let event = webhook(&world, "pull_request");
            assert_eq!(event["action"], "synchronize", "{fork}");
            assert_eq!(event["pull_request"]["head"]["sha"], sha('7').as_str());
        }
    }
}

#[tokio::test]
async fn a_head_that_nobody_knows_is_not_told() {
    let world = World::of("0.2.0").await;
    world.comments(3, &[]);
    world.pull(3, "open", &sha('7'), "");
    let step = Step::ReplaySynchronize {
        pull: 3,
        head: sha('7'),
    };
    let outcome = send(&*world.bot(), queue(), step, None).await;
    held(&world, &outcome, "not known any more");
}

#[tokio::test]
async fn a_retry_of_an_orphan_spares_the_build_that_has_got_its_commit() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let retry = || Step::Retry { pull: 1 };
        let outcome = send(&*world.bot(), auto(1), retry(), None).await;
        held(&world, &outcome, "has got a commit meanwhile");

        let table = if fork == "0.2.0" { "state" } else { "pull" };
        world.sql(&format!("UPDATE {table} SET merge_sha = '' WHERE num = 1"));
        accepted(&send(&*world.bot(), auto(1), retry(), None).await);
    }
}

#[tokio::test]
async fn what_became_of_the_sending_is_told_apart() {
    let release = || Step::ReleaseSlot {
        shas: vec![sha('a')],
    };
    let world = World::of("0.2.0").await;
    let bot = world.bot();

    let refusal = Reply::Status(400, Vec::new(), "Invalid secret".to_owned());
    world.page("POST /buildbot", refusal);
    let outcome = send(&*bot, queue(), release(), None).await;
    let Outcome::Refused(why) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        why.contains("400") && why.contains("Invalid secret"),
        "{why}"
    );
    assert!(!why.contains("secret-of"), "{why}");

    let moved = Reply::Status(
        301,
        vec![("location", "https://elsewhere".to_owned())],
        String::new(),
    );
    world.page("POST /buildbot", moved);
    let outcome = send(&*bot, queue(), release(), None).await;
    assert!(
        matches!(&outcome, Outcome::Refused(why) if why.contains("canonical_url")),
        "{outcome:?}"
    );

    // A proxy before homu, and homu itself, which may have done the work before it failed.
    for code in [500, 502, 503, 504] {
        let broken = Reply::Status(code, Vec::new(), "database is locked".to_owned());
        world.page("POST /buildbot", broken);
        let outcome = send(&*bot, queue(), release(), None).await;
        let told = code.to_string();
        assert!(
            matches!(&outcome, Outcome::Unanswered(why) if why.contains(&told) && why.contains("locked")),
            "{outcome:?}"
        );
    }

    for code in [401, 403, 404, 408, 413, 429] {
        world.page(
            "POST /buildbot",
            Reply::Status(code, Vec::new(), String::new()),
        );
        let outcome = send(&*bot, queue(), release(), None).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }

    world.page("POST /buildbot", Reply::Reset);
    let outcome = send(&*bot, queue(), release(), None).await;
    assert!(matches!(outcome, Outcome::Unanswered(_)), "{outcome:?}");

    world.page(
        "POST /buildbot",
        Reply::CutOff("OK, and more".to_owned(), 2),
    );
    let outcome = send(&*bot, queue(), release(), None).await;
    assert!(matches!(outcome, Outcome::Unanswered(_)), "{outcome:?}");

    world.page("POST /buildbot", Reply::Silence);
    let outcome = send(&*bot, queue(), release(), None).await;
    tokio::time::resume();
    assert!(matches!(outcome, Outcome::Unanswered(_)), "{outcome:?}");
    assert_eq!(sent(&world).len(), 15, "each was sent once");
}

#[tokio::test]
async fn a_refused_connection_is_certainly_not_sent() {
    let world = World::of("0.2.0").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let table = format!("config = \"cfg.toml\"\nurl = {url:?}");
    let path = world.folder.path().join("ci-watchdog.toml");
    let bot = connect(&path, &table).unwrap();
    let step = Step::ReleaseSlot {
        shas: vec![sha('a')],
    };
    let outcome = send(&*bot, queue(), step, None).await;
    assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");
}

#[tokio::test]
async fn no_step_ever_commands_force_or_clean() {
    for fork in FORKS {
        for kind in StepKind::ALL {
            if kind == StepKind::Restart {
                // It is no request to homu.
                continue;
            }
            let world = World::of(fork).await;
            let evil = "@bors force\n@bors clean";
            let (step, target) = match kind {
                StepKind::ReleaseSlot => (
                    Step::ReleaseSlot {
                        shas: vec![sha('a')],
                    },
                    queue(),
                ),
                StepKind::ReplayResult => (result("mac", sha('a'), RunEnd::Failure), auto(1)),
                StepKind::ForgetGreen => (
                    Step::ForgetGreen {
                        pull: 1,
                        sha: sha('a'),
                        builders: vec![("linux".into(), "http://b/builds/4".to_owned())],
                    },
                    auto(1),
                ),
                StepKind::Retry => (Step::Retry { pull: 1 }, auto(1)),
                StepKind::Nudge => (Step::Nudge { pull: 3 }, queue()),
                StepKind::ReplayClosed => (Step::ReplayClosed { pull: 1 }, auto(1)),
                StepKind::ReplaySynchronize => (
                    Step::ReplaySynchronize {
                        pull: 1,
                        head: sha('7'),
                    },
                    auto(1),
                ),
                StepKind::Restart => unreachable!("it was left out"),
            };
            match kind {
                StepKind::ReplayClosed => world.pull(1, "closed", &sha('1'), evil),
                StepKind::ReplaySynchronize => world.pull(1, "open", &sha('7'), evil),
                StepKind::Nudge => {
                    idle(&world);
                    world.pull(3, "open", &sha('3'), evil);
                }
                StepKind::ReleaseSlot
                | StepKind::ReplayResult
                | StepKind::ForgetGreen
                | StepKind::Retry
                | StepKind::Restart => world.pull(1, "open", &sha('1'), evil),
            }
            let known = fork != "rust-lang"
                || !matches!(kind, StepKind::ReplayResult | StepKind::ForgetGreen);
            let outcome = send(&*world.bot(), target, step, Some(sha('a'))).await;
            let sent = sent(&world);
            if !known {
                // The recorded repository of this fork has no Buildbot.
                assert!(matches!(outcome, Outcome::NotSent(_)), "{fork} {kind}");
                continue;
            }
            accepted(&outcome);
            assert_eq!(sent.len(), 1, "{fork} {kind}");
            let commands: Vec<String> = match sent[0].target.as_str() {
                "/github" => {
                    let event: Value = serde_json::from_slice(&sent[0].body).unwrap();
                    let comment = event["comment"]["body"].as_str().unwrap_or_default();
                    comment.split_whitespace().map(str::to_owned).collect()
                }
                _ => vec![String::from_utf8(sent[0].body.clone()).unwrap()],
            };
            for command in commands {
                assert!(
                    !command.contains("force") && !command.contains("clean"),
                    "{fork} {kind}: {command}"
                );
            }
        }
    }
}
