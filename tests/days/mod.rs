//! Bad days: a seed breaks the real stack for three minutes. When that is over, every pull request must
//! be merged, honestly failed, or held with a reason; and no rule was broken meanwhile.
//!
//! The seed sets what is done and when. Real processes are not that exact: the same seed gives the same
//! script, not the same day to the millisecond.

mod diary;
mod eyes;
mod greens;
mod people;
#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../simulation/random.rs"]
mod random;
mod referee;
mod schedule;
mod strikes;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use diary::{At, Diary};
use eyes::{BEHIND, Eyes};
use referee::{Account, RERUNS_PER_PULL};
use schedule::{PlannedPull, Schedule, Temper};

use crate::stack::Stack;
use crate::stack::buildbot::FAILURE;
use crate::stack::watchdog::WatchdogSettings;

/// How long everything may take to come to its end after the trouble, seconds. The longest way is that
/// of a silent run (`heartbeat`), an outage of five deaths (`outage_window`, `storm_cooldown`), two
/// reruns with their cooldowns, and then the whole queue of a repository, one after the other.
const END_WITHIN: At = 300.0;

/// What is held without a break for so long is held for good, seconds: longer than `effect`, the
/// longest cooldown of two reruns, and the looks of a death.
const HELD_FOR: At = 20.0;

/// The gates that may rightly hold when all faults have ended: limits that only time or a person
/// lifts. All others must open by themselves.
const LASTING: [&str; 4] = [
    "message_sent",
    "pull_budget",
    "worker_killer",
    "zone_budget",
];

/// How a day went.
pub struct Day {
    pub seed: u64,
    pub pulls: usize,
    pub merged: usize,
    pub failed: usize,
    pub held: BTreeMap<String, usize>,
    pub strikes: usize,
    /// From the trouble's end to the last pull request's.
    pub mended: At,
    pub stuck: At,
    /// What the watchdog told homu, by kind.
    pub told: BTreeMap<String, usize>,
    pub reruns: usize,
}

/// How a pull request ended.
enum End {
    Merged,
    Failed,
    Held(String),
}

/// The watchdog's settings: as in all these tests, with more patience where four busy stacks share two
/// processors, and reruns enough for a day.
fn settings() -> WatchdogSettings {
    WatchdogSettings::quick()
        .set("timeouts.start", "\"6s\"")
        .set("timeouts.heartbeat", "\"12s\"")
        .set("timeouts.pinging", "\"6s\"")
        .set("safety.reruns_per_pull", &RERUNS_PER_PULL.to_string())
        .set("safety.reruns_per_zone_hour", "30")
}

