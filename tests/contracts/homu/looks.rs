//! What each homu is waiting for, as the adapter reads it.

use std::collections::BTreeMap;

use ci_watchdog::model::{
    BotSnapshot, BuildKind, GithubState, MergeSha, PullOnGithub, Told, Witnesses,
};
use rusqlite::Connection;

use super::adapter::{key, look};
use super::server::Reply;
use super::world::{FORKS, World, alpha, recorded, sha};

/// A snapshot in words, without titles and addresses.
fn show(snapshot: &BotSnapshot) -> String {
    let mut lines = Vec::new();
    for (label, repo) in &snapshot.repos {
        for build in &repo.pending {
            lines.push(format!(
                "{label}#{} {} {} head {} {:?} {}",
                build.pull,
                build.kind.as_str(),
                match &build.merge_sha {
                    MergeSha::Known(sha) => sha.short(),
                    MergeSha::NotStored => "not stored",
                    MergeSha::Missing => "missing",
                },
                build.head_sha.as_ref().map_or("-", |head| head.short()),
                build.witnesses,
                on_github(&build.github),
            ));
            for expectation in &build.expectations {
                let told = match &expectation.told {
                    Told::Nothing => "nothing".to_owned(),
                    Told::Started { url } => format!("started {url}"),
                    Told::Green { url } => format!("green {url}"),
                    Told::Red { url } => format!("red {url}"),
                };
                let system = expectation.system.as_str();
                lines.push(format!("  {} ({system}): {told}", expectation.builder));
            }
        }
        for pull in &repo.approved {
            lines.push(format!(
                "{label}#{} approved head {} mergeable {:?} priority {} {}",
                pull.pull,
                pull.head_sha.as_ref().map_or("-", |head| head.short()),
                pull.mergeable,
                pull.priority,
                on_github(&pull.github),
            ));
        }
        let suspects: Vec<&str> = repo.slot_suspects.iter().map(|sha| sha.short()).collect();
        lines.push(format!("{label} slot {suspects:?}"));
        if let Some(least) = repo.tree_closed {
            lines.push(format!("{label} tree closed below {least}"));
        }
    }
    lines.push(match &snapshot.github {
        GithubState::NotConfigured => "GitHub not configured".to_owned(),
        GithubState::Good(_) => "GitHub good".to_owned(),
        GithubState::Failed(error) => format!("GitHub failed: {}", error.failure),
    });
    lines.join("\n")
}

fn on_github(pull: &PullOnGithub) -> String {
    match pull {
        PullOnGithub::Unknown => "unknown on GitHub".to_owned(),
        PullOnGithub::Open { head } => format!("open at {}", head.short()),
        PullOnGithub::Closed => "closed".to_owned(),
    }
}

async fn shown(fork: &'static str) -> String {
    let world = World::of(fork).await;
    let bot = world.bot();
    show(&look(&*bot).await.unwrap())
}

const URL: &str = "http://buildbot.example.org/builders";

#[tokio::test]
async fn homu_0_2_0_is_read_with_the_help_of_github() {
    let expected = format!(
        "\
alpha#1 auto aaaaaaa head 1111111 Agree open at 1111111
  linux (buildbot): green {URL}/linux/builds/41
  mac (buildbot): started {URL}/mac/builds/17
alpha#2 try bbbbbbb head 2222222 Agree open at 2222222
  linux (buildbot): nothing
alpha#3 approved head 3333333 mergeable Some(true) priority -1 open at 3333333
alpha slot [\"ddddddd\", \"aaaaaaa\", \"bbbbbbb\"]
GitHub good"
    );
    assert_eq!(shown("0.2.0").await, expected);
}

#[tokio::test]
async fn barosls_fork_stores_heads_and_tries() {
    let expected = format!(
        "\
alpha#1 auto aaaaaaa head 1111111 Agree open at 1111111
  linux (buildbot): green {URL}/linux/builds/41
  mac (buildbot): started {URL}/mac/builds/17
alpha#2 try bbbbbbb head 2222222 Agree open at 2222222
  linux (buildbot): nothing
alpha#3 approved head 3333333 mergeable Some(true) priority 7 open at 3333333
alpha slot [\"ddddddd\", \"bbbbbbb\", \"aaaaaaa\"]
GitHub good"
    );
    assert_eq!(shown("barosl").await, expected);
}

#[tokio::test]
async fn servos_fork_adds_kinds_of_tries_contexts_and_closed_trees() {
    let expected = format!(
        "\
alpha#1 auto aaaaaaa head 1111111 Agree open at 1111111
  linux (buildbot): green {URL}/linux/builds/41
  mac (buildbot): started {URL}/mac/builds/17
  status-appveyor (status): nothing
  checks-tidy (check): nothing
alpha#2 try bbbbbbb head 2222222 Agree open at 2222222
  linux-wpt1 (buildbot): nothing
  linux-wpt2 (buildbot): nothing
  checks-tidy (check): nothing
alpha#3 approved head 3333333 mergeable Some(true) priority 7 open at 3333333
alpha slot [\"ddddddd\", \"bbbbbbb\", \"aaaaaaa\"]
alpha tree closed below 10
GitHub good"
    );
    assert_eq!(shown("servo").await, expected);
}

#[tokio::test]
async fn rust_langs_fork_waits_for_contexts_and_has_no_slot_without_buildbot() {
    let expected = "\
alpha#1 auto aaaaaaa head 1111111 Agree open at 1111111
  status-appveyor (status): green https://appveyor.example.org/41
  checks-actions (check): nothing
alpha#2 try bbbbbbb head 2222222 Agree open at 2222222
  status-appveyor (status): nothing
  checks-actions (check): nothing
  checks-only-tried (check): nothing
alpha#3 approved head 3333333 mergeable Some(true) priority 7 open at 3333333
alpha slot []
GitHub good";
    assert_eq!(shown("rust-lang").await, expected);
}

#[tokio::test]
async fn titles_are_those_of_the_page_without_its_markup() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let repo = alpha(&*world.bot()).await;
        assert_eq!(repo.pending[0].title, "One & only <b>", "{fork}");
        assert_eq!(repo.pending[0].url, "https://github.com/octo/alpha/pull/1");
    }
}

#[tokio::test]
async fn a_queue_without_pull_requests_is_complete() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let page = recorded(fork, "page.html");
        let (before, rest) = page.split_once("<tbody>").unwrap();
        let (_, after) = rest.split_once("</tbody>").unwrap();
        let empty = format!("{before}<tbody></tbody>{after}");
        world.page("/queue/alpha", Reply::Body(empty));
        let table = if fork == "0.2.0" { "state" } else { "pull" };
        world.sql(&format!("DELETE FROM {table}; DELETE FROM build_res;"));
        let repo = alpha(&*world.bot()).await;
        assert!(
            repo.pending.is_empty() && repo.approved.is_empty(),
            "{fork}"
        );
        assert!(repo.slot_suspects.is_empty(), "{fork}");
    }
}

