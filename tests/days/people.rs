//! The people of a day: the reviewer approves, says so again where homu did not hear it, and retries
//! what is flaky or could not be merged; each pull request's jobs go as is planned for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::diary::{At, Diary};
use super::eyes::Eyes;
use super::schedule::{PlannedPull, Schedule, Temper};
use crate::stack::Stack;
use crate::stack::config::{BOT, REVIEWER};
use crate::stack::jobs::Order;

/// How often the reviewer looks.
const LOOK: Duration = Duration::from_millis(500);
/// After so long without an effect a person says it again, seconds. homu calls GitHub many times
/// before it shows one.
const PATIENCE: At = 20.0;
/// Long enough for any question to homu, which may be down.
const ANSWER: Duration = Duration::from_secs(3);

/// What the reviewer does all day, for ever.
pub async fn live(stack: &Stack, schedule: &Schedule, diary: &Diary, eyes: &Eyes) {
    let mut approved: BTreeMap<(&str, u64), At> = BTreeMap::new();
    let mut retried: BTreeMap<(&str, u64), At> = BTreeMap::new();
    loop {
        for pull in &schedule.pulls {
            let place = (pull.label, pull.number);
            if diary.now() < at(pull.approved_at) || stack.is_merged(pull.label, pull.number) {
                continue;
            }
            let said = approved.get(&place).copied();
            if said
                .is_none_or(|said| diary.now() > said + PATIENCE && eyes.status_of(pull).is_empty())
            {
                if said.is_some() && !not_approved(stack, pull).await {
                    continue;
                }
                say(stack, diary, pull, "r+");
                approved.insert(place, diary.now());
            }
            let wants_another = match eyes.status_of(pull).as_str() {
                "failure" => matches!(pull.temper, Temper::Flaky(_)),
                // All was green, and homu could not merge it, which it says on the pull request: homu
                // 0.2.0 can start the next build before it has merged the one before.
                "error" => true,
                _ => false,
            };
            let said = retried.get(&place);
            if wants_another && said.is_none_or(|said| diary.now() > said + PATIENCE) {
                say(stack, diary, pull, "retry");
                retried.insert(place, diary.now());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells the runs of the commits that homu tests how to go, for ever: only when homu waits for one is
/// it known.
pub async fn order_jobs(stack: &Stack, schedule: &Schedule, eyes: &Eyes) {
    let mut ordered: BTreeSet<(String, bool)> = BTreeSet::new();
    loop {
        for pull in &schedule.pulls {
            let sha = eyes.commit_of(pull);
            let failed = eyes.has_failed(pull);
            if sha.is_empty() || !ordered.insert((sha.clone(), failed)) {
                continue;
            }
            for builder in Schedule::builders(pull.label) {
                let green = match &pull.temper {
                    Temper::Green => true,
                    Temper::Red(at) => *at != builder,
                    Temper::Flaky(at) => failed || *at != builder,
                };
                let seconds = pull.step_seconds;
                let order = Order::Work { seconds, green };
                stack.jobs.set_commit(&builder, &sha, order);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether homu's page shows that a pull request is not approved.
async fn not_approved(stack: &Stack, pull: &PlannedPull) -> bool {
    let row = tokio::time::timeout(ANSWER, stack.queued(pull.label, pull.number)).await;
    matches!(row, Ok(Some(row)) if row.approved_by.is_empty() && row.status.is_empty())
}

fn say(stack: &Stack, diary: &Diary, pull: &PlannedPull, command: &str) {
    let (label, number) = (pull.label, pull.number);
    diary.say(format_args!("a person says {command} on {label}#{number}"));
    stack.say(label, number, REVIEWER, &format!("@{BOT} {command}"));
}

fn at(seconds: u64) -> At {
    // A day has some hundred.
    seconds as At
}
