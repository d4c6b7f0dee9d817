//! `ci-watchdog report`.

use std::time::{Duration, SystemTime};

use super::table::table;
use super::{FAILED, OK, Report, complain, load, say, say_json};
use crate::journal::{HISTORY_MAX, HistoryFilter, JournalError, Reader, Stamped};
use crate::model::RepoName;
use crate::report::Stamp;
use crate::review::{Case, Class, JUDGED_MIN, Review, Totals, review};

/// How many pages of [`HISTORY_MAX`] records are read at most; a busy watchdog writes so many in some
/// months.
const PAGES_MAX: usize = 50;

/// Reads the journal and prints what it says of the period.
pub(super) fn main(arguments: &Report) -> u8 {
    let config = match load(arguments.common.config.as_deref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let now = SystemTime::now();
    let Some(since) = now.checked_sub(arguments.since) else {
        complain("--since is longer than the clock goes back");
        return FAILED;
    };
    let repo = arguments.repo.clone().map(RepoName::new);
    let records = Reader::open(&config.journal.path)
        .and_then(|reader| everything(&reader, repo, HISTORY_MAX));
    let records = match records {
        Ok(records) => records,
        Err(error) => {
            complain(&error.to_string());
            return FAILED;
        }
    };
    let review = review(&records, since, now);
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

/// All that the journal keeps, page by page, so that the watchdog can write between two; what was found
/// before a period may have ended in it.
fn everything(
    reader: &Reader,
    repo: Option<RepoName>,
    page_max: usize,
) -> Result<Vec<Stamped>, JournalError> {
    let mut filter = HistoryFilter {
        repo,
        limit: page_max,
        ..HistoryFilter::default()
    };
    let mut pages = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = reader.history(&filter)?;
        filter.before = page.first().map(|stamped| stamped.seq);
        let last = page.len() < page_max;
        pages.push(page);
        if last {
            break;
        }
    }
    Ok(pages.into_iter().rev().flatten().collect())
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
            "people reran it and nothing was found; {misses_of_live_builds} of these were not stuck"
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
    let when = case.found.or(case.people.as_ref().map(|deed| deed.at));
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
    use crate::model::{BuildId, BuildKey, BuildKind, Moment, Sighting, SightingCause};

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
        for page_max in [1, 2, 4, 6, 7] {
            let all = everything(&reader, None, page_max).unwrap();
            let numbers: Vec<i64> = all.iter().map(|stamped| stamped.seq).collect();
            assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "{page_max}");
        }
        let other = everything(&reader, Some("other".into()), 2).unwrap();
        assert_eq!(other, []);
    }
}
