//! From a seed to a world: who is in it, what they want, and how the weather is.

use std::collections::BTreeMap;

use ci_watchdog::model::CiSystem;

use super::bot::{Bot, Fork, Repo, State};
use super::ci::Ci;
use super::github::{Branches, Pull};
use super::random::Random;
use super::strikes::PATIENCE;
use super::tally::{Fault, FaultSet};
use super::world::{Event, HOUR, MINUTE, World};

/// How often a fault strikes where it strikes at all: times in a thousand of its occasions.
const RATES: [(Fault, u64); 37] = [
    (Fault::LostPush, 250),
    (Fault::SlowPush, 200),
    (Fault::LostStarted, 250),
    (Fault::LostFinished, 250),
    (Fault::LostClosed, 500),
    (Fault::LostSynchronize, 500),
    (Fault::LostRebuild, 200),
    (Fault::SlowRebuild, 300),
    (Fault::RebuildRefused, 200),
    (Fault::WorkerLossUnnoticed, 300),
    (Fault::NoSuccessor, 300),
    (Fault::FlakyRed, 60),
    (Fault::LongSilence, 150),
    (Fault::MessageWhileDown, 1000),
    (Fault::WriteLost, 40),
    (Fault::TornBot, 20),
    (Fault::RequestRefused, 150),
    (Fault::RefusedAndDone, 150),
    (Fault::RequestNotSent, 150),
    (Fault::RequestLost, 150),
    (Fault::AnswerLost, 200),
    (Fault::EffectSlow, 200),
    (Fault::CrashInLook, 1),
    (Fault::CrashBeforeIntent, 60),
    (Fault::CrashAfterIntent, 60),
    (Fault::CrashAfterRequest, 80),
    (Fault::CrashAfterOutcome, 60),
    (Fault::CrashAfterClosing, 30),
    (Fault::LateTick, 4),
    (Fault::Stopped, 1),
    (Fault::Reload, 8),
    (Fault::RetryJustBefore, 150),
    (Fault::RetryAtOnce, 150),
    (Fault::RetryJustAfter, 150),
    (Fault::SuspendBeforeRequest, 40),
    (Fault::SlowLook, 8),
    (Fault::JournalFails, 1),
];

/// How many times a fault may strike by itself while the weather is bad.
const STRIKES: [(Fault, u64); 33] = [
    (Fault::WorkerKilled, 8),
    (Fault::WorkerFrozen, 6),
    (Fault::IdleWorkerFrozen, 3),
    (Fault::WorkerPaused, 3),
    (Fault::PoolDown, 1),
    (Fault::HalfPoolDown, 1),
    (Fault::DeathSeries, 1),
    (Fault::RunException, 3),
    (Fault::RunCancelled, 2),
    (Fault::QueuedCancelled, 3),
    (Fault::MasterStopped, 1),
    (Fault::MasterKilled, 1),
    (Fault::MasterFrozen, 1),
    (Fault::ProviderUnreachable, 2),
    (Fault::ProviderErrors, 6),
    (Fault::HistoryPartial, 3),
    (Fault::HistoryUnasked, 3),
    (Fault::Blink, 12),
    (Fault::BotRestart, 3),
    (Fault::BotDownLong, 1),
    (Fault::BotUnreachable, 2),
    (Fault::BotErrors, 6),
    (Fault::DatabaseLocked, 6),
    (Fault::GithubDown, 2),
    (Fault::QuotaLow, 1),
    (Fault::TreeClosed, 1),
    (Fault::PersonRetry, 4),
    (Fault::PersonCloses, 2),
    (Fault::PersonPushes, 3),
    (Fault::PersonTries, 3),
    (Fault::UrgentPull, 2),
    (Fault::WallClockSteps, 3),
    (Fault::Crowd, 1),
];

/// The same for what operators do, and for a bot that they have restarted. They come up in a part of
/// the seeds only, and are drawn from a source of their own: the others stay as they are.
const OPERATORS: [(Fault, u64); 7] = [
    (Fault::BotWedged, 3),
    (Fault::HandRetry, 12),
    (Fault::HandRetryMeant, 3),
    (Fault::HandReset, 6),
    (Fault::HandRelease, 6),
    (Fault::Paused, 4),
    (Fault::Excluded, 4),
];

