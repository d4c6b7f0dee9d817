//! What the core must know of the adapters: who serves what, and who understands what.

use std::collections::{BTreeMap, BTreeSet};

use crate::bots::Bot;
use crate::decision::Setup;
use crate::decision::ledger::Routes;
use crate::decision::restart::Restart;
use crate::model::{BotName, CiSystem, Effect, RemedyRow, StepKind};
use crate::providers::Provider;

const SYSTEMS: [CiSystem; 4] = [
    CiSystem::Buildbot,
    CiSystem::Travis,
    CiSystem::Status,
    CiSystem::Check,
];

/// A restart is no adapter's: whatever the bot, it is there when it answers again.
const RESTART: RemedyRow = RemedyRow {
    kind: StepKind::Restart,
    effect: Effect::BotAnswers,
    deadline_min: Restart::EFFECT_MIN,
};

/// Routes what bots wait for to the providers of its kind.
pub fn setup(
    bots: &[Box<dyn Bot>],
    providers: &[Box<dyn Provider>],
    restarts: &BTreeMap<BotName, Restart>,
) -> Setup {
    let mut setup = Setup {
        routes: Routes::default(),
        restarts: restarts.clone(),
        ..Setup::default()
    };
    for system in SYSTEMS {
        let serving = providers
            .iter()
            .filter(|provider| provider.kind() == kind(system))
            .map(|provider| provider.name().clone())
            .collect::<Vec<_>>();
        if !serving.is_empty() {
            setup.routes.0.insert(system, serving);
        }
    }
    for bot in bots {
        let mut rows = bot.rows().to_vec();
        rows.extend(restarts.get(bot.name()).map(|_| RESTART));
        setup.rows.insert(bot.name().clone(), rows);
        for repo in bot.repos().into_keys() {
            if let Some(own) = bot.own_timeout(&repo) {
                setup.own_timeouts.insert((bot.name().clone(), repo), own);
            }
        }
    }
    setup
}

/// What the operator should know of the set-up: sources with one name hide each other.
pub fn warnings(bots: &[Box<dyn Bot>], providers: &[Box<dyn Provider>]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = bots
        .iter()
        .map(|bot| bot.name().to_string())
        .chain(providers.iter().map(|provider| provider.name().to_string()));
    names
        .filter(|name| !seen.insert(name.clone()))
        .map(|name| format!("two sources are called {name}: give each a name of its own"))
        .collect()
}

/// The kind of provider that serves a system.
fn kind(system: CiSystem) -> &'static str {
    match system {
        CiSystem::Buildbot => "buildbot",
        CiSystem::Travis => "travis",
        CiSystem::Status | CiSystem::Check => "github",
    }
}
