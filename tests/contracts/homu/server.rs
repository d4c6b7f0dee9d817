//! An HTTP server on loopback that answers as it is told to, rightly or not, and keeps what it was asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// Path and query, as they were written.
    pub target: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What the server does about it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200 with this body, and 304 to who has it already.
    Body(String),
    /// This status, headers and body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// 200 that promises the whole body and breaks off after so many bytes.
    CutOff(String, usize),
    /// The connection is closed without a word.
    Reset,
    /// This after so long.
    Later(Duration, Box<Reply>),
    /// Nothing, for ever. From here on the clock is paused, so that whoever waits need not.
    Silence,
}

type Answer = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A server; it ends with the test's runtime.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    waiting: Arc<Waiting>,
}

/// Who waits for a later answer.
#[derive(Default)]
struct Waiting {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Server {
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, answer): (_, Answer) = (Arc::clone(&asked), Arc::new(answer));
        let waiting = Arc::<Waiting>::default();
        let counted = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(converse(connection, answer, log, Arc::clone(&counted)));
            }
        });
        Self {
            url,
            asked,
            waiting,
        }
    }

    /// How many waited for a later answer at one time, at most.
    pub fn at_once(&self) -> usize {
        self.waiting.most.load(Ordering::Relaxed)
    }

    /// Everything that was asked for since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn converse(
    mut connection: TcpStream,
    answer: Answer,
    log: Arc<Mutex<Vec<Asked>>>,
    waiting: Arc<Waiting>,
) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(head) = receive(&mut connection, &mut received, end_of_head).await? else {
            return Ok(());
        };
        let mut asked = parse(&String::from_utf8_lossy(&head));
        let length = asked.header("content-length").parse().unwrap_or(0);
        let enough = |bytes: &[u8]| (bytes.len() >= length).then_some(length);
        let Some(body) = receive(&mut connection, &mut received, enough).await? else {
            return Ok(());
        };
        asked.body = body;
        let reply = answer(&asked);
        let known = asked.header("if-none-match").to_owned();
        log.lock().unwrap().push(asked);
        let reply = match reply {
            Reply::Later(time, reply) => {
                let now = waiting.now.fetch_add(1, Ordering::Relaxed) + 1;
                waiting.most.fetch_max(now, Ordering::Relaxed);
                tokio::time::sleep(time).await;
                waiting.now.fetch_sub(1, Ordering::Relaxed);
                *reply
            }
            reply @ (Reply::Body(_)
            | Reply::Status(..)
            | Reply::CutOff(..)
            | Reply::Reset
            | Reply::Silence) => reply,
        };
        let (status, headers, body, sent) = match reply {
            Reply::Body(body) => {
                let tag = format!(
                    "\"{:x}\"",
                    body.bytes().fold(7_u64, |hash, byte| {
                        hash.wrapping_mul(31).wrapping_add(u64::from(byte))
                    })
                );
                if tag == known {
                    (304, vec![("etag", tag)], String::new(), usize::MAX)
                } else {
                    (200, vec![("etag", tag)], body, usize::MAX)
                }
            }
            Reply::Status(status, headers, body) => (status, headers, body, usize::MAX),
            Reply::CutOff(body, sent) => (200, Vec::new(), body, sent),
            Reply::Reset | Reply::Later(..) => return Ok(()),
            Reply::Silence => {
                tokio::time::pause();
                std::future::pending().await
            }
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

/// Reads until `end` tells how many bytes there must be, and takes them; `None`: the client went.
async fn receive(
    connection: &mut TcpStream,
    received: &mut Vec<u8>,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = end(received) {
            let rest = received.split_off(end);
            return Ok(Some(std::mem::replace(received, rest)));
        }
        if connection.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

fn parse(head: &str) -> Asked {
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Asked {
        method,
        target,
        headers,
        body: Vec::new(),
    }
}
