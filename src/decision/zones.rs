//! Workers and deaths, to the state of each zone: may a rerun in it help?

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::judge::BuildJudgement;
use super::ledger::Ledger;
use super::policy::Policy;
use crate::model::{BuildId, BuilderName, Moment, ProviderName, Verdict, WorkerName};

/// A provider's pool of workers for a builder.
pub type ZoneKey = (ProviderName, BuilderName);

/// The most deaths remembered in a zone; more in one window is an outage many times over.
const DEATHS_MAX: usize = 1024;

/// One zone, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Workers that could take a run.
    pub able: usize,
    /// Workers that are configured.
    pub configured: usize,
    /// Whether reruns may help.
    pub state: ZoneState,
}

/// Whether reruns in a zone may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// They may.
    Good,
    /// An outage ended a moment ago.
    Cooldown {
        /// When it is over.
        until: Moment,
    },
    /// They cannot, or would make it worse.
    Outage {
        /// Since when.
        since: Moment,
        /// Why.
        cause: OutageCause,
    },
}

/// What makes an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageCause {
    /// No worker could take a run.
    NoneAble,
    /// More than two, and at least the policy's share, of its workers are gone.
    MostGone,
    /// Too many builds died in a short time: one cause, which a rerun does not cure.
    Deaths(usize),
}

/// Every zone and what it went through.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    zones: BTreeMap<ZoneKey, Past>,
}

#[derive(Clone, Debug, Default)]
struct Past {
    deaths: VecDeque<(Moment, BuildId)>,
    /// Builds whose death was counted; one counts once in each generation.
    counted: BTreeSet<BuildId>,
    outage_since: Option<Moment>,
    ended: Option<Moment>,
    now: Option<Zone>,
}

impl Zones {
    /// Folds in a tick, and gives back the zones whose outage ended with it, each with the time that it
    /// took: no build of the zone can answer for that time.
    pub fn observe(
        &mut self,
        ledger: &Ledger,
        builds: &[BuildJudgement],
        confirmed: &dyn Fn(&BuildJudgement, &BuilderName) -> bool,
        policy: &Policy,
        now: Moment,
    ) -> Vec<(ZoneKey, Duration)> {
        let stalled = stalled_workers(ledger, builds);
        self.count_deaths(builds, confirmed, now);
        let mut over = Vec::new();
        let mut known = BTreeSet::new();
        for (provider, source) in ledger.providers() {
            // Of a provider that is silent nothing new is known; the provider's own gate holds.
            let Some((_, snapshot)) = source.snapshot.as_ref() else {
                continue;
            };
            for (builder, pool) in &snapshot.pools {
                let key = (provider.clone(), builder.clone());
                let able = pool
                    .workers
                    .iter()
                    .filter(|(name, worker)| {
                        worker.able() && !stalled.contains(&(provider.clone(), (*name).clone()))
                    })
                    .count();
                let past = self.zones.entry(key.clone()).or_default();
                let trouble = past.judge(able, pool.workers.len(), policy, now);
                over.extend(trouble.map(|took| (key.clone(), took)));
                known.insert(key);
            }
        }
        let pending: BTreeSet<&BuildId> = builds.iter().map(|build| &build.id).collect();
        for past in self.zones.values_mut() {
            past.counted.retain(|build| pending.contains(build));
        }
        self.zones.retain(|key, _| known.contains(key));
        over
    }

    /// A zone, once a look at its provider was good.
    pub fn get(&self, key: &ZoneKey) -> Option<&Zone> {
        self.zones.get(key)?.now.as_ref()
    }

    /// Every zone.
    pub fn iter(&self) -> impl Iterator<Item = (&ZoneKey, &Zone)> {
        self.zones
            .iter()
            .filter_map(|(key, past)| Some((key, past.now.as_ref()?)))
    }

    fn count_deaths(
        &mut self,
        builds: &[BuildJudgement],
        confirmed: &dyn Fn(&BuildJudgement, &BuilderName) -> bool,
        now: Moment,
    ) {
        for build in builds {
            for expectation in &build.expectations {
                let Some(provider) = &expectation.provider else {
                    continue;
                };
                if !expectation.verdict.dead() || !confirmed(build, &expectation.builder) {
                    continue;
                }
                let key = (provider.clone(), expectation.builder.clone());
                let past = self.zones.entry(key).or_default();
                if past.counted.insert(build.id.clone()) {
                    past.deaths.push_back((now, build.id.clone()));
                    if past.deaths.len() > DEATHS_MAX {
                        past.deaths.pop_front();
                    }
                }
            }
        }
    }
}

