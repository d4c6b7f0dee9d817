//! What is really alive in the world, as no watchdog can know it.

use ci_watchdog::decision::policy::Timeouts;
use ci_watchdog::model::Sha;

use super::ci::{Request, Stage};
use super::github::Commit;
use super::world::World;

/// Whether something that a bot waits for can still end by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It can, or nobody may be sure that it cannot; why.
    Alive(String),
    /// It has ended, and the bot is to be told.
    Result,
    /// It cannot, for as long as a deadline of the policy.
    Dead,
}

/// Since when a bot waits for a commit: really, and as far as anybody could see.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// In the bot.
    pub really: u64,
    /// In the looks at it; earlier, where it began anew between two of them.
    pub seen: u64,
}

/// The truth about a commit at a builder that a bot waits for.
pub fn judge(world: &World, ci: usize, commit: Commit, builder: usize, waits: Waits) -> Life {
    let now = world.now;
    let timeouts = Timeouts::default();
    let due = |from: u64, after: std::time::Duration| {
        now.saturating_sub(from) >= u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    };
    let alive = |why: &str| Life::Alive(why.to_owned());
    let one = &world.cis[ci];
    let mut newest = None;
    for (id, request) in one.of(commit, builder) {
        let number = request.number.unwrap_or(0);
        let red_since = world
            .heard_red
            .range((ci, builder, number)..=(ci, builder, u64::MAX));
        let same = |red: u64| {
            let of_it = |(_, one): (&u64, &Request)| one.number == Some(red);
            one.of(commit, builder).any(of_it)
        };
        if !request.open() && red_since.into_iter().any(|(_, _, red)| same(*red)) {
            // The bot had that red result, or a later one, and wants another.
            continue;
        }
        if let Stage::Ended { end, at } = request.stage
            && at < waits.really
            && waits.really <= waits.seen
            && end.green() != Some(true)
        {
            // It was over before the bot began to wait, this time.
            continue;
        }
        newest = Some(request);
        match request.stage {
            Stage::Queued => return Life::Alive(format!("request {id} is queued")),
            Stage::Preparing { since } => {
                if !due(since, timeouts.pinging) {
                    return Life::Alive(format!("request {id} is about to start"));
                }
            }
            Stage::Running => {
                let dead = match request.worker_gone {
                    Some(gone) => due(gone, timeouts.worker_lost),
                    None => due(request.beat, timeouts.heartbeat),
                };
                // A worker that thawed this moment has not shown it yet.
                if !dead {
                    return Life::Alive(format!("request {id} runs, or may run"));
                }
            }
            Stage::Ended { .. } => {}
        }
    }
    match newest {
        None if due(waits.really.min(waits.seen), timeouts.start) => Life::Dead,
        None => alive("its start is not due"),
        Some(request) => match request.stage {
            Stage::Ended { end, .. } if end.green().is_some() => Life::Result,
            Stage::Ended { at, .. } if !due(at, timeouts.worker_lost) => {
                alive("its successor is not due")
            }
            Stage::Ended { .. } | Stage::Queued | Stage::Preparing { .. } | Stage::Running => {
                Life::Dead
            }
        },
    }
}

/// Green or red, where a request ended so.
pub fn green(request: &Request) -> Option<bool> {
    match request.stage {
        Stage::Ended { end, .. } => end.green(),
        Stage::Queued | Stage::Preparing { .. } | Stage::Running => None,
    }
}

/// Whether a pull request is closed, or has another head than the one that a commit merges.
pub fn outdated(world: &World, pull: u64, merge: &Sha) -> bool {
    let tested = Commit::of(merge)
        .and_then(|merge| world.github.parents.get(&merge))
        .map(|(_, head)| *head);
    world
        .github
        .pulls
        .get(&pull)
        .is_some_and(|pull| !pull.open || Some(pull.head) != tested)
}
