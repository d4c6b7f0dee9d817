//! Records to write: one of every kind, and any at all.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ci_watchdog::journal::{Journal, JournalError, Permit};
use ci_watchdog::model::{
    AttemptId, BuildId, BuildKey, BuildKind, CiSystem, Closing, End, Ending, Finding, Intent,
    IntentId, Moment, Outcome, Record, Remedy, RunEnd, RunReport, Sha, Sighting, SightingCause,
    Step, StepKind, Target, Verdict,
};
use proptest::prelude::*;

pub fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

pub fn wall(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

pub fn build(pull: u64, generation: u32) -> BuildId {
    let key = BuildKey {
        bot: "homu".into(),
        repo: "servo".into(),
        pull,
        kind: BuildKind::Auto,
    };
    BuildId { key, generation }
}

pub fn sighting(pull: u64, generation: u32, millis: u64) -> Sighting {
    Sighting {
        build: build(pull, generation),
        merge_sha: Some(Sha::new("0123456789abcdef0123456789abcdef01234567")),
        head_sha: None,
        at: at(millis),
        cause: SightingCause::First,
        before: BTreeSet::from(["17".into(), "".into()]),
    }
}

pub fn intent(target: Target, step: Step) -> Intent {
    Intent {
        attempt: AttemptId {
            target,
            remedy: Remedy::Rerun,
            ordinal: 1,
        },
        step,
        verdict: Verdict::NoShow,
        evidence: vec!["the whole history has no run of 0123456".to_owned()],
        merge_sha: None,
        head_sha: Some(Sha::new("89abcdef")),
        runs: BTreeSet::from(["18".into()]),
        zones: BTreeSet::from([("buildbot".into(), "linux".into())]),
        lost_workers: BTreeSet::from(["w1".into()]),
        by: None,
    }
}

pub fn retry(pull: u64, generation: u32) -> Intent {
    intent(Target::Build(build(pull, generation)), Step::Retry { pull })
}

pub fn finding(pull: u64, generation: u32, millis: u64) -> Finding {
    Finding {
        at: at(millis),
        attempt: retry(pull, generation).attempt,
        verdict: Verdict::NoShow,
        evidence: vec!["the whole history has no run of 0123456".to_owned()],
        steps: vec![StepKind::ReleaseSlot, StepKind::Retry],
    }
}

pub fn ending(pull: u64, generation: u32, millis: u64) -> Ending {
    Ending {
        at: at(millis),
        build: build(pull, generation),
        verdict: Verdict::NoShow,
        end: End::Rerun,
    }
}

/// One step of each kind.
pub fn steps() -> Vec<Step> {
    let sha = Sha::new("0123456789abcdef");
    let report = RunReport {
        run: "18".into(),
        green: false,
        end: RunEnd::Failure,
        number: Some(u64::MAX),
        url: None,
    };
    let steps = vec![
        Step::ReleaseSlot {
            shas: vec![sha.clone()],
        },
        Step::ReplayResult {
            pull: 7,
            sha: sha.clone(),
            builder: "linux".into(),
            system: CiSystem::Buildbot,
            report,
        },
        Step::ForgetGreen {
            pull: 7,
            sha: sha.clone(),
            builders: vec![("linux".into(), "http://ci/1".to_owned())],
        },
        Step::Retry { pull: 7 },
        Step::Nudge { pull: 7 },
        Step::ReplayClosed { pull: 7 },
        Step::ReplaySynchronize { pull: 7, head: sha },
        Step::Restart {
            command: vec!["systemctl".to_owned(), "restart".to_owned()],
        },
    ];
    assert!(
        steps.iter().map(Step::kind).eq(StepKind::ALL),
        "one step of each kind"
    );
    steps
}

pub fn outcomes() -> [Outcome; 4] {
    [
        Outcome::Accepted("200".to_owned()),
        Outcome::Refused("500 <html>\0\u{202e}".to_owned()),
        Outcome::NotSent("".to_owned()),
        Outcome::Unanswered("no answer within 10s".to_owned()),
    ]
}

/// Writes a record through the call that is for it, and returns the permit of an intent.
pub fn write(
    journal: &mut Journal,
    record: &Record,
    wall: SystemTime,
) -> Result<Option<Permit>, JournalError> {
    match record {
        Record::Sighting(sighting) => journal.sight(sighting, wall).map(|()| None),
        Record::Intent { at, intent, .. } => journal.intend(intent.clone(), *at, wall).map(Some),
        Record::Outcome { id, at, outcome } => {
            journal.outcome(*id, *at, wall, outcome).map(|()| None)
        }
        Record::Closed { id, at, closing } => {
            journal.close(*id, *at, wall, *closing).map(|()| None)
        }
        Record::Order(order) => journal.order(order, wall).map(|()| None),
        Record::Finding(finding) => journal.find(finding, wall).map(|()| None),
        Record::Ending(ending) => journal.end(ending, wall).map(|()| None),
    }
}

/// Any name: empty, long, with control characters, quotes and NUL.
pub fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9-]{1,12}",
        any::<String>(),
        "[\\x00-\\x1f\"'\\\\:/%]{0,6}"
    ]
}

