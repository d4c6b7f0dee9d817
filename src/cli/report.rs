//! `ci-watchdog report`.

use std::time::{Duration, SystemTime};

use super::repos::known;
use super::table::table;
use super::{FAILED, OK, Report, complain, load, say, say_json};
use crate::config::Config;
use crate::journal::{HISTORY_MAX, HistoryFilter, JournalError, Reader, Stamped};
use crate::model::RepoName;
use crate::report::Stamp;
use crate::review::{Begins, Case, Class, JUDGED_MIN, Review, Totals, review};

/// How many pages of [`HISTORY_MAX`] records are read at most; a busy watchdog writes so many in some
/// months. Where the journal has more, the report says where it begins.
const PAGES_MAX: usize = 50;

/// Reads the journal and prints what it says of the period.
pub(super) fn main(arguments: &Report) -> u8 {
    let config = match load(arguments.common.config.as_deref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let now = SystemTime::now();
    let Some(asked) = now.checked_sub(arguments.since) else {
        complain("--since is longer than the clock goes back");
        return FAILED;
    };
    let repo = arguments.repo.clone().map(RepoName::new);
    let reading = match read(&config, repo) {
        Ok(reading) => reading,
        Err(message) => {
            complain(&message);
            return FAILED;
        }
    };
    let review = review(&reading.records, reading.beginning(asked, now), now);
    if arguments.common.json {
        return say_json(&review);
    }
    say(&summary(&review));
    if !review.cases.is_empty() {
        let rows: Vec<Vec<String>> = review.cases.iter().map(row).collect();
        let heads = [
            "WHEN",
            "CLASS",
            "FOR",
            "WOULD HAVE DONE",
            "PEOPLE",
            "BECAME",
            "TIME",
            "EVIDENCE",
        ];
        say(&format!("\n{}", table(&heads, &rows)));
    }
    OK
}

fn read(config: &Config, repo: Option<RepoName>) -> Result<Reading, String> {
    let reader = Reader::open(&config.journal.path).map_err(|error| error.to_string())?;
    if let Some(repo) = &repo {
        known(config, &reader, repo)?;
    }
    everything(&reader, repo, HISTORY_MAX, PAGES_MAX).map_err(|error| error.to_string())
}

/// What was read of the journal.
struct Reading {
    records: Vec<Stamped>,
    /// When the first record of the journal was written, of whatever repository: from then on somebody
    /// looked.
    first: Option<SystemTime>,
    /// The journal has older ones that were to be read.
    cut: bool,
}

impl Reading {
    /// Where a period begins that was asked for from `asked` on: nobody can tell of an earlier time than
    /// what was read is from.
    fn beginning(&self, asked: SystemTime, now: SystemTime) -> (SystemTime, Begins) {
        // A wall clock may have been set back: the first that was written need not be the oldest.
        let oldest = self.records.iter().map(|stamped| stamped.wall).min();
        let (from, begins) = if self.cut {
            (oldest, Begins::WithWhatIsRead)
        } else {
            let oldest = oldest.into_iter().chain(self.first).min();
            (oldest, Begins::WithTheJournal)
        };
        let from = from.map_or(now, |from| from.min(now));
        if from > asked {
            (from, begins)
        } else {
            (asked, Begins::AsAsked)
        }
    }
}

/// All that the journal keeps, page by page, so that the watchdog can write between two; what was found
/// before a period may have ended in it.
fn everything(
    reader: &Reader,
    repo: Option<RepoName>,
    page_max: usize,
    pages_max: usize,
) -> Result<Reading, JournalError> {
    // Before the pages: what is pruned meanwhile is older than any.
    let first = reader.begins()?;
    let mut filter = HistoryFilter {
        repo,
        limit: page_max,
        ..HistoryFilter::default()
    };
    let mut pages = Vec::new();
    let mut cut = true;
    for _ in 0..pages_max {
        let page = reader.history(&filter)?;
        filter.before = page.first().map(|stamped| stamped.seq);
        cut = page.len() == page_max;
        pages.push(page);
        if !cut {
            break;
        }
    }
    if cut {
        // The last page may have ended with the oldest record.
        filter.limit = 1;
        cut = !reader.history(&filter)?.is_empty();
    }
    Ok(Reading {
        records: pages.into_iter().rev().flatten().collect(),
        first,
        cut,
    })
}

fn summary(review: &Review) -> String {
    let Totals {
        builds,
        findings,
        hits,
        late,
        false_alarms,
        misses,
        misses_of_live_builds,
        open,
        unclear,
        slots,
        acted,
        saved_seconds,
        saved_median_seconds,
        lost_seconds,
    } = &review.totals;
    let judged = review.totals.judged();
    let mut lines = vec![format!(
        "From {} to {}: {builds} builds were pending.",
        review.since, review.until
    )];
    match review.begins {
        Begins::AsAsked => {}
        Begins::WithTheJournal => lines.push("The journal has nothing older.".to_owned()),
        Begins::WithWhatIsRead => lines.push(format!(
            "The journal has older records, which were not read: only the newest {} are; --repo reads those of one repository.",
            PAGES_MAX * HISTORY_MAX
        )),
    }
    let remedies: Vec<String> = findings
        .iter()
        .map(|(remedy, count)| format!("{count} {remedy}"))
        .collect();
    lines.push(if remedies.is_empty() {
        "Nothing was found that would have been acted on.".to_owned()
    } else {
        format!(
            "In mode = \"act\" these would have been begun: {}.",
            remedies.join(", ")
        )
    });
    let mut tell = |count: u64, class: Class, text: String| {
        if count > 0 {
            lines.push(format!("{count:>4} {:<12} {text}", class.as_str()));
        }
    };
    tell(
        *hits,
        Class::Hit,
        "found stuck, and ended only by what people did, or when the bot gave up".to_owned(),
    );
    tell(
        *late,
        Class::Late,
        "a lost message was found, and what it tells came about later".to_owned(),
    );
    tell(
        *false_alarms,
        Class::FalseAlarm,
        "found dead, and it came to a result by itself: a rerun would have cost it".to_owned(),
    );
    tell(
        *misses,
        Class::Miss,
        format!(
            "nothing was found, and people reran it, or took it away dead, or the bot gave up; {misses_of_live_builds} of these were not stuck"
        ),
    );
    tell(
        *open,
        Class::Open,
        format!("found, and still so; {} so far", words(*lost_seconds)),
    );
    tell(
        *unclear,
        Class::Unclear,
        "found, and nobody knows what became of it".to_owned(),
    );
    tell(
        *slots,
        Class::Slot,
        "only the message of the start was lost".to_owned(),
    );
    tell(*acted, Class::Acted, "was acted on".to_owned());
    if let Some(median) = saved_median_seconds {
        lines.push(format!(
            "At most {} would have been saved, {} in the middle.",
            words(*saved_seconds),
            words(*median)
        ));
    }
    if *acted == 0 && judged < JUDGED_MIN {
        lines.push(format!(
            "This is too little to judge by: of what was found, {judged} turned out right or wrong so far; let it observe until there are {JUDGED_MIN}."
        ));
    }
    lines.join("\n")
}

fn row(case: &Case) -> Vec<String> {
    let people = case.people.as_ref().map(|deed| deed.at);
    let when = case.found.or(people).or(case.ended);
    let people = case.people.as_ref().map(|deed| {
        let by = super::history::by(deed.by.as_deref());
        format!("{}{by} at {}", deed.what.as_str(), deed.at)
    });
    let would = case.remedy.map(|remedy| remedy.to_string());
    let became = case
        .effect
        .map(|effect| effect.as_str())
        .or(case.end.map(|end| end.as_str()));
    vec![
        when.as_ref().map_or_else(String::new, Stamp::to_string),
        case.class.as_str().to_owned(),
        case.target.clone(),
        would.unwrap_or_default(),
        people.unwrap_or_default(),
        became.unwrap_or_default().to_owned(),
        case.seconds.map(words).unwrap_or_default(),
        format!("{}: {}", case.verdict, case.evidence.join("; ")),
    ]
}

fn words(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::journal::Journal;
    use crate::model::{
        BuildId, BuildKey, BuildKind, Closing, IntentId, Moment, Record, Sighting, SightingCause,
    };

    #[test]
    fn every_page_is_read_and_their_order_is_that_of_writing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let (mut journal, _) = Journal::open(&path).unwrap();
        for generation in 1..=6 {
            let sighting = Sighting {
                build: BuildId {
                    key: BuildKey {
                        bot: "homu".into(),
                        repo: "servo".into(),
                        pull: 7,
                        kind: BuildKind::Auto,
                    },
                    generation,
                },
                merge_sha: None,
                head_sha: None,
                at: Moment::ZERO,
                cause: SightingCause::First,
                before: BTreeSet::new(),
            };
            journal.sight(&sighting, SystemTime::now()).unwrap();
        }
        let reader = Reader::open(&path).unwrap();
        let numbers = |reading: &Reading| -> Vec<i64> {
            let records = reading.records.iter();
            records.map(|stamped| stamped.seq).collect()
        };
        for page_max in [1, 2, 4, 6, 7] {
            let all = everything(&reader, None, page_max, PAGES_MAX).unwrap();
            assert_eq!(numbers(&all), [1, 2, 3, 4, 5, 6], "{page_max}");
            assert!(!all.cut, "{page_max}");
        }
        let other = everything(&reader, Some("other".into()), 2, PAGES_MAX).unwrap();
        assert_eq!(numbers(&other), [0; 0]);
        assert!(!other.cut);

        for (page_max, pages_max, kept, is_cut) in [
            (1, 5, 2..=6, true),
            (2, 2, 3..=6, true),
            (4, 1, 3..=6, true),
            (2, 3, 1..=6, false),
            (6, 1, 1..=6, false),
        ] {
            let some = everything(&reader, None, page_max, pages_max).unwrap();
            let kept: Vec<i64> = kept.collect();
            assert_eq!((numbers(&some), some.cut), (kept, is_cut), "{page_max}");
        }
    }

    #[test]
    fn a_period_begins_no_earlier_than_what_was_read_of_the_journal() {
        let wall = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let reading = |first: Option<u64>, walls: &[u64], cut| {
            let stamped = |(seq, seconds): (i64, &u64)| Stamped {
                seq,
                wall: wall(*seconds),
                record: Record::Closed {
                    id: IntentId(1),
                    at: Moment::ZERO,
                    closing: Closing::Effect,
                },
            };
            Reading {
                records: (1..).zip(walls).map(stamped).collect(),
                first: first.map(wall),
                cut,
            }
        };
        let begins = |reading: Reading| reading.beginning(wall(100), wall(1000));
        let asked = (wall(100), Begins::AsAsked);
        let journal = |from| (wall(from), Begins::WithTheJournal);
        let read = |from| (wall(from), Begins::WithWhatIsRead);
        assert_eq!(begins(reading(Some(50), &[50, 300], false)), asked);
        assert_eq!(begins(reading(Some(100), &[100], false)), asked);
        assert_eq!(begins(reading(Some(200), &[200, 300], false)), journal(200));
        // Another repository's is older.
        assert_eq!(begins(reading(Some(50), &[300], false)), asked);
        assert_eq!(begins(reading(Some(200), &[], false)), journal(200));
        assert_eq!(begins(reading(None, &[], false)), journal(1000));
        // A wall clock was set back.
        assert_eq!(begins(reading(Some(500), &[500, 200], false)), journal(200));
        assert_eq!(begins(reading(Some(5000), &[5000], false)), journal(1000));
        // There is more than was read, which reaches back far enough or not.
        assert_eq!(begins(reading(Some(1), &[50, 300], true)), asked);
        assert_eq!(begins(reading(Some(1), &[300, 400], true)), read(300));
    }

    #[test]
    fn a_report_says_why_it_begins_later_than_was_asked_for() {
        let told = |begins| {
            let now = SystemTime::UNIX_EPOCH;
            summary(&review(&[], (now, begins), now))
        };
        let older = "The journal has nothing older.";
        let cut = format!("only the newest {} are", PAGES_MAX * HISTORY_MAX);
        for (begins, is_journal, is_cut) in [
            (Begins::AsAsked, false, false),
            (Begins::WithTheJournal, true, false),
            (Begins::WithWhatIsRead, false, true),
        ] {
            let told = told(begins);
            assert_eq!(told.contains(older), is_journal, "{told}");
            assert_eq!(told.contains(&cut), is_cut, "{told}");
        }
    }
}
