//! The rules that every single request must keep, judged by the truth and by the journal.

use ci_watchdog::decision::Core;
use ci_watchdog::decision::policy::{Policy, Timeouts};
use ci_watchdog::model::{
    BuildId, BuildKind, BuilderName, Intent, Moment, Remedy, Sha, Step, StepKind, Target, Verdict,
};

use super::books;
use super::bot::Status;
use super::ci::Stage;
use super::eyes::run_id;
use super::github::Commit;
use super::journal::Journal;
use super::life::{self, Life};
use super::operators;
use super::referee::{Referee, SLOW_LOOK, millis, waits};
use super::world::{MINUTE, World};

impl Referee {
    /// Rules of every request, right before its intent is written.
    pub fn check_intent(
        &mut self,
        world: &mut World,
        core: &Core,
        journal: &Journal,
        intent: &Intent,
        now: Moment,
    ) {
        let mut broken = Vec::new();
        let settle = millis(core.policy().zones.settle) - SLOW_LOOK;
        if intent.by.is_none() {
            if world.now - self.afresh < settle {
                broken.push("sent before it was settled".to_owned());
            }
            broken.extend(books::stopped(journal, intent, now));
        }
        broken.extend(books::unsettled(journal, intent, now));
        match &intent.step {
            Step::Retry { pull } => {
                self.check_rerun(world, journal, intent, *pull, now, &mut broken);
            }
            Step::ReplayResult { pull, .. } => {
                self.check_replay(world, intent, *pull, &mut broken);
                self.check_forgotten(world, journal, intent, &mut broken);
            }
            Step::ReleaseSlot { shas } => check_release(world, intent, shas, &mut broken),
            Step::Nudge { .. } => self.check_nudge(world, intent, &mut broken),
            Step::Restart { .. } => self.check_restart(world, journal, intent, now, &mut broken),
            Step::ForgetGreen { .. }
            | Step::ReplayClosed { .. }
            | Step::ReplaySynchronize { .. } => {}
        }
        for what in broken {
            world.break_rule(format!(
                "{} {} ({}): {what}",
                intent.attempt,
                intent.step.kind(),
                intent.evidence.join("; ")
            ));
        }
    }

    fn check_rerun(
        &self,
        world: &mut World,
        journal: &Journal,
        intent: &Intent,
        pull: u64,
        now: Moment,
        broken: &mut Vec<String>,
    ) {
        let target = &intent.attempt.target;
        let Some(build) = target.build() else {
            broken.push("a rerun of no build".to_owned());
            return;
        };
        if intent.by.is_none() {
            broken.extend(books::budgets(journal, intent, now));
        }
        if world
            .late_requests()
            .any(|late| late.step.kind() == StepKind::Retry && late.step == Step::Retry { pull })
        {
            broken.push("an earlier retry may still act".to_owned());
        }
        let good = millis(Policy::default().builds.global.source_good_for) - SLOW_LOOK;
        let bot = world.bots.iter().position(|one| &one.name == target.bot());
        if let Some(seen) = bot.and_then(|bot| self.bots.get(&bot)) {
            if !seen.last_good {
                broken.push("the bot did not answer the last look".to_owned());
            }
            if seen.outdated.contains(&pull) {
                broken.push("the pull request is closed or has another head".to_owned());
            }
        }
        if intent.by.is_some() {
            // A person may know better than the other rules; who does not say so is bound by this one.
            if !operators::is_meant(intent) {
                self.check_dead(world, journal, intent, build, broken);
            }
            return;
        }
        if let Some(seen) = bot.and_then(|bot| self.bots.get(&bot)) {
            if seen.github_bad.is_some_and(|bad| world.now - bad < good) {
                broken.push("GitHub was bad a moment ago".to_owned());
            }
            if seen.quota_low {
                broken.push("little is left of GitHub's rate limit".to_owned());
            }
            if target.repo().is_some_and(|repo| seen.closed.contains(repo)) {
                broken.push("the tree is closed".to_owned());
            }
        }
        for (provider, builder) in &intent.zones {
            let Some(ci) = world.cis.iter().position(|one| &one.name == provider) else {
                continue;
            };
            if let Some(seen) = self.cis.get(&ci) {
                if !seen.last_good {
                    broken.push(format!("{provider} did not answer the last look"));
                }
                if seen.bad.is_some_and(|bad| world.now - bad < good) {
                    broken.push(format!("{provider} was bad a moment ago"));
                }
            }
            let place = world.cis[ci].builder(builder).unwrap_or(usize::MAX);
            let cooldown = Policy::default().zones.storm_cooldown;
            if let Some(last) = self.outages.get(&(ci, place))
                && now.since(*last) < cooldown
            {
                broken.push(format!("the zone of {builder} was out a moment ago"));
            }
        }
        self.check_dead(world, journal, intent, build, broken);
    }

