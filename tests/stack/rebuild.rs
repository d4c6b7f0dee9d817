//! How homu asks a Buildbot 0.8 to rebuild, in the words of a Buildbot 4.
//!
//! After a partial success homu 0.2.0 logs in (`POST /login`), asks for each
//! builder that failed (`POST /builders/NAME/builds/NUMBER/rebuild`) and logs
//! out (`main.py`, `start_rebuild`). It takes an answer that holds the builder's
//! name for a yes. Buildbot 4 has none of these pages, but can rebuild.

use std::time::Duration;

use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(10);

/// Something that homu wants of a Buildbot 0.8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// To open or close a session.
    Session,
    /// To run this once more, with the same commit.
    Rebuild { builder: String, number: u64 },
}

/// Reads an order out of a request, if it is one.
pub fn order(method: &str, path: &str) -> Option<Order> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, segments.as_slice()) {
        ("POST", ["login"]) | ("GET", ["logout"]) => Some(Order::Session),
        ("POST", ["builders", builder, "builds", number, "rebuild"]) => Some(Order::Rebuild {
            builder: (*builder).to_owned(),
            number: number.parse().ok()?,
        }),
        _ => None,
    }
}

/// Does what an order wants, and returns the status and text of its answer.
pub async fn obey(
    client: &reqwest::Client,
    server: &str,
    order: &Order,
) -> reqwest::Result<(u16, String)> {
    let Order::Rebuild { builder, number } = order else {
        return Ok((200, "welcome, and goodbye".to_owned()));
    };
    let run = format!("{server}/api/v2/builders/{builder}/builds/{number}");
    let run = client.get(run).timeout(DEADLINE).send().await?;
    if !run.status().is_success() {
        return Ok((404, "<title>no such build</title>".to_owned()));
    }
    let run: Value = run.json().await?;
    let id = run["builds"][0]["buildid"].as_u64().unwrap_or_default();
    let order = json!({"jsonrpc": "2.0", "id": 1, "method": "rebuild", "params": {}});
    let request = client
        .post(format!("{server}/api/v2/builds/{id}"))
        .json(&order);
    let answer = request.timeout(DEADLINE).send().await?;
    if answer.status().is_success() {
        Ok((200, format!("{builder} builds again")))
    } else {
        Ok((500, format!("<title>{}</title>", answer.status())))
    }
}
