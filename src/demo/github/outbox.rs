//! How events leave the fake GitHub: to webhooks, and to listeners for pushes.
//!
//! Each destination has its own queue and task, so that one that hangs delays no
//! other, and hears its events in order. As on GitHub, a failed delivery is not
//! tried again.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::server::Shared;
use super::webhooks::{Payload, signature_sha1, signature_sha256};

/// How long GitHub waits for the answer to a webhook
/// ("Handling webhook deliveries": respond within 10 seconds).
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Events waiting for one destination. One that hangs for a whole test gets far
/// fewer; what does not fit is a failed delivery.
const QUEUE_MAX: usize = 1_000;

/// Deliveries remembered; the oldest go first.
const DELIVERIES_MAX: usize = 5_000;

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It waits, or is under way.
    Queued,
    /// It was dropped on command and never sent.
    Dropped,
    /// It was answered with this HTTP status.
    Answered(u16),
    /// It was not answered.
    Failed(String),
}

/// One delivery, to a webhook or to a push listener.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `X-GitHub-Delivery`.
    pub guid: String,
    /// `X-GitHub-Event`.
    pub event: String,
    /// The action of the event, such as `created`, if it has one.
    pub action: Option<String>,
    /// `owner/name`.
    pub repository: String,
    /// The pull request that the event is about, if it is about one.
    pub pull: Option<u64>,
    /// The branch that a push moved.
    pub branch: Option<String>,
    /// Where it goes.
    pub url: String,
    /// What became of it.
    pub fate: Fate,
}

/// How often a command to drop deliveries holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// For the next delivery that matches.
    Once,
    /// Until deliveries are restored.
    Always,
}

/// A webhook: every event of one repository goes to `url`, signed with `secret`.
struct Hook {
    repository: String,
    secret: String,
    destination: Destination,
}

/// A listener for pushes: it is told of some branches, in the form of Buildbot's
/// change hook dialect `base` (`buildbot/www/hooks/base.py` of 4.3.0).
struct Listener {
    repository: String,
    branches: Vec<String>,
    destination: Destination,
}

struct Destination {
    url: String,
    queue: mpsc::Sender<Parcel>,
}

struct Parcel {
    guid: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

enum Drop {
    Webhooks { event: String, times: Times },
    Pushes { branch: String, times: Times },
}

/// Where events go, what is dropped on the way, and what became of each.
#[derive(Default)]
pub struct Outbox {
    hooks: Vec<Hook>,
    listeners: Vec<Listener>,
    drops: Vec<Drop>,
    deliveries: VecDeque<Delivery>,
    sent: u64,
}

impl Outbox {
    /// Adds a webhook of one repository.
    pub fn add_hook(&mut self, post: &Post, repository: &str, url: &str, secret: &str) {
        let destination = post.destination(url);
        let (repository, secret) = (repository.to_owned(), secret.to_owned());
        self.hooks.push(Hook {
            repository,
            secret,
            destination,
        });
    }

    /// Adds a listener for pushes to some branches of one repository.
    pub fn add_listener(&mut self, post: &Post, repository: &str, branches: &[&str], url: &str) {
        self.listeners.push(Listener {
            repository: repository.to_owned(),
            branches: branches.iter().map(|&branch| branch.to_owned()).collect(),
            destination: post.destination(url),
        });
    }

    /// Drops webhooks of one event, such as `issue_comment`.
    pub fn drop_webhooks(&mut self, event: &str, times: Times) {
        self.drops.push(Drop::Webhooks {
            event: event.to_owned(),
            times,
        });
    }

    /// Drops news of pushes to one branch to the listeners.
    pub fn drop_pushes(&mut self, branch: &str, times: Times) {
        self.drops.push(Drop::Pushes {
            branch: branch.to_owned(),
            times,
        });
    }

    /// The deliveries that are remembered, oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.iter().cloned().collect()
    }

    /// Sends an event to every webhook of its repository.
    pub fn send_webhook(&mut self, repository: &str, payload: &Payload) {
        for index in 0..self.hooks.len() {
            let Some(hook) = self
                .hooks
                .get(index)
                .filter(|hook| hook.repository == repository)
            else {
                continue;
            };
            let body = payload.body.to_string().into_bytes();
            let guid = guid(self.sent);
            let parcel = Parcel {
                guid: guid.clone(),
                headers: vec![
                    ("content-type", "application/json".to_owned()),
                    ("user-agent", "GitHub-Hookshot/fake".to_owned()),
                    ("x-github-event", payload.event.to_owned()),
                    ("x-github-delivery", guid),
                    ("x-github-hook-id", (index + 1).to_string()),
                    (
                        "x-github-hook-installation-target-type",
                        "repository".to_owned(),
                    ),
                    ("x-hub-signature", signature_sha1(&hook.secret, &body)),
                    ("x-hub-signature-256", signature_sha256(&hook.secret, &body)),
                ],
                body,
            };
            let delivery = Delivery {
                guid: parcel.guid.clone(),
                event: payload.event.to_owned(),
                action: payload.action.map(str::to_owned),
                repository: repository.to_owned(),
                pull: payload.body["number"]
                    .as_u64()
                    .or_else(|| payload.body["issue"]["number"].as_u64()),
                branch: payload.body["ref"]
                    .as_str()
                    .and_then(|reference| reference.strip_prefix("refs/heads/"))
                    .map(str::to_owned),
                url: hook.destination.url.clone(),
                fate: Fate::Queued,
            };
            let queue = hook.destination.queue.clone();
            let lost = take_drop(&mut self.drops, |drop| match drop {
                Drop::Webhooks { event, times } => (event == payload.event).then_some(*times),
                Drop::Pushes { .. } => None,
            });
            self.dispatch(delivery, parcel, &queue, lost);
        }
    }