/// What a seed is mostly about: faults that strike more often than usual, by times in a thousand or
/// by times in all.
const THEMES: [&[(Fault, u64)]; 9] = [
    &[],
    // Rebuilds in part, on the same commit.
    &[
        (Fault::FlakyRed, 500),
        (Fault::LostRebuild, 400),
        (Fault::SlowRebuild, 600),
        (Fault::PersonRetry, 25),
        (Fault::RunException, 8),
        (Fault::CrashInLook, 4),
    ],
    // Requests of ours.
    &[
        (Fault::LostPush, 500),
        (Fault::LostStarted, 500),
        (Fault::RequestLost, 300),
        (Fault::AnswerLost, 300),
        (Fault::EffectSlow, 500),
        (Fault::CrashAfterIntent, 150),
        (Fault::CrashAfterRequest, 150),
    ],
    // Try builds, whose commits the bot does not store.
    &[
        (Fault::PersonTries, 20),
        (Fault::SlowPush, 500),
        (Fault::GithubDown, 6),
        (Fault::CrashInLook, 4),
        (Fault::BotRestart, 5),
    ],
    // Workers.
    &[
        (Fault::WorkerKilled, 25),
        (Fault::WorkerFrozen, 20),
        (Fault::WorkerLossUnnoticed, 500),
        (Fault::NoSuccessor, 500),
        (Fault::LongSilence, 400),
        (Fault::Blink, 60),
        (Fault::PoolDown, 3),
    ],
    // Providers that tell half.
    &[
        (Fault::HistoryPartial, 12),
        (Fault::HistoryUnasked, 12),
        (Fault::ProviderUnreachable, 8),
        (Fault::LostFinished, 500),
        (Fault::QueuedCancelled, 8),
        (Fault::Blink, 60),
        (Fault::LostPush, 300),
    ],
    // Pull requests that change under way.
    &[
        (Fault::PersonCloses, 8),
        (Fault::PersonPushes, 12),
        (Fault::LostClosed, 900),
        (Fault::LostSynchronize, 900),
        (Fault::LostFinished, 500),
        (Fault::GithubDown, 6),
        (Fault::EffectSlow, 300),
    ],
    // One cause that kills many builds.
    &[
        (Fault::DeathSeries, 5),
        (Fault::HalfPoolDown, 3),
        (Fault::PersonTries, 30),
        (Fault::MasterStopped, 3),
    ],
    // People and restarts.
    &[
        (Fault::LostPush, 400),
        (Fault::RetryJustBefore, 500),
        (Fault::RetryAtOnce, 500),
        (Fault::RetryJustAfter, 500),
        (Fault::BotRestart, 8),
        (Fault::BotDownLong, 2),
        (Fault::WriteLost, 150),
        (Fault::UrgentPull, 6),
    ],
];

/// What their source of chance differs by.
const OPERATORS_SALT: u64 = 0x6f70_6572_6174_6f72;

/// A world made from a seed, and when its faults end, ms.
pub fn make(seed: u64, verbose: bool, set: &FaultSet) -> (World, u64) {
    let mut world = World::new(seed, verbose);
    world.weather.set = set.clone();
    let faults_end = world.random.range(60, 200) * MINUTE;
    add_homu(&mut world);
    if world.random.chance(350) {
        add_servo(&mut world);
    }
    let everything = world.random.chance(100);
    let theme = THEMES[world.random.index(THEMES.len())];
    let forced = |fault: Fault| everything || set.with.contains(&fault);
    let in_theme = |fault: Fault| theme.iter().find(|(one, _)| *one == fault).map(|(_, n)| *n);
    for (fault, usual) in RATES {
        let rate = in_theme(fault).unwrap_or(usual);
        if in_theme(fault).is_some() || world.random.chance(350) || forced(fault) {
            let rate = world.random.range(rate.div_ceil(3), rate);
            world.weather.rates.insert(fault, rate);
        }
    }
    for (fault, usual) in STRIKES {
        let most = in_theme(fault).unwrap_or(usual);
        if in_theme(fault).is_some() || world.random.chance(350) || forced(fault) {
            for _ in 0..world.random.range(most.div_ceil(3), most) {
                let at = world.random.below(faults_end);
                if !set.without.contains(&fault) {
                    world.after(at, Event::Strike(fault));
                }
            }
        }
    }
    add_operators(&mut world, seed, faults_end, everything);
    (world, faults_end)
}

