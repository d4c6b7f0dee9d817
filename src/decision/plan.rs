//! From verdicts to remedies: what would repair each thing that is stuck, and what of it is sent or held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::gates::{Operator, Shut, common_gate, first_shut, first_shut_of_restart};
use super::health::Health;
use super::history::History;
use super::judge::{BuildJudgement, Judgement};
use super::ledger::{Ledger, Routes};
use super::policy::Policy;
use super::queues::QueueJudgement;
use super::restart::{Restart, restarts};
use super::zones::{ZoneKey, Zones};
use crate::model::{
    AttemptId, BotName, BuildKey, CiSystem, Evidence, Fact, Finding, Gate, Intent, Moment,
    PullOnGithub, Remedy, RemedyRow, RepoName, RunId, Sha, Step, StepKind, Target, Told, Verdict,
    WorkerName,
};

/// Attempts to send, and remedies that are held.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// To be sent, in this order, each after a last look.
    pub attempts: Vec<Attempt>,
    /// Left alone for now.
    pub holds: Vec<Hold>,
}

/// One remedy on one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its stable name.
    pub id: AttemptId,
    /// Its requests, in order.
    pub steps: Vec<Step>,
    /// The verdict that asks for it.
    pub verdict: Verdict,
    /// The facts that it rests on.
    pub evidence: Evidence,
    /// The commit under test, where it is about a build.
    pub merge_sha: Option<Sha>,
    /// The head under test, where it is known.
    pub head_sha: Option<Sha>,
    /// The runs of the commit that are known.
    pub runs: BTreeSet<RunId>,
    /// The zones that a rerun is charged to.
    pub zones: BTreeSet<ZoneKey>,
    /// The workers that were lost with it.
    pub lost_workers: BTreeSet<WorkerName>,
    /// Who asked for it; `None` is the watchdog itself.
    pub by: Option<String>,
}

impl Attempt {
    /// The intent for one of its steps.
    pub fn intent(&self, step: &Step) -> Intent {
        Intent {
            attempt: self.id.clone(),
            step: step.clone(),
            verdict: self.verdict,
            evidence: self.evidence.sentences(),
            merge_sha: self.merge_sha.clone(),
            head_sha: self.head_sha.clone(),
            runs: self.runs.clone(),
            zones: self.zones.clone(),
            lost_workers: self.lost_workers.clone(),
            by: self.by.clone(),
        }
    }

    /// What is written down of it where it would only have been made.
    pub(super) fn finding(&self, at: Moment) -> Finding {
        Finding {
            at,
            attempt: self.id.clone(),
            verdict: self.verdict,
            evidence: self.evidence.sentences(),
            steps: self.steps.iter().map(Step::kind).collect(),
        }
    }
}

/// A remedy that is left alone for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What would be sent.
    pub attempt: Attempt,
    /// The first gate that failed.
    pub gate: Gate,
    /// Why, as a sentence without a final stop.
    pub reason: String,
    /// When the gate opens by itself, where that is known.
    pub until: Option<Moment>,
}

/// All that planning needs.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// What is known.
    pub ledger: &'a Ledger,
    /// What was done.
    pub history: &'a History,
    /// The limits.
    pub policy: &'a Policy,
    /// The zones.
    pub zones: &'a Zones,
    /// Whether we are settled.
    pub health: &'a Health,
    /// What the operator says.
    pub operator: &'a Operator,
    /// What each bot understands.
    pub rows: &'a BTreeMap<BotName, Vec<RemedyRow>>,
    /// Which provider serves what.
    pub routes: &'a Routes,
    /// How each bot is restarted, where the operator wants that.
    pub restarts: &'a BTreeMap<BotName, Restart>,
    /// Each repository's own timeout in its bot, where it has one.
    pub own_timeouts: &'a BTreeMap<(BotName, RepoName), Duration>,
    /// The attempt whose later requests are about to be sent; planning anew must not hold it for
    /// its own earlier ones.
    pub continuing: Option<&'a AttemptId>,
    /// Now.
    pub now: Moment,
}

/// Plans a remedy for everything that needs one: tells first, then reruns, oldest first; at last
/// restarts.
pub fn plan(desk: Desk<'_>, builds: &[BuildJudgement], queues: &[QueueJudgement]) -> Plan {
    let mut plan = Plan::default();
    let mut oldest: Vec<&BuildJudgement> = builds.iter().collect();
    oldest.sort_by_key(|build| build.first_seen);
    for build in &oldest {
        for attempt in tells(desk, build) {
            plan.put(desk, attempt, None);
        }
    }
    for queue in queues {
        for attempt in queue_tells(desk, queue, builds) {
            plan.put(desk, attempt, None);
        }
    }
    for build in &oldest {
        if let Some(attempt) = rerun(desk, build) {
            plan.put(desk, attempt, Some(build));
        }
    }
    for (attempt, restart) in restarts(desk) {
        let shut = first_shut_of_restart(desk, &attempt, restart);
        plan.put_behind(attempt, shut);
    }
    plan
}

