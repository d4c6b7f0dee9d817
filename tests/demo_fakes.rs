//! The fakes of the demo do as the real programs do where a build gets stuck.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ci_watchdog::demo::buildbot::{FAILURE, News};
use ci_watchdog::demo::github::Times;
use ci_watchdog::demo::homu::{PullState, Status};
use ci_watchdog::demo::town::{BUILDERS, Town, full_name, steps};
use serde_json::{Value, json};

/// How long anything on loopback may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Stage {
    town: Town,
    client: reqwest::Client,
    folder: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Stage {
    async fn set(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ci-watchdog-fakes-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a folder of our own");
        let town = Town::start(&folder).await.expect("the fakes start");
        for builder in BUILDERS {
            town.buildbot
                .set_steps(builder, &steps(Duration::from_millis(300)));
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        Self {
            town,
            client,
            folder,
        }
    }

    /// Opens and approves a pull request.
    async fn approved(&self, label: &str) -> u64 {
        let pull = self
            .town
            .open(label, "Add a thing")
            .expect("there is such a repository");
        self.until("homu knows it", async || {
            self.town.homu.pull(label, pull).await
        })
        .await;
        self.town
            .approve(label, pull)
            .expect("there is such a pull request");
        pull
    }

    async fn pending(&self, label: &str, pull: u64) -> PullState {
        self.until("it is pending", async || {
            let state = self.town.homu.pull(label, pull).await?;
            (state.status == Status::Pending).then_some(state)
        })
        .await
    }

    async fn merged(&self, label: &str, pull: u64) {
        self.until("it is merged", async || {
            self.town.is_merged(label, pull).then_some(())
        })
        .await;
    }

    async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets everything that is on its way arrive.
    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    async fn packet(&self, event: &str, builder: &str, sha: &str, secret: &str) -> u16 {
        let packets = json!([{"event": event, "payload": {"build": {
            "builderName": builder,
            "results": 0,
            "text": ["build", "successful"],
            "properties": [["revision", sha, "Build"], ["buildnumber", 9, "Build"]],
            "steps": [],
        }}}]);
        let form = [
            ("packets", packets.to_string()),
            ("secret", secret.to_owned()),
        ];
        let request = self.client.post(self.town.homu.packets_url()).form(&form);
        request
            .send()
            .await
            .expect("homu answers")
            .status()
            .as_u16()
    }

    async fn get(&self, url: String) -> Value {
        let answer = self.client.get(url).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }
}

#[tokio::test]
async fn an_approved_pull_request_is_built_and_merged() {
    let stage = Stage::set("healthy").await;
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    stage.merged("alpha", pull).await;
    stage
        .until("homu forgets it", async || {
            stage
                .town
                .homu
                .pull("alpha", pull)
                .await
                .is_none()
                .then_some(())
        })
        .await;
    assert_eq!(stage.town.buildbot.runs_of(&sha).len(), 2);
    let merged = stage
        .town
        .github
        .pull(&full_name("alpha"), pull)
        .expect("it exists");
    assert_eq!(merged.merged_as, Some(sha));
    assert_eq!(stage.town.homu.slot().await, None);
}

#[tokio::test]
async fn a_red_run_fails_the_pull_request() {
    let stage = Stage::set("red").await;
    stage.town.buildbot.set_results("mac", FAILURE);
    let pull = stage.approved("alpha").await;
    stage
        .until("it failed", async || {
            let state = stage.town.homu.pull("alpha", pull).await?;
            (state.status == Status::Failure).then_some(())
        })
        .await;
    assert!(!stage.town.is_merged("alpha", pull));
}

#[tokio::test]
async fn a_lost_start_jams_every_repository_until_an_unknown_builder_starts() {
    let stage = Stage::set("jam").await;
    stage.town.buildbot.lose(News::Started, None, Times::Always);
    let first = stage.approved("alpha").await;
    let sha = stage.pending("alpha", first).await.merge_sha;
    stage.merged("alpha", first).await;
    stage.quiet().await;
    assert_eq!(
        stage.town.homu.slot().await.as_ref(),
        Some(&sha),
        "also after the merge"
    );

    let second = stage.approved("beta").await;
    stage.quiet().await;
    let waiting = stage
        .town
        .homu
        .pull("beta", second)
        .await
        .expect("it is there");
    assert_eq!(waiting.shown_status(), "approved");
    stage.town.say("beta", second, "@homu retry").expect("said");
    stage.quiet().await;
    assert_eq!(stage.town.auto("beta"), None, "a retry frees no slot");

    stage.town.buildbot.restore_messages();
    let other = "1".repeat(40);
    assert_eq!(
        stage
            .packet("buildStarted", "ci-watchdog", &other, "")
            .await,
        200
    );
    assert_eq!(
        stage.town.homu.slot().await.as_ref(),
        Some(&sha),
        "another SHA frees nothing"
    );
    assert_eq!(
        stage.packet("buildStarted", "ci-watchdog", &sha, "").await,
        200
    );
    stage.merged("beta", second).await;
}

#[tokio::test]
async fn a_retry_without_a_free_slot_is_lost_and_with_one_makes_a_new_merge() {
    let stage = Stage::set("push").await;
    stage.town.github.drop_pushes("auto", Times::Once);
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    stage.town.say("alpha", pull, "@homu retry").expect("said");
    stage
        .until("it is no longer pending", async || {
            let state = stage.town.homu.pull("alpha", pull).await?;
            (state.status == Status::Idle).then_some(())
        })
        .await;
    stage.quiet().await;
    assert_eq!(
        stage.town.auto("alpha").as_ref(),
        Some(&sha),
        "nothing was started"
    );

    assert_eq!(
        stage.packet("buildStarted", "ci-watchdog", &sha, "").await,
        200
    );
    let again = stage.pending("alpha", pull).await.merge_sha;
    assert_ne!(again, sha);
    stage.merged("alpha", pull).await;
    assert!(stage.town.buildbot.runs_of(&sha).is_empty());
    let retried = stage.town.homu.retried().await;
    assert_eq!(retried.len(), 1);
    assert_eq!(retried[0].merge_sha, sha);
}

#[tokio::test]
async fn a_lost_result_is_waited_for_and_its_replay_merges() {
    let stage = Stage::set("result").await;
    stage
        .town
        .buildbot
        .lose(News::Finished, Some("mac"), Times::Once);
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    stage
        .until("linux is green", async || {
            let state = stage.town.homu.pull("alpha", pull).await?;
            (state.results["linux"].green == Some(true)).then_some(())
        })
        .await;
    stage.quiet().await;
    let waiting = stage
        .town
        .homu
        .pull("alpha", pull)
        .await
        .expect("it is there");
    assert_eq!(waiting.status, Status::Pending);
    assert_eq!(waiting.results["mac"].green, None);

    assert_eq!(
        stage.packet("buildFinished", "mac", &sha, "wrong").await,
        400
    );
    assert_eq!(
        stage.packet("buildFinished", "nobody", &sha, "wrong").await,
        200
    );
    let stale = "1".repeat(40);
    assert_eq!(
        stage.packet("buildFinished", "mac", &stale, "wrong").await,
        200
    );
    assert!(!stage.town.is_merged("alpha", pull));
    let secret = "secret-of-buildbot";
    assert_eq!(
        stage.packet("buildFinished", "mac", &sha, secret).await,
        200
    );
    stage.merged("alpha", pull).await;
    assert_eq!(
        stage.town.buildbot.runs_of(&sha).len(),
        2,
        "nothing ran twice"
    );
}

#[tokio::test]
async fn a_start_under_its_own_name_takes_a_result_back() {
    let stage = Stage::set("forget").await;
    stage
        .town
        .buildbot
        .set_steps("mac", &steps(Duration::from_secs(60)));
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    stage
        .until("linux is green", async || {
            let state = stage.town.homu.pull("alpha", pull).await?;
            (state.results["linux"].green == Some(true)).then_some(())
        })
        .await;
    let secret = "secret-of-buildbot";
    assert_eq!(
        stage.packet("buildStarted", "linux", &sha, secret).await,
        200
    );
    let state = stage
        .town
        .homu
        .pull("alpha", pull)
        .await
        .expect("it is there");
    assert_eq!(state.results["linux"].green, None);
    assert!(
        state.results["linux"]
            .url
            .ends_with("/builders/linux/builds/9")
    );

    stage.town.say("alpha", pull, "@homu retry").expect("said");
    stage
        .until("it is built anew", async || {
            let state = stage.town.homu.pull("alpha", pull).await?;
            (state.merge_sha != sha).then_some(())
        })
        .await;
    let comments = stage.town.github.comments(&full_name("alpha"), pull);
    assert!(
        comments
            .iter()
            .all(|comment| !comment.body.contains(":bomb:")),
        "{comments:?}"
    );
}

#[tokio::test]
async fn a_rebuild_in_part_is_more_than_a_buildbot_4_can_do() {
    let stage = Stage::set("rebuild").await;
    stage
        .town
        .buildbot
        .set_steps("mac", &steps(Duration::from_secs(60)));
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    stage
        .until("linux is green", async || {
            let state = stage.town.homu.pull("alpha", pull).await?;
            (state.results["linux"].green == Some(true)).then_some(())
        })
        .await;
    stage.town.say("alpha", pull, "@homu retry").expect("said");
    stage
        .until("it is built anew", async || {
            let state = stage.town.homu.pull("alpha", pull).await?;
            (state.merge_sha != sha && state.status == Status::Pending).then_some(())
        })
        .await;
    let comments = stage.town.github.comments(&full_name("alpha"), pull);
    let bomb = ":bomb: Failed to start rebuilding: `404 - No Such Resource`";
    assert!(
        comments.iter().any(|comment| comment.body == bomb),
        "{comments:?}"
    );
}

#[tokio::test]
async fn a_closed_pull_request_leaves_its_slot_held() {
    let stage = Stage::set("closed").await;
    stage.town.github.drop_pushes("auto", Times::Once);
    let first = stage.approved("alpha").await;
    let sha = stage.pending("alpha", first).await.merge_sha;
    let second = stage.approved("alpha").await;
    stage
        .town
        .github
        .close(&full_name("alpha"), first, "author")
        .expect("closed");
    stage
        .until("homu forgets it", async || {
            stage
                .town
                .homu
                .pull("alpha", first)
                .await
                .is_none()
                .then_some(())
        })
        .await;
    stage.quiet().await;
    let waiting = stage
        .town
        .homu
        .pull("alpha", second)
        .await
        .expect("it is there");
    assert_eq!(waiting.shown_status(), "approved");
    assert_eq!(
        stage.packet("buildStarted", "ci-watchdog", &sha, "").await,
        200
    );
    stage.merged("alpha", second).await;
}

#[tokio::test]
async fn a_new_head_drops_approval_and_a_lost_one_stops_the_queue() {
    let stage = Stage::set("head").await;
    // The slot keeps the second pull request waiting while its head moves.
    stage.town.buildbot.lose(News::Started, None, Times::Always);
    let first = stage.approved("alpha").await;
    let sha = stage.pending("alpha", first).await.merge_sha;
    stage.merged("alpha", first).await;
    let second = stage.approved("alpha").await;
    stage
        .until("it is approved", async || {
            let state = stage.town.homu.pull("alpha", second).await?;
            (state.shown_status() == "approved").then_some(())
        })
        .await;
    stage.town.github.drop_webhooks("pull_request", Times::Once);
    stage
        .town
        .github
        .push_to_pull(&full_name("alpha"), second)
        .expect("pushed");
    stage.quiet().await;
    assert_eq!(
        stage.packet("buildStarted", "ci-watchdog", &sha, "").await,
        500,
        "the assertion on the head fails"
    );
    stage
        .town
        .github
        .push_to_pull(&full_name("alpha"), second)
        .expect("pushed");
    stage
        .until("its approval is gone", async || {
            let state = stage.town.homu.pull("alpha", second).await?;
            state.approved_by.is_empty().then_some(())
        })
        .await;
    stage.town.buildbot.restore_messages();
    stage.town.approve("alpha", second).expect("approved");
    stage.merged("alpha", second).await;
}

#[tokio::test]
async fn a_webhook_with_another_signature_is_refused() {
    let stage = Stage::set("signature").await;
    let body = json!({"repository": {"name": "alpha", "owner": {"login": "example"}}}).to_string();
    let answer = stage
        .client
        .post(stage.town.homu.webhook_url())
        .header("x-github-event", "issue_comment")
        .header("x-hub-signature", format!("sha1={}", "0".repeat(40)))
        .body(body)
        .send()
        .await
        .expect("homu answers");
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn a_frozen_worker_looks_connected_and_catches_up_when_it_thaws() {
    let stage = Stage::set("freeze").await;
    stage
        .town
        .buildbot
        .set_steps("mac", &steps(Duration::from_secs(2)));
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    let run = stage
        .until("mac runs", async || {
            stage
                .town
                .buildbot
                .runs_of(&sha)
                .into_iter()
                .find(|run| run.builder == "mac")
        })
        .await;
    stage.town.buildbot.freeze(&run.worker);
    let api = format!("{}/api/v2", stage.town.buildbot.url());
    let build = format!("{api}/builds?complete=false&property=revision");
    let steps = async || {
        let open = stage.get(build.clone()).await["builds"][0]["buildid"]
            .as_u64()
            .expect("open");
        stage.get(format!("{api}/builds/{open}/steps")).await
    };
    stage
        .until("only mac is open", async || {
            (stage.get(build.clone()).await["meta"]["total"] == 1).then_some(())
        })
        .await;
    let before = steps().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(steps().await, before);
    let workers = stage
        .get(format!("{api}/workers?name={}", run.worker))
        .await;
    assert_eq!(
        workers["workers"][0]["connected_to"],
        json!([{"masterid": 1}])
    );
    let frozen = stage.town.buildbot.runs_of(&sha);
    let frozen = frozen
        .iter()
        .find(|it| it.builder == "mac")
        .expect("it is there");
    assert!(!frozen.is_alive_at(Instant::now()));

    stage.town.buildbot.thaw(&run.worker);
    let thawed = Instant::now();
    stage.merged("alpha", pull).await;
    assert!(
        thawed.elapsed() < Duration::from_secs(1),
        "{:?}",
        thawed.elapsed()
    );
}

#[tokio::test]
async fn a_lost_worker_gives_its_request_to_another_without_a_word() {
    let stage = Stage::set("lost").await;
    stage
        .town
        .buildbot
        .set_steps("mac", &steps(Duration::from_secs(1)));
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    let run = stage
        .until("mac runs", async || {
            stage
                .town
                .buildbot
                .runs_of(&sha)
                .into_iter()
                .find(|run| run.builder == "mac")
        })
        .await;
    stage.town.buildbot.disconnect(&run.worker);
    stage.merged("alpha", pull).await;
    let runs = stage.town.buildbot.runs_of(&sha);
    let tries: Vec<_> = runs.iter().filter(|run| run.builder == "mac").collect();
    assert_eq!(tries.len(), 2);
    assert_eq!(tries[0].request, tries[1].request);
    assert_ne!(tries[0].worker, tries[1].worker);
    let ends = stage.town.buildbot.messages();
    let ends = ends.iter().filter(|message| message.news == News::Finished);
    assert_eq!(ends.count(), 2, "the end as RETRY is not told");
}

#[tokio::test]
async fn a_master_that_was_killed_begins_anew_what_was_open() {
    let stage = Stage::set("master").await;
    let both = steps(Duration::from_secs(1));
    BUILDERS
        .iter()
        .for_each(|builder| stage.town.buildbot.set_steps(builder, &both));
    let pull = stage.approved("alpha").await;
    let sha = stage.pending("alpha", pull).await.merge_sha;
    stage
        .until("both run", async || {
            (stage.town.buildbot.runs_of(&sha).len() == 2).then_some(())
        })
        .await;
    stage.town.buildbot.go_down().await.expect("down");
    let api = format!("{}/api/v2/masters", stage.town.buildbot.url());
    assert!(
        stage
            .client
            .get(&api)
            .send()
            .await
            .expect_err("it is down")
            .is_connect()
    );
    stage.quiet().await;
    stage.town.buildbot.come_up().expect("up");
    stage.merged("alpha", pull).await;
    let runs = stage.town.buildbot.runs_of(&sha);
    assert_eq!(runs.len(), 4, "{runs:?}");
}
