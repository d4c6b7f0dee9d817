//! What people ask the loop for: repairs by hand, and orders to leave something alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::App;
use super::describe::place;
use super::shared::{Reply, answer};
use crate::decision::Look;
use crate::decision::hand::{Refusal, Wish};
use crate::decision::plan::Attempt;
use crate::model::{
    Gate, Moment, Order, Outcome, Record, Remedy, Scope, StepKind, Stop, StopKind, Verdict,
};
use crate::report::{Event, Stamp};

/// The most stops that are in force at one time; more are nobody's overview.
const STOPS_MAX: usize = 100;

/// What became of a repair by hand, or with a dry run what would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandReport {
    /// The attempt; `/api/v1/attempts` tells of it under this name.
    pub attempt: String,
    /// The bot that it is sent to.
    pub bot: String,
    /// What it is for.
    pub target: String,
    /// The remedy.
    pub remedy: Remedy,
    /// The verdict on it.
    pub verdict: Verdict,
    /// The facts about it, one clause each.
    pub evidence: Vec<String>,
    /// What whoever asks should know before: what may be alive.
    pub warning: Option<String>,
    /// What is sent, in order.
    pub plan: Vec<StepKind>,
    /// Whether this only tells what would be sent.
    pub dry_run: bool,
    /// What was sent, in order.
    pub sent: Vec<SentReport>,
    /// Why the rest of the plan was not sent, where it was not.
    pub stopped: Option<String>,
}

/// One request of a repair by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentReport {
    /// The kind of request.
    pub step: StepKind,
    /// What its sending came to. That it had an effect is not said.
    pub outcome: &'static str,
    /// That in words.
    pub detail: String,
}

/// What a person orders, before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderWish {
    /// Leave something alone.
    Stop {
        /// Which way.
        kind: StopKind,
        /// What.
        scope: Scope,
        /// Why.
        reason: String,
        /// Who says so.
        by: String,
        /// For how long; `None`: until further notice.
        lasts: Option<Duration>,
    },
    /// Go on.
    Go {
        /// Which kind of stop ends.
        kind: StopKind,
        /// The stop of exactly this scope; `None`: every one.
        scope: Option<Scope>,
        /// Who says so.
        by: String,
    },
}

/// An order that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// Which kind of stop it is about.
    pub kind: StopKind,
    /// What it is about: one scope, or all that ended.
    pub scopes: Vec<String>,
    /// When a stop ends by itself, where it does.
    pub until: Option<Stamp>,
}

impl App {
    /// Fulfils a wish and answers. Who went away meanwhile wanted nothing.
    pub(super) async fn serve_wish(
        &mut self,
        wish: &Wish,
        dry_run: bool,
        reply: Reply<Result<HandReport, Refusal>>,
    ) {
        if reply.is_closed() {
            tracing::info!(by = %wish.by, "not begun: who asked for a repair by hand went away");
            return;
        }
        let result = self.by_hand(wish, dry_run).await;
        if let Err(refusal) = &result {
            tracing::info!(by = %wish.by, wish = ?wish.repair, "refused by hand: {}", refusal.reason());
        }
        if !dry_run {
            self.publish_again();
        }
        answer(reply, result);
    }

    async fn by_hand(&mut self, wish: &Wish, dry_run: bool) -> Result<HandReport, Refusal> {
        let mut now = self.look_for(wish).await?;
        let (attempt, warning) = self.core.by_hand(now, wish)?;
        let mut report = HandReport::of(&attempt, warning, dry_run);
        if dry_run {
            return Ok(report);
        }
        let target = &attempt.id.target;
        tracing::info!(attempt = %attempt.id, by = %wish.by, even_if_alive = wish.even_if_alive, "by hand");
        self.events.push(Event::Attempted {
            bot: target.bot().to_string(),
            repo: place(target),
            remedy: attempt.id.remedy,
        });
        for (position, step) in attempt.steps.iter().enumerate() {
            if position > 0 {
                let again = match self.look_for(wish).await {
                    Ok(moment) => {
                        now = moment;
                        self.core.by_hand(now, wish)
                    }
                    Err(refusal) => Err(refusal),
                };
                report.stopped = match again {
                    Ok((again, _)) if again.id == attempt.id && again.steps.contains(step) => None,
                    Ok(_) => Some(format!(
                        "the look before {} saw that it is not needed any more",
                        step.kind()
                    )),
                    Err(refusal) => Some(refusal.reason().to_owned()),
                };
                if report.stopped.is_some() {
                    break;
                }
            }
            let Some(outcome) = self.send(&attempt, step, now).await else {
                report.stopped = Some(self.why_not_sent());
                break;
            };
            report.sent.push(SentReport {
                step: step.kind(),
                outcome: outcome.as_str(),
                detail: outcome.detail().to_owned(),
            });
            match outcome {
                Outcome::Accepted(_) => {}
                Outcome::Refused(_) | Outcome::NotSent(_) | Outcome::Unanswered(_) => {
                    if position + 1 < attempt.steps.len() {
                        report.stopped = Some(format!("{} was not accepted", step.kind()));
                    }
                    break;
                }
            }
        }
        Ok(report)
    }

    async fn look_for(&mut self, wish: &Wish) -> Result<Moment, Refusal> {
        self.look_again(wish.repair.bot())
            .await
            .ok_or_else(|| Refusal::Shut {
                gate: Gate::NotSettled,
                reason: "this process or its machine was stopped during the look; ask again"
                    .to_owned(),
            })
    }

