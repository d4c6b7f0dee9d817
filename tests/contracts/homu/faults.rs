//! Answers that are none: of homu's page, of its database, and of GitHub.

use std::collections::BTreeSet;
use std::time::Duration;

use ci_watchdog::model::{GithubState, MergeSha, ProbeError, ProbeFailure, PullOnGithub, Sha};
use rusqlite::Connection;
use serde_json::json;

use super::adapter::look;
use super::server::Reply;
use super::world::{World, alpha, approval, not_found, recorded, review, sha};

fn status(code: u16) -> Reply {
    Reply::Status(code, Vec::new(), "no".to_owned())
}

async fn failed(world: &World) -> ProbeError {
    let error = look(&*world.bot()).await.unwrap_err();
    assert_no_secret(&error.detail);
    error
}

fn assert_no_secret(text: &str) {
    for secret in ["token-of", "secret-of", "password-of"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_page_that_does_not_answer_fails_the_whole_look() {
    let page = recorded("0.2.0", "page.html");
    let half = page[..page.len() / 2].to_owned();
    let wide = page.replace("<td>0</td>", "");
    let cases = [
        (status(401), ProbeFailure::Auth, "401"),
        (
            status(404),
            ProbeFailure::HttpStatus,
            "does the running homu serve alpha",
        ),
        (status(429), ProbeFailure::RateLimited, "429"),
        (
            status(500),
            ProbeFailure::HttpStatus,
            "does the running homu serve alpha",
        ),
        (status(502), ProbeFailure::HttpStatus, "502"),
        (status(301), ProbeFailure::HttpStatus, "canonical_url"),
        (
            Reply::Body(String::new()),
            ProbeFailure::Parse,
            "it ends early",
        ),
        (
            Reply::Body(half.clone()),
            ProbeFailure::Parse,
            "it ends early",
        ),
        (
            Reply::Body("<html><body>Bad Gateway</body></html>".to_owned()),
            ProbeFailure::Parse,
            "no table called queue",
        ),
        (
            Reply::Body(page.replace("<th>Status</th>", "<th>State</th>")),
            ProbeFailure::Parse,
            "no column Status",
        ),
        (
            Reply::Body(page.replace(">pending</td>", ">thinking</td>")),
            ProbeFailure::Parse,
            "no status of homu's",
        ),
        (Reply::Body(wide), ProbeFailure::Parse, "not as many cells"),
        (
            Reply::CutOff(page, 300),
            ProbeFailure::Partial,
            "/queue/alpha",
        ),
        (
            Reply::Body(format!("{half}{}", " ".repeat(5 << 20))),
            ProbeFailure::TooLarge,
            "longer than",
        ),
        (Reply::Reset, ProbeFailure::Connect, "/queue/alpha"),
    ];
    for (reply, failure, words) in cases {
        let world = World::of("0.2.0").await;
        world.page("/queue/alpha", reply);
        let error = failed(&world).await;
        assert_eq!(error.failure, failure, "{error}");
        assert!(
            error.detail.contains(words),
            "{error} should contain {words:?}"
        );
    }
}

#[tokio::test]
async fn a_page_that_never_comes_is_given_up() {
    let world = World::of("0.2.0").await;
    world.page("/queue/alpha", Reply::Silence);
    assert_eq!(failed(&world).await.failure, ProbeFailure::Timeout);
}

#[tokio::test]
async fn a_page_of_thousands_of_pull_requests_is_read() {
    let world = World::of("0.2.0").await;
    let page = recorded("0.2.0", "page.html");
    let (head, rest) = page.split_once("<tbody>").unwrap();
    let (rows, tail) = rest.split_once("</tbody>").unwrap();
    let (_, last) = rows.rsplit_once("<tr>").unwrap();
    let more: String = (6..4000)
        .map(|num| format!("<tr>{}", last.replace(">5<", &format!(">{num}<"))))
        .collect();
    let page = format!("{head}<tbody>{rows}{more}</tbody>{tail}");
    assert!(page.len() > 1 << 20, "{}", page.len());
    world.page("/queue/alpha", Reply::Body(page));
    assert_eq!(alpha(&*world.bot()).await.pending.len(), 2);
}

#[tokio::test]
async fn a_database_that_cannot_be_read_fails_the_whole_look() {
    type Break = fn(&World);
    let cases: [(Break, ProbeFailure, &str); 7] = [
        (
            |world| std::fs::remove_file(world.database()).unwrap(),
            ProbeFailure::Io,
            "is `database` right, and was homu started once?",
        ),
        (
            |world| {
                std::fs::remove_file(world.database()).unwrap();
                std::fs::create_dir(world.database()).unwrap();
            },
            ProbeFailure::Io,
            "not a regular file",
        ),
        (
            |world| {
                world.write(
                    "main.db",
                    "this is a text, and has been one for all its life",
                )
            },
            ProbeFailure::Io,
            "is `database` right?",
        ),
        (
            |world| world.write("main.db", ""),
            ProbeFailure::Parse,
            "neither homu's table `state` nor `pull`",
        ),
        (
            |world| world.sql("DROP TABLE state; CREATE TABLE users (name)"),
            ProbeFailure::Parse,
            "neither homu's table `state` nor `pull`",
        ),
        (
            |world| world.sql("UPDATE state SET merge_sha = 'half a commit' WHERE num = 1"),
            ProbeFailure::Parse,
            "is it homu's?",
        ),
        (
            |world| world.sql("UPDATE state SET merge_sha = 'abc1234' WHERE num = 1"),
            ProbeFailure::Parse,
            "is it homu's?",
        ),
    ];
    for (breaks, failure, words) in cases {
        let world = World::of("0.2.0").await;
        breaks(&world);
        let error = failed(&world).await;
        assert_eq!(error.failure, failure, "{error}");
        assert!(
            error.detail.contains(words),
            "{error} should contain {words:?}"
        );
        assert!(error.detail.contains("main.db"), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_database_fails_the_look() {
    let world = World::of("0.2.0").await;
    let bytes = std::fs::read(world.database()).unwrap();
    std::fs::write(world.database(), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(failed(&world).await.failure, ProbeFailure::Io);
}

#[tokio::test]
async fn a_locked_database_is_told_of_after_less_than_a_second_each() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    let homu = Connection::open(world.database()).unwrap();
    homu.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let begun = std::time::Instant::now();
    let error = look(&*bot).await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(error.failure, ProbeFailure::Io);
    assert!(error.detail.contains("holds it locked"), "{error}");
    homu.execute_batch("ROLLBACK").unwrap();
    look(&*bot).await.unwrap();
}

#[tokio::test]
async fn where_the_database_is_locked_and_nothing_comes_back_either_the_silence_counts() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    let homu = Connection::open(world.database()).unwrap();
    homu.execute_batch("BEGIN EXCLUSIVE").unwrap();
    world.page("/", Reply::Reset);
    let error = look(&*bot).await.unwrap_err();
    assert_eq!(error.failure, ProbeFailure::Connect);
    assert!(error.detail.contains("holds it locked"), "{error}");
    world.page("/", status(500));
    assert_eq!(look(&*bot).await.unwrap_err().failure, ProbeFailure::Io);
}

#[tokio::test]
async fn the_database_of_another_homu_is_no_witness() {
    let world = World::of("0.2.0").await;
    world.sql("UPDATE state SET repo = 'beta'");
    let error = failed(&world).await;
    assert_eq!(error.failure, ProbeFailure::Parse);
    assert!(error.detail.contains("of the same homu?"), "{error}");
}

#[tokio::test]
async fn a_failure_of_github_is_part_of_the_snapshot_and_costs_one_request() {
    let cases = [
        (status(401), ProbeFailure::Auth),
        (status(403), ProbeFailure::Auth),
        (status(429), ProbeFailure::RateLimited),
        (status(500), ProbeFailure::HttpStatus),
        (
            Reply::Body("<html>Unicorn!</html>".to_owned()),
            ProbeFailure::Parse,
        ),
        (
            Reply::Body("{\"state\": \"open\"}".to_owned()),
            ProbeFailure::Parse,
        ),
        (
            Reply::CutOff("{\"state\": \"open\"}".to_owned(), 5),
            ProbeFailure::Partial,
        ),
        (Reply::Body("x".repeat(5 << 20)), ProbeFailure::TooLarge),
        (Reply::Reset, ProbeFailure::Connect),
        (Reply::Silence, ProbeFailure::Timeout),
    ];
    for (reply, failure) in cases {
        let world = World::of("0.2.0").await;
        let silent = matches!(reply, Reply::Silence);
        world.reply("/repos/octo/alpha/pulls/1", reply);
        let snapshot = look(&*world.bot()).await.unwrap();
        if silent {
            tokio::time::resume();
        }
        let GithubState::Failed(error) = &snapshot.github else {
            panic!("{failure}: {:?}", snapshot.github);
        };
        assert_eq!(error.failure, failure, "{error}");
        assert_no_secret(&error.detail);
        assert_eq!(world.github.asked().len(), 1, "{failure}");
        let repo = &snapshot.repos["alpha"];
        let build = &repo.pending[0];
        assert_eq!(build.merge_sha, MergeSha::Known(sha('a')), "{failure}");
        assert_eq!(build.github, PullOnGithub::Unknown, "{failure}");
        assert_eq!(build.head_sha, None, "{failure}");
        assert_eq!(repo.pending[1].merge_sha, MergeSha::NotStored, "{failure}");
        assert_eq!(repo.approved[0].head_sha, None, "{failure}");
        assert_eq!(repo.slot_suspects.len(), 2, "{failure}");
    }
}

#[tokio::test]
async fn github_is_left_alone_for_as_long_as_it_asks() {
    let after = |seconds: u64| {
        Reply::Status(
            429,
            vec![("retry-after", seconds.to_string())],
            String::new(),
        )
    };
    // By GitHub's own clock the limit lasts two minutes more.
    let reset = Reply::Status(
        403,
        vec![
            ("x-ratelimit-limit", "5000".to_owned()),
            ("x-ratelimit-remaining", "0".to_owned()),
            ("x-ratelimit-reset", "1700000120".to_owned()),
            ("date", "Tue, 14 Nov 2023 22:13:20 GMT".to_owned()),
        ],
        String::new(),
    );
    for reply in [after(120), reset] {
        let world = World::of("0.2.0").await;
        let bot = world.bot();
        world.reply("/repos/octo/alpha/pulls/1", reply);
        let limited = |snapshot: &ci_watchdog::model::BotSnapshot| match &snapshot.github {
            GithubState::Failed(error) => error.failure == ProbeFailure::RateLimited,
            GithubState::NotConfigured | GithubState::Good(_) => false,
        };
        assert!(limited(&look(&*bot).await.unwrap()));
        assert_eq!(world.github.asked().len(), 1);
        world.pull(1, "open", &sha('1'), "");
        pass(Duration::from_secs(115)).await;
        assert!(limited(&look(&*bot).await.unwrap()));
        assert_eq!(world.github.asked().len(), 0);
        pass(Duration::from_secs(6)).await;
        let snapshot = look(&*bot).await.unwrap();
        assert!(
            matches!(snapshot.github, GithubState::Good(_)),
            "{snapshot:?}"
        );
    }
}

/// Lets time pass for whoever measures it by tokio's clock.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_has_not_changed_is_asked_for_conditionally_and_commits_once() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    let first = look(&*bot).await.unwrap();
    let asked = world.github.asked();
    assert_eq!(asked[0].header("if-none-match"), "");
    assert!(
        asked
            .iter()
            .all(|it| it.header("authorization") == "token token-of-the-bot")
    );
    assert!(asked.iter().any(|it| it.target.contains("/commits/")));
    assert_eq!(look(&*bot).await.unwrap(), first);
    let asked = world.github.asked();
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|it| !it.header("if-none-match").is_empty())
    );
    assert!(!asked.iter().any(|it| it.target.contains("/commits/")));
    assert!(!asked.iter().any(|it| it.target == "/user"));
}

#[tokio::test]
async fn without_a_token_github_is_not_asked() {
    let world = World::of("0.2.0").await;
    let cfg = recorded("0.2.0", "cfg.toml");
    world.write("cfg.toml", &cfg.replace("token-of-the-bot", ""));
    let snapshot = look(&*world.bot()).await.unwrap();
    assert_eq!(snapshot.github, GithubState::NotConfigured);
    assert!(snapshot.warnings[0].contains("no github.access_token"));
    assert!(world.github.asked().is_empty());
    let repo = &snapshot.repos["alpha"];
    assert_eq!(repo.pending[0].github, PullOnGithub::Unknown);
    assert_eq!(repo.pending[1].merge_sha, MergeSha::NotStored);
}

#[tokio::test]
async fn a_pull_request_that_github_does_not_show_fails_it_only_where_it_is_pending() {
    let world = World::of("0.2.0").await;
    world.reply("/repos/octo/alpha/pulls/3", not_found());
    let snapshot = look(&*world.bot()).await.unwrap();
    assert!(matches!(snapshot.github, GithubState::Good(_)));
    assert!(
        snapshot.warnings[0].contains("octo/alpha#3"),
        "{:?}",
        snapshot.warnings
    );

    world.reply("/repos/octo/alpha/pulls/1", not_found());
    let snapshot = look(&*world.bot()).await.unwrap();
    let GithubState::Failed(error) = &snapshot.github else {
        panic!("{:?}", snapshot.github);
    };
    assert!(error.detail.contains("octo/alpha#1"), "{error}");
    // All else is asked all the same.
    assert_eq!(
        snapshot.repos["alpha"].pending[1].merge_sha,
        MergeSha::Known(sha('b'))
    );
}

#[tokio::test]
async fn a_commit_that_github_does_not_have_leaves_only_its_head_unknown() {
    let world = World::of("0.2.0").await;
    world.reply(
        &format!("/repos/octo/alpha/commits/{}", sha('a')),
        not_found(),
    );
    let snapshot = look(&*world.bot()).await.unwrap();
    assert!(matches!(snapshot.github, GithubState::Good(_)));
    assert_eq!(snapshot.repos["alpha"].pending[0].head_sha, None);
}

#[tokio::test]
async fn a_closed_pull_request_and_a_moved_head_are_seen() {
    let world = World::of("0.2.0").await;
    world.pull(1, "closed", &sha('1'), "");
    world.pull(3, "open", &sha('7'), "");
    world.say(
        &format!("{}?per_page=100&sort=created&direction=desc", review(3)),
        json!([]),
    );
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.pending[0].github, PullOnGithub::Closed);
    assert_eq!(
        repo.approved[0].github,
        PullOnGithub::Open { head: sha('7') }
    );
    assert_eq!(repo.approved[0].head_sha, Some(sha('3')));
}

