//! `ci-watchdog pause`, `resume`, `exclude` and `include`.

use std::convert::Infallible;
use std::str::FromStr;

use serde_json::{Value, json};

use super::daemon::{self, Said, text, texts};
use super::person::{confirm, name};
use super::{ByHand, Exclude, FAILED, Go, OK, Pause, block_on, complain, load, say, say_json};

/// A repository, or one pull request of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    repo: String,
    pull: Option<u64>,
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        let pull = name
            .rsplit_once('#')
            .and_then(|(repo, pull)| Some((repo, pull.parse().ok()?)));
        Ok(match pull {
            Some((repo, pull)) => Self {
                repo: repo.to_owned(),
                pull: Some(pull),
            },
            // The watchdog says which repositories there are.
            None => Self {
                repo: name.to_owned(),
                pull: None,
            },
        })
    }
}

/// The words of one kind of order.
struct Words {
    path: &'static str,
    /// `servo is paused`.
    done: &'static str,
}

pub(super) fn pause(arguments: &Pause) -> u8 {
    let words = Words {
        path: "pause",
        done: "paused",
    };
    let mut body = scope(arguments.repo.as_ref(), arguments.builder.as_deref());
    body["reason"] = json!(arguments.reason);
    if let Some(lasts) = arguments.lasts {
        body["for"] = json!(humantime::format_duration(lasts).to_string());
    }
    order(&arguments.hand, &words, body)
}

pub(super) fn resume(arguments: &Go) -> u8 {
    let words = Words {
        path: "resume",
        done: "not paused any more",
    };
    let body = scope(arguments.repo.as_ref(), arguments.builder.as_deref());
    order(&arguments.hand, &words, body)
}

pub(super) fn exclude(arguments: &Exclude) -> u8 {
    let words = Words {
        path: "exclude",
        done: "excluded",
    };
    let mut body = scope(arguments.repo.as_ref(), arguments.builder.as_deref());
    body["reason"] = json!(arguments.reason);
    order(&arguments.hand, &words, body)
}

pub(super) fn include(arguments: &Go) -> u8 {
    let words = Words {
        path: "include",
        done: "not excluded any more",
    };
    let body = scope(arguments.repo.as_ref(), arguments.builder.as_deref());
    order(&arguments.hand, &words, body)
}

fn scope(place: Option<&Place>, builder: Option<&str>) -> Value {
    json!({
        "repo": place.map(|place| &place.repo),
        "pull": place.and_then(|place| place.pull),
        "builder": builder,
    })
}

fn order(hand: &ByHand, words: &Words, mut body: Value) -> u8 {
    match ordered(hand, words, &mut body) {
        Ok(code) | Err(code) => code,
    }
}

fn ordered(hand: &ByHand, words: &Words, body: &mut Value) -> Result<u8, u8> {
    let config = load(hand.common.config.as_deref())?;
    body["by"] = json!(name(hand)?);
    let mut ask = |dry_run: bool| {
        body["dry_run"] = json!(dry_run);
        block_on(daemon::post(&config, &["api", "v1", words.path], body))?
    };
    let would_be = taken(ask(true)?)?;
    if !hand.dry_run {
        let what = texts(&would_be, "scopes").join(", ");
        confirm(hand, &format!("{} {what}?", words.path))?;
    }
    let done = if hand.dry_run {
        would_be
    } else {
        taken(ask(false)?)?
    };
    if hand.common.json {
        return Ok(say_json(&done));
    }
    let until = match text(&done, "until") {
        "" => String::new(),
        until => format!(" until {until}"),
    };
    let would = if hand.dry_run { "would be " } else { "" };
    for scope in texts(&done, "scopes") {
        say(&format!("{scope}: {would}{}{until}", words.done));
    }
    Ok(OK)
}

fn taken(said: Said) -> Result<Value, u8> {
    match said {
        Said::Done(done) => Ok(done),
        Said::Refused { why, .. } => {
            complain(&why);
            Err(FAILED)
        }
        Said::Unknown(why) => {
            complain(&format!("not known whether it was taken: {why}"));
            Err(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_repository_or_a_pull_request_of_it() {
        let place = |name: &str| name.parse::<Place>().unwrap();
        assert_eq!(place("servo#7").repo, "servo");
        assert_eq!(place("servo#7").pull, Some(7));
        for name in ["servo", "servo#", "a#b"] {
            assert_eq!((place(name).repo.as_str(), place(name).pull), (name, None));
        }
    }
}