impl Plan {
    fn put(&mut self, desk: Desk<'_>, attempt: Attempt, rerun: Option<&BuildJudgement>) {
        let planned_rerun = self
            .attempts
            .iter()
            .any(|a| a.id.remedy.is_rerun() && a.id.target.bot() == attempt.id.target.bot());
        let shut = first_shut(desk, &attempt, rerun, planned_rerun);
        self.put_behind(attempt, shut);
    }

    fn put_behind(&mut self, attempt: Attempt, shut: Option<Shut>) {
        match shut {
            None => self.attempts.push(attempt),
            Some(Shut {
                gate,
                reason,
                until,
            }) => self.holds.push(Hold {
                attempt,
                gate,
                reason,
                until,
            }),
        }
    }
}

/// Whether a later step of an attempt is still wanted, given what is known now. The first step, and
/// the one that the remedy is about, are only sent where planning anew plans the attempt again; this
/// is for the harmless ones that follow a step whose effect already changed the verdict. That effect
/// must have been seen.
pub fn follow_up_wanted(desk: Desk<'_>, attempt: &Attempt, step: &Step) -> bool {
    if common_gate(desk, attempt).is_some() {
        return false;
    }
    let target = &attempt.id.target;
    let bot = target.bot();
    match step {
        Step::ReleaseSlot { shas } => !desk.ledger.builds().any(|tracked| {
            &tracked.id.key.bot == bot
                && tracked
                    .merge_sha
                    .as_ref()
                    .is_some_and(|sha| shas.contains(sha))
        }),
        Step::Nudge { .. } => {
            let pending = desk.ledger.builds().any(|tracked| {
                tracked.is_auto()
                    && &tracked.id.key.bot == bot
                    && Some(&tracked.id.key.repo) == target.repo()
            });
            !pending
        }
        Step::ReplayResult { .. }
        | Step::ForgetGreen { .. }
        | Step::Retry { .. }
        | Step::ReplayClosed { .. }
        | Step::ReplaySynchronize { .. }
        | Step::Restart { .. } => false,
    }
}

fn tells(desk: Desk<'_>, build: &BuildJudgement) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let Some(tracked) = desk.ledger.build(&build.id.key) else {
        return attempts;
    };
    if build.own == Some(Verdict::Outdated) {
        let release = build.merge_sha.as_ref().map(|sha| Step::ReleaseSlot {
            shas: vec![sha.clone()],
        });
        let other = next_approved(desk, &build.id.key);
        if let Some(steps) = replay_pull(build.id.key.pull, &tracked.pending.github, release, other)
        {
            attempts.push(of_build(
                desk,
                build,
                Target::Build(build.id.clone()),
                Remedy::ReplayPull,
                Verdict::Outdated,
                build.evidence.clone(),
                steps,
            ));
        }
        return attempts;
    }
    let Some(sha) = &build.merge_sha else {
        return attempts;
    };
    if build.own.is_some() {
        return attempts;
    }
    // The bot heard of no start of this commit at all: the commit may still hold the start slot.
    let nothing_heard = tracked.pending.expectations.iter().all(|e| {
        e.system != CiSystem::Buildbot
            || match &e.told {
                Told::Nothing => true,
                Told::Started { .. } | Told::Green { .. } | Told::Red { .. } => false,
            }
    });
    let release = || Step::ReleaseSlot {
        shas: vec![sha.clone()],
    };
    for expectation in &build.expectations {
        let (Verdict::Unreported, false, Some(report)) =
            (expectation.verdict, expectation.dead, &expectation.report)
        else {
            continue;
        };
        let mut steps = Vec::new();
        if nothing_heard {
            steps.push(release());
        }
        steps.push(Step::ReplayResult {
            pull: build.id.key.pull,
            sha: sha.clone(),
            builder: expectation.builder.clone(),
            system: expectation.system,
            report: report.clone(),
        });
        attempts.push(of_build(
            desk,
            build,
            Target::Expectation {
                build: build.id.clone(),
                builder: expectation.builder.clone(),
            },
            Remedy::ReplayResult,
            Verdict::Unreported,
            expectation.evidence.clone(),
            steps,
        ));
    }
    let unheard = build
        .expectations
        .iter()
        .filter(|e| e.verdict == Verdict::Alive)
        .find(|e| e.start_unheard_since.is_some_and(|due| desk.now >= due));
    let released = desk.history.released(&build.id, sha);
    if let (true, false, Some(expectation)) = (nothing_heard, released, unheard) {
        attempts.push(of_build(
            desk,
            build,
            Target::Build(build.id.clone()),
            Remedy::ReleaseSlot,
            Verdict::Alive,
            expectation.evidence.clone(),
            vec![release()],
        ));
    }
    attempts
}

