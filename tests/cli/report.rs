//! What `report` says, to people and to programs.

use std::time::Duration;

use ci_watchdog::model::{End, Ending, Finding, StepKind};

use super::*;

fn build(repo: &str, pull: u64) -> BuildId {
    BuildId {
        key: BuildKey {
            bot: "homu".into(),
            repo: repo.into(),
            pull,
            kind: BuildKind::Auto,
        },
        generation: 1,
    }
}

fn sighting(repo: &str, pull: u64) -> Sighting {
    Sighting {
        build: build(repo, pull),
        merge_sha: None,
        head_sha: None,
        at: Moment::ZERO,
        cause: SightingCause::First,
        before: BTreeSet::new(),
    }
}

fn finding(repo: &str, pull: u64) -> Finding {
    Finding {
        at: Moment::ZERO,
        attempt: AttemptId {
            target: Target::Build(build(repo, pull)),
            remedy: Remedy::Rerun,
            ordinal: 1,
        },
        verdict: Verdict::NoShow,
        evidence: vec!["the whole history has no run \u{1b}[31m".to_owned()],
        steps: vec![StepKind::ReleaseSlot, StepKind::Retry],
    }
}

fn ending(repo: &str, pull: u64, verdict: Verdict, end: End) -> Ending {
    Ending {
        at: Moment::ZERO,
        build: build(repo, pull),
        verdict,
        end,
    }
}

fn ago(minutes: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(minutes * 60)
}

/// A hit, a false alarm, a miss, and something that ended long ago, in `widgets`; one that is open in
/// `gears`.
fn fill(place: &Place) -> Journal {
    let (mut journal, _) = Journal::open(&place.path("journal.db")).unwrap();
    let day = 24 * 60;
    for (repo, pull, found, over) in [
        (
            "widgets",
            1,
            Some(100),
            Some((40, Verdict::NoShow, End::Rerun)),
        ),
        (
            "widgets",
            2,
            Some(100),
            Some((90, Verdict::Stalled, End::Green)),
        ),
        ("widgets", 3, None, Some((80, Verdict::Alive, End::Rerun))),
        (
            "widgets",
            4,
            Some(30 * day),
            Some((29 * day, Verdict::NoShow, End::Rerun)),
        ),
        ("gears", 5, Some(100), None),
    ] {
        let first = found.unwrap_or(110) + 10;
        journal.sight(&sighting(repo, pull), ago(first)).unwrap();
        if let Some(found) = found {
            journal.find(&finding(repo, pull), ago(found)).unwrap();
        }
        if let Some((minutes, verdict, end)) = over {
            let ending = ending(repo, pull, verdict, end);
            journal.end(&ending, ago(minutes)).unwrap();
        }
    }
    journal
}

