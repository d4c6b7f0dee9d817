//! The file that is read: where its lines begin, and what was told about it so far.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

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
        let message = match error.message() {
            "duplicate key" => "this is written a second time; keep one of the two".to_owned(),
            other => {
                format!("this is not TOML: {other}; text, times and addresses stand in quotes")
            }
        };
        let mut mistake = self.at(start, String::new(), message);
        mistake.column = Some(column);
        self.mistakes.borrow_mut().push(mistake);
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
            line: Some(self.lines.partition_point(|begin| *begin <= start) + 1),
            column: None,
            key,
            message,
        }
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