    /// The law of reruns, by the truth: everything that the bot lacks is really dead.
    fn check_dead(
        &self,
        world: &mut World,
        journal: &Journal,
        intent: &Intent,
        build: &BuildId,
        broken: &mut Vec<String>,
    ) {
        let key = &build.key;
        let place = world.repos.iter().position(|one| one.label == key.repo);
        let Some(place) = place else {
            return;
        };
        let Some(sha) = &intent.merge_sha else {
            // Without a commit nothing can be alive that would end the build.
            return;
        };
        let ci = world.repos[place].ci;
        let expected = world.repos[place]
            .expected(key.kind == BuildKind::Try)
            .to_vec();
        let mut alive = Vec::new();
        let mut raced = false;
        // It has begun anew since the last look: what the bot had then, it has not now.
        let state = world.repos[place].states.get(&key.pull);
        let anew = state.is_some_and(|state| state.merge != Commit::of(sha));
        for builder in expected {
            let green = Commit::of(sha).is_some_and(|commit| {
                world.repos[place]
                    .results
                    .get(&(key.pull, builder))
                    .is_some_and(|(of, told)| *of == commit && told.green == Some(true))
            });
            let name = world.cis[ci].builder_name(builder);
            if green || books::forgotten(journal, build, &name) {
                continue;
            }
            let told = books::told_without_effect(journal, build, &name);
            match self.life.get(&(key.clone(), name.clone())) {
                Some(Life::Dead) | None => {}
                Some(Life::Result) if told >= Policy::TELLS_MAX => {}
                // A bot that does not wait any more takes no result.
                Some(Life::Result) if intent.verdict == Verdict::Orphaned => {}
                Some(Life::Result) if anew => raced = true,
                Some(Life::Result) => alive.push(format!("{name} has a result to tell")),
                Some(Life::Alive(why)) => alive.push(format!("{name} is alive: {why}")),
            }
            if let (Some(commit), Some((_, since))) = (Commit::of(sha), self.pending.get(key)) {
                let waits = waits(world, key, *since);
                raced |= life::judge(world, ci, commit, builder, waits) != Life::Dead;
            }
        }
        if raced && alive.is_empty() {
            world.tally.raced += 1;
        }
        broken.extend(alive);
    }

    /// A bot is restarted only where nothing came back from it for long, rarely, and while all that it
    /// needs is well.
    fn check_restart(
        &self,
        world: &World,
        journal: &Journal,
        intent: &Intent,
        now: Moment,
        broken: &mut Vec<String>,
    ) {
        let restart = operators::restart();
        let times = books::restarts(journal, intent, now, restart.per);
        if times >= usize::try_from(restart.times).unwrap_or(usize::MAX) {
            broken.push(format!("it was restarted {times} times already"));
        }
        let good = millis(Policy::default().builds.global.source_good_for) - SLOW_LOOK;
        let name = intent.attempt.target.bot();
        let bot = world.bots.iter().position(|one| &one.name == name);
        if let Some(seen) = bot.and_then(|bot| self.bots.get(&bot)) {
            let silent = world.now - seen.answered.max(self.afresh);
            if silent < millis(restart.after) - SLOW_LOOK {
                broken.push(format!("it is silent for {} s only", silent / 1000));
            }
            if seen.github_bad.is_some_and(|bad| world.now - bad < good) {
                broken.push("GitHub was bad a moment ago".to_owned());
            }
        }
        for (_, seen) in self
            .cis
            .iter()
            .filter(|(ci, _)| Some(world.cis[**ci].bot) == bot)
        {
            if !seen.last_good || seen.bad.is_some_and(|bad| world.now - bad < good) {
                broken.push("its CI system was bad a moment ago".to_owned());
            }
        }
    }

    fn check_replay(&self, world: &World, intent: &Intent, pull: u64, broken: &mut Vec<String>) {
        let Step::ReplayResult {
            sha,
            builder,
            report,
            ..
        } = &intent.step
        else {
            return;
        };
        let truth = world.cis.iter().enumerate().find_map(|(ci, one)| {
            let place = one.builder(builder)?;
            let commit = Commit::of(sha)?;
            let (_, request) = one
                .of(commit, place)
                .find(|(id, _)| run_id(**id) == report.run)?;
            Some((ci, place, request))
        });
        match truth {
            None => broken.push("it replays a run that there is not".to_owned()),
            Some((ci, place, request)) => {
                let due = millis(Timeouts::default().report) - SLOW_LOOK;
                if let Stage::Ended { at, .. } = request.stage
                    && world.now < at + due
                {
                    broken.push("its report is not due".to_owned());
                }
                if life::green(request) != Some(report.green) {
                    broken.push("it replays a result that the run has not".to_owned());
                }
                let number = request.number.unwrap_or(0);
                let row = world.repos.iter().find_map(|repo| {
                    let (of, told) = repo.results.get(&(pull, place))?;
                    (repo.ci == ci && Some(*of) == Commit::of(sha)).then_some(*told)
                });
                let red_row = row.is_some_and(|told| {
                    told.green == Some(false) && told.number.is_some_and(|red| number <= red)
                });
                if !report.green && red_row {
                    broken.push("it replays a red result from before a rebuild".to_owned());
                }
            }
        }
        let bot = world
            .bots
            .iter()
            .position(|one| &one.name == intent.attempt.target.bot());
        let outdated = bot
            .and_then(|bot| self.bots.get(&bot))
            .is_some_and(|seen| seen.outdated.contains(&pull));
        if outdated && report.green {
            broken.push("a green result for a pull request that is closed or moved".to_owned());
        }
    }

