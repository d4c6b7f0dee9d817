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
    /// Who approved it; empty: nobody.
    pub approved_by: String,
    /// Whether it merges without conflict; `None`: not known yet.
    pub mergeable: Option<bool>,
    /// The priority; a rollup has the least.
    pub priority: i64,
    /// The title.
    pub title: String,
}

/// Reads the page of one repository, in the bot's order.
///
/// # Errors
///
/// A page that is not homu's queue: another table, a row without a number, no status.
pub fn parse(url: &str, html: &str) -> Result<Vec<PageRow>, ProbeError> {
    let wrong = |what: &str| {
        ProbeError::new(
            ProbeFailure::Parse,
            format!("{url}: not homu's queue page: {what}"),
        )
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
    let number = column("#").ok_or_else(|| wrong("no column #"))?;
    let status = column("status").ok_or_else(|| wrong("no column Status"))?;
    let approved = column("approved by");
    let mergeable = column("mergeable");
    let priority = column("priority");
    let title = column("title");
    let mut rows = Vec::new();
    for row in table.select(&body) {
        let cells: Vec<String> = row.select(&cell).map(|cell| words(&cell)).collect();
        let at = |index: Option<usize>| {
            index
                .and_then(|index| cells.get(index))
                .map_or("", String::as_str)
        };
        let num = at(Some(number))
            .trim_start_matches('#')
            .parse()
            .map_err(|_| wrong("a row without a number"))?;
        let word = cells
            .get(status)
            .ok_or_else(|| wrong("a row without a status"))?;
        let (status, is_try) = match word.strip_suffix("(try)") {
            Some(status) => (status.trim(), true),
            None => (word.as_str(), false),
        };
        rows.push(PageRow {
            num,
            status: status.to_owned(),
            is_try,
            approved_by: at(approved).to_owned(),
            mergeable: match at(mergeable) {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            },
            priority: at(priority).parse().unwrap_or(-1),
            title: at(title).to_owned(),
        });
    }
    Ok(rows)
}

/// An element's text with its white space folded.
fn words(element: &ElementRef<'_>) -> String {
    element
        .text()
        .collect::<String>()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
