//! Answers that are none: each fails the look by its kind, and none passes for an empty master.

use std::time::Duration;

use ci_watchdog::model::{ProbeError, ProbeFailure};
use serde_json::json;

use super::fake_master::{Asked, FakeMaster, Reply, recorded, reply};
use super::{BOTH, connect, provider, question, show};

/// What a look fails with when one of its questions gets `reply` and all others their answers.
async fn fails(
    scenario: &str,
    digit: char,
    subject: &str,
    fault: Reply,
) -> Result<String, ProbeError> {
    let answers = recorded(scenario);
    let subject = subject.to_owned();
    let master = FakeMaster::start(move |asked| {
        if asked.subject() == subject {
            fault.clone()
        } else {
            reply(&answers, asked)
        }
    })
    .await;
    let snapshot = connect(&master).observe(&[question(digit, BOTH)]).await?;
    Ok(show(&snapshot))
}

/// Everything that a look of this scenario asks for and cannot do without.
async fn subjects(scenario: &str, digit: char) -> Vec<String> {
    let master = FakeMaster::recorded(scenario).await;
    connect(&master)
        .observe(&[question(digit, BOTH)])
        .await
        .unwrap();
    let mut subjects: Vec<String> = master.asked().iter().map(Asked::subject).collect();
    subjects.retain(|subject| subject != "config");
    subjects
}

#[tokio::test]
async fn an_answer_that_is_none_fails_the_look_by_its_kind() {
    let status = |code, headers, body: &str| Reply::Status(code, headers, body.to_owned());
    let html = "<!DOCTYPE html><title>502 Bad Gateway</title>";
    let huge = format!("{{\"builders\": [{}", "1, ".repeat(4 << 20));
    let faults = [
        (Reply::Body(String::new()), ProbeFailure::Parse),
        (Reply::Body("{}".to_owned()), ProbeFailure::Parse),
        (Reply::Body("null".to_owned()), ProbeFailure::Parse),
        (Reply::Body(html.to_owned()), ProbeFailure::Parse),
        (status(401, vec![], ""), ProbeFailure::Auth),
        (
            status(403, vec![], "{\"error\": \"no\"}"),
            ProbeFailure::Auth,
        ),
        (
            status(404, vec![], "{\"error\": \"no\"}"),
            ProbeFailure::HttpStatus,
        ),
        (
            status(400, vec![], "{\"error\": \"no\"}"),
            ProbeFailure::HttpStatus,
        ),
        (status(500, vec![], "boom"), ProbeFailure::HttpStatus),
        (status(502, vec![], html), ProbeFailure::HttpStatus),
        (
            status(302, vec![("location", "/".to_owned())], ""),
            ProbeFailure::HttpStatus,
        ),
        (
            status(429, vec![("retry-after", "7".to_owned())], ""),
            ProbeFailure::RateLimited,
        ),
        (
            status(403, vec![("retry-after", "7".to_owned())], ""),
            ProbeFailure::RateLimited,
        ),
        (Reply::Reset, ProbeFailure::Connect),
        (Reply::Body(huge), ProbeFailure::TooLarge),
    ];
    for (scenario, digit) in [("finished-green", '1'), ("running-1", '3')] {
        for subject in subjects(scenario, digit).await {
            for (fault, failure) in &faults {
                let stamps_too_many =
                    subject.starts_with("sourcestamps") && *failure == ProbeFailure::TooLarge;
                let outcome = fails(scenario, digit, &subject, fault.clone()).await;
                if stamps_too_many {
                    let seen = outcome.unwrap();
                    assert!(
                        seen.contains("Partial(\"its source stamps are too many"),
                        "{seen}"
                    );
                    continue;
                }
                let error = outcome.expect_err(&subject);
                assert_eq!(error.failure, *failure, "{subject}: {error}");
                assert!(error.detail.contains("http://127.0.0.1:"), "{error}");
                let retry_after =
                    (*failure == ProbeFailure::RateLimited).then_some(Duration::from_secs(7));
                assert_eq!(error.retry_after, retry_after, "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_truncated_answer_fails_the_look_wherever_it_breaks_off() {
    for (scenario, digit) in [("finished-green", '1'), ("running-1", '3')] {
        let answers = recorded(scenario);
        for subject in subjects(scenario, digit).await {
            let whole = &answers[&subject];
            for end in (0..whole.len()).step_by(100) {
                let short = Reply::Body(whole[..end].to_owned());
                let error = fails(scenario, digit, &subject, short)
                    .await
                    .expect_err(&subject);
                assert_eq!(
                    error.failure,
                    ProbeFailure::Parse,
                    "{subject} to {end}: {error}"
                );
                let broken = Reply::CutOff(whole.clone(), end);
                let error = fails(scenario, digit, &subject, broken)
                    .await
                    .expect_err(&subject);
                assert_eq!(
                    error.failure,
                    ProbeFailure::Partial,
                    "{subject} to {end}: {error}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_that_says_nothing_runs_into_the_deadline() {
    let master = FakeMaster::start(|_| Reply::Silence).await;
    let error = connect(&master).observe(&[]).await.unwrap_err();
    assert_eq!(error.failure, ProbeFailure::Timeout, "{error}");
}

#[tokio::test]
async fn a_master_that_is_not_there_is_no_empty_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let provider = provider(&format!("url = {url:?}")).unwrap();
    let error = provider.observe(&[]).await.unwrap_err();
    assert_eq!(error.failure, ProbeFailure::Connect, "{error}");
}

#[tokio::test]
async fn a_list_at_its_limit_may_be_cut_and_is_an_error() {
    let builders: Vec<_> = (1..=1000)
        .map(|id| json!({"builderid": id, "name": format!("b{id}"), "masterids": [1]}))
        .collect();
    let full = Reply::Body(json!({"builders": builders}).to_string());
    let error = fails("finished-green", '1', "builders", full)
        .await
        .unwrap_err();
    assert_eq!(error.failure, ProbeFailure::Partial, "{error}");
}

#[tokio::test]
async fn results_that_buildbot_does_not_have_are_no_death() {
    let answers = recorded("finished-red");
    let subject = "buildrequests?buildsetid=2";
    let strange = answers[subject].replace("\"results\":2", "\"results\":99");
    assert_ne!(strange, answers[subject]);
    let error = fails("finished-red", '2', subject, Reply::Body(strange))
        .await
        .unwrap_err();
    assert_eq!(error.failure, ProbeFailure::Parse, "{error}");
}