impl Past {
    /// Judges the zone; where an outage ended, the time that it took.
    fn judge(
        &mut self,
        able: usize,
        configured: usize,
        policy: &Policy,
        now: Moment,
    ) -> Option<Duration> {
        let limits = &policy.zones;
        self.deaths
            .retain(|(at, _)| now.since(*at) < limits.outage_window);
        let gone = configured.saturating_sub(able);
        let deaths = self.deaths.len();
        let cause = if able == 0 {
            Some(OutageCause::NoneAble)
        } else if gone > 2 && share(gone, configured) >= limits.outage_share {
            Some(OutageCause::MostGone)
        } else if deaths >= usize::try_from(limits.outage_deaths).unwrap_or(usize::MAX) {
            Some(OutageCause::Deaths(deaths))
        } else {
            None
        };
        let mut took = None;
        let state = match cause {
            Some(cause) => {
                let since = *self.outage_since.get_or_insert(now);
                ZoneState::Outage { since, cause }
            }
            None => {
                if let Some(since) = self.outage_since.take() {
                    self.ended = Some(now);
                    took = Some(now.since(since));
                }
                let until = self.ended.map(|at| at + limits.storm_cooldown);
                match until.filter(|until| now < *until) {
                    Some(until) => ZoneState::Cooldown { until },
                    None => ZoneState::Good,
                }
            }
        };
        self.now = Some(Zone {
            able,
            configured,
            state,
        });
        took
    }
}

/// Workers that hold a run which makes no progress: connected, and not able. One that went on with
/// another run since is able: what stands still then is the run alone.
fn stalled_workers(
    ledger: &Ledger,
    builds: &[BuildJudgement],
) -> BTreeSet<(ProviderName, WorkerName)> {
    builds
        .iter()
        .flat_map(|build| &build.expectations)
        .filter(|e| e.verdict == Verdict::Stalled)
        .filter_map(|e| {
            let provider = e.provider.as_ref()?;
            let worker = e.run.as_ref()?.worker.as_ref()?;
            let sign = ledger.worker_sign(provider, worker);
            let since = sign.is_some_and(|sign| e.heartbeat.is_some_and(|last| sign > last));
            (!since).then(|| (provider.clone(), worker.clone()))
        })
        .collect()
}

/// The share of `part` in `whole`; both are small counts of workers.
fn share(part: usize, whole: usize) -> f64 {
    let small = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 {
        0.0
    } else {
        small(part) / small(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn state(past: &Past) -> &ZoneState {
        &past.now.as_ref().unwrap().state
    }

    #[test]
    fn a_zone_without_an_able_worker_is_in_outage_and_then_cools_down() {
        let policy = Policy::default();
        let mut past = Past::default();
        assert_eq!(past.judge(2, 2, &policy, at(0)), None);
        assert_eq!(state(&past), &ZoneState::Good);
        assert_eq!(past.judge(0, 2, &policy, at(10)), None);
        assert_eq!(past.judge(0, 2, &policy, at(20)), None);
        assert_eq!(
            state(&past),
            &ZoneState::Outage {
                since: at(10),
                cause: OutageCause::NoneAble
            }
        );
        let outage = past.judge(1, 2, &policy, at(30));
        assert_eq!(outage, Some(Duration::from_secs(20)));
        assert_eq!(state(&past), &ZoneState::Cooldown { until: at(630) });
        assert_eq!(past.judge(1, 2, &policy, at(629)), None);
        assert_eq!(state(&past), &ZoneState::Cooldown { until: at(630) });
        assert_eq!(past.judge(1, 2, &policy, at(630)), None);
        assert_eq!(state(&past), &ZoneState::Good);
    }

    #[test]
    fn most_workers_gone_is_an_outage_two_gone_is_not() {
        let policy = Policy::default();
        let outage = |able, configured| {
            let mut past = Past::default();
            past.judge(able, configured, &policy, at(0));
            matches!(state(&past), ZoneState::Outage { .. })
        };
        assert!(!outage(1, 3), "two of three gone: too few to tell");
        assert!(outage(1, 4));
        assert!(!outage(5, 10));
        assert!(outage(4, 10));
    }

    #[test]
    fn deaths_leave_the_window() {
        let policy = Policy::default();
        let mut past = Past::default();
        for second in 0..5 {
            let id = BuildId {
                key: crate::model::BuildKey {
                    bot: "homu".into(),
                    repo: "servo".into(),
                    pull: second,
                    kind: crate::model::BuildKind::Auto,
                },
                generation: 1,
            };
            past.deaths.push_back((at(second), id));
        }
        past.judge(2, 2, &policy, at(5));
        assert!(matches!(
            state(&past),
            ZoneState::Outage {
                cause: OutageCause::Deaths(5),
                ..
            }
        ));
        past.judge(2, 2, &policy, at(600));
        assert!(matches!(state(&past), ZoneState::Cooldown { .. }));
    }
}
