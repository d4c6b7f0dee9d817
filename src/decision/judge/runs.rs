//! What one provider's fresh word on an expectation comes to: its runs, or that there is none.

use super::hearing::LookAt;
use super::{Bench, Judgement};
use crate::decision::ledger::provider_source;
use crate::decision::policy::{Policy, Timeouts};
use crate::decision::tracked::Tracked;
use crate::model::{
    CiSystem, Expectation, Fact, History as Reach, Moment, Run, RunEnd, RunReport, RunState, Told,
    Verdict,
};

/// What one provider's fresh word comes to; `judgement` is what is known without it.
pub(super) fn judge_at(
    bench: Bench<'_>,
    tracked: &Tracked,
    expectation: &Expectation,
    look: &LookAt<'_>,
    mut judgement: Judgement,
) -> Judgement {
    judgement.provider = Some(look.provider.clone());
    let timeouts = bench
        .policy
        .timeouts
        .builder(&tracked.id.key.repo, &expectation.builder);
    match &expectation.told {
        Told::Nothing => judgement.evidence.0.push(Fact::BotHasNothing),
        Told::Started { url } => judgement
            .evidence
            .0
            .push(Fact::BotHasStart { url: url.clone() }),
        Told::Red { url } => judgement
            .evidence
            .0
            .push(Fact::RedRowFromBefore { url: url.clone() }),
        Told::Green { .. } => {}
    }
    if !tracked.before.is_empty() {
        judgement.evidence.0.push(Fact::RunsFromBefore {
            runs: tracked.before.len(),
        });
    }
    let counting: Vec<&Run> = tracked
        .runs_of(look.snapshot, &expectation.builder)
        .filter(|run| !before_red_row(&expectation.told, run))
        .collect();
    if counting.is_empty() {
        judge_absence(bench, tracked, timeouts, look, &mut judgement);
    } else {
        let judge = |run: &&Run| {
            let mut one = judgement.clone();
            judge_run(bench, tracked, expectation, timeouts, look, run, &mut one);
            one
        };
        judgement = of_runs(counting.iter().rev().map(judge)).unwrap_or(judgement);
        doubt_vanished(tracked, look, &mut judgement);
    }
    judgement
}

/// The newest run's judgement, unless that is dead and an older run is alive or green: the bot takes
/// the result of any run of the commit.
fn of_runs(newest_first: impl Iterator<Item = Judgement>) -> Option<Judgement> {
    let mut newest = None;
    for judgement in newest_first {
        let red = judgement
            .report
            .as_ref()
            .is_some_and(|report| !report.green);
        match newest {
            None if judgement.dead => newest = Some(judgement),
            None => return Some(judgement),
            Some(_) if judgement.dead || red || judgement.verdict == Verdict::Unknown => {}
            Some(_) => return Some(judgement),
        }
    }
    newest
}

/// A dead run is not the last word where a newer one has left open work, so that it is over, and the
/// history that would tell its result was not asked.
fn doubt_vanished(tracked: &Tracked, look: &LookAt<'_>, judgement: &mut Judgement) {
    let judged = judgement
        .run
        .as_ref()
        .and_then(|run| tracked.runs.get(&run.id));
    let (true, Some(judged), Some(fact)) = (judgement.dead, judged, incomplete(look)) else {
        return;
    };
    let vanished = tracked.runs.iter().any(|(id, run)| {
        let without_result = match run.state {
            RunState::Ended(end) => end.green().is_none(),
            RunState::Queued | RunState::Preparing | RunState::Running => false,
        };
        run.builder == judgement.builder
            && run.first_seen > judged.first_seen
            && !without_result
            && !tracked.before.contains(id)
            && !look.snapshot.runs.iter().any(|run| &run.id == id)
    });
    if vanished {
        judgement.verdict = Verdict::Unknown;
        judgement.dead = false;
        judgement.evidence.0.push(fact);
        judgement.waiting_since = Some(judged.state_since);
    }
}

