//! The answers of Buildbot's REST API, version 2, as far as they are read: typed, unknown fields ignored.
//!
//! Shapes and meanings are those of Buildbot 4.3.0 (`buildbot/data/*.py`). Every answer is an object
//! with one list named after what was asked for, so no part of one passes for a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::{ProbeError, ProbeFailure, RunEnd, Sha};

/// `builders`.
#[derive(Debug, Deserialize)]
pub(super) struct Builders {
    pub(super) builders: Vec<Builder>,
}

/// A builder that the master's database knows.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Builder {
    pub(super) builderid: u64,
    pub(super) name: String,
    /// The masters that have it; empty once it has left the configuration.
    pub(super) masterids: Vec<u64>,
}

/// `workers`.
#[derive(Debug, Deserialize)]
pub(super) struct Workers {
    pub(super) workers: Vec<Worker>,
}

/// A worker that the master's database knows.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Worker {
    pub(super) workerid: u64,
    pub(super) name: String,
    /// The masters that hold a connection to it.
    pub(super) connected_to: Vec<IgnoredAny>,
    pub(super) configured_on: Vec<ConfiguredOn>,
    pub(super) paused: bool,
    pub(super) graceful: bool,
}

/// One builder that a worker is configured for.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ConfiguredOn {
    pub(super) builderid: u64,
}

/// `buildrequests`.
#[derive(Debug, Deserialize)]
pub(super) struct Requests {
    pub(super) buildrequests: Vec<Request>,
}

/// A build request: one builder's part of a buildset. It stays the same over retries.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Request {
    pub(super) buildrequestid: u64,
    pub(super) buildsetid: u64,
    pub(super) builderid: u64,
    /// A master took it; goes back to false when a build ends in RETRY.
    pub(super) claimed: bool,
    pub(super) complete: bool,
    /// -1 until it is complete.
    pub(super) results: Option<i64>,
}

/// `buildsets`.
#[derive(Debug, Deserialize)]
pub(super) struct Buildsets {
    pub(super) buildsets: Vec<Buildset>,
}

/// A buildset: the source stamps that its requests are for. Neither changes after its insertion.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Buildset {
    pub(super) bsid: u64,
    /// Unix time by the master's clock, seconds.
    pub(super) submitted_at: i64,
    pub(super) sourcestamps: Vec<Stamp>,
}

/// `sourcestamps`, with the fields that history needs.
#[derive(Debug, Deserialize)]
pub(super) struct Stamps {
    pub(super) sourcestamps: Vec<Stamp>,
}

/// A source stamp: a revision of one codebase, shared by all buildsets that name the same.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Stamp {
    pub(super) ssid: u64,
    /// Empty or absent where only a branch was named.
    pub(super) revision: Option<String>,
    /// Unix time by the master's clock, seconds.
    pub(super) created_at: i64,
    /// A patch on top of the revision: what is built is then not that commit.
    #[serde(default)]
    patch: Option<IgnoredAny>,
}

/// `builds`.
#[derive(Debug, Deserialize)]
pub(super) struct Builds {
    pub(super) builds: Vec<Build>,
}

/// A build: one try of a request.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Build {
    pub(super) buildid: u64,
    pub(super) number: u64,
    pub(super) builderid: u64,
    pub(super) buildrequestid: u64,
    pub(super) workerid: Option<u64>,
    pub(super) complete: bool,
    /// Null until it is complete.
    pub(super) results: Option<i64>,
    pub(super) state_string: String,
    /// Each `[value, source]`; only those that were asked for.
    #[serde(default)]
    properties: Option<BTreeMap<String, Value>>,
}

/// `steps`.
#[derive(Debug, Deserialize)]
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
}

/// A step of a build.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Step {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) started_at: Option<i64>,
    /// `Some(None)` while it waits for a lock; `None` where the master does not tell.
    #[serde(default, deserialize_with = "told")]
    pub(super) locks_acquired_at: Option<Option<i64>>,
    pub(super) complete: bool,
    pub(super) state_string: String,
    /// A Trigger step gains one for each build that it starts.
    #[serde(default)]
    pub(super) urls: Vec<IgnoredAny>,
}

