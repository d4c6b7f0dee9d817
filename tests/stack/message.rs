//! What can be told to homu, by whom, and patterns that pick some of it.

use hyper::header::{self, HeaderMap};
use serde_json::Value;

/// Who sent a request, by what it calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Buildbot's reporter (`contrib/buildbot/homu_reporter.py`).
    Reporter,
    /// GitHub's webhooks.
    Github,
    /// The watchdog.
    Watchdog,
    /// The test itself, or anyone else.
    Other,
}

/// What homu was told, or asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `buildStarted` of Buildbot's packets.
    Started { builder: String, revision: String },
    /// `buildFinished` of Buildbot's packets.
    Finished {
        builder: String,
        revision: String,
        /// Of the run, counted per builder.
        number: Option<i64>,
        /// As Buildbot numbers them.
        results: Option<i64>,
        text: Vec<String>,
    },
    /// A webhook `issue_comment`.
    Comment {
        repository: String,
        pull: u64,
        author: String,
        body: String,
    },
    /// A webhook `pull_request`.
    Pull {
        repository: String,
        pull: u64,
        action: String,
        head_sha: String,
    },
    /// A webhook `push`.
    Push { repository: String, branch: String },
    /// A page was read.
    Read,
    /// Something else.
    Other,
}

/// Which requests a command is about. All that is said must hold.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    kind: Option<Kind>,
    sender: Option<Sender>,
    builder: Option<String>,
    revision: Option<String>,
    repository: Option<String>,
    pull: Option<u64>,
    text: Option<String>,
    path: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Read,
    Started,
    Finished,
    Packet,
    Comment,
    Pull,
    Push,
    Webhook,
    Change,
}

impl Pattern {
    /// Any request at all.
    pub fn any() -> Self {
        Self::kind(Kind::Any)
    }

    /// A request that only reads.
    pub fn read() -> Self {
        Self::kind(Kind::Read)
    }

    /// Any request that could change something: all but reads.
    pub fn change() -> Self {
        Self::kind(Kind::Change)
    }

    /// A `buildStarted`.
    pub fn started() -> Self {
        Self::kind(Kind::Started)
    }

    /// A `buildFinished`.
    pub fn finished() -> Self {
        Self::kind(Kind::Finished)
    }

    /// A `buildStarted` or `buildFinished`.
    pub fn packet() -> Self {
        Self::kind(Kind::Packet)
    }

    /// A webhook that tells of a comment.
    pub fn comment() -> Self {
        Self::kind(Kind::Comment)
    }

    /// A webhook that tells of a pull request opened, closed or pushed to.
    pub fn pull_event() -> Self {
        Self::kind(Kind::Pull)
    }

    /// A webhook that tells of a push.
    pub fn push() -> Self {
        Self::kind(Kind::Push)
    }

    /// Any webhook.
    pub fn webhook() -> Self {
        Self::kind(Kind::Webhook)
    }

    /// ... of this builder.
    pub fn of(mut self, builder: &str) -> Self {
        self.builder = Some(builder.to_owned());
        self
    }

    /// ... of this commit.
    pub fn at(mut self, revision: &str) -> Self {
        self.revision = Some(revision.to_owned());
        self
    }

    /// ... about this pull request.
    pub fn about(mut self, label: &str, pull: u64) -> Self {
        self.repository = Some(label.to_owned());
        self.pull = Some(pull);
        self
    }

    /// ... from this sender.
    pub fn from(mut self, sender: Sender) -> Self {
        self.sender = Some(sender);
        self
    }

    /// ... whose comment says this, or whose pull request did this.
    pub fn saying(mut self, text: &str) -> Self {
        self.text = Some(text.to_owned());
        self
    }

