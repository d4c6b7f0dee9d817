//! Recorded moments of real masters: what a look makes of each.

use std::fmt::Write as _;

use ci_watchdog::model::{BuilderName, ProviderSnapshot, Question};
use serde_json::json;

use super::fake_master::{FakeMaster, recorded, reply};
use super::{BOTH, connect, question, show};

async fn look(scenario: &str, questions: &[Question]) -> ProviderSnapshot {
    let master = FakeMaster::recorded(scenario).await;
    connect(&master).observe(questions).await.unwrap()
}

/// Its runs and histories as text, one a line.
async fn seen(scenario: &str, questions: &[Question]) -> String {
    show(&look(scenario, questions).await)
}

fn pools(snapshot: &ProviderSnapshot) -> String {
    let mut text = String::new();
    for (builder, pool) in &snapshot.pools {
        for (name, worker) in &pool.workers {
            let _ = write!(text, "{builder}: {name}");
            for (is, word) in [
                (worker.connected, "connected"),
                (worker.paused, "paused"),
                (worker.graceful, "graceful"),
            ] {
                if is {
                    let _ = write!(text, " {word}");
                }
            }
            text.push('\n');
        }
    }
    text
}

fn progress(snapshot: &ProviderSnapshot, run: &str) -> String {
    let run = snapshot
        .runs
        .iter()
        .find(|it| it.id.as_str() == run)
        .unwrap();
    run.progress.clone()
}

#[tokio::test]
async fn pools_show_what_the_master_knows_of_each_worker() {
    for (scenario, expected) in [
        (
            "00-no-workers-connected",
            "auto-linux: w-alpha\nauto-mac: w-beta\n",
        ),
        ("never-connected", "auto-linux: w-alpha\nauto-mac: w-beta\n"),
        (
            "03-idle-healthy",
            "auto-linux: w-alpha connected\nauto-mac: w-beta connected\n",
        ),
        (
            "worker-paused",
            "auto-linux: w-alpha connected\nauto-mac: w-beta connected paused\n",
        ),
        (
            "worker-graceful",
            "auto-linux: w-alpha connected\nauto-mac: w-beta graceful\n",
        ),
        (
            "sigkill-after-0.3",
            "auto-linux: w-alpha connected\nauto-mac: w-beta\n",
        ),
        (
            "sigstop-after-15",
            "auto-linux: w-alpha connected\nauto-mac: w-beta connected\n",
        ),
    ] {
        assert_eq!(pools(&look(scenario, &[]).await), expected, "{scenario}");
    }
}

#[tokio::test]
async fn the_version_is_told_where_the_master_tells_it() {
    assert_eq!(
        look("never-connected", &[]).await.version.as_deref(),
        Some("4.3.0")
    );
    assert_eq!(look("00-no-workers-connected", &[]).await.version, None);
}

#[tokio::test]
async fn a_builder_that_left_the_configuration_has_no_pool_and_is_no_question() {
    let mut answers = recorded("00-no-workers-connected");
    answers.insert(
        "builders".to_owned(),
        json!({"builders": [
            {"builderid": 1, "name": "auto-mac", "masterids": [1]},
            {"builderid": 2, "name": "auto-linux", "masterids": []},
        ]})
        .to_string(),
    );
    let master = FakeMaster::start(move |asked| reply(&answers, asked)).await;
    let snapshot = connect(&master)
        .observe(&[question('1', &["auto-linux"])])
        .await
        .unwrap();
    assert_eq!(
        snapshot
            .pools
            .keys()
            .map(BuilderName::as_str)
            .collect::<Vec<_>>(),
        ["auto-mac"]
    );
    assert!(snapshot.history.is_empty());
}

#[tokio::test]
async fn a_request_without_a_worker_waits_in_the_queue() {
    assert_eq!(
        seen(
            "01-queued-no-worker-connected",
            &[question('1', &["auto-mac"])]
        )
        .await,
        "1 auto-mac 1111111 Queued - -: not claimed\n"
    );
    assert_eq!(
        seen("queued-no-worker", &[question('1', BOTH)]).await,
        "1 auto-linux 1111111 Queued - -: not claimed\nhistory of 1111111 Complete\n"
    );
    assert_eq!(
        seen("worker-paused", &[question('5', &["auto-mac"])]).await,
        "5 auto-mac 5555555 Queued - -: not claimed\n"
    );
    assert_eq!(
        seen("worker-graceful", &[question('7', &["auto-mac"])]).await,
        "7 auto-mac 7777777 Queued - -: not claimed\n"
    );
}

#[tokio::test]
async fn a_request_behind_another_names_the_run_that_keeps_its_worker_busy() {
    assert_eq!(
        seen("queued-behind", &[question('3', BOTH), question('4', BOTH)]).await,
        "3 auto-mac 3333333 Running #1 w-beta: step 2 compile: running\n\
         4 auto-mac 4444444 Queued - - behind 3: not claimed\n\
         history of 3333333 Complete\nhistory of 4444444 Complete\n"
    );
}

