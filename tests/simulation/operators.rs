//! What operators ask the watchdog for: repairs by hand, pauses, exclusions, and the restart of a bot.

use std::time::Duration;

use ci_watchdog::decision::hand::{Repair, Wish};
use ci_watchdog::decision::restart::Restart;
use ci_watchdog::model::{
    BuildId, BuildKey, Effect, Intent, Order, Outcome, Record, RemedyRow, Scope, StepKind, Stop,
    StopKind,
};

use super::bot::Status;
use super::referee::Referee;
use super::tally::Fault;
use super::watchdog::{Died, Watchdog};
use super::world::{Event, MINUTE, World};

/// Who asks for what is right.
const CAREFUL: &str = "careful";
/// Who means it also where something may be alive.
const DETERMINED: &str = "determined";

/// How a bot is known to be back from a restart.
pub const RESTART_ROW: RemedyRow = RemedyRow {
    kind: StepKind::Restart,
    effect: Effect::BotAnswers,
    deadline_min: Restart::EFFECT_MIN,
};

/// Something that an operator asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// To build a pull request again, or to put it back.
    Again {
        /// Its repository.
        repo: usize,
        /// Its number.
        pull: u64,
        /// Whether nothing of it is to be kept.
        reset: bool,
        /// Whether that is meant also where something may be alive.
        meant: bool,
    },
    /// To free a bot's start slot.
    Release(usize),
    /// To leave something alone, for so long, ms.
    Stop(StopKind, Scope, Option<u64>),
    /// To end all stops.
    Resume,
}

/// How each bot of the simulator is restarted.
pub fn restart() -> Restart {
    Restart {
        command: vec!["restart".to_owned()],
        after: Duration::from_secs(15 * 60),
        times: 1,
        per: Duration::from_secs(6 * 60 * 60),
    }
}

/// Whether who asked for it said that it is meant also where something may be alive.
pub fn is_meant(intent: &Intent) -> bool {
    intent.by.as_deref() == Some(DETERMINED)
}

impl World {
    /// An operator comes, and asks for what the fault's name says.
    pub fn operator_asks(&mut self, fault: Fault, bot: usize) {
        let pending: Vec<(usize, u64)> = (0..self.repos.len())
            .flat_map(|repo| {
                let states = self.repos[repo].states.iter();
                let pending = states.filter(|(_, state)| state.status == Status::Pending);
                pending.map(move |(pull, _)| (repo, *pull))
            })
            .collect();
        let some = self.random.pick(&pending).copied();
        let again = |reset, meant| {
            let (repo, pull) = some?;
            Some(Ask::Again {
                repo,
                pull,
                reset,
                meant,
            })
        };
        let ask = if fault == Fault::HandRetry {
            again(false, false)
        } else if fault == Fault::HandRetryMeant {
            again(false, true)
        } else if fault == Fault::HandReset {
            again(true, false)
        } else if fault == Fault::HandRelease {
            Some(Ask::Release(bot))
        } else {
            let scope = self.some_scope();
            if fault == Fault::Paused {
                let lasts = self.random.range(5 * MINUTE, 60 * MINUTE);
                Some(Ask::Stop(StopKind::Pause, scope, Some(lasts)))
            } else {
                let pause = self.random.range(10 * MINUTE, 90 * MINUTE);
                self.after(pause, Event::Ask(Ask::Resume));
                Some(Ask::Stop(StopKind::Exclusion, scope, None))
            }
        };
        if let Some(ask) = ask {
            self.fault(fault);
            self.asks.push_back(ask);
        }
    }

    fn some_scope(&mut self) -> Scope {
        let repo = self.random.index(self.repos.len());
        let ci = self.repos[repo].ci;
        let pulls: Vec<u64> = self.repos[repo].states.keys().copied().collect();
        let mut scope = Scope::default();
        if self.random.chance(600) {
            scope.repo = Some(self.repos[repo].label.clone());
            if self.random.chance(400) {
                scope.pull = self.random.pick(&pulls).copied();
            }
        }
        if scope.pull.is_none() && self.random.chance(300) {
            let builder = self.random.index(self.cis[ci].builders.len());
            scope.builder = Some(self.cis[ci].builder_name(builder));
        }
        scope
    }
}

