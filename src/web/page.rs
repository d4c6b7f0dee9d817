//! The status page: server-rendered, escaped, without a script.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::Web;
use crate::decision::policy::Mode;
use crate::report::{Report, SourceRole, StepReport};

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    report: &'a Report,
    acting: bool,
    stuck: usize,
    nothing_pending: String,
}

pub(super) async fn page(State(web): State<Arc<Web>>) -> Response {
    let report = web.shared.report();
    let page = Page {
        report: &report,
        acting: report.mode == Mode::Act,
        stuck: report.builds.iter().filter(|build| build.stuck).count(),
        nothing_pending: nothing_pending(&report),
    };
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!("the page could not be rendered: {error}");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the page could not be rendered\n",
            )
                .into_response()
        }
    }
}

pub(super) async fn style() -> Response {
    let css = include_str!("../../templates/style.css");
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], css).into_response()
}

/// What an empty list of builds means: that of a bot which does not answer, nothing is known.
fn nothing_pending(report: &Report) -> String {
    let bots = report
        .sources
        .iter()
        .filter(|it| it.role == SourceRole::Bot);
    let silent: Vec<&str> = bots
        .filter(|bot| bot.up != Some(true))
        .map(|bot| bot.source.as_str())
        .collect();
    if report.tick > 0 && silent.is_empty() {
        "No bot waits for anything.".to_owned()
    } else if silent.is_empty() {
        "Nothing was looked at yet.".to_owned()
    } else {
        format!("What {} waits for is not known.", silent.join(", "))
    }
}

/// A step in a few words: `retry: accepted, effect`.
fn step(step: &StepReport) -> String {
    let outcome = step.outcome.unwrap_or("outcome unknown");
    match step.closing {
        Some(closing) => format!("{}: {outcome}, {}", step.step, closing.as_str()),
        None => format!("{}: {outcome}, its effect is awaited", step.step),
    }
}

/// A page that a browser may be led to; sources could name a script as their address.
fn link(url: &str) -> Option<&str> {
    (url.starts_with("https://") || url.starts_with("http://")).then_some(url)
}
