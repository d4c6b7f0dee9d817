//! A homu as files and a page, the GitHub behind it, and the adapter between them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ci_watchdog::bots::Bot;
use ci_watchdog::model::{RepoSnapshot, Sha};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::adapter::{connect, look};
use super::server::{Asked, Reply, Server};

/// What the servers answer, by method, path and query; `GET` is left out.
type Replies = Arc<Mutex<BTreeMap<String, Reply>>>;

/// One homu, its files in a folder of their own.
pub struct World {
    pub fork: &'static str,
    pub folder: TempDir,
    pub homu: Server,
    pub github: Server,
    homu_replies: Replies,
    github_replies: Replies,
    latency: Latency,
}

/// How long GitHub takes for each answer.
type Latency = Arc<Mutex<Option<Duration>>>;

pub const FORKS: [&str; 4] = ["0.2.0", "barosl", "servo", "rust-lang"];

pub fn sha(digit: char) -> Sha {
    Sha::new(digit.to_string().repeat(40))
}

/// A recorded file of one homu.
pub fn recorded(fork: &str, file: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contracts/homu");
    std::fs::read_to_string(format!("{folder}/{fork}/{file}")).unwrap()
}

impl World {
    /// The recorded homu, and a GitHub that agrees with it in everything.
    pub async fn of(fork: &'static str) -> Self {
        let folder = TempDir::new().unwrap();
        let homu_replies = Replies::default();
        let github_replies = Replies::default();
        let latency = Latency::default();
        let world = Self {
            fork,
            homu: Server::start(answers(&homu_replies)).await,
            github: Server::start(slowly(&latency, answers(&github_replies))).await,
            folder,
            homu_replies,
            github_replies,
            latency,
        };
        world.write("cfg.toml", &recorded(fork, "cfg.toml"));
        world.sql(&recorded(fork, "main.sql"));
        world.page("/queue/alpha", Reply::Body(recorded(fork, "page.html")));
        for path in ["POST /github", "POST /buildbot"] {
            world.page(path, Reply::Body("OK".to_owned()));
        }
        world.say("/user", json!({ "login": "bors", "id": 1 }));
        for num in 1..=5_u8 {
            let head = sha(char::from(b'0' + num));
            world.pull(u64::from(num), "open", &head, "");
        }
        world.commit('a', &['9', '1']);
        world.commit('b', &['9', '2']);
        world.branch("auto", Some('a'));
        world.branch("try", Some('b'));
        world.comments(3, &[("rita", "@bors r+"), ("bors", &approval('3'))]);
        world.say(
            &format!("{}?per_page=100&sort=created&direction=desc", review(3)),
            json!([]),
        );
        world
    }

