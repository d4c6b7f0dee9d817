//! homu's queue page: the bot's memory, which is the truth about a status.
//!
//! 0.2.0 and its forks differ in columns, so cells are found by the words in the table's head
//! (`homu/html/queue.html`).

use scraper::{ElementRef, Html, Selector};

use crate::model::{ProbeError, ProbeFailure};

/// The longest page that is read, bytes; a row has about half a kilobyte.
pub const PAGE_MAX: usize = 4 << 20;

/// A pull request on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRow {
    /// The number.
    pub num: u64,
    /// `pending`, `approved`, `success`, `failure`, `error`, or empty.
    pub status: String,
    /// Whether it only tries.
    pub is_try: bool,
    /// Whether it merges without conflict; `None`: not known yet.
    pub mergeable: Option<bool>,
    /// The priority; `None` where the page calls it a rollup instead.
    pub priority: Option<i64>,
    /// The title.
    pub title: String,
}

impl PageRow {
    /// Whether homu waits for a build of it.
    pub fn is_pending(&self) -> bool {
        self.status == "pending"
    }
}

/// Reads the page of one repository, in the bot's order.
///
/// # Errors
///
/// A page that is not homu's queue: another table, a row without a number or status, a word for a
/// status that homu does not have.
pub fn parse(url: &str, html: &str) -> Result<Vec<PageRow>, ProbeError> {
    let wrong = |what: &str| {
        let told = format!("{url}: not homu's queue page: {what}");
        ProbeError::new(ProbeFailure::Parse, told)
    };
    if !html.contains("</html>") {
        return Err(wrong("it ends early"));
    }
    let document = Html::parse_document(html);
    let (Ok(table), Ok(head), Ok(body), Ok(cell)) = (
        Selector::parse("table#queue"),
        Selector::parse("thead th"),
        Selector::parse("tbody tr"),
        Selector::parse("td"),
    ) else {
        return Err(wrong("its selectors are not understood"));
    };
    let table = document
        .select(&table)
        .next()
        .ok_or_else(|| wrong("it has no table called queue"))?;
    let heads: Vec<String> = table
        .select(&head)
        .map(|head| words(&head).to_lowercase())
        .collect();
    let column = |name: &str| heads.iter().position(|head| head == name);
    let missing = |name: &str| wrong(&format!("it has no column {name}"));
    let number = column("#").ok_or_else(|| missing("#"))?;
    let status = column("status").ok_or_else(|| missing("Status"))?;
    let mergeable = column("mergeable").ok_or_else(|| missing("Mergeable"))?;
    let priority = column("priority").ok_or_else(|| missing("Priority"))?;
    let title = column("title").ok_or_else(|| missing("Title"))?;
    let mut rows = Vec::new();
    for row in table.select(&body) {
        let cells: Vec<String> = row.select(&cell).map(|cell| words(&cell)).collect();
        if cells.len() != heads.len() {
            return Err(wrong("a row has not as many cells as the head"));
        }
        let num = cells[number]
            .parse()
            .map_err(|_| wrong("a row has no number"))?;
        let (status, is_try) =
            read_status(&cells[status]).ok_or_else(|| wrong("a row has no status of homu's"))?;
        rows.push(PageRow {
            num,
            status: status.to_owned(),
            is_try,
            mergeable: match cells[mergeable].as_str() {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            },
            priority: cells[priority].parse().ok(),
            title: cells[title].clone(),
        });
    }
    Ok(rows)
}

/// The status and whether it only tries; servo adds `[TREE CLOSED]` (`server.py`: `status_ext`).
fn read_status(cell: &str) -> Option<(&str, bool)> {
    let (status, more) = match cell.find(['(', '[']) {
        Some(at) => cell.split_at(at),
        None => (cell, ""),
    };
    let status = status.trim_end();
    let known = ["", "approved", "pending", "success", "failure", "error"];
    known
        .contains(&status)
        .then(|| (status, more.contains("(try)")))
}

/// An element's text with its white space folded.
fn words(element: &ElementRef<'_>) -> String {
    let text: String = element.text().collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
