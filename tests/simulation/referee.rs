//! The rules that a run must keep, judged by what is really so in the world, and by the journal alone.

use std::collections::{BTreeMap, BTreeSet};

use ci_watchdog::decision::policy::Policy;
use ci_watchdog::decision::{Core, Decision};
use ci_watchdog::model::{
    AttemptId, BotSnapshot, BuildId, BuildKey, BuildKind, BuilderName, Gate, GithubState, Intent,
    Knock, Moment, Outcome, ProbeError, Remedy, RepoName, RunId, Sha, StepKind, Target, Verdict,
};

use super::books;
use super::ci::Ci;
use super::github::Commit;
use super::journal::Journal;
use super::life::{self, Life, Waits};
use super::world::{MINUTE, SECOND, World};

/// Requests of one kind for one target in ten minutes; more is a storm.
const STORM: usize = 5;

/// A look at CI systems is dated from the end of that at the bots, and may take so long.
pub(super) const SLOW_LOOK: u64 = 20 * SECOND;

/// What was seen, with the truth at that moment.
#[derive(Default)]
pub struct Referee {
    /// Since when ages of heartbeats run.
    pub(super) afresh: u64,
    pub(super) bots: BTreeMap<usize, SeenBot>,
    pub(super) cis: BTreeMap<usize, SeenCi>,
    /// Since when each place is seen pending on this commit, without a break.
    pub(super) pending: BTreeMap<BuildKey, (Sha, u64)>,
    /// What was alive when its provider was last looked at.
    pub(super) life: BTreeMap<(BuildKey, BuilderName), Life>,
    /// Since when what is dead is so.
    pub(super) dead_since: BTreeMap<(BuildKey, BuilderName), u64>,
    heartbeats: BTreeMap<(BuildKey, RunId), Moment>,
    /// Zones that looked out at a tick, and when that was last so.
    pub(super) outages: BTreeMap<(usize, usize), Moment>,
    /// Zones that looked out at the last look.
    looks_out: BTreeSet<(usize, usize)>,
    /// Builds that were found dead in a zone, and when.
    deaths: BTreeMap<(usize, usize), Vec<Moment>>,
    /// Those that were counted, once each, while they are pending.
    counted: BTreeSet<((usize, usize), BuildId)>,
    requests: Vec<(u64, StepKind, String)>,
    ticks: u64,
    /// When the last tick was counted.
    counted_at: u64,
}

/// What was seen of a bot.
#[derive(Default)]
pub(super) struct SeenBot {
    /// The tick of the last good look.
    pub(super) good: Option<u64>,
    pub(super) last_good: bool,
    /// When anything came back from it.
    pub(super) answered: u64,
    pub(super) github_bad: Option<u64>,
    /// Pull requests that were closed, or had another head than the one under test, when it was seen.
    pub(super) outdated: Vec<u64>,
    /// Repositories in which something was pending to be merged.
    pub(super) busy: Vec<usize>,
    /// Whether little was left of GitHub's rate limit.
    pub(super) quota_low: bool,
    /// Repositories whose tree was closed.
    pub(super) closed: Vec<RepoName>,
}

/// What was seen of a CI system.
#[derive(Default)]
pub(super) struct SeenCi {
    /// The tick of the last good look.
    pub(super) good: Option<u64>,
    pub(super) bad: Option<u64>,
    pub(super) last_good: bool,
}

impl Referee {
    /// The process started: what it saw before is forgotten.
    pub fn watchdog_started(&mut self, world: &World) {
        self.afresh = world.now;
        self.heartbeats.clear();
        self.outages.clear();
        self.deaths.clear();
        self.counted.clear();
        for seen in self.bots.values_mut() {
            seen.github_bad = None;
            seen.good = None;
        }
        for seen in self.cis.values_mut() {
            seen.bad = None;
            seen.good = None;
        }
    }

    /// The process was away, or blind: ages of heartbeats run from here.
    pub fn looks_afresh(&mut self, world: &World) {
        self.afresh = world.now;
    }

