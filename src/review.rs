//! What was found against what people did and what became of the builds, from the journal's records:
//! what an operator reads before `mode = "act"`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::journal::Stamped;
use crate::model::{
    AttemptId, BuildId, Closing, End, Ending, Finding, IntentId, Record, Remedy, RepoName,
    Sighting, Target, Verdict,
};
use crate::report::Stamp;

/// With fewer findings that turned out right or wrong than this, their shares say nothing.
pub const JUDGED_MIN: u64 = 5;

/// A period, as the journal tells of it.
#[derive(Clone, Debug, Serialize)]
pub struct Review {
    /// Where the period begins.
    pub since: Stamp,
    /// Why there.
    pub begins: Begins,
    /// Where it ends: now.
    pub until: Stamp,
    /// The sums.
    pub totals: Totals,
    /// One for each thing that was found, done, or missed, in the order of time.
    pub cases: Vec<Case>,
}

/// Why a period begins where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Begins {
    /// It was asked for.
    AsAsked,
    /// The journal has nothing older.
    WithTheJournal,
    /// The journal has more, and only so much is read.
    WithWhatIsRead,
}

/// The sums of a period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Generations of builds that were pending.
    pub builds: u64,
    /// What would have been done.
    pub findings: BTreeMap<Remedy, u64>,
    /// See [`Class::Hit`].
    pub hits: u64,
    /// See [`Class::Late`].
    pub late: u64,
    /// See [`Class::FalseAlarm`].
    pub false_alarms: u64,
    /// See [`Class::Miss`].
    pub misses: u64,
    /// Those among the misses whose build was not stuck when it was last looked at: whoever reran it
    /// had reasons of their own, or the bot's timeout is too short for it.
    pub misses_of_live_builds: u64,
    /// See [`Class::Open`].
    pub open: u64,
    /// See [`Class::Unclear`].
    pub unclear: u64,
    /// See [`Class::Slot`].
    pub slots: u64,
    /// See [`Class::Acted`].
    pub acted: u64,
    /// Over all hits and all that came late, seconds.
    pub saved_seconds: u64,
    /// The middle of these, seconds; `None` where there are none.
    pub saved_median_seconds: Option<u64>,
    /// What is open has cost so far, seconds.
    pub lost_seconds: u64,
}

impl Totals {
    /// How much of what was found turned out right or wrong.
    pub fn judged(&self) -> u64 {
        self.hits + self.late + self.false_alarms
    }
}

/// What a case comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Found dead or lost, and it ended only by what people did later, or when the bot gave up.
    Hit,
    /// A message was found lost, and what it would have told came about later: by a redelivery, by
    /// something that the journal does not see, or by itself.
    Late,
    /// Found dead, and it came to its own result without anybody's rerun: ours would have cost it.
    FalseAlarm,
    /// Nothing was found before, and people made the bot build it again, or took it away while it was
    /// dead; or the bot itself gave up, after all the time that a finding would have saved.
    Miss,
    /// Found, and still so.
    Open,
    /// Found, and nobody knows what became of it.
    Unclear,
    /// The message of a start was lost and would have been told again, so that the next build can
    /// start; this build ran.
    Slot,
    /// Done, in `mode = "act"`.
    Acted,
}

impl Class {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Late => "late",
            Self::FalseAlarm => "false_alarm",
            Self::Miss => "miss",
            Self::Open => "open",
            Self::Unclear => "unclear",
            Self::Slot => "slot",
            Self::Acted => "acted",
        }
    }
}

