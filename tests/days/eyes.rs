//! What is to be seen in a day, looked at again and again: homu's database, and the watchdog's API.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::diary::{At, Diary};
use super::schedule::{PlannedPull, Schedule};
use crate::stack::Stack;

/// Between two looks at homu's database.
const LOOK: Duration = Duration::from_millis(150);
/// Between two looks at the watchdog.
const SAMPLE: Duration = Duration::from_millis(500);
/// The watchdog may be down or frozen.
const ANSWER: Duration = Duration::from_secs(2);

/// What comes before the gate of another pull request, behind which one waits in its queue.
pub const BEHIND: &str = "behind ";

/// A pull request's place.
pub type Place = (String, u64);

/// What homu's database says of a pull request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    pub status: String,
    pub sha: String,
}

/// All that was seen.
#[derive(Default)]
pub struct Eyes {
    /// Each change, with the moment when it was seen, oldest first.
    changes: RefCell<BTreeMap<Place, Vec<(At, Stored)>>>,
    stuck: RefCell<BTreeMap<Place, At>>,
    /// By which gate each pull request is held, and since when without a break.
    held: RefCell<BTreeMap<Place, (String, At)>>,
}

impl Eyes {
    /// Looks at homu's database, for ever. It ends the test where homu or Buildbot ended by itself.
    pub async fn watch_homu(&self, stack: &Stack, schedule: &Schedule, diary: &Diary) {
        loop {
            stack.homu.assert_running();
            stack.buildbot.assert_running();
            for pull in &schedule.pulls {
                let stored = stack.stored(pull.label, pull.number);
                let stored = stored.map_or_else(Stored::default, |it| Stored {
                    status: it.status,
                    sha: it.merge_sha,
                });
                let now = diary.now();
                let mut changes = self.changes.borrow_mut();
                let changes = changes.entry(place(pull)).or_default();
                if changes.last().map(|(_, last)| last) != Some(&stored) {
                    let (label, number, status) = (pull.label, pull.number, &stored.status);
                    diary.say(format_args!(
                        "homu has {label}#{number} as {status:?} of {:.7}",
                        stored.sha
                    ));
                    changes.push((now, stored));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks at the watchdog's API, for ever. While it does not answer, what it said last holds.
    pub async fn watch_watchdog(&self, stack: &Stack, schedule: &Schedule, diary: &Diary) {
        let (mut builds, mut status) = (Value::Null, Value::Null);
        let mut last = diary.now();
        loop {
            for (path, answer) in [
                ("/api/v1/builds", &mut builds),
                ("/api/v1/status", &mut status),
            ] {
                let asked = tokio::time::timeout(ANSWER, stack.watchdog.get_json(path)).await;
                if let Ok(Ok(new)) = asked {
                    *answer = new;
                }
            }
            let now = diary.now();
            for pull in &schedule.pulls {
                let (stuck, gate) = told_of(pull, &builds, &status);
                if stuck {
                    *self.stuck.borrow_mut().entry(place(pull)).or_default() += now - last;
                }
                let mut held = self.held.borrow_mut();
                match gate {
                    None => {
                        held.remove(&place(pull));
                    }
                    Some(gate) => {
                        let before = held.get(&place(pull)).filter(|(same, _)| *same == gate);
                        let since = before.map_or(now, |(_, since)| *since);
                        held.insert(place(pull), (gate, since));
                    }
                }
            }
            last = now;
            tokio::time::sleep(SAMPLE).await;
        }
    }

    /// A pull request's status in homu's database, as last seen.
    pub fn status_of(&self, pull: &PlannedPull) -> String {
        self.last(pull).status
    }

    /// The commit that homu has of a pull request; empty where it has none.
    pub fn commit_of(&self, pull: &PlannedPull) -> String {
        self.last(pull).sha
    }

    /// Whether a pull request failed at some time.
    pub fn has_failed(&self, pull: &PlannedPull) -> bool {
        let changes = self.changes.borrow();
        let mut changes = changes.get(&place(pull)).into_iter().flatten();
        changes.any(|(_, stored)| stored.status == "failure")
    }

    /// What homu's database said of a pull request just before this moment.
    pub fn before(&self, place: &Place, at: At) -> Option<Stored> {
        let changes = self.changes.borrow();
        let changes = changes.get(place)?;
        let before = changes.iter().rev().find(|(seen, _)| *seen < at);
        before.map(|(_, stored)| stored.clone())
    }

    /// Whether homu's database said something else of a pull request in this time.
    pub fn changed(&self, place: &Place, from: At, to: At) -> bool {
        let changes = self.changes.borrow();
        let mut changes = changes.get(place).into_iter().flatten();
        changes.any(|(seen, _)| (from..to).contains(seen))
    }

    /// By which gate a pull request is held, and since when.
    pub fn held(&self, pull: &PlannedPull) -> Option<(String, At)> {
        self.held.borrow().get(&place(pull)).cloned()
    }

    /// The sum over all pull requests of the time in which the watchdog said that one is stuck,
    /// seconds.
    pub fn stuck_seconds(&self) -> At {
        self.stuck.borrow().values().sum()
    }

    fn last(&self, pull: &PlannedPull) -> Stored {
        let changes = self.changes.borrow();
        let last = changes.get(&place(pull)).and_then(|changes| changes.last());
        last.map(|(_, stored)| stored.clone()).unwrap_or_default()
    }
}

/// The place of a pull request.
pub fn place(pull: &PlannedPull) -> Place {
    (pull.label.to_owned(), pull.number)
}

/// Whether the watchdog says that a pull request is stuck, and the gate that holds it. One that waits
/// in its repository's queue is as its queue; one that waits there behind a pending build that is held
/// is held with that.
fn told_of(pull: &PlannedPull, builds: &Value, status: &Value) -> (bool, Option<String>) {
    let gate = |of: &Value| of["hold"]["gate"].as_str().map(str::to_owned);
    let builds = builds.as_array().into_iter().flatten();
    let mut of_repo = builds
        .filter(|build| build["repo"] == pull.label)
        .peekable();
    if let Some(first) = of_repo.peek() {
        let behind = gate(first);
        return match of_repo.find(|build| build["pull"] == pull.number) {
            Some(build) => (build["stuck"] == true, gate(build)),
            None => (false, behind.map(|gate| format!("{BEHIND}{gate}"))),
        };
    }
    let queues = status["queues"].as_array().into_iter().flatten();
    let queue = queues.into_iter().find(|queue| queue["repo"] == pull.label);
    let Some(queue) = queue.filter(|queue| queue["approved"].as_u64() > Some(0)) else {
        return (false, None);
    };
    let stuck = ["wedged", "outdated"]
        .iter()
        .any(|it| queue["verdict"] == *it);
    (stuck, gate(queue))
}
