//! What the adapters read of the simulated world: snapshots, and failed probes.

use std::collections::{BTreeMap, BTreeSet};

use ci_watchdog::model::{
    ApprovedPull, BotSnapshot, BuildKey, BuildKind, Expectation, GithubState, History, Knock,
    MergeSha, PendingBuild, Pool, ProbeError, ProbeFailure, ProviderSnapshot, PullOnGithub,
    Question, Quota, RepoSnapshot, Run, RunId, RunState, Sha, Told, Witnesses, Worker,
};

use super::bot::{Fork, Repo, Status};
use super::ci::{Ci, Request, Stage};
use super::github::Commit;
use super::tally::Fault;
use super::world::World;

/// A look at a bot.
///
/// # Errors
///
/// It is down, or cannot be reached, or its answer is spoilt.
pub fn bot(
    world: &mut World,
    place: usize,
    remembered: &BTreeMap<BuildKey, Sha>,
) -> Result<BotSnapshot, ProbeError> {
    reach_bot(world, place)?;
    if until(&world.views.bot_errors, place) > world.now {
        world.fault(Fault::BotErrors);
        return Err(ProbeError::new(ProbeFailure::HttpStatus, "HTTP 500"));
    }
    if until(&world.views.locked, place) > world.now {
        world.fault(Fault::DatabaseLocked);
        return Err(ProbeError::new(ProbeFailure::Io, "database is locked"));
    }
    let torn = world.strikes(Fault::TornBot);
    let fork = world.bots[place].fork;
    let mut repos = BTreeMap::new();
    for repo in world.bots[place].repos.clone() {
        let label = world.repos[repo].label.clone();
        let mut snapshot = repository(world, fork, repo, remembered);
        if torn {
            // Between the database and the page the bot went on.
            if let Some(first) = snapshot.pending.first_mut() {
                first.witnesses = Witnesses::DatabaseOnly {
                    page: "approved".to_owned(),
                };
            }
        }
        repos.insert(label, snapshot);
    }
    Ok(BotSnapshot {
        repos,
        github: github(world),
        warnings: Vec::new(),
    })
}

/// A knock at a bot that is silent, and at its GitHub.
pub fn knock(world: &World, place: usize) -> Knock {
    Knock {
        bot: reach_bot(world, place),
        github: github(world),
    }
}

fn reach_bot(world: &World, place: usize) -> Result<(), ProbeError> {
    if world.bots[place].wedged || until(&world.views.bot_unreachable, place) > world.now {
        return Err(ProbeError::new(ProbeFailure::Timeout, "no answer"));
    }
    if !world.bots[place].up {
        return Err(ProbeError::new(ProbeFailure::Connect, "connection refused"));
    }
    Ok(())
}

fn github(world: &World) -> GithubState {
    if world.github.down {
        return GithubState::Failed(ProbeError::new(ProbeFailure::HttpStatus, "HTTP 502"));
    }
    GithubState::Good(Some(Quota {
        limit: 5000,
        remaining: if world.github.quota_low { 100 } else { 4000 },
        reset: 0,
    }))
}

