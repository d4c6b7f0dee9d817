//! What the fake Buildbot is asked: REST v2, the change hook, and the page's own `/config`.

use serde_json::{Value, json};

use super::query::{self, Row};
use super::rows;
use super::world::{Push, World};

/// An answer on its way out.
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

/// Rows, their name in the answer, and their columns.
type Rows = (&'static str, Vec<Row>, &'static [&'static str]);

/// Answers one request.
pub fn answer(
    world: &mut World,
    method: &str,
    path: &str,
    query: &[(String, String)],
    body: &[u8],
) -> Reply {
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    match (method, segments.as_slice()) {
        ("GET", ["api", "v2", rest @ ..]) => match read(world, rest) {
            Some(rows) => list(rows, query),
            None => error(404, format!("invalid path or id: {}", rest.join("/"))),
        },
        ("POST", ["change_hook", "base"]) => hook(world, body),
        ("GET", ["config"]) => json(&json!({
            "title": "A fake Buildbot",
            "multiMaster": false,
            "versions": [["Python", "3.11.7"], ["Buildbot", "4.3.0"], ["Twisted", "26.10.0"]],
            "auth": {"name": "NoAuth"},
            "user": {"anonymous": true},
        })),
        // Old masters had `/builders/NAME/builds/N/rebuild`; to this one it is a page like any
        // other that there is not.
        _ => Reply {
            status: 404,
            content_type: "text/html; charset=utf-8",
            body: "<html><head><title>404 - No Such Resource</title></head>\
                   <body><h1>No Such Resource</h1></body></html>"
                .to_owned(),
        },
    }
}

fn read(world: &World, path: &[&str]) -> Option<Rows> {
    match path {
        ["masters"] => Some(("masters", world.master_rows(), rows::MASTER)),
        ["builders"] => Some(("builders", world.builder_rows(), rows::BUILDER)),
        ["builders", id] => one("builders", world.builder_rows(), rows::BUILDER, id),
        ["builders", id, "builds"] => {
            let id = builder(world, id)?;
            Some((
                "builds",
                of(world.build_rows(), "builderid", id),
                rows::BUILD,
            ))
        }
        ["builders", id, "buildrequests"] => {
            let id = builder(world, id)?;
            Some((
                "buildrequests",
                of(world.request_rows(), "builderid", id),
                rows::REQUEST,
            ))
        }
        ["workers"] => Some(("workers", world.worker_rows(), rows::WORKER)),
        ["workers", id] => one("workers", world.worker_rows(), rows::WORKER, id),
        ["buildrequests"] => Some(("buildrequests", world.request_rows(), rows::REQUEST)),
        ["buildrequests", id] => one("buildrequests", world.request_rows(), rows::REQUEST, id),
        ["buildrequests", id, "builds"] => {
            let id = number(id)?;
            Some((
                "builds",
                of(world.build_rows(), "buildrequestid", id),
                rows::BUILD,
            ))
        }
        ["buildsets"] => Some(("buildsets", world.buildset_rows(), rows::BUILDSET)),
        ["buildsets", id] => one("buildsets", world.buildset_rows(), rows::BUILDSET, id),
        ["sourcestamps"] => Some(("sourcestamps", world.stamp_rows(), rows::STAMP)),
        ["builds"] => Some(("builds", world.build_rows(), rows::BUILD)),
        ["builds", id] => one("builds", world.build_rows(), rows::BUILD, id),
        ["builds", id, "steps"] => Some((
            "steps",
            world.step_rows(number(id)?.checked_sub(1)?),
            rows::STEP,
        )),
        ["builds", id, "steps", step] => {
            let mut steps = world.step_rows(number(id)?.checked_sub(1)?);
            let step = number(step)?;
            steps.retain(|row| row.get("number").and_then(Value::as_u64) == Some(step as u64));
            (!steps.is_empty()).then_some(("steps", steps, rows::STEP))
        }
        ["builds", id, "steps", step, "logs"] => Some((
            "logs",
            world.log_rows(number(id)?.checked_sub(1)?, number(step)?),
            rows::LOG,
        )),
        _ => None,
    }
}

fn hook(world: &mut World, body: &[u8]) -> Reply {
    let mut push = Push {
        repository: String::new(),
        project: String::new(),
        branch: String::new(),
        revision: String::new(),
    };
    for (name, value) in url::form_urlencoded::parse(body) {
        let field = match name.as_ref() {
            "repository" => &mut push.repository,
            "project" => &mut push.project,
            "branch" => &mut push.branch,
            "revision" => &mut push.revision,
            _ => continue,
        };
        *field = value.into_owned();
    }
    match world.push(&push) {
        Ok(()) => Reply {
            status: 200,
            content_type: "text/plain",
            body: "1 change found".into(),
        },
        Err(why) => error(503, why.to_owned()),
    }
}

fn one(
    name: &'static str,
    rows: Vec<Row>,
    columns: &'static [&'static str],
    id: &str,
) -> Option<Rows> {
    let row = rows.into_iter().nth(number(id)?.checked_sub(1)?)?;
    Some((name, vec![row], columns))
}

fn of(mut rows: Vec<Row>, column: &str, id: usize) -> Vec<Row> {
    rows.retain(|row| row.get(column).and_then(Value::as_u64) == Some(id as u64));
    rows
}

/// A builder's number, by that or by its name.
fn builder(world: &World, id: &str) -> Option<usize> {
    number(id).or_else(|| Some(world.builder(id)? + 1))
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn list((name, rows, columns): Rows, query: &[(String, String)]) -> Reply {
    match query::apply(rows, columns, query) {
        Ok(rows) => json(&json!({name: rows, "meta": {"total": rows.len()}})),
        Err(why) => error(400, why),
    }
}

fn json(value: &Value) -> Reply {
    Reply {
        status: 200,
        content_type: "application/json; charset=utf-8",
        body: value.to_string(),
    }
}

fn error(status: u16, why: String) -> Reply {
    Reply {
        status,
        content_type: "text/plain; charset=utf-8",
        body: json!({"error": why}).to_string(),
    }
}
