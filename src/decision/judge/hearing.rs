//! Who must be heard before an expectation is judged, and what silence means.

use std::time::Duration;

use super::Bench;
use crate::decision::ledger::{Source, SourceHealth, bot_source, provider_source};
use crate::decision::tracked::Tracked;
use crate::model::{
    BotName, BuilderName, Expectation, Fact, MergeSha, Moment, ProviderName, ProviderSnapshot, Sha,
    SourceName,
};

/// A provider's fresh word on an expectation.
pub(super) struct LookAt<'a> {
    pub(super) provider: &'a ProviderName,
    pub(super) snapshot: &'a ProviderSnapshot,
    pub(super) sha: &'a Sha,
}

/// Why an expectation is unknown.
pub(super) struct Silence {
    pub(super) provider: Option<ProviderName>,
    pub(super) fact: Fact,
    pub(super) since: Option<Moment>,
}

/// What every provider says that has the builder.
pub(super) struct Hearing<'a> {
    pub(super) looks: Vec<LookAt<'a>>,
    /// One that may have it, and does not answer.
    pub(super) silent: Option<Silence>,
}

/// Everything that must be known before anything is concluded: the bot's fresh word, the commit, and
/// a provider that has the builder.
pub(super) fn witnesses<'a>(
    bench: Bench<'a>,
    tracked: &'a Tracked,
    expectation: &Expectation,
) -> Result<Hearing<'a>, Silence> {
    let unknown = |fact, since| Silence {
        provider: None,
        fact,
        since,
    };
    if let Some((fact, since)) = bot_silence(bench, &tracked.id.key.bot) {
        return Err(unknown(fact, since));
    }
    let candidates = bench.routes.providers(expectation.system);
    if candidates.is_empty() {
        let system = expectation.system.as_str();
        return Err(unknown(Fact::NoProvider { system }, None));
    }
    let Some(sha) = &tracked.merge_sha else {
        let fact = match tracked.pending.merge_sha {
            MergeSha::Missing => Fact::MergeShaMissing,
            MergeSha::NotStored | MergeSha::Known(_) => Fact::MergeShaUnknown,
        };
        return Err(Silence {
            provider: candidates.first().cloned(),
            fact,
            since: None,
        });
    };
    let mut looks = Vec::new();
    let mut silent = None;
    for provider in candidates {
        let source = bench.ledger.provider(provider);
        let fresh = source.and_then(|s| s.fresh(bench.now, bench.policy.snapshot_life()));
        match fresh {
            Some(snapshot) if snapshot.pools.contains_key(&expectation.builder) => {
                looks.push(LookAt {
                    provider,
                    snapshot,
                    sha,
                });
            }
            Some(_) => {}
            None if lacked(source, &expectation.builder) => {}
            None => {
                let (fact, since) = silence(
                    bench.now,
                    provider_source(provider),
                    source.map(|s| &s.health),
                );
                silent.get_or_insert(Silence {
                    provider: Some(provider.clone()),
                    fact,
                    since,
                });
            }
        }
    }
    if !looks.is_empty() {
        return Ok(Hearing { looks, silent });
    }
    Err(silent.unwrap_or_else(|| Silence {
        provider: candidates.first().cloned(),
        fact: Fact::NoSuchBuilder {
            builder: expectation.builder.clone(),
        },
        since: None,
    }))
}

/// Whether a provider that is silent now did not have a builder when it last answered.
fn lacked(source: Option<&Source<ProviderSnapshot>>, builder: &BuilderName) -> bool {
    source
        .and_then(|source| source.snapshot.as_ref())
        .is_some_and(|(_, snapshot)| !snapshot.pools.contains_key(builder))
}

/// Why a bot's word is not fresh, and since when, where it is not.
pub(super) fn bot_silence(bench: Bench<'_>, bot: &BotName) -> Option<(Fact, Option<Moment>)> {
    let source = bench.ledger.bot(bot);
    let fresh = source.and_then(|s| s.fresh(bench.now, bench.policy.snapshot_life()));
    match fresh {
        Some(_) => None,
        None => Some(silence(
            bench.now,
            bot_source(bot),
            source.map(|s| &s.health),
        )),
    }
}

fn silence(
    now: Moment,
    source: SourceName,
    health: Option<&SourceHealth>,
) -> (Fact, Option<Moment>) {
    let since = health.and_then(|health| health.failing_since);
    match health.and_then(|health| health.error.as_ref()) {
        Some(error) => (
            Fact::SourceSilent {
                source,
                detail: error.to_string(),
                since: since.map_or(Duration::ZERO, |since| now.since(since)),
            },
            since,
        ),
        None => (Fact::SourceNotSeen { source }, since),
    }
}
