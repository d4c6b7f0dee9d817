//! The file that is read: where its lines begin, and what was told about it so far.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

/// How many mistakes and how many warnings of one file are told; nobody reads more at once.
const TOLD_MAX: usize = 100;

/// Something wrong or doubtful at one place of a file; displayed as `FILE:LINE: KEY: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file as it was named.
    pub file: PathBuf,
    /// Counts from 1; `None` where the file could not be read at all.
    pub line: Option<usize>,
    /// Counts characters from 1; only for what is not TOML.
    pub column: Option<usize>,
    /// The key with its tables, as in the file; empty for the whole file.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, "{number}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    text: &'a str,
    /// The byte at which each line but the first begins.
    lines: Vec<usize>,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
}

impl<'a> File<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            lines: text.match_indices('\n').map(|(at, _)| at + 1).collect(),
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Tells a mistake at a byte of the file.
    pub(super) fn mistake(&self, start: usize, key: String, message: String) {
        let mistake = self.at(start, key, message);
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Tells something doubtful at a byte of the file.
    pub(super) fn warning(&self, start: usize, key: String, message: String) {
        let warning = self.at(start, key, message);
        self.warnings.borrow_mut().push(warning);
    }

    /// Tells what is not TOML in the parser's own words only: its `Display` would print the line,
    /// which may hold a secret.
    pub(super) fn syntax(&self, error: &toml::de::Error) {
        let start = error.span().map_or(self.text.len(), |span| span.start);
        let before = self.text.get(..start).unwrap_or(self.text);
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let (key, message) = match error.message() {
            "duplicate key" => self.twice(error.span()),
            other => (
                String::new(),
                format!("this is not TOML: {other}{}", hint(other)),
            ),
        };
        let mut mistake = self.at(start, key, message);
        mistake.column = Some(column);
        self.mistakes.borrow_mut().push(mistake);
    }

    /// The key that stands at `span` for the second time, with its tables, and what is wrong with it.
    fn twice(&self, span: Option<Range<usize>>) -> (String, String) {
        let span = span.unwrap_or_default();
        match self.first(&span) {
            Some((key, first)) => {
                let line = self.line(first);
                let message =
                    format!("is written a second time, first in line {line}; keep one of the two");
                (key, message)
            }
            None => {
                let key = self.text.get(span).unwrap_or_default().to_owned();
                (
                    key,
                    "is written a second time; keep one of the two".to_owned(),
                )
            }
        }
    }

    /// The name, with its tables, of a key that is repeated at `second`, and the byte at which it
    /// stood first. The parser does not tell them, but what stands before the line is a file of its
    /// own. `None` where both stand in one line.
    fn first(&self, second: &Range<usize>) -> Option<(String, usize)> {
        let begin = self
            .text
            .get(..second.start)?
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let before = self.text.get(..begin)?;
        let written = self.text.get(begin..second.end)?.trim_start();
        let path = match written.strip_prefix('[') {
            Some(header) => header.trim_start_matches('[').to_owned(),
            None => {
                let mut lines = before.lines().rev().map(str::trim_start);
                let header = lines.find_map(|line| line.strip_prefix('['));
                let table =
                    header.and_then(|header| header.trim_start_matches('[').split(']').next());
                match table {
                    Some(table) => format!("{table}.{written}"),
                    None => written.to_owned(),
                }
            }
        };
        let document = DeTable::parse(before).ok()?;
        let mut names = path
            .split('.')
            .map(|name| name.trim().trim_matches(['"', '\'']));
        let mut table = document.get_ref();
        let mut shown: Vec<&str> = Vec::new();
        loop {
            let name = names.next()?;
            let (key, value) = table.get_key_value(name)?;
            shown.push(name);
            if shown.len() == path.split('.').count() {
                return Some((shown.join("."), key.span().start));
            }
            // Of several tables of one name, the last is the one that goes on.
            let value = value.get_ref();
            table = match value.as_array() {
                Some(tables) => tables.last()?.get_ref().as_table()?,
                None => value.as_table()?,
            };
        }
    }

    /// The line of a byte, counted from 1.
    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at) + 1
    }

    /// How many mistakes there are so far.
    pub(super) fn mistakes(&self) -> usize {
        self.mistakes.borrow().len()
    }

    /// Whether a mistake of this key was told.
    pub(super) fn told(&self, key: &str) -> bool {
        self.mistakes
            .borrow()
            .iter()
            .any(|mistake| mistake.key == key)
    }

    /// All mistakes and all warnings, in the order of the file.
    pub(super) fn close(self) -> (Vec<Mistake>, Vec<Mistake>) {
        (
            in_order(self.mistakes.into_inner()),
            in_order(self.warnings.into_inner()),
        )
    }

    fn at(&self, start: usize, key: String, message: String) -> Mistake {
        Mistake {
            file: self.path.to_owned(),
            line: Some(self.line(start)),
            column: None,
            key,
            message,
        }
    }
}