fn repository(
    world: &World,
    fork: Fork,
    place: usize,
    remembered: &BTreeMap<BuildKey, Sha>,
) -> RepoSnapshot {
    let repo = &world.repos[place];
    let branches = world.github.branches.get(&place);
    let in_database = |pull: u64| {
        repo.rows
            .get(&pull)
            .is_some_and(|row| row.status == Status::Pending)
    };
    let on_page = |pull: u64| {
        repo.states
            .get(&pull)
            .is_some_and(|state| state.status == Status::Pending)
    };
    let numbers: BTreeSet<u64> = repo
        .rows
        .keys()
        .chain(repo.states.keys())
        .copied()
        .collect();
    let is_try = |pull: u64| {
        repo.states.get(&pull).is_some_and(|state| state.try_)
            || repo.rows.get(&pull).is_some_and(|row| row.try_)
    };
    let tries = numbers
        .iter()
        .filter(|n| on_page(**n) && is_try(**n))
        .count();
    let mut snapshot = RepoSnapshot {
        tree_closed: repo.tree_closed,
        ..RepoSnapshot::default()
    };
    for pull in numbers
        .into_iter()
        .filter(|n| in_database(*n) || on_page(*n))
    {
        let kind = if is_try(pull) {
            BuildKind::Try
        } else {
            BuildKind::Auto
        };
        let stored = repo.rows.get(&pull).and_then(|row| row.merge);
        let merge_sha = if kind == BuildKind::Auto || fork == Fork::Servo {
            stored.map_or(MergeSha::Missing, |merge| MergeSha::Known(merge.sha()))
        } else {
            try_sha(world, place, pull, tries, remembered)
        };
        let merge = merge_sha.known().and_then(Commit::of);
        let head = merge
            .and_then(|merge| world.github.parents.get(&merge))
            .map(|(_, head)| head.sha())
            .filter(|_| !world.github.down);
        let page = repo
            .states
            .get(&pull)
            .map_or("", |state| word(state.status));
        let database = repo.rows.get(&pull).map_or("", |row| word(row.status));
        snapshot.pending.push(PendingBuild {
            pull,
            kind,
            expectations: expectations(world, repo, pull, kind, merge),
            merge_sha,
            head_sha: head,
            witnesses: match (in_database(pull), on_page(pull)) {
                (true, false) => Witnesses::DatabaseOnly {
                    page: page.to_owned(),
                },
                (false, true) => Witnesses::PageOnly {
                    database: database.to_owned(),
                },
                (true, true) | (false, false) => Witnesses::Agree,
            },
            github: on_github(world, pull),
            title: String::new(),
            url: String::new(),
        });
    }
    let mut approved: Vec<(i64, u64)> = repo
        .states
        .iter()
        .filter(|(_, state)| state.status == Status::None && state.approved)
        .map(|(pull, state)| (-state.priority, *pull))
        .collect();
    approved.sort_unstable();
    for (priority, pull) in approved {
        let head = match fork {
            Fork::Servo => repo.states.get(&pull).map(|state| state.head),
            Fork::Pypi => world
                .github
                .pulls
                .get(&pull)
                .and_then(|one| one.approved)
                .filter(|_| !world.github.down),
        };
        snapshot.approved.push(ApprovedPull {
            pull,
            head_sha: head.map(Commit::sha),
            github: on_github(world, pull),
            mergeable: None,
            priority: -priority,
            title: String::new(),
            url: String::new(),
        });
    }
    if fork == Fork::Pypi {
        snapshot.slot_suspects = repo
            .rows
            .values()
            .filter_map(|row| row.merge)
            .map(Commit::sha)
            .collect();
        if let Some(branches) = branches.filter(|_| !world.github.down) {
            for head in [branches.auto, branches.try_].into_iter().flatten() {
                if !snapshot.slot_suspects.contains(&head.sha()) {
                    snapshot.slot_suspects.push(head.sha());
                }
            }
        }
    }
    snapshot
}

/// 0.2.0 stores no commit of a try build: it is the head of the try branch, if that merges this
/// pull request's head and nothing else is tried, or it is remembered.
fn try_sha(
    world: &World,
    place: usize,
    pull: u64,
    tries: usize,
    remembered: &BTreeMap<BuildKey, Sha>,
) -> MergeSha {
    let head = world.github.pulls.get(&pull).map(|pull| pull.head);
    let branch = world.github.branches.get(&place).and_then(|one| one.try_);
    let (Some(branch), Some(head), false) = (branch, head, world.github.down) else {
        return MergeSha::NotStored;
    };
    let merges_it = world
        .github
        .parents
        .get(&branch)
        .is_some_and(|(_, one)| *one == head);
    let repo = &world.repos[place];
    let key = BuildKey {
        bot: world.bots[repo.bot].name.clone(),
        repo: repo.label.clone(),
        pull,
        kind: BuildKind::Try,
    };
    if merges_it && (tries == 1 || remembered.get(&key) == Some(&branch.sha())) {
        MergeSha::Known(branch.sha())
    } else {
        MergeSha::NotStored
    }
}

fn expectations(
    world: &World,
    repo: &Repo,
    pull: u64,
    kind: BuildKind,
    merge: Option<Commit>,
) -> Vec<Expectation> {
    let ci = &world.cis[repo.ci];
    repo.expected(kind == BuildKind::Try)
        .iter()
        .map(|place| {
            let builder = ci.builder_name(*place);
            let row = repo
                .results
                .get(&(pull, *place))
                .filter(|(of, _)| merge.is_none_or(|merge| *of == merge));
            let told = match row {
                None => Told::Nothing,
                Some((_, told)) => {
                    let url = told
                        .number
                        .map(|number| format!("http://ci/{builder}/builds/{number}"));
                    match (told.green, url) {
                        (Some(true), Some(url)) => Told::Green { url },
                        (Some(false), Some(url)) => Told::Red { url },
                        (None, Some(url)) => Told::Started { url },
                        (Some(_) | None, None) => Told::Nothing,
                    }
                }
            };
            Expectation {
                builder,
                system: ci.system,
                told,
            }
        })
        .collect()
}

fn on_github(world: &World, pull: u64) -> PullOnGithub {
    match world.github.pulls.get(&pull) {
        Some(_) | None if world.github.down => PullOnGithub::Unknown,
        Some(pull) if pull.open => PullOnGithub::Open {
            head: pull.head.sha(),
        },
        Some(_) => PullOnGithub::Closed,
        None => PullOnGithub::Unknown,
    }
}