#[tokio::test]
async fn a_running_build_shows_its_step_and_its_lines_as_progress() {
    let questions = [question('2', &["auto-linux"])];
    let looks = [
        look("02-running-t1", &questions).await,
        look("02-running-t2", &questions).await,
        look("02-running-t3", &questions).await,
    ];
    for snapshot in &looks {
        assert_eq!(
            show(snapshot),
            "2 auto-linux 2222222 Running #1 w-alpha: step 2 compile: running\n"
        );
    }
    let tokens = looks.map(|snapshot| progress(&snapshot, "2"));
    assert_ne!(tokens[0], tokens[1], "the first lines arrived");
    assert_eq!(
        tokens[1], tokens[2],
        "the worker holds lines back for five seconds"
    );
}

#[tokio::test]
async fn a_run_links_to_its_build_as_the_master_does() {
    let master = FakeMaster::recorded("running-1").await;
    let snapshot = connect(&master)
        .observe(&[question('3', BOTH)])
        .await
        .unwrap();
    let expected = format!("{}/#/builders/2/builds/1", master.url);
    assert_eq!(snapshot.runs[0].url.as_deref(), Some(expected.as_str()));
}

#[tokio::test]
async fn a_killed_worker_leaves_its_run_under_way_until_the_master_gives_it_back() {
    assert_eq!(
        seen("04-sigkill-after-0.3", &[question('2', &["auto-linux"])]).await,
        "2 auto-linux 2222222 Running #1 w-alpha: step 2 compile: running\n"
    );
    assert_eq!(
        seen("sigkill-after-0.3", &[question('3', &["auto-mac"])]).await,
        "3 auto-mac 3333333 Running #1 w-beta: step 2 compile: running\n"
    );
    assert_eq!(
        seen("04-sigkill-after-3", &[question('2', &["auto-linux"])]).await,
        "2 auto-linux 2222222 Queued #1 w-alpha: not claimed again since build 1: \
         retry lost connection 'bash -c ...' (retry)\n"
    );
    assert_eq!(
        seen(
            "sigkill-after-3",
            &[question('3', BOTH), question('4', BOTH)]
        )
        .await,
        "3 auto-mac 3333333 Queued #1 w-beta: not claimed again since build 1: \
         retry lost connection 'bash -c ...' (retry)\n\
         4 auto-mac 4444444 Queued - -: not claimed\n\
         history of 3333333 Complete\nhistory of 4444444 Complete\n"
    );
}

#[tokio::test]
async fn a_retried_request_is_the_same_run_with_the_number_of_its_new_build() {
    let before = look("02-running-t3", &[question('2', &["auto-linux"])]).await;
    let after = look(
        "05-retry-after-worker-returned",
        &[question('2', &["auto-linux"])],
    )
    .await;
    assert_eq!(
        show(&after),
        "2 auto-linux 2222222 Running #2 w-alpha: step 2 compile: running\n"
    );
    assert_ne!(progress(&before, "2"), progress(&after, "2"));
    assert_eq!(
        seen("retry-running", &[question('3', &["auto-mac"])]).await,
        "3 auto-mac 3333333 Running #2 w-beta: step 2 compile: running\n"
    );
}

#[tokio::test]
async fn a_frozen_worker_shows_in_nothing_but_the_lack_of_progress() {
    for (before, after, digit, run) in [
        ("06-sigstop-before", "06-sigstop-after-300s", '2', "2"),
        ("sigstop-before", "sigstop-after-15", '3', "3"),
    ] {
        let questions = [question(digit, BOTH)];
        // The older recording has no history, and needs none for the builder that runs.
        let questions = if run == "2" {
            [question(digit, &["auto-linux"])]
        } else {
            questions
        };
        let (before, after) = (
            look(before, &questions).await,
            look(after, &questions).await,
        );
        assert_eq!(show(&before), show(&after));
        assert!(show(&before).contains("Running"), "{}", show(&before));
        assert_eq!(progress(&before, run), progress(&after, run));
        assert_eq!(pools(&before), pools(&after));
    }
}

#[tokio::test]
async fn a_worker_that_does_not_answer_the_first_ping_has_only_prepared() {
    assert_eq!(
        seen("pinging", &[question('6', BOTH)]).await,
        "6 auto-mac 6666666 Preparing #5 w-beta: pinging worker\nhistory of 6666666 Complete\n"
    );
}

#[tokio::test]
async fn a_build_that_waits_for_a_lock_is_queued() {
    assert_eq!(
        seen("lock-wait", &[question('a', &["lock-a", "lock-b"])]).await,
        "10 lock-b aaaaaaa Queued #1 w-beta: step 1 locked waits for a lock\n\
         11 lock-a aaaaaaa Running #1 w-alpha: step 1 locked: running\n"
    );
}

