//! Whether all that is green is really green: a commit is merged only where Buildbot ran it at every
//! builder and well, and a result that the watchdog tells homu again is that of its run.

use super::referee::{Account, Run};
use super::schedule::Schedule;
use crate::stack::Stack;
use crate::stack::buildbot::{FAILURE, SUCCESS, WARNINGS};
use crate::stack::message::Message;

/// A pull request that is merged.
struct Merge {
    label: &'static str,
    number: u64,
    /// The commit that its base was moved to.
    sha: String,
}

/// Every merge that Buildbot's account does not bear out, and every result that was told otherwise than
/// it is, in words. A result counts as told when it was sent, also where it never reached homu.
pub fn broken_rules(stack: &Stack, schedule: &Schedule, account: &Account) -> Vec<String> {
    let merges = schedule.pulls.iter().filter_map(|pull| {
        let (label, number) = (pull.label, pull.number);
        let sha = stack.merged_as(label, number)?;
        Some(Merge { label, number, sha })
    });
    let requests = stack.watchdog_requests();
    let told = requests.iter().flat_map(|request| &request.messages);
    merges
        .filter_map(|merge| unearned(&merge, &account.runs))
        .chain(told.filter_map(|told| untrue(told, &account.runs)))
        .collect()
}

/// At which builders the commit of a merge never went well, in words.
fn unearned(merge: &Merge, runs: &[Run]) -> Option<String> {
    let Merge { label, number, sha } = merge;
    let of_it = || runs.iter().filter(|run| run.revision == *sha);
    let went_well = |builder: &str| {
        of_it().any(|run| run.builder == builder && run.results.is_some_and(is_green))
    };
    let builders = Schedule::builders(label).into_iter();
    let lacking: Vec<String> = builders.filter(|it| !went_well(it)).collect();
    if lacking.is_empty() {
        return None;
    }
    let runs: Vec<&Run> = of_it().collect();
    Some(format!(
        "{label}#{number} was merged as {sha:.7} without a successful run at {}: {runs:?}",
        lacking.join(", ")
    ))
}

/// How a result that was told differs from that of its run, in words.
fn untrue(told: &Message, runs: &[Run]) -> Option<String> {
    let Message::Finished {
        builder,
        revision,
        number,
        results,
        text,
    } = told
    else {
        return None;
    };
    let mut runs = runs.iter();
    let run = runs.find(|run| {
        run.builder == *builder && run.revision == *revision && Some(run.number) == *number
    });
    let results_of_run = run.and_then(|run| run.results);
    // As homu reads it.
    let told_green = text.iter().any(|word| word == "successful") || *results == Some(SUCCESS);
    let true_colour = match results_of_run {
        Some(results) if is_green(results) => told_green,
        Some(FAILURE) => !told_green,
        // No other end is a result.
        Some(_) | None => false,
    };
    if true_colour && *results == results_of_run {
        return None;
    }
    let number = number.map_or("?".to_owned(), |number| number.to_string());
    Some(format!(
        "homu was told {results:?} {text:?} of run {number} of {revision:.7} at {builder}, \
         and Buildbot has {run:?}"
    ))
}

fn is_green(results: i64) -> bool {
    matches!(results, SUCCESS | WARNINGS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::buildbot::{CANCELLED, EXCEPTION, RETRY};

    const SHA: &str = "a commit";

    fn run(builder: &str, number: i64, results: Option<i64>) -> Run {
        Run {
            revision: SHA.to_owned(),
            builder: builder.to_owned(),
            number,
            request: number,
            worker: None,
            started: 0.0,
            completed: results.map(|_| 1.0),
            results,
        }
    }

    #[test]
    fn a_merge_is_earned_by_a_green_run_of_its_commit_at_every_builder() {
        let merged_as = |sha: &str, runs: &[Run]| {
            let (label, number, sha) = ("alpha", 1, sha.to_owned());
            unearned(&Merge { label, number, sha }, runs)
        };
        let mut runs = vec![
            run("alpha-linux", 1, Some(SUCCESS)),
            run("alpha-mac", 1, Some(FAILURE)),
            run("beta-mac", 1, Some(SUCCESS)),
        ];
        for red in [
            Some(FAILURE),
            Some(EXCEPTION),
            Some(RETRY),
            Some(CANCELLED),
            None,
        ] {
            runs[1].results = red;
            let words = merged_as(SHA, &runs).expect("the mac never went well");
            assert!(words.contains("run at alpha-mac:"), "{words}");
        }
        // It was repeated, and all was well.
        for green in [SUCCESS, WARNINGS] {
            runs.push(run("alpha-mac", 2, Some(green)));
            assert_eq!(merged_as(SHA, &runs), None);
            runs.pop();
        }
        runs.push(run("alpha-mac", 2, Some(SUCCESS)));
        let words = merged_as("another commit", &runs).expect("it was never run");
        assert!(words.contains("run at alpha-linux, alpha-mac:"), "{words}");
    }

    #[test]
    fn a_result_that_is_told_is_that_of_its_run() {
        let told = |number: i64, results: i64, words: [&str; 2]| Message::Finished {
            builder: "alpha-mac".to_owned(),
            revision: SHA.to_owned(),
            number: Some(number),
            results: Some(results),
            text: words.map(str::to_owned).into(),
        };
        let (green, red) = (["build", "successful"], ["failed", "build"]);
        let runs = [
            run("alpha-mac", 1, Some(FAILURE)),
            run("alpha-mac", 2, Some(SUCCESS)),
            run("alpha-mac", 3, Some(WARNINGS)),
            run("alpha-mac", 4, Some(RETRY)),
            run("alpha-mac", 5, None),
            run("alpha-linux", 6, Some(SUCCESS)),
        ];
        for (number, results, words, is_true) in [
            (1, FAILURE, red, true),
            (1, SUCCESS, green, false),
            (1, FAILURE, green, false),
            (2, SUCCESS, green, true),
            (2, FAILURE, red, false),
            (3, WARNINGS, green, true),
            (3, WARNINGS, red, false),
            (4, RETRY, red, false),
            (5, SUCCESS, green, false),
            // Another builder's, and nobody's.
            (6, SUCCESS, green, false),
            (7, SUCCESS, green, false),
        ] {
            let untrue = untrue(&told(number, results, words), &runs);
            assert_eq!(untrue.is_none(), is_true, "run {number}: {untrue:?}");
        }
        assert_eq!(untrue(&Message::Read, &runs), None);
    }
}
