//! What the adapter reads of its own table and of homu's `cfg.toml`, and the mistakes that it tells.

use std::time::Duration;

use ci_watchdog::model::{CiSystem, StepKind};

use super::adapter::{connect, look};
use super::server::Reply;
use super::world::{FORKS, World, recorded};

/// The mistakes of homu's file with a piece replaced.
async fn mistakes(fork: &'static str, from: &str, to: &str) -> Vec<String> {
    let world = World::of(fork).await;
    let cfg = recorded(fork, "cfg.toml");
    assert!(cfg.contains(from), "{from}");
    world.write("cfg.toml", &cfg.replacen(from, to, 1));
    world.connect("").err().unwrap_or_default()
}

#[tokio::test]
async fn a_mistake_in_homus_file_is_told_with_line_and_key_and_no_secret() {
    let cases = [
        (
            "owner = \"octo\"",
            "owner = 7",
            "cfg.toml:10: repo.alpha.owner: is no string",
        ),
        (
            "owner = \"octo\"\n",
            "",
            "repo.alpha.owner: is missing; it is the owner",
        ),
        (
            "[repo.alpha.github]\nsecret = \"secret-of-the-webhooks\"",
            "",
            "repo.alpha.github.secret: is missing",
        ),
        (
            "secret = \"secret-of-the-packets\"",
            "secret = [\"secret-of-the-packets\"]",
            "cfg.toml:19: repo.alpha.buildbot.secret: is no string",
        ),
        (
            "builders = [\"linux\", \"mac\"]",
            "builders = \"linux\"",
            "repo.alpha.buildbot.builders: is no list of strings",
        ),
        (
            "builders = [\"linux\", \"mac\"]\n",
            "",
            "repo.alpha.buildbot.builders: is missing; it lists",
        ),
        (
            "port = 54856",
            "port = 70000",
            "cfg.toml:7: web.port: is no port",
        ),
        (
            "reviewers = [\"rita\"]",
            "reviewers = [1]",
            "holds something that is no string",
        ),
        (
            "access_token = \"token-of-the-bot\"",
            "access_token = \"${NO_SUCH_VARIABLE_HERE}\"",
            "cfg.toml:2: github.access_token: needs the environment variable NO_SUCH_VARIABLE_HERE",
        ),
        (
            "access_token = \"token-of-the-bot\"",
            "access_token = \"token-of-the-bot",
            "cfg.toml:2: this is not TOML",
        ),
    ];
    for (from, to, expected) in cases {
        let told = mistakes("0.2.0", from, to).await;
        assert_eq!(told.len(), 1, "{to:?}: {told:?}");
        assert!(
            told[0].contains(expected),
            "{:?} should contain {expected:?}",
            told[0]
        );
        assert!(
            !told[0].contains("token-of") && !told[0].contains("secret-of"),
            "{told:?}"
        );
        assert!(told[0].contains("ci-watchdog.toml:1: config: "), "{told:?}");
    }
}

#[tokio::test]
async fn all_mistakes_of_homus_file_are_told_at_once() {
    let world = World::of("0.2.0").await;
    world.write(
        "cfg.toml",
        "[web]\nport = \"x\"\n[repo.a]\nowner = 1\n[repo.b]\nname = \"b\"\n",
    );
    let told = world.connect("").map(|_| ()).unwrap_err();
    assert_eq!(told.len(), 6, "{told:?}");
    world.write("cfg.toml", "");
    let told = world.connect("").map(|_| ()).unwrap_err();
    assert!(told[0].contains("cfg.toml:1: repo: is missing: homu serves no repository"));
}

#[tokio::test]
async fn a_mistaken_table_says_what_would_be_right() {
    let world = World::of("0.2.0").await;
    world.write("not.pem", "no certificate");
    world.write(
        "bare.toml",
        &recorded("0.2.0", "cfg.toml").replace("port = 54856", ""),
    );
    let path = world.folder.path().join("ci-watchdog.toml");
    for (table, expected) in [
        ("", "config: is missing"),
        ("config = 1", "config: "),
        ("config = \"no.toml\"", "no.toml: cannot be read"),
        ("config = \".\"", "is not a regular file"),
        ("config = \"bare.toml\"", "url: is missing"),
        ("config = \"cfg.toml\"\nurl = \"ftp://a\"", "url: "),
        ("config = \"cfg.toml\"\nca = \"no.pem\"", "ca: "),
        ("config = \"cfg.toml\"\nca = \"not.pem\"", "ca: "),
        (
            "config = \"cfg.toml\"\nmention = \"@bors\"",
            "mention: is no login",
        ),
        (
            "config = \"cfg.toml\"\nmention = \"bors force\"",
            "mention: is no login",
        ),
        ("config = \"cfg.toml\"\nlogin = \"\"", "login: is no login"),
        ("config = \"cfg.toml\"\npage = \"x\"", "page: unknown key"),
    ] {
        let told = connect(&path, table).map(|_| ()).unwrap_err();
        assert!(
            told.len() == 1 && told[0].contains(expected),
            "{table:?}: {told:?} should contain {expected:?}"
        );
    }
}

