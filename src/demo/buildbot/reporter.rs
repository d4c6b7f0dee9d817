//! What the fake Buildbot tells homu: packets in the form of Buildbot 0.8, each of which can be
//! lost on the way.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::client::Client;
use super::super::github::Times;
use super::fake::Shared;
use super::world::{Build, EXCEPTION, FAILURE, RETRY, SKIPPED, SUCCESS, WARNINGS, World};

/// Messages that wait for homu; more are failed deliveries.
const QUEUE_MAX: usize = 256;
/// Messages remembered; the oldest go first.
const MESSAGES_MAX: usize = 2_000;

/// What a message tells of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// `buildStarted`.
    Started,
    /// `buildFinished`.
    Finished,
}

impl News {
    /// homu's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "buildStarted",
            Self::Finished => "buildFinished",
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It waits, or is under way.
    Queued,
    /// It was lost on command and never sent.
    Lost,
    /// homu answered it with this HTTP status.
    Answered(u16),
    /// homu did not answer.
    Failed(String),
}

/// One message to homu.
#[derive(Debug, Clone)]
pub struct Message {
    /// When it was made.
    pub at: Instant,
    /// What it tells.
    pub news: News,
    /// The builder.
    pub builder: String,
    /// The commit.
    pub revision: String,
    /// What became of it.
    pub fate: Fate,
}

/// The messages to homu: which are lost, which wait, and what became of each.
#[derive(Default)]
pub struct Outbox {
    queue: Option<mpsc::Sender<Parcel>>,
    losses: Vec<Loss>,
    messages: VecDeque<Message>,
    made: u64,
}

/// A message on its way, with its number.
pub struct Parcel {
    number: u64,
    packets: String,
}

struct Loss {
    news: News,
    builder: Option<String>,
    times: Times,
}

impl Outbox {
    /// Where messages go from now on; what is returned is to be carried by [`carry`].
    pub fn open(&mut self) -> mpsc::Receiver<Parcel> {
        let (queue, parcels) = mpsc::channel(QUEUE_MAX);
        self.queue = Some(queue);
        parcels
    }

    /// Loses messages of one kind, of one builder or of all.
    pub fn lose(&mut self, news: News, builder: Option<&str>, times: Times) {
        self.losses.push(Loss {
            news,
            builder: builder.map(str::to_owned),
            times,
        });
    }

    /// Loses nothing more.
    pub fn restore(&mut self) {
        self.losses.clear();
    }

    /// The messages that are remembered, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.messages.iter().cloned().collect()
    }

    /// Sends a message, or loses it.
    pub fn send(&mut self, world: &World, build: &Build, news: News) {
        let builder = &world.builders[build.builder].name;
        let parcel = Parcel {
            number: self.made,
            packets: Value::Array(vec![packet(world, build, news)]).to_string(),
        };
        let fate = if self.is_lost(news, builder) {
            Fate::Lost
        } else {
            match &self.queue {
                None => Fate::Failed("no homu to tell".to_owned()),
                Some(queue) => match queue.try_send(parcel) {
                    Ok(()) => Fate::Queued,
                    Err(error) => Fate::Failed(error.to_string()),
                },
            }
        };
        self.made += 1;
        if self.messages.len() == MESSAGES_MAX {
            self.messages.pop_front();
        }
        self.messages.push_back(Message {
            at: Instant::now(),
            news,
            builder: builder.clone(),
            revision: world.revision(build).to_owned(),
            fate,
        });
    }

    fn is_lost(&mut self, news: News, builder: &str) -> bool {
        let found = self.losses.iter().position(|loss| {
            loss.news == news && loss.builder.as_deref().is_none_or(|it| it == builder)
        });
        let Some(index) = found else { return false };
        match self.losses[index].times {
            Times::Once => {
                self.losses.remove(index);
            }
            Times::Always => {}
        }
        true
    }

    fn settle(&mut self, number: u64, fate: Fate) {
        let oldest = self.made - self.messages.len() as u64;
        let index = number
            .checked_sub(oldest)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(message) = index.and_then(|index| self.messages.get_mut(index)) {
            message.fate = fate;
        }
    }
}

/// Carries messages to homu, one after the other; none is tried again.
pub async fn carry(
    mut parcels: mpsc::Receiver<Parcel>,
    client: Client,
    url: String,
    secret: String,
    shared: Weak<Mutex<Shared>>,
) {
    while let Some(Parcel { number, packets }) = parcels.recv().await {
        let form = [("packets", packets.as_str()), ("secret", secret.as_str())];
        let fate = match client.form(&url, &form).await {
            Ok(answer) => Fate::Answered(answer.status),
            Err(error) => Fate::Failed(error.to_string()),
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .outbox
            .settle(number, fate);
    }
}

fn packet(world: &World, build: &Build, news: News) -> Value {
    let results = build.completed.map(|completed| completed.results);
    let text = match results {
        None => json!([]),
        Some(SUCCESS) => json!(["build", "successful"]),
        Some(WARNINGS) => json!(["build", "successful", "warnings"]),
        Some(SKIPPED) => json!(["build", "successful", "skipped"]),
        Some(FAILURE) => json!(["failed"]),
        Some(EXCEPTION) => json!(["exception"]),
        Some(RETRY) => json!(["retry", "worker", "lost"]),
        Some(_) => json!(["exception", "cancelled"]),
    };
    let request = &world.requests[build.request];
    let buildset = &world.buildsets[request.buildset];
    let steps: Vec<Value> = build
        .steps
        .iter()
        .filter(|step| step.started_at.is_some())
        .map(|step| json!({"name": step.name, "text": [step.name]}))
        .collect();
    json!({
        "event": news.as_str(),
        "payload": {
            "build": {
                "builderName": world.builders[build.builder].name,
                "number": build.number,
                "results": results,
                "text": text,
                "properties": [
                    ["revision", buildset.revision, "Build"],
                    ["buildnumber", build.number, "Build"],
                    ["branch", buildset.branch, "Build"],
                ],
                "steps": steps,
            },
        },
    })
}