fn add_operators(world: &mut World, seed: u64, faults_end: u64, everything: bool) {
    let set = world.weather.set.clone();
    let mut random = Random::new(seed ^ OPERATORS_SALT);
    let some = random.chance(300) || everything;
    for (fault, most) in OPERATORS {
        let forced = set.with.contains(&fault);
        let (comes, times) = (random.chance(500), random.range(1, most));
        if !(some && comes || forced) || set.without.contains(&fault) {
            continue;
        }
        for _ in 0..times {
            world.after(random.below(faults_end), Event::Strike(fault));
        }
    }
    if random.chance(500) || set.with.contains(&Fault::RestartFails) {
        world.weather.rates.insert(Fault::RestartFails, 400);
    }
}

fn add_homu(world: &mut World) {
    let builders = ["linux", "mac", "win"];
    let count = usize::try_from(world.random.range(2, 6)).unwrap_or(2);
    let mut workers: Vec<Vec<usize>> = (0..count)
        .map(|_| {
            (0..builders.len())
                .filter(|_| world.random.chance(500))
                .collect()
        })
        .collect();
    for builder in 0..builders.len() {
        // Every builder has a worker at least.
        let place = world.random.index(workers.len());
        if !workers.iter().any(|serves| serves.contains(&builder)) {
            workers[place].push(builder);
        }
    }
    let bot = world.bots.len();
    let ci = world.cis.len();
    world.cis.push(Ci::new(
        "buildbot",
        CiSystem::Buildbot,
        bot,
        &builders,
        workers,
    ));
    world.bots.push(Bot {
        name: "homu".into(),
        fork: Fork::Pypi,
        replays: true,
        up: true,
        wedged: false,
        slot: None,
        repos: Vec::new(),
    });
    for label in ["servo", "mozjs", "saltfs"]
        .into_iter()
        .take(usize::try_from(world.random.range(2, 3)).unwrap_or(2))
    {
        add_repo(world, bot, ci, label);
    }
}

fn add_servo(world: &mut World) {
    let bot = world.bots.len();
    let ci = world.cis.len();
    let workers = vec![vec![0]; usize::try_from(world.random.range(2, 5)).unwrap_or(2)];
    world.cis.push(Ci::new(
        "travis",
        CiSystem::Travis,
        bot,
        &["travis"],
        workers,
    ));
    world.bots.push(Bot {
        name: "bors".into(),
        fork: Fork::Servo,
        replays: world.random.chance(700),
        up: true,
        wedged: false,
        slot: None,
        repos: Vec::new(),
    });
    for label in ["cargo", "libc"] {
        add_repo(world, bot, ci, label);
    }
}

fn add_repo(world: &mut World, bot: usize, ci: usize, label: &str) {
    let all = world.cis[ci].builders.len();
    let mut builders: Vec<usize> = (0..all).filter(|_| world.random.chance(650)).collect();
    if builders.is_empty() {
        builders.push(world.random.index(all));
    }
    let try_builders = vec![builders[world.random.index(builders.len())]];
    let place = world.repos.len();
    let master = world.github.commit();
    world.github.branches.insert(
        place,
        Branches {
            master,
            auto: None,
            try_: None,
        },
    );
    world.bots[bot].repos.push(place);
    world.repos.push(Repo {
        bot,
        label: label.into(),
        ci,
        builders,
        try_builders,
        tree_closed: None,
        states: BTreeMap::new(),
        rows: BTreeMap::new(),
        results: BTreeMap::new(),
    });
    for _ in 0..world.random.range(2, 4) {
        add_pull(world, place);
    }
}

fn add_pull(world: &mut World, repo: usize) {
    let number = u64::try_from(world.github.pulls.len()).unwrap_or(0) + 1;
    let head = world.github.commit();
    let builders = world.repos[repo].builders.len();
    let red_on = world
        .random
        .chance(150)
        .then(|| world.random.index(builders));
    world.github.pulls.insert(
        number,
        Pull {
            repo,
            open: true,
            merged: false,
            head,
            approved: None,
            red_on,
        },
    );
    let mut state = State::new(head);
    state.priority = if world.random.chance(200) { 1 } else { 0 };
    world.repos[repo].states.insert(number, state);
    if world.random.chance(850) {
        let at = world.random.range(0, 2 * HOUR);
        world.after(
            at,
            Event::Approve {
                repo,
                pull: number,
                patience: PATIENCE,
            },
        );
    }
}