#[tokio::test]
async fn homus_file_alone_is_enough() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let (_, port) = world.homu.url.rsplit_once(':').unwrap();
        let cfg = recorded(fork, "cfg.toml").replace("54856", port);
        world.write("cfg.toml", &cfg.replace("token-of-the-bot", ""));
        let path = world.folder.path().join("ci-watchdog.toml");
        let bot = connect(&path, "config = \"cfg.toml\"").unwrap();
        let snapshot = look(&*bot).await.unwrap();
        assert_eq!(snapshot.repos["alpha"].pending.len(), 2, "{fork}");
    }
}

#[tokio::test]
async fn variables_are_taken_from_the_environment() {
    let path = std::env::var("PATH").unwrap();
    let world = World::of("rust-lang").await;
    let cfg = recorded("rust-lang", "cfg.toml");
    let cfg = cfg.replace("token-of-the-bot", "${PATH}");
    // What is no name of a variable stays as it is, as in homu.
    let cfg = cfg.replace("name = \"Tidy\"", "name = \"$PATH ${A1} ${\"");
    world.write("cfg.toml", &cfg);
    look(&*world.bot()).await.unwrap();
    let asked = world.github.asked();
    assert_eq!(asked[0].header("authorization"), format!("token {path}"));
}

#[tokio::test]
async fn each_fork_has_its_own_builders_timeout_and_deadlines() {
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    for (fork, builders, timeout, deadline) in [
        ("0.2.0", vec!["linux", "mac"], None, 0),
        ("barosl", vec!["linux", "mac"], hours(10), 0),
        (
            "servo",
            vec![
                "checks-tidy",
                "linux",
                "linux-wpt1",
                "linux-wpt2",
                "mac",
                "status-appveyor",
            ],
            hours(2),
            0,
        ),
        (
            "rust-lang",
            vec!["checks-actions", "checks-only-tried", "status-appveyor"],
            hours(10),
            300,
        ),
    ] {
        let world = World::of(fork).await;
        let bot = world.bot();
        let repos = bot.repos();
        let known: Vec<&str> = repos["alpha"].iter().map(|it| it.as_str()).collect();
        assert_eq!(known, builders, "{fork}");
        assert_eq!(bot.own_timeout(&"alpha".into()), timeout, "{fork}");
        assert_eq!(bot.own_timeout(&"unknown".into()), None, "{fork}");
        let kinds: Vec<StepKind> = bot.rows().iter().map(|row| row.kind).collect();
        let requests = StepKind::ALL.into_iter();
        let requests = requests.filter(|kind| *kind != StepKind::Restart);
        assert!(kinds.into_iter().eq(requests), "{fork}");
        for row in bot.rows() {
            let starts = matches!(row.kind, StepKind::Retry | StepKind::Nudge);
            let expected = if starts { deadline } else { 0 };
            assert_eq!(row.deadline_min.as_secs(), expected, "{fork} {}", row.kind);
        }
        assert_eq!(bot.github().as_str(), "homu.github");
        assert_eq!((bot.kind(), bot.name().as_str()), ("homu", "homu"));
    }
}

#[tokio::test]
async fn before_homus_first_start_the_careful_reading_is_taken() {
    let world = World::of("rust-lang").await;
    std::fs::remove_file(world.database()).unwrap();
    let bot = world.bot();
    assert_eq!(
        bot.own_timeout(&"alpha".into()),
        Some(Duration::from_secs(36_000))
    );
    let retry = bot
        .rows()
        .iter()
        .find(|row| row.kind == StepKind::Retry)
        .unwrap();
    assert_eq!(retry.deadline_min, Duration::from_secs(300));
}