fn sha() -> impl Strategy<Value = Sha> {
    name().prop_map(Sha::new)
}

fn build_id() -> impl Strategy<Value = BuildId> {
    (name(), name(), any::<u64>(), any::<bool>(), any::<u32>()).prop_map(
        |(bot, repo, pull, auto, generation)| BuildId {
            key: BuildKey {
                bot: bot.as_str().into(),
                repo: repo.as_str().into(),
                pull,
                kind: if auto {
                    BuildKind::Auto
                } else {
                    BuildKind::Try
                },
            },
            generation,
        },
    )
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (build_id(), name()).prop_map(|(build, builder)| Target::Expectation {
            build,
            builder: builder.as_str().into()
        }),
        build_id().prop_map(Target::Build),
        (name(), name(), any::<u64>()).prop_map(|(bot, repo, pull)| Target::Pull {
            bot: bot.as_str().into(),
            repo: repo.as_str().into(),
            pull
        }),
        name().prop_map(|bot| Target::Bot(bot.as_str().into())),
        (name(), name()).prop_map(|(bot, repo)| Target::Queue {
            bot: bot.as_str().into(),
            repo: repo.as_str().into()
        }),
    ]
}

fn end() -> impl Strategy<Value = RunEnd> {
    prop::sample::select(vec![
        RunEnd::Success,
        RunEnd::Warnings,
        RunEnd::Failure,
        RunEnd::Skipped,
        RunEnd::Exception,
        RunEnd::Retry,
        RunEnd::Cancelled,
    ])
}

