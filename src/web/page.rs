//! The status page: server-rendered, escaped, without a script.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::Web;
use crate::decision::policy::Mode;
use crate::report::{Report, StepReport};

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    report: &'a Report,
    acting: bool,
    stuck: usize,
}

pub(super) async fn page(State(web): State<Arc<Web>>) -> Response {
    let report = web.shared.report();
    let page = Page {
        report: &report,
        acting: report.mode == Mode::Act,
        stuck: report.builds.iter().filter(|build| build.stuck).count(),
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
