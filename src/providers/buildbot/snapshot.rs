//! From the master's answers to runs: which state each is in, and what its progress is.

use std::collections::{BTreeMap, BTreeSet};

use super::api::{Build, Buildset, Log, Request, Step, run_end};
use super::index::Naming;
use super::roster::Roster;
use crate::model::{ProbeError, Run, RunEnd, RunId, RunState, Sha, WorkerName};

/// The longest [`Run::detail`], characters.
const DETAIL_MAX: usize = 200;

/// A request that serves a commit in question, with what was read of it.
pub(super) struct Found {
    /// The commit.
    pub(super) sha: Sha,
    /// Who says that it serves that commit.
    naming: Naming,
    /// The request.
    pub(super) request: Request,
    /// Its newest build.
    pub(super) build: Option<Build>,
    /// How far that build came, where it is open.
    pub(super) beat: Option<Beat>,
}

/// How far an open build came.
pub(super) struct Beat {
    /// Its newest step.
    pub(super) step: Option<Step>,
    /// The lines in the open logs of that step.
    pub(super) lines: u64,
}

/// All open work of a master.
pub(super) struct Open {
    /// Open requests.
    pub(super) requests: Vec<Request>,
    /// The buildsets of these requests.
    pub(super) buildsets: BTreeMap<u64, Buildset>,
    /// Open builds by their requests; the newest of each.
    pub(super) builds: BTreeMap<u64, Build>,
}

impl Found {
    /// A request that serves `sha` by its buildset, or may serve it by its builds.
    pub(super) fn new(sha: Sha, naming: Naming, request: Request, build: Option<Build>) -> Self {
        Self {
            sha,
            naming,
            request,
            build,
            beat: None,
        }
    }

    /// Whether it serves its commit after all, now that its newest build is known.
    pub(super) fn serves(&self) -> bool {
        match self.naming {
            Naming::Stamps => true,
            Naming::Builds => self
                .build
                .as_ref()
                .is_some_and(|build| build.commits().contains(&self.sha)),
        }
    }

    /// Whether it is not over, so that the past of its commit need not be known for its sake.
    pub(super) fn open(&self) -> bool {
        let over = self.build.as_ref().is_some_and(|build| build.complete);
        !self.request.complete && (!over || !self.request.claimed)
    }

    /// Its newest build where that is not over.
    pub(super) fn open_build(&self) -> Option<&Build> {
        let build = self.build.as_ref()?;
        (!self.request.complete && !build.complete).then_some(build)
    }
}

impl Open {
    /// The commits that an open request serves; `None` where that cannot be told yet: its buildset
    /// names no commit, and no build has checked one out.
    pub(super) fn commits(&self, request: &Request) -> Option<(BTreeSet<Sha>, Naming)> {
        let buildset = self.buildsets.get(&request.buildsetid)?;
        if !buildset.vague() {
            return Some((buildset.commits(), Naming::Stamps));
        }
        let build = self.builds.get(&request.buildrequestid)?;
        let commits = build.commits();
        (!commits.is_empty()).then_some((commits, Naming::Builds))
    }
}

impl Beat {
    /// From the newest step and its logs. Only logs that are still written count: the reason of a
    /// stop arrives as a new, complete log, and is no progress.
    pub(super) fn new(step: Option<Step>, logs: &[Log]) -> Self {
        let open = logs.iter().filter(|log| !log.complete);
        Self {
            step,
            lines: open.fold(0, |lines, log| lines.saturating_add(log.num_lines)),
        }
    }
}