/// What would be right, where the parser's words do not say it.
fn hint(message: &str) -> &'static str {
    let about = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if about(&["unquoted key"]) {
        "; a name of other characters than A-Z, a-z, 0-9, - and _ stands in quotes"
    } else if about(&[
        "string values must",
        "unquoted string",
        "missing opening quote",
    ]) {
        "; text, times and addresses stand in quotes"
    } else if about(&["string"]) {
        "; a text ends with the quote that it began with, in its own line"
    } else if about(&["table"]) {
        "; a table begins with [NAME] in a line of its own"
    } else if about(&["array", "between"]) {
        "; a list is [A, B], with a comma between two of its values"
    } else if about(&["for key", "assignment", "`=`", "key"]) {
        "; write KEY = VALUE, one to a line"
    } else {
        "; text, times and addresses stand in quotes"
    }
}

fn in_order(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
    mistakes.dedup();
    if let Some(first) = mistakes.get(TOLD_MAX).cloned() {
        let more = mistakes.len() - TOLD_MAX;
        mistakes.truncate(TOLD_MAX);
        mistakes.push(Mistake {
            key: String::new(),
            message: format!("and {more} more from here on"),
            ..first
        });
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let file = File::new(Path::new("it.toml"), text);
        file.syntax(&DeTable::parse(text).unwrap_err());
        let (mistakes, _) = file.close();
        mistakes[0].to_string()
    }

    #[test]
    fn a_key_that_is_written_twice_is_named_with_its_first_place() {
        let first = "is written a second time, first in line";
        for (text, place) in [
            ("a = 1\na = 2\n", format!("2:1: a: {first} 1")),
            (
                "[loop]\ntick = 1\nb = 2\n tick=3\n",
                format!("4:2: loop.tick: {first} 2"),
            ),
            ("[loop]\n\n[b]\n[loop]\n", format!("4:2: loop: {first} 1")),
            (
                "[a.b]\nc = 1\n[x]\nc = 1\n[a . \"b\"]\n",
                format!("5:6: a.b: {first} 1"),
            ),
            (
                "[[bot]]\nn = 1\n[[bot]]\nn = 1\nn = 2\n",
                format!("5:1: bot.n: {first} 4"),
            ),
            ("[t]\na.b = 1\na.b = 2\n", format!("3:3: t.a.b: {first} 2")),
        ] {
            let told = told(text);
            assert!(
                told.starts_with(&format!("it.toml:{place};")),
                "{text:?}: {told}"
            );
        }
        assert!(told("x = { a = 1, a = 2 }").contains(": a: is written a second time"));
    }

    #[test]
    fn a_hint_fits_what_is_wrong() {
        for (text, hint) in [
            ("w\u{f6}rker = 1", "a name of other characters"),
            ("listen = 127.0.0.1:1", "stand in quotes"),
            ("tick = 10s", "stand in quotes"),
            ("url = \"sqlite:x\n", "the quote that it began with"),
            ("tick 1", "KEY = VALUE"),
            ("list = [1,, 2]", "a comma between"),
            ("[loop\n", "[NAME]"),
        ] {
            let told = told(text);
            assert!(told.contains(hint), "{text:?}: {told}");
        }
    }
}
