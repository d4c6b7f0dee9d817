//! What the watchdog sent to homu, read from the requests that homu received.

use std::fmt;

use serde_json::Value;

use super::homu::short;
use super::requests::Received;
use super::town::BUILDERS;

/// One message of the watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// A start of these commits under a name that nobody has: frees the start slot.
    Release {
        /// The commits.
        shas: Vec<String>,
    },
    /// A start of builders that homu holds for green, so that it forgets them.
    Forget {
        /// The builders.
        builders: Vec<String>,
    },
    /// A result that homu had lost.
    Result {
        /// The builder.
        builder: String,
    },
    /// A comment with a command.
    Command {
        /// The repository's label.
        label: String,
        /// The pull request.
        pull: u64,
        /// The words after the bot's name.
        words: String,
    },
    /// Anything else.
    Other(String),
}

/// The message in a request, if the watchdog sent it and it was not only a look.
pub fn read(received: &Received) -> Option<Sent> {
    if received.method != "POST" || !received.user_agent.starts_with("ci-watchdog/") {
        return None;
    }
    let other = || Sent::Other(format!("{} {}", received.path, received.body));
    let sent = match received.path.as_str() {
        "/buildbot" => packets(&received.body),
        "/github" => command(&received.body),
        _ => None,
    };
    Some(sent.unwrap_or_else(other))
}

impl Sent {
    /// Its kind in a word.
    pub fn word(&self) -> String {
        match self {
            Self::Release { .. } => "release".to_owned(),
            Self::Forget { .. } => "forget".to_owned(),
            Self::Result { .. } => "result".to_owned(),
            Self::Command { words, .. } => words.clone(),
            Self::Other(_) => "other".to_owned(),
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release { shas } => {
                let shas: Vec<&str> = shas.iter().map(|sha| short(sha)).collect();
                write!(f, "release the start slot of {}", shas.join(", "))
            }
            Self::Forget { builders } => {
                write!(
                    f,
                    "forget the green {}, a new commit will be tested",
                    builders.join(", ")
                )
            }
            Self::Result { builder } => write!(f, "replay the result of {builder}"),
            Self::Command { label, pull, words } => write!(f, "{words} {label}#{pull}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

fn packets(body: &str) -> Option<Sent> {
    let fields: Vec<_> = url::form_urlencoded::parse(body.as_bytes()).collect();
    let (_, packets) = fields.iter().find(|(name, _)| name == "packets")?;
    let packets: Vec<Value> = serde_json::from_str(packets).ok()?;
    let event = packets.first()?["event"].as_str()?.to_owned();
    let builds: Vec<&Value> = packets
        .iter()
        .map(|packet| &packet["payload"]["build"])
        .collect();
    let builders: Vec<String> = builds
        .iter()
        .filter_map(|build| Some(build["builderName"].as_str()?.to_owned()))
        .collect();
    let known = builders
        .iter()
        .all(|builder| BUILDERS.contains(&builder.as_str()));
    match (event.as_str(), known) {
        ("buildStarted", true) => Some(Sent::Forget { builders }),
        ("buildStarted", false) => {
            let shas = builds.iter().filter_map(|build| {
                let properties = build["properties"].as_array()?;
                let revision = properties
                    .iter()
                    .find(|property| property[0] == "revision")?;
                Some(revision[1].as_str()?.to_owned())
            });
            Some(Sent::Release {
                shas: shas.collect(),
            })
        }
        ("buildFinished", true) => Some(Sent::Result {
            builder: builders.into_iter().next()?,
        }),
        _ => None,
    }
}

fn command(body: &str) -> Option<Sent> {
    let event: Value = serde_json::from_str(body).ok()?;
    let words = event["comment"]["body"].as_str()?.split_whitespace();
    Some(Sent::Command {
        label: event["repository"]["name"].as_str()?.to_owned(),
        pull: event["issue"]["number"].as_u64()?,
        words: words.skip(1).collect::<Vec<_>>().join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn received(user_agent: &str, path: &str, body: &str) -> Received {
        Received {
            number: 0,
            at: Instant::now(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            user_agent: user_agent.to_owned(),
            body: body.to_owned(),
            status: 200,
        }
    }

    fn start_of(builder: &str) -> String {
        let packets = serde_json::json!([{"event": "buildStarted", "payload": {"build": {
            "builderName": builder, "properties": [["revision", "abc", "x"]],
        }}}]);
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("packets", &packets.to_string())
            .finish()
    }

    #[test]
    fn a_start_under_a_name_that_nobody_has_is_a_release() {
        let release = read(&received("ci-watchdog/1", "/buildbot", &start_of("nobody")));
        assert_eq!(
            release,
            Some(Sent::Release {
                shas: vec!["abc".to_owned()]
            })
        );
        let forget = read(&received("ci-watchdog/1", "/buildbot", &start_of("linux")));
        assert_eq!(
            forget,
            Some(Sent::Forget {
                builders: vec!["linux".to_owned()]
            })
        );
    }

    #[test]
    fn what_others_sent_is_no_message_of_the_watchdog() {
        assert_eq!(
            read(&received(
                "homu-reporter/1",
                "/buildbot",
                &start_of("linux")
            )),
            None
        );
    }

    #[test]
    fn what_is_not_understood_is_shown_and_not_dropped() {
        let sent = read(&received("ci-watchdog/1", "/admin", "x"));
        assert_eq!(sent, Some(Sent::Other("/admin x".to_owned())));
    }
}
