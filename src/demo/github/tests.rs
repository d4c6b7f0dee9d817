//! The fake GitHub as a client sees it, over HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::webhooks::signature_sha256;
use super::{FakeGithub, Fate, Times};

const DEADLINE: Duration = Duration::from_secs(10);

async fn github() -> FakeGithub {
    let github = FakeGithub::start().await.unwrap();
    github.add_user("bot", "secret");
    github.add_repository("octo", "alpha");
    github
        .open_pull("octo/alpha", "mona", "Add a thing")
        .unwrap();
    github
}

async fn ask(
    github: &FakeGithub,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Value,
) -> (u16, Value) {
    let mut request = reqwest::Client::new()
        .request(method, format!("{}{path}", github.url()))
        .json(&body);
    if let Some(token) = token {
        request = request.header("authorization", format!("token {token}"));
    }
    let answer = request.send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

/// A web server that keeps what it gets.
async fn mailbox() -> (String, Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>) {
    let letters = Arc::new(Mutex::new(vec![]));
    let kept = Arc::clone(&letters);
    let router = Router::new().fallback(move |headers: HeaderMap, body: axum::body::Bytes| {
        kept.lock().unwrap().push((headers, body.to_vec()));
        async { "OK" }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, letters)
}

async fn settled(github: &FakeGithub, deliveries: usize) -> Vec<Fate> {
    let all = async {
        loop {
            let fates: Vec<Fate> = github.deliveries().into_iter().map(|it| it.fate).collect();
            if fates.len() == deliveries && !fates.contains(&Fate::Queued) {
                return fates;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap()
}

#[tokio::test]
async fn reading_is_for_all_and_writing_for_those_with_a_token() {
    let github = github().await;
    let comments = "/repos/octo/alpha/issues/1/comments";
    let body = json!({"body": "hello"});

    let (status, pull) = ask(
        &github,
        Method::GET,
        "/repos/octo/alpha/pulls/1",
        None,
        Value::Null,
    )
    .await;
    assert_eq!((status, &pull["mergeable"]), (200, &json!(true)));
    assert_eq!(
        ask(&github, Method::POST, comments, None, body.clone())
            .await
            .0,
        401
    );
    assert_eq!(
        ask(&github, Method::POST, comments, Some("wrong"), body.clone())
            .await
            .0,
        401
    );
    let (status, comment) = ask(&github, Method::POST, comments, Some("secret"), body).await;
    assert_eq!((status, &comment["user"]["login"]), (201, &json!("bot")));
    assert_eq!(github.comments("octo/alpha", 1).len(), 1);
}

#[tokio::test]
async fn a_merge_has_two_parents_unless_it_conflicts() {
    let github = github().await;
    let head = github.pull("octo/alpha", 1).unwrap().head_sha;
    let master = github.reference("octo/alpha", "heads/master").unwrap();
    let merge = json!({"base": "master", "head": head});

    github.set_conflicts("octo/alpha", 1, true).unwrap();
    let path = "/repos/octo/alpha/merges";
    assert_eq!(
        ask(&github, Method::POST, path, Some("secret"), merge.clone())
            .await
            .0,
        409
    );

    github.set_conflicts("octo/alpha", 1, false).unwrap();
    let (status, commit) = ask(&github, Method::POST, path, Some("secret"), merge).await;
    assert_eq!(status, 201);
    assert_eq!(commit["parents"][0]["sha"], json!(master));
    assert_eq!(commit["parents"][1]["sha"], json!(head));
    assert!(github.is_merged("octo/alpha", 1));
}

#[tokio::test]
async fn what_has_not_changed_costs_nothing() {
    let github = github().await;
    let url = format!("{}/repos/octo/alpha/pulls/1", github.url());
    let get = |etag: &str| {
        let request = reqwest::Client::new()
            .get(&url)
            .header("authorization", "Bearer secret");
        request.header("if-none-match", etag).send()
    };
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers()[name].to_str().unwrap().to_owned()
    };

    let first = get("").await.unwrap();
    assert_eq!(
        (first.status().as_u16(), header(&first, "x-ratelimit-used")),
        (200, "1".into())
    );
    let etag = header(&first, "etag");
    let second = get(&etag).await.unwrap();
    assert_eq!(
        (
            second.status().as_u16(),
            header(&second, "x-ratelimit-used")
        ),
        (304, "1".into())
    );
    github.push_to_pull("octo/alpha", 1).unwrap();
    assert_eq!(get(&etag).await.unwrap().status().as_u16(), 200);

    github.set_requests_left(Some("bot"), 0);
    assert_eq!(get("").await.unwrap().status().as_u16(), 403);
}

#[tokio::test]
async fn an_outage_answers_everything_and_changes_nothing() {
    let github = github().await;
    github.set_outage(Some(502));
    let comments = "/repos/octo/alpha/issues/1/comments";
    let body = json!({"body": "hello"});
    assert_eq!(
        ask(&github, Method::POST, comments, Some("secret"), body)
            .await
            .0,
        502
    );
    assert_eq!(github.comments("octo/alpha", 1).len(), 0);
    assert_eq!(github.requests().last().unwrap().status, 502);
}

#[tokio::test]
async fn webhooks_arrive_signed_and_in_order_and_a_dropped_one_never() {
    let github = github().await;
    let (url, letters) = mailbox().await;
    github.add_hook("octo/alpha", &url, "hook secret");
    github.drop_webhooks("issue_comment", Times::Once);
    for text in ["lost", "first", "second"] {
        github.comment("octo/alpha", 1, "mona", text).unwrap();
    }

    let fates = settled(&github, 3).await;
    assert_eq!(
        fates,
        [Fate::Dropped, Fate::Answered(200), Fate::Answered(200)]
    );
    let letters = letters.lock().unwrap();
    for ((headers, body), text) in letters.iter().zip(["first", "second"]) {
        let payload: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(payload["comment"]["body"], text);
        assert!(payload["issue"]["pull_request"].is_object());
        assert_eq!(headers["x-github-event"], "issue_comment");
        assert_eq!(
            headers["x-hub-signature-256"],
            signature_sha256("hook secret", body)
        );
    }
}

#[tokio::test]
async fn a_listener_hears_of_its_branches_only() {
    let github = github().await;
    let (url, letters) = mailbox().await;
    github.add_push_listener("octo/alpha", &["auto"], &url);
    let sha = github.reference("octo/alpha", "heads/master").unwrap();
    for branch in ["refs/heads/tmp", "refs/heads/auto"] {
        let new = json!({"ref": branch, "sha": sha});
        let path = "/repos/octo/alpha/git/refs";
        assert_eq!(
            ask(&github, Method::POST, path, Some("secret"), new)
                .await
                .0,
            201
        );
    }

    assert_eq!(settled(&github, 1).await, [Fate::Answered(200)]);
    let letters = letters.lock().unwrap();
    let form = String::from_utf8(letters[0].1.clone()).unwrap();
    assert!(
        form.contains("branch=auto") && form.contains(&sha),
        "{form}"
    );
}
