//! Strict reading of one TOML table: every mistake with its line, key, and what would be right.

mod file;
mod words;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use crate::secret::Secret;
use file::File;
pub use file::Mistake;
pub use words::quoted;
use words::{any_of, key_shown, nearest, shown};

/// One table of a TOML file while it is read. It remembers which keys were asked for, and tells
/// every other key as a mistake when it is dropped, so ask for all keys before giving up on a table.
pub struct Keys<'a> {
    file: &'a File<'a>,
    /// The table's name and a full stop; empty for the whole file.
    prefix: String,
    /// The byte at which the table begins, for mistakes about keys that are absent.
    start: usize,
    table: &'a DeTable<'a>,
    asked: BTreeSet<String>,
    refused: BTreeSet<String>,
    given_up: bool,
}

/// What came of reading a file.
#[derive(Debug)]
pub struct Reading<T> {
    /// What was read; `None` where the file is not TOML.
    pub value: Option<T>,
    /// What refuses the file, in the order of its lines.
    pub mistakes: Vec<Mistake>,
    /// What is allowed and should be seen once, in the order of its lines.
    pub warnings: Vec<Mistake>,
}

/// Reads `text`, the contents of the file `path`, with `read`, which is given the whole file as one table.
/// Nothing of the file `path` itself is touched, but relative paths in `text` are relative to its folder.
pub fn read<T>(path: &Path, text: &str, read: impl FnOnce(&mut Keys<'_>) -> T) -> Reading<T> {
    let file = File::new(path, text);
    let value = match DeTable::parse(text) {
        Ok(table) => {
            let mut keys = Keys::new(&file, String::new(), 0, table.get_ref());
            Some(read(&mut keys))
        }
        Err(error) => {
            file.syntax(&error);
            None
        }
    };
    let (mistakes, warnings) = file.close();
    Reading {
        value,
        mistakes,
        warnings,
    }
}

impl<'a> Keys<'a> {
    /// A string, as it is; `None` if absent, or after having told a mistake.
    pub fn string(&mut self, key: &str) -> Option<String> {
        self.text(key).map(str::to_owned)
    }

    /// A string that must be there and not be empty; `hint` says what would be right.
    pub fn required_string(&mut self, key: &str, hint: &str) -> Option<String> {
        if !self.has(key) {
            self.mistake(key, format!("is missing; {hint}"));
            return None;
        }
        let text = self.string(key)?;
        if text.trim().is_empty() {
            self.mistake(key, format!("is empty; {hint}"));
            return None;
        }
        Some(text)
    }

    /// An `http` or `https` URL of host, port and path. A user name, password, query or fragment
    /// is a mistake, and is not repeated in it.
    pub fn url(&mut self, key: &str) -> Option<Url> {
        let text = self.text(key)?;
        match read_url(text) {
            Ok(url) => Some(url),
            Err(message) => {
                self.mistake(key, message);
                None
            }
        }
    }

    /// A duration in the words of humantime: `"5m"`, `"1h 30m"`.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        let value = self.value(key)?;
        let message = match value {
            DeValue::String(text) => match humantime::parse_duration(text) {
                Ok(duration) => return Some(duration),
                Err(error) => format!(
                    "{} is no duration ({error}); write for example \"90s\", \"5m\" or \"1h 30m\"",
                    quoted(text)
                ),
            },
            DeValue::Integer(number) => format!(
                "{} has no unit; write for example \"{}s\"",
                shown(value),
                number.as_str()
            ),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => format!(
                "{} is no duration; write for example \"90s\", \"5m\" or \"1h 30m\"",
                shown(value)
            ),
        };
        self.mistake(key, message);
        None
    }

    /// A whole number in a range.
    pub fn integer(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let number = match value {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = range.into_inner();
            let message = format!(
                "{} does not fit; write a whole number from {least} to {most}",
                shown(value)
            );
            self.mistake(key, message);
        }
        number
    }

    /// A number in a range.
    pub fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(key)?;
        let number = match value {
            DeValue::Float(digits) => digits.as_str().parse().ok(),
            DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str().parse().ok(),
            DeValue::Integer(_)
            | DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = range.into_inner();
            let message = format!(
                "{} does not fit; write a number from {least} to {most}",
                shown(value)
            );
            self.mistake(key, message);
        }
        number
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        if let DeValue::Boolean(boolean) = value {
            return Some(*boolean);
        }
        let message = format!("{} does not fit; write true or false", shown(value));
        self.mistake(key, message);
        None
    }

    /// A path; a relative one is relative to the file's folder. Nothing is looked up.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let message = if text.is_empty() {
            "is empty; write the path of a file".to_owned()
        } else if text.contains('\0') {
            "holds a zero byte, which no path can".to_owned()
        } else if text.starts_with('~') {
            format!(
                "{}: `~` is not expanded here; write the whole path",
                quoted(text)
            )
        } else {
            return Some(self.folder().join(text));
        };
        self.mistake(key, message);
        None
    }

    /// A secret from `{ file = "…" }` or `{ env = "…" }`, read now; a newline at its end is dropped.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let value = self.value(key)?;
        let DeValue::Table(_) = value else {
            // The value is not shown: it may well be the secret.
            let message =
                "a secret is never written here itself; write { file = \"…\" } or { env = \"…\" }";
            self.mistake(key, message);
            return None;
        };
        let mut place = self.table(key)?;
        let mistakes_before = self.file.mistakes();
        let file = place.path("file");
        let variable = place.string("env");
        drop(place);
        let secret = match (file, variable) {
            (Some(path), None) => Secret::from_file(&path),
            (None, Some(variable)) => Secret::from_variable(&variable),
            (None, None) if self.file.mistakes() > mistakes_before => return None,
            (None, None) | (Some(_), Some(_)) => {
                Err("write either { file = \"…\" } or { env = \"…\" }".to_owned())
            }
        };
        match secret {
            Ok(secret) => Some(secret),
            Err(message) => {
                self.mistake(key, message);
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.value(key)?;
        let chosen = value
            .as_str()
            .and_then(|text| choices.iter().find(|(word, _)| *word == text));
        if let Some((_, choice)) = chosen {
            return Some(*choice);
        }
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect();
        let message = format!("{} does not fit; write {}", shown(value), any_of(&words));
        self.mistake(key, message);
        None
    }

    /// The table of this name.
    pub fn table(&mut self, key: &str) -> Option<Keys<'a>> {
        let spanned = self.spanned(key)?;
        let value: &'a DeValue<'a> = spanned.get_ref();
        if let DeValue::Table(table) = value {
            let prefix = format!("{}{}.", self.prefix, key_shown(key));
            return Some(Keys::new(self.file, prefix, spanned.span().start, table));
        }
        let message = format!(
            "{} does not fit; write a table [{}{key}]",
            shown(value),
            self.prefix
        );
        self.mistake(key, message);
        None
    }

    /// A list of strings.
    pub fn strings(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let text = |item: &DeValue<'_>| {
            if let DeValue::String(text) = item {
                Some(text.to_string())
            } else {
                None
            }
        };
        let texts = if let DeValue::Array(items) = value {
            items.iter().map(|item| text(item.get_ref())).collect()
        } else {
            None
        };
        if texts.is_none() {
            let message = format!(
                "{} does not fit; write a list of strings in quotes: [\"a\", \"b\"]",
                shown(value)
            );
            self.mistake(key, message);
        }
        texts
    }

    /// The tables `[[key]]`, in the order of the file; none if absent, or after having told a mistake.
    pub fn tables(&mut self, key: &str) -> Vec<Keys<'a>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let prefix = format!("{}{}.", self.prefix, key_shown(key));
        let mut tables = Vec::new();
        if let DeValue::Array(array) = value {
            for item in array.iter() {
                if let DeValue::Table(table) = item.get_ref() {
                    let start = item.span().start;
                    tables.push(Keys::new(self.file, prefix.clone(), start, table));
                } else {
                    let message = format!(
                        "{} does not fit; write tables [[{}{key}]]",
                        shown(item.get_ref()),
                        self.prefix
                    );
                    self.mistake(key, message);
                }
            }
        } else {
            let message = format!(
                "{} does not fit; write [[{}{key}]] with two brackets, there may be several",
                shown(value),
                self.prefix
            );
            self.mistake(key, message);
        }
        tables
    }

    /// The tables `[key.NAME]` with their names, in the order of the names.
    pub fn named_tables(&mut self, key: &str) -> Vec<(String, Keys<'a>)> {
        let Some(mut outer) = self.table(key) else {
            return Vec::new();
        };
        let names: Vec<&'a str> = outer.table.keys().map(|name| &**name.get_ref()).collect();
        names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), outer.table(name)?)))
            .collect()
    }

    /// Tells a mistake: the file is refused. The message says what is wrong and what would be right.
    /// An empty key stands for the whole table.
    pub fn mistake(&mut self, key: &str, message: impl Into<String>) {
        let (start, key) = self.place(key);
        self.file.mistake(start, key, message.into());
    }

    /// Tells something doubtful that is allowed; it is shown once.
    pub fn warning(&mut self, key: &str, message: impl Into<String>) {
        let (start, key) = self.place(key);
        self.file.warning(start, key, message.into());
    }

    /// The folder of the file.
    pub fn folder(&self) -> &Path {
        match self.file.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        }
    }

    /// Whether the key is there; it counts as asked for.
    pub fn has(&mut self, key: &str) -> bool {
        self.spanned(key).is_some()
    }

    /// Tells that a key, if it is there, has no place in this table, and why.
    pub fn refuse(&mut self, key: &str, why: &str) {
        if self.table.contains_key(key) {
            self.refused.insert(key.to_owned());
            self.mistake(key, why);
        }
    }

    /// Whether a mistake was told of a key given with all its tables, as seen from this table.
    pub fn told(&self, path: &str) -> bool {
        self.file.told(&format!("{}{path}", self.prefix))
    }

    /// Says that the reader gave up before it asked for every key: from now on only keys that
    /// resemble one that was asked for are unknown.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Tells a mistake at a key given with all its tables (`timeouts.start`), as seen from this table.
    pub fn mistake_at(&mut self, path: &str, message: impl Into<String>) {
        let start = place(self.table, path).unwrap_or(self.start);
        self.file
            .mistake(start, format!("{}{path}", self.prefix), message.into());
    }

    /// Like [`Keys::mistake_at`], for something that is allowed.
    pub fn warning_at(&mut self, path: &str, message: impl Into<String>) {
        let start = place(self.table, path).unwrap_or(self.start);
        self.file
            .warning(start, format!("{}{path}", self.prefix), message.into());
    }

    fn new(file: &'a File<'a>, prefix: String, start: usize, table: &'a DeTable<'a>) -> Self {
        Self {
            file,
            prefix,
            start,
            table,
            asked: BTreeSet::new(),
            refused: BTreeSet::new(),
            given_up: false,
        }
    }

    fn spanned(&mut self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.insert(key.to_owned());
        let table: &'a DeTable<'a> = self.table;
        table.get(key)
    }

    fn value(&mut self, key: &str) -> Option<&'a DeValue<'a>> {
        self.spanned(key).map(Spanned::get_ref)
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        if let DeValue::String(text) = value {
            return Some(text);
        }
        let message = format!("{} does not fit; write a string in quotes", shown(value));
        self.mistake(key, message);
        None
    }

    /// Where a key stands, or its table where it is absent, and the key with its tables.
    fn place(&self, key: &str) -> (usize, String) {
        let start = self
            .table
            .get_key_value(key)
            .map_or(self.start, |(key, _)| key.span().start);
        let path = if key.is_empty() {
            self.prefix.trim_end_matches('.').to_owned()
        } else {
            format!("{}{}", self.prefix, key_shown(key))
        };
        (start, path)
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        let unknown: Vec<String> = self
            .table
            .keys()
            .map(|key| key.get_ref().to_string())
            .filter(|key| !self.asked.contains(key) && !self.refused.contains(key))
            .collect();
        for key in unknown {
            let near = nearest(&key, self.asked.iter().map(String::as_str));
            let message = match near {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None if self.given_up => continue,
                None if self.asked.is_empty() => "unknown key; remove it".to_owned(),
                None => {
                    let known: Vec<String> =
                        self.asked.iter().map(|key| format!("`{key}`")).collect();
                    format!("unknown key; known here: {}", known.join(", "))
                }
            };
            self.mistake(&key, message);
        }
    }
}

/// The start of a key that is given with its tables, or of the innermost of its tables that is there.
fn place(table: &DeTable<'_>, path: &str) -> Option<usize> {
    // A name may hold a full stop itself, so the longest one that is there counts.
    let mut name = path;
    loop {
        if let Some((key, value)) = table.get_key_value(name) {
            let inner = path
                .get(name.len() + 1..)
                .zip(value.get_ref().as_table())
                .and_then(|(rest, table)| place(table, rest));
            return Some(inner.unwrap_or(key.span().start));
        }
        name = name.rsplit_once('.')?.0;
    }
}

fn read_url(text: &str) -> Result<Url, String> {
    const RIGHT: &str = "write for example \"http://127.0.0.1:8010\"";
    let url = Url::parse(text).map_err(|error| format!("is no URL ({error}); {RIGHT}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("is neither http nor https; {RIGHT}"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("has no host; {RIGHT}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password; secrets have keys of their own".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "has a part after `?` or `#`, which has no use here; {RIGHT}"
        ));
    }
    Ok(url)
}
