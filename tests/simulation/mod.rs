//! A simulator of the pure core: a seeded world with a bot, CI systems and GitHub, faults of every
//! kind, crashes at every boundary, and a referee that knows the truth.

pub mod books;
pub mod bot;
pub mod ci;
pub mod ending;
pub mod eyes;
pub mod github;
pub mod homu;
pub mod journal;
pub mod life;
pub mod liveness;
pub mod operators;
pub mod random;
pub mod referee;
pub mod requests;
pub mod rules;
pub mod runs;
pub mod scenario;
pub mod strikes;
pub mod tally;
pub mod watchdog;
pub mod world;

use liveness::Liveness;
use referee::Referee;
use tally::{FaultSet, Tally};
use watchdog::Watchdog;
use world::{HOUR, MINUTE};

/// How long after the last fault everything must be in order or held: the longest cooldown, the
/// budgets' windows, and queues of long runs one after the other.
const PATIENCE: u64 = 16 * HOUR;
/// How long everything must stay in order before a run is over.
const STAYS: u64 = 10 * MINUTE;

/// What one seed came to.
pub struct Run {
    /// Its counts, and the hash of its trace.
    pub tally: Tally,
    /// The rules that it broke.
    pub broken: Vec<String>,
}

/// Runs one seed to its end, or to the first rule that it breaks.
pub fn run(seed: u64, verbose: bool, set: &FaultSet) -> Run {
    let (mut world, faults_end) = scenario::make(seed, verbose, set);
    let mut watchdog = Watchdog::new(&world);
    let mut referee = Referee::default();
    let mut liveness = Liveness::default();
    let mut in_order_since = None;
    while world.broken.is_empty() {
        let decision = watchdog.go_on(&mut world, &mut referee);
        if !world.weather.calm {
            if world.now >= faults_end {
                world.calm();
            }
            continue;
        }
        let Some(decision) = decision else {
            in_order_since = None;
            continue;
        };
        liveness.check(&mut world, &decision, watchdog.is_stopped());
        let unfinished = ending::unfinished(&world, &decision);
        if unfinished.is_empty() {
            let since = *in_order_since.get_or_insert(world.now);
            if world.now - since >= STAYS {
                for (_, why) in ending::held(&decision) {
                    *world.tally.held.entry(why).or_default() += 1;
                }
                break;
            }
        } else {
            in_order_since = None;
            if world.now > faults_end.max(PATIENCE / 16) + PATIENCE {
                for what in unfinished {
                    world.break_rule(format!("not in order after all this time: {what}"));
                }
            }
        }
    }
    world.tally.time = world.now;
    Run {
        tally: world.tally,
        broken: world.broken,
    }
}
