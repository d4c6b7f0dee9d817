//! What people ask for through the API: what reaches the loop, and how its answers are told.

use ci_watchdog::app::{HandReport, Instruction, OrderWish};
use ci_watchdog::decision::hand::{Refusal, Repair, Wish};
use ci_watchdog::model::{BuildId, BuildKey, BuildKind, Gate, Remedy, Scope, StopKind, Verdict};
use serde_json::json;

use super::*;

/// Everything that is changed by hand, with a body that is right.
const DOORS: [(&str, &str); 7] = [
    (
        "/api/v1/builds/homu:widgets:7:auto:1/retry",
        r#"{"by": "alice"}"#,
    ),
    (
        "/api/v1/builds/homu:widgets:7:auto:1/reset",
        r#"{"by": "alice"}"#,
    ),
    ("/api/v1/bots/homu/release-slot", r#"{"by": "alice"}"#),
    ("/api/v1/pause", r#"{"by": "alice", "reason": "upgrade"}"#),
    ("/api/v1/resume", r#"{"by": "alice"}"#),
    (
        "/api/v1/exclude",
        r#"{"by": "alice", "reason": "mine", "repo": "widgets"}"#,
    ),
    ("/api/v1/include", r#"{"by": "alice"}"#),
];

/// What the fake loop was asked for by hand, and what it answers.
#[derive(Default)]
pub struct Hands {
    pub wishes: Mutex<Vec<(Wish, bool)>>,
    pub orders: Mutex<Vec<(OrderWish, bool)>>,
    pub refusal: Mutex<Option<Refusal>>,
}

impl Hands {
    pub fn wish(
        &self,
        wish: Wish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<HandReport, Refusal>> {
        self.wishes.lock().unwrap().push((wish, dry_run));
        self.answer(HandReport {
            attempt: "homu:widgets:7:auto:1:rerun:1".to_owned(),
            bot: "homu".to_owned(),
            target: "homu:widgets:7:auto:1".to_owned(),
            remedy: Remedy::Rerun,
            verdict: Verdict::NoShow,
            evidence: Vec::new(),
            warning: None,
            plan: Vec::new(),
            dry_run,
            sent: Vec::new(),
            stopped: None,
        })
    }

    pub fn order(
        &self,
        wish: OrderWish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<Instruction, Refusal>> {
        let (OrderWish::Stop { kind, .. } | OrderWish::Go { kind, .. }) = wish;
        self.orders.lock().unwrap().push((wish, dry_run));
        self.answer(Instruction {
            kind,
            scopes: vec!["widgets".to_owned()],
            until: None,
        })
    }

    fn answer<T>(&self, done: T) -> oneshot::Receiver<Result<T, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let refusal = self.refusal.lock().unwrap().clone();
        assert!(reply.send(refusal.map_or(Ok(done), Err)).is_ok());
        answer
    }

    fn asked(&self) -> usize {
        self.wishes.lock().unwrap().len() + self.orders.lock().unwrap().len()
    }
}

impl Server {
    /// Posts a body with the token.
    async fn post(&self, path: &str, body: &str) -> Answer {
        let headers = format!(
            "Authorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n",
            body.len()
        );
        let host = self.address;
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n{body}"
        ))
        .await
    }
}

#[tokio::test]
async fn nothing_is_done_by_hand_without_the_token() {
    let server = Server::with_token(Reload::Good).await;
    for (path, body) in DOORS {
        let length = format!("Content-Length: {}\r\n", body.len());
        let host = server.address;
        let request = |headers: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{headers}\r\n{body}"
            )
        };
        assert_eq!(server.send(&request("")).await.status, 401, "{path}");
        let wrong = "Authorization: Bearer wrong\r\n";
        assert_eq!(server.send(&request(wrong)).await.status, 401, "{path}");
        assert_eq!(server.ask("GET", path).await.status, 405, "{path}");
    }
    assert_eq!(server.behind.hands.asked(), 0);
    for (path, body) in DOORS {
        let answer = server.post(path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert_eq!(server.behind.hands.asked(), DOORS.len());
}

#[tokio::test]
async fn a_repair_reaches_the_loop_as_it_was_asked_for() {
    let server = Server::with_token(Reload::Good).await;
    let key = |pull, kind| BuildKey {
        bot: "homu".into(),
        repo: "widgets".into(),
        pull,
        kind,
    };
    let build = |pull, kind| BuildId {
        key: key(pull, kind),
        generation: 1,
    };
    let wishes = [
        (
            "/api/v1/builds/homu:widgets:7:auto:1/retry",
            json!({"by": " alice ", "even_if_alive": true}),
            Repair::Retry(build(7, BuildKind::Auto)),
            (true, false),
        ),
        (
            "/api/v1/builds/homu:widgets:8:auto:1/reset",
            json!({"by": "alice", "dry_run": true}),
            Repair::Reset(build(8, BuildKind::Try)),
            (false, true),
        ),
        (
            "/api/v1/bots/homu/release-slot",
            json!({"by": "alice"}),
            Repair::ReleaseSlot("homu".into()),
            (false, false),
        ),
    ];
    for (path, body, repair, (even_if_alive, dry_run)) in wishes {
        let answer = server.post(path, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let done: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(done["attempt"], "homu:widgets:7:auto:1:rerun:1");
        let asked = server.behind.hands.wishes.lock().unwrap().pop().unwrap();
        let wish = Wish {
            repair,
            even_if_alive,
            by: "alice".to_owned(),
        };
        assert_eq!(asked, (wish, dry_run));
    }
    let gone = server
        .post(
            "/api/v1/builds/homu:widgets:7:auto:2/retry",
            r#"{"by": "alice"}"#,
        )
        .await;
    assert_eq!(gone.status, 404);
    assert!(gone.body.contains("/api/v1/builds"), "{}", gone.body);
}

#[tokio::test]
async fn an_order_reaches_the_loop_as_it_was_given() {
    let server = Server::with_token(Reload::Good).await;
    let body = json!({
        "by": "bob", "reason": "upgrade", "for": "2h", "repo": "widgets", "pull": 7,
        "builder": "linux", "dry_run": true,
    });
    assert_eq!(
        server.post("/api/v1/pause", &body.to_string()).await.status,
        200
    );
    let scope = Scope {
        repo: Some("widgets".into()),
        pull: Some(7),
        builder: Some("linux".into()),
    };
    let stop = OrderWish::Stop {
        kind: StopKind::Pause,
        scope: scope.clone(),
        reason: "upgrade".to_owned(),
        by: "bob".to_owned(),
        lasts: Some(Duration::from_secs(7200)),
    };
    let ends = [
        (json!({"by": "bob"}), None),
        (
            json!({"by": "bob", "repo": "widgets", "pull": 7, "builder": "linux"}),
            Some(scope),
        ),
    ];
    let mut expected = vec![(stop, true)];
    for (body, scope) in ends {
        for (path, kind) in [
            ("/api/v1/resume", StopKind::Pause),
            ("/api/v1/include", StopKind::Exclusion),
        ] {
            assert_eq!(server.post(path, &body.to_string()).await.status, 200);
            let (scope, by) = (scope.clone(), "bob".to_owned());
            expected.push((OrderWish::Go { kind, scope, by }, false));
        }
    }
    assert_eq!(*server.behind.hands.orders.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_told_and_reaches_nobody() {
    let server = Server::with_token(Reload::Good).await;
    let long = "x".repeat(501);
    let retry = "/api/v1/builds/homu:widgets:7:auto:1/retry";
    let wrong = [
        (retry, "", "JSON"),
        (retry, "{}", "by"),
        (retry, r#"{"by": ""}"#, "by"),
        (retry, "{\"by\": \"a\\nb\"}", "one line"),
        (retry, r#"{"by": "alice", "force": true}"#, "force"),
        ("/api/v1/pause", r#"{"by": "alice"}"#, "reason"),
        (
            "/api/v1/pause",
            r#"{"by": "alice", "reason": "x", "for": "soon"}"#,
            "2h",
        ),
        (
            "/api/v1/pause",
            r#"{"by": "alice", "reason": "x", "for": "0s"}"#,
            "longer",
        ),
        (
            "/api/v1/pause",
            r#"{"by": "alice", "reason": "x", "for": "31d"}"#,
            "at most",
        ),
        (
            "/api/v1/pause",
            r#"{"by": "alice", "reason": "x", "pull": 7}"#,
            "repo",
        ),
        (
            "/api/v1/pause",
            &format!(r#"{{"by": "alice", "reason": "{long}"}}"#),
            "500",
        ),
        (
            "/api/v1/exclude",
            r#"{"by": "alice", "reason": "x"}"#,
            "must be named",
        ),
    ];
    for (path, body, word) in wrong {
        let answer = server.post(path, body).await;
        assert_eq!(answer.status, 422, "{path} {body}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        let error = problem["error"].as_str().unwrap();
        assert!(error.contains(word), "{word} is not in {error}");
    }
    assert_eq!(server.behind.hands.asked(), 0);
}

#[tokio::test]
async fn a_refusal_says_why_and_by_which_gate() {
    let server = Server::with_token(Reload::Good).await;
    let shut = |gate| Refusal::Shut {
        gate,
        reason: "because".to_owned(),
    };
    let refusals = [
        (Refusal::Gone("because".to_owned()), 404, Value::Null),
        (Refusal::Nothing("because".to_owned()), 409, Value::Null),
        (Refusal::Busy("because".to_owned()), 503, Value::Null),
        (shut(Gate::LawOfReruns), 409, json!("law_of_reruns")),
        (shut(Gate::Journal), 409, json!("journal")),
        (shut(Gate::Confirming), 503, json!("confirming")),
    ];
    for (refusal, status, gate) in refusals {
        *server.behind.hands.refusal.lock().unwrap() = Some(refusal);
        for (path, body) in DOORS {
            let answer = server.post(path, body).await;
            assert_eq!(answer.status, status, "{path}");
            let problem: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(problem, json!({"error": "because", "gate": gate}));
        }
    }
}
