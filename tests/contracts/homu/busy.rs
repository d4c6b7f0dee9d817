//! A homu with many approved pull requests, and a GitHub that is slow, or fails over one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use ci_watchdog::bots::Bot;
use ci_watchdog::model::{BotSnapshot, GithubState, ProbeFailure, PullOnGithub};

use super::adapter::look;
use super::server::Reply;
use super::world::{World, approval, recorded, sha};

/// The default time between two looks.
const TICK: Duration = Duration::from_secs(10);
/// What is pending in `alpha` needs two pull requests, two commits and a branch.
const PENDING: usize = 5;
/// What one look asks besides, and the name that homu answers to.
const BESIDES: usize = 12 + 1;

/// A queue page of 0.2.0 with these approved; with those that are pending, or without.
fn queue(approved: impl Iterator<Item = u64>, pending: bool) -> Reply {
    let page = recorded("0.2.0", "page.html");
    let (head, rest) = page.split_once("<tbody>").unwrap();
    let (rows, tail) = rest.split_once("</tbody>").unwrap();
    let row = |status: &str| {
        let found = rows.split("<tr>").filter(|row| row.contains(status));
        found.map(|row| format!("<tr>{row}")).collect::<Vec<_>>()
    };
    let one = row(">approved<").remove(0);
    let approved = approved.map(|num| one.replace(">3<", &format!(">{num}<")));
    let before = if pending {
        row(">pending").concat()
    } else {
        String::new()
    };
    let rows: String = approved.collect();
    Reply::Body(format!("{head}<tbody>{before}{rows}</tbody>{tail}"))
}

/// 0.2.0 with so many approved pull requests in each of two repositories; two builds are pending.
async fn two_repositories(each: u64) -> World {
    let world = World::of("0.2.0").await;
    let cfg = recorded("0.2.0", "cfg.toml");
    let (_, alpha) = cfg.split_once("[repo.alpha]").unwrap();
    let beta = alpha.replace("alpha", "beta");
    world.write("cfg.toml", &format!("{cfg}\n[repo.beta]{beta}"));
    for (repo, first) in [("alpha", 100), ("beta", 200)] {
        let approved = first..first + each;
        world.page(
            &format!("/queue/{repo}"),
            queue(approved.clone(), repo == "alpha"),
        );
        for num in approved {
            world.pull_of(repo, num, "open", &sha('3'), "");
            world.comments_of(repo, num, &[("bors", &approval('3'))]);
        }
    }
    for branch in ["auto", "try"] {
        world.say(
            &format!("/repos/octo/beta/git/ref/heads/{branch}"),
            serde_json::json!({ "object": { "sha": sha('c').as_str() } }),
        );
    }
    world
}