    /// A bot was looked at.
    pub fn saw_bot(&mut self, world: &World, bot: usize, look: &Result<BotSnapshot, ProbeError>) {
        let seen = self.bots.entry(bot).or_default();
        seen.last_good = look.is_ok();
        if !matches!(look, Err(error) if error.failure.is_no_answer()) {
            seen.answered = world.now;
        }
        let Ok(snapshot) = look else {
            return;
        };
        seen.good = Some(self.ticks);
        if let GithubState::Failed(_) = snapshot.github {
            seen.github_bad = Some(world.now);
        }
        seen.quota_low = world.github.quota_low && !world.github.down;
        let closed = snapshot.repos.iter();
        let closed = closed.filter(|(_, repo)| repo.tree_closed.is_some());
        seen.closed = closed.map(|(label, _)| label.clone()).collect();
        seen.outdated.clear();
        seen.busy.clear();
        let name = &world.bots[bot].name;
        let before = std::mem::take(&mut self.pending);
        self.pending = before
            .iter()
            .filter(|(key, _)| &key.bot != name)
            .map(|(key, seen)| (key.clone(), seen.clone()))
            .collect();
        for (label, repo) in &snapshot.repos {
            for pending in &repo.pending {
                let key = BuildKey {
                    bot: name.clone(),
                    repo: label.clone(),
                    pull: pending.pull,
                    kind: pending.kind,
                };
                if let Some(sha) = pending.merge_sha.known() {
                    let since = match before.get(&key) {
                        Some((same, since)) if same == sha => *since,
                        Some(_) | None => world.now,
                    };
                    self.pending.insert(key.clone(), (sha.clone(), since));
                    if life::outdated(world, pending.pull, sha) {
                        seen.outdated.push(pending.pull);
                    }
                } else if let Some(same) = before.get(&key) {
                    // Its commit is not told now; nothing says that it changed.
                    self.pending.insert(key.clone(), same.clone());
                }
                let auto = pending.kind == BuildKind::Auto;
                let place = world.repos.iter().position(|one| &one.label == label);
                if let (true, Some(place)) = (auto, place) {
                    seen.busy.push(place);
                }
            }
        }
    }

    /// Somebody knocked at a bot, and at its GitHub.
    pub fn knocked(&mut self, world: &World, bot: usize, knock: &Knock) {
        let seen = self.bots.entry(bot).or_default();
        if knock.is_answered() {
            seen.answered = world.now;
        }
        if let GithubState::Failed(_) = knock.github {
            seen.github_bad = Some(world.now);
        }
    }

    /// A CI system was looked at: what is alive there now is the truth that a rerun must respect.
    pub fn saw_provider(&mut self, world: &World, core: &Core, ci: usize, good: bool) {
        let seen = self.cis.entry(ci).or_default();
        seen.last_good = good;
        self.looks_out.retain(|(of, _)| *of != ci);
        if good {
            let one = &world.cis[ci];
            let out = (0..one.builders.len()).filter(|builder| looks_out(one, *builder));
            self.looks_out.extend(out.map(|builder| (ci, builder)));
            seen.good = Some(self.ticks);
        } else {
            seen.bad = Some(world.now);
        }
        self.life
            .retain(|(key, _), _| key.bot != world.bots[world.cis[ci].bot].name);
        for tracked in core.ledger().builds() {
            let key = &tracked.id.key;
            if key.bot != world.bots[world.cis[ci].bot].name {
                continue;
            }
            let Some((sha, since)) = self.pending.get(key) else {
                continue;
            };
            let Some(commit) = Commit::of(sha) else {
                continue;
            };
            for expectation in &tracked.pending.expectations {
                if let Some(builder) = world.cis[ci].builder(&expectation.builder) {
                    let life = life::judge(world, ci, commit, builder, waits(world, key, *since));
                    let place = (key.clone(), expectation.builder.clone());
                    if life == Life::Dead {
                        self.dead_since.entry(place.clone()).or_insert(world.now);
                    } else {
                        self.dead_since.remove(&place);
                    }
                    self.life.insert(place, life);
                }
            }
        }
    }