fn queue_tells(desk: Desk<'_>, queue: &QueueJudgement, builds: &[BuildJudgement]) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    if queue.verdict == Verdict::Unknown {
        return attempts;
    }
    let of_queue = |target: Target, remedy, verdict, steps| Attempt {
        id: desk.history.next_attempt(&target, remedy),
        steps,
        verdict,
        evidence: queue.evidence.clone(),
        merge_sha: None,
        head_sha: None,
        runs: BTreeSet::new(),
        zones: BTreeSet::new(),
        lost_workers: BTreeSet::new(),
        by: None,
    };
    for (pull, github) in &queue.outdated {
        let other = queue.next.filter(|next| next != pull);
        if let Some(steps) = replay_pull(*pull, github, None, other) {
            let target = Target::Pull {
                bot: queue.bot.clone(),
                repo: queue.repo.clone(),
                pull: *pull,
            };
            attempts.push(of_queue(
                target,
                Remedy::ReplayPull,
                Verdict::Outdated,
                steps,
            ));
        }
    }
    if let (Verdict::Wedged, Some(next)) = (queue.verdict, queue.next) {
        let mut steps = Vec::new();
        let shas = releasable(desk, &queue.bot, builds);
        if !shas.is_empty() {
            steps.push(Step::ReleaseSlot { shas });
        }
        steps.push(Step::Nudge { pull: next });
        let target = Target::Queue {
            bot: queue.bot.clone(),
            repo: queue.repo.clone(),
        };
        attempts.push(of_queue(target, Remedy::Unwedge, Verdict::Wedged, steps));
    }
    attempts
}

/// Commits that could hold the bot's start slot, without those of builds that are about to start.
fn releasable(desk: Desk<'_>, bot: &BotName, builds: &[BuildJudgement]) -> Vec<Sha> {
    let starting: BTreeSet<&Sha> = builds
        .iter()
        .filter(|build| &build.id.key.bot == bot && build.may_be_starting())
        .filter_map(|build| build.merge_sha.as_ref())
        .collect();
    desk.ledger
        .slot_suspects(bot)
        .into_iter()
        .filter(|sha| !starting.contains(sha))
        .take(Step::SHAS_MAX)
        .collect()
}

fn rerun(desk: Desk<'_>, build: &BuildJudgement) -> Option<Attempt> {
    if build.own == Some(Verdict::Outdated) || !build.any_dead() {
        return None;
    }
    Some(build_again(desk, build, Remedy::Rerun, false))
}

/// Makes the bot build again. Where it would do so in part on the same commit, and a run of it may
/// yet report, or nothing is to be kept, the bot must `forget` the green part first.
pub(super) fn build_again(
    desk: Desk<'_>,
    build: &BuildJudgement,
    remedy: Remedy,
    forget: bool,
) -> Attempt {
    let dead: Vec<&Judgement> = build.expectations.iter().filter(|e| e.dead).collect();
    // A late report of a run that is only silent could hit a rebuild of the same commit.
    let forget = forget || dead.iter().any(|e| e.verdict == Verdict::Stalled);
    let mut steps = Vec::new();
    if let Some(sha) = &build.merge_sha {
        steps.push(Step::ReleaseSlot {
            shas: vec![sha.clone()],
        });
        if forget && let Some(step) = forget_green(desk, build, sha) {
            steps.push(step);
        }
    }
    steps.push(Step::Retry {
        pull: build.id.key.pull,
    });
    let verdict = build.own.unwrap_or_else(|| {
        dead.iter()
            .map(|e| e.verdict)
            .max()
            .unwrap_or(build.verdict)
    });
    let mut evidence = build.evidence.clone();
    for expectation in &dead {
        let of_builder = |fact: &Fact| Fact::OfBuilder {
            builder: expectation.builder.clone(),
            fact: Box::new(fact.clone()),
        };
        evidence
            .0
            .extend(expectation.evidence.0.iter().map(of_builder));
    }
    let mut attempt = of_build(
        desk,
        build,
        Target::Build(build.id.clone()),
        remedy,
        verdict,
        evidence,
        steps,
    );
    let charged = if dead.is_empty() {
        build.expectations.iter().collect()
    } else {
        dead
    };
    for expectation in charged {
        if let Some(provider) = &expectation.provider {
            attempt
                .zones
                .insert((provider.clone(), expectation.builder.clone()));
        }
        attempt.lost_workers.extend(expectation.lost_worker.clone());
    }
    attempt
}