/// The runs of the requests that were found, in the order of submission.
///
/// # Errors
///
/// Answers that do not fit together, or that Buildbot 4 does not give.
pub(super) fn runs(
    found: Vec<Found>,
    roster: &Roster,
    open: &Open,
    url: &str,
) -> Result<Vec<Run>, ProbeError> {
    let mut runs = Vec::new();
    let mut found = found;
    found.sort_by(|a, b| {
        (a.request.buildrequestid, &a.sha).cmp(&(b.request.buildrequestid, &b.sha))
    });
    for Found {
        sha,
        request,
        build,
        beat,
        naming: _,
    } in found
    {
        let state = state(&request, build.as_ref(), beat.as_ref(), roster)?;
        let worker = build
            .as_ref()
            .and_then(|build| build.workerid)
            .and_then(|id| roster.worker(id));
        let behind = match state {
            RunState::Queued => behind(&request, roster, open),
            RunState::Preparing | RunState::Running | RunState::Ended(_) => None,
        };
        runs.push(Run {
            id: RunId::new(request.buildrequestid.to_string()),
            builder: roster.name(request.builderid)?.clone(),
            sha,
            state,
            number: build.as_ref().map(|build| build.number),
            url: build.as_ref().map(|build| {
                // As `getURLForBuild` in `buildbot/reporters/utils.py` makes it.
                format!(
                    "{url}/#/builders/{}/builds/{}",
                    build.builderid, build.number
                )
            }),
            worker: worker.map(|worker| WorkerName::new(&worker.name)),
            progress: progress(build.as_ref(), beat.as_ref()),
            detail: detail(state, build.as_ref(), beat.as_ref()),
            behind,
        });
    }
    Ok(runs)
}

/// Whether a build's worker has yet to answer: the states before its first step, as
/// `buildbot/process/build.py` of 4.3.0 sets them. `acquiring locks` is none of them: by then the
/// worker has answered, and what is waited for is another build.
pub(super) fn preparing(build: &Build) -> bool {
    matches!(
        build.state_string.as_str(),
        "created" | "starting" | "preparing worker" | "pinging worker"
    )
}

fn state(
    request: &Request,
    build: Option<&Build>,
    beat: Option<&Beat>,
    roster: &Roster,
) -> Result<RunState, ProbeError> {
    let named = || format!("build request {}", request.buildrequestid);
    if request.complete {
        // A request that was merged into another ends as skipped, without a build.
        return run_end(request.results, named).map(RunState::Ended);
    }
    let Some(build) = build else {
        return Ok(if request.claimed {
            RunState::Preparing
        } else {
            RunState::Queued
        });
    };
    if !build.complete {
        // Also where the request was read as unclaimed: it was, a moment before.
        return Ok(open_state(build, beat, roster));
    }
    if request.claimed {
        // Over, and the master has not yet concluded the request, or given it back.
        return run_end(build.results, || format!("build {}", build.buildid)).map(RunState::Ended);
    }
    Ok(RunState::Queued)
}

fn open_state(build: &Build, beat: Option<&Beat>, roster: &Roster) -> RunState {
    let step = beat
        .and_then(|beat| beat.step.as_ref())
        .filter(|step| !step.complete);
    if build.state_string == "preparing worker" {
        // Only a latent worker stays in this, and it is not connected while its machine boots.
        let connected = build
            .workerid
            .and_then(|id| roster.worker(id))
            .is_some_and(|worker| !worker.connected_to.is_empty());
        return if connected {
            RunState::Preparing
        } else {
            RunState::Queued
        };
    }
    if preparing(build) || step.is_some_and(|step| step.name == "worker_preparation") {
        return RunState::Preparing;
    }
    // A lock of the master is held by another build. No sign of life can be asked of this one.
    if build.state_string == "acquiring locks" || step.is_some_and(locked) {
        RunState::Queued
    } else {
        RunState::Running
    }
}

/// Whether a step has begun and waits for a lock: `startStep` in `buildbot/data/steps.py` of 4.3.0
/// sets both times at once where it needs none.
fn locked(step: &Step) -> bool {
    step.started_at.is_some() && step.locks_acquired_at == Some(None)
}

/// The oldest open build on a worker that could take this request.
fn behind(request: &Request, roster: &Roster, open: &Open) -> Option<RunId> {
    let able: BTreeSet<u64> = roster
        .configured_on(request.builderid)
        .filter(|worker| !worker.connected_to.is_empty() && !worker.paused && !worker.graceful)
        .map(|worker| worker.workerid)
        .collect();
    open.builds
        .values()
        .filter(|build| build.buildrequestid != request.buildrequestid)
        .filter(|build| build.workerid.is_some_and(|id| able.contains(&id)))
        .min_by_key(|build| build.buildid)
        .map(|build| RunId::new(build.buildrequestid.to_string()))
}