    /// Rules of every tick.
    pub fn check_tick(
        &mut self,
        world: &mut World,
        journal: &Journal,
        decision: &Decision,
        now: Moment,
    ) {
        let mut broken = Vec::new();
        self.check_stale(world, decision, &mut broken);
        // One that comes at once, as after a reload, is none to count by.
        if world.now - self.counted_at >= 9 * SECOND {
            self.counted_at = world.now;
            self.ticks += 1;
        }
        self.check_heartbeats(decision, &mut broken);
        for build in &decision.builds {
            let of_target = |target: &Target| target.build() == Some(&build.id);
            let (attempts, holds) = (&decision.plan.attempts, &decision.plan.holds);
            if build.own == Some(Verdict::Outdated)
                && !attempts.iter().any(|one| of_target(&one.id.target))
                && !holds.iter().any(|one| of_target(&one.attempt.id.target))
            {
                let what = "is outdated, and nothing says what about it";
                broken.push(format!("{} {what}", build.id));
            }
            let wants_rerun = build.any_dead() && build.own != Some(Verdict::Outdated);
            let target = Target::Build(build.id.clone());
            let of_it = |id: &AttemptId| id.remedy == Remedy::Rerun && id.target == target;
            let planned = decision.plan.attempts.iter().any(|one| of_it(&one.id))
                || decision.plan.holds.iter().any(|one| of_it(&one.attempt.id));
            if wants_rerun && !planned {
                broken.push(format!(
                    "{} is dead, and nothing says what about it",
                    build.id
                ));
            }
        }
        for hold in &decision.plan.holds {
            let zones_have = |limit| {
                let mut zones = hold.attempt.zones.iter();
                zones.all(|zone| books::zone_reruns(journal, zone, now) < limit)
            };
            let refilled = (hold.gate == Gate::ZoneBudget && zones_have(3))
                || (hold.gate == Gate::PullBudget
                    && books::effective_reruns(journal, &hold.attempt, now) < 2);
            if refilled {
                broken.push(format!(
                    "{} is held by {}, which has refilled",
                    hold.attempt.id, hold.gate
                ));
            }
        }
        self.count_deaths(world, decision, now);
        for zone in &self.looks_out {
            self.outages.insert(*zone, now);
        }
        let shown: Vec<String> = decision
            .builds
            .iter()
            .map(|build| format!("{}={}", build.id, build.verdict))
            .collect();
        world.tell(format_args!("tick {}", shown.join(" ")));
        for what in broken {
            world.break_rule(what);
        }
    }

    /// A zone in which several builds died in a short time is out, whatever its workers look like.
    fn count_deaths(&mut self, world: &World, decision: &Decision, now: Moment) {
        for found in &decision.detected {
            let (Some(builder), true) = (&found.builder, found.verdict.dead()) else {
                continue;
            };
            let builds = decision.builds.iter();
            let Some(build) = builds.into_iter().find(|one| one.id.key == found.key) else {
                continue;
            };
            let name = &build.id.key.bot;
            let ci = world
                .cis
                .iter()
                .position(|ci| &world.bots[ci.bot].name == name);
            let place = ci.and_then(|ci| Some((ci, world.cis[ci].builder(builder)?)));
            if let Some(zone) = place
                && self.counted.insert((zone, build.id.clone()))
            {
                self.deaths.entry(zone).or_default().push(now);
            }
        }
        let pending = |id: &BuildId| decision.builds.iter().any(|one| &one.id == id);
        self.counted.retain(|(_, id)| pending(id));
        let limits = &Policy::default().zones;
        let many = usize::try_from(limits.outage_deaths).unwrap_or(usize::MAX);
        for (zone, deaths) in &mut self.deaths {
            deaths.retain(|at| now.since(*at) < limits.outage_window);
            if deaths.len() >= many {
                self.outages.insert(*zone, now);
            }
        }
    }