const fn word(status: Status) -> &'static str {
    match status {
        Status::None => "",
        Status::Pending => "pending",
        Status::Success => "success",
        Status::Failure => "failure",
        Status::Error => "error",
    }
}

/// A look at a CI system.
///
/// # Errors
///
/// It is down, or cannot be reached.
pub fn provider(
    world: &mut World,
    place: usize,
    questions: &[Question],
) -> Result<ProviderSnapshot, ProbeError> {
    if !world.cis[place].up {
        return Err(ProbeError::new(ProbeFailure::Connect, "connection refused"));
    }
    if world.cis[place].frozen_until.is_some() {
        return Err(ProbeError::new(ProbeFailure::Timeout, "no answer"));
    }
    if until(&world.views.ci_unreachable, place) > world.now {
        return Err(ProbeError::new(ProbeFailure::Dns, "no such host"));
    }
    if until(&world.views.ci_errors, place) > world.now {
        world.fault(Fault::ProviderErrors);
        return Err(ProbeError::new(ProbeFailure::HttpStatus, "HTTP 503"));
    }
    let partial = until(&world.views.partial, place) > world.now;
    let unasked = until(&world.views.unasked, place) > world.now;
    let blink = until(&world.views.blink, place) > world.now;
    let (mut seen_partial, mut seen_unasked, mut seen_blink) = (false, false, false);
    let ci = &world.cis[place];
    let mut snapshot = ProviderSnapshot {
        pools: pools(ci),
        ..ProviderSnapshot::default()
    };
    let mut runs: Vec<(u64, Run)> = Vec::new();
    for question in questions {
        let Some(commit) = Commit::of(&question.sha) else {
            continue;
        };
        let asked: Vec<usize> = question
            .builders
            .iter()
            .filter_map(|name| ci.builder(name))
            .collect();
        if asked.is_empty() {
            continue;
        }
        let is_open = |builder: &usize| ci.of(commit, *builder).any(|(_, one)| one.open());
        let from_open_work = asked.iter().all(is_open);
        let mut complete = !from_open_work;
        if !from_open_work && unasked {
            seen_unasked = true;
            complete = false;
        } else if !from_open_work && partial {
            seen_partial = true;
            complete = false;
            let reason = "still reading".to_owned();
            snapshot
                .history
                .insert(question.sha.clone(), History::Partial(reason));
        } else if !from_open_work {
            snapshot
                .history
                .insert(question.sha.clone(), History::Complete);
        }
        for builder in &asked {
            for (id, request) in ci.of(commit, *builder) {
                if !request.open() && !complete {
                    continue;
                }
                if blink && request.open() && id % 2 == 0 {
                    seen_blink = true;
                    snapshot
                        .history
                        .insert(question.sha.clone(), History::Complete);
                    continue;
                }
                runs.push((*id, run(ci, *id, request)));
            }
        }
    }
    runs.sort_by_key(|(id, _)| *id);
    snapshot.runs = runs.into_iter().map(|(_, run)| run).collect();
    for (seen, fault) in [
        (seen_partial, Fault::HistoryPartial),
        (seen_unasked, Fault::HistoryUnasked),
        (seen_blink, Fault::Blink),
    ] {
        if seen {
            world.fault(fault);
        }
    }
    Ok(snapshot)
}

fn pools(ci: &Ci) -> BTreeMap<ci_watchdog::model::BuilderName, Pool> {
    ci.builders
        .iter()
        .enumerate()
        .map(|(place, builder)| {
            let workers = ci.pool(place).map(|worker| {
                let seen = Worker {
                    connected: worker.connected,
                    paused: worker.paused,
                    graceful: false,
                };
                (worker.name.clone(), seen)
            });
            (
                builder.name.clone(),
                Pool {
                    workers: workers.collect(),
                },
            )
        })
        .collect()
}

/// The name of a request's run.
pub fn run_id(id: u64) -> RunId {
    RunId::new(id.to_string())
}

fn run(ci: &Ci, id: u64, request: &Request) -> Run {
    let builder = ci.builder_name(request.builder);
    Run {
        id: run_id(id),
        sha: request.commit.sha(),
        state: match request.stage {
            Stage::Queued => RunState::Queued,
            Stage::Preparing { .. } => RunState::Preparing,
            Stage::Running => RunState::Running,
            Stage::Ended { end, .. } => RunState::Ended(end),
        },
        number: request.number,
        url: request
            .number
            .map(|number| format!("http://ci/{builder}/builds/{number}")),
        builder,
        worker: request
            .worker
            .and_then(|place| ci.workers.get(place))
            .map(|worker| worker.name.clone()),
        progress: format!("{}.{}", request.tries, request.beats),
        detail: String::new(),
        behind: None,
    }
}

fn until(ends: &BTreeMap<usize, u64>, place: usize) -> u64 {
    ends.get(&place).copied().unwrap_or(0)
}
