//! Once faults are over: a dead build is held with a reason, or acted on, in bounded time; and in bounded
//! time it is repaired, or held for good.

use std::collections::BTreeMap;
use std::time::Duration;

use ci_watchdog::decision::Decision;
use ci_watchdog::decision::judge::BuildJudgement;
use ci_watchdog::decision::policy::Policy;
use ci_watchdog::model::{BuildKey, BuildKind, Target, Verdict};

use super::bot::Status;
use super::ending;
use super::github::Commit;
use super::life::{self, Life, Waits};
use super::referee::millis;
use super::world::World;

/// The longest that one look at all sources takes here.
const SLOW_LOOK: Duration = Duration::from_secs(40);

/// How long a build may be dead before the plan says something of it: every age may have begun anew
/// with the last fault, so the longest of the deadlines; then the watchdog settles, and the death is
/// looked for in as many ticks as it takes, each with its looks.
pub fn shown_within() -> Duration {
    let policy = Policy::default();
    let times = &policy.timeouts.global;
    let longest = times.heartbeat.max(times.start).max(times.orphaned);
    let longest = longest.max(times.outdated).max(times.worker_lost);
    let looks = policy.builds.global.looks + 1;
    longest + policy.zones.settle + (policy.tick + SLOW_LOOK) * looks
}

/// How long it may be dead before it is repaired or held for good: the above, then everything that makes
/// it wait, one after the other. An outage's cooldown; the longest cooldown of its pull request, with its
/// jitter; and the others that its zone's budget lets go first.
pub fn settled_within(others: usize) -> Duration {
    let policy = Policy::default();
    let others = u32::try_from(others).unwrap_or(u32::MAX);
    let hours = others.div_ceil(policy.zones.reruns_per_zone_hour) + 1;
    let jitter = Policy::COOLDOWN_MAX / 10;
    let cooldowns = policy.zones.storm_cooldown + Policy::COOLDOWN_MAX + jitter;
    shown_within() + cooldowns + Policy::ZONE_WINDOW * hours
}

/// A dead build.
#[derive(Clone, Copy)]
struct Dead {
    /// What makes it another.
    which: (Option<Commit>, u64),
    /// Since when it is dead, and not held for good.
    since: u64,
    /// Since when nothing says so.
    unseen: u64,
}

/// The dead builds.
#[derive(Default)]
pub struct Liveness {
    dead: BTreeMap<BuildKey, Dead>,
}

impl Liveness {
    /// After a tick.
    pub fn check(&mut self, world: &mut World, decision: &Decision, stopped: bool) {
        if !world.weather.calm || stopped || !mended(world) {
            self.dead.clear();
            return;
        }
        let now = world.now;
        let before = std::mem::take(&mut self.dead);
        for (key, which) in dead_builds(world) {
            let new = Dead {
                which,
                since: now,
                unseen: now,
            };
            let known = before.get(&key).filter(|one| one.which == which);
            self.dead.insert(key, known.copied().unwrap_or(new));
        }
        let others = self.dead.len();
        let (shown, settled) = (millis(shown_within()), millis(settled_within(others)));
        let held = ending::held(decision);
        let of = |target: &Target, key: &BuildKey| target.build().map(|one| &one.key) == Some(key);
        let mut broken = Vec::new();
        for (key, dead) in &mut self.dead {
            let for_good = held.iter().any(|(one, _)| one == key);
            let plan = &decision.plan;
            let planned = plan.attempts.iter().any(|one| of(&one.id.target, key))
                || plan.holds.iter().any(|one| of(&one.attempt.id.target, key));
            // Of what is unknown people are told too.
            let unknown =
                |one: &BuildJudgement| &one.id.key == key && one.verdict == Verdict::Unknown;
            let planned = planned || decision.builds.iter().any(unknown);
            if for_good {
                dead.since = now;
            }
            if planned || for_good {
                dead.unseen = now;
            }
            let (time, unseen) = (now - dead.since, now - dead.unseen);
            if unseen > shown {
                broken.push(format!("{key} is dead for {} s, unseen", unseen / 1000));
            }
            if time > settled {
                let minutes = time / 60_000;
                broken.push(format!("{key} is dead for {minutes} m, and not repaired"));
            }
        }
        for what in broken {
            world.break_rule(what);
        }
    }
}

/// Whether everything that a repair needs is there again.
fn mended(world: &World) -> bool {
    let views = &world.views;
    let clear = |ends: &BTreeMap<usize, u64>| ends.values().all(|end| *end <= world.now);
    let seen = [
        &views.ci_unreachable,
        &views.partial,
        &views.unasked,
        &views.blink,
        &views.bot_unreachable,
        &views.ci_errors,
        &views.bot_errors,
        &views.locked,
    ];
    let up = world.cis.iter().all(|ci| {
        let able = |builder| {
            let (able, all) = ci.pool(builder).fold((0, 0), |(able, all), one| {
                (able + usize::from(super::ci::Ci::able(one)), all + 1)
            });
            able > 0 && (all - able <= 2 || (all - able) * 100 < all * 55)
        };
        ci.up && ci.frozen_until.is_none() && (0..ci.builders.len()).all(able)
    });
    up && seen.into_iter().all(clear)
        && world.bots.iter().all(|bot| bot.up)
        && !world.github.down
        && !world.github.quota_low
        && world.repos.iter().all(|repo| repo.tree_closed.is_none())
}

/// Builds that a bot waits for of which nothing can end by itself.
fn dead_builds(world: &World) -> Vec<(BuildKey, (Option<Commit>, u64))> {
    let mut dead = Vec::new();
    for repo in &world.repos {
        for (pull, state) in &repo.states {
            let row = repo.rows.get(pull);
            let stored = row.is_some_and(|row| row.status == Status::Pending);
            if state.status != Status::Pending && !stored {
                continue;
            }
            let since = state.pending_since;
            let waits = Waits {
                really: since,
                seen: since,
            };
            let can_end = state.merge.is_some_and(|merge| {
                repo.expected(state.try_).iter().any(|builder| {
                    let told = state.results.get(builder).and_then(|told| told.green);
                    let life = || life::judge(world, repo.ci, merge, *builder, waits);
                    told != Some(true) && matches!(life(), Life::Alive(_))
                })
            });
            if !can_end {
                let kind = if state.try_ {
                    BuildKind::Try
                } else {
                    BuildKind::Auto
                };
                let key = BuildKey {
                    bot: world.bots[repo.bot].name.clone(),
                    repo: repo.label.clone(),
                    pull: *pull,
                    kind,
                };
                dead.push((key, (state.merge, since)));
            }
        }
    }
    dead
}