    fn why_not_sent(&self) -> String {
        match &self.journal_error {
            Some(error) => format!("the journal cannot be written: {error}"),
            None => "this process was stopped in the middle, or an earlier request of the kind is \
                     not settled; the log says which"
                .to_owned(),
        }
    }

    /// Takes an order, durably, and answers.
    pub(super) fn serve_order(
        &mut self,
        wish: OrderWish,
        dry_run: bool,
        reply: Reply<Result<Instruction, Refusal>>,
    ) {
        if reply.is_closed() {
            return;
        }
        let result = self.order(wish, dry_run);
        if result.is_ok() {
            self.publish_again();
        }
        answer(reply, result);
    }

    fn order(&mut self, wish: OrderWish, dry_run: bool) -> Result<Instruction, Refusal> {
        let now = self.watched.now();
        let order = match wish {
            OrderWish::Stop {
                kind,
                scope,
                reason,
                by,
                lasts,
            } => {
                self.known(&scope)?;
                if self.core.history().stops(now).count() >= STOPS_MAX {
                    return Err(Refusal::Nothing(format!(
                        "{STOPS_MAX} pauses and exclusions are in force already; end some first"
                    )));
                }
                Order::Stop(Stop {
                    kind,
                    scope,
                    reason,
                    by,
                    at: now,
                    until: lasts.map(|lasts| now + lasts),
                })
            }
            OrderWish::Go { kind, scope, by } => Order::Go {
                kind,
                scope,
                at: now,
                by,
            },
        };
        let instruction = self.instruction(&order, now)?;
        if dry_run {
            return Ok(instruction);
        }
        let wall = self.clock.wall();
        if let Err(error) = self.journal.order(&order, wall) {
            let reason = format!("the journal cannot be written: {error}");
            self.journal_failed(error);
            return Err(Refusal::Shut {
                gate: Gate::Journal,
                reason,
            });
        }
        tracing::warn!(order = %serde_json::json!(order), "an operator's order");
        self.core.record(&Record::Order(order));
        Ok(instruction)
    }

    /// What an order comes to, where it changes anything.
    fn instruction(&self, order: &Order, now: Moment) -> Result<Instruction, Refusal> {
        match order {
            Order::Stop(stop) => Ok(Instruction {
                kind: stop.kind,
                scopes: vec![stop.scope.to_string()],
                until: stop.until.map(|until| self.stamp(until)),
            }),
            Order::Go { kind, scope, .. } => {
                let ended = self.core.history().stops(now).filter(|stop| {
                    stop.kind == *kind && scope.as_ref().is_none_or(|scope| scope == &stop.scope)
                });
                let scopes: Vec<String> = ended.map(|stop| stop.scope.to_string()).collect();
                if scopes.is_empty() {
                    return Err(Refusal::Gone(self.nothing_stopped(*kind, now)));
                }
                Ok(Instruction {
                    kind: *kind,
                    scopes,
                    until: None,
                })
            }
        }
    }

    fn nothing_stopped(&self, kind: StopKind, now: Moment) -> String {
        let word = kind.as_str();
        let stops = self.core.history().stops(now);
        let scopes: Vec<String> = stops
            .filter(|stop| stop.kind == kind)
            .map(|stop| stop.scope.to_string())
            .collect();
        if scopes.is_empty() {
            format!("nothing is {word} by an order")
        } else {
            format!("that is not {word}; what is: {}", scopes.join(", "))
        }
    }

    /// A misspelt name would leave everything as it was, unseen.
    fn known(&self, scope: &Scope) -> Result<(), Refusal> {
        let repos: Vec<_> = self.bots.iter().flat_map(|bot| bot.repos()).collect();
        let unknown = |what: &str, name: &str, known: BTreeSet<String>| {
            let known: Vec<String> = known.into_iter().collect();
            Err(Refusal::Gone(format!(
                "no bot serves a {what} called {name:?}; it is one of: {}",
                known.join(", ")
            )))
        };
        if let Some(repo) = &scope.repo
            && !repos.iter().any(|(label, _)| label == repo)
        {
            let known = repos.iter().map(|(label, _)| label.to_string()).collect();
            return unknown("repository", repo.as_str(), known);
        }
        if let Some(builder) = &scope.builder {
            let of_scope = repos
                .iter()
                .filter(|(label, _)| scope.repo.as_ref().is_none_or(|repo| repo == label));
            let builders: BTreeSet<String> = of_scope
                .flat_map(|(_, builders)| builders.iter().map(ToString::to_string))
                .collect();
            if !builders.contains(builder.as_str()) {
                return unknown("builder", builder.as_str(), builders);
            }
        }
        Ok(())
    }

    /// Shows what was done since the tick. Its events are counted with the next one.
    fn publish_again(&mut self) {
        let decision = self.core.decide(self.looked, Look::Again);
        let report = self.describe(&decision);
        self.shared.publish(report);
    }
}

impl HandReport {
    fn of(attempt: &Attempt, warning: Option<String>, dry_run: bool) -> Self {
        Self {
            attempt: attempt.id.to_string(),
            bot: attempt.id.target.bot().to_string(),
            target: attempt.id.target.to_string(),
            remedy: attempt.id.remedy,
            verdict: attempt.verdict,
            evidence: attempt.evidence.sentences(),
            warning,
            plan: attempt.steps.iter().map(|step| step.kind()).collect(),
            dry_run,
            sent: Vec::new(),
            stopped: None,
        }
    }
}