/// Lives through the day of a seed; panics with its whole story where it does not end well.
pub async fn live(seed: u64) -> Day {
    let schedule = Schedule::of(seed);
    let stack = Stack::start(schedule.stack()).await;
    stack.start_watchdog(&settings()).await;
    let (diary, eyes) = (Diary::new(), Eyes::default());
    let bridge_begun = diary.now() - stack.bridge.age().as_secs_f64();
    let day = async {
        strikes::strike_all(&stack, &schedule, &diary).await;
        let trouble_ended = diary.now();
        let ends = loop {
            match ends(&stack, &schedule, &diary, &eyes).await {
                Err(_) if diary.now() < trouble_ended + END_WITHIN => {}
                ends => break ends,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        (ends, diary.now() - trouble_ended)
    };
    // All of them go on for ever but the first.
    let (ends, mended) = tokio::select! {
        day = day => day,
        () = people::live(&stack, &schedule, &diary, &eyes) => unreachable!("it never ends"),
        () = people::order_jobs(&stack, &schedule, &eyes) => unreachable!("it never ends"),
        () = eyes.watch_homu(&stack, &schedule, &diary) => unreachable!("it never ends"),
        () = eyes.watch_watchdog(&stack, &schedule, &diary) => unreachable!("it never ends"),
    };
    let account = Account::read(&stack, &diary).await;
    let mut broken = referee::broken_rules(&stack, &diary, &eyes, &account, bridge_begun).await;
    broken.extend(greens::broken_rules(&stack, &schedule, &account));
    let ends = ends.unwrap_or_else(|open| {
        broken.extend(open.into_iter().map(|pull| format!("no end of {pull}")));
        vec![]
    });
    if !broken.is_empty() {
        panic!(
            "replay with CI_WATCHDOG_DAY={seed}:\n{}\n--- the plan\n{schedule}--- what was done\n{}\n{}",
            broken.join("\n"),
            diary.lines(),
            stack.story().await
        );
    }

    let mut told = BTreeMap::new();
    for words in stack.told() {
        let kind = words.split(' ').next().unwrap_or_default().to_owned();
        *told.entry(kind).or_insert(0) += 1;
    }
    let mut day = Day {
        seed,
        pulls: ends.len(),
        merged: 0,
        failed: 0,
        held: BTreeMap::new(),
        strikes: schedule.strikes.len(),
        mended,
        stuck: eyes.stuck_seconds(),
        told,
        reruns: referee::reruns(&stack),
    };
    for end in ends {
        match end {
            End::Merged => day.merged += 1,
            End::Failed => day.failed += 1,
            End::Held(gate) => *day.held.entry(gate).or_insert(0) += 1,
        }
    }
    println!("{day}");
    day
}

/// How every pull request ended, or those that have not, in words.
async fn ends(
    stack: &Stack,
    schedule: &Schedule,
    diary: &Diary,
    eyes: &Eyes,
) -> Result<Vec<End>, Vec<String>> {
    let account = Account::read(stack, diary).await;
    let (mut ends, mut open) = (Vec::new(), Vec::new());
    for pull in &schedule.pulls {
        match end(stack, diary, eyes, &account, pull) {
            Some(end) => ends.push(end),
            None => open.push(format!(
                "{}#{}: {:?} of {:.7}, held by {:?}",
                pull.label,
                pull.number,
                eyes.status_of(pull),
                eyes.commit_of(pull),
                eyes.held(pull)
            )),
        }
    }
    if open.is_empty() { Ok(ends) } else { Err(open) }
}

fn end(
    stack: &Stack,
    diary: &Diary,
    eyes: &Eyes,
    account: &Account,
    pull: &PlannedPull,
) -> Option<End> {
    if stack.is_merged(pull.label, pull.number) {
        return Some(End::Merged);
    }
    let sha = eyes.commit_of(pull);
    let builders = Schedule::builders(pull.label);
    let is_red = |run: &referee::Run| {
        run.revision == sha && builders.contains(&run.builder) && run.results == Some(FAILURE)
    };
    let will_be_retried = matches!(pull.temper, Temper::Flaky(_));
    if eyes.status_of(pull) == "failure" && !will_be_retried && account.runs.iter().any(is_red) {
        return Some(End::Failed);
    }
    let (gate, since) = eyes.held(pull)?;
    let of_whom = gate.strip_prefix(BEHIND).unwrap_or(&gate);
    let lasts = LASTING.contains(&of_whom) && diary.now() > since + HELD_FOR;
    lasts.then_some(End::Held(gate))
}

impl fmt::Display for Day {
    /// A row of a table: seed, pull requests, merged, failed, held, strikes, end, stuck, told, reruns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |of: &BTreeMap<String, usize>| {
            let words: Vec<String> = of.iter().map(|(what, n)| format!("{what} {n}")).collect();
            if words.is_empty() {
                "-".to_owned()
            } else {
                words.join(", ")
            }
        };
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {:.0} | {:.0} | {} | {} |",
            self.seed,
            self.pulls,
            self.merged,
            self.failed,
            list(&self.held),
            self.strikes,
            self.mended,
            self.stuck,
            list(&self.told),
            self.reruns
        )
    }
}
