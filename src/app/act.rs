//! Acting: a last look, the intent, one request, its outcome.

use std::time::Duration;

use super::App;
use super::describe::place;
use crate::bots::restart;
use crate::decision::health::Tick;
use crate::decision::plan::Attempt;
use crate::decision::policy::Policy;
use crate::journal::JournalError;
use crate::model::{BotName, IntentId, Moment, Outcome, Record, Step, StepKind};
use crate::report::Event;

/// How much longer than its HTTP timeout a request may take in the adapter, its precondition included.
const SEND_SLACK: Duration = Duration::from_secs(5);

impl App {
    /// Sends an attempt's requests in order. Before each it looks again; after each that was not
    /// accepted it stops.
    pub(super) async fn act(&mut self, attempt: Attempt) {
        let target = attempt.id.target.clone();
        let mut first = true;
        for step in &attempt.steps {
            let Some(now) = self.look_again(target.bot()).await else {
                tracing::warn!(attempt = %attempt.id, "not sent: this process or its machine was stopped during the last look");
                return;
            };
            if !self.core.still_wanted(now, &attempt, step, first) {
                tracing::info!(attempt = %attempt.id, step = %step.kind(), "not sent: the last look saw that it is not needed any more");
                return;
            }
            if first {
                self.events.push(Event::Attempted {
                    bot: target.bot().to_string(),
                    repo: place(&target),
                    remedy: attempt.id.remedy,
                });
            }
            first = false;
            match self.send(&attempt, step, now).await {
                Some(Outcome::Accepted(_)) => {}
                Some(Outcome::Refused(_) | Outcome::NotSent(_) | Outcome::Unanswered(_)) | None => {
                    return;
                }
            }
        }
    }

    /// The last look before a request: at the bot, and at every provider.
    /// `None` where this process was stopped meanwhile: then nothing is known well enough.
    pub(super) async fn look_again(&mut self, bot: &BotName) -> Option<Moment> {
        let mut tick = Tick {
            late: false,
            good: 0,
            bad: 0,
        };
        let (bots, late) = self.look_at_bots(Some(bot)).await;
        let now = self.watched.now();
        self.looked = now;
        self.take_bots(now, bots, &mut tick);
        let late = late.or(self.knock(now, Some(bot)).await);
        let (providers, late_too) = self.look_at_providers().await;
        self.take_providers(now, providers, &mut tick);
        self.shared.go_on();
        if let Some(by) = late.or(late_too) {
            self.look_afresh(by, tick);
            return None;
        }
        self.settle(now);
        Some(now)
    }

    /// Writes a step's intent, sends it, and writes what that came to; `None` where nothing more can
    /// be sent now.
    pub(super) async fn send(
        &mut self,
        attempt: &Attempt,
        step: &Step,
        now: Moment,
    ) -> Option<Outcome> {
        let looked = self.watched.boot();
        let wall = self.clock.wall();
        let intent = attempt.intent(step);
        let permit = match self.journal.intend(intent.clone(), now, wall) {
            Ok(permit) => permit,
            // The journal is well; it refuses a second open intent for one target.
            Err(error @ JournalError::Open { .. }) => {
                tracing::error!(attempt = %attempt.id, step = %step.kind(), "not sent: {error}");
                return None;
            }
            Err(error) => {
                self.journal_failed(error);
                return None;
            }
        };
        let id = permit.id();
        self.note(
            Record::Intent {
                id,
                at: now,
                intent,
            },
            wall,
        );
        tracing::info!(
            attempt = %attempt.id, step = %step.kind(), verdict = %attempt.verdict,
            evidence = %attempt.evidence, intent = id.0, "sending"
        );
        let bot = attempt.id.target.bot();
        let longest = match step.kind() {
            StepKind::Restart => restart::DEADLINE,
            StepKind::ReleaseSlot
            | StepKind::ReplayResult
            | StepKind::ForgetGreen
            | StepKind::Retry
            | StepKind::Nudge
            | StepKind::ReplayClosed
            | StepKind::ReplaySynchronize => Policy::HTTP_TIMEOUT,
        } + SEND_SLACK;
        let outcome = if self.clock.boot().saturating_sub(looked) > Policy::ACT_DEADLINE {
            Outcome::NotSent("its act deadline passed before it could be sent".to_owned())
        } else {
            match self.bots.iter().find(|one| one.name() == bot) {
                Some(_) if step.kind() == StepKind::Restart => restart::run(permit).await,
                Some(bot) => match tokio::time::timeout(longest, bot.send(permit)).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        Outcome::Unanswered(format!("no answer within {} s", longest.as_secs()))
                    }
                },
                None => Outcome::NotSent(format!("the configuration has no bot {bot} any more")),
            }
        };
        let slack = self.policy().lateness_max();
        let late = self.advance(longest, slack);
        self.finish(attempt, step, id, outcome.clone());
        self.shared.go_on();
        // After a stop in the middle of a request nothing is known well enough for the next one.
        match late {
            None => Some(outcome),
            Some(by) => {
                let unknown = Tick {
                    late: true,
                    good: 0,
                    bad: 0,
                };
                self.look_afresh(by, unknown);
                None
            }
        }
    }

    fn finish(&mut self, attempt: &Attempt, step: &Step, id: IntentId, outcome: Outcome) {
        let at = self.watched.now();
        let wall = self.clock.wall();
        match &outcome {
            Outcome::Accepted(detail) => {
                tracing::info!(attempt = %attempt.id, step = %step.kind(), detail, "accepted; its effect is awaited");
            }
            Outcome::Refused(detail) | Outcome::NotSent(detail) | Outcome::Unanswered(detail) => {
                tracing::warn!(attempt = %attempt.id, step = %step.kind(), outcome = outcome.as_str(), detail, "not accepted");
            }
        }
        self.events.push(Event::Sent {
            bot: attempt.id.target.bot().to_string(),
            step: step.kind(),
            outcome: outcome.as_str(),
        });
        match self.journal.outcome(id, at, wall, &outcome) {
            Ok(()) => self.note(Record::Outcome { id, at, outcome }, wall),
            // Without a durable outcome it is in doubt, as after a crash.
            Err(error) => self.journal_failed(error),
        }
        self.settle(at);
    }

    fn note(&mut self, record: Record, wall: std::time::SystemTime) {
        self.walls.note(&record, wall);
        self.core.record(&record);
    }
}