    /// ... to a path that begins like this.
    pub fn to(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    fn kind(kind: Kind) -> Self {
        Self {
            kind: Some(kind),
            ..Self::default()
        }
    }

    /// Whether a request from this sender, with these messages, is meant.
    pub fn matches(&self, sender: Sender, path: &str, messages: &[Message]) -> bool {
        self.sender.is_none_or(|wanted| wanted == sender)
            && self
                .path
                .as_ref()
                .is_none_or(|wanted| path.starts_with(wanted))
            && messages.iter().any(|message| self.matches_message(message))
    }

    fn matches_message(&self, message: &Message) -> bool {
        let kind = self.kind.is_none_or(|kind| match kind {
            Kind::Any => true,
            Kind::Read => matches!(message, Message::Read),
            Kind::Started => matches!(message, Message::Started { .. }),
            Kind::Finished => matches!(message, Message::Finished { .. }),
            Kind::Packet => {
                matches!(message, Message::Started { .. } | Message::Finished { .. })
            }
            Kind::Comment => matches!(message, Message::Comment { .. }),
            Kind::Pull => matches!(message, Message::Pull { .. }),
            Kind::Push => matches!(message, Message::Push { .. }),
            Kind::Webhook => matches!(
                message,
                Message::Comment { .. } | Message::Pull { .. } | Message::Push { .. }
            ),
            Kind::Change => !matches!(message, Message::Read),
        });
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let says = |wanted: &Option<String>, found: Option<&str>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| found.is_some_and(|it| it.contains(wanted)))
        };
        let (mut builder, mut revision, mut repository, mut pull, mut text) =
            (None, None, None, None, None);
        match message {
            Message::Started {
                builder: b,
                revision: r,
            }
            | Message::Finished {
                builder: b,
                revision: r,
                ..
            } => {
                (builder, revision) = (Some(b.as_str()), Some(r.as_str()));
            }
            Message::Comment {
                repository: r,
                pull: p,
                body,
                ..
            } => {
                (repository, pull, text) = (Some(r.as_str()), Some(*p), Some(body.as_str()));
            }
            Message::Pull {
                repository: r,
                pull: p,
                action,
                head_sha,
            } => {
                (repository, pull, text) = (Some(r.as_str()), Some(*p), Some(action.as_str()));
                revision = Some(head_sha.as_str());
            }
            Message::Push {
                repository: r,
                branch,
            } => {
                (repository, text) = (Some(r.as_str()), Some(branch.as_str()));
            }
            Message::Read | Message::Other => {}
        }
        kind && is(&self.builder, builder)
            && is(&self.revision, revision)
            && is(&self.repository, repository)
            && self.pull.is_none_or(|wanted| pull == Some(wanted))
            && says(&self.text, text)
    }
}

/// Who sent a request, by its `User-Agent`.
pub fn sender(headers: &HeaderMap) -> Sender {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    match agent.unwrap_or_default() {
        agent if agent.starts_with("homu-reporter/") => Sender::Reporter,
        agent if agent.starts_with("GitHub-Hookshot/") => Sender::Github,
        agent if agent.starts_with("ci-watchdog") => Sender::Watchdog,
        _ => Sender::Other,
    }
}

/// What a request tells homu; one of packets can tell several things.
pub fn messages(method: &str, path: &str, headers: &HeaderMap, body: &[u8]) -> Vec<Message> {
    match (method, path) {
        ("GET" | "HEAD", _) => vec![Message::Read],
        ("POST", "/buildbot") => {
            let packets = url::form_urlencoded::parse(body)
                .find(|(name, _)| name == "packets")
                .and_then(|(_, packets)| serde_json::from_str::<Vec<Value>>(&packets).ok());
            match packets {
                Some(packets) if !packets.is_empty() => packets.iter().map(packet).collect(),
                Some(_) | None => vec![Message::Other],
            }
        }
        ("POST", "/github") => {
            let event = headers
                .get("x-github-event")
                .and_then(|value| value.to_str().ok());
            let payload = serde_json::from_slice(body).unwrap_or_default();
            vec![webhook(event.unwrap_or_default(), &payload)]
        }
        _ => vec![Message::Other],
    }
}

fn packet(packet: &Value) -> Message {
    let build = &packet["payload"]["build"];
    let builder = text(&build["builderName"]);
    let property = |name: &str| {
        let mut properties = build["properties"].as_array().into_iter().flatten();
        properties.find(|it| it[0] == name).map(|it| &it[1])
    };
    let revision = property("revision").map(text).unwrap_or_default();
    match packet["event"].as_str() {
        Some("buildStarted") => Message::Started { builder, revision },
        Some("buildFinished") => {
            let words = build["text"]
                .as_array()
                .map(|all| all.iter().map(text).collect());
            Message::Finished {
                builder,
                revision,
                number: property("buildnumber").and_then(Value::as_i64),
                results: build["results"].as_i64(),
                text: words.unwrap_or_default(),
            }
        }
        _ => Message::Other,
    }
}

fn webhook(event: &str, payload: &Value) -> Message {
    let repository = text(&payload["repository"]["name"]);
    match event {
        "issue_comment" => Message::Comment {
            repository,
            pull: payload["issue"]["number"].as_u64().unwrap_or_default(),
            author: text(&payload["comment"]["user"]["login"]),
            body: text(&payload["comment"]["body"]),
        },
        "pull_request" => Message::Pull {
            repository,
            pull: payload["number"].as_u64().unwrap_or_default(),
            action: text(&payload["action"]),
            head_sha: text(&payload["pull_request"]["head"]["sha"]),
        },
        "push" => Message::Push {
            repository,
            branch: text(&payload["ref"])
                .trim_start_matches("refs/heads/")
                .to_owned(),
        },
        _ => Message::Other,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
