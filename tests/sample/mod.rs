//! A report with something in every part of it: two builds, holds, a queue, zones, attempts,
//! sources, and one event of each kind.

use std::time::{Duration, SystemTime};

use ci_watchdog::decision::policy::Mode;
use ci_watchdog::model::{Closing, Gate, ProbeFailure, Quota, Remedy, StepKind, Verdict};
use ci_watchdog::report::{
    AttemptReport, BuildReport, Event, ExpectationReport, HoldReport, JournalReport, QueueReport,
    Report, SourceReport, SourceRole, Stamp, StepReport, ZoneReport, ZoneState,
};

/// Unix time of the report, seconds.
const AT: u64 = 1_800_000_000;

/// The report.
pub fn report() -> Report {
    let mut report = Report::empty(Mode::Act, at(3600).0);
    report.started = at(0);
    report.tick = 120;
    report.took = Duration::from_millis(140);
    report.not_settled = None;
    report.sources = sources();
    report.builds = vec![lost_build(), unreported_build()];
    report.queues = vec![
        queue("widgets", 3, 2, Verdict::Alive),
        queue("gears", 1, 0, Verdict::Wedged),
    ];
    report.zones = vec![
        zone("linux", ZoneState::Good, 2, 2),
        zone("mac", ZoneState::Outage, 0, 2),
    ];
    report.attempts = vec![attempt()];
    report.journal = JournalReport {
        writable: true,
        error: None,
        records: 42,
        bytes: 16_384,
        open_intents: 1,
    };
    report.warnings = vec!["the CI of gears has no configured provider".to_owned()];
    report.events = events();
    report
}

fn sources() -> Vec<SourceReport> {
    let good = |name: &str, role, kind, quota| SourceReport {
        source: name.to_owned(),
        role,
        kind,
        up: Some(true),
        last_success: Some(at(3599)),
        error: None,
        failure: None,
        quota,
        silent_since: None,
        hold: None,
    };
    let quota = Quota {
        limit: 5000,
        remaining: 4321,
        reset: AT + 3600,
    };
    let mut silent = good("mac-ci", SourceRole::Provider, "buildbot", None);
    silent.up = Some(false);
    silent.error = Some("no complete answer within 10s".to_owned());
    silent.failure = Some(ProbeFailure::Timeout);
    vec![
        good("homu", SourceRole::Bot, "homu", None),
        good("linux-ci", SourceRole::Provider, "buildbot", None),
        silent,
        good("github", SourceRole::Github, "github", Some(quota)),
    ]
}

fn lost_build() -> BuildReport {
    let hold = HoldReport {
        target: "homu:widgets:7:auto:1".to_owned(),
        remedy: Remedy::Rerun,
        gate: Gate::ZoneOutage,
        reason: "zone mac-ci/mac is in outage".to_owned(),
        until: Some(at(4200)),
        plan: vec![StepKind::ReleaseSlot, StepKind::Retry],
    };
    let mut build = build(7, Verdict::WorkerLost);
    build.hold = Some(hold.clone());
    build.holds = vec![hold];
    build.expectations = vec![
        expectation("linux", "linux-ci", Verdict::Reported, false),
        expectation("mac", "mac-ci", Verdict::WorkerLost, true),
    ];
    build
}

fn unreported_build() -> BuildReport {
    let mut build = build(8, Verdict::Unreported);
    build.is_try = true;
    build.expectations = vec![expectation("linux", "linux-ci", Verdict::Unreported, true)];
    build.attempts = vec![attempt()];
    build
}

fn build(pull: u64, verdict: Verdict) -> BuildReport {
    BuildReport {
        id: format!("homu:widgets:{pull}:auto:1"),
        bot: "homu".to_owned(),
        repo: "widgets".to_owned(),
        pull,
        is_try: false,
        title: "Turn the widgets the other way".to_owned(),
        url: format!("https://github.example/acme/widgets/pull/{pull}"),
        merge_sha: Some("a".repeat(40)),
        head_sha: Some("b".repeat(40)),
        generation: 1,
        first_seen: at(600),
        verdict,
        evidence: Vec::new(),
        stuck: true,
        hold: None,
        holds: Vec::new(),
        expectations: Vec::new(),
        attempts: Vec::new(),
    }
}

fn expectation(builder: &str, provider: &str, verdict: Verdict, stuck: bool) -> ExpectationReport {
    ExpectationReport {
        builder: builder.to_owned(),
        provider: Some(provider.to_owned()),
        verdict,
        looks: 3,
        confirmed: stuck,
        stuck,
        evidence: vec!["its worker went away".to_owned()],
        deadline: Some(at(1800)),
        run: Some("17".to_owned()),
        url: Some("https://ci.example/builders/1/builds/17".to_owned()),
        heartbeat: Some(at(1200)),
    }
}

fn queue(repo: &str, approved: usize, pending: usize, verdict: Verdict) -> QueueReport {
    QueueReport {
        bot: "homu".to_owned(),
        repo: repo.to_owned(),
        builders: vec!["linux".to_owned(), "mac".to_owned(), "docs".to_owned()],
        approved,
        pending,
        verdict,
        evidence: Vec::new(),
        hold: None,
    }
}

fn zone(builder: &str, state: ZoneState, able: usize, configured: usize) -> ZoneReport {
    ZoneReport {
        provider: format!("{builder}-ci"),
        builder: builder.to_owned(),
        state,
        reason: (state != ZoneState::Good).then(|| "no worker is able".to_owned()),
        able,
        configured,
    }
}

fn attempt() -> AttemptReport {
    AttemptReport {
        id: "homu:widgets:8:auto:1/linux:replay_result:1".to_owned(),
        build: Some("homu:widgets:8:auto:1".to_owned()),
        bot: "homu".to_owned(),
        repo: "widgets".to_owned(),
        pull: Some(8),
        remedy: Remedy::ReplayResult,
        verdict: Verdict::Unreported,
        evidence: vec!["run 17 finished green".to_owned()],
        at: at(3590),
        steps: vec![StepReport {
            step: StepKind::ReplayResult,
            at: at(3590),
            outcome: Some("accepted"),
            detail: Some("answered 200".to_owned()),
            closing: None,
            closed_at: None,
        }],
        by: None,
    }
}

fn events() -> Vec<Event> {
    let (bot, repo) = ("homu".to_owned(), "widgets".to_owned());
    vec![
        Event::Probed {
            source: "mac-ci".to_owned(),
            role: SourceRole::Provider,
            kind: "buildbot",
            took: Duration::from_secs(10),
            failure: Some(ProbeFailure::Timeout),
        },
        Event::LateTick {
            by: Duration::from_secs(30),
        },
        Event::Detected {
            bot: bot.clone(),
            repo: repo.clone(),
            verdict: Verdict::WorkerLost,
            after: Duration::from_secs(210),
        },
        Event::Held {
            bot: bot.clone(),
            repo: repo.clone(),
            remedy: Remedy::Rerun,
            gate: Gate::ZoneOutage,
        },
        Event::Attempted {
            bot: bot.clone(),
            repo: repo.clone(),
            remedy: Remedy::ReplayResult,
        },
        Event::Sent {
            bot: bot.clone(),
            step: StepKind::ReplayResult,
            outcome: "accepted",
        },
        Event::Settled {
            bot: bot.clone(),
            remedy: Remedy::ReplayResult,
            step: StepKind::ReplayResult,
            closing: Closing::Effect,
            after: Duration::from_secs(15),
        },
        Event::FalseAlarm { bot, repo },
        Event::JournalFailed,
    ]
}

fn at(seconds: u64) -> Stamp {
    Stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(AT + seconds))
}
