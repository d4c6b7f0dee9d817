//! Asking the running watchdog, at the address that its configuration names.

use serde_json::Value;
use url::Url;

use super::{FAILED, complain};
use crate::config::Config;
use crate::http::{Client, ClientOptions, Request};
use crate::model::ProbeFailure;

/// A watchdog with thousands of pending builds fits; bytes.
const ANSWER_MAX: usize = 64 << 20;

/// Reads one of the API's answers; a failure is told on standard error with what to do.
pub(super) async fn get(config: &Config, path: &str) -> Result<Value, u8> {
    let address = config.server.listen;
    let url = match Url::parse(&format!("http://{address}{path}")) {
        Ok(url) => url,
        Err(error) => {
            complain(&format!("{address} makes no URL: {error}"));
            return Err(FAILED);
        }
    };
    let client = Client::new(ClientOptions::default()).map_err(|error| {
        complain(&error);
        FAILED
    })?;
    let request = Request::get(url).body_max(ANSWER_MAX);
    client.get_json(request).await.map_err(|error| {
        if error.failure == ProbeFailure::Connect {
            complain(&format!(
                "no watchdog answers at {address}, which {} names: is it running? Start it with \
                 `ci-watchdog run`, or name its configuration with --config. What was done until \
                 now is in `ci-watchdog history` ({})",
                config.path.display(),
                error.detail
            ));
        } else {
            complain(&format!(
                "the watchdog at {address} did not answer well: {error}"
            ));
        }
        FAILED
    })
}

/// A text of an answer; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The elements of a list in an answer.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The texts of a list in an answer.
pub(super) fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
