//! Asking the running watchdog, at the address that its configuration names.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{FAILED, complain};
use crate::config::Config;
use crate::http::{Client, ClientOptions, Request};
use crate::model::{Gate, ProbeError, ProbeFailure};

/// A watchdog with thousands of pending builds fits; bytes.
const ANSWER_MAX: usize = 64 << 20;

/// How long the watchdog may take to do what it is asked to: it gives up before.
const DOING: Duration = Duration::from_secs(110);

/// The status of an answer that came too late to be told.
const GATEWAY_TIMEOUT: u16 = 504;

/// What the watchdog says to a request that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was done.
    Done(Value),
    /// It was refused, and why.
    Refused { why: String, way_out: WayOut },
    /// It took too long to be told of: it may have been begun.
    Unknown(String),
}

/// What helps against a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayOut {
    /// Nothing that the command line could do.
    Nothing,
    /// To mean it also where something may be alive.
    MeanIt,
    /// That too, or to wait for some looks.
    Wait,
}

/// Reads one of the API's answers; a failure is told on standard error with what to do.
pub(super) async fn get(config: &Config, path: &[&str]) -> Result<Value, u8> {
    let client = client(ClientOptions::default())?;
    let request = Request::get(url(config, path)?).body_max(ANSWER_MAX);
    let answer = client.get_json(request).await;
    answer.map_err(|error| fail(config, &error))
}

/// Asks the watchdog to do something; no answer, or one that is not its own, is told on standard
/// error with what to do.
pub(super) async fn post(config: &Config, path: &[&str], body: &Value) -> Result<Said, u8> {
    let Some(token) = &config.server.token else {
        complain(&format!(
            "changing something needs the token, and server.token_file in {} names none; make one \
             with (umask 077; head -c 32 /dev/urandom | base64 > ci-watchdog.token), name it \
             there, and send the watchdog a SIGHUP",
            config.path.display()
        ));
        return Err(FAILED);
    };
    let client = client(ClientOptions {
        timeout: DOING,
        ..ClientOptions::default()
    })?;
    let request = Request::json(url(config, path)?, body.to_string().into_bytes())
        .authorization(&format!("Bearer {}", token.secret().expose()))
        .body_max(ANSWER_MAX);
    let answer = client.send(request).await;
    let answer = answer.map_err(|error| fail(config, &error))?;
    if answer.status.is_success() {
        let done = answer.json().map_err(|error| fail(config, &error))?;
        return Ok(Said::Done(done));
    }
    let problem: Value = match serde_json::from_slice(&answer.body) {
        Ok(problem) => problem,
        Err(_) => {
            complain(&format!(
                "the watchdog at {} refused it: {}: {}",
                config.server.listen,
                answer.status,
                String::from_utf8_lossy(&answer.body).trim()
            ));
            return Err(FAILED);
        }
    };
    Ok(not_done(answer.status.as_u16(), &problem))
}

/// What an answer comes to that is no success.
fn not_done(status: u16, problem: &Value) -> Said {
    let why = text(problem, "error").to_owned();
    if status == GATEWAY_TIMEOUT {
        return Said::Unknown(why);
    }
    let gate = text(problem, "gate");
    let way_out = if gate == Gate::LawOfReruns.as_str() {
        WayOut::MeanIt
    } else if gate == Gate::Confirming.as_str() {
        WayOut::Wait
    } else {
        WayOut::Nothing
    };
    Said::Refused { why, way_out }
}

fn client(options: ClientOptions) -> Result<Client, u8> {
    Client::new(options).map_err(|error| {
        complain(&error);
        FAILED
    })
}

/// An address of the watchdog; each segment is escaped.
fn url(config: &Config, path: &[&str]) -> Result<Url, u8> {
    let address = config.server.listen;
    let url = Url::parse(&format!("http://{address}/")).map_err(|error| error.to_string());
    let url = url.and_then(|mut url| {
        let segments = url.path_segments_mut();
        segments
            .map_err(|()| "it has no path".to_owned())?
            .clear()
            .extend(path);
        Ok(url)
    });
    url.map_err(|error| {
        complain(&format!("{address} makes no URL: {error}"));
        FAILED
    })
}

fn fail(config: &Config, error: &ProbeError) -> u8 {
    let address = config.server.listen;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_done_is_told_by_its_status_and_gate() {
        let refused = |way_out| {
            let why = "because".to_owned();
            Said::Refused { why, way_out }
        };
        for (status, gate, said) in [
            (409, json!("law_of_reruns"), refused(WayOut::MeanIt)),
            (503, json!("confirming"), refused(WayOut::Wait)),
            (409, json!("journal"), refused(WayOut::Nothing)),
            (404, Value::Null, refused(WayOut::Nothing)),
            (504, Value::Null, Said::Unknown("because".to_owned())),
        ] {
            let problem = json!({ "error": "because", "gate": gate });
            assert_eq!(not_done(status, &problem), said, "{status}");
        }
    }
}