    /// Whatever a source would have told is unknown once it is silent for longer than an answer
    /// lives: two ticks.
    fn check_stale(&self, world: &World, decision: &Decision, broken: &mut Vec<String>) {
        let old = |good: Option<u64>| good.is_none_or(|tick| self.ticks - tick > 2);
        for build in &decision.builds {
            let bot = world
                .bots
                .iter()
                .position(|one| one.name == build.id.key.bot);
            let bot_silent = bot
                .and_then(|bot| self.bots.get(&bot))
                .is_some_and(|seen| !seen.last_good && old(seen.good));
            for expectation in build.expectations.iter().filter(|one| one.lacking) {
                let ci = world
                    .cis
                    .iter()
                    .position(|ci| Some(&ci.name) == expectation.provider.as_ref());
                let silent = ci
                    .and_then(|ci| self.cis.get(&ci))
                    .is_some_and(|seen| !seen.last_good && old(seen.good));
                if (silent || bot_silent) && expectation.verdict != Verdict::Unknown {
                    broken.push(format!(
                        "{} {} is {} by a source that is silent",
                        build.id, expectation.builder, expectation.verdict
                    ));
                }
            }
        }
    }

    fn check_heartbeats(&mut self, decision: &Decision, broken: &mut Vec<String>) {
        for build in &decision.builds {
            for expectation in &build.expectations {
                if let (Some(run), Some(heartbeat)) = (&expectation.run, expectation.heartbeat) {
                    let key = (build.id.key.clone(), run.id.clone());
                    let last = self.heartbeats.insert(key, heartbeat);
                    if last.is_some_and(|last| heartbeat < last) {
                        broken.push(format!("the heartbeat of run {} moved back", run.id));
                    }
                }
            }
        }
    }

    /// A request left, or did not.
    pub fn sent(&mut self, world: &mut World, intent: &Intent, outcome: &Outcome, looked: u64) {
        if let Outcome::NotSent(_) = outcome {
            return;
        }
        if world.now - looked > millis(Policy::ACT_DEADLINE) {
            world.break_rule(format!("{} was sent past its deadline", intent.attempt));
        }
        let kind = intent.step.kind();
        let target = match &intent.attempt.target {
            Target::Expectation { build, builder } => format!("{} {builder}", build.key),
            Target::Build(build) => build.key.to_string(),
            Target::Pull { .. } | Target::Queue { .. } | Target::Bot(_) => {
                intent.attempt.target.to_string()
            }
        };
        if intent.by.is_some() {
            return;
        }
        let since = world.now.saturating_sub(10 * MINUTE);
        self.requests.retain(|(at, _, _)| *at >= since);
        self.requests.push((world.now, kind, target.clone()));
        let times = self
            .requests
            .iter()
            .filter(|(_, one, of)| *one == kind && *of == target)
            .count();
        if times > STORM {
            world.break_rule(format!(
                "{kind} for {target} was sent {times} times in 10 minutes"
            ));
        }
    }
}

pub(super) fn waits(world: &World, key: &BuildKey, seen: u64) -> Waits {
    let repo = world.repos.iter().find(|one| one.label == key.repo);
    let state = repo.and_then(|repo| repo.states.get(&key.pull));
    Waits {
        really: state.map_or(seen, |state| state.pending_since),
        seen,
    }
}

/// Whether a zone looks out to anybody who asks the master.
fn looks_out(ci: &Ci, builder: usize) -> bool {
    let (able, all) = ci
        .pool(builder)
        .fold((0_u64, 0_u64), |(able, all), worker| {
            (able + u64::from(Ci::able(worker)), all + 1)
        });
    let gone = all - able;
    // 55 in a hundred.
    able == 0 || (gone > 2 && gone * 100 >= all * 55)
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
