//! The rows of Buildbot's REST API, version 2, in the shapes of Buildbot 4.3.0.

use serde_json::{Value, json};

use super::query::Row;
use super::world::{Build, Completed, World};

/// The columns of each kind of row.
pub const MASTER: &[&str] = &["masterid", "name", "active", "last_active"];
pub const BUILDER: &[&str] = &[
    "builderid",
    "name",
    "description",
    "description_format",
    "description_html",
    "masterids",
    "projectid",
    "tags",
];
pub const WORKER: &[&str] = &[
    "workerid",
    "name",
    "connected_to",
    "configured_on",
    "paused",
    "pause_reason",
    "graceful",
    "workerinfo",
];
pub const REQUEST: &[&str] = &[
    "buildrequestid",
    "buildsetid",
    "builderid",
    "claimed",
    "claimed_at",
    "claimed_by_masterid",
    "complete",
    "complete_at",
    "results",
    "submitted_at",
    "priority",
    "waited_for",
    "properties",
];
pub const BUILDSET: &[&str] = &[
    "bsid",
    "complete",
    "complete_at",
    "results",
    "submitted_at",
    "reason",
    "external_idstring",
    "parent_buildid",
    "parent_relationship",
    "rebuilt_buildid",
    "sourcestamps",
];
pub const STAMP: &[&str] = &[
    "ssid",
    "branch",
    "revision",
    "repository",
    "project",
    "codebase",
    "created_at",
    "patch",
];
pub const BUILD: &[&str] = &[
    "buildid",
    "number",
    "builderid",
    "buildrequestid",
    "workerid",
    "masterid",
    "started_at",
    "complete_at",
    "complete",
    "results",
    "state_string",
    "locks_duration_s",
    "properties",
];
pub const STEP: &[&str] = &[
    "stepid",
    "number",
    "name",
    "buildid",
    "started_at",
    "locks_acquired_at",
    "complete_at",
    "complete",
    "results",
    "state_string",
    "hidden",
    "urls",
];
pub const LOG: &[&str] = &[
    "logid",
    "name",
    "slug",
    "stepid",
    "complete",
    "num_lines",
    "type",
];

/// Numbers of steps and logs: no build has so many steps.
const STEPS_PER_BUILD: usize = 1_000;

impl World {
    /// `masters`.
    pub fn master_rows(&self) -> Vec<Row> {
        rows([json!({
            "masterid": 1,
            "name": "fake:/buildbot",
            "active": true,
            "last_active": super::world::epoch(),
        })])
    }

    /// `builders`.
    pub fn builder_rows(&self) -> Vec<Row> {
        rows(self.builders.iter().enumerate().map(|(index, builder)| {
            json!({
                "builderid": index + 1,
                "name": builder.name,
                "description": null,
                "description_format": null,
                "description_html": null,
                "masterids": [1],
                "projectid": null,
                "tags": [],
            })
        }))
    }

    /// `workers`.
    pub fn worker_rows(&self) -> Vec<Row> {
        rows(self.workers.iter().enumerate().map(|(index, worker)| {
            let configured: Vec<Value> = worker
                .builders
                .iter()
                .map(|builder| json!({"builderid": builder + 1, "masterid": 1}))
                .collect();
            json!({
                "workerid": index + 1,
                "name": worker.name,
                "connected_to": if worker.connected { json!([{"masterid": 1}]) } else { json!([]) },
                "configured_on": configured,
                "paused": worker.paused,
                "pause_reason": null,
                "graceful": false,
                "workerinfo": {"access_uri": null, "admin": null, "host": null, "version": "4.3.0"},
            })
        }))
    }

    /// `buildrequests`.
    pub fn request_rows(&self) -> Vec<Row> {
        rows(self.requests.iter().enumerate().map(|(index, request)| {
            let claimed = request.claimed_at.is_some();
            json!({
                "buildrequestid": index + 1,
                "buildsetid": request.buildset + 1,
                "builderid": request.builder + 1,
                "claimed": claimed,
                "claimed_at": request.claimed_at,
                "claimed_by_masterid": claimed.then_some(1),
                "complete": request.completed.is_some(),
                "complete_at": at(request.completed),
                "results": results_or_minus(request.completed),
                "submitted_at": request.submitted_at,
                "priority": 0,
                "waited_for": false,
                "properties": {},
            })
        }))
    }