/// `logs`.
#[derive(Debug, Deserialize)]
pub(super) struct Logs {
    pub(super) logs: Vec<Log>,
}

/// A log of a step.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Log {
    pub(super) complete: bool,
    pub(super) num_lines: u64,
}

/// `/config`, which every master serves to its own page.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    /// Pairs of program and version.
    pub(super) versions: Vec<(String, String)>,
}

impl Stamp {
    /// The commit that it names in full, where it does.
    fn commit(&self) -> Option<Sha> {
        match (&self.revision, self.patch) {
            (Some(revision), None) => full_hash(revision),
            (Some(_) | None, Some(_)) | (None, None) => None,
        }
    }
}

impl Buildset {
    /// The commits that its source stamps name in full.
    pub(super) fn commits(&self) -> BTreeSet<Sha> {
        self.sourcestamps.iter().filter_map(Stamp::commit).collect()
    }

    /// Whether its source stamps leave open which commit is built: a branch without a revision,
    /// a shortened hash. A patch on a commit leaves nothing open: that is another tree.
    pub(super) fn vague(&self) -> bool {
        self.commits().is_empty() && self.sourcestamps.iter().all(|stamp| stamp.patch.is_none())
    }
}

impl Build {
    /// The commits that its properties `revision` and `got_revision` name in full; the latter is
    /// set by its checkout, one for each codebase where there are several.
    pub(super) fn commits(&self) -> BTreeSet<Sha> {
        let mut commits = BTreeSet::new();
        for name in ["revision", "got_revision"] {
            let value = self.properties.as_ref().and_then(|all| all.get(name));
            match value.and_then(|pair| pair.get(0)) {
                Some(Value::String(revision)) => commits.extend(full_hash(revision)),
                Some(Value::Object(codebases)) => commits.extend(
                    codebases
                        .values()
                        .filter_map(Value::as_str)
                        .filter_map(full_hash),
                ),
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | None => {}
            }
        }
        commits
    }
}

/// How something with these `results` ended (`buildbot/process/results.py`).
///
/// # Errors
///
/// A code that Buildbot 4.3 does not have: what it means is not known, so it is no death.
pub(super) fn run_end(
    results: Option<i64>,
    what: impl Fn() -> String,
) -> Result<RunEnd, ProbeError> {
    match results {
        Some(0) => Ok(RunEnd::Success),
        Some(1) => Ok(RunEnd::Warnings),
        Some(2) => Ok(RunEnd::Failure),
        Some(3) => Ok(RunEnd::Skipped),
        Some(4) => Ok(RunEnd::Exception),
        Some(5) => Ok(RunEnd::Retry),
        Some(6) => Ok(RunEnd::Cancelled),
        Some(code) => Err(ProbeError::new(
            ProbeFailure::Parse,
            format!(
                "{} is complete with results {code}, which Buildbot 4 does not have",
                what()
            ),
        )),
        None => Err(ProbeError::new(
            ProbeFailure::Parse,
            format!("{} is complete without results", what()),
        )),
    }
}

/// A commit hash in full, in lower case: SHA-1 or SHA-256.
fn full_hash(revision: &str) -> Option<Sha> {
    let full = matches!(revision.len(), 40 | 64) && revision.bytes().all(|b| b.is_ascii_hexdigit());
    full.then(|| Sha::new(revision.to_ascii_lowercase()))
}

