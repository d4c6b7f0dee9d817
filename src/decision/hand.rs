//! What people ask for by hand: the attempt for it, or why it cannot be.
//!
//! A person may do what the watchdog may do. Neither a pause nor a budget binds them. What must be so
//! for the request to be right binds them too: the bot answers, GitHub says that the pull request is
//! open, nothing of the kind is in doubt, the journal can be written. Where something of the build may
//! be alive, or was not found dead often enough yet, they are warned, and say that they mean it.

use super::gates::{Shut, answer_gate, confirmed_gate, github_gate, outdated_gate, request_gate};
use super::judge::BuildJudgement;
use super::plan::{Attempt, Desk, build_again, release_of_bot};
use super::queues::QueueJudgement;
use crate::model::{BotName, BuildId, Gate, Remedy, StepKind, Verdict};

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The repair.
    pub repair: Repair,
    /// Whether it is meant also where something of it may be alive.
    pub even_if_alive: bool,
    /// Who asks.
    pub by: String,
}

/// A repair that a person can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Make the bot build a pending build again; what is green stays where that is safe.
    Retry(BuildId),
    /// Put a pending build back to approved, with nothing of it kept.
    Reset(BuildId),
    /// Free a bot's start slot.
    ReleaseSlot(BotName),
}

/// Why a wish is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What it is about is not there, or has moved on.
    Gone(String),
    /// There is nothing to be done about it, or the bot has no such request.
    Nothing(String),
    /// It cannot be taken up now; asking again helps.
    Busy(String),
    /// A gate that binds people too. [`Gate::LawOfReruns`] opens to who means it, and so does
    /// [`Gate::Confirming`], which opens by itself after some looks, too.
    Shut {
        /// The gate.
        gate: Gate,
        /// Why it is shut, as a sentence without a final stop.
        reason: String,
    },
}

impl Repair {
    /// The bot that it acts on.
    pub fn bot(&self) -> &BotName {
        match self {
            Self::Retry(build) | Self::Reset(build) => &build.key.bot,
            Self::ReleaseSlot(bot) => bot,
        }
    }
}

impl Refusal {
    /// Why, as a sentence without a final stop.
    pub fn reason(&self) -> &str {
        match self {
            Self::Gone(reason)
            | Self::Nothing(reason)
            | Self::Busy(reason)
            | Self::Shut { reason, .. } => reason,
        }
    }
}

/// A repair with what speaks against it, where something does: by which gate, and a sentence.
type Doubtful = (Attempt, Option<(Gate, String)>);

/// The attempt that fulfils a wish, given what is known now, and what may be alive of it where that
/// was meant.
///
/// # Errors
///
/// It cannot be done now, or at all.
pub fn attempt(
    desk: Desk<'_>,
    builds: &[BuildJudgement],
    queues: &[QueueJudgement],
    wish: &Wish,
) -> Result<(Attempt, Option<String>), Refusal> {
    let (mut attempt, alive) = match &wish.repair {
        Repair::Retry(build) => rebuild(desk, builds, build, Remedy::Rerun)?,
        Repair::Reset(build) => rebuild(desk, builds, build, Remedy::Reset)?,
        Repair::ReleaseSlot(bot) => release(desk, builds, queues, bot, wish.even_if_alive)?,
    };
    attempt.by = Some(wish.by.clone());
    if let Some(shut) = request_gate(desk, &attempt) {
        return Err(shut.into());
    }
    match alive {
        Some((gate, reason)) if !wish.even_if_alive => Err(Refusal::Shut { gate, reason }),
        alive => Ok((attempt, alive.map(|(_, reason)| reason))),
    }
}