fn progress(build: Option<&Build>, beat: Option<&Beat>) -> String {
    let Some(build) = build else {
        return String::new();
    };
    let Some(beat) = beat else {
        return format!("build {} {}", build.buildid, build.state_string);
    };
    let Some(step) = &beat.step else {
        return format!("build {}", build.buildid);
    };
    format!(
        "build {} step {} started {} locks {} urls {} lines {}",
        build.buildid,
        step.number,
        step.started_at.unwrap_or(0),
        step.locks_acquired_at.flatten().unwrap_or(0),
        step.urls.len(),
        beat.lines
    )
}

fn detail(state: RunState, build: Option<&Build>, beat: Option<&Beat>) -> String {
    let said = build.map(|build| build.state_string.as_str());
    let step = beat.and_then(|beat| beat.step.as_ref());
    let detail = match (state, build) {
        (RunState::Queued, None) => "not claimed".to_owned(),
        (RunState::Queued, Some(build)) if build.complete => {
            format!(
                "not claimed again since build {}: {}",
                build.number, build.state_string
            )
        }
        (RunState::Queued | RunState::Running, Some(build)) => match step {
            Some(step) if !step.complete && locked(step) => {
                format!("step {} {} waits for a lock", step.number, step.name)
            }
            Some(step) => format!("step {} {}: {}", step.number, step.name, step.state_string),
            None => build.state_string.clone(),
        },
        (RunState::Preparing, None) => "claimed, without a build yet".to_owned(),
        (RunState::Preparing, Some(build)) => build.state_string.clone(),
        (RunState::Running, None) => String::new(),
        (RunState::Ended(RunEnd::Skipped), None) => "skipped, or merged into another".to_owned(),
        (RunState::Ended(end), _) => said.unwrap_or(end.as_str()).to_owned(),
    };
    detail
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(DETAIL_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProbeFailure;
    use serde_json::{Value, json};

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("as the master sends it")
    }

    fn request(claimed: bool, complete: bool, results: i64) -> Request {
        of(json!({
            "buildrequestid": 7, "buildsetid": 3, "builderid": 1,
            "claimed": claimed, "complete": complete, "results": results,
        }))
    }

    fn build(results: Option<i64>, state_string: &str) -> Build {
        of(json!({
            "buildid": 20, "number": 4, "builderid": 1, "buildrequestid": 7, "workerid": 1,
            "complete": results.is_some(), "results": results, "state_string": state_string,
        }))
    }

    fn step(name: &str, locks: Value) -> Step {
        of(json!({
            "number": 2, "name": name, "started_at": 1000, "locks_acquired_at": locks,
            "complete": false, "state_string": "running", "urls": [],
        }))
    }

    fn roster(connected: bool) -> Roster {
        let masters = if connected {
            json!([{"masterid": 1}])
        } else {
            json!([])
        };
        Roster::new(
            &[of(json!({"builderid": 1, "name": "linux", "masterids": [1]}))],
            vec![of(json!({
                "workerid": 1, "name": "w", "connected_to": masters,
                "configured_on": [{"builderid": 1, "masterid": 1}], "paused": false, "graceful": false,
            }))],
        )
        .expect("a running master")
    }

    fn state_of(request: &Request, build: Option<&Build>, step: Option<Step>) -> RunState {
        let beat = step.map(|step| Beat::new(Some(step), &[]));
        state(request, build, beat.as_ref(), &roster(true)).expect("answers that fit together")
    }

    #[test]
    fn a_request_that_no_master_took_is_queued() {
        assert_eq!(
            state_of(&request(false, false, -1), None, None),
            RunState::Queued
        );
    }

    #[test]
    fn a_request_that_was_given_back_is_queued_again() {
        let lost = build(Some(5), "retry lost connection");
        assert_eq!(
            state_of(&request(false, false, -1), Some(&lost), None),
            RunState::Queued
        );
    }

    #[test]
    fn a_claimed_request_prepares_until_its_worker_answers() {
        let claimed = request(true, false, -1);
        assert_eq!(state_of(&claimed, None, None), RunState::Preparing);
        for state_string in ["created", "starting", "preparing worker", "pinging worker"] {
            let build = build(None, state_string);
            assert_eq!(
                state_of(&claimed, Some(&build), None),
                RunState::Preparing,
                "{state_string}"
            );
        }
        let build = build(None, "building");
        let preparation = step("worker_preparation", json!(1000));
        assert_eq!(
            state_of(&claimed, Some(&build), Some(preparation)),
            RunState::Preparing
        );
        let compile = step("compile", json!(1000));
        assert_eq!(
            state_of(&claimed, Some(&build), Some(compile)),
            RunState::Running
        );
    }

    #[test]
    fn a_worker_whose_machine_boots_does_not_have_the_run_yet() {
        let preparing = build(None, "preparing worker");
        let state = state(
            &request(true, false, -1),
            Some(&preparing),
            None,
            &roster(false),
        );
        assert_eq!(state, Ok(RunState::Queued));
    }

    #[test]
    fn a_build_that_waits_for_a_lock_is_not_expected_to_give_signs_of_life() {
        let claimed = request(true, false, -1);
        let building = build(None, "building");
        let waits = step("compile", Value::Null);
        assert_eq!(
            state_of(&claimed, Some(&building), Some(waits)),
            RunState::Queued
        );
        let acquiring = build(None, "acquiring locks");
        assert_eq!(state_of(&claimed, Some(&acquiring), None), RunState::Queued);
    }

    #[test]
    fn a_master_that_tells_nothing_of_locks_is_not_taken_for_one_that_waits() {
        let mut step: Value = json!({
            "number": 2, "name": "compile", "started_at": 1000, "complete": false,
            "state_string": "running",
        });
        let running = |step: Value| {
            state_of(
                &request(true, false, -1),
                Some(&build(None, "building")),
                Some(of(step)),
            )
        };
        assert_eq!(running(step.clone()), RunState::Running);
        step["locks_acquired_at"] = Value::Null;
        assert_eq!(running(step), RunState::Queued);
    }

    #[test]
    fn a_complete_request_ends_as_its_results_say() {
        for (code, end) in [
            (0, RunEnd::Success),
            (1, RunEnd::Warnings),
            (2, RunEnd::Failure),
            (3, RunEnd::Skipped),
            (4, RunEnd::Exception),
            (5, RunEnd::Retry),
            (6, RunEnd::Cancelled),
        ] {
            let state = state_of(&request(true, true, code), None, None);
            assert_eq!(state, RunState::Ended(end), "results {code}");
        }
    }

    #[test]
    fn a_build_that_ended_before_its_request_ends_the_run() {
        for (code, end) in [(0, RunEnd::Success), (5, RunEnd::Retry)] {
            let state = state_of(
                &request(true, false, -1),
                Some(&build(Some(code), "x")),
                None,
            );
            assert_eq!(state, RunState::Ended(end), "results {code}");
        }
    }

    #[test]
    fn a_code_that_nobody_knows_is_no_death() {
        for code in [-1, 7, 42] {
            let state = state(&request(true, true, code), None, None, &roster(true));
            assert_eq!(
                state.map_err(|error| error.failure),
                Err(ProbeFailure::Parse),
                "{code}"
            );
        }
    }

    #[test]
    fn a_stop_is_no_progress_and_a_line_is() {
        let log = |lines: u64, complete: bool| -> Log {
            of(json!({"num_lines": lines, "complete": complete}))
        };
        let token = |logs: &[Log]| {
            let beat = Beat::new(Some(step("compile", json!(1000))), logs);
            progress(Some(&build(None, "building")), Some(&beat))
        };
        let before = token(&[log(48, false)]);
        assert_eq!(token(&[log(48, false), log(2, true)]), before);
        assert_ne!(token(&[log(49, false)]), before);
    }
}
