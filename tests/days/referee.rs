//! The rules of a day, judged by what really happened: by the bridge's record of what the watchdog
//! sent, by Buildbot's own account of its runs, and by what the script did to whom. The watchdog's own
//! word is asked only for which attempts it made.

use std::collections::BTreeMap;

use serde_json::Value;

use super::diary::{At, Diary, State};
use super::eyes::{Eyes, Place};
use super::schedule::{Actor, WORKERS};
use crate::stack::bridge::{Exchange, Passage};
use crate::stack::message::Message;
use crate::stack::{Stack, patience};

/// How long a sign of life may be there before it must be heeded, seconds: the watchdog looks five
/// times a second, once more just before it sends, and may take a moment for each on a busy machine.
const SLACK: At = 3.0;

/// In this time after a retry homu shows its effect, seconds.
const EFFECT: At = 6.0;

/// Reruns of one pull request that may take effect (`safety.reruns_per_pull`).
pub const RERUNS_PER_PULL: usize = 2;

/// Far more than a day makes.
const ITEMS_MAX: u32 = 1000;

/// A run of Buildbot's.
#[derive(Debug)]
pub struct Run {
    pub revision: String,
    pub builder: String,
    /// Counted per builder.
    pub number: i64,
    pub request: i64,
    pub worker: Option<&'static str>,
    pub started: At,
    pub completed: Option<At>,
    pub results: Option<i64>,
}

/// A wish for a run.
#[derive(Debug)]
struct Request {
    id: i64,
    revision: String,
    submitted: At,
    completed: Option<At>,
}

/// Buildbot's account of the day.
pub struct Account {
    pub runs: Vec<Run>,
    requests: Vec<Request>,
}

impl Account {
    /// Reads it, once Buildbot answers.
    pub async fn read(stack: &Stack, diary: &Diary) -> Self {
        let all = async |path: &str, list: &str| -> Vec<Value> {
            let path = format!("{path}limit={ITEMS_MAX}");
            // A master that just started may break an answer off.
            let what = format!("Buildbot's {path}");
            let answer = patience(&what, async || stack.buildbot.get(&path).await.ok()).await;
            answer[list].as_array().expect("a list").clone()
        };
        let names = |of: Vec<Value>, id: &str| -> BTreeMap<i64, String> {
            let named = of
                .into_iter()
                .filter_map(|it| Some((it[id].as_i64()?, it["name"].as_str()?.to_owned())));
            named.collect()
        };
        let builders = names(all("builders?", "builders").await, "builderid");
        let workers = names(all("workers?", "workers").await, "workerid");
        let time = |value: &Value| value.as_f64().map(|unix| diary.of_unix(unix));
        let runs = all("builds?property=revision&", "builds").await;
        let runs = runs.iter().map(|run| {
            let worker = run["workerid"].as_i64().and_then(|id| workers.get(&id));
            Run {
                revision: text(&run["properties"]["revision"][0]),
                builder: builders[&run["builderid"].as_i64().expect("a number")].clone(),
                number: run["number"].as_i64().expect("a number"),
                request: run["buildrequestid"].as_i64().expect("a number"),
                worker: WORKERS
                    .into_iter()
                    .find(|name| Some(*name) == worker.map(String::as_str)),
                started: time(&run["started_at"]).expect("a run has started"),
                completed: time(&run["complete_at"]),
                results: run["results"].as_i64(),
            }
        });
        let runs = runs.collect();
        let sets = all("buildsets?", "buildsets").await.into_iter().map(|set| {
            (
                set["bsid"].as_i64(),
                text(&set["sourcestamps"][0]["revision"]),
            )
        });
        let sets: BTreeMap<_, _> = sets.collect();
        let requests = all("buildrequests?", "buildrequests").await;
        let requests = requests.iter().map(|request| Request {
            id: request["buildrequestid"].as_i64().expect("a number"),
            revision: sets
                .get(&request["buildsetid"].as_i64())
                .cloned()
                .unwrap_or_default(),
            submitted: time(&request["submitted_at"]).expect("a request was submitted"),
            completed: time(&request["complete_at"]),
        });
        let requests = requests.collect();
        Self { runs, requests }
    }

