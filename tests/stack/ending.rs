//! How a case ends: what the watchdog told homu, word for word and in order, and what Buildbot ran.

use super::Stack;
use super::bridge::{Exchange, Passage};
use super::message::Message;
use super::promtool::{assert_content, promtool};

/// The name under which the watchdog frees the start slot: no builder has it.
const NOBODY: &str = "ci-watchdog";

/// Ticks after which a request that is sent twice would have come twice: a death counts after three
/// looks in a row.
const TICKS_AFTER: u64 = 5;

/// The word for: the start slot was freed of this commit.
pub fn release(sha: &str) -> String {
    format!("release {sha}")
}

/// The word for: homu was asked to build a pull request again.
pub fn retry(label: &str, pull: u64) -> String {
    format!("retry {label}#{pull}")
}

/// The word for: homu was given the result of a run that it had lost.
pub fn result(builder: &str, sha: &str) -> String {
    format!("result {builder} {sha}")
}

/// ... and it never reached homu.
pub fn that_got_lost(word: String) -> String {
    word + ", lost"
}

/// ... and homu did it, and its answer never came back.
pub fn unanswered(word: String) -> String {
    word + ", answer lost"
}

impl Stack {
    /// What the watchdog told homu, in short words, oldest first.
    pub fn told(&self) -> Vec<String> {
        self.watchdog_requests().iter().map(word).collect()
    }

    /// Checks how a case ended. `told` is everything that the watchdog told homu since the start of
    /// the stack, and no more came while it looked on. `runs` has how often Buildbot ran each
    /// commit, and it ran nothing else. Buildbot itself was told nothing, the watchdog waits for
    /// nothing, and its metrics parse.
    pub async fn check_the_end(&self, told: &[String], runs: &[(&str, usize)]) {
        let all_runs: usize = runs.iter().map(|(_, runs)| runs).sum();
        // homu does what it was told before it answers, and only the answer is recorded.
        self.wait_until("all that homu is to be told", async || {
            self.told().len() >= told.len()
        })
        .await;
        self.wait_until("all runs to end", async || {
            let runs = self.buildbot.all_runs().await;
            runs.len() >= all_runs && runs.iter().all(|run| run.results.is_some())
        })
        .await;
        self.wait_ticks(TICKS_AFTER).await;
        self.wait_until("every request to be settled", async || {
            let status = self.watchdog.get_json("/api/v1/status").await;
            status.is_ok_and(|status| status["journal"]["open_intents"] == 0)
        })
        .await;

        assert_eq!(self.told(), told, "{}", self.story().await);
        let ran = self.buildbot.all_runs().await;
        for (sha, expected) in runs {
            let of_sha = ran.iter().filter(|run| run.revision == *sha).count();
            assert_eq!(of_sha, *expected, "runs of {sha}: {ran:#?}");
        }
        assert_eq!(ran.len(), all_runs, "runs in all: {ran:#?}");
        assert!(self.watchdog_orders_to_buildbot().is_empty());
        self.check_metrics().await;
    }

    /// Checks that Prometheus can read the watchdog's metrics.
    pub async fn check_metrics(&self) {
        let metrics = self.watchdog.get("/metrics").await.unwrap();
        assert_content(&promtool(&["check", "metrics"], &metrics));
    }

    /// Waits until the watchdog has looked so many times more.
    pub async fn wait_ticks(&self, more: u64) {
        let mut last = None;
        self.wait_until(&format!("{more} more ticks"), async || {
            let Ok(status) = self.watchdog.get_json("/api/v1/status").await else {
                return false;
            };
            let tick = status["tick"].as_u64().unwrap();
            tick >= *last.get_or_insert(tick + more)
        })
        .await;
    }
}

fn word(exchange: &Exchange) -> String {
    let words: Vec<String> = exchange.messages.iter().map(of_message).collect();
    let word = words.join(" + ");
    match exchange.passage {
        Passage::Answered(200) => word,
        Passage::Answered(status) => format!("{word}, answered {status}"),
        Passage::AnswerLost(_) => unanswered(word),
        Passage::Dropped | Passage::Replaced(_) => that_got_lost(word),
        Passage::Unreachable => format!("{word}, homu was not there"),
    }
}

fn of_message(message: &Message) -> String {
    match message {
        Message::Started { builder, revision } if builder == NOBODY => release(revision),
        Message::Started { builder, revision } => format!("start {builder} {revision}"),
        Message::Finished {
            builder, revision, ..
        } => result(builder, revision),
        // The whole command: `force` and `clean` would show.
        Message::Comment {
            repository,
            pull,
            body,
            ..
        } => {
            let (_, command) = body.split_once(' ').unwrap_or(("", body));
            format!("{command} {repository}#{pull}")
        }
        Message::Pull {
            repository,
            pull,
            action,
            ..
        } => format!("{action} {repository}#{pull}"),
        Message::Push { .. } | Message::Read | Message::Other => "something else".to_owned(),
    }
}
