//! The configuration: what is accepted, and the message of every mistake.
//!
//! `tests/config/good/X.toml` must load, with the warnings in `X.txt` (none without that file);
//! `tests/config/bad/X.toml` must be refused with exactly the lines of `X.txt`.
//! `UPDATE_EXPECTED=1 cargo test --test config` writes those files anew; read the difference.

#[path = "config/kinds.rs"]
mod kinds;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ci_watchdog::config::{self, Config, JournalSettings, Kinds, Mistakes, Server};
use ci_watchdog::decision::policy::{Mode, OnSilence, Policy};
use ci_watchdog::decision::restart::Restart;
use ci_watchdog::model::{BotName, BuilderName, RepoName};
use kinds::FAKE;
use proptest::prelude::*;
use tempfile::TempDir;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn good_configurations_load_with_exactly_the_expected_warnings() {
    for path in cases("tests/config/good") {
        let config = load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let warnings: String = config
            .warnings
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        expect(&path, &warnings);
    }
}

#[test]
fn every_mistake_is_told_with_its_line_its_key_and_what_would_be_right() {
    for path in cases("tests/config/bad") {
        let mistakes = load(&path).expect_err(&path.display().to_string());
        expect(&path, &format!("{mistakes}\n"));
    }
}

#[test]
fn no_message_repeats_a_password() {
    for path in cases("tests/config/bad") {
        let mistakes = load(&path).expect_err(&path.display().to_string());
        for told in [mistakes.to_string(), format!("{mistakes:?}")] {
            assert!(
                !told.contains("hunter2") && !told.contains("12345678"),
                "{told}"
            );
        }
    }
}

#[test]
fn every_file_of_expected_lines_has_its_configuration() {
    for folder in ["tests/config/good", "tests/config/bad"] {
        for path in files(folder, "txt") {
            assert!(
                path.with_extension("toml").exists(),
                "{} is left over",
                path.display()
            );
        }
    }
}

#[test]
fn left_out_sections_have_their_defaults() {
    let config = load(Path::new("tests/config/good/minimal.toml")).expect("it is good");
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.server, Server::default());
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:9923");
    let journal = JournalSettings {
        path: PathBuf::from("tests/config/good/journal.db"),
        retention: Duration::from_secs(90 * 24 * 60 * 60),
    };
    assert_eq!(config.journal, journal);
    assert_eq!(config.policy.mode, Mode::Observe);
}

#[test]
fn builders_take_over_from_their_repository_and_repositories_from_everything() {
    let config = load(Path::new("tests/config/good/scopes.toml")).expect("it is good");
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let servo = RepoName::new("servo");
    let (linux, mac) = (BuilderName::new("linux"), BuilderName::new("mac"));
    let timeouts = &config.policy.timeouts;
    assert_eq!(timeouts.builder(&servo, &linux).heartbeat, minutes(60));
    assert_eq!(timeouts.builder(&servo, &mac).heartbeat, minutes(40));
    assert_eq!(
        timeouts.repo(&RepoName::new("other")).heartbeat,
        minutes(25)
    );
    assert_eq!(timeouts.builder(&servo, &linux).start, minutes(6));
    let builds = &config.policy.builds;
    assert_eq!(builds.builder(&servo, &linux).reruns_per_pull, 1);
    assert_eq!(builds.builder(&servo, &mac).reruns_per_pull, 2);
    assert_eq!(builds.builder(&servo, &linux).on_silence, OnSilence::Alert);
    assert_eq!(builds.global.on_silence, OnSilence::Retry);
    assert_eq!(builds.builder(&servo, &linux).looks, 4);
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let folder = TempDir::new().expect("a folder can be made");
    let path = folder.path().join("ci-watchdog.toml");
    let refused = |word: &str| {
        let message = load(&path).expect_err(word).to_string();
        assert!(message.contains(word), "{message}");
    };
    refused("cannot be read");
    fs::create_dir(&path).expect("a folder can be made");
    refused("not a regular file");
    fs::remove_dir(&path).expect("it can be removed");
    fs::write(&path, b"mode = \"act\"\n# \xff\n").expect("it can be written");
    refused("line 2 is not UTF-8");
    fs::write(&path, "#".repeat((1 << 20) + 1)).expect("it can be written");
    refused("larger than");
}

#[test]
fn a_file_with_a_thousand_mistakes_is_told_in_a_hundred_lines() {
    let text: String = (0..1000)
        .map(|number| format!("key{number} = 1\n"))
        .collect();
    let mistakes = read(&text).expect_err("unknown keys are refused");
    assert_eq!(mistakes.0.len(), 101);
    assert!(
        mistakes.to_string().ends_with("more from here on"),
        "{mistakes}"
    );
}

