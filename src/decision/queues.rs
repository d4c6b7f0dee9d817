//! Verdicts on the queues of approved work, given those on the builds.

use super::judge::{Bench, BuildJudgement};
use crate::model::{
    ApprovedPull, BotName, Evidence, Fact, GithubState, Moment, PullOnGithub, RepoName, Verdict,
};

/// What is known of a repository's queue.
#[derive(Clone, Debug)]
pub struct QueueJudgement {
    /// The bot.
    pub bot: BotName,
    /// The repository.
    pub repo: RepoName,
    /// [`Verdict::Wedged`], [`Verdict::Outdated`], [`Verdict::Unknown`] or [`Verdict::Alive`].
    pub verdict: Verdict,
    /// The facts.
    pub evidence: Evidence,
    /// Since when it is idle, where it is.
    pub since: Option<Moment>,
    /// When it counts as wedged.
    pub deadline: Option<Moment>,
    /// The approved pull request that should start next.
    pub next: Option<u64>,
    /// Approved pull requests that GitHub knows otherwise, long enough.
    pub outdated: Vec<(u64, PullOnGithub)>,
    /// Whether approved work waits and nothing of this bot stands in its way; the clock of `wedged`.
    pub idle: bool,
}

/// Judges the queue of every repository, given the verdicts on the builds.
pub fn judge_queues(bench: Bench<'_>, builds: &[BuildJudgement]) -> Vec<QueueJudgement> {
    let mut queues = Vec::new();
    for (bot, source) in bench.ledger.bots() {
        let Some((_, snapshot)) = source.snapshot.as_ref() else {
            continue;
        };
        let fresh = source
            .fresh(bench.now, bench.policy.snapshot_life())
            .is_some();
        // A build that is about to start may hold the slot that the queue waits for.
        let starting = builds
            .iter()
            .find(|build| &build.id.key.bot == bot && build.may_be_starting());
        let github_failed = match &snapshot.github {
            GithubState::Failed(_) => true,
            GithubState::NotConfigured | GithubState::Good(_) => false,
        };
        for (repo, state) in &snapshot.repos {
            let pending = bench.ledger.builds().any(|tracked| {
                tracked.is_auto() && &tracked.id.key.bot == bot && &tracked.id.key.repo == repo
            });
            let startable: Vec<&ApprovedPull> = state
                .approved
                .iter()
                .filter(|pull| startable(pull, state.tree_closed))
                .collect();
            queues.push(judge_queue(
                bench,
                bot,
                repo,
                QueueFacts {
                    approved: &state.approved,
                    startable: &startable,
                    pending,
                    starting,
                    unknown: !fresh || github_failed,
                },
            ));
        }
    }
    queues
}

struct QueueFacts<'a> {
    approved: &'a [ApprovedPull],
    startable: &'a [&'a ApprovedPull],
    pending: bool,
    /// A build of the bot that may hold the start slot.
    starting: Option<&'a BuildJudgement>,
    unknown: bool,
}

fn judge_queue(
    bench: Bench<'_>,
    bot: &BotName,
    repo: &RepoName,
    facts: QueueFacts<'_>,
) -> QueueJudgement {
    let timeouts = bench.policy.timeouts.repo(repo);
    let known = bench.ledger.queue(bot, repo);
    let waits = !facts.pending && !facts.unknown && !facts.startable.is_empty();
    let idle = waits && facts.starting.is_none();
    let since = known.and_then(|queue| queue.idle_since).filter(|_| idle);
    let deadline = since.map(|since| since + timeouts.wedged);
    let outdated: Vec<(u64, PullOnGithub)> = facts
        .approved
        .iter()
        .filter(|pull| {
            known
                .and_then(|queue| queue.outdated.get(&pull.pull))
                .is_some_and(|since| bench.now.since(*since) >= timeouts.outdated)
        })
        .map(|pull| (pull.pull, pull.github.clone()))
        .collect();
    let mut evidence = Evidence::default();
    for pull in facts.approved {
        if outdated.iter().any(|(number, _)| *number == pull.pull) {
            evidence.0.push(match (&pull.github, &pull.head_sha) {
                (PullOnGithub::Open { head }, Some(bot)) => Fact::HeadMoved {
                    bot: bot.clone(),
                    github: head.clone(),
                },
                (PullOnGithub::Open { .. } | PullOnGithub::Closed | PullOnGithub::Unknown, _) => {
                    Fact::PullClosed
                }
            });
        }
    }
    if let (true, Some(build)) = (waits, facts.starting) {
        evidence.0.push(Fact::WaitsForStart {
            pulls: facts.startable.len(),
            build: format!("{}#{}", build.id.key.repo, build.id.key.pull),
            verdict: build.verdict,
        });
    }
    if let Some(since) = since {
        evidence.0.push(Fact::ApprovedWaits {
            pulls: facts.startable.len(),
            waited: bench.now.since(since),
        });
    }
    let verdict = if facts.unknown {
        Verdict::Unknown
    } else if !outdated.is_empty() {
        Verdict::Outdated
    } else if deadline.is_some_and(|deadline| bench.now >= deadline) {
        Verdict::Wedged
    } else {
        Verdict::Alive
    };
    QueueJudgement {
        bot: bot.clone(),
        repo: repo.clone(),
        verdict,
        evidence,
        since,
        deadline,
        next: facts.startable.first().map(|pull| pull.pull),
        outdated,
        idle,
    }
}

/// Whether the bot would start it: mergeable, the tree open for its priority, its head as on GitHub.
fn startable(pull: &ApprovedPull, tree_closed: Option<i64>) -> bool {
    let head_agrees = match (&pull.github, &pull.head_sha) {
        (PullOnGithub::Closed, _) => false,
        (PullOnGithub::Open { head }, Some(bot)) => head == bot,
        (PullOnGithub::Open { .. }, None) | (PullOnGithub::Unknown, _) => true,
    };
    head_agrees
        && pull.mergeable != Some(false)
        && tree_closed.is_none_or(|least| pull.priority >= least)
}
