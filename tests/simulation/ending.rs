//! When a run is over: every pull request is merged, has failed, or is held with a reason that people can act on.

use std::collections::BTreeSet;

use ci_watchdog::decision::Decision;
use ci_watchdog::model::{BuildKey, BuildKind, Gate, Remedy, Target, Verdict};

use super::bot::Status;
use super::world::World;

/// What of the world is not in order, and does not count as seen to; one sentence each.
pub fn unfinished(world: &World, decision: &Decision) -> Vec<String> {
    let mut found = Vec::new();
    if !world.quiet() {
        found.push("messages or approvals are on their way".to_owned());
    }
    let held = held(decision);
    for repo in &world.repos {
        let bot = &world.bots[repo.bot];
        let mut blocked = false;
        let numbers: BTreeSet<u64> = repo
            .states
            .keys()
            .chain(repo.rows.keys())
            .copied()
            .collect();
        for pull in &numbers {
            let state = repo.states.get(pull);
            let on_page = state.is_some_and(|state| state.status == Status::Pending);
            let stored = repo
                .rows
                .get(pull)
                .is_some_and(|row| row.status == Status::Pending);
            if !on_page && !stored {
                continue;
            }
            let reasons: Vec<&String> = held
                .iter()
                .filter(|(key, _)| {
                    key.repo == repo.label && key.bot == bot.name && key.pull == *pull
                })
                .map(|(_, why)| why)
                .collect();
            if reasons.is_empty() {
                found.push(format!("{}#{pull} is pending, and not held", repo.label));
            }
            blocked |= !state.is_some_and(|state| state.try_);
        }
        let waits: Vec<u64> = repo
            .states
            .iter()
            .filter(|(pull, state)| {
                let true_one = world.github.pulls.get(pull);
                state.status == Status::None
                    && state.approved
                    && repo.tree_closed.is_none_or(|least| state.priority >= least)
                    && true_one.is_some_and(|one| one.open && one.head == state.head)
            })
            .map(|(pull, _)| *pull)
            .collect();
        let queue_held = decision.plan.holds.iter().any(|hold| {
            hold.gate == Gate::MessageSent
                && hold.until.is_none()
                && hold.attempt.id.target.repo() == Some(&repo.label)
                && matches!(hold.attempt.id.remedy, Remedy::Unwedge | Remedy::ReplayPull)
        });
        let other_holds_slot = decision.builds.iter().any(|build| {
            build.id.key.bot == bot.name
                && build.may_be_starting()
                && held.iter().any(|(key, _)| key == &build.id.key)
        });
        if !waits.is_empty() && !blocked && !queue_held && !other_holds_slot {
            found.push(format!(
                "{}: {waits:?} wait, and nothing says why",
                repo.label
            ));
        }
    }
    found
}

/// Builds that are held for good, or unknown for a reason that only people can end.
pub fn held(decision: &Decision) -> Vec<(BuildKey, String)> {
    let mut held = Vec::new();
    for hold in &decision.plan.holds {
        let unsent = hold.reason.starts_with("could not be sent");
        let rerun = hold.attempt.id.remedy == Remedy::Rerun;
        let told = hold.gate == Gate::MessageSent && hold.until.is_none() && !rerun;
        let spent = matches!(hold.gate, Gate::PullBudget | Gate::WorkerKiller);
        let for_good = spent || told || unsent;
        if let (true, Some(build)) = (for_good, target_key(&hold.attempt.id.target)) {
            held.push((build, hold.gate.to_string()));
        }
    }
    for build in &decision.builds {
        let nobody_knows = build.merge_sha.is_none()
            && build.own.is_none()
            && build.verdict == Verdict::Unknown
            && build.id.key.kind == BuildKind::Try;
        if nobody_knows {
            held.push((build.id.key.clone(), "unknown".to_owned()));
        }
    }
    held
}

fn target_key(target: &Target) -> Option<BuildKey> {
    target.build().map(|build| build.key.clone())
}
