//! What the watchdog tells of its work: of pending builds, of attempts, of queues, on its command line.

use serde_json::Value;

use super::{Stack, patience};

impl Stack {
    /// A pending build as the API tells of it; None where it tells of none, or is starting.
    pub async fn pending_build(&self, label: &str, pull: u64) -> Option<Value> {
        let builds = self.watchdog.get_json("/api/v1/builds").await.ok()?;
        let mut builds = builds.as_array()?.iter();
        builds
            .find(|build| build["repo"] == label && build["pull"] == pull)
            .cloned()
    }

    /// Waits until what is told of a pending build is so, and returns it.
    pub async fn wait_build(
        &self,
        label: &str,
        pull: u64,
        what: &str,
        so: impl Fn(&Value) -> bool,
    ) -> Value {
        patience(&format!("{label}#{pull} to be {what}"), async || {
            let build = self.pending_build(label, pull).await?;
            so(&build).then_some(build)
        })
        .await
    }

    /// Waits until a pending build has this verdict, and returns what is told of it then.
    pub async fn wait_verdict(&self, label: &str, pull: u64, verdict: &str) -> Value {
        self.wait_build(label, pull, verdict, |build| build["verdict"] == verdict)
            .await
    }

    /// Waits until a pending build is held by a gate, and returns what is told of it then.
    pub async fn wait_held(&self, label: &str, pull: u64, gate: &str) -> Value {
        let what = format!("held by {gate}");
        let held = |build: &Value| build["hold"]["gate"] == gate;
        self.wait_build(label, pull, &what, held).await
    }

    /// Everything that was attempted, oldest first.
    pub async fn attempts(&self) -> Vec<Value> {
        let attempts = self.watchdog.get_json("/api/v1/attempts").await.unwrap();
        attempts.as_array().unwrap().iter().rev().cloned().collect()
    }

    /// What is told of a repository's approved work.
    pub async fn approved_work(&self, label: &str) -> Value {
        let status = self.watchdog.get_json("/api/v1/status").await.unwrap();
        let queues = status["queues"].as_array().unwrap();
        let queue = queues.iter().find(|queue| queue["repo"] == label);
        queue.unwrap_or_else(|| panic!("no {label}")).clone()
    }

    /// What `ci-watchdog explain` says; it must say these words.
    pub async fn explains(&self, pull: &str, words: &[&str]) {
        let explained = self.watchdog.run(&["explain", pull]).await;
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert!(explained.status.success(), "{text}");
        for words in words {
            assert!(text.contains(words), "{words:?} is not in:\n{text}");
        }
    }

    /// Looks on for so many seconds.
    pub async fn look_on(&self, seconds: u64) {
        let begun = self.age();
        self.wait_until("some seconds to pass", async || {
            (self.age() - begun).as_secs() >= seconds
        })
        .await;
    }
}

/// All that a verdict on a build rests on: the facts about the whole, then those about each builder.
pub fn evidence(build: &Value) -> String {
    let builders = build["expectations"].as_array().into_iter().flatten();
    let facts = builders.flat_map(|it| it["evidence"].as_array().into_iter().flatten());
    let whole = build["evidence"].as_array().into_iter().flatten();
    let facts = whole.chain(facts).filter_map(Value::as_str);
    facts.collect::<Vec<_>>().join("; ")
}

/// The verdict on one builder of a build.
pub fn verdict_on<'a>(build: &'a Value, builder: &str) -> &'a str {
    let builders = build["expectations"].as_array().unwrap();
    let found = builders.iter().find(|it| it["builder"] == builder);
    found
        .and_then(|it| it["verdict"].as_str())
        .unwrap_or_else(|| panic!("no {builder} in {build:#}"))
}

/// An attempt in short words: its verdict, and each request with its outcome and how it ended.
pub fn brief(attempt: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("open").to_owned();
    let steps = attempt["steps"].as_array().unwrap().iter().map(|step| {
        let [name, outcome, closing] = ["step", "outcome", "closing"].map(|key| word(&step[key]));
        format!("{name} {outcome} {closing}")
    });
    format!(
        "{}: {}",
        word(&attempt["verdict"]),
        steps.collect::<Vec<_>>().join(", ")
    )
}