#[test]
fn a_token_is_read_from_a_file_that_only_its_owner_can_read() {
    for mode in [0o600, 0o400] {
        let config = with_token(TOKEN, mode).expect("the token is good");
        let token = config.server.token.as_ref().expect("there is a token");
        assert!(token.matches(TOKEN));
        assert_eq!(token.secret().expose(), TOKEN);
        assert!(!format!("{config:?}").contains(TOKEN));
    }
    let newline =
        with_token(&format!("{TOKEN}\n"), 0o600).expect("a newline at the end is dropped");
    assert!(
        newline
            .server
            .token
            .is_some_and(|token| token.matches(TOKEN))
    );
}

#[test]
fn a_token_that_is_not_safe_is_refused_with_how_to_make_one() {
    let refused = |token: &str, mode: u32, word: &str| {
        let message = with_token(token, mode).expect_err(word).to_string();
        assert!(message.contains(word), "{word} in {message}");
        assert!(
            message.contains("ci-watchdog.toml:5: server.token_file:"),
            "{message}"
        );
        assert!(message.contains("umask 077"), "{message}");
        assert!(!message.contains("0123456789"), "{message}");
    };
    for mode in [0o640, 0o604, 0o644, 0o666, 0o700] {
        refused(TOKEN, mode, &format!("has mode {mode:04o}"));
    }
    refused("", 0o600, "is empty");
    refused("\n", 0o600, "is empty");
    refused("0123456789abcde", 0o600, "holds 15 characters");
    refused(&"0123456789".repeat(200), 0o600, "holds 2000 characters");
    refused("0123456789 abcdef", 0o600, "visible ASCII");
    refused("0123456789\nabcdef", 0o600, "visible ASCII");
    refused("0123456789abcdéf", 0o600, "visible ASCII");
    refused(&"x".repeat((64 << 10) + 1), 0o600, "larger than");
}

