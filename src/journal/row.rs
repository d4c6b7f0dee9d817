//! How a record lies in a row: its kind, its text, its times, and the target on which one intent may be open.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::JournalError;
use super::chain::{Head, Link};
use crate::model::{
    AttemptId, BuildKey, Intent, IntentId, Moment, Order, Record, StepKind, Target,
};

/// The longest text of one record, bytes. What bots and providers say is capped long before; this
/// keeps a mistake there from filling the disk.
pub(super) const BODY_MAX: usize = 1 << 20;

/// One durable record with its place in the order and the time for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// Its place in the order of writing; grows, with gaps.
    pub seq: i64,
    /// When it was written, by the wall clock; for people only.
    pub wall: SystemTime,
    /// The record.
    pub record: Record,
}

/// The columns of a record that [`read`] needs, in its order.
pub(super) const COLUMNS: &str =
    "seq, watched_ms, wall_ms, kind, intent, target, attempt, repo, pull, body, chain";

/// A row as it lies in the file, not yet believed.
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) watched_ms: i64,
    pub(super) wall_ms: i64,
    pub(super) kind: String,
    pub(super) intent: Option<i64>,
    pub(super) place: Place,
    pub(super) body: String,
    pub(super) chain: Link,
}

/// Where a record belongs: the columns that intents, outcomes and closings of one act share.
pub(super) struct Place {
    pub(super) target: String,
    pub(super) attempt: Option<String>,
    pub(super) repo: String,
    pub(super) pull: Option<i64>,
}

impl Place {
    /// Where an intent belongs.
    pub(super) fn of_intent(intent: &Intent) -> Self {
        let target = open_target(&intent.attempt.target, intent.step.kind());
        Self::of_attempt(target, &intent.attempt)
    }

    /// Where a finding belongs.
    pub(super) fn of_finding(attempt: &AttemptId) -> Self {
        Self::of_attempt(json!(["finding", attempt]).to_string(), attempt)
    }

    fn of_attempt(target: String, attempt: &AttemptId) -> Self {
        let repo = attempt.target.repo();
        Self {
            target,
            attempt: Some(attempt.to_string()),
            repo: repo.map_or_else(String::new, |repo| repo.as_str().to_owned()),
            pull: attempt.target.pull().map(pull_column),
        }
    }

    /// Where an order belongs: a newer one with the same target overrides it.
    pub(super) fn of_order(order: &Order) -> Self {
        let (kind, scope) = match order {
            Order::Stop(stop) => (stop.kind, Some(&stop.scope)),
            Order::Go { kind, scope, .. } => (*kind, scope.as_ref()),
        };
        let repo = scope.and_then(|scope| scope.repo.as_ref());
        Self {
            target: json!(["order", kind, scope]).to_string(),
            attempt: None,
            repo: repo.map_or_else(String::new, |repo| repo.as_str().to_owned()),
            pull: scope.and_then(|scope| scope.pull).map(pull_column),
        }
    }

    /// Where a sighting of this build belongs.
    pub(super) fn of_sighting(key: &BuildKey) -> Self {
        Self::of_build("sighting", key)
    }

    /// Where an ending of this build belongs.
    pub(super) fn of_ending(key: &BuildKey) -> Self {
        Self::of_build("ending", key)
    }

    fn of_build(kind: &str, key: &BuildKey) -> Self {
        Self {
            target: json!([kind, key.bot, key.repo, key.pull, key.kind]).to_string(),
            attempt: None,
            repo: key.repo.as_str().to_owned(),
            pull: Some(pull_column(key.pull)),
        }
    }
}

/// A pull request's number as a column; the record's text keeps it exactly.
pub(super) fn pull_column(pull: u64) -> i64 {
    i64::try_from(pull).unwrap_or(i64::MAX)
}

