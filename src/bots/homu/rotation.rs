//! What GitHub told of approved pull requests and of branches, kept over looks, and whose turn it is
//! to be asked about again. A long queue is asked about in turns, so that a look stays short.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{PullOnGithub, RepoName, Sha};

/// Requests of one look that are not for pending builds; with the default tick 72 a minute.
const REQUESTS_MAX: usize = 12;
/// An answer is asked for again after so many looks, or after [`AGAIN_AFTER`] where looks are rare.
const AGAIN_LOOKS: u64 = 6;
/// See [`AGAIN_LOOKS`]; with the default tick the same.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Looks for which an answer counts where no later one came: enough for the turns of 360 pull
/// requests.
const KEPT_LOOKS: u64 = 60;

/// What GitHub is asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An approved pull request with the head that homu stores of it; after another head it is
    /// another subject.
    Approved {
        /// The repository's label.
        repo: RepoName,
        /// The number.
        num: u64,
        /// The head, where homu stores it.
        head: Option<Sha>,
    },
    /// A branch.
    Branch {
        /// The repository's label.
        repo: RepoName,
        /// The name.
        branch: String,
    },
}

/// What GitHub tells of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A pull request.
    Pull {
        /// Open with which head, or closed.
        github: PullOnGithub,
        /// The head that homu holds approved, where any source tells.
        head: Option<Sha>,
    },
    /// There is no pull request that homu's token may see.
    NoPull,
    /// The commit that a branch points at; `None`: there is no such branch.
    Branch(Option<Sha>),
}

/// Everything that is asked about in turns.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The number of the current look.
    look: u64,
    kept: BTreeMap<Subject, Kept>,
}

#[derive(Debug)]
struct Kept {
    tried: (u64, Instant),
    told: Option<(u64, Known)>,
}

impl Rotation {
    /// Begins a look: given all that is of interest, the most important first, each with the
    /// requests that it costs, says whose turn it is. What was never asked about comes first, then
    /// what was not for the longest time. What is of no interest any more is forgotten.
    pub fn turns(&mut self, subjects: Vec<(Subject, usize)>) -> Vec<Subject> {
        self.look += 1;
        let wanted: BTreeSet<&Subject> = subjects.iter().map(|(subject, _)| subject).collect();
        self.kept.retain(|subject, _| wanted.contains(subject));
        let mut due: Vec<(u64, Subject, usize)> = subjects
            .into_iter()
            .filter_map(|(subject, cost)| Some((self.due(&subject)?, subject, cost)))
            .collect();
        due.sort_by_key(|(tried, _, _)| *tried);
        let mut left = REQUESTS_MAX;
        let mut turns = Vec::new();
        for (_, subject, cost) in due {
            let Some(rest) = left.checked_sub(cost) else {
                break;
            };
            left = rest;
            turns.push(subject);
        }
        turns
    }

    /// Takes what came of asking; `None`: no answer, and what was told earlier stays.
    pub fn asked(&mut self, subject: Subject, told: Option<Known>) {
        let tried = (self.look, Instant::now());
        let told = told.map(|known| (self.look, known));
        let kept = self
            .kept
            .entry(subject)
            .or_insert(Kept { tried, told: None });
        kept.tried = tried;
        if told.is_some() {
            kept.told = told;
        }
    }

    /// What is known of a subject.
    pub fn known(&self, subject: &Subject) -> Option<&Known> {
        let (look, known) = self.kept.get(subject)?.told.as_ref()?;
        (self.look.saturating_sub(*look) <= KEPT_LOOKS).then_some(known)
    }

    /// The look that last asked about a subject, 0 where none did; `None`: it is not due again.
    fn due(&self, subject: &Subject) -> Option<u64> {
        let Some(kept) = self.kept.get(subject) else {
            return Some(0);
        };
        let (look, at) = kept.tried;
        let due = self.look - look >= AGAIN_LOOKS || at.elapsed() >= AGAIN_AFTER;
        due.then_some(look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(count: u64, cost: usize) -> Vec<(Subject, usize)> {
        let subject = |num| Subject::Approved {
            repo: "alpha".into(),
            num,
            head: None,
        };
        (0..count).map(|num| (subject(num), cost)).collect()
    }

    /// One look that learns something of each whose turn it is.
    fn look(rotation: &mut Rotation, subjects: &[(Subject, usize)]) -> usize {
        let turns = rotation.turns(subjects.to_vec());
        for subject in &turns {
            rotation.asked(subject.clone(), Some(Known::NoPull));
        }
        turns.len()
    }

    fn known(rotation: &Rotation, subjects: &[(Subject, usize)]) -> usize {
        let known = |it: &&(Subject, usize)| rotation.known(&it.0).is_some();
        subjects.iter().filter(known).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_is_known_after_some_looks_and_stays_so() {
        let mut rotation = Rotation::default();
        let queue = subjects(360, 2);
        for looks in 1..=60 {
            assert_eq!(look(&mut rotation, &queue), 6);
            assert_eq!(known(&rotation, &queue), looks * 6);
        }
        for _ in 0..200 {
            look(&mut rotation, &queue);
            assert_eq!(known(&rotation, &queue), 360);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_queue_is_asked_about_every_few_looks_or_minutes() {
        let mut rotation = Rotation::default();
        let queue = subjects(5, 2);
        let asked: Vec<usize> = (0..13).map(|_| look(&mut rotation, &queue)).collect();
        assert_eq!(asked, [5, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 5]);
        tokio::time::advance(AGAIN_AFTER).await;
        assert_eq!(look(&mut rotation, &queue), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_gives_no_answer_keeps_nobody_from_a_turn_and_is_unknown_in_the_end() {
        let mut rotation = Rotation::default();
        let queue = subjects(12, 1);
        look(&mut rotation, &queue);
        for _ in 0..KEPT_LOOKS {
            assert_eq!(known(&rotation, &queue), 12);
            for subject in rotation.turns(queue.clone()) {
                rotation.asked(subject, None);
            }
        }
        rotation.turns(queue.clone());
        assert_eq!(known(&rotation, &queue), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_left_the_queue_is_forgotten_and_what_is_new_comes_first() {
        let mut rotation = Rotation::default();
        let mut queue = subjects(12, 1);
        look(&mut rotation, &queue);
        queue.truncate(3);
        assert_eq!(rotation.turns(queue), []);
        assert_eq!(rotation.kept.len(), 3);

        let later = subjects(30, 1);
        for _ in 0..3 {
            look(&mut rotation, &later);
        }
        tokio::time::advance(AGAIN_AFTER).await;
        let mut more = later;
        more.extend(subjects(31, 1).pop());
        assert_eq!(rotation.turns(more.clone())[0], more[30].0);
    }
}