    /// What the bot was made to forget for a rerun is not told again while all the rest stays dead.
    fn check_forgotten(
        &self,
        world: &World,
        journal: &Journal,
        intent: &Intent,
        broken: &mut Vec<String>,
    ) {
        let Target::Expectation { build, builder } = &intent.attempt.target else {
            return;
        };
        let repo = world.repos.iter().find(|one| one.label == build.key.repo);
        let (Some(repo), Some(commit)) = (repo, intent.merge_sha.as_ref().and_then(Commit::of))
        else {
            return;
        };
        let forgotten = |name: &BuilderName| books::forgotten(journal, build, name);
        let mut rest = repo
            .expected(build.key.kind == BuildKind::Try)
            .iter()
            .filter(|place| {
                let row = repo.results.get(&(build.key.pull, **place));
                !row.is_some_and(|(of, told)| *of == commit && told.green == Some(true))
            })
            .map(|place| world.cis[repo.ci].builder_name(*place))
            .filter(|name| !forgotten(name))
            .peekable();
        // An outage's time counts for no age: what was dead before it may be alive again.
        let never_out = !self.outages.keys().any(|(ci, _)| *ci == repo.ci);
        let ages_run =
            never_out && world.now - self.afresh > millis(Timeouts::default().heartbeat) + MINUTE;
        let dead = |name| {
            let since = self.dead_since.get(&(build.key.clone(), name));
            since.is_some_and(|since| world.now - since > 2 * MINUTE)
        };
        let on_purpose = books::forgotten_by_itself(journal, build, builder);
        if ages_run && on_purpose && rest.peek().is_some() && rest.all(dead) {
            broken.push("it tells what it made the bot forget".to_owned());
        }
    }

    fn check_nudge(&self, world: &World, intent: &Intent, broken: &mut Vec<String>) {
        let target = &intent.attempt.target;
        let bot = world.bots.iter().position(|one| &one.name == target.bot());
        let repo = world
            .repos
            .iter()
            .position(|one| Some(&one.label) == target.repo());
        let (Some(bot), Some(repo)) = (bot, repo) else {
            return;
        };
        if intent.attempt.remedy == Remedy::Unwedge
            && self
                .bots
                .get(&bot)
                .is_some_and(|seen| seen.busy.contains(&repo))
        {
            broken.push("a nudge of a queue that is busy".to_owned());
        }
    }
}

/// A slot that a build rightly holds, because it is about to start, is not to be released.
fn check_release(world: &World, intent: &Intent, shas: &[Sha], broken: &mut Vec<String>) {
    let of_rerun = intent.attempt.remedy.is_rerun();
    if of_rerun || intent.attempt.remedy == Remedy::ReplayPull || operators::is_meant(intent) {
        return;
    }
    for commit in shas.iter().filter_map(Commit::of) {
        for bot in 0..world.bots.len() {
            let pending = world.find_state(bot, commit).is_some_and(|(repo, pull)| {
                world.repos[repo]
                    .states
                    .get(&pull)
                    .is_some_and(|state| state.status == Status::Pending)
                    // Else nobody but the bot can know of it.
                    && world.repos[repo].rows.get(&pull).is_some_and(|row| {
                        row.status == Status::Pending && row.merge == Some(commit)
                    })
            });
            if !pending || world.bots[bot].slot != Some(commit) {
                continue;
            }
            let requests: Vec<_> = world
                .cis
                .iter()
                .filter(|ci| ci.bot == bot)
                .flat_map(|ci| ci.requests.values())
                .filter(|request| request.commit == commit)
                .collect();
            let started = requests.iter().any(|request| request.number.is_some());
            let queued = requests.iter().any(|request| request.open());
            let due = millis(Timeouts::default().report) - SLOW_LOOK;
            let heard_soon = requests
                .iter()
                .all(|request| world.now < request.started + due);
            let ours = intent.attempt.remedy == Remedy::ReleaseSlot && intent.by.is_none();
            if ours && heard_soon {
                broken.push("the report of its start is not due".to_owned());
            }
            if queued && !started {
                broken.push(format!(
                    "it releases the slot of {commit:?}, which is queued"
                ));
            }
        }
    }
}