/// Tells null from absent.
fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::<i64>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;

    /// Every answer that was recorded, by what was asked for.
    fn recorded() -> Vec<(String, String)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contracts/buildbot-4");
        let mut answers = Vec::new();
        for file in std::fs::read_dir(folder).expect("recorded answers") {
            let path = file.expect("a file").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let text = std::fs::read_to_string(&path).expect("readable");
                let scenario: BTreeMap<String, Value> = serde_json::from_str(&text).expect("JSON");
                answers.extend(
                    scenario
                        .into_iter()
                        .map(|(asked, answer)| (asked, answer.to_string())),
                );
            }
        }
        assert!(answers.len() > 100, "only {} answers", answers.len());
        answers
    }

    fn parses(asked: &str, answer: &str) -> bool {
        fn is<T: DeserializeOwned>(answer: &str) -> bool {
            serde_json::from_str::<T>(answer).is_ok()
        }
        let path = asked.split('?').next().unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default() {
            "builders" => is::<Builders>(answer),
            "workers" => is::<Workers>(answer),
            "buildrequests" => is::<Requests>(answer),
            "buildsets" => is::<Buildsets>(answer),
            "builds" => is::<Builds>(answer),
            "steps" => is::<Steps>(answer),
            "logs" => is::<Logs>(answer),
            "sourcestamps" => is::<Stamps>(answer),
            "config" => is::<Config>(answer),
            other => panic!("{other:?} is not asked for"),
        }
    }

    #[test]
    fn no_part_of_an_answer_passes_for_a_whole_one() {
        for (asked, answer) in recorded() {
            assert!(parses(&asked, &answer), "{asked}: {answer}");
            for end in (0..answer.len()).filter(|end| answer.is_char_boundary(*end)) {
                assert!(
                    !parses(&asked, &answer[..end]),
                    "{asked}: {}",
                    &answer[..end]
                );
            }
        }
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        for (asked, answer) in recorded() {
            let other = if asked.starts_with("workers") {
                "builders"
            } else {
                "workers"
            };
            assert!(!parses(other, &answer), "{asked} as {other}");
        }
    }

    fn stamps(stamps: Value) -> Buildset {
        serde_json::from_value(serde_json::json!({
            "bsid": 1, "submitted_at": 1, "sourcestamps": stamps,
        }))
        .expect("a buildset")
    }

    #[test]
    fn only_a_whole_hash_without_a_patch_names_a_commit() {
        let hash = "ABCDEF0123456789abcdef0123456789abcdef01";
        let stamp = |revision: Value, patch: Value| {
            stamps(serde_json::json!([
                {"ssid": 1, "created_at": 1, "revision": revision, "patch": patch}
            ]))
        };
        let named = stamp(hash.into(), Value::Null);
        assert_eq!(
            named.commits(),
            BTreeSet::from([Sha::new(hash.to_ascii_lowercase())])
        );
        assert!(!named.vague());
        let patched = stamp(hash.into(), serde_json::json!({"patchid": 1, "body": "x"}));
        assert!(
            patched.commits().is_empty() && !patched.vague(),
            "another tree"
        );
        for revision in [Value::Null, "".into(), "abcdef0".into(), "HEAD".into()] {
            let vague = stamp(revision.clone(), Value::Null);
            assert!(vague.commits().is_empty() && vague.vague(), "{revision}");
        }
    }

    #[test]
    fn a_build_names_the_commits_that_it_was_asked_for_and_that_it_got() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let build = |properties: Value| -> BTreeSet<Sha> {
            let build: Build = serde_json::from_value(serde_json::json!({
                "buildid": 1, "number": 1, "builderid": 1, "buildrequestid": 1, "workerid": null,
                "complete": false, "results": null, "state_string": "building",
                "properties": properties,
            }))
            .expect("a build");
            build.commits()
        };
        let (sha_a, sha_b) = (Sha::new(a.clone()), Sha::new(b.clone()));
        assert_eq!(
            build(serde_json::json!({"revision": ["", "Build"], "got_revision": [a, "Git"]})),
            BTreeSet::from([sha_a.clone()])
        );
        assert_eq!(
            build(serde_json::json!({"got_revision": [{"one": a, "two": b}, "Git"]})),
            BTreeSet::from([sha_a, sha_b])
        );
        assert_eq!(build(Value::Null), BTreeSet::new());
    }
}