/// Frees the start slot of a bot of every commit that could hold it; without those of builds that are
/// about to start, unless they are meant, too. `None` where there is no such commit.
pub(super) fn release_of_bot(
    desk: Desk<'_>,
    bot: &BotName,
    builds: &[BuildJudgement],
    queues: &[QueueJudgement],
    of_starting_too: bool,
) -> Option<Attempt> {
    let shas = if of_starting_too {
        let suspects = desk.ledger.slot_suspects(bot).into_iter();
        suspects.take(Step::SHAS_MAX).collect()
    } else {
        releasable(desk, bot, builds)
    };
    let of_bot = queues.iter().filter(|queue| &queue.bot == bot);
    let worst = of_bot.max_by_key(|queue| queue.verdict);
    let target = Target::Bot(bot.clone());
    (!shas.is_empty()).then(|| Attempt {
        id: desk.history.next_attempt(&target, Remedy::ReleaseSlot),
        steps: vec![Step::ReleaseSlot { shas }],
        verdict: worst.map_or(Verdict::Alive, |queue| queue.verdict),
        evidence: worst.map_or_else(Evidence::default, |queue| queue.evidence.clone()),
        merge_sha: None,
        head_sha: None,
        runs: BTreeSet::new(),
        zones: BTreeSet::new(),
        lost_workers: BTreeSet::new(),
        by: None,
    })
}

/// Makes the bot forget what is green of a build, where it would rebuild in part on the same commit.
fn forget_green(desk: Desk<'_>, build: &BuildJudgement, sha: &Sha) -> Option<Step> {
    let understood = desk
        .rows
        .get(&build.id.key.bot)?
        .iter()
        .any(|row| row.kind == StepKind::ForgetGreen);
    if !understood {
        return None;
    }
    let tracked = desk.ledger.build(&build.id.key)?;
    let mut builders = Vec::new();
    for expectation in &tracked.pending.expectations {
        match &expectation.told {
            Told::Green { url } => builders.push((expectation.builder.clone(), url.clone())),
            Told::Started { .. } | Told::Red { .. } => {}
            // Without a page for every builder the bot builds everything anew by itself.
            Told::Nothing => return None,
        }
    }
    (!builders.is_empty()).then(|| Step::ForgetGreen {
        pull: build.id.key.pull,
        sha: sha.clone(),
        builders,
    })
}

/// The requests that tell a bot what GitHub knows of a pull request.
fn replay_pull(
    pull: u64,
    github: &PullOnGithub,
    release: Option<Step>,
    other: Option<u64>,
) -> Option<Vec<Step>> {
    let (first, nudge) = match github {
        PullOnGithub::Unknown => return None,
        PullOnGithub::Closed => (Step::ReplayClosed { pull }, other),
        PullOnGithub::Open { head } => (
            Step::ReplaySynchronize {
                pull,
                head: head.clone(),
            },
            Some(other.unwrap_or(pull)),
        ),
    };
    let mut steps = vec![first];
    steps.extend(release);
    steps.extend(nudge.map(|pull| Step::Nudge { pull }));
    Some(steps)
}

/// An approved pull request of the same repository, to name in a nudge.
fn next_approved(desk: Desk<'_>, key: &BuildKey) -> Option<u64> {
    let (_, snapshot) = desk.ledger.bot(&key.bot)?.snapshot.as_ref()?;
    snapshot
        .repos
        .get(&key.repo)?
        .approved
        .iter()
        .map(|pull| pull.pull)
        .find(|pull| *pull != key.pull)
}

fn of_build(
    desk: Desk<'_>,
    build: &BuildJudgement,
    target: Target,
    remedy: Remedy,
    verdict: Verdict,
    evidence: Evidence,
    steps: Vec<Step>,
) -> Attempt {
    Attempt {
        id: desk.history.next_attempt(&target, remedy),
        steps,
        verdict,
        evidence,
        merge_sha: build.merge_sha.clone(),
        head_sha: build.head_sha.clone(),
        runs: build.runs.clone(),
        zones: BTreeSet::new(),
        lost_workers: BTreeSet::new(),
        by: None,
    }
}