    /// What of a commit was alive at this moment; None where nothing was.
    ///
    /// A run is alive at its start and until its end, as Buildbot tells of them, while its worker works.
    /// It is dead from when its worker or the master was killed, and while its worker is frozen; thawed,
    /// it lives again. A request that no run serves is alive, too: it waits for a worker. Both must have
    /// been so for [`SLACK`].
    fn alive(&self, diary: &Diary, revision: &str, at: At) -> Option<String> {
        let from = at - SLACK;
        let goes_on = |run: &&Run| run.started < from && run.completed.is_none_or(|end| at < end);
        let lives = |run: &&Run| {
            let Some(worker) = run.worker.map(Actor::Worker) else {
                return false;
            };
            let cut_off = [worker, Actor::Master]
                .into_iter()
                .any(|actor| diary.was(actor, State::Gone, run.started, at));
            !cut_off && !diary.was(worker, State::Frozen, from, at)
        };
        let mut runs = self.runs.iter().filter(|run| run.revision == revision);
        if let Some(run) = runs.find(|run| goes_on(run) && lives(run)) {
            return Some(format!("{run:?}"));
        }
        let waits = |request: &&Request| {
            let mut of_it = self.runs.iter().filter(|run| run.request == request.id);
            request.revision == revision
                && request.submitted < from
                && request.completed.is_none_or(|end| at < end)
                // No run serves it, nor did a moment ago.
                && !of_it.any(|run| {
                    run.started - 1.0 < at && run.completed.is_none_or(|end| from < end + 1.0)
                })
        };
        let waiting = self.requests.iter().find(waits);
        waiting.map(|request| format!("{request:?}"))
    }
}

/// A retry that the watchdog sent.
struct Retry {
    place: Place,
    at: At,
    /// Whether homu got it.
    arrived: bool,
}

/// Every rule that the watchdog broke, in words.
pub async fn broken_rules(
    stack: &Stack,
    diary: &Diary,
    eyes: &Eyes,
    account: &Account,
    bridge_begun: At,
) -> Vec<String> {
    let mut broken = Vec::new();
    let retries = retries(stack, bridge_begun);
    for retry in &retries {
        let (label, number) = &retry.place;
        let stored = eyes.before(&retry.place, retry.at).unwrap_or_default();
        if stored.status != "pending" {
            continue;
        }
        if let Some(alive) = account.alive(diary, &stored.sha, retry.at) {
            broken.push(format!(
                "at {:.1} s a retry of {label}#{number} was sent while {:.7} lived: {alive}",
                retry.at, stored.sha
            ));
        }
    }

    let attempts = stack.watchdog.get_json("/api/v1/attempts").await;
    let attempts = attempts.expect("the watchdog answers");
    let attempts = attempts.as_array().expect("a list of attempts");
    let mut intents: BTreeMap<Place, usize> = BTreeMap::new();
    for attempt in attempts {
        let steps = attempt["steps"].as_array().into_iter().flatten();
        let retries: Vec<&Value> = steps.filter(|step| step["step"] == "retry").collect();
        let effective = retries
            .iter()
            .filter(|step| step["closing"] == "effect")
            .count();
        if effective > 1 {
            broken.push(format!("{} took effect {effective} times", attempt["id"]));
        }
        if let Some(number) = attempt["pull"].as_u64() {
            let place = (text(&attempt["repo"]), number);
            *intents.entry(place).or_default() += retries.len();
        }
    }
    let mut places: Vec<&Place> = retries.iter().map(|retry| &retry.place).collect();
    places.sort();
    places.dedup();
    for place in places {
        let (label, number) = place;
        let of_it = || retries.iter().filter(|retry| &retry.place == place);
        let (sent, meant) = (of_it().count(), intents.get(place).copied().unwrap_or(0));
        if sent > meant {
            broken.push(format!(
                "{sent} retries of {label}#{number} for {meant} intents"
            ));
        }
        let effective = of_it()
            .filter(|it| it.arrived && eyes.changed(place, it.at, it.at + EFFECT))
            .count();
        if effective > RERUNS_PER_PULL {
            broken.push(format!(
                "{effective} reruns of {label}#{number} took effect"
            ));
        }
    }

    for order in stack.watchdog_orders_to_buildbot() {
        broken.push(format!(
            "the watchdog told Buildbot {} {}",
            order.method, order.path
        ));
    }
    for word in stack.told() {
        if word.contains("force") || word.contains("clean") {
            broken.push(format!("the watchdog told homu {word:?}"));
        }
    }
    broken
}

