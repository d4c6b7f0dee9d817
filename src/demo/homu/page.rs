//! The pages of the fake homu: the columns, classes and words of 0.2.0's, in a page of its own.

use std::fmt::Write as _;

use super::pull::{PullState, Status};
use super::queue::Homu;

/// The page at `/`.
pub fn index(homu: &Homu) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>Homu</title></head><body>\n\
         <h1>Homu (a fake one)</h1>\n<ul class=\"repos\">\n",
    );
    for label in homu.pulls.keys() {
        let label = escape(label);
        let _ = writeln!(page, "<li><a href=\"queue/{label}\">{label}</a></li>");
    }
    page.push_str("</ul>\n</body></html>\n");
    page
}

/// The page at `/queue/LABEL`, `/queue/LABEL+LABEL` and `/queue/all`; `None` for a label that
/// there is not, for which homu fails.
pub fn queue(homu: &Homu, labels: &str) -> Option<String> {
    let wanted: Vec<&str> = if labels == "all" {
        homu.pulls.keys().map(String::as_str).collect()
    } else {
        labels.split('+').collect()
    };
    let mut rows: Vec<(&str, &PullState)> = vec![];
    for label in wanted {
        rows.extend(homu.pulls.get(label)?.values().map(|pull| (label, pull)));
    }
    rows.sort_by_key(|(_, pull)| pull.order());

    let count =
        |matches: fn(&PullState) -> bool| rows.iter().filter(|(_, pull)| matches(pull)).count();
    let mut page = format!(
        "<!doctype html>\n<html><head><meta charset=\"utf-8\">\
         <title>Homu queue - {label}</title></head><body>\n\
         <h1>Homu queue - {label}</h1>\n\
         <p>{} total, {} approved, {} rolled up, {} failed</p>\n\
         <table id=\"queue\">\n<thead>\n<tr>\n\
         <th class=\"hide\">Sort key</th>\n<th><input type=\"checkbox\"></th>\n<th>#</th>\n\
         <th>Status</th>\n<th>Priority</th>\n<th>Head ref</th>\n<th>Title</th>\n\
         <th>Approved by</th>\n<th>Mergeable</th>\n<th>Assignee</th>\n</tr>\n</thead>\n<tbody>\n",
        rows.len(),
        count(|pull| !pull.approved_by.is_empty()),
        count(|pull| pull.rollup),
        count(|pull| matches!(pull.status, Status::Failure | Status::Error)),
        label = escape(labels),
    );
    for (index, (label, pull)) in rows.iter().enumerate() {
        let full_name = homu.options.repos.get(*label)?.full_name();
        row(&mut page, index + 1, &full_name, pull);
    }
    page.push_str("</tbody>\n</table>\n</body></html>\n");
    Some(page)
}

fn row(page: &mut String, index: usize, full_name: &str, pull: &PullState) {
    let status = pull.shown_status();
    let extension = if pull.is_try { " (try)" } else { "" };
    let priority = if pull.rollup {
        "rollup".to_owned()
    } else {
        pull.priority.to_string()
    };
    let mergeable = match pull.mergeable {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    let _ = writeln!(
        page,
        "<tr>\n<td class=\"hide\">{index}</td>\n\
         <td><input type=\"checkbox\" data-num=\"{number}\"></td>\n\
         <td><a href=\"https://github.com/{full_name}/pull/{number}\">{number}</a></td>\n\
         <td class=\"{status}\">{status}{extension}</td>\n<td>{priority}</td>\n\
         <td>{head_ref}</td>\n<td>{title}</td>\n<td>{approved_by}</td>\n\
         <td class=\"{mergeable}\">{mergeable}</td>\n<td></td>\n</tr>",
        number = pull.number,
        full_name = escape(full_name),
        head_ref = escape(&pull.head_ref),
        title = escape(&pull.title),
        approved_by = escape(&pull.approved_by),
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}