/// One thing that was found, done, or missed.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// What it comes to.
    pub class: Class,
    /// The build with its generation, or the queue: `bot:repo:pull:kind:generation`, `bot:repo`.
    pub target: String,
    /// The repository, by its label in the bot.
    pub repo: Option<RepoName>,
    /// The pull request.
    pub pull: Option<u64>,
    /// The verdict that it was found with; of a miss, in the last look before.
    pub verdict: Verdict,
    /// What would have been done, or was.
    pub remedy: Option<Remedy>,
    /// When it was found, or what was done began.
    pub found: Option<Stamp>,
    /// The evidence, in words.
    pub evidence: Vec<String>,
    /// What people did.
    pub people: Option<Deed>,
    /// How the build ended.
    pub end: Option<End>,
    /// When it ended, or was right again.
    pub ended: Option<Stamp>,
    /// The time that would have been saved, of a hit or one that came late; lost so far, of an open
    /// one; seconds.
    pub seconds: Option<u64>,
    /// The effect of what was done; `None`: not known yet.
    pub effect: Option<Closing>,
}

/// What people did about a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deed {
    /// What.
    pub what: DeedKind,
    /// Who, where they asked the watchdog for it.
    pub by: Option<String>,
    /// When it was seen.
    pub at: Stamp,
}

/// The ways in which people end a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeedKind {
    /// They made the bot build it again.
    Rerun,
    /// They closed the pull request.
    Closed,
    /// They gave it a new head.
    NewHead,
    /// They took it from the bot in some way: closed it, pushed to it, or withdrew it.
    TookAway,
}

impl DeedKind {
    /// The words for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rerun => "reran it",
            Self::Closed => "closed it",
            Self::NewHead => "pushed to it",
            Self::TookAway => "took it away",
        }
    }
}

/// Reviews the period from `since` to `now`. The records may begin earlier, and should: what was found
/// before the period may have ended in it.
pub fn review(
    records: &[Stamped],
    (since, begins): (SystemTime, Begins),
    now: SystemTime,
) -> Review {
    let mut book = Book::default();
    for stamped in records {
        book.fold(stamped);
    }
    let mut cases = book.cases(now);
    cases.retain(|(at, _)| *at >= since);
    cases.sort_by_key(|(at, case)| (case.found.map_or(*at, |found| found.0), case.target.clone()));
    let cases: Vec<Case> = cases.into_iter().map(|(_, case)| case).collect();
    Review {
        since: Stamp(since),
        begins,
        until: Stamp(now),
        totals: totals(&book, &cases, since),
        cases,
    }
}

/// What the records say, by what they are about.
#[derive(Default)]
struct Book {
    builds: BTreeMap<BuildId, Story>,
    /// What was found of queues and approved pull requests, which have no generations.
    others: Vec<Other>,
    acts: BTreeMap<AttemptId, Act>,
    attempts: BTreeMap<IntentId, AttemptId>,
    findings: Vec<(SystemTime, Remedy)>,
}

/// One generation of a build.
#[derive(Default)]
struct Story {
    sighted: Option<SystemTime>,
    findings: Vec<(SystemTime, Finding)>,
    ending: Option<(SystemTime, Ending)>,
    /// The first repair of ours.
    ours: bool,
    /// The first rerun that somebody asked the watchdog for, with the verdict that it had.
    by_hand: Option<(Deed, Verdict)>,
    /// A later generation was seen.
    followed: bool,
}

struct Other {
    at: SystemTime,
    finding: Finding,
    over: Option<SystemTime>,
}

/// An attempt that was made.
struct Act {
    at: SystemTime,
    verdict: Verdict,
    evidence: Vec<String>,
    by: Option<String>,
    /// The last of its requests, and its effect.
    last: IntentId,
    effect: Option<(SystemTime, Closing)>,
}