#[tokio::test]
async fn what_homu_knows_of_its_ci_is_read_and_not_shown() {
    let world = World::of("0.2.0").await;
    let known = world.bot().known_ci();
    let [buildbot, travis] = known.as_slice() else {
        panic!("{known:?}");
    };
    assert_eq!(buildbot.system, CiSystem::Buildbot);
    let url = buildbot.url.as_ref().map(url::Url::as_str);
    assert_eq!(url, Some("http://buildbot.example.org/"));
    assert!(
        buildbot
            .place
            .ends_with("cfg.toml: repo.alpha.buildbot.url")
    );
    let (username, password) = buildbot.login.as_ref().unwrap();
    assert_eq!(
        (username.as_str(), password.expose()),
        ("homu", "password-of-homu")
    );
    assert_eq!(travis.system, CiSystem::Travis);
    assert!(travis.place.ends_with("cfg.toml: repo.alpha.travis.token"));
    assert_eq!(travis.token.as_ref().unwrap().expose(), "token-of-travis");
    let shown = format!("{known:?}");
    assert!(
        !shown.contains("token-of") && !shown.contains("password-of"),
        "{shown}"
    );
}

#[tokio::test]
async fn which_homu_it_is_is_learnt_from_the_first_look() {
    for (fork, deadline, timeout) in [("0.2.0", 0, None), ("rust-lang", 300, Some(36_000))] {
        let world = World::of(fork).await;
        let database = std::fs::read(world.database()).unwrap();
        std::fs::remove_file(world.database()).unwrap();
        // Before, the address speaks for the other one.
        let cfg = recorded(fork, "cfg.toml");
        let address = "canonical_url = \"https://bors.example.org\"\n";
        let other = if fork == "0.2.0" {
            cfg.replace("port = 54856\n", &format!("port = 54856\n{address}"))
        } else {
            cfg.replace(address, "")
        };
        assert_ne!(cfg, other);
        world.write("cfg.toml", &other);
        let bot = world.bot();
        let retry = || {
            let rows = bot.rows().iter();
            let mut retries = rows.filter(|row| row.kind == StepKind::Retry);
            retries.next().unwrap().deadline_min.as_secs()
        };
        assert_eq!(retry(), 300 - deadline, "{fork}");
        std::fs::write(world.database(), database).unwrap();
        look(&*bot).await.unwrap();
        assert_eq!(retry(), deadline, "{fork}");
        let known = bot.own_timeout(&"alpha".into());
        assert_eq!(known.map(|it| it.as_secs()), timeout, "{fork}");
    }
}

#[tokio::test]
async fn a_repository_that_homu_serves_since_the_start_is_warned_of() {
    for fork in FORKS {
        let world = World::of(fork).await;
        let bot = world.bot();
        let table = if fork == "0.2.0" { "state" } else { "pull" };
        let warned = async |status: &str| {
            world.sql(&format!("DELETE FROM {table} WHERE repo = 'beta'"));
            world.sql(&format!(
                "INSERT INTO {table} (repo, num, status) VALUES ('beta', 7, '{status}')"
            ));
            let warnings = look(&*bot).await.unwrap().warnings;
            let told = |it: &&String| it.contains("waits for builds of beta");
            warnings.iter().filter(told).count()
        };
        assert_eq!(warned("pending").await, 1, "{fork}");
        // homu keeps the rows of a repository that it serves no more.
        assert_eq!(warned("success").await, 0, "{fork}");
    }
}

#[tokio::test]
async fn a_login_that_homu_does_not_listen_to_is_warned_of() {
    for (fork, login, warned) in [
        ("0.2.0", "rita", false),
        ("0.2.0", "trish", true),
        ("barosl", "trish", false),
        ("barosl", "mallory", true),
        // Collaborators and teams are not in the file.
        ("servo", "mallory", false),
        ("rust-lang", "mallory", false),
    ] {
        let world = World::of(fork).await;
        // 0.2.0 knows no try_users.
        let reviewers = "reviewers = [\"rita\"]";
        let both = format!("{reviewers}\ntry_users = [\"trish\"]");
        if fork == "0.2.0" {
            world.write(
                "cfg.toml",
                &recorded(fork, "cfg.toml").replace(reviewers, &both),
            );
        }
        let bot = world.connect(&format!("login = {login:?}")).unwrap();
        let warnings = look(&*bot).await.unwrap().warnings;
        let told = warnings
            .iter()
            .any(|it| it.contains("takes no command from"));
        assert_eq!(told, warned, "{fork} {login}: {warnings:?}");
    }
}

#[tokio::test]
async fn a_repository_that_homu_does_not_serve_yet_fails_the_look() {
    let world = World::of("0.2.0").await;
    let more = "[repo.beta]\nowner = \"octo\"\nname = \"beta\"\nreviewers = []\n\
                [repo.beta.github]\nsecret = \"s\"\n";
    world.write(
        "cfg.toml",
        &format!("{}{more}", recorded("0.2.0", "cfg.toml")),
    );
    world.page("/queue/beta", Reply::Status(500, Vec::new(), String::new()));
    let error = look(&*world.bot()).await.unwrap_err();
    assert!(error.detail.contains("serve beta?"), "{error}");
}
