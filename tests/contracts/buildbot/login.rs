//! Masters that ask for a login.

use std::collections::BTreeMap;

use ci_watchdog::model::ProbeFailure;
use ci_watchdog::providers::Provider;

use super::fake_master::{Asked, FakeMaster, Reply, recorded, reply};
use super::{BOTH, connect, provider, question};

/// A master that lets nobody in without a login of `wd` with the password `secret`.
fn guarded(answers: BTreeMap<String, String>, admits: bool) -> impl Fn(&Asked) -> Reply {
    let refused = || {
        Reply::Status(
            403,
            vec![],
            "{\"error\": \"you need to have role\"}".to_owned(),
        )
    };
    move |asked| match asked.path.as_str() {
        "config" => reply(&answers, asked),
        "auth/login" if asked.authorization.as_deref() == Some("Basic d2Q6c2VjcmV0") => {
            let cookies = ["anonymous", "wd"]
                .map(|who| ("set-cookie", format!("TWISTED_SESSION={who}; Path=/")));
            Reply::Status(302, cookies.to_vec(), String::new())
        }
        "auth/login" => Reply::Status(401, vec![], String::new()),
        _ if admits && asked.cookie.as_deref() == Some("TWISTED_SESSION=wd") => {
            reply(&answers, asked)
        }
        _ => refused(),
    }
}

fn with_login(master: &FakeMaster, password: &str) -> (Box<dyn Provider>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let table = format!(
        "url = {:?}\nusername = \"wd\"\npassword = {{ file = {file:?} }}",
        master.url
    );
    (provider(&table).unwrap(), folder)
}

fn logins(master: &FakeMaster) -> usize {
    master
        .asked()
        .iter()
        .filter(|asked| asked.path == "auth/login")
        .count()
}

#[tokio::test]
async fn a_guarded_master_is_logged_in_to_once_and_the_last_cookie_counts() {
    let master = FakeMaster::start(guarded(recorded("finished-green"), true)).await;
    let (provider, _folder) = with_login(&master, "secret");
    for expected in [1, 0] {
        let snapshot = provider.observe(&[question('1', BOTH)]).await;
        assert_eq!(
            snapshot.map(|snapshot| snapshot.runs.len()),
            Ok(1),
            "the answer to a later look is in the recording only where it asks the same"
        );
        assert_eq!(logins(&master), expected);
    }
}

#[tokio::test]
async fn a_master_that_refuses_is_not_asked_in_a_loop() {
    for (password, admits) in [("secret", false), ("wrong", true)] {
        let master = FakeMaster::start(guarded(recorded("finished-green"), admits)).await;
        let (provider, _folder) = with_login(&master, password);
        let error = provider.observe(&[]).await.unwrap_err();
        assert_eq!(error.failure, ProbeFailure::Auth, "{error}");
        assert!(!error.to_string().contains(password), "{error}");
        assert_eq!(logins(&master), 1, "{error}");
    }
}

#[tokio::test]
async fn a_guarded_master_without_a_login_says_what_to_do() {
    let master = FakeMaster::start(guarded(recorded("finished-green"), true)).await;
    let error = connect(&master).observe(&[]).await.unwrap_err();
    assert_eq!(error.failure, ProbeFailure::Auth);
    assert!(
        error.detail.contains("`username` and `password`"),
        "{error}"
    );
    assert_eq!(logins(&master), 0);
}