#[tokio::test]
async fn only_the_rust_lang_fork_is_spoken_to_by_its_canonical_host() {
    for fork in FORKS {
        let world = World::of(fork).await;
        look(&*world.bot()).await.unwrap();
        let asked = world.homu.asked();
        let host = asked[0].header("host");
        let canonical = host == "bors.example.org";
        assert_eq!(canonical, fork == "rust-lang", "{fork}: {host}");
    }
}

#[tokio::test]
async fn a_disagreement_is_looked_at_again_before_it_is_reported() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    world.sql("UPDATE state SET status = '' WHERE num = 1");
    let pages = |world: &World| {
        let asked = world.homu.asked();
        asked
            .iter()
            .filter(|it| it.target == "/queue/alpha")
            .count()
    };
    let repo = alpha(&*bot).await;
    assert_eq!(
        repo.pending[0].witnesses,
        Witnesses::PageOnly {
            database: String::new()
        }
    );
    assert_eq!(pages(&world), 2);

    world.sql("UPDATE state SET status = 'pending' WHERE num = 1");
    let repo = alpha(&*bot).await;
    assert_eq!(repo.pending[0].witnesses, Witnesses::Agree);
    assert_eq!(pages(&world), 1);
}

#[tokio::test]
async fn what_only_the_database_calls_pending_is_reported_with_the_pages_word() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let table = if fork == "0.2.0" { "state" } else { "pull" };
        let sha = sha('c');
        world.sql(&format!(
            "UPDATE {table} SET status = 'pending', merge_sha = '{sha}' WHERE num = 3"
        ));
        let repo = alpha(&*world.bot()).await;
        let build = repo.pending.iter().find(|build| build.pull == 3).unwrap();
        let expected = Witnesses::DatabaseOnly {
            page: "approved".to_owned(),
        };
        assert_eq!(build.witnesses, expected, "{fork}");
        assert_eq!(build.kind, BuildKind::Auto, "{fork}");
        assert_eq!(build.merge_sha, MergeSha::Known(sha), "{fork}");
    }
}

#[tokio::test]
async fn a_pending_build_without_its_commit_is_missing_one_where_it_should_be_stored() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let table = if fork == "0.2.0" { "state" } else { "pull" };
        world.sql(&format!("UPDATE {table} SET merge_sha = '' WHERE num = 1"));
        let repo = alpha(&*world.bot()).await;
        assert_eq!(repo.pending[0].merge_sha, MergeSha::Missing, "{fork}");
        let told: Vec<&Told> = repo.pending[0]
            .expectations
            .iter()
            .map(|e| &e.told)
            .collect();
        assert!(told.iter().all(|told| **told == Told::Nothing), "{fork}");
        // homu stores a status and a commit one after the other, so this too was looked at again.
        assert_eq!(world.homu.asked().len(), 2, "{fork}");
    }
}