/// How many retries of the watchdog homu got.
pub fn reruns(stack: &Stack) -> usize {
    retries(stack, 0.0)
        .iter()
        .filter(|retry| retry.arrived)
        .count()
}

fn retries(stack: &Stack, bridge_begun: At) -> Vec<Retry> {
    let requests = stack.watchdog_requests();
    requests
        .iter()
        .flat_map(|request| {
            request
                .messages
                .iter()
                .map(move |message| (request, message))
        })
        .filter_map(|(request, message)| match message {
            Message::Comment {
                repository,
                pull,
                body,
                ..
            } if body.contains("retry") => Some(Retry {
                place: (repository.clone(), *pull),
                at: bridge_begun + request.at.as_secs_f64(),
                arrived: arrived(request),
            }),
            Message::Comment { .. }
            | Message::Started { .. }
            | Message::Finished { .. }
            | Message::Pull { .. }
            | Message::Push { .. }
            | Message::Read
            | Message::Other => None,
        })
        .collect()
}

fn arrived(request: &Exchange) -> bool {
    match request.passage {
        Passage::Answered(status) | Passage::AnswerLost(status) => status < 400,
        Passage::Dropped | Passage::Replaced(_) | Passage::Unreachable => false,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "a commit";

    fn run(started: At, completed: Option<At>) -> Run {
        Run {
            revision: SHA.to_owned(),
            builder: "alpha-mac".to_owned(),
            number: 1,
            request: 1,
            worker: Some("mac"),
            started,
            completed,
            results: None,
        }
    }

    fn request(submitted: At, completed: Option<At>) -> Request {
        Request {
            id: 1,
            revision: SHA.to_owned(),
            submitted,
            completed,
        }
    }

    /// Whether a run from 10 s on, or its request, is alive at a moment.
    fn lives(diary: &Diary, completed: Option<At>, at: At) -> bool {
        let account = Account {
            runs: vec![run(10.0, completed)],
            requests: vec![request(9.0, completed)],
        };
        account.alive(diary, SHA, at).is_some()
    }

    #[test]
    fn a_run_lives_from_its_start_to_its_end() {
        let quiet = Diary::new();
        assert!(lives(&quiet, None, 30.0));
        assert!(lives(&quiet, Some(31.0), 30.0));
        assert!(!lives(&quiet, Some(29.0), 30.0));
        assert!(!lives(&quiet, None, 12.0), "it has only just begun");
    }

    #[test]
    fn a_run_is_dead_while_its_worker_is_frozen_and_lives_again_when_it_thaws() {
        let diary = Diary::new();
        diary.note(20.0, Actor::Worker("mac"), State::Frozen);
        diary.note(40.0, Actor::Worker("mac"), State::Working);
        for (at, alive) in [(19.0, true), (30.0, false), (42.0, false), (44.0, true)] {
            assert_eq!(lives(&diary, None, at), alive, "at {at}");
        }
        let other = Diary::new();
        other.note(20.0, Actor::Worker("linux"), State::Frozen);
        assert!(lives(&other, None, 30.0));
    }

    #[test]
    fn a_run_does_not_outlive_its_worker_or_the_master() {
        for actor in [Actor::Worker("mac"), Actor::Master] {
            let diary = Diary::new();
            diary.note(20.0, actor, State::Gone);
            diary.note(25.0, actor, State::Working);
            assert!(lives(&diary, None, 19.0));
            assert!(!lives(&diary, None, 40.0));
        }
    }

    #[test]
    fn a_request_that_no_run_serves_is_alive() {
        let (quiet, waits) = (Diary::new(), |runs, completed| Account {
            runs,
            requests: vec![request(10.0, completed)],
        });
        let alive = |account: Account, at| account.alive(&quiet, SHA, at).is_some();
        assert!(alive(waits(vec![], None), 30.0));
        assert!(!alive(waits(vec![], None), 12.0), "it has only just come");
        assert!(!alive(waits(vec![], Some(20.0)), 30.0));
        // Its first run was cut off, and it waits for the next.
        assert!(alive(waits(vec![run(11.0, Some(15.0))], None), 30.0));
    }
}
