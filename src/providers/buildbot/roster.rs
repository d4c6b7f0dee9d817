//! The builders and workers of a master, and the pools that they make.

use std::collections::{BTreeMap, BTreeSet};

use super::api::{Builder, Worker};
use crate::model::{BuilderName, Pool, ProbeError, ProbeFailure, WorkerName};

/// The builders and workers of a master.
pub(super) struct Roster {
    /// Every builder that ever was.
    names: BTreeMap<u64, BuilderName>,
    /// The builders that the master's configuration has now.
    present: BTreeSet<u64>,
    workers: Vec<Worker>,
}

impl Roster {
    /// The roster of these builders and workers.
    ///
    /// # Errors
    ///
    /// No builder is in the configuration: the master is starting or stopping, and what it has to
    /// say of its workers is not what it will say in a moment. Buildbot refuses a configuration
    /// without builders (`buildbot/config/master.py`, `check_single_master`).
    pub(super) fn new(builders: &[Builder], workers: Vec<Worker>) -> Result<Self, ProbeError> {
        let present: BTreeSet<u64> = builders
            .iter()
            .filter(|builder| !builder.masterids.is_empty())
            .map(|builder| builder.builderid)
            .collect();
        if present.is_empty() {
            return Err(ProbeError::new(
                ProbeFailure::Partial,
                "no builder belongs to a running master: it is starting or stopping",
            ));
        }
        Ok(Self {
            names: builders
                .iter()
                .map(|builder| (builder.builderid, BuilderName::new(&builder.name)))
                .collect(),
            present,
            workers,
        })
    }

    /// The name of a builder.
    ///
    /// # Errors
    ///
    /// There is none of this number; they are never deleted, so the answers do not fit together.
    pub(super) fn name(&self, builderid: u64) -> Result<&BuilderName, ProbeError> {
        self.names.get(&builderid).ok_or_else(|| {
            ProbeError::new(
                ProbeFailure::Partial,
                format!("builder {builderid} is asked for work, but not listed"),
            )
        })
    }

    /// Whether the master's configuration has a builder of this name.
    pub(super) fn has(&self, builder: &BuilderName) -> bool {
        self.present
            .iter()
            .any(|id| self.names.get(id).is_some_and(|name| name == builder))
    }

    /// The workers of every builder that the configuration has.
    pub(super) fn pools(&self) -> BTreeMap<BuilderName, Pool> {
        let mut pools = BTreeMap::new();
        for id in &self.present {
            let Some(name) = self.names.get(id) else {
                continue;
            };
            let workers = self.configured_on(*id).map(|worker| {
                let seen = crate::model::Worker {
                    connected: !worker.connected_to.is_empty(),
                    paused: worker.paused,
                    graceful: worker.graceful,
                };
                (WorkerName::new(&worker.name), seen)
            });
            let pool = Pool {
                workers: workers.collect(),
            };
            pools.insert(name.clone(), pool);
        }
        pools
    }

    /// The worker of this number.
    pub(super) fn worker(&self, workerid: u64) -> Option<&Worker> {
        self.workers
            .iter()
            .find(|worker| worker.workerid == workerid)
    }

    /// The workers that are configured for a builder.
    pub(super) fn configured_on(&self, builderid: u64) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(move |worker| {
            worker
                .configured_on
                .iter()
                .any(|on| on.builderid == builderid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_without_builders_is_between_two_configurations() {
        let gone: Builder = serde_json::from_value(
            serde_json::json!({"builderid": 1, "name": "linux", "masterids": []}),
        )
        .expect("a builder");
        let failure = Roster::new(&[gone], Vec::new())
            .err()
            .map(|error| error.failure);
        assert_eq!(failure, Some(ProbeFailure::Partial));
    }
}
