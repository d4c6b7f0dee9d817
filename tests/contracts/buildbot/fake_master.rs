//! An HTTP server on loopback that answers as it is told to, rightly or not.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Below `api/v2/`, or from the root.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub cookie: Option<String>,
    pub authorization: Option<String>,
}

impl Asked {
    /// What it is about, without what only shapes the answer: the key of a recorded answer.
    pub fn subject(&self) -> String {
        let shaping = ["field", "limit", "order", "property"];
        let filters: Vec<String> = self
            .query
            .iter()
            .filter(|(key, _)| !shaping.contains(&key.as_str()))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if filters.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, filters.join("&"))
        }
    }

    /// The first value of a query parameter.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }
}

/// What the server does about it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200 with this body.
    Body(String),
    /// This status, headers and body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// 200 that promises the whole body and breaks off after so many bytes.
    CutOff(String, usize),
    /// The connection is closed without a word.
    Reset,
    /// Nothing, for ever.
    Silence,
}

type Answer = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A server; it ends with the test's runtime.
pub struct FakeMaster {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeMaster {
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, answer): (_, Answer) = (Arc::clone(&asked), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(converse(connection, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { url, asked }
    }

    /// A server with the answers of a recorded scenario, and 404 for all else.
    pub async fn recorded(scenario: &str) -> Self {
        let answers = recorded(scenario);
        Self::start(move |asked| reply(&answers, asked)).await
    }

    /// Everything that was asked for since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// The answers of a recorded scenario, by subject.
pub fn recorded(scenario: &str) -> BTreeMap<String, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contracts/buildbot-4");
    let text = std::fs::read_to_string(format!("{folder}/{scenario}.json")).unwrap();
    let answers: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    answers
        .into_iter()
        .map(|(asked, answer)| (asked, answer.to_string()))
        .collect()
}

/// The recorded answer, or what Buildbot says of a path that it does not have.
pub fn reply(answers: &BTreeMap<String, String>, asked: &Asked) -> Reply {
    match answers.get(&asked.subject()) {
        Some(answer) => Reply::Body(answer.clone()),
        None => {
            let body = format!(r#"{{"error": "Invalid path: {}"}}"#, asked.path);
            Reply::Status(404, Vec::new(), body)
        }
    }
}

async fn converse(
    mut connection: TcpStream,
    answer: Answer,
    log: Arc<Mutex<Vec<Asked>>>,
) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = received.split_off(end + 4);
                break std::mem::replace(&mut received, rest);
            }
            if connection.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let asked = parse(&String::from_utf8_lossy(&head));
        let reply = answer(&asked);
        log.lock().unwrap().push(asked);
        let (status, headers, body, sent) = match reply {
            Reply::Body(body) => (200, Vec::new(), body, usize::MAX),
            Reply::Status(status, headers, body) => (status, headers, body, usize::MAX),
            Reply::CutOff(body, sent) => (200, Vec::new(), body, sent),
            Reply::Reset => return Ok(()),
            Reply::Silence => std::future::pending().await,
        };
        let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(&body.as_bytes()[..sent.min(body.len())]);
        connection.write_all(&message).await?;
        if sent < body.len() {
            return Ok(());
        }
    }
}

fn parse(head: &str) -> Asked {
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default();
    let url = url::Url::parse("http://127.0.0.1")
        .unwrap()
        .join(target)
        .unwrap();
    let header = |wanted: &str| {
        lines.clone().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted)
                .then(|| value.trim().to_owned())
        })
    };
    let path = url.path();
    Asked {
        method,
        path: path
            .strip_prefix("/api/v2/")
            .unwrap_or(path.trim_start_matches('/'))
            .to_owned(),
        query: url.query_pairs().into_owned().collect(),
        cookie: header("cookie"),
        authorization: header("authorization"),
    }
}
