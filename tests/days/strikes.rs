//! Breaks the real stack as a schedule says, and mends it.

use std::collections::BTreeMap;
use std::time::Duration;

use ci_watchdog::demo::github::Times;
use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::diary::{Diary, State};
use super::schedule::{Actor, Schedule, Strike, StrikeKind, TROUBLE, WORKERS};
use crate::stack::Stack;
use crate::stack::message::{Pattern, Sender};

/// How long a worker may take to connect again before it is started anew, as a person would do.
const CONNECTS_WITHIN: Duration = Duration::from_secs(20);

/// Lets all of it happen; when it returns, everything works again.
pub async fn strike_all(stack: &Stack, schedule: &Schedule, diary: &Diary) {
    // A slow machine mends more slowly than was planned; the next strike on a process waits for it.
    let actors = schedule.strikes.iter().filter_map(|it| it.kind.actor());
    let turns: BTreeMap<Actor, Mutex<()>> = actors.map(|it| (it, Mutex::default())).collect();
    let strikes = schedule.strikes.iter().map(async |strike| {
        diary.until(strike.at).await;
        let _turn = match strike.kind.actor() {
            Some(actor) => Some(turns[&actor].lock().await),
            None => None,
        };
        strike_once(stack, diary, strike).await;
    });
    join_all(strikes).await;
    diary.until(TROUBLE).await;
    stack.bridge.heal();
    stack.buildbot_bridge.heal();
    diary.say("the trouble ends");
    for worker in WORKERS {
        connect(stack, diary, worker).await;
    }
    diary.say("all workers are connected");
}

async fn strike_once(stack: &Stack, diary: &Diary, strike: &Strike) {
    diary.say(format_args!("{:?} for {} s", strike.kind, strike.lasts));
    let over = diary.until(strike.at + strike.lasts);
    let lose = |times: u64, pattern: Pattern| {
        for _ in 0..times {
            stack.bridge.drop_next(pattern.clone());
        }
    };
    match strike.kind {
        StrikeKind::PushLost => stack.github.drop_pushes("auto", Times::Once),
        StrikeKind::StartsLost(times) => lose(times, Pattern::started().from(Sender::Reporter)),
        StrikeKind::ResultsLost(times) => lose(times, Pattern::finished().from(Sender::Reporter)),
        StrikeKind::CommentLost => lose(1, Pattern::comment().from(Sender::Github)),
        StrikeKind::RequestsLost(times) => lose(times, Pattern::change().from(Sender::Watchdog)),
        StrikeKind::AnswersLost(times) => {
            for _ in 0..times {
                let next = Pattern::change().from(Sender::Watchdog);
                stack.bridge.lose_next_answer(next);
            }
        }
        StrikeKind::WorkerKilled(name) => {
            stack.buildbot.worker(name).kill9();
            diary.becomes(Actor::Worker(name), State::Gone);
            over.await;
            diary.becomes(Actor::Worker(name), State::Working);
            stack.buildbot.worker(name).start();
        }
        StrikeKind::WorkerFrozen(name) => {
            stack.buildbot.worker(name).freeze();
            diary.becomes(Actor::Worker(name), State::Frozen);
            over.await;
            diary.becomes(Actor::Worker(name), State::Working);
            stack.buildbot.worker(name).thaw();
        }
        StrikeKind::MasterStopped => {
            if !stack.buildbot.stop_or_kill_master().await {
                diary.say("the master did not end in time, and was killed");
            }
            diary.becomes(Actor::Master, State::Gone);
            over.await;
            start_master(stack, diary).await;
        }
        StrikeKind::MasterKilled => {
            stack.buildbot.kill9_master();
            diary.becomes(Actor::Master, State::Gone);
            over.await;
            start_master(stack, diary).await;
        }
        StrikeKind::MasterFrozen => {
            stack.buildbot.freeze_master();
            diary.becomes(Actor::Master, State::Frozen);
            over.await;
            diary.becomes(Actor::Master, State::Working);
            stack.buildbot.thaw_master();
        }
        StrikeKind::HomuKilled => {
            stack.kill9_homu();
            diary.becomes(Actor::Homu, State::Gone);
            over.await;
            stack.start_homu().await;
            diary.becomes(Actor::Homu, State::Working);
        }
        StrikeKind::WatchdogKilled => {
            stack.kill9_watchdog();
            diary.becomes(Actor::Watchdog, State::Gone);
            over.await;
            stack.watchdog.start().await;
            diary.becomes(Actor::Watchdog, State::Working);
        }
        StrikeKind::WatchdogFrozen => {
            stack.watchdog.freeze();
            diary.becomes(Actor::Watchdog, State::Frozen);
            over.await;
            stack.watchdog.thaw();
            diary.becomes(Actor::Watchdog, State::Working);
        }
    }
}

async fn start_master(stack: &Stack, diary: &Diary) {
    diary.becomes(Actor::Master, State::Working);
    stack.buildbot.start_master().await;
}

/// Waits until the master holds a connection to a worker. One that waits long until it tries again
/// after a master's restart is started anew.
async fn connect(stack: &Stack, diary: &Diary, name: &'static str) {
    let connected = async || {
        while !stack.buildbot.is_connected(name).await {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    if tokio::time::timeout(CONNECTS_WITHIN, connected())
        .await
        .is_err()
    {
        diary.say(format_args!("{name} does not connect, and is started anew"));
        stack.buildbot.worker(name).kill9();
        diary.becomes(Actor::Worker(name), State::Gone);
        diary.becomes(Actor::Worker(name), State::Working);
        stack.buildbot.worker(name).start();
        stack
            .wait_until(&format!("{name} to connect"), async || {
                stack.buildbot.is_connected(name).await
            })
            .await;
    }
}