#[tokio::test]
async fn a_finished_run_is_found_in_history_with_its_result() {
    assert_eq!(
        seen("finished-green", &[question('1', BOTH)]).await,
        "1 auto-linux 1111111 Ended(Success) #1 w-alpha: build successful\nhistory of 1111111 Complete\n"
    );
    assert_eq!(
        seen("finished-red", &[question('2', BOTH)]).await,
        "2 auto-linux 2222222 Ended(Failure) #2 w-alpha: failed 'bash -c ...' (failure)\n\
         history of 2222222 Complete\n"
    );
}

#[tokio::test]
async fn a_cancelled_request_has_ended_whether_it_had_begun_or_not() {
    assert_eq!(
        seen("cancelled", &[question('b', BOTH), question('c', BOTH)]).await,
        "12 auto-linux bbbbbbb Ended(Cancelled) #3 w-alpha: cancelled (no) 'bash -c ...' (cancelled)\n\
         13 auto-linux ccccccc Ended(Cancelled) - -: cancelled\n\
         history of bbbbbbb Complete\nhistory of ccccccc Complete\n"
    );
}

#[tokio::test]
async fn a_master_that_stopped_has_cancelled_its_runs_and_one_that_was_killed_runs_them_again() {
    assert_eq!(
        seen("master-restarted", &[question('8', BOTH)]).await,
        "8 auto-mac 8888888 Ended(Cancelled) #7 w-beta: \
         cancelled (Master Shutdown) 'bash -c ...' (cancelled)\nhistory of 8888888 Complete\n"
    );
    assert_eq!(
        seen("master-killed-restarted", &[question('9', BOTH)]).await,
        "9 auto-mac 9999999 Running #9 w-beta: step 2 compile: running\nhistory of 9999999 Complete\n"
    );
}

#[tokio::test]
async fn a_run_of_a_branch_serves_the_commit_that_its_build_checked_out() {
    assert_eq!(
        seen("vague-running", &[question('d', BOTH)]).await,
        "14 auto-linux ddddddd Running #4 w-alpha: step 3 compile: running\nhistory of ddddddd Complete\n"
    );
    assert_eq!(
        seen("vague-finished", &[question('d', BOTH)]).await,
        "14 auto-linux ddddddd Ended(Success) #4 w-alpha: build successful\nhistory of ddddddd Complete\n"
    );
}

#[tokio::test]
async fn each_build_of_a_branch_speaks_for_itself_only() {
    let mut answers = recorded("vague-finished");
    let requests = answers.get_mut("buildrequests?buildsetid=14").unwrap();
    let mut of_both: serde_json::Value = serde_json::from_str(requests).unwrap();
    let mut other = of_both["buildrequests"][0].clone();
    (other["buildrequestid"], other["builderid"]) = (json!(99), json!(2));
    of_both["buildrequests"].as_array_mut().unwrap().push(other);
    *requests = of_both.to_string();
    let elsewhere = answers["buildrequests/14/builds"].replace(&"d".repeat(40), &"e".repeat(40));
    answers.insert("buildrequests/99/builds".to_owned(), elsewhere);
    let master = FakeMaster::start(move |asked| reply(&answers, asked)).await;
    let snapshot = connect(&master)
        .observe(&[question('d', BOTH)])
        .await
        .unwrap();
    let runs: Vec<&str> = snapshot.runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(runs, ["14"], "the other build checked out another commit");
}

#[tokio::test]
async fn a_run_that_may_yet_turn_out_to_serve_a_commit_leaves_its_absence_unproven() {
    for (scenario, digit, request) in [("vague-undecided", 'd', 14), ("vague-queued", 'e', 15)] {
        assert_eq!(
            seen(scenario, &[question(digit, BOTH)]).await,
            format!(
                "history of {} Partial(\"request {request} of auto-linux is open and names no revision yet\")\n",
                digit.to_string().repeat(7)
            )
        );
    }
}

#[tokio::test]
async fn a_look_only_reads_and_bounds_whatever_it_asks_for() {
    for (scenario, digit) in [
        ("vague-finished", 'd'),
        ("running-2", '3'),
        ("pinging", '6'),
    ] {
        let master = FakeMaster::recorded(scenario).await;
        connect(&master)
            .observe(&[question(digit, BOTH)])
            .await
            .unwrap();
        for asked in master.asked() {
            assert_eq!(asked.method, "GET", "{asked:?}");
            let last = asked.path.rsplit('/').next().unwrap();
            let bounded = match last {
                "builders" | "workers" | "buildsets" | "builds" | "steps" => {
                    asked.value("limit").is_some()
                }
                // Of one buildset, of one step, of some commits, or open.
                "buildrequests" => {
                    asked.value("complete") == Some("false") || asked.value("buildsetid").is_some()
                }
                "sourcestamps" => asked.value("revision").is_some(),
                "logs" | "config" => true,
                other => panic!("{other} is not known to be bounded"),
            };
            assert!(bounded, "{asked:?}");
            // Where they are repeated, Buildbot ignores all but the first, or all.
            for filter in ["buildsetid", "buildrequestid"] {
                assert!(
                    asked.query.iter().filter(|(key, _)| key == filter).count() <= 1,
                    "{asked:?}"
                );
            }
        }
    }
}
