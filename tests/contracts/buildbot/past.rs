//! The past of a commit at a master with many buildsets: found, proven absent, or said to be unknown.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ci_watchdog::model::{BuilderName, History, Question, Sha};
use serde_json::json;

use super::connect;
use super::fake_master::{Asked, FakeMaster, Reply};

/// A master with `count` buildsets, an hour apart, each of one commit of its own and one finished
/// request for builder 1. Commit `n` is `n` in hexadecimal, and has stamp and request `n`.
fn filled(count: &Arc<AtomicU64>, shift: u64) -> impl Fn(&Asked) -> Reply + use<> {
    let count = Arc::clone(count);
    let buildset = move |n: u64| {
        let at = (n + shift) * 3600;
        json!({"bsid": n, "submitted_at": at, "sourcestamps": [stamp(n, at)]})
    };
    move |asked| {
        let last = count.load(Ordering::SeqCst);
        let number = |key| asked.value(key).map(|value| value.parse::<u64>().unwrap());
        let answer = match asked.path.as_str() {
            "builders" => json!({"builders": [
                {"builderid": 1, "name": "linux", "masterids": [1]},
            ]}),
            "workers" => json!({"workers": []}),
            "buildrequests" => match number("buildsetid") {
                Some(n) => json!({"buildrequests": [{
                    "buildrequestid": n, "buildsetid": n, "builderid": 1, "claimed": true,
                    "complete": true, "results": 0,
                }]}),
                None => json!({"buildrequests": []}),
            },
            "builds" => json!({"builds": []}),
            "buildsets" if asked.value("complete").is_some() => json!({"buildsets": []}),
            "buildsets" => {
                let limit = usize::try_from(number("limit").unwrap()).unwrap();
                let low = number("bsid__gt").map_or(1, |n| n + 1);
                let high = number("bsid__lt").map_or(last, |n| last.min(n - 1));
                let page: Vec<_> = match asked.value("order") {
                    Some("bsid") => (low..=high).take(limit).map(buildset).collect(),
                    Some("-bsid") => (low..=high).rev().take(limit).map(buildset).collect(),
                    order => panic!("{order:?}"),
                };
                json!({"buildsets": page})
            }
            "sourcestamps" => {
                let stamps: Vec<_> = asked
                    .query
                    .iter()
                    .filter(|(key, _)| key == "revision")
                    .filter_map(|(_, revision)| u64::from_str_radix(revision, 16).ok())
                    .filter(|n| (1..=last).contains(n))
                    .map(|n| stamp(n, (n + shift) * 3600))
                    .collect();
                json!({"sourcestamps": stamps})
            }
            path if path.starts_with("buildrequests/") => json!({"builds": []}),
            _ => return Reply::Status(404, vec![], String::new()),
        };
        Reply::Body(answer.to_string())
    }
}

fn stamp(n: u64, at: u64) -> serde_json::Value {
    json!({"ssid": n, "revision": format!("{n:040x}"), "created_at": at})
}

fn numbered(n: u64) -> Question {
    Question {
        sha: Sha::new(format!("{n:040x}")),
        builders: [BuilderName::from("linux")].into(),
    }
}

fn of_buildsets(asked: &[Asked]) -> usize {
    let past = |asked: &&Asked| asked.path == "buildsets" && asked.value("complete").is_none();
    asked.iter().filter(past).count()
}

#[tokio::test]
async fn a_commit_that_the_master_never_had_is_known_to_be_absent_at_once() {
    let count = Arc::new(AtomicU64::new(20_000));
    let master = FakeMaster::start(filled(&count, 0)).await;
    let provider = connect(&master);
    let unknown = [numbered(0xfeed_0000)];
    let sha = &unknown[0].sha;
    for stamps in [1, 0, 0] {
        let snapshot = provider.observe(&unknown).await.unwrap();
        assert_eq!(snapshot.history.get(sha), Some(&History::Complete));
        assert!(snapshot.runs.is_empty());
        let asked = master.asked();
        assert_eq!(of_buildsets(&asked), 1);
        let of_stamps = asked
            .iter()
            .filter(|asked| asked.path == "sourcestamps")
            .count();
        assert_eq!(of_stamps, stamps, "they are asked for once");
    }
}

#[tokio::test]
async fn a_run_that_came_and_ended_between_two_looks_is_found() {
    let count = Arc::new(AtomicU64::new(300));
    let master = FakeMaster::start(filled(&count, 0)).await;
    let provider = connect(&master);
    let questions = [numbered(302)];
    let before = provider.observe(&questions).await.unwrap();
    assert!(before.runs.is_empty());
    count.store(305, Ordering::SeqCst);
    let after = provider.observe(&questions).await.unwrap();
    assert_eq!(after.runs.len(), 1);
    assert_eq!(after.runs[0].id.as_str(), "302");
    assert_eq!(
        after.history.get(&questions[0].sha),
        Some(&History::Complete)
    );
}