/// The text on which the schema compares open intents: the kind of request and what it is for.
///
/// The kind belongs to it, so that a lost result of one builder, that of another, and a release of
/// the slot may be in flight for one build at once. The generation does not: an intent of an
/// earlier generation that is still open is in doubt, and a new generation of the same build is no
/// reason to send the same request beside it. Whoever opened that generation, the older intent
/// settles on sight ("no longer pending in that generation"), so nothing waits for long.
///
/// It is a JSON array: two targets never have one text, whatever their names hold.
pub(super) fn open_target(target: &Target, step: StepKind) -> String {
    match target {
        Target::Expectation { build, builder } => {
            let BuildKey {
                bot,
                repo,
                pull,
                kind,
            } = &build.key;
            json!([step, bot, repo, pull, kind, builder])
        }
        Target::Build(build) => {
            let BuildKey {
                bot,
                repo,
                pull,
                kind,
            } = &build.key;
            json!([step, bot, repo, pull, kind])
        }
        Target::Pull { bot, repo, pull } => json!([step, bot, repo, pull]),
        Target::Queue { bot, repo } => json!([step, bot, repo]),
        Target::Bot(bot) => json!([step, bot]),
    }
    .to_string()
}

/// The word for a record's kind in its row.
pub(super) const fn kind(record: &Record) -> &'static str {
    match record {
        Record::Sighting(_) => "sighting",
        Record::Intent { .. } => "intent",
        Record::Outcome { .. } => "outcome",
        Record::Closed { .. } => "closed",
        Record::Order(_) => "order",
        Record::Finding(_) => "finding",
        Record::Ending(_) => "ending",
    }
}

/// The intent that a record belongs to.
pub(super) const fn intent_of(record: &Record) -> Option<IntentId> {
    match record {
        Record::Sighting(_) | Record::Order(_) | Record::Finding(_) | Record::Ending(_) => None,
        Record::Intent { id, .. } | Record::Outcome { id, .. } | Record::Closed { id, .. } => {
            Some(*id)
        }
    }
}

/// A record's moment.
pub(super) const fn moment(record: &Record) -> Moment {
    match record {
        Record::Sighting(sighting) => sighting.at,
        Record::Intent { at, .. } | Record::Outcome { at, .. } | Record::Closed { at, .. } => *at,
        Record::Order(order) => order.at(),
        Record::Finding(finding) => finding.at,
        Record::Ending(ending) => ending.at,
    }
}

/// A record's text.
///
/// # Errors
///
/// It is longer than [`BODY_MAX`].
pub(super) fn body(record: &Record) -> Result<String, JournalError> {
    let body = serde_json::to_string(record)
        .expect("a record is made of structs, enums, sequences, texts and numbers only");
    if body.len() > BODY_MAX {
        return Err(JournalError::TooLarge {
            bytes: body.len(),
            max: BODY_MAX,
        });
    }
    Ok(body)
}

/// Reads a row of [`COLUMNS`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let unlinked = read_unlinked(row)?;
    Ok(Stored {
        chain: row.get(10)?,
        ..unlinked
    })
}

/// Reads a row of [`COLUMNS`] but the last, as journals before version 2 have them.
pub(super) fn read_unlinked(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        seq: row.get(0)?,
        watched_ms: row.get(1)?,
        wall_ms: row.get(2)?,
        kind: row.get(3)?,
        intent: row.get(4)?,
        place: Place {
            target: row.get(5)?,
            attempt: row.get(6)?,
            repo: row.get(7)?,
            pull: row.get(8)?,
        },
        body: row.get(9)?,
        chain: Link::FIRST,
    })
}

impl Stored {
    /// Its place on the chain.
    pub(super) fn head(&self) -> Head {
        Head {
            seq: self.seq,
            link: self.chain,
        }
    }

    /// Adds it to the table.
    pub(super) fn insert(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction
            .prepare_cached(&format!(
                "INSERT INTO record ({COLUMNS})
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
            ))?
            .execute(params![
                self.seq,
                self.watched_ms,
                self.wall_ms,
                self.kind,
                self.intent,
                self.place.target,
                self.place.attempt,
                self.place.repo,
                self.place.pull,
                self.body,
                self.chain,
            ])?;
        Ok(())
    }