    /// `buildsets`.
    pub fn buildset_rows(&self) -> Vec<Row> {
        let stamps = self.stamp_rows();
        rows(
            self.buildsets
                .iter()
                .zip(stamps)
                .enumerate()
                .map(|(index, (buildset, stamp))| {
                    let completed = self.completed(index);
                    json!({
                        "bsid": index + 1,
                        "complete": completed.is_some(),
                        "complete_at": at(completed),
                        "results": results_or_minus(completed),
                        "submitted_at": buildset.submitted_at,
                        "reason": "The AnyBranchScheduler scheduler triggered this build",
                        "external_idstring": null,
                        "parent_buildid": null,
                        "parent_relationship": null,
                        "rebuilt_buildid": null,
                        "sourcestamps": [stamp],
                    })
                }),
        )
    }

    /// `sourcestamps`.
    pub fn stamp_rows(&self) -> Vec<Row> {
        rows(self.buildsets.iter().enumerate().map(|(index, buildset)| {
            json!({
                "ssid": index + 1,
                "branch": buildset.branch,
                "revision": buildset.revision,
                "repository": buildset.repository,
                "project": buildset.project,
                "codebase": "",
                "created_at": buildset.submitted_at,
                "patch": null,
            })
        }))
    }

    /// `builds`.
    pub fn build_rows(&self) -> Vec<Row> {
        rows(self.builds.iter().enumerate().map(|(index, build)| {
            let buildset = &self.buildsets[self.requests[build.request].buildset];
            json!({
                "buildid": index + 1,
                "number": build.number,
                "builderid": build.builder + 1,
                "buildrequestid": build.request + 1,
                "workerid": build.worker + 1,
                "masterid": 1,
                "started_at": build.started_at,
                "complete_at": at(build.completed),
                "complete": build.completed.is_some(),
                "results": results(build.completed),
                "state_string": build.state,
                "locks_duration_s": 0,
                "properties": {
                    "branch": [buildset.branch, "Build"],
                    "buildername": [self.builders[build.builder].name, "Builder"],
                    "buildnumber": [build.number, "Build"],
                    "project": [buildset.project, "Build"],
                    "repository": [buildset.repository, "Build"],
                    "revision": [buildset.revision, "Build"],
                    "workername": [self.workers[build.worker].name, "Worker"],
                },
            })
        }))
    }

    /// `builds/N/steps`: the steps that have begun.
    pub fn step_rows(&self, build: usize) -> Vec<Row> {
        let Some(Build { steps, worker, .. }) = self.builds.get(build) else {
            return vec![];
        };
        let begun = steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.started_at.is_some());
        rows(begun.map(|(number, step)| {
            let state = match (step.lines, step.completed) {
                (None, Some(_)) => format!("worker {} ready", self.workers[*worker].name),
                (None, None) => "pending".to_owned(),
                (Some(_), Some(_)) => format!("'{}'", step.name),
                (Some(_), None) => "running".to_owned(),
            };
            json!({
                "stepid": step_id(build, number),
                "number": number,
                "name": step.name,
                "buildid": build + 1,
                "started_at": step.started_at,
                "locks_acquired_at": step.started_at,
                "complete_at": at(step.completed),
                "complete": step.completed.is_some(),
                "results": results(step.completed),
                "state_string": state,
                "hidden": false,
                "urls": [],
            })
        }))
    }

    /// `builds/N/steps/M/logs`.
    pub fn log_rows(&self, build: usize, number: usize) -> Vec<Row> {
        let Some(found) = self.builds.get(build) else {
            return vec![];
        };
        let logged = found.steps.get(number).filter(|step| step.lines.is_some());
        rows(logged.map(|step| {
            json!({
                "logid": step_id(build, number),
                "name": "stdio",
                "slug": "stdio",
                "stepid": step_id(build, number),
                "complete": step.completed.is_some(),
                "num_lines": step.lines_at(found.worked),
                "type": "s",
            })
        }))
    }
}

fn step_id(build: usize, number: usize) -> usize {
    build * STEPS_PER_BUILD + number + 1
}

fn at(completed: Option<Completed>) -> Option<i64> {
    completed.map(|completed| completed.at)
}

/// Of builds and steps.
fn results(completed: Option<Completed>) -> Option<u8> {
    completed.map(|completed| completed.results)
}

/// Of requests and buildsets.
fn results_or_minus(completed: Option<Completed>) -> i64 {
    completed.map_or(-1, |completed| completed.results.into())
}

fn rows(values: impl IntoIterator<Item = Value>) -> Vec<Row> {
    values
        .into_iter()
        .filter_map(|value| match value {
            Value::Object(row) => Some(row),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => None,
        })
        .collect()
}