    /// Tells the listeners of a repository that a branch moved.
    pub fn send_push(&mut self, repository: &str, push: &PushNews<'_>) {
        for index in 0..self.listeners.len() {
            let Some(listener) = self.listeners.get(index).filter(|listener| {
                listener.repository == repository
                    && listener.branches.iter().any(|branch| branch == push.branch)
            }) else {
                continue;
            };
            let form = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("branch", push.branch)
                .append_pair("revision", push.sha)
                .append_pair("repository", push.clone_url)
                .append_pair("project", repository)
                .append_pair("author", push.author)
                .append_pair("comments", push.message)
                .finish();
            let guid = guid(self.sent);
            let parcel = Parcel {
                guid: guid.clone(),
                headers: vec![
                    (
                        "content-type",
                        "application/x-www-form-urlencoded".to_owned(),
                    ),
                    ("user-agent", "GitHub-Hookshot/fake".to_owned()),
                ],
                body: form.into_bytes(),
            };
            let delivery = Delivery {
                guid,
                event: "push".to_owned(),
                action: None,
                repository: repository.to_owned(),
                pull: None,
                branch: Some(push.branch.to_owned()),
                url: listener.destination.url.clone(),
                fate: Fate::Queued,
            };
            let queue = listener.destination.queue.clone();
            let lost = take_drop(&mut self.drops, |drop| match drop {
                Drop::Pushes { branch, times } => (branch == push.branch).then_some(*times),
                Drop::Webhooks { .. } => None,
            });
            self.dispatch(delivery, parcel, &queue, lost);
        }
    }

    fn dispatch(
        &mut self,
        mut delivery: Delivery,
        parcel: Parcel,
        queue: &mpsc::Sender<Parcel>,
        lost: bool,
    ) {
        self.sent += 1;
        if lost {
            delivery.fate = Fate::Dropped;
        } else if let Err(error) = queue.try_send(parcel) {
            delivery.fate = Fate::Failed(error.to_string());
        }
        if self.deliveries.len() == DELIVERIES_MAX {
            self.deliveries.pop_front();
        }
        self.deliveries.push_back(delivery);
    }

    fn settle(&mut self, guid: &str, fate: Fate) {
        let delivery = self
            .deliveries
            .iter_mut()
            .rev()
            .find(|delivery| delivery.guid == guid);
        if let Some(delivery) = delivery {
            delivery.fate = fate;
        }
    }
}

/// What a listener for pushes is told.
pub struct PushNews<'a> {
    pub branch: &'a str,
    pub sha: &'a str,
    pub clone_url: &'a str,
    pub author: &'a str,
    pub message: &'a str,
}

/// Starts the tasks that carry deliveries.
pub struct Post {
    client: reqwest::Client,
    shared: Weak<Shared>,
    stop: CancellationToken,
}

impl Post {
    /// Carries deliveries until `stop`, and writes their fates into `shared`.
    pub fn new(client: reqwest::Client, shared: &Arc<Shared>, stop: CancellationToken) -> Self {
        Self {
            client,
            shared: Arc::downgrade(shared),
            stop,
        }
    }

    fn destination(&self, url: &str) -> Destination {
        let (queue, parcels) = mpsc::channel(QUEUE_MAX);
        let carry = carry(
            parcels,
            self.client.clone(),
            url.to_owned(),
            Weak::clone(&self.shared),
        );
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(carry).await });
        Destination {
            url: url.to_owned(),
            queue,
        }
    }
}

async fn carry(
    mut parcels: mpsc::Receiver<Parcel>,
    client: reqwest::Client,
    url: String,
    shared: Weak<Shared>,
) {
    while let Some(parcel) = parcels.recv().await {
        let mut request = client.post(&url).timeout(ANSWER_DEADLINE);
        for (name, value) in parcel.headers {
            request = request.header(name, value);
        }
        let fate = match request.body(parcel.body).send().await {
            Ok(answer) => Fate::Answered(answer.status().as_u16()),
            Err(error) => Fate::Failed(error.to_string()),
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.lock().outbox.settle(&parcel.guid, fate);
    }
}

/// Whether one of the commands to drop applies; one for once is used up by it.
fn take_drop(drops: &mut Vec<Drop>, matches: impl Fn(&Drop) -> Option<Times>) -> bool {
    for index in 0..drops.len() {
        match matches(&drops[index]) {
            Some(Times::Once) => {
                drops.remove(index);
                return true;
            }
            Some(Times::Always) => return true,
            None => {}
        }
    }
    false
}

/// A GUID in GitHub's form, different for each delivery.
fn guid(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushes(drop: &Drop) -> Option<Times> {
        match drop {
            Drop::Pushes { times, .. } => Some(*times),
            Drop::Webhooks { .. } => None,
        }
    }

    #[test]
    fn a_command_to_drop_once_holds_once() {
        let mut drops = vec![
            Drop::Webhooks {
                event: "push".to_owned(),
                times: Times::Always,
            },
            Drop::Pushes {
                branch: "auto".to_owned(),
                times: Times::Once,
            },
        ];
        assert!(take_drop(&mut drops, pushes));
        assert!(!take_drop(&mut drops, pushes));
        assert_eq!(drops.len(), 1);
    }
}