impl Book {
    fn fold(&mut self, stamped: &Stamped) {
        let wall = stamped.wall;
        match &stamped.record {
            Record::Sighting(sighting) => self.sight(wall, sighting),
            Record::Finding(finding) => self.find(wall, finding),
            Record::Ending(ending) => {
                let story = self.builds.entry(ending.build.clone()).or_default();
                story.ending = Some((wall, ending.clone()));
            }
            Record::Intent { id, intent, .. } => {
                self.attempts.insert(*id, intent.attempt.clone());
                let act = self
                    .acts
                    .entry(intent.attempt.clone())
                    .or_insert_with(|| Act {
                        at: wall,
                        verdict: intent.verdict,
                        evidence: intent.evidence.clone(),
                        by: intent.by.clone(),
                        last: *id,
                        effect: None,
                    });
                act.last = *id;
                act.effect = None;
                let Some(build) = intent.attempt.target.build() else {
                    return;
                };
                let story = self.builds.entry(build.clone()).or_default();
                if intent.by.is_none() {
                    story.ours = true;
                } else if intent.attempt.remedy.is_rerun() && story.by_hand.is_none() {
                    let deed = Deed {
                        what: DeedKind::Rerun,
                        by: intent.by.clone(),
                        at: Stamp(wall),
                    };
                    story.by_hand = Some((deed, intent.verdict));
                }
            }
            Record::Closed { id, closing, .. } => {
                let act = self.attempts.get(id).and_then(|id| self.acts.get_mut(id));
                if let Some(act) = act.filter(|act| act.last == *id) {
                    act.effect = Some((wall, *closing));
                }
            }
            Record::Outcome { .. } | Record::Order(_) => {}
        }
    }

    fn sight(&mut self, wall: SystemTime, sighting: &Sighting) {
        let build = &sighting.build;
        let story = self.builds.entry(build.clone()).or_default();
        story.sighted.get_or_insert(wall);
        if let Some(generation) = build.generation.checked_sub(1) {
            let before = BuildId {
                key: build.key.clone(),
                generation,
            };
            if let Some(story) = self.builds.get_mut(&before) {
                story.followed = true;
            }
        }
        for other in &mut self.others {
            if other.over.is_none() && other.finding.attempt.target.moved_on(&build.key) {
                other.over = Some(wall);
            }
        }
    }

    fn find(&mut self, wall: SystemTime, finding: &Finding) {
        self.findings.push((wall, finding.attempt.remedy));
        match finding.attempt.target.build() {
            Some(build) => {
                let story = self.builds.entry(build.clone()).or_default();
                story.findings.push((wall, finding.clone()));
            }
            None => self.others.push(Other {
                at: wall,
                finding: finding.clone(),
                over: None,
            }),
        }
    }

    /// Every case, with the time at which it ended or was last so.
    fn cases(&self, now: SystemTime) -> Vec<(SystemTime, Case)> {
        let stories = self.builds.iter();
        let builds = stories.filter_map(|(build, story)| story.case(build, now));
        let others = self.others.iter().map(|other| other.case(now));
        let acts = self.acts.iter();
        let acts = acts.filter(|(_, act)| act.by.is_none());
        let acts = acts.map(|(attempt, act)| act.case(attempt));
        builds.chain(others).chain(acts).collect()
    }
}

impl Story {
    fn case(&self, build: &BuildId, now: SystemTime) -> Option<(SystemTime, Case)> {
        // What we did is told by what we did.
        if self.ours {
            return None;
        }
        let stuck = self
            .findings
            .iter()
            .find(|(_, it)| stuck(it.attempt.remedy));
        let (class, at) = match (stuck, self.findings.first()) {
            (Some((found, _)), _) => self.found_stuck(*found, now),
            (None, slot) => match (self.missed(), slot) {
                (Some(at), _) => (Class::Miss, at),
                (None, Some((found, _))) => (Class::Slot, *found),
                (None, None) => return None,
            },
        };
        let found = match class {
            Class::Miss => None,
            Class::Hit
            | Class::Late
            | Class::FalseAlarm
            | Class::Open
            | Class::Unclear
            | Class::Slot
            | Class::Acted => stuck.or(self.findings.first()),
        };
        let target = Target::Build(build.clone());
        let mut case = case(class, &target, found.map(|(at, finding)| (*at, finding)));
        if class == Class::Miss {
            case.verdict = self.last_verdict();
        }
        case.people = self.deed();
        case.end = self.ending.as_ref().map(|(_, ending)| ending.end);
        case.ended = self.ending.as_ref().map(|(wall, _)| Stamp(*wall));
        case.seconds = seconds(class, case.found, at);
        Some((at, case))
    }

