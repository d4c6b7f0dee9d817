//! The journal's rules without its file: records in their order, and never two open intents for one target.

use std::collections::BTreeMap;

use ci_watchdog::model::{
    Closing, Ending, Intent, IntentId, Moment, Order, Outcome, Record, Sighting, Target,
};

/// Why something was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An intent of this kind is open on this target.
    Open(String),
    /// The disk.
    Failing,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// The records.
    pub records: Vec<Record>,
    /// Whether nothing can be written now.
    pub failing: bool,
    open: BTreeMap<String, IntentId>,
    next: i64,
    clock: Moment,
}

impl Journal {
    /// The moment from which watched time goes on after a start.
    pub fn watched(&self) -> Moment {
        self.records
            .iter()
            .map(moment)
            .max()
            .unwrap_or_default()
            .max(self.clock)
    }

    /// Writes watched time down.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn save_clock(&mut self, now: Moment) -> Result<(), Refusal> {
        self.writable()?;
        self.clock = self.clock.max(now);
        Ok(())
    }

    /// Writes a sighting.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn sight(&mut self, sighting: &Sighting) -> Result<(), Refusal> {
        self.writable()?;
        self.records.push(Record::Sighting(sighting.clone()));
        Ok(())
    }

    /// Writes an ending.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn end(&mut self, ending: &Ending) -> Result<(), Refusal> {
        self.writable()?;
        self.records.push(Record::Ending(ending.clone()));
        Ok(())
    }

    /// Writes an operator's order.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn order(&mut self, order: &Order) -> Result<(), Refusal> {
        self.writable()?;
        self.records.push(Record::Order(order.clone()));
        Ok(())
    }

    /// Writes an intent.
    ///
    /// # Errors
    ///
    /// The disk; an open intent of the same kind on the same target, in any generation.
    pub fn intend(&mut self, intent: Intent, at: Moment) -> Result<IntentId, Refusal> {
        self.writable()?;
        let target = place(&intent);
        if self.open.contains_key(&target) {
            return Err(Refusal::Open(target));
        }
        self.next += 1;
        let id = IntentId(self.next);
        self.open.insert(target, id);
        self.records.push(Record::Intent { id, at, intent });
        Ok(id)
    }

    /// Writes an outcome.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn outcome(&mut self, id: IntentId, at: Moment, outcome: Outcome) -> Result<(), Refusal> {
        self.writable()?;
        self.records.push(Record::Outcome { id, at, outcome });
        Ok(())
    }

    /// Writes a closing.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn close(&mut self, id: IntentId, at: Moment, closing: Closing) -> Result<(), Refusal> {
        self.writable()?;
        self.open.retain(|_, open| *open != id);
        self.records.push(Record::Closed { id, at, closing });
        Ok(())
    }

    fn writable(&self) -> Result<(), Refusal> {
        if self.failing {
            Err(Refusal::Failing)
        } else {
            Ok(())
        }
    }
}

/// What the schema compares: the kind of request and what it is for, without the generation.
fn place(intent: &Intent) -> String {
    let kind = intent.step.kind();
    match &intent.attempt.target {
        Target::Expectation { build, builder } => format!("{kind} {} {builder}", build.key),
        Target::Build(build) => format!("{kind} {}", build.key),
        Target::Pull { bot, repo, pull } => format!("{kind} {bot} {repo} {pull}"),
        Target::Queue { bot, repo } => format!("{kind} {bot} {repo}"),
        Target::Bot(bot) => format!("{kind} {bot}"),
    }
}

fn moment(record: &Record) -> Moment {
    match record {
        Record::Sighting(sighting) => sighting.at,
        Record::Intent { at, .. } | Record::Outcome { at, .. } | Record::Closed { at, .. } => *at,
        Record::Order(order) => order.at(),
        Record::Finding(finding) => finding.at,
        Record::Ending(ending) => ending.at,
    }
}