#[tokio::test]
async fn an_approval_in_a_review_is_of_githubs_head_although_homu_wrote_no_comment() {
    let world = World::of("0.2.0").await;
    world.pull(3, "open", &sha('7'), "");
    world.say(
        &format!("{}?per_page=100&sort=created&direction=desc", review(3)),
        json!([
            { "user": { "login": "rita" }, "body": "@bors r+", "original_commit_id": sha('7').as_str() },
        ]),
    );
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.approved[0].head_sha, Some(sha('7')));
}

#[tokio::test]
async fn the_newest_approval_is_found_among_hundreds_of_comments() {
    let page = |num: u64| format!("/repos/octo/alpha/issues/3/comments?per_page=100&page={num}");
    let comment = |login: &str, body: &str| json!({ "user": { "login": login }, "body": body });
    let chatter = vec![comment("rita", "nice"); 100];
    let mut old = chatter.clone();
    old[0] = comment("bors", &approval('4'));
    let mut middle = chatter.clone();
    middle[50] = comment("bors", &approval('3'));
    for count in [Some(205), None] {
        let world = World::of("0.2.0").await;
        world.say(&page(1), json!(old));
        world.say(&page(2), json!(middle));
        world.say(&page(3), json!(chatter[..5]));
        let mut pull = json!({
            "state": "open", "title": "Three", "body": null, "user": null,
            "head": { "sha": sha('3').as_str(), "ref": "topic", "user": null, "repo": null },
            "base": { "ref": "master" },
        });
        pull["comments"] = json!(count);
        world.say("/repos/octo/alpha/pulls/3", pull);
        let repo = alpha(&*world.bot()).await;
        assert_eq!(repo.approved[0].head_sha, Some(sha('3')), "{count:?}");
    }
}