#[test]
fn a_token_of_another_user_is_refused() {
    let folder = TempDir::new().expect("a folder can be made");
    let token = folder.path().join("the.token");
    write_private(&token, TOKEN, 0o600);
    // Only root can give a file away; anybody else could not read one that is not theirs.
    if std::os::unix::fs::chown(&token, Some(65_534), None).is_err() {
        return;
    }
    let message = read_with_token_in(folder.path())
        .expect_err("it is not ours")
        .to_string();
    assert!(message.contains("belongs to user 65534"), "{message}");
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment_without_its_newline() {
    // Cargo sets this variable for every test.
    let variable = "password = { env = \"CARGO_PKG_NAME\" }\nusername = \"ci\"\n";
    read(&provider(variable)).expect("the variable is set");
    let folder = TempDir::new().expect("a folder can be made");
    let path = folder.path().join("secret");
    fs::write(&path, "hunter2\r\n").expect("it can be written");
    let secret = ci_watchdog::secret::Secret::from_file(&path).expect("it can be read");
    assert_eq!(secret.expose(), "hunter2");
    let file = format!("password = {{ file = {:?} }}\n", path.display().to_string());
    read(&provider(&file)).expect("the file is there");
}

#[test]
fn a_configuration_can_be_loaded_again_with_what_changed() {
    let folder = TempDir::new().expect("a folder can be made");
    let path = folder.path().join("ci-watchdog.toml");
    let bot = "[[bot]]\nname = \"homu\"\nkind = \"fake\"\n";
    fs::write(&path, format!("mode = \"act\"\n{bot}")).expect("it can be written");
    let first = load(&path).expect("it is good");
    fs::write(&path, bot).expect("it can be written");
    let second = load(&path).expect("it is good");
    assert_eq!(
        (first.policy.mode, second.policy.mode),
        (Mode::Act, Mode::Observe)
    );
}

#[test]
fn the_example_says_every_default_and_loads() {
    let place = ExamplePlace::new();
    let config = place
        .read(&example())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.server, Server::default());
    assert_eq!(config.journal.path, place.path(JournalSettings::NAME));
    assert_eq!(config.journal.retention, JournalSettings::RETENTION);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_example_loads_with_what_it_leaves_out() {
    let place = ExamplePlace::new();
    // A certificate authority cannot be made here; its file must be one.
    let text = uncommented(&example().replace("\n#ca = ", "\n# ca = "));
    // Not every machine has systemd.
    let text = text.replace("[\"systemctl\", ", "[\"true\", ");
    let config = place
        .read(&text)
        .unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    assert!(config.server.token.is_some());
    let restart = &config.restarts[&BotName::new("homu")];
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    assert_eq!(
        (restart.after, restart.times, restart.per),
        (minutes(15), 1, minutes(360))
    );
    let servo = RepoName::new("servo");
    let policy = &config.policy;
    assert_ne!(policy.timeouts.repo(&servo), &policy.timeouts.global);
    assert_ne!(policy.builds.repo(&servo), &policy.builds.global);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_restart_has_defaults_and_is_off_without_its_table() {
    let config = load(Path::new("tests/config/good/restart.toml")).expect("it is good");
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let of = |bot: &str| &config.restarts[&BotName::new(bot)];
    assert_eq!(of("homu").command, ["sh", "-c", "true"]);
    let limits = |restart: &Restart| (restart.after, restart.times, restart.per);
    assert_eq!(limits(of("homu")), (minutes(1), 10, minutes(24 * 60)));
    assert_eq!(limits(of("bors")), (minutes(15), 1, minutes(6 * 60)));
    let config = load(Path::new("tests/config/good/minimal.toml")).expect("it is good");
    assert!(config.restarts.is_empty());
}

#[test]
fn the_example_names_every_key_that_there_is() {
    let example: toml::Table = uncommented(&example()).parse().expect("it is TOML");
    let named = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(named(&example), known_keys("qqqqqqqq = 1\n", "qqqqqqqq"));
    for section in ["server", "journal", "loop", "timeouts", "safety"] {
        let known = known_keys(
            &format!("[{section}]\nqqqqqqqq = 1\n"),
            &format!("{section}.qqqqqqqq"),
        );
        let table = example[section].as_table().expect("it is a table");
        assert_eq!(named(table), known, "[{section}]");
    }
    for (section, kind, needed) in [
        ("bot", "homu", "config = \"cfg.toml\""),
        ("provider", "buildbot", "url = \"http://127.0.0.1:1\""),
    ] {
        let known = known_keys(
            &format!("[[{section}]]\nname = \"x\"\nkind = \"{kind}\"\n{needed}\nqqqqqqqq = 1\n"),
            &format!("{section}.qqqqqqqq"),
        );
        let table = example[section][0].as_table().expect("it is a table");
        assert_eq!(named(table), known, "[[{section}]]");
    }
}

/// A homu with one repository for each of these addresses of its Buildbot, as TOML has them.
fn homu_with(place: &ExamplePlace, urls: &[&str]) {
    let mut cfg = "[github]\naccess_token = \"t\"\n[web]\nport = 54856\n".to_owned();
    for (number, url) in urls.iter().enumerate() {
        let repo = format!("repo.r{number}");
        cfg.push_str(&format!(
            "[{repo}]\nowner = \"o\"\nname = \"n\"\n[{repo}.github]\nsecret = \"s\"\n\
             [{repo}.buildbot]\nsecret = \"s\"\nbuilders = [\"linux\"]\nusername = \"homu\"\n\
             password = \"hunter2\"\n{url}\n"
        ));
    }
    write_private(&place.path("cfg.toml"), &cfg, 0o600);
}

/// A configuration with homu and a Buildbot, whose table has these lines.
fn with_buildbot(place: &ExamplePlace, lines: &str) -> Result<Config, Mistakes> {
    place.read(&format!(
        "[[bot]]\nname = \"homu\"\nkind = \"homu\"\nconfig = \"cfg.toml\"\n\
         [[provider]]\nname = \"buildbot\"\nkind = \"buildbot\"\n{lines}\n"
    ))
}

#[test]
fn an_address_that_is_left_out_is_the_one_in_homus_own_file() {
    let place = ExamplePlace::new();
    // A slash more is the same place, and what is no address of a master is none.
    let one = [
        "url = \"http://ci.example.org/bb\"",
        "url = \"http://ci.example.org/bb/\"",
        "",
        "url = \"\"",
        "url = 7",
        "url = \"${NO_SUCH_VARIABLE_HERE}\"",
        "url = \"http://user:hunter2@elsewhere\"",
        "url = \"ftp://elsewhere\"",
    ];
    homu_with(&place, &one);
    let config = with_buildbot(&place, "").unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.providers[0].url(), "http://ci.example.org/bb");
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn an_address_that_homus_own_file_does_not_tell_is_asked_for_with_its_places() {
    let place = ExamplePlace::new();
    let refused = |urls: &[&str]| {
        homu_with(&place, urls);
        let mistakes = with_buildbot(&place, "").expect_err("there is no one address");
        assert_eq!(mistakes.0.len(), 1, "{mistakes}");
        assert_eq!(mistakes.0[0].key, "provider.url");
        assert_eq!(mistakes.0[0].line, Some(5));
        mistakes.0[0].message.clone()
    };
    let none = refused(&[""]);
    assert!(
        none.contains("is missing") && none.contains("cfg.toml: repo.r0.buildbot.url"),
        "{none}"
    );
    assert!(none.contains("https://buildbot.example.org"), "{none}");
    let two = refused(&["url = \"http://one\"", "url = \"http://two\""]);
    for word in [
        "http://one",
        "cfg.toml: repo.r0.buildbot.url",
        "http://two",
        "cfg.toml: repo.r1.buildbot.url",
        "write which",
    ] {
        assert!(two.contains(word), "{word} in {two}");
    }
    let many: Vec<String> = (0..100).map(|n| format!("url = \"http://m{n}\"")).collect();
    let many = refused(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        many.len() < 1000 && many.contains("95 more") && many.contains("http://m0"),
        "{many}"
    );
}

#[test]
fn an_address_that_differs_from_homus_own_is_warned_of_once() {
    let place = ExamplePlace::new();
    homu_with(&place, &["url = \"http://one/\"", "url = \"http://two\""]);
    let good = |lines: &str| {
        let config = with_buildbot(&place, lines);
        config
            .unwrap_or_else(|mistakes| panic!("{mistakes}"))
            .warnings
    };
    assert_eq!(good("url = \"http://one\""), Vec::<String>::new());
    let warnings = good("url = \"http://three\"");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for word in ["provider.url", "http://three", "http://one", "http://two"] {
        assert!(warnings[0].contains(word), "{word} in {warnings:?}");
    }
    assert!(!warnings[0].contains("hunter2"), "{warnings:?}");
}

#[test]
fn mistakes_of_adapters_are_told_together() {
    let place = ExamplePlace::new();
    let text = "[[bot]]\nname = \"homu\"\nkind = \"homu\"\nconfig = \"no.toml\"\nca = \"no.pem\"\n\
                url = \"ftp://a\"\nlogin = \"@b\"\n[bot.extra]\nkey = 1\n\
                [[provider]]\nname = \"buildbot\"\nkind = \"buildbot\"\nusername = \"u\"\n\
                ca = \"no.pem\"\n[provider.extra]\nkey = 1\n";
    let mistakes = place.read(text).expect_err("much is wrong");
    let keys: Vec<&str> = mistakes.0.iter().map(|it| it.key.as_str()).collect();
    // Whether the provider's address is missing is not known before homu's own file can be read.
    assert_eq!(
        keys,
        [
            "bot.config",
            "bot.ca",
            "bot.url",
            "bot.login",
            "bot.extra",
            "provider.password",
            "provider.ca",
            "provider.extra",
        ],
        "{mistakes}"
    );
}

#[test]
fn deep_nesting_is_a_mistake_and_no_stack_overflow() {
    for text in [
        "[".repeat(100_000),
        "a.".repeat(100_000) + "b = 1",
        "{a=".repeat(100_000),
    ] {
        read(&text).expect_err("it is not TOML");
        read(&format!("mode = {text}")).expect_err("it is not TOML");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_never_panics_the_loader(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn arbitrary_pieces_of_configuration_never_panic_the_loader(
        pieces in prop::collection::vec(piece(), 0..60)
    ) {
        let _ = read(&pieces.concat());
    }

    #[test]
    fn a_damaged_configuration_never_panics_the_loader(
        at in any::<prop::sample::Index>(),
        length in 0usize..20,
        with in ".{0,8}",
    ) {
        let good = fs::read_to_string("tests/config/good/short_times.toml").expect("it is there");
        let mut letters: Vec<char> = good.chars().collect();
        let start = at.index(letters.len());
        let end = letters.len().min(start + length);
        letters.splice(start..end, with.chars());
        let text: String = letters.into_iter().collect();
        let _ = read(&text);
    }

    #[test]
    fn arbitrary_values_never_panic_the_loader(
        key in prop::sample::select(KEYS.as_slice()),
        value in value(),
    ) {
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let _ = read(&format!("{header}{key} = {value}\n[[bot]]\nname = \"homu\"\nkind = \"fake\"\n"));
    }
}

const KEYS: [&str; 17] = [
    "mode",
    "server",
    "server.listen",
    "server.token_file",
    "journal.url",
    "journal.retention",
    "loop.tick",
    "timeouts",
    "timeouts.total",
    "timeouts.heartbeat",
    "safety.looks",
    "safety.outage_share",
    "safety.cooldown",
    "repo",
    "repo.servo",
    "repo.servo.safety.looks",
    "repo.servo.builder.linux.timeouts.start",
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        any::<String>().prop_map(|text| format!("{text:?}")),
        (any::<u64>(), "(ns|us|ms|s|m|h|d|w|months|y| )?")
            .prop_map(|(n, unit)| format!("\"{n}{unit}\"")),
        "[0-9_xXoObB+.eE-]{1,12}",
        Just("{ file = \"/dev/null\" }".to_owned()),
        Just("[[1], {}]".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
    ]
}

fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\"",
        "\"\"\"",
        "'",
        "#",
        "\n",
        " ",
        "\r\n",
        "bot",
        "provider",
        "repo",
        "servo",
        "builder",
        "timeouts",
        "safety",
        "looks",
        "name",
        "kind",
        "\"fake\"",
        "url",
        "password",
        "file",
        "env",
        "true",
        "1",
        "-1",
        "1e999",
        "nan",
        "\"5m\"",
        "\n[[bot]]\n",
        "\n[repo.servo.safety]\n",
        "\nname = \"homu\"\n",
    ];
    prop_oneof![
        8 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ]
}

fn load(path: &Path) -> Result<Config, Mistakes> {
    config::load_with(path, FAKE)
}

fn read(text: &str) -> Result<Config, Mistakes> {
    config::read(Path::new("ci-watchdog.toml"), text, FAKE)
}

fn provider(more: &str) -> String {
    format!(
        "[[bot]]\nname = \"homu\"\nkind = \"fake\"\n\
         [[provider]]\nname = \"buildbot\"\nkind = \"fake\"\nurl = \"http://127.0.0.1:1\"\n{more}"
    )
}

fn with_token(token: &str, mode: u32) -> Result<Config, Mistakes> {
    let folder = TempDir::new().expect("a folder can be made");
    write_private(&folder.path().join("the.token"), token, mode);
    read_with_token_in(folder.path())
}

fn read_with_token_in(folder: &Path) -> Result<Config, Mistakes> {
    let path = folder.join("ci-watchdog.toml");
    let text = "[[bot]]\nname = \"homu\"\nkind = \"fake\"\n[server]\ntoken_file = \"the.token\"\n";
    config::read(&path, text, FAKE)
}

fn write_private(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("it can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

fn example() -> String {
    fs::read_to_string("ci-watchdog.example.toml").expect("the example is there")
}

/// In the example, a comment that starts with `#` and no space is a setting that is left out.
fn uncommented(example: &str) -> String {
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with([' ', '#']) && !setting.is_empty() => setting,
        Some(_) | None => line,
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The keys of a table, as the message about the unknown key in it lists them.
fn known_keys(text: &str, unknown: &str) -> BTreeSet<String> {
    let place = ExamplePlace::new();
    let mistakes = place.read(text).expect_err("the key is unknown");
    let mistake = mistakes.0.iter().find(|mistake| mistake.key == unknown);
    let message = &mistake.expect("the unknown key is told").message;
    let quoted = message.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// A folder with the files that the example names.
struct ExamplePlace(TempDir);

impl ExamplePlace {
    fn new() -> Self {
        let place = Self(TempDir::new().expect("a folder can be made"));
        let homu = r#"
            [github]
            access_token = "a-token"
            [web]
            port = 54856
            [repo.servo]
            owner = "servo"
            name = "servo"
            reviewers = ["reviewer"]
            [repo.servo.github]
            secret = "a-secret"
            [repo.servo.buildbot]
            url = "http://127.0.0.1:8010"
            secret = "another-secret"
            builders = ["linux", "mac"]
        "#;
        for (name, text) in [
            ("cfg.toml", homu),
            ("ci-watchdog.token", TOKEN),
            ("buildbot.password", "hunter2"),
        ] {
            write_private(&place.path(name), text, 0o600);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Reads a configuration with the real kinds of bot and provider.
    fn read(&self, text: &str) -> Result<Config, Mistakes> {
        let text = text.replace("/srv/homu/", "");
        config::read(&self.path("ci-watchdog.toml"), &text, Kinds::ALL)
    }
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let cases = files(folder, "toml");
    assert!(!cases.is_empty(), "{folder} has no case");
    cases
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

#[track_caller]
fn expect(case: &Path, told: &str) {
    let path = case.with_extension("txt");
    let told = told.trim_start_matches('\n');
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        if told.is_empty() {
            let _ = fs::remove_file(&path);
        } else {
            fs::write(&path, told).expect("it can be written");
        }
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        told,
        expected,
        "{} (left: told, right: expected)",
        case.display()
    );
}