#[test]
fn a_report_sums_up_and_lists_what_was_found_against_what_people_did() {
    let place = alone();
    // The watchdog runs, and holds its journal.
    let _running = fill(&place);
    let answer = place.run(&["report"]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
    for words in [
        "4 builds were pending",
        "these would have been begun: 3 rerun",
        "1 hit ",
        "1 false_alarm ",
        "1 miss ",
        "1 of these were not stuck",
        "1 open ",
        "At most 1h would have been saved, 1h in the middle",
        "too little to judge by: of what was found, 2 turned out",
        "homu:widgets:1:auto:1",
        "reran it at ",
        "no_show: the whole history has no run",
    ] {
        assert!(answer.out.contains(words), "{words:?}: {}", answer.out);
    }
    assert!(!answer.out.contains("widgets:4"), "{}", answer.out);
    assert!(!answer.out.contains("nothing older"), "{}", answer.out);
    let rows = answer.out.lines().filter(|line| line.contains("homu:"));
    assert_eq!(rows.count(), 4, "{}", answer.out);
}

#[test]
fn a_report_for_programs_has_every_case_and_the_sums() {
    let place = alone();
    drop(fill(&place));
    let report = place.run(&["report", "--json", "--since", "60d"]).json();
    assert_eq!(report["totals"]["builds"], 5);
    assert_eq!(report["totals"]["findings"]["rerun"], 4);
    assert_eq!(report["totals"]["hits"], 2);
    let median = report["totals"]["saved_median_seconds"].as_u64().unwrap();
    assert_eq!(median / 60, (24 * 60 + 60) / 2);
    let cases = report["cases"].as_array().unwrap();
    let told: Vec<_> = cases
        .iter()
        .map(|case| {
            let word = |key: &str| case[key].as_str().unwrap_or("-").to_owned();
            (
                case["pull"].as_u64().unwrap(),
                word("class"),
                word("verdict"),
                word("end"),
            )
        })
        .collect();
    let case = |pull, class: &str, verdict: &str, end: &str| {
        (pull, class.to_owned(), verdict.to_owned(), end.to_owned())
    };
    assert_eq!(
        told,
        [
            case(4, "hit", "no_show", "rerun"),
            case(1, "hit", "no_show", "rerun"),
            case(2, "false_alarm", "no_show", "green"),
            case(5, "open", "no_show", "-"),
            case(3, "miss", "alive", "rerun"),
        ]
    );
    assert_eq!(cases[1]["people"]["what"], "rerun");
    let seconds = cases[1]["seconds"].as_u64().unwrap();
    assert_eq!(seconds / 60, 60);

    let gears = ["report", "--json", "--repo", "gears"];
    let report = place.run(&gears).json();
    assert_eq!(report["totals"]["open"], 1);
    assert_eq!(report["cases"].as_array().unwrap().len(), 1);
}

#[test]
fn what_the_bot_gave_up_unnoticed_is_told_with_the_time_of_its_end() {
    let place = alone();
    let (mut journal, _) = Journal::open(&place.path("journal.db")).unwrap();
    journal.sight(&sighting("widgets", 1), ago(90)).unwrap();
    let over = ending("widgets", 1, Verdict::NoShow, End::TimedOut);
    let at = ago(30);
    journal.end(&over, at).unwrap();
    let answer = place.run(&["report"]);
    for words in ["1 miss ", "or the bot gave up; 0 of these were not stuck"] {
        assert!(answer.out.contains(words), "{words:?}: {}", answer.out);
    }
    let row = answer.out.lines().find(|line| line.contains("homu:"));
    let when = ci_watchdog::report::Stamp(at).to_string();
    let row = row.unwrap();
    assert!(row.starts_with(&when) && row.contains("timed_out"), "{row}");
}

#[test]
fn a_report_on_a_repository_that_nobody_knows_fails_and_says_which_there_are() {
    let place = alone();
    drop(fill(&place));
    for command in ["report", "history"] {
        let misspelt = ["--repo", "widgest"];
        for more in [&[][..], &["--json"]] {
            let arguments = [&[command][..], &misspelt, more].concat();
            place
                .run(&arguments)
                .assert_failed(FAILED, &["\"widgest\"", "there is `gears`, `widgets`"]);
        }
        // Of the journal alone, since the configuration has it no more.
        assert_eq!(place.run(&[command, "--repo", "gears"]).code, 0);
    }
    // Of the configuration alone.
    let place = alone();
    drop(Journal::open(&place.path("journal.db")).unwrap());
    for command in ["report", "history"] {
        assert_eq!(place.run(&[command, "--repo", "widgets"]).code, 0);
        place
            .run(&[command, "--repo", "gears"])
            .assert_failed(FAILED, &["\"gears\"", "there is `widgets`"]);
    }
}

#[test]
fn a_report_that_goes_back_beyond_the_journal_begins_with_it_and_says_so() {
    let place = alone();
    drop(fill(&place));
    let since = |arguments: &[&str]| {
        let report = place.run(&[&["report", "--json"], arguments].concat());
        let report = report.json();
        let since: ci_watchdog::report::Stamp = report["since"].as_str().unwrap().parse().unwrap();
        let days = since.0.elapsed().unwrap().as_secs() / (24 * 60 * 60);
        (days, report["begins"].as_str().unwrap().to_owned())
    };
    assert_eq!(since(&["--since", "900d"]), (30, "with_the_journal".into()));
    assert_eq!(since(&["--since", "29d"]), (29, "as_asked".into()));
    let answer = place.run(&["report", "--since", "900d"]);
    let says = answer.out.contains("The journal has nothing older.");
    assert!(says, "{}", answer.out);
}

#[test]
fn a_report_on_nothing_says_so_and_one_without_a_journal_fails() {
    let place = alone();
    place
        .run(&["report"])
        .assert_failed(FAILED, &["journal.db", "was the watchdog ever run"]);
    drop(Journal::open(&place.path("journal.db")).unwrap());
    let answer = place.run(&["report"]);
    assert_eq!(answer.code, 0);
    assert!(answer.out.contains("Nothing was found"), "{}", answer.out);
    assert!(answer.out.contains("too little to judge by"));
    assert_eq!(place.run(&["report", "--since", "long"]).code, USAGE);
}