#[tokio::test]
async fn a_run_that_came_while_the_stamps_were_read_is_found_in_the_same_look() {
    let count = Arc::new(AtomicU64::new(300));
    let answer = {
        let (filled, count) = (filled(&count, 0), Arc::clone(&count));
        move |asked: &Asked| {
            if asked.path == "sourcestamps" {
                count.store(301, Ordering::SeqCst);
            }
            filled(asked)
        }
    };
    let master = FakeMaster::start(answer).await;
    let snapshot = connect(&master).observe(&[numbered(301)]).await.unwrap();
    assert_eq!(snapshot.runs.len(), 1, "{:?}", snapshot.history);
}

#[tokio::test]
async fn an_old_commit_is_searched_for_over_several_looks_and_never_called_absent_before() {
    let count = Arc::new(AtomicU64::new(20_000));
    let master = FakeMaster::start(filled(&count, 0)).await;
    let provider = connect(&master);
    let questions = [numbered(19_000)];
    let mut looks = 0;
    loop {
        looks += 1;
        let snapshot = provider.observe(&questions).await.unwrap();
        assert!(of_buildsets(&master.asked()) <= 5, "pages in one look");
        match snapshot.history.get(&questions[0].sha).unwrap() {
            History::Complete => {
                assert_eq!(snapshot.runs.len(), 1);
                break;
            }
            History::Partial(reason) => assert!(reason.starts_with("still reading"), "{reason}"),
        }
    }
    assert_eq!(looks, 3, "four pages, then four, then the rest of eleven");
    provider.observe(&questions).await.unwrap();
    assert_eq!(of_buildsets(&master.asked()), 1, "what was read is kept");
}

#[tokio::test]
async fn more_new_buildsets_than_one_look_reads_leave_every_absence_unproven() {
    let count = Arc::new(AtomicU64::new(10));
    let master = FakeMaster::start(filled(&count, 0)).await;
    let provider = connect(&master);
    let questions = [numbered(800)];
    assert!(provider.observe(&questions).await.unwrap().runs.is_empty());
    count.store(900, Ordering::SeqCst);
    let behind = provider.observe(&questions).await.unwrap();
    let history = behind.history.get(&questions[0].sha);
    assert!(matches!(history, Some(History::Partial(_))), "{history:?}");
    let caught_up = provider.observe(&questions).await.unwrap();
    assert_eq!(
        caught_up.history.get(&questions[0].sha),
        Some(&History::Complete)
    );
    assert_eq!(caught_up.runs.len(), 1);
}

#[tokio::test]
async fn a_master_with_another_database_is_read_anew() {
    let count = Arc::new(AtomicU64::new(500));
    let shift = Arc::new(Mutex::new(0));
    let answer = {
        let (count, shift) = (Arc::clone(&count), Arc::clone(&shift));
        move |asked: &Asked| filled(&count, *shift.lock().unwrap())(asked)
    };
    let master = FakeMaster::start(answer).await;
    let provider = connect(&master);
    let questions = [numbered(490)];
    assert_eq!(provider.observe(&questions).await.unwrap().runs.len(), 1);
    // As many buildsets as before, and the commit is now another's.
    *shift.lock().unwrap() = 1;
    count.store(480, Ordering::SeqCst);
    let history = provider.observe(&questions).await.unwrap().history;
    let history = history.get(&questions[0].sha).unwrap().clone();
    assert!(
        matches!(&history, History::Partial(why) if why.contains("another database")),
        "{history:?}"
    );
    let anew = provider.observe(&questions).await.unwrap();
    assert!(anew.runs.is_empty());
    assert_eq!(
        anew.history.get(&questions[0].sha),
        Some(&History::Complete)
    );
}

#[tokio::test]
async fn a_master_that_cannot_list_its_stamps_is_searched_to_its_beginning() {
    let count = Arc::new(AtomicU64::new(1234));
    let asked_for_stamps = Arc::new(AtomicUsize::new(0));
    let answer = {
        let (filled, times) = (filled(&count, 0), Arc::clone(&asked_for_stamps));
        move |asked: &Asked| {
            if asked.path == "sourcestamps" {
                times.fetch_add(1, Ordering::SeqCst);
                return Reply::Body(" ".repeat(2 << 20));
            }
            filled(asked)
        }
    };
    let master = FakeMaster::start(answer).await;
    let provider = connect(&master);
    let questions = [numbered(7), numbered(0xfeed_0000)];
    let mut looks = 0;
    let snapshot = loop {
        looks += 1;
        let snapshot = provider.observe(&questions).await.unwrap();
        let known = snapshot
            .history
            .values()
            .all(|history| *history == History::Complete);
        if known {
            break snapshot;
        }
        assert!(looks < 10, "{:?}", snapshot.history);
    };
    assert_eq!(snapshot.runs.len(), 1);
    assert_eq!(
        asked_for_stamps.load(Ordering::SeqCst),
        1,
        "the master is spared"
    );
}