    /// What became of a build that was found dead, or that a message of was found lost, and when.
    fn found_stuck(&self, found: SystemTime, now: SystemTime) -> (Class, SystemTime) {
        if let Some((deed, _)) = &self.by_hand
            && deed.at.0 >= found
        {
            return (Class::Hit, deed.at.0);
        }
        let Some((ended, ending)) = &self.ending else {
            return if self.followed {
                (Class::Unclear, found)
            } else {
                (Class::Open, now)
            };
        };
        let told = |(_, it): &(SystemTime, Finding)| it.attempt.remedy == Remedy::ReplayResult;
        let mut stuck = self
            .findings
            .iter()
            .filter(|(_, it)| stuck(it.attempt.remedy));
        let class = match ending.end {
            End::Rerun | End::Closed | End::NewHead | End::TimedOut | End::Left => Class::Hit,
            End::Green | End::Red if stuck.all(told) => Class::Late,
            End::Green | End::Red => Class::FalseAlarm,
            End::Unknown => Class::Unclear,
        };
        (class, *ended)
    }

    /// When it showed that something should have been found, where nothing was that it is stuck on.
    fn missed(&self) -> Option<SystemTime> {
        if let Some((deed, _)) = &self.by_hand {
            return Some(deed.at.0);
        }
        let (ended, ending) = self.ending.as_ref()?;
        let missed = match ending.end {
            End::Rerun | End::TimedOut => true,
            // People close and push for many reasons.
            End::Closed | End::NewHead | End::Left => ending.verdict.dead(),
            End::Green | End::Red | End::Unknown => false,
        };
        missed.then_some(*ended)
    }

    /// What people did about it, as far as its end tells.
    fn deed(&self) -> Option<Deed> {
        if let Some((deed, _)) = &self.by_hand {
            return Some(deed.clone());
        }
        let (wall, ending) = self.ending.as_ref()?;
        let what = match ending.end {
            End::Rerun => DeedKind::Rerun,
            End::Closed => DeedKind::Closed,
            End::NewHead => DeedKind::NewHead,
            End::Left => DeedKind::TookAway,
            End::Green | End::Red | End::TimedOut | End::Unknown => return None,
        };
        Some(Deed {
            what,
            by: None,
            at: Stamp(*wall),
        })
    }

    /// The verdict before people acted, or the bot gave up.
    fn last_verdict(&self) -> Verdict {
        let by_hand = self.by_hand.as_ref().map(|(_, verdict)| *verdict);
        let ending = self.ending.as_ref().map(|(_, ending)| ending.verdict);
        by_hand.or(ending).unwrap_or(Verdict::Unknown)
    }
}

impl Other {
    fn case(&self, now: SystemTime) -> (SystemTime, Case) {
        let target = &self.finding.attempt.target;
        let (class, at) = match (self.over, target) {
            (Some(over), _) => (Class::Late, over),
            (None, Target::Queue { .. }) => (Class::Open, now),
            // That the bot forgot a pull request, or answers again, leaves no trace of its own.
            (
                None,
                Target::Pull { .. }
                | Target::Bot(_)
                | Target::Build(_)
                | Target::Expectation { .. },
            ) => (Class::Unclear, self.at),
        };
        let mut case = case(class, target, Some((self.at, &self.finding)));
        case.ended = self.over.map(Stamp);
        case.seconds = seconds(class, case.found, at);
        (at, case)
    }
}

impl Act {
    fn case(&self, attempt: &AttemptId) -> (SystemTime, Case) {
        let mut case = case(Class::Acted, &attempt.target, None);
        case.verdict = self.verdict;
        case.remedy = Some(attempt.remedy);
        case.found = Some(Stamp(self.at));
        case.evidence.clone_from(&self.evidence);
        case.effect = self.effect.map(|(_, closing)| closing);
        (self.effect.map_or(self.at, |(wall, _)| wall), case)
    }
}