    /// The record, where its text and its columns say the same.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for [`JournalError::Damaged`].
    pub(super) fn believe(self) -> Result<Stamped, String> {
        let seq = self.seq;
        let record: Record = serde_json::from_str(&self.body)
            .map_err(|error| format!("record {seq} cannot be read: {error}"))?;
        if self.kind != kind(&record)
            || self.intent != intent_of(&record).map(|id| id.0)
            || self.watched_ms != moment_column(moment(&record))
        {
            return Err(format!("record {seq} contradicts its own columns"));
        }
        Ok(Stamped {
            seq,
            wall: wall_of(self.wall_ms),
            record,
        })
    }
}

/// A moment as a column, milliseconds; the record's text keeps it exactly.
pub(super) fn moment_column(moment: Moment) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

/// A moment out of a column; none lies before the journal began.
pub(super) fn moment_of(column: i64) -> Moment {
    Moment::from_millis(u64::try_from(column).unwrap_or(0))
}

/// A wall time as a column: Unix time in milliseconds, negative before 1970.
pub(super) fn wall_column(wall: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match wall.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}

/// A wall time out of a column. One that no clock can show becomes 1970: it is for people only.
pub(super) fn wall_of(column: i64) -> SystemTime {
    let distance = Duration::from_millis(column.unsigned_abs());
    let wall = if column < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    wall.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{BuildId, BuildKind};

    fn build(repo: &str, pull: u64, kind: BuildKind, generation: u32) -> BuildId {
        BuildId {
            key: BuildKey {
                bot: "homu".into(),
                repo: repo.into(),
                pull,
                kind,
            },
            generation,
        }
    }

    #[test]
    fn different_targets_never_have_one_text() {
        let auto = build("servo", 7, BuildKind::Auto, 1);
        let mut targets = vec![
            Target::Build(auto.clone()),
            Target::Build(build("servo", 7, BuildKind::Try, 1)),
            Target::Build(build("servo", 71, BuildKind::Auto, 1)),
            Target::Build(build("servo\",7,\"auto", 7, BuildKind::Auto, 1)),
            Target::Build(build("servo\0", 7, BuildKind::Auto, 1)),
            Target::Pull {
                bot: "homu".into(),
                repo: "servo".into(),
                pull: 7,
            },
            Target::Queue {
                bot: "homu".into(),
                repo: "servo".into(),
            },
            Target::Queue {
                bot: "homu:servo".into(),
                repo: "".into(),
            },
            Target::Queue {
                bot: "homu".into(),
                repo: ":servo".into(),
            },
            Target::Bot("homu".into()),
            Target::Bot("homu:servo".into()),
        ];
        for builder in ["", "linux", "linux\0", "linux\n", "auto", "mac\u{202e}"] {
            targets.push(Target::Expectation {
                build: auto.clone(),
                builder: builder.into(),
            });
        }
        let mut texts = BTreeSet::new();
        for target in &targets {
            for step in StepKind::ALL {
                let text = open_target(target, step);
                assert!(
                    !text.contains('\0'),
                    "SQL's text functions end at a NUL: {text:?}"
                );
                assert!(texts.insert(text), "{target:?} {step}");
            }
        }
    }

    #[test]
    fn a_new_generation_is_no_other_target() {
        let [first, second] =
            [1, 2].map(|generation| Target::Build(build("servo", 7, BuildKind::Auto, generation)));
        assert_eq!(
            open_target(&first, StepKind::Retry),
            open_target(&second, StepKind::Retry)
        );
        assert_eq!(
            open_target(&first, StepKind::Retry),
            r#"["retry","homu","servo",7,"auto"]"#
        );
    }

    #[test]
    fn wall_times_keep_their_milliseconds_on_both_sides_of_1970() {
        for column in [
            0,
            1,
            -1,
            1_700_000_000_123,
            -86_400_000,
            i64::MAX,
            -i64::MAX,
        ] {
            assert_eq!(wall_column(wall_of(column)), column);
        }
    }
}
