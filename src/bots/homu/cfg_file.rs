//! Reads homu's TOML leniently: only what is asked for is looked at, and mistakes in it are told
//! with file, line and key, never with a value, which may be a secret.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The largest file that is read, bytes; a homu with hundreds of repositories stays far below it.
const FILE_MAX: u64 = 4 << 20;
/// How many mistakes are told; nobody reads more at once.
const MISTAKES_MAX: usize = 20;

/// A table of the file with the path to it.
pub struct Table<'a> {
    file: &'a File<'a>,
    table: &'a DeTable<'a>,
    /// The table's name and a full stop; empty for the whole file.
    prefix: String,
    /// The byte at which it begins.
    start: usize,
}

struct File<'a> {
    shown: String,
    text: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
    mistakes: RefCell<Vec<(usize, String)>>,
}

/// Reads the file at `path`.
///
/// # Errors
///
/// Every mistake that was told while `read` looked at it, in the order of its lines.
pub fn read<T>(path: &Path, read: impl Fn(&Table<'_>) -> T) -> Result<T, Vec<String>> {
    let shown = path.display();
    let cannot = |error: std::io::Error| vec![format!("{shown}: cannot be read: {error}")];
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(vec![format!("{shown}: is not a regular file")]);
    }
    if metadata.len() > FILE_MAX {
        return Err(vec![format!("{shown}: is longer than {FILE_MAX} bytes")]);
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    parse(path, &text, &|name| std::env::var(name).ok(), read)
}

/// As [`read`], of a text, with its environment.
pub fn parse<T>(
    path: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    read: impl Fn(&Table<'_>) -> T,
) -> Result<T, Vec<String>> {
    let file = File {
        shown: path.display().to_string(),
        text,
        environment,
        mistakes: RefCell::default(),
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            // The parser's own words only: its `Display` would print the line, and a secret in it.
            let line = file.line(error.span().map_or(text.len(), |span| span.start));
            return Err(vec![format!(
                "{}:{line}: this is not TOML: {}",
                file.shown,
                error.message()
            )]);
        }
    };
    let root = Table {
        file: &file,
        table: table.get_ref(),
        prefix: String::new(),
        start: 0,
    };
    let value = read(&root);
    let mut mistakes = file.mistakes.borrow().clone();
    if mistakes.is_empty() {
        return Ok(value);
    }
    mistakes.sort();
    mistakes.dedup();
    let more = mistakes.len().saturating_sub(MISTAKES_MAX);
    mistakes.truncate(MISTAKES_MAX);
    let mut told: Vec<String> = mistakes.into_iter().map(|(_, mistake)| mistake).collect();
    if more > 0 {
        told.push(format!("{}: and {more} more", file.shown));
    }
    Err(told)
}

impl<'a> Table<'a> {
    /// Tells a mistake at a key, or at the table where the key is absent.
    pub fn mistake(&self, key: &str, message: &str) {
        let start = self
            .table
            .get_key_value(key)
            .map_or(self.start, |(key, _)| key.span().start);
        let line = self.file.line(start);
        let told = format!(
            "{}:{line}: {}{key}: {message}",
            self.file.shown, self.prefix
        );
        self.file.mistakes.borrow_mut().push((line, told));
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether the key is there as a table.
    pub fn is_table(&self, key: &str) -> bool {
        self.value(key)
            .is_some_and(|value| value.as_table().is_some())
    }

    /// A table in this one; `None` if absent, or after having told a mistake.
    pub fn table(&self, key: &str) -> Option<Table<'a>> {
        let value = self.spanned(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.mistake(key, "is no table");
            return None;
        };
        let start = self
            .table
            .get_key_value(key)
            .map(|(key, _)| key.span().start);
        Some(Table {
            file: self.file,
            table,
            prefix: format!("{}{key}.", self.prefix),
            start: start.unwrap_or(value.span().start),
        })
    }

    /// The tables `[key.NAME]` with their names.
    pub fn tables(&self, key: &str) -> Vec<(String, Table<'a>)> {
        self.table(key)
            .map_or_else(Vec::new, |table| table.all_tables())
    }

    /// Everything in this table, each of which must be a table.
    pub fn all_tables(&self) -> Vec<(String, Table<'a>)> {
        self.names()
            .filter_map(|name| Some((name.to_owned(), self.table(name)?)))
            .collect()
    }

    /// Everything in this table, read by name.
    pub fn each<T>(&self, read: impl Fn(&Self, &str) -> T) -> BTreeMap<String, T> {
        self.names()
            .map(|name| (name.to_owned(), read(self, name)))
            .collect()
    }

    /// A string, with `${NAME}` replaced; `None` if absent, or after having told a mistake.
    pub fn string(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            DeValue::String(text) => Some(self.expand(key, text)),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                self.mistake(key, "is no string; homu expects one in quotes");
                None
            }
        }
    }

    /// A string that the watchdog can do without, with `${NAME}` replaced; `None` if it is absent,
    /// empty, no string, or needs a variable that is not there. No mistake is told.
    pub fn advice(&self, key: &str) -> Option<String> {
        let text = self.value(key)?.as_str()?;
        let expanded = self.replaced(text, |_| {})?;
        (!expanded.is_empty()).then_some(expanded)
    }

    /// Where a key is or would be, for people.
    pub fn place(&self, key: &str) -> String {
        format!("{}: {}{key}", self.file.shown, self.prefix)
    }

    /// A string that must be there; empty after having told a mistake. `what` says what it is.
    pub fn required(&self, key: &str, what: &str) -> String {
        if !self.has(key) {
            self.mistake(key, &format!("is missing; it is {what}"));
        }
        self.string(key).unwrap_or_default()
    }

    /// A list of strings, empty if absent; anything else in it is a mistake.
    pub fn strings(&self, key: &str) -> Vec<String> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Some(array) = value.as_array() else {
            self.mistake(key, "is no list of strings");
            return Vec::new();
        };
        self.texts(key, array)
    }

    /// As [`Table::strings`], and its absence is a mistake.
    pub fn required_strings(&self, key: &str, what: &str) -> Vec<String> {
        if !self.has(key) {
            self.mistake(key, &format!("is missing; it lists {what}"));
        }
        self.strings(key)
    }

    /// `true`, or not there.
    pub fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    /// A flag that means something else where it is absent.
    pub fn flag_or(&self, key: &str, absent: bool) -> bool {
        match self.value(key) {
            None => absent,
            Some(value) => value.as_bool().unwrap_or_else(|| {
                self.mistake(key, "is neither true nor false");
                absent
            }),
        }
    }

    /// A port.
    pub fn port(&self, key: &str) -> Option<u16> {
        let number = self.number(key, "is no port")?;
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.mistake(key, "is no port");
        }
        port
    }

    /// A number of seconds.
    pub fn seconds(&self, key: &str) -> Option<Duration> {
        let number = self.number(key, "is no number of seconds")?;
        Some(Duration::from_secs(number))
    }

    fn number(&self, key: &str, wrong: &str) -> Option<u64> {
        let number = match self.value(key)? {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            // Python takes a float where it counts seconds.
            DeValue::Float(digits) => digits.as_str().parse::<f64>().ok().and_then(|seconds| {
                let seconds = Duration::try_from_secs_f64(seconds).ok()?;
                Some(seconds.as_secs())
            }),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        if number.is_none() {
            self.mistake(key, wrong);
        }
        number
    }

    fn texts(&self, key: &str, array: &DeArray<'_>) -> Vec<String> {
        let mut texts = Vec::new();
        for item in array.iter() {
            if let DeValue::String(text) = item.get_ref() {
                texts.push(self.expand(key, text));
            } else {
                self.mistake(key, "holds something that is no string");
            }
        }
        texts
    }

    fn expand(&self, key: &str, text: &str) -> String {
        let expanded = self.replaced(text, |name| {
            self.mistake(
                key,
                &format!(
                    "needs the environment variable {name}, which homu has and the watchdog \
                     has not; give it the same"
                ),
            );
        });
        expanded.unwrap_or_default()
    }

    /// Replaces `${NAME}` by the environment's value, as the rust-lang fork does with every string
    /// of its file (`main.py`: `process_config`, `VARIABLES_RE`); `None` where a variable is missing,
    /// each of which is told.
    fn replaced(&self, text: &str, missing: impl Fn(&str)) -> Option<String> {
        let mut expanded = String::new();
        let mut complete = true;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            expanded.push_str(before);
            let named = after.split_once('}').filter(|(name, _)| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
            });
            let Some((name, left)) = named else {
                expanded.push_str("${");
                rest = after;
                continue;
            };
            match (self.file.environment)(name) {
                Some(value) => expanded.push_str(&value),
                None => {
                    complete = false;
                    missing(name);
                }
            }
            rest = left;
        }
        expanded.push_str(rest);
        complete.then_some(expanded)
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        let table: &'a DeTable<'a> = self.table;
        table.keys().map(|name| &**name.get_ref())
    }

    fn spanned(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let table: &'a DeTable<'a> = self.table;
        table.get(key)
    }

    fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.spanned(key).map(Spanned::get_ref)
    }
}

impl File<'_> {
    fn line(&self, start: usize) -> usize {
        let before = self.text.get(..start).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }
}