fn judge_run(
    bench: Bench<'_>,
    tracked: &Tracked,
    expectation: &Expectation,
    timeouts: &Timeouts,
    look: &LookAt<'_>,
    run: &Run,
    judgement: &mut Judgement,
) {
    let now = bench.now;
    let Some(watch) = tracked.runs.get(&run.id) else {
        // Every run of a snapshot was folded into the ledger with it.
        judgement.evidence.0.push(Fact::SourceNotSeen {
            source: provider_source(look.provider),
        });
        return;
    };
    judgement.run = Some(run.clone());
    judgement.heartbeat = Some(watch.heartbeat);
    judgement.last_sign = watch.heartbeat;
    let evidence = &mut judgement.evidence.0;
    let under_way = Fact::RunUnderWay {
        run: run.id.clone(),
        worker: run.worker.clone(),
        detail: run.detail.clone(),
    };
    match run.state {
        RunState::Queued => {
            let pool = look.snapshot.pools.get(&run.builder);
            let configured = pool.map_or(0, |pool| pool.workers.len());
            let able = pool.map_or(0, |pool| pool.workers.values().filter(|w| w.able()).count());
            evidence.push(Fact::RunQueued {
                run: run.id.clone(),
                waited: now.since(watch.state_since),
            });
            evidence.push(Fact::Workers { able, configured });
            if let Some(behind) = &run.behind {
                evidence.push(Fact::BehindRun {
                    run: behind.clone(),
                });
            }
            judgement.verdict = if able == 0 {
                Verdict::Starved
            } else {
                Verdict::Queued
            };
            judgement.waiting_since = Some(watch.state_since);
        }
        RunState::Preparing | RunState::Running => {
            evidence.push(under_way);
            let dead = match (watch.worker_gone, &run.worker) {
                (Some(since), Some(worker)) => {
                    evidence.push(Fact::WorkerGone {
                        worker: worker.clone(),
                        since: now.since(since),
                    });
                    judgement.lost_worker = Some(worker.clone());
                    judgement.last_sign = since;
                    (Verdict::WorkerLost, since + timeouts.worker_lost)
                }
                (Some(_), None) | (None, Some(_) | None) => {
                    if run.state == RunState::Preparing {
                        evidence.push(Fact::Pinging {
                            waited: now.since(watch.state_since),
                        });
                        (Verdict::Stalled, watch.state_since + timeouts.pinging)
                    } else {
                        evidence.push(Fact::Heartbeat {
                            ago: now.since(watch.heartbeat),
                        });
                        (Verdict::Stalled, watch.heartbeat + timeouts.heartbeat)
                    }
                }
            };
            settle(judgement, now, dead, Verdict::Alive);
            judgement.start_unheard_since = unheard(expectation, watch.started, timeouts);
        }
        RunState::Ended(end) => {
            let ended = Fact::RunEnded {
                run: run.id.clone(),
                end,
                ago: now.since(watch.state_since),
            };
            evidence.push(ended);
            match end.green() {
                Some(green) => {
                    judgement.report = Some(RunReport {
                        run: run.id.clone(),
                        green,
                        end,
                        number: run.number,
                        url: run.url.clone(),
                    });
                    let deadline = watch.state_since + timeouts.report;
                    settle(
                        judgement,
                        now,
                        (Verdict::Unreported, deadline),
                        Verdict::Alive,
                    );
                    judgement.dead = false;
                    judgement.start_unheard_since = unheard(expectation, watch.started, timeouts);
                    let told = bench.history.told_without_effect(&tracked.id, &run.builder);
                    if judgement.verdict == Verdict::Unreported && told >= Policy::TELLS_MAX {
                        judgement
                            .evidence
                            .0
                            .push(Fact::ToldWithoutEffect { times: told });
                        judgement.dead = true;
                    }
                }
                None => {
                    if let Some(fact) = incomplete(look) {
                        evidence.push(fact);
                        judgement.waiting_since = Some(watch.state_since);
                        return;
                    }
                    judgement.lost_worker = match end {
                        RunEnd::Exception | RunEnd::Retry => run.worker.clone(),
                        // Stopped, by a person or by a master that ends: its worker was not lost.
                        RunEnd::Cancelled
                        | RunEnd::Skipped
                        | RunEnd::Success
                        | RunEnd::Warnings
                        | RunEnd::Failure => None,
                    };
                    // One that was over before anybody looked says less: the bot may have begun anew
                    // on the same commit since, and a run for that has its whole time to start.
                    let patience = if watch.found_over {
                        timeouts.worker_lost.max(timeouts.start)
                    } else {
                        timeouts.worker_lost
                    };
                    let dead = (Verdict::WorkerLost, watch.state_since + patience);
                    settle(judgement, now, dead, Verdict::Starting);
                }
            }
        }
    }
}

