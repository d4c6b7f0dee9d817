//! The story: six acts, each of which breaks one thing and says what should come of it.

use std::time::{Duration, Instant};

use super::buildbot::{Fate, News, RunSeen};
use super::github::Times;
use super::homu::short;
use super::stage::{DidNotCome, Heard, Stage};
use super::summary::{Row, Summary};
use super::town::{BUILDERS, Town, full_name, steps};

/// How long a run takes where nothing else is said.
const RUN: Duration = Duration::from_secs(3);
/// How long Buildbot is gone in the last act: longer than a death needs to be believed.
const OUTAGE: Duration = Duration::from_secs(10);

/// What an act came to, before its messages are looked at.
struct Played {
    took: Option<Duration>,
    /// The kinds of message that the watchdog should have sent, in order.
    expected: &'static [&'static str],
    /// What was not as told.
    differed: Vec<String>,
}

/// Plays all acts; an act that does not come to its end is the last.
pub async fn play(stage: &mut Stage) -> Summary {
    let mut summary = Summary::default();
    for act in 1..=6 {
        let (broke, did, played) = match act {
            1 => ("nothing", "nothing", healthy(stage).await),
            2 => (
                "the start of a run was not told",
                "released the start slot; nothing was rebuilt",
                lost_start(stage).await,
            ),
            3 => (
                "the push never reached Buildbot",
                "released the slot, asked for a retry",
                lost_push(stage).await,
            ),
            4 => (
                "a result was not told",
                "replayed it; nothing was rebuilt",
                lost_result(stage).await,
            ),
            5 => (
                "a worker froze",
                "asked for a retry; another worker took it",
                frozen_worker(stage).await,
            ),
            _ => (
                "Buildbot was down",
                "nothing: the verdict was unknown",
                outage(stage).await,
            ),
        };
        let heard = stage.end().await;
        let reruns = heard
            .iter()
            .filter(|heard| heard.sent.word() == "retry")
            .count();
        let (took, differed, over) = match played {
            Ok(Played {
                took,
                expected,
                mut differed,
            }) => {
                differed.extend(unexpected(act, &heard, expected));
                (took, differed, false)
            }
            Err(missing) => (None, vec![format!("act {act}: {missing}")], true),
        };
        summary.rows.push(Row {
            broke,
            did,
            took,
            messages: heard.len(),
            reruns,
            differed,
        });
        if over {
            break;
        }
    }
    summary.live_restarted = live_restarted(&stage.town).await;
    summary.took = stage.elapsed();
    summary
}

async fn healthy(stage: &mut Stage) -> Result<Played, DidNotCome> {
    stage
        .begin("1. All is well: a pull request is approved, built and merged. Nothing to do.")
        .await;
    every_run_takes(stage, RUN);
    let pull = stage.open("alpha", "Say hello").await?;
    let sha = stage.approve("alpha", pull).await?;
    stage.merged("alpha", pull).await?;
    let differed = runs_differ(&stage.town, "act 1", &sha, 2);
    Ok(Played {
        took: None,
        expected: &[],
        differed,
    })
}

async fn lost_start(stage: &mut Stage) -> Result<Played, DidNotCome> {
    stage.begin(
        "2. Buildbot starts a build, and its word of that is lost. homu starts nothing anywhere \
         until it hears\n   that word. Watch: the run goes on untouched, and beta gets its turn.",
    ).await;
    let town = stage.town.clone();
    every_run_takes(stage, Duration::from_secs(9));
    for builder in BUILDERS {
        town.buildbot
            .lose(News::Started, Some(builder), Times::Once);
    }
    let first = stage.open("alpha", "Count faster").await?;
    let sha = stage.approve("alpha", first).await?;
    running(stage, &sha).await?;
    let lost = Instant::now();
    stage.say(
        "buildbot",
        &format!(
            "runs {}, and both messages of the start are lost",
            short(&sha)
        ),
    );
    every_run_takes(stage, RUN);
    let second = stage.open("beta", "Greet everybody").await?;
    stage.ask("beta", second)?;
    stage.pass(Duration::from_millis(500)).await;
    let slot = town.homu.slot().await;
    stage.say(
        "homu",
        &format!(
            "beta#{second}: nothing starts, one slot waits for {}",
            short(&sha)
        ),
    );
    let mut differed = vec![];
    if slot.as_ref() != Some(&sha) {
        differed.push("act 2: the start slot was not held".to_owned());
    }
    let released = stage.hears("release").await?;
    stage.pending("beta", second, "").await?;
    let took = lost.elapsed();
    if !town
        .buildbot
        .runs_of(&sha)
        .iter()
        .any(|run| run.is_alive_at(released))
    {
        differed.push("act 2: the run of alpha had ended before the release".to_owned());
    }
    stage.merged("beta", second).await?;
    stage.merged("alpha", first).await?;
    differed.extend(runs_differ(&town, "act 2", &sha, 2));
    Ok(Played {
        took: Some(took),
        expected: &["release"],
        differed,
    })
}

