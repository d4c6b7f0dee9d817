//! Which head homu holds approved, as the comments on a pull request show; 0.2.0 stores it nowhere.
//!
//! `main.py` of 0.2.0, `parse_commands`: an approval counts if it names the head that homu knows.
//! Where homu knows another it answers with that one, so its own comments are the best witness.

use std::collections::BTreeSet;

/// A comment on a pull request.
#[derive(Clone, Debug)]
pub struct Comment {
    /// Who wrote it.
    pub login: String,
    /// What it says.
    pub text: String,
    /// The commit that a review comment was written on.
    pub on: Option<String>,
}

/// Whose comments count.
#[derive(Clone, Copy, Debug)]
pub struct Speakers<'a> {
    /// homu's own name.
    pub bot: &'a str,
    /// Who may approve.
    pub reviewers: &'a BTreeSet<String>,
}

/// The least digits by which homu knows a commit (`main.py`: `sha_cmp`).
const SHORT_MIN: usize = 4;

/// The head that the newest telling comment names, by its first digits; the comments come oldest first.
pub fn newest_head(comments: &[Comment], speakers: Speakers<'_>) -> Option<String> {
    comments.iter().rev().find_map(|comment| {
        if comment.login == speakers.bot {
            own_words(&comment.text)
                .or_else(|| approval(&comment.text, speakers.bot, None))
                .map(str::to_owned)
        } else if speakers.reviewers.contains(&comment.login) {
            let on = comment.on.as_deref();
            approval(&comment.text, speakers.bot, on).map(str::to_owned)
        } else {
            None
        }
    })
}

/// What homu says of the head that it knows: `Testing commit HEAD with merge …` (or `Trying`), and
/// `… is not a valid commit SHA. Please try again with HEAD`.
fn own_words(text: &str) -> Option<&str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(3).rev().find_map(|three| {
        let [first, second, third] = three else {
            return None;
        };
        match (*first, *second, *third) {
            ("Testing" | "Trying", "commit", head) | ("again", "with", head) => hash(head),
            _ => None,
        }
    })
}

/// The commit that a text approves: after `r+` or `r=NAME` on a line that names the bot, or the one
/// that it was written on. homu reads the last command first, so the first one is what stays.
fn approval<'a>(text: &'a str, bot: &str, on: Option<&'a str>) -> Option<&'a str> {
    let mention = format!("@{bot}");
    let words: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(&mention))
        .flat_map(str::split_whitespace)
        .collect();
    let mut approvals = words
        .iter()
        .enumerate()
        .filter(|(_, word)| **word == "r+" || word.starts_with("r="))
        .map(|(at, _)| words.get(at + 1).copied());
    match on {
        Some(on) => approvals.next().map(|_| on),
        None => approvals.find_map(|next| next.and_then(hash)),
    }
}

/// The digits of a commit's hash, with homu's punctuation off.
fn hash(word: &str) -> Option<&str> {
    let digits = word.trim_matches(['`', '.']);
    let hexadecimal = digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (hexadecimal && digits.len() >= SHORT_MIN).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";

    fn head(comments: &[(&str, String)]) -> Option<String> {
        let comments: Vec<Comment> = comments
            .iter()
            .map(|(login, text)| Comment {
                login: (*login).to_owned(),
                text: text.clone(),
                on: None,
            })
            .collect();
        telling(&comments)
    }

    fn telling(comments: &[Comment]) -> Option<String> {
        let reviewers = BTreeSet::from(["rita".to_owned()]);
        let speakers = Speakers {
            bot: "bors",
            reviewers: &reviewers,
        };
        newest_head(comments, speakers)
    }

    fn marker(sha: &str) -> String {
        format!(
            ":pushpin: Commit {sha:.7} has been approved by `rita`\n\n<!-- @bors r=rita {sha} -->"
        )
    }

    #[test]
    fn the_bots_own_marker_names_the_approved_head() {
        let said = [("rita", "@bors r+".to_owned()), ("bors", marker(OLD))];
        assert_eq!(head(&said).as_deref(), Some(OLD));
    }

    #[test]
    fn the_newest_approval_counts() {
        let said = [("bors", marker(OLD)), ("rita", format!("@bors: r+ {NEW}"))];
        assert_eq!(head(&said).as_deref(), Some(NEW));
    }

    #[test]
    fn a_refused_approval_does_not_count() {
        let refusal = format!(
            ":scream_cat: `{OLD}` is not a valid commit SHA. Please try again with `{NEW:.7}`."
        );
        let said = [
            ("bors", marker(NEW)),
            ("rita", format!("@bors r+ {OLD}")),
            ("bors", refusal),
        ];
        assert_eq!(head(&said).as_deref(), Some("2222222"));
    }

    #[test]
    fn a_build_names_the_head_that_it_tests() {
        let said = [
            ("bors", marker(OLD)),
            (
                "bors",
                format!(":hourglass: Testing commit {NEW:.7} with merge 3333333..."),
            ),
        ];
        assert_eq!(head(&said).as_deref(), Some("2222222"));
    }

    #[test]
    fn strangers_and_other_words_approve_nothing() {
        let said = [
            ("mallory", format!("@bors r+ {NEW}")),
            ("rita", format!("r+ {NEW}")),
            ("rita", "@bors r+ today".to_owned()),
            ("rita", format!("@bors p={NEW}")),
        ];
        assert_eq!(head(&said), None);
    }

    #[test]
    fn an_approval_in_a_review_is_of_the_commit_that_it_was_written_on() {
        let comments = [Comment {
            login: "rita".to_owned(),
            text: "nice, @bors r+".to_owned(),
            on: Some(NEW.to_owned()),
        }];
        assert_eq!(telling(&comments).as_deref(), Some(NEW));
    }
}