    pub fn database(&self) -> PathBuf {
        let name = match self.fork {
            "rust-lang" => "bors.db",
            _ => "main.db",
        };
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub fn sql(&self, sql: &str) {
        let connection = Connection::open(self.database()).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    /// What homu answers.
    pub fn page(&self, path: &str, reply: Reply) {
        let mut replies = self.homu_replies.lock().unwrap();
        replies.insert(path.to_owned(), reply);
    }

    /// The queue page with something replaced.
    pub fn edit_page(&self, from: &str, to: &str) {
        let page = recorded(self.fork, "page.html");
        assert!(page.contains(from), "{from}");
        self.page("/queue/alpha", Reply::Body(page.replace(from, to)));
    }

    /// What GitHub answers.
    pub fn reply(&self, path: &str, reply: Reply) {
        let mut replies = self.github_replies.lock().unwrap();
        replies.insert(path.to_owned(), reply);
    }

    pub fn say(&self, path: &str, body: Value) {
        self.reply(path, Reply::Body(body.to_string()));
    }

    /// From now on GitHub takes so long for each answer.
    pub fn slow_github(&self, latency: Duration) {
        *self.latency.lock().unwrap() = Some(latency);
    }

    pub fn pull(&self, num: u64, state: &str, head: &Sha, body: &str) {
        self.pull_of("alpha", num, state, head, body);
    }

    pub fn pull_of(&self, repo: &str, num: u64, state: &str, head: &Sha, body: &str) {
        self.say(
            &format!("/repos/octo/{repo}/pulls/{num}"),
            json!({
                "number": num, "state": state, "title": format!("Title {num}"), "body": body,
                "user": { "login": "contributor" }, "comments": 2,
                "head": {
                    "sha": head.as_str(), "ref": "topic", "user": { "login": "contributor" },
                    "repo": { "name": "alpha", "owner": { "login": "contributor" } },
                },
                "base": { "ref": "master", "sha": sha('9').as_str() },
            }),
        );
    }

    pub fn commit(&self, digit: char, parents: &[char]) {
        let parents: Vec<Value> = parents
            .iter()
            .map(|parent| json!({ "sha": sha(*parent).as_str() }))
            .collect();
        self.say(
            &format!("/repos/octo/alpha/commits/{}", sha(digit)),
            json!({ "sha": sha(digit).as_str(), "parents": parents }),
        );
    }

    pub fn branch(&self, name: &str, at: Option<char>) {
        let path = format!("/repos/octo/alpha/git/ref/heads/{name}");
        match at {
            Some(digit) => self.say(&path, json!({ "object": { "sha": sha(digit).as_str() } })),
            None => self.reply(&path, not_found()),
        }
    }

    /// The comments on a pull request, on its first page.
    pub fn comments(&self, num: u64, comments: &[(&str, &str)]) {
        self.comments_of("alpha", num, comments);
    }

    pub fn comments_of(&self, repo: &str, num: u64, comments: &[(&str, &str)]) {
        let comments: Vec<Value> = comments
            .iter()
            .map(|(login, body)| json!({ "user": { "login": login }, "body": body }))
            .collect();
        self.say(
            &format!("/repos/octo/{repo}/issues/{num}/comments?per_page=100&page=1"),
            Value::Array(comments),
        );
    }

    /// The adapter, with more lines in its table.
    pub fn connect(&self, more: &str) -> Result<Box<dyn Bot>, Vec<String>> {
        let table = format!(
            "config = \"cfg.toml\"\nurl = {:?}\ngithub_url = {:?}\n{more}",
            self.homu.url, self.github.url
        );
        connect(&self.folder.path().join("ci-watchdog.toml"), &table)
    }

    pub fn bot(&self) -> Box<dyn Bot> {
        self.connect("").unwrap()
    }
}

/// The one repository of the recorded homus.
pub async fn alpha(bot: &dyn Bot) -> RepoSnapshot {
    let mut snapshot = look(bot).await.unwrap();
    snapshot.repos.remove("alpha").unwrap()
}

/// homu's own words when it approves.
pub fn approval(head: char) -> String {
    let head = sha(head);
    format!(
        ":pushpin: Commit {} has been approved by `rita`\n\n<!-- @bors r=rita {head} -->",
        head.short()
    )
}

/// Where the review comments on a pull request are.
pub fn review(num: u64) -> String {
    format!("/repos/octo/alpha/pulls/{num}/comments")
}

pub fn not_found() -> Reply {
    let message = r#"{"message": "Not Found", "status": "404"}"#;
    Reply::Status(404, Vec::new(), message.to_owned())
}

fn slowly(
    latency: &Latency,
    answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let latency = Arc::clone(latency);
    move |asked| match *latency.lock().unwrap() {
        Some(latency) => Reply::Later(latency, Box::new(answers(asked))),
        None => answers(asked),
    }
}

fn answers(replies: &Replies) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let replies = Arc::clone(replies);
    move |asked| {
        let key = match asked.method.as_str() {
            "GET" => asked.target.clone(),
            method => format!("{method} {}", asked.target),
        };
        let replies = replies.lock().unwrap();
        replies.get(&key).cloned().unwrap_or_else(not_found)
    }
}