#[tokio::test]
async fn an_approval_of_nothing_known_is_not_invented() {
    let world = World::of("0.2.0").await;
    world.comments(
        3,
        &[("mallory", "@bors r+ 7777777"), ("rita", "looks good")],
    );
    let repo = alpha(&*world.bot()).await;
    assert_eq!(repo.approved[0].head_sha, None::<Sha>);
    assert_eq!(
        repo.approved[0].github,
        PullOnGithub::Open { head: sha('3') }
    );
}

#[tokio::test]
async fn only_the_first_approved_pull_requests_are_asked_about() {
    let world = World::of("barosl").await;
    let page = recorded("barosl", "page.html");
    let (head, rest) = page.split_once("<tbody>").unwrap();
    let (rows, tail) = rest.split_once("</tbody>").unwrap();
    let approved = rows
        .split("<tr>")
        .find(|row| row.contains(">approved<"))
        .unwrap();
    let more: String = (100..150)
        .map(|num| format!("<tr>{}", approved.replace(">3<", &format!(">{num}<"))))
        .collect();
    world.page(
        "/queue/alpha",
        Reply::Body(format!("{head}<tbody>{more}</tbody>{tail}")),
    );
    world.sql("UPDATE pull SET status = '' WHERE status = 'pending'");
    let bot = world.bot();
    let mut pulls = BTreeSet::new();
    for _ in 0..12 {
        let snapshot = look(&*bot).await.unwrap();
        assert_eq!(snapshot.repos["alpha"].approved.len(), 50);
        assert!(snapshot.warnings.len() <= 20, "{:?}", snapshot.warnings);
        let asked = world.github.asked().into_iter();
        pulls.extend(
            asked
                .map(|it| it.target)
                .filter(|it| it.contains("/pulls/")),
        );
    }
    let first: BTreeSet<String> = (100..120)
        .map(|num| format!("/repos/octo/alpha/pulls/{num}"))
        .collect();
    assert_eq!(pulls, first);
}

#[tokio::test]
async fn any_answer_to_a_knock_is_one_and_its_github_is_asked_beside_it() {
    let world = World::of("0.2.0").await;
    let bot = world.bot();
    let moved = Reply::Status(
        302,
        vec![("location", "http://elsewhere".into())],
        String::new(),
    );
    for reply in [
        Reply::Body("homu".to_owned()),
        status(401),
        status(500),
        moved,
    ] {
        world.page("/", reply.clone());
        assert!(bot.knock().await.is_answered(), "{reply:?}");
    }
    world.page("/", Reply::Reset);
    assert!(!bot.knock().await.is_answered());
    world.page("/", Reply::Silence);
    let knock = bot.knock().await;
    assert!(!knock.is_answered());
    // A GitHub without a rate limit says 404.
    assert!(matches!(knock.github, GithubState::Good(_)), "{knock:?}");
    assert_eq!(world.github.asked().last().unwrap().target, "/rate_limit");
    for reply in [status(503), status(401)] {
        world.reply("/rate_limit", reply);
        let knock = bot.knock().await;
        let GithubState::Failed(error) = &knock.github else {
            panic!("{knock:?}");
        };
        assert_no_secret(&error.detail);
    }
}
