//! How wrong keys and values are quoted in messages, and which known word was likely meant.

use toml::de::DeValue;

/// How much of a wrong value is quoted, characters.
const QUOTE_MAX: usize = 60;

/// A key as it stands in TOML: in quotes where it must be.
pub(super) fn key_shown(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// A value of the file, for people, on one line and of bounded length.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => shortened(&number.to_string()),
        DeValue::Float(number) => shortened(number.as_str()),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Text in quotes on one line, shortened to what a message can hold.
pub fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

pub(super) fn any_of(words: &[String]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// The known word that a typing mistake most likely meant: at most a third of it differs.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    known
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= candidate.chars().count().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, dropped, changed or swapped with their neighbour to get from
/// one word to the other (optimal string alignment).
fn edits(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(QUOTE_MAX).collect();
    let to: Vec<char> = to.chars().take(QUOTE_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut this = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let mut least = (above[column] + usize::from(letter != other))
                .min(above[column + 1] + 1)
                .min(this[column] + 1);
            let swapped =
                row > 0 && column > 0 && from[row - 1] == *other && to[column - 1] == *letter;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            this.push(least);
        }
        before = std::mem::replace(&mut above, this);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_suggests_the_nearest_known_word() {
        let known = ["heartbeat", "start", "looks", "url"];
        let near = |word| nearest(word, known.into_iter());
        assert_eq!(near("hartbeat"), Some("heartbeat"));
        assert_eq!(near("strat"), Some("start"));
        assert_eq!(near("look"), Some("looks"));
        assert_eq!(near("urll"), Some("url"));
        assert_eq!(near("timeouts"), None);
        assert_eq!(near("x"), None);
    }

    #[test]
    fn edits_count_letters_added_dropped_changed_and_swapped() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", ""), 3);
        assert_eq!(edits("looks", "looks"), 0);
        assert_eq!(edits("lokos", "looks"), 1);
        assert_eq!(edits("books", "looks"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn what_is_quoted_stays_short_and_on_one_line() {
        let long = "a\n".repeat(1000);
        assert!(!quoted(&long).contains('\n'));
        assert!(quoted(&long).chars().count() < 200);
        assert_eq!(key_shown("plain-key_1"), "plain-key_1");
        assert_eq!(key_shown("with space"), "\"with space\"");
    }
}