fn rebuild(
    desk: Desk<'_>,
    builds: &[BuildJudgement],
    id: &BuildId,
    remedy: Remedy,
) -> Result<Doubtful, Refusal> {
    let build = builds.iter().find(|build| &build.id == id);
    let build = build.ok_or_else(|| gone(builds, id))?;
    understood(desk, &id.key.bot, StepKind::Retry)?;
    // A `retry` there would trip the bot on every later event.
    let current = outdated_gate(desk, &id.key).or_else(|| github_gate(desk, &id.key));
    if let Some(shut) = current {
        return Err(shut.into());
    }
    let alive = if build.rerun_is_lawful() {
        let soon = confirmed_gate(desk, build);
        soon.map(|shut| {
            let reason = format!("it may only look dead: {}; ask again soon", shut.reason);
            (shut.gate, reason)
        })
    } else {
        Some((Gate::LawOfReruns, may_be_alive(build)))
    };
    // What lives may report later, as what is only silent may.
    let forget = remedy == Remedy::Reset || alive.is_some();
    Ok((build_again(desk, build, remedy, forget), alive))
}

/// What speaks against building again, as a sentence.
fn may_be_alive(build: &BuildJudgement) -> String {
    let living = build.expectations.iter().filter(|e| e.lacking && !e.dead);
    let living: Vec<String> = living
        .map(|e| {
            if e.verdict == Verdict::Unreported {
                format!("{} is over, and only its result got lost", e.builder)
            } else {
                format!("{} is {}", e.builder, e.verdict)
            }
        })
        .collect();
    if living.is_empty() {
        "the bot lacks no result of it".to_owned()
    } else {
        format!("not everything of it is dead: {}", living.join(", "))
    }
}

fn release(
    desk: Desk<'_>,
    builds: &[BuildJudgement],
    queues: &[QueueJudgement],
    bot: &BotName,
    of_starting_too: bool,
) -> Result<Doubtful, Refusal> {
    if desk.ledger.bot(bot).is_none() {
        return Err(Refusal::Gone(format!("there is no bot called {bot}")));
    }
    understood(desk, bot, StepKind::ReleaseSlot)?;
    // Of what was not read nothing can be said.
    if let Some(shut) = answer_gate(desk, bot) {
        return Err(shut.into());
    }
    let starting: Vec<String> = builds
        .iter()
        .filter(|build| &build.id.key.bot == bot && build.may_be_starting())
        .map(|build| {
            let key = &build.id.key;
            format!("{}#{} is {}", key.repo, key.pull, build.verdict)
        })
        .collect();
    let alive = (!starting.is_empty()).then(|| {
        let reason = format!(
            "a build that is about to start may hold the slot rightly: {}",
            starting.join(", ")
        );
        (Gate::LawOfReruns, reason)
    });
    let attempt = release_of_bot(desk, bot, builds, queues, of_starting_too);
    match (attempt, alive) {
        // Of those that start nothing is released unless that is meant: no warning is due.
        (Some(attempt), alive) => Ok((attempt, alive.filter(|_| of_starting_too))),
        (None, Some((gate, reason))) if !of_starting_too => Err(Refusal::Shut { gate, reason }),
        (None, _) => Err(Refusal::Nothing(format!(
            "no commit is known that could hold the start slot of {bot}"
        ))),
    }
}

fn understood(desk: Desk<'_>, bot: &BotName, kind: StepKind) -> Result<(), Refusal> {
    let rows = desk.rows.get(bot);
    if rows.is_some_and(|rows| rows.iter().any(|row| row.kind == kind)) {
        return Ok(());
    }
    Err(Refusal::Nothing(format!("{bot} has no request for {kind}")))
}

fn gone(builds: &[BuildJudgement], id: &BuildId) -> Refusal {
    Refusal::Gone(match builds.iter().find(|build| build.id.key == id.key) {
        Some(now) => format!("{id} is over; {} is pending now", now.id),
        None => format!("{id} is not pending any more"),
    })
}

impl From<Shut> for Refusal {
    fn from(shut: Shut) -> Self {
        Self::Shut {
            gate: shut.gate,
            reason: shut.reason,
        }
    }
}