fn report() -> impl Strategy<Value = RunReport> {
    (
        name(),
        any::<bool>(),
        end(),
        any::<Option<u64>>(),
        prop::option::of(name()),
    )
        .prop_map(|(run, green, end, number, url)| RunReport {
            run: run.as_str().into(),
            green,
            end,
            number,
            url,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let system = prop::sample::select(vec![
        CiSystem::Buildbot,
        CiSystem::Travis,
        CiSystem::Status,
        CiSystem::Check,
    ]);
    prop_oneof![
        prop::collection::vec(sha(), 0..4).prop_map(|shas| Step::ReleaseSlot { shas }),
        (any::<u64>(), sha(), name(), system, report()).prop_map(
            |(pull, sha, builder, system, report)| Step::ReplayResult {
                pull,
                sha,
                builder: builder.as_str().into(),
                system,
                report
            }
        ),
        (
            any::<u64>(),
            sha(),
            prop::collection::vec((name(), name()), 0..4)
        )
            .prop_map(|(pull, sha, builders)| Step::ForgetGreen {
                pull,
                sha,
                builders: builders
                    .into_iter()
                    .map(|(builder, url)| (builder.as_str().into(), url))
                    .collect()
            }),
        any::<u64>().prop_map(|pull| Step::Retry { pull }),
        any::<u64>().prop_map(|pull| Step::Nudge { pull }),
        any::<u64>().prop_map(|pull| Step::ReplayClosed { pull }),
        (any::<u64>(), sha()).prop_map(|(pull, head)| Step::ReplaySynchronize { pull, head }),
        prop::collection::vec(name(), 0..4).prop_map(|command| Step::Restart { command }),
    ]
}

pub fn any_intent() -> impl Strategy<Value = Intent> {
    let attempt = (
        target(),
        prop::sample::select(Remedy::ALL.to_vec()),
        any::<u32>(),
    );
    let names = || prop::collection::btree_set(name(), 0..3);
    (
        (attempt, step(), prop::sample::select(Verdict::ALL.to_vec())),
        prop::collection::vec(name(), 0..3),
        (prop::option::of(sha()), prop::option::of(sha())),
        (
            names(),
            prop::collection::btree_set((name(), name()), 0..3),
            names(),
        ),
        prop::option::of(name()),
    )
        .prop_map(
            |((attempt, step, verdict), evidence, (merge_sha, head_sha), sets, by)| {
                let (target, remedy, ordinal) = attempt;
                let (runs, zones, workers) = sets;
                Intent {
                    attempt: AttemptId {
                        target,
                        remedy,
                        ordinal,
                    },
                    step,
                    verdict,
                    evidence,
                    merge_sha,
                    head_sha,
                    runs: runs.iter().map(|run| run.as_str().into()).collect(),
                    zones: zones
                        .iter()
                        .map(|(provider, builder)| {
                            (provider.as_str().into(), builder.as_str().into())
                        })
                        .collect(),
                    lost_workers: workers
                        .iter()
                        .map(|worker| worker.as_str().into())
                        .collect(),
                    by,
                }
            },
        )
}

pub fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        name().prop_map(Outcome::Accepted),
        name().prop_map(Outcome::Refused),
        name().prop_map(Outcome::NotSent),
        name().prop_map(Outcome::Unanswered),
    ]
}

pub fn any_closing() -> impl Strategy<Value = Closing> {
    prop::sample::select(Closing::ALL.to_vec())
}

pub fn any_sighting() -> impl Strategy<Value = Sighting> {
    let cause = prop::sample::select(vec![
        SightingCause::First,
        SightingCause::OurRerun,
        SightingCause::OthersRerun,
        SightingCause::NewHead,
    ]);
    (
        build_id(),
        prop::option::of(sha()),
        prop::option::of(sha()),
        any::<u64>(),
        cause,
        prop::collection::btree_set(name(), 0..3),
    )
        .prop_map(
            |(build, merge_sha, head_sha, millis, cause, before)| Sighting {
                build,
                merge_sha,
                head_sha,
                at: at(millis),
                cause,
                before: before.iter().map(|run| run.as_str().into()).collect(),
            },
        )
}

pub fn any_finding() -> impl Strategy<Value = Finding> {
    (
        any_intent(),
        any::<u64>(),
        prop::collection::vec(prop::sample::select(StepKind::ALL.to_vec()), 0..3),
    )
        .prop_map(|(intent, millis, steps)| Finding {
            at: at(millis),
            attempt: intent.attempt,
            verdict: intent.verdict,
            evidence: intent.evidence,
            steps,
        })
}

pub fn any_ending() -> impl Strategy<Value = Ending> {
    (
        build_id(),
        any::<u64>(),
        prop::sample::select(Verdict::ALL.to_vec()),
        prop::sample::select(End::ALL.to_vec()),
    )
        .prop_map(|(build, millis, verdict, end)| Ending {
            at: at(millis),
            build,
            verdict,
            end,
        })
}

/// An act on one build: its intent, its outcome, its closing, numbered from `id`.
pub fn act(id: i64, pull: u64) -> [Record; 3] {
    let number = IntentId(id);
    let millis = id.unsigned_abs() * 10;
    [
        Record::Intent {
            id: number,
            at: at(millis),
            intent: retry(pull, 1),
        },
        Record::Outcome {
            id: number,
            at: at(millis + 1),
            outcome: Outcome::Unanswered("no answer".to_owned()),
        },
        Record::Closed {
            id: number,
            at: at(millis + 2),
            closing: Closing::Effect,
        },
    ]
}