/// A case of a target, with what was found.
fn case(class: Class, target: &Target, found: Option<(SystemTime, &Finding)>) -> Case {
    let finding = found.map(|(_, finding)| finding);
    Case {
        class,
        target: target.to_string(),
        repo: target.repo().cloned(),
        pull: target.pull(),
        verdict: finding.map_or(Verdict::Unknown, |finding| finding.verdict),
        remedy: finding.map(|finding| finding.attempt.remedy),
        found: found.map(|(at, _)| Stamp(at)),
        evidence: finding.map_or_else(Vec::new, |finding| finding.evidence.clone()),
        people: None,
        end: None,
        ended: None,
        seconds: None,
        effect: None,
    }
}

/// The time between a finding and what became of it, where that is a gain or a loss.
fn seconds(class: Class, found: Option<Stamp>, at: SystemTime) -> Option<u64> {
    match class {
        Class::Hit | Class::Late | Class::Open => {
            // A wall clock may have been set back between the two.
            let span = at.duration_since(found?.0).unwrap_or(Duration::ZERO);
            Some(span.as_secs())
        }
        Class::FalseAlarm | Class::Miss | Class::Unclear | Class::Slot | Class::Acted => None,
    }
}

/// Whether a remedy is for something that does not go on by itself. A lost start holds only others up.
fn stuck(remedy: Remedy) -> bool {
    match remedy {
        Remedy::ReplayResult
        | Remedy::ReplayPull
        | Remedy::Unwedge
        | Remedy::Rerun
        | Remedy::Reset
        | Remedy::Restart => true,
        Remedy::ReleaseSlot => false,
    }
}

/// Whether a build with this verdict was not stuck: somebody who reran it had reasons of their own.
fn lives(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Reported | Verdict::Alive | Verdict::Starting | Verdict::Queued => true,
        Verdict::Starved
        | Verdict::Unknown
        | Verdict::Unreported
        | Verdict::Outdated
        | Verdict::Wedged
        | Verdict::Orphaned
        | Verdict::Stalled
        | Verdict::WorkerLost
        | Verdict::NoShow => false,
    }
}

fn totals(book: &Book, cases: &[Case], since: SystemTime) -> Totals {
    let builds = book.builds.values().filter(|story| {
        let ended = story.ending.as_ref().map(|(wall, _)| *wall);
        story.sighted.max(ended) >= Some(since)
    });
    let mut totals = Totals {
        builds: builds.count() as u64,
        ..Totals::default()
    };
    for (_, remedy) in book.findings.iter().filter(|(at, _)| *at >= since) {
        *totals.findings.entry(*remedy).or_default() += 1;
    }
    let mut saved = Vec::new();
    for case in cases {
        let count = match case.class {
            Class::Hit => &mut totals.hits,
            Class::Late => &mut totals.late,
            Class::FalseAlarm => &mut totals.false_alarms,
            Class::Miss => &mut totals.misses,
            Class::Open => &mut totals.open,
            Class::Unclear => &mut totals.unclear,
            Class::Slot => &mut totals.slots,
            Class::Acted => &mut totals.acted,
        };
        *count += 1;
        match (case.class, case.seconds) {
            (Class::Hit | Class::Late, Some(seconds)) => saved.push(seconds),
            (Class::Open, Some(seconds)) => totals.lost_seconds += seconds,
            (Class::Miss, _) if lives(case.verdict) => totals.misses_of_live_builds += 1,
            (
                Class::Hit
                | Class::Late
                | Class::FalseAlarm
                | Class::Miss
                | Class::Open
                | Class::Unclear
                | Class::Slot
                | Class::Acted,
                _,
            ) => {}
        }
    }
    saved.sort_unstable();
    totals.saved_seconds = saved.iter().sum();
    totals.saved_median_seconds = median(&saved);
    totals
}

/// The middle of sorted numbers; the mean of the two in the middle, rounded down, where they are even.
fn median(sorted: &[u64]) -> Option<u64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(middle.checked_sub(1)?)?;
    Some(lower.midpoint(upper))
}

#[cfg(test)]
mod tests;