async fn lost_push(stage: &mut Stage) -> Result<Played, DidNotCome> {
    stage.begin(
        "3. GitHub's news of a push never reaches Buildbot: there is no run at all, and homu would \
         wait for ever.\n   Watch: one retry, and the merge is of another commit.",
    ).await;
    let town = stage.town.clone();
    every_run_takes(stage, RUN);
    town.github.drop_pushes("auto", Times::Once);
    let pull = stage.open("alpha", "Print less").await?;
    let lost = stage.approve("alpha", pull).await?;
    let since = Instant::now();
    stage.say(
        "github",
        &format!("the news of {} for Buildbot is lost", short(&lost)),
    );
    stage.hears("retry").await?;
    let sha = stage.pending("alpha", pull, &lost).await?;
    let took = since.elapsed();
    stage.merged("alpha", pull).await?;
    let mut differed = runs_differ(&town, "act 3", &lost, 0);
    differed.extend(runs_differ(&town, "act 3", &sha, 2));
    differed.extend(merge_differs(&town, "act 3", "alpha", pull, &sha));
    Ok(Played {
        took: Some(took),
        expected: &["release", "retry"],
        differed,
    })
}

async fn lost_result(stage: &mut Stage) -> Result<Played, DidNotCome> {
    stage.begin(
        "4. Both runs end green, and the message of one of them is lost.\n   Watch: the result is \
         told again; nothing is built twice.",
    ).await;
    let town = stage.town.clone();
    every_run_takes(stage, RUN);
    town.buildbot.lose(News::Finished, Some("mac"), Times::Once);
    let pull = stage.open("beta", "Fix a typo").await?;
    let sha = stage.approve("beta", pull).await?;
    let buildbot = town.buildbot.clone();
    stage
        .until("the end of both runs", async || {
            let runs = buildbot.runs_of(&sha);
            runs.len() == 2 && runs.iter().all(|run| run.ended.is_some())
        })
        .await?;
    let since = Instant::now();
    stage.say(
        "buildbot",
        &format!("{} is green, and mac's message is lost", short(&sha)),
    );
    stage.hears("result").await?;
    stage.merged("beta", pull).await?;
    let took = since.elapsed();
    let mut differed = runs_differ(&town, "act 4", &sha, 2);
    differed.extend(merge_differs(&town, "act 4", "beta", pull, &sha));
    Ok(Played {
        took: Some(took),
        expected: &["result"],
        differed,
    })
}

async fn frozen_worker(stage: &mut Stage) -> Result<Played, DidNotCome> {
    stage.begin(
        "5. A worker freezes in the middle of a run. To Buildbot it looks connected, and the run \
         looks alive.\n   Watch: silence is what gives it away; its late result changes nothing.",
    ).await;
    let town = stage.town.clone();
    every_run_takes(stage, Duration::from_secs(4));
    let pull = stage.open("alpha", "Sort the list").await?;
    let lost = stage.approve("alpha", pull).await?;
    running(stage, &lost).await?;
    stage.pass(Duration::from_millis(1_200)).await;
    let Some(run) = run_of(&town, &lost, "mac") else {
        return Err(DidNotCome("the run of mac".to_owned()));
    };
    town.buildbot.freeze(&run.worker);
    let since = Instant::now();
    stage.say(
        "buildbot",
        &format!("{} freezes; nobody is told", run.worker),
    );
    stage.hears("retry").await?;
    let sha = stage.pending("alpha", pull, &lost).await?;
    let took = since.elapsed();
    running(stage, &sha).await?;
    let mut differed = vec![];
    if run_of(&town, &sha, "mac").is_none_or(|again| again.worker == run.worker) {
        differed.push("act 5: the rerun went to the frozen worker".to_owned());
    }
    town.buildbot.thaw(&run.worker);
    stage.say(
        "buildbot",
        &format!("{} thaws, and reports its old run as green", run.worker),
    );
    let buildbot = town.buildbot.clone();
    stage
        .until("the late result", async || {
            buildbot.messages().iter().any(|message| {
                message.revision == lost
                    && message.builder == "mac"
                    && message.news == News::Finished
                    && message.fate == Fate::Answered(200)
            })
        })
        .await?;
    let now = town.homu.pull("alpha", pull).await;
    if now.is_none_or(|now| now.merge_sha != sha || now.results["mac"].green.is_some()) {
        differed.push("act 5: the late result changed something".to_owned());
    }
    stage.merged("alpha", pull).await?;
    differed.extend(runs_differ(&town, "act 5", &sha, 2));
    differed.extend(merge_differs(&town, "act 5", "alpha", pull, &sha));
    Ok(Played {
        took: Some(took),
        expected: &["release", "forget", "retry"],
        differed,
    })
}

