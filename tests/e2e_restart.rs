//! The last rung on a real homu 0.2.0 and a real Buildbot 4.3: a homu that answers nothing is restarted
//! by the operator's command, once, and never while it may only wait for others.
//!
//! The command is a script that does what `systemctl restart` does: it asks whoever manages the process,
//! here the test, and waits until that is done.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

mod stack;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use stack::Stack;
use stack::config::StackConfig;
use stack::jobs::Order;
use stack::watchdog::WatchdogSettings;

const SCRIPT: &str = "\
echo \"$*\" >> asked
env > environment
while [ ! -e done ]; do sleep 0.05; done
rm done
";

/// The service manager that the command asks.
struct Manager {
    dir: PathBuf,
}

impl Manager {
    fn new(stack: &Stack) -> Self {
        let homu = stack.homu.config_file();
        let dir = homu.parent().unwrap().join("manager");
        fs::create_dir(&dir).unwrap();
        let script = format!("cd '{}'\n{SCRIPT}", dir.display());
        fs::write(dir.join("restart.sh"), script).unwrap();
        Self { dir }
    }

    fn settings(&self) -> WatchdogSettings {
        WatchdogSettings::quick().add(&format!(
            "[bot.restart]\ncommand = [\"sh\", \"{}\", \"restart\", \"homu\"]\nafter = \"3s\"\n\
             at_most = \"1 per 1h\"\n",
            self.dir.join("restart.sh").display()
        ))
    }

    /// What it was asked for so far, one line each time.
    fn asked(&self) -> String {
        fs::read_to_string(self.dir.join("asked")).unwrap_or_default()
    }

    /// Waits until it is asked, and restarts homu.
    async fn serve(&self, stack: &Stack) {
        stack
            .wait_until("the restart of homu to be asked for", async || {
                !self.asked().is_empty()
            })
            .await;
        stack.kill9_homu();
        stack.start_homu().await;
        fs::write(self.dir.join("done"), "").unwrap();
    }
}

/// The bot in the watchdog's report.
async fn bot(stack: &Stack) -> Option<Value> {
    let status = stack.watchdog.get_json("/api/v1/status").await.ok()?;
    let mut sources = status["sources"].as_array()?.iter();
    sources.find(|source| source["role"] == "bot").cloned()
}

async fn wait_held(stack: &Stack, gate: &str) {
    stack
        .wait_until(&format!("the restart to be held by {gate}"), async || {
            bot(stack)
                .await
                .is_some_and(|bot| bot["hold"]["gate"] == gate)
        })
        .await;
}

async fn wait_answers(stack: &Stack) {
    stack
        .wait_until("the watchdog to see homu answer", async || {
            bot(stack).await.is_some_and(|bot| bot["up"] == true)
        })
        .await;
}

/// `alpha#1`, pending and running, of whose start homu was told.
async fn running(stack: &Stack) -> String {
    stack.jobs.set_all(Order::Chatter);
    stack.approve("alpha", 1).await;
    let sha = stack.wait_pending("alpha", 1, &[]).await;
    stack
        .wait_until("homu to hear of both starts", async || {
            stack.stored("alpha", 1).unwrap().results.len() == 2
        })
        .await;
    sha
}

#[tokio::test]
async fn a_frozen_homu_is_restarted_once_and_what_was_pending_goes_on() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    let manager = Manager::new(&stack);
    stack.start_watchdog(&manager.settings()).await;
    let sha = running(&stack).await;
    stack.wait_ticks(5).await;
    stack.homu.freeze();
    stack
        .wait_until("the watchdog to see the silence", async || {
            let silent = bot(&stack).await;
            silent.is_some_and(|bot| !bot["silent_since"].is_null())
        })
        .await;
    let page = stack.watchdog.get("/").await.unwrap();
    assert!(page.contains("nothing at all came back"), "{page}");
    let status = stack.watchdog.run(&["status"]).await;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("nothing at all came back"), "{status}");

    manager.serve(&stack).await;
    wait_answers(&stack).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    assert_eq!(stack.branch("alpha", "master").unwrap(), sha);
    stack.check_the_end(&[], &[(&sha, 2)]).await;
    assert_eq!(manager.asked(), "restart homu\n", "once");
    let history = stack.watchdog.run(&["history", "--json"]).await;
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    for word in ["\"restart\"", "restart.sh", "\"accepted\"", "\"effect\""] {
        assert!(history.contains(word), "{word} in {history}");
    }
    let environment = fs::read_to_string(manager.dir.join("environment")).unwrap();
    assert!(environment.contains("PATH="), "{environment}");
    assert!(!environment.contains("CARGO"), "{environment}");
}

#[tokio::test]
async fn a_dead_homu_is_left_alone_while_buildbot_is_out_of_reach_and_a_while_longer() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    let manager = Manager::new(&stack);
    let settings = manager.settings().set("safety.source_good_for", "\"8s\"");
    stack.start_watchdog(&settings).await;
    let sha = running(&stack).await;
    stack.wait_ticks(5).await;
    stack.buildbot_bridge.close_door();
    stack.kill9_homu();
    // Everything is silent: that may be this machine, so that the silence does not even count.
    stack
        .wait_until("the watchdog to distrust itself", async || {
            let status = stack.watchdog.get_json("/api/v1/status").await;
            status.is_ok_and(|status| !status["not_settled"].is_null())
        })
        .await;
    assert_eq!(manager.asked(), "");
    stack.buildbot_bridge.lead_to(&stack.buildbot.url()).await;
    wait_held(&stack, "provider_not_good").await;
    assert_eq!(manager.asked(), "");
    manager.serve(&stack).await;
    wait_answers(&stack).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.check_the_end(&[], &[(&sha, 2)]).await;
    assert_eq!(manager.asked(), "restart homu\n", "once");
}

#[tokio::test]
async fn a_homu_that_may_wait_for_github_is_left_alone_while_github_is_down() {
    let stack = Stack::start(StackConfig::one_repository()).await;
    let manager = Manager::new(&stack);
    stack.start_watchdog(&manager.settings()).await;
    let sha = running(&stack).await;
    stack.wait_ticks(5).await;
    stack.github.set_outage(Some(503));
    stack.kill9_homu();
    wait_held(&stack, "github_not_good").await;
    stack.wait_ticks(10).await;
    assert_eq!(manager.asked(), "");
    stack.github.set_outage(None);
    manager.serve(&stack).await;
    wait_answers(&stack).await;
    stack.jobs.set_all(Order::Green);
    stack.wait_merged("alpha", 1).await;
    stack.check_the_end(&[], &[(&sha, 2)]).await;
    assert_eq!(manager.asked(), "restart homu\n", "once");
}