#[tokio::test]
async fn a_result_of_another_commit_does_not_count() {
    let world = World::of("0.2.0").await;
    world.sql(&format!(
        "UPDATE build_res SET merge_sha = '{}' WHERE builder = 'linux'",
        sha('c')
    ));
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.pending[0].expectations[0].told, Told::Nothing);
}

#[tokio::test]
async fn the_results_of_a_try_tell_its_commit() {
    let world = World::of("0.2.0").await;
    let other = sha('e');
    world.sql(&format!(
        "INSERT INTO build_res VALUES ('alpha', 2, 'linux', NULL, '{URL}/linux/builds/42', '{other}')"
    ));
    world.commit('e', &['9', '2']);
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.pending[1].merge_sha, MergeSha::Known(other));
    assert!(matches!(
        repo.pending[1].expectations[0].told,
        Told::Started { .. }
    ));
}

#[tokio::test]
async fn a_try_whose_branch_is_not_a_merge_of_its_head_is_not_known() {
    let world = World::of("0.2.0").await;
    world.commit('b', &['9', '7']);
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.pending[1].merge_sha, MergeSha::NotStored);
    assert_eq!(repo.pending[1].head_sha, None);

    world.branch("try", None);
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.pending[1].merge_sha, MergeSha::NotStored);
}

/// 0.2.0 with #5 a pending try too.
async fn two_tries() -> World {
    let world = World::of("0.2.0").await;
    world.sql("UPDATE state SET status = 'pending' WHERE num = 5");
    let page = recorded("0.2.0", "page.html");
    let page = page.replace(
        "<td class=\"\"></td>\n                    <td>0</td>",
        "<td class=\"pending\">pending (try)</td>\n                    <td>0</td>",
    );
    world.page("/queue/alpha", Reply::Body(page));
    world
}

#[tokio::test]
async fn of_two_tries_the_branch_tells_only_the_one_that_was_remembered() {
    let world = two_tries().await;
    let bot = world.bot();
    let repo = alpha(&*bot).await;
    assert_eq!(repo.pending.len(), 3);
    assert_eq!(repo.pending[1].merge_sha, MergeSha::NotStored);
    assert_eq!(repo.pending[2].merge_sha, MergeSha::NotStored);

    let remembered = BTreeMap::from([(key(2, BuildKind::Try), sha('b'))]);
    let snapshot = bot.observe(&remembered).await.unwrap();
    let pending = &snapshot.repos["alpha"].pending;
    assert_eq!(pending[1].merge_sha, MergeSha::Known(sha('b')));
    assert_eq!(pending[2].merge_sha, MergeSha::NotStored);
}

#[tokio::test]
async fn a_remembered_try_outlives_the_next_one_and_not_a_new_commit_of_its_own() {
    let world = two_tries().await;
    let bot = world.bot();
    let remembered = BTreeMap::from([(key(2, BuildKind::Try), sha('b'))]);
    world.branch("try", Some('e'));

    // The branch went on to the other pull request.
    world.commit('e', &['9', '5']);
    let snapshot = bot.observe(&remembered).await.unwrap();
    let pending = &snapshot.repos["alpha"].pending;
    assert_eq!(pending[1].merge_sha, MergeSha::Known(sha('b')));

    // The branch went on to another merge of the same head.
    world.branch("try", Some('f'));
    world.commit('f', &['9', '2']);
    let snapshot = bot.observe(&remembered).await.unwrap();
    let pending = &snapshot.repos["alpha"].pending;
    assert_eq!(pending[1].merge_sha, MergeSha::NotStored);
}

#[tokio::test]
async fn homu_0_2_0_tries_a_travis_repository_on_its_auto_branch() {
    let world = World::of("0.2.0").await;
    let cfg = recorded("0.2.0", "cfg.toml");
    let (before, after) = cfg.split_once("[repo.alpha.buildbot]").unwrap();
    let (_, travis) = after.split_once("# Beside").unwrap();
    world.write("cfg.toml", &format!("{before}# {travis}"));
    world.branch("auto", Some('b'));
    world.branch("try", None);
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.pending[1].merge_sha, MergeSha::Known(sha('b')));
    let waits: Vec<&str> = repo.pending[1]
        .expectations
        .iter()
        .map(|it| it.builder.as_str())
        .collect();
    assert_eq!(waits, ["travis"]);
}

#[tokio::test]
async fn the_database_may_be_in_wal_mode() {
    let world = World::of("0.2.0").await;
    // As long as homu has it open.
    let homu = Connection::open(world.database()).unwrap();
    homu.pragma_update(None, "journal_mode", "wal").unwrap();
    homu.execute("UPDATE state SET status = 'pending' WHERE num = 3", [])
        .unwrap();
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.pending.len(), 3);
}

#[tokio::test]
async fn a_look_holds_no_lock_and_writes_nothing() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    let before = std::fs::read(world.database()).unwrap();
    look(&*bot).await.unwrap();
    assert_eq!(std::fs::read(world.database()).unwrap(), before);
    let homu = Connection::open(world.database()).unwrap();
    homu.busy_timeout(std::time::Duration::ZERO).unwrap();
    homu.execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
}