async fn outage(stage: &mut Stage) -> Result<Played, DidNotCome> {
    stage
        .begin(
            "6. Buildbot is killed in the middle of a build, and comes back later.\n   Watch: what \
         cannot be seen is unknown, not dead. Nothing is sent.",
        )
        .await;
    let town = stage.town.clone();
    every_run_takes(stage, Duration::from_secs(4));
    let pull = stage.open("beta", "Add a flag").await?;
    let sha = stage.approve("beta", pull).await?;
    running(stage, &sha).await?;
    stage.pass(Duration::from_secs(1)).await;
    let broken = |error: std::io::Error| DidNotCome(format!("Buildbot ({error})"));
    town.buildbot.go_down().await.map_err(broken)?;
    stage.say("buildbot", "is gone: every connection is refused");
    let since = Instant::now();
    stage.judged("beta", pull, "unknown").await?;
    stage.pass(OUTAGE.saturating_sub(since.elapsed())).await;
    town.buildbot.come_up().map_err(broken)?;
    stage.say("buildbot", "is back, and begins anew what it was at");
    stage.judged("beta", pull, "alive").await?;
    stage.merged("beta", pull).await?;
    let mut differed = runs_differ(&town, "act 6", &sha, 4);
    differed.extend(merge_differs(&town, "act 6", "beta", pull, &sha));
    Ok(Played {
        took: None,
        expected: &[],
        differed,
    })
}

fn every_run_takes(stage: &Stage, time: Duration) {
    for builder in BUILDERS {
        stage.town.buildbot.set_steps(builder, &steps(time));
    }
}

/// Waits until workers are at work on both builders of a commit.
async fn running(stage: &mut Stage, sha: &str) -> Result<(), DidNotCome> {
    let buildbot = stage.town.buildbot.clone();
    stage
        .until(&format!("the runs of {}", short(sha)), async || {
            buildbot.runs_of(sha).len() == 2
        })
        .await
}

fn run_of(town: &Town, sha: &str, builder: &str) -> Option<RunSeen> {
    town.buildbot
        .runs_of(sha)
        .into_iter()
        .find(|run| run.builder == builder)
}

fn runs_differ(town: &Town, act: &str, sha: &str, expected: usize) -> Vec<String> {
    let runs = town.buildbot.runs_of(sha).len();
    let differs = (runs != expected).then(|| {
        format!(
            "{act}: {} was tried {runs} times, not {expected}",
            short(sha)
        )
    });
    differs.into_iter().collect()
}

fn merge_differs(town: &Town, act: &str, label: &str, pull: u64, sha: &str) -> Vec<String> {
    let merged = town
        .github
        .pull(&full_name(label), pull)
        .and_then(|pull| pull.merged_as);
    let differs = (merged.as_deref() != Some(sha))
        .then(|| format!("{act}: {label}#{pull} was merged as {merged:?}, not {sha}"));
    differs.into_iter().collect()
}

fn unexpected(act: u32, heard: &[Heard], expected: &[&str]) -> Option<String> {
    let words: Vec<String> = heard.iter().map(|heard| heard.sent.word()).collect();
    (words != expected).then(|| {
        format!("act {act}: the watchdog sent {words:?}, and {expected:?} was to be expected")
    })
}

/// How many retries homu obeyed while somebody was at work on the build.
async fn live_restarted(town: &Town) -> usize {
    let retried = town.homu.retried().await;
    let live = retried.iter().filter(|retried| {
        let runs = town.buildbot.runs_of(&retried.merge_sha);
        runs.iter().any(|run| run.is_alive_at(retried.at))
    });
    live.count()
}
