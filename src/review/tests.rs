//! What each story comes to.

use std::collections::BTreeSet;

use super::*;
use crate::model::{
    BotName, BuildKey, BuildKind, BuilderName, Intent, Moment, SightingCause, Step, StepKind,
};

fn wall(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

const NOW: u64 = 100_000;

fn build(pull: u64, generation: u32) -> BuildId {
    BuildId {
        key: BuildKey {
            bot: "homu".into(),
            repo: "servo".into(),
            pull,
            kind: BuildKind::Auto,
        },
        generation,
    }
}

/// Records in the order of their times.
#[derive(Default)]
struct Tale(Vec<Stamped>);

impl Tale {
    fn put(mut self, seconds: u64, record: Record) -> Self {
        self.0.push(Stamped {
            seq: self.0.len() as i64 + 1,
            wall: wall(seconds),
            record,
        });
        self
    }

    fn seen(self, seconds: u64, pull: u64, generation: u32, cause: SightingCause) -> Self {
        let sighting = Sighting {
            build: build(pull, generation),
            merge_sha: None,
            head_sha: None,
            at: Moment::ZERO,
            cause,
            before: BTreeSet::new(),
        };
        self.put(seconds, Record::Sighting(sighting))
    }

    fn found_on(self, seconds: u64, target: Target, remedy: Remedy, verdict: Verdict) -> Self {
        let finding = Finding {
            at: Moment::ZERO,
            attempt: AttemptId {
                target,
                remedy,
                ordinal: 1,
            },
            verdict,
            evidence: vec!["no run".to_owned()],
            steps: vec![StepKind::Retry],
        };
        self.put(seconds, Record::Finding(finding))
    }

    /// Its first generation would be rerun.
    fn found(self, seconds: u64, pull: u64) -> Self {
        let target = Target::Build(build(pull, 1));
        self.found_on(seconds, target, Remedy::Rerun, Verdict::NoShow)
    }

    /// A result of its first generation would be replayed.
    fn found_lost(self, seconds: u64, pull: u64) -> Self {
        let target = Target::Expectation {
            build: build(pull, 1),
            builder: BuilderName::from("linux"),
        };
        self.found_on(seconds, target, Remedy::ReplayResult, Verdict::Unreported)
    }

    /// Its first generation is over.
    fn over(self, seconds: u64, pull: u64, verdict: Verdict, end: End) -> Self {
        let ending = Ending {
            at: Moment::ZERO,
            build: build(pull, 1),
            verdict,
            end,
        };
        self.put(seconds, Record::Ending(ending))
    }

    fn sent(self, seconds: u64, id: i64, pull: u64, step: Step, by: Option<&str>) -> Self {
        let intent = Intent {
            attempt: AttemptId {
                target: Target::Build(build(pull, 1)),
                remedy: Remedy::Rerun,
                ordinal: 1,
            },
            step,
            verdict: Verdict::Stalled,
            evidence: Vec::new(),
            merge_sha: None,
            head_sha: None,
            runs: BTreeSet::new(),
            zones: BTreeSet::new(),
            lost_workers: BTreeSet::new(),
            by: by.map(str::to_owned),
        };
        let record = Record::Intent {
            id: IntentId(id),
            at: Moment::ZERO,
            intent,
        };
        self.put(seconds, record)
    }

    fn closed(self, seconds: u64, id: i64, closing: Closing) -> Self {
        let record = Record::Closed {
            id: IntentId(id),
            at: Moment::ZERO,
            closing,
        };
        self.put(seconds, record)
    }

    fn review(&self) -> Review {
        review(&self.0, (wall(0), Begins::AsAsked), wall(NOW))
    }

    /// The one case that it comes to.
    #[track_caller]
    fn case(&self) -> Case {
        let review = self.review();
        let [case] = review.cases.as_slice() else {
            panic!("{:#?}", review.cases);
        };
        case.clone()
    }
}

fn tale() -> Tale {
    Tale::default().seen(10, 7, 1, SightingCause::First)
}

#[test]
fn a_dead_build_that_people_rerun_is_a_hit_with_the_time_from_the_finding_to_their_act() {
    let tale = tale()
        .found(100, 7)
        .over(700, 7, Verdict::NoShow, End::Rerun)
        .seen(700, 7, 2, SightingCause::OthersRerun);
    let case = tale.case();
    assert_eq!(case.class, Class::Hit);
    assert_eq!(case.target, "homu:servo:7:auto:1");
    assert_eq!((case.repo, case.pull), (Some("servo".into()), Some(7)));
    assert_eq!(case.verdict, Verdict::NoShow);
    assert_eq!(case.remedy, Some(Remedy::Rerun));
    assert_eq!(case.evidence, ["no run"]);
    let deed = case.people.expect("they reran it");
    assert_eq!((deed.what, deed.by), (DeedKind::Rerun, None));
    assert_eq!(case.end, Some(End::Rerun));
    assert_eq!(case.seconds, Some(600));
    let totals = tale.review().totals;
    assert_eq!(totals.builds, 2);
    assert_eq!(totals.findings, [(Remedy::Rerun, 1)].into());
    assert_eq!((totals.hits, totals.saved_seconds), (1, 600));
    assert_eq!(totals.saved_median_seconds, Some(600));
}

#[test]
fn what_became_of_a_dead_build_is_its_class() {
    for (end, class, people) in [
        (End::Rerun, Class::Hit, Some(DeedKind::Rerun)),
        (End::Closed, Class::Hit, Some(DeedKind::Closed)),
        (End::NewHead, Class::Hit, Some(DeedKind::NewHead)),
        (End::Left, Class::Hit, Some(DeedKind::TookAway)),
        (End::TimedOut, Class::Hit, None),
        (End::Green, Class::FalseAlarm, None),
        (End::Red, Class::FalseAlarm, None),
        (End::Unknown, Class::Unclear, None),
    ] {
        let case = tale()
            .found(100, 7)
            .over(700, 7, Verdict::Stalled, end)
            .case();
        assert_eq!(case.class, class, "{end:?}");
        assert_eq!(case.people.map(|deed| deed.what), people, "{end:?}");
        let gain = (class == Class::Hit).then_some(600);
        assert_eq!(case.seconds, gain, "{end:?}");
        assert_eq!(case.end, Some(end));
    }
}

#[test]
fn a_lost_result_that_came_after_all_was_late_and_one_that_people_replaced_is_a_hit() {
    for (end, class) in [
        (End::Green, Class::Late),
        (End::Red, Class::Late),
        (End::Rerun, Class::Hit),
    ] {
        let case = tale()
            .found_lost(100, 7)
            .over(400, 7, Verdict::Unreported, end)
            .case();
        assert_eq!((case.class, case.seconds), (class, Some(300)), "{end:?}");
    }
    let case = tale()
        .found_lost(100, 7)
        .found(200, 7)
        .over(400, 7, Verdict::NoShow, End::Green)
        .case();
    assert_eq!(case.class, Class::FalseAlarm, "a rerun was to follow");
}

#[test]
fn what_people_rerun_without_a_finding_is_a_miss_with_its_verdict() {
    for (verdict, of_live) in [
        (Verdict::Alive, 1),
        (Verdict::Queued, 1),
        (Verdict::Stalled, 0),
        (Verdict::Unknown, 0),
    ] {
        let tale = tale().over(400, 7, verdict, End::Rerun);
        let case = tale.case();
        assert_eq!((case.class, case.verdict), (Class::Miss, verdict));
        assert_eq!((case.seconds, case.remedy, case.found), (None, None, None));
        let totals = tale.review().totals;
        assert_eq!((totals.misses, totals.misses_of_live_builds), (1, of_live));
    }
}

#[test]
fn a_build_that_the_bot_gave_up_without_a_finding_is_a_miss_whatever_its_verdict() {
    for (verdict, of_live) in [
        (Verdict::NoShow, 0),
        (Verdict::Unknown, 0),
        (Verdict::Starved, 0),
        (Verdict::Alive, 1),
    ] {
        let tale = tale().over(400, 7, verdict, End::TimedOut);
        let case = tale.case();
        assert_eq!((case.class, case.verdict), (Class::Miss, verdict));
        assert_eq!((case.people, case.end), (None, Some(End::TimedOut)));
        assert_eq!(case.ended, Some(Stamp(wall(400))));
        assert_eq!((case.seconds, case.remedy, case.found), (None, None, None));
        let totals = tale.review().totals;
        assert_eq!((totals.misses, totals.misses_of_live_builds), (1, of_live));
    }
}

#[test]
fn what_people_take_away_without_a_finding_is_a_miss_where_it_was_dead() {
    for (end, deed) in [
        (End::Closed, DeedKind::Closed),
        (End::NewHead, DeedKind::NewHead),
        (End::Left, DeedKind::TookAway),
    ] {
        for verdict in Verdict::ALL {
            let tale = tale().over(400, 7, verdict, end);
            if !verdict.dead() {
                assert!(tale.review().cases.is_empty(), "{end:?}, {verdict}");
                continue;
            }
            let case = tale.case();
            assert_eq!((case.class, case.verdict), (Class::Miss, verdict));
            assert_eq!(case.people.map(|it| it.what), Some(deed));
            assert_eq!(tale.review().totals.misses_of_live_builds, 0);
        }
    }
}

#[test]
fn what_ends_otherwise_without_a_finding_is_no_case() {
    for end in [End::Green, End::Red, End::Unknown] {
        for verdict in [Verdict::Alive, Verdict::NoShow] {
            let tale = tale().over(400, 7, verdict, end);
            assert!(tale.review().cases.is_empty(), "{end:?}, {verdict}");
            assert_eq!(tale.review().totals.builds, 1);
        }
    }
    // A red build that is retried, and one that was rerun while nobody looked.
    let tale =
        tale()
            .over(400, 7, Verdict::Alive, End::Red)
            .seen(500, 7, 2, SightingCause::OthersRerun);
    assert!(tale.review().cases.is_empty());
    let tale = self::tale().seen(500, 7, 2, SightingCause::OthersRerun);
    assert!(tale.review().cases.is_empty());
}

#[test]
fn what_is_found_and_not_over_is_open_until_a_later_generation_makes_it_unclear() {
    let tale = tale().found(100, 7);
    let case = tale.case();
    assert_eq!((case.class, case.seconds), (Class::Open, Some(NOW - 100)));
    let totals = tale.review().totals;
    assert_eq!((totals.open, totals.lost_seconds), (1, NOW - 100));
    assert_eq!(totals.saved_seconds, 0);
    let tale = tale.seen(500, 7, 2, SightingCause::NewHead);
    assert_eq!(tale.case().class, Class::Unclear);
}

#[test]
fn a_rerun_by_hand_is_peoples_act_and_says_whose() {
    let retry = || Step::Retry { pull: 7 };
    let tale = tale()
        .found(100, 7)
        .sent(300, 1, 7, retry(), Some("alice"))
        .closed(320, 1, Closing::Effect)
        .over(320, 7, Verdict::NoShow, End::Rerun)
        .seen(320, 7, 2, SightingCause::OurRerun);
    let case = tale.case();
    assert_eq!((case.class, case.seconds), (Class::Hit, Some(200)));
    let deed = case.people.expect("alice did");
    assert_eq!(deed.by.as_deref(), Some("alice"));
    assert_eq!(deed.at, Stamp(wall(300)));

    let tale = Tale::default().seen(10, 7, 1, SightingCause::First).sent(
        300,
        1,
        7,
        retry(),
        Some("alice"),
    );
    let case = tale.case();
    assert_eq!((case.class, case.verdict), (Class::Miss, Verdict::Stalled));
}

#[test]
fn what_we_did_is_told_once_with_its_last_effect() {
    let shas = Vec::new();
    let tale = tale()
        .found(90, 7)
        .sent(100, 1, 7, Step::ReleaseSlot { shas }, None)
        .closed(101, 1, Closing::Done)
        .sent(102, 2, 7, Step::Retry { pull: 7 }, None);
    let case = tale.case();
    assert_eq!((case.class, case.effect), (Class::Acted, None));
    assert_eq!(case.verdict, Verdict::Stalled);
    assert_eq!(case.found, Some(Stamp(wall(100))));
    let tale = tale
        .closed(130, 2, Closing::Effect)
        .over(130, 7, Verdict::Stalled, End::Rerun);
    assert_eq!(tale.case().effect, Some(Closing::Effect));
    assert_eq!(tale.review().totals.acted, 1);
}

#[test]
fn a_lost_start_is_no_alarm_about_its_build() {
    let target = Target::Build(build(7, 1));
    let release =
        |tale: Tale| tale.found_on(100, target.clone(), Remedy::ReleaseSlot, Verdict::Alive);
    for end in [End::Green, End::Left] {
        let case = release(tale()).over(400, 7, Verdict::Alive, end).case();
        assert_eq!((case.class, case.seconds), (Class::Slot, None), "{end:?}");
    }
    for (verdict, end) in [
        (Verdict::Alive, End::Rerun),
        (Verdict::Alive, End::TimedOut),
        (Verdict::Stalled, End::Closed),
    ] {
        let case = release(tale()).over(400, 7, verdict, end).case();
        assert_eq!(case.class, Class::Miss, "it was no use: {end:?}");
        assert_eq!(case.found, None);
    }
}

#[test]
fn a_stuck_queue_is_open_until_something_of_it_is_pending() {
    let bot: BotName = "homu".into();
    let queue = |repo: &str| Target::Queue {
        bot: bot.clone(),
        repo: repo.into(),
    };
    let tale = Tale::default()
        .found_on(100, queue("servo"), Remedy::Unwedge, Verdict::Wedged)
        .found_on(100, queue("other"), Remedy::Unwedge, Verdict::Wedged)
        .seen(400, 8, 1, SightingCause::First)
        .found_on(900, queue("servo"), Remedy::Unwedge, Verdict::Wedged);
    let cases = tale.review().cases;
    let told: Vec<_> = cases
        .iter()
        .map(|case| (case.target.as_str(), case.class, case.seconds))
        .collect();
    assert_eq!(
        told,
        [
            ("homu:other", Class::Open, Some(NOW - 100)),
            ("homu:servo", Class::Late, Some(300)),
            ("homu:servo", Class::Open, Some(NOW - 900)),
        ]
    );
}

#[test]
fn only_what_ended_in_the_period_or_still_goes_on_counts() {
    let tale = tale()
        .seen(10, 8, 1, SightingCause::First)
        .seen(10, 9, 1, SightingCause::First)
        .found(100, 7)
        .found(100, 8)
        .found(100, 9)
        .over(200, 7, Verdict::NoShow, End::Rerun)
        .over(2000, 8, Verdict::NoShow, End::Rerun);
    let review = review(&tale.0, (wall(1000), Begins::AsAsked), wall(3000));
    let told: Vec<_> = review.cases.iter().map(|it| (it.pull, it.class)).collect();
    assert_eq!(told, [(Some(8), Class::Hit), (Some(9), Class::Open)]);
    assert_eq!(review.totals.builds, 1, "one was seen to end in it");
    assert_eq!(review.totals.findings, BTreeMap::new());
    assert_eq!(review.totals.saved_seconds, 1900, "from the finding on");
}

#[test]
fn a_wall_clock_that_was_set_back_saves_nothing() {
    let case = tale()
        .found(100, 7)
        .over(50, 7, Verdict::NoShow, End::Rerun)
        .case();
    assert_eq!((case.class, case.seconds), (Class::Hit, Some(0)));
}

#[test]
fn the_median_lies_in_the_middle() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[5]), Some(5));
    assert_eq!(median(&[1, 2, 100]), Some(2));
    assert_eq!(median(&[1, 2, 5, 100]), Some(3));
}