fn judge_absence(
    bench: Bench<'_>,
    tracked: &Tracked,
    timeouts: &Timeouts,
    look: &LookAt<'_>,
    judgement: &mut Judgement,
) {
    if let Some(fact) = incomplete(look) {
        judgement.evidence.0.push(fact);
        judgement.waiting_since = Some(tracked.first_seen);
        return;
    }
    judgement.evidence.0.push(Fact::NoRunInHistory {
        sha: look.sha.clone(),
    });
    judgement.evidence.0.push(Fact::NoRunFor {
        waited: bench.now.since(tracked.start_from),
    });
    let deadline = tracked.start_from + timeouts.start;
    settle(
        judgement,
        bench.now,
        (Verdict::NoShow, deadline),
        Verdict::Starting,
    );
}

/// The verdict once its deadline has passed, else the one before it.
fn settle(
    judgement: &mut Judgement,
    now: Moment,
    (after, deadline): (Verdict, Moment),
    before: Verdict,
) {
    judgement.deadline = Some(deadline);
    judgement.verdict = if now >= deadline { after } else { before };
    judgement.dead = judgement.verdict.dead();
}

/// When the bot should have heard of a start, where it shows no sign of it. Only systems whose
/// start messages the bot records can lack one.
fn unheard(
    expectation: &Expectation,
    started: Option<Moment>,
    timeouts: &Timeouts,
) -> Option<Moment> {
    match (expectation.system, &expectation.told) {
        (CiSystem::Buildbot, Told::Nothing) => started.map(|at| at + timeouts.report),
        (CiSystem::Buildbot, Told::Started { .. } | Told::Green { .. } | Told::Red { .. })
        | (CiSystem::Travis | CiSystem::Status | CiSystem::Check, _) => None,
    }
}

/// Why the provider's answer on a commit does not prove an absence, where it does not.
fn incomplete(look: &LookAt<'_>) -> Option<Fact> {
    let detail = match look.snapshot.history.get(look.sha) {
        Some(Reach::Complete) => return None,
        Some(Reach::Partial(reason)) => reason.clone(),
        None => "it was not asked".to_owned(),
    };
    Some(Fact::HistoryIncomplete {
        sha: look.sha.clone(),
        detail,
    })
}

/// Whether a run came before a red row that is left from before, or is the one that the row is about:
/// the row's page ends in the run's number, and a builder's numbers grow.
fn before_red_row(told: &Told, run: &Run) -> bool {
    let Told::Red { url } = told else {
        return false;
    };
    let over = match run.state {
        RunState::Ended(_) => true,
        RunState::Queued | RunState::Preparing | RunState::Running => false,
    };
    let red = url.trim_end_matches('/').rsplit('/').next();
    let red: Option<u64> = red.and_then(|number| number.parse().ok());
    let after = match (run.number, red) {
        (Some(run), Some(red)) => run > red,
        (Some(_) | None, Some(_) | None) => true,
    };
    over && !after
}