/// Pauses the clock, which then goes on in small steps: in each of them sockets are looked at.
fn small_steps() {
    tokio::time::pause();
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// The approved pull requests that a look did not learn about.
fn unknown(snapshot: &BotSnapshot) -> usize {
    let approved = snapshot.repos.values().flat_map(|repo| &repo.approved);
    approved
        .filter(|pull| {
            let open = PullOnGithub::Open { head: sha('3') };
            pull.github != open || pull.head_sha != Some(sha('3'))
        })
        .count()
}

fn good(snapshot: &BotSnapshot) {
    assert!(
        matches!(snapshot.github, GithubState::Good(_)),
        "{:?}",
        snapshot.github
    );
    let pending = &snapshot.repos["alpha"].pending;
    assert_eq!(pending[0].github, PullOnGithub::Open { head: sha('1') });
    assert_eq!(pending[0].head_sha, Some(sha('1')));
    assert_eq!(pending[1].github, PullOnGithub::Open { head: sha('2') });
    assert_eq!(pending[1].merge_sha.known(), Some(&sha('b')));
}

/// One look as the watchdog takes them, a tick after the other.
async fn next_look(bot: &dyn Bot) -> BotSnapshot {
    tokio::time::sleep(TICK).await;
    look(bot).await.unwrap()
}

#[tokio::test]
async fn a_slow_github_and_a_long_queue_are_no_outage() {
    let world = two_repositories(20).await;
    world.slow_github(Duration::from_millis(250));
    let bot = world.bot();
    small_steps();
    let mut before = 40;
    let mut looks = 0;
    while before > 0 {
        looks += 1;
        assert!(looks <= 10, "{before} are unknown still");
        let snapshot = next_look(&*bot).await;
        good(&snapshot);
        let asked = world.github.asked().len();
        assert!(asked <= PENDING + BESIDES, "look {looks}: {asked}");
        let now = unknown(&snapshot);
        assert!(now < before, "look {looks}: {now} after {before}");
        before = now;
    }
    // What is known stays known while it is asked for again.
    for _ in 0..20 {
        let snapshot = next_look(&*bot).await;
        good(&snapshot);
        assert_eq!(unknown(&snapshot), 0);
        assert!(snapshot.repos["beta"].slot_suspects.contains(&sha('c')));
        assert!(world.github.asked().len() <= PENDING + BESIDES);
    }
    let at_once = world.github.at_once();
    assert!((2..=4).contains(&at_once), "{at_once}");
}

#[tokio::test]
async fn everything_gets_its_turn_and_a_quiet_queue_is_left_alone_for_a_while() {
    let world = two_repositories(5).await;
    let bot = world.bot();
    small_steps();
    for _ in 0..6 {
        next_look(&*bot).await;
    }
    world.github.asked();
    let mut about = BTreeSet::new();
    let mut asked = 0;
    for _ in 0..6 {
        assert_eq!(unknown(&next_look(&*bot).await), 0);
        for it in world.github.asked() {
            assert!(!it.header("if-none-match").is_empty(), "{}", it.target);
            asked += 1;
            about.insert(it.target);
        }
    }
    // Ten approved ones and four branches, once; and what is pending, in each of the looks.
    let pulls = about.iter().filter(|it| it.contains("/pulls/")).count();
    assert_eq!(pulls, 10 + 2, "{about:?}");
    let branches = about.iter().filter(|it| it.contains("/heads/")).count();
    assert_eq!(branches, 4, "{about:?}");
    assert!(asked <= 10 * 2 + 4 + 6 * 3, "{asked}");
}

#[tokio::test]
async fn what_changes_is_seen_within_a_minute() {
    let world = two_repositories(5).await;
    let bot = world.bot();
    small_steps();
    for _ in 0..6 {
        next_look(&*bot).await;
    }
    world.pull_of("beta", 204, "closed", &sha('3'), "");
    let mut closed = false;
    for _ in 0..6 {
        let snapshot = next_look(&*bot).await;
        closed = snapshot.repos["beta"].approved[4].github == PullOnGithub::Closed;
    }
    assert!(closed);
}

#[tokio::test]
async fn one_approved_pull_request_that_github_fails_over_does_not_stand_for_github() {
    let broken = || Reply::Status(500, Vec::new(), "Unicorn!".to_owned());
    let silent = || Reply::Later(Duration::from_secs(60), Box::new(Reply::Reset));
    let garbage = || Reply::Body("<html>".to_owned());
    small_steps();
    for (reply, told) in [(broken(), true), (garbage(), true), (silent(), false)] {
        let world = two_repositories(3).await;
        world.reply("/repos/octo/alpha/pulls/100", reply);
        let bot = world.bot();
        let mut snapshot = next_look(&*bot).await;
        for _ in 0..6 {
            good(&snapshot);
            snapshot = next_look(&*bot).await;
        }
        assert_eq!(unknown(&snapshot), 1, "all the others had their turn");
        let first = &snapshot.repos["alpha"].approved[0];
        assert_eq!(first.github, PullOnGithub::Unknown);
        let mut warned = false;
        for _ in 0..6 {
            let warnings = next_look(&*bot).await.warnings;
            warned |= warnings.iter().any(|it| it.contains("/pulls/100"));
        }
        assert_eq!(warned, told);
    }
}

#[tokio::test]
async fn a_github_that_answers_nothing_has_failed_also_where_nothing_is_pending() {
    let world = two_repositories(3).await;
    world.sql("UPDATE state SET status = '' WHERE status = 'pending'");
    world.page("/queue/alpha", queue(100..103, false));
    let bot = world.bot();
    small_steps();
    let github = look(&*bot).await.unwrap().github;
    assert!(matches!(github, GithubState::Good(_)), "{github:?}");

    world.slow_github(Duration::from_secs(60));
    let mut failures = BTreeSet::new();
    for _ in 0..6 {
        if let GithubState::Failed(error) = next_look(&*bot).await.github {
            failures.insert(error.failure);
        }
    }
    assert_eq!(failures, BTreeSet::from([ProbeFailure::Timeout]));
}