impl Watchdog {
    /// Does what operators asked for since the last tick.
    pub(super) fn serve(&mut self, world: &mut World, referee: &mut Referee) -> Result<(), Died> {
        while let Some(ask) = world.asks.pop_front() {
            match ask {
                Ask::Again {
                    repo,
                    pull,
                    reset,
                    meant,
                } => {
                    let label = &world.repos[repo].label;
                    let ours = |key: &BuildKey| &key.repo == label && key.pull == pull;
                    let builds = self.core.ledger().builds();
                    let id = builds.map(|one| &one.id).find(|id| ours(&id.key)).cloned();
                    if let Some(id) = id {
                        self.fulfil(world, referee, &wish(id, reset, meant))?;
                    }
                }
                Ask::Release(bot) => {
                    let wish = Wish {
                        repair: Repair::ReleaseSlot(world.bots[bot].name.clone()),
                        even_if_alive: false,
                        by: CAREFUL.to_owned(),
                    };
                    self.fulfil(world, referee, &wish)?;
                }
                Ask::Stop(kind, scope, lasts) => {
                    let at = self.watched.now();
                    let order = Order::Stop(Stop {
                        kind,
                        scope,
                        reason: "a reason".to_owned(),
                        by: CAREFUL.to_owned(),
                        at,
                        until: lasts.map(|lasts| at + Duration::from_millis(lasts)),
                    });
                    self.order(world, order);
                }
                Ask::Resume => {
                    for kind in [StopKind::Pause, StopKind::Exclusion] {
                        let order = Order::Go {
                            kind,
                            scope: None,
                            at: self.watched.now(),
                            by: CAREFUL.to_owned(),
                        };
                        if !self.order(world, order) {
                            // Whoever is told so asks again.
                            world.after(MINUTE, Event::Ask(Ask::Resume));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether any stop is in force.
    pub fn is_stopped(&self) -> bool {
        let now = self.watched.now();
        self.core.history().stops(now).next().is_some()
    }

    fn order(&mut self, world: &mut World, order: Order) -> bool {
        if self.journal.order(&order).is_err() {
            self.journal_failed();
            return false;
        }
        world.tell(format_args!("order {order:?}"));
        self.core.record(&Record::Order(order));
        true
    }

    fn fulfil(
        &mut self,
        world: &mut World,
        referee: &mut Referee,
        wish: &Wish,
    ) -> Result<(), Died> {
        let mut first = None;
        let mut sent = 0;
        loop {
            let Some(now) = self.look_again(world, referee, wish.repair.bot())? else {
                return Ok(());
            };
            let attempt = match self.core.by_hand(now, wish) {
                Ok((attempt, _)) => attempt,
                Err(refusal) => {
                    world.tell(format_args!("refused by hand: {}", refusal.reason()));
                    return Ok(());
                }
            };
            let plan = first.get_or_insert_with(|| attempt.clone());
            let Some(step) = plan.steps.get(sent).cloned() else {
                return Ok(());
            };
            if attempt.id != plan.id || !attempt.steps.contains(&step) {
                world.tell(format_args!("not needed any more by hand: {}", step.kind()));
                return Ok(());
            }
            sent += 1;
            match self.send(world, referee, &attempt, &step, now)? {
                Some(Outcome::Accepted(_)) => {}
                Some(Outcome::Refused(_) | Outcome::NotSent(_) | Outcome::Unanswered(_)) | None => {
                    return Ok(());
                }
            }
        }
    }
}

fn wish(id: BuildId, reset: bool, meant: bool) -> Wish {
    let repair = if reset {
        Repair::Reset(id)
    } else {
        Repair::Retry(id)
    };
    let by = if meant { DETERMINED } else { CAREFUL };
    Wish {
        repair,
        even_if_alive: meant,
        by: by.to_owned(),
    }
}
