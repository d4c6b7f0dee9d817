//! Which of a master's buildsets name which commit: an unbroken stretch of its buildsets, and how far back it reaches.
//!
//! Numbers of buildsets grow, and neither a buildset nor its source stamps change after their
//! insertion (`buildbot/db/buildsets.py` of 4.3.0: one transaction, and nothing deletes them), so
//! what was read once need not be read again.

use std::collections::{BTreeSet, VecDeque};

use super::api::Buildset;
use crate::model::Sha;

/// How many buildsets are kept: about 150 bytes each, so 8 MB.
pub(super) const KEPT_MAX: usize = 50_000;
/// How many buildsets in a row, oldest first, must lie before a source stamp until it is believed
/// that no older one uses it.
pub(super) const RUN_UP: usize = 100;
/// How far a master's clock may have been set back between a source stamp and a buildset of it, seconds.
pub(super) const CLOCK_MARGIN: i64 = 60 * 60;
/// Among how many of the newest buildsets those that name no commit are told apart by their builds.
pub(super) const VAGUE_MAX: usize = 100;

/// Buildsets without a gap, oldest first.
#[derive(Debug, Default)]
pub(super) struct BuildsetIndex {
    entries: VecDeque<Entry>,
    /// Whether nothing older exists.
    bottom: bool,
    begun: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    bsid: u64,
    submitted_at: i64,
    newest_stamp: u64,
    /// Named by its source stamps, or by its builds where those name none.
    commits: BTreeSet<Sha>,
    /// `None` where its source stamps name none, and its builds have not been looked at to their end.
    naming: Option<Naming>,
}

/// What says which commit a buildset is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Its source stamps.
    Stamps,
    /// The builds of its requests, each for itself.
    Builds,
}

/// Where in the order of buildsets those of a commit can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    /// None up to this one: once it was there, the master still had no source stamp of the commit.
    Above(u64),
    /// Not long before its oldest source stamp.
    Stamp {
        /// Its number; those grow too.
        ssid: u64,
        /// Its time by the master's clock.
        created_at: i64,
    },
    /// Anywhere: the master could not say.
    Anywhere,
}

/// The buildsets that were read before are no longer there: it is another database.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replaced;

impl BuildsetIndex {
    /// Whether anything was put in, be it the knowledge that there are no buildsets.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// The newest buildset; 0 where there is none.
    pub(super) fn newest(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.bsid)
    }

    /// The oldest buildset; 0 where there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.entries.front().map_or(0, |entry| entry.bsid)
    }

    /// How many buildsets it holds.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds as many buildsets as it may.
    pub(super) fn full(&self) -> bool {
        self.entries.len() >= KEPT_MAX
    }

    /// The number after which a page of newer buildsets begins if its first `overlap` are those
    /// already held.
    pub(super) fn resume_after(&self, overlap: usize) -> u64 {
        let skipped = self.entries.len().saturating_sub(overlap);
        match self.entries.get(skipped) {
            Some(first) => first.bsid.saturating_sub(1),
            None => self.newest(),
        }
    }

    /// Puts the next older buildsets below the oldest, newest first; `last` says that no older exist.
    pub(super) fn extend_back(&mut self, page: &[Buildset], last: bool) {
        self.begun = true;
        for buildset in page {
            if self
                .entries
                .front()
                .is_none_or(|oldest| buildset.bsid < oldest.bsid)
            {
                self.entries.push_front(Entry::new(buildset));
            }
        }
        self.bottom |= last;
    }

    /// Puts buildsets on top of the newest, oldest first, all that came after `after`. Where they
    /// overlap what is held they must be the same.
    ///
    /// # Errors
    ///
    /// They are not the same.
    pub(super) fn extend_forward(&mut self, after: u64, page: &[Buildset]) -> Result<(), Replaced> {
        let reach = page.last().map_or(u64::MAX, |last| last.bsid);
        let mut held = self
            .entries
            .iter()
            .filter(|e| e.bsid > after && e.bsid <= reach);
        let newest = self.newest();
        for buildset in page.iter().filter(|buildset| buildset.bsid <= newest) {
            let same = held.next().is_some_and(|entry| {
                entry.bsid == buildset.bsid
                    && entry.submitted_at == buildset.submitted_at
                    && entry.newest_stamp == newest_stamp(buildset)
            });
            if !same {
                return Err(Replaced);
            }
        }
        if held.next().is_some() {
            return Err(Replaced);
        }
        for buildset in page.iter().filter(|buildset| buildset.bsid > newest) {
            self.entries.push_back(Entry::new(buildset));
        }
        while self.entries.len() > KEPT_MAX {
            self.entries.pop_front();
            self.bottom = false;
        }
        Ok(())
    }

    /// Whether every buildset that can be one of a commit with this floor is held.
    pub(super) fn reaches(&self, floor: Floor) -> bool {
        if self.bottom {
            return true;
        }
        match floor {
            Floor::Above(bsid) => {
                self.begun
                    && self
                        .entries
                        .front()
                        .is_none_or(|oldest| oldest.bsid <= bsid + 1)
            }
            Floor::Stamp { ssid, created_at } => {
                self.entries.len() >= RUN_UP
                    && self.entries.iter().take(RUN_UP).all(|entry| {
                        entry.newest_stamp < ssid
                            && entry.submitted_at < created_at.saturating_sub(CLOCK_MARGIN)
                    })
            }
            Floor::Anywhere => false,
        }
    }

    /// The buildsets that name this commit, oldest first.
    pub(super) fn of_commit(&self, sha: &Sha) -> Vec<(u64, Naming)> {
        self.entries
            .iter()
            .filter(|entry| entry.commits.contains(sha))
            .filter_map(|entry| Some((entry.bsid, entry.naming?)))
            .collect()
    }

    /// Those of the newest buildsets that may yet turn out to name any commit.
    pub(super) fn vague(&self) -> Vec<u64> {
        self.entries
            .iter()
            .rev()
            .take(VAGUE_MAX)
            .filter(|entry| entry.naming.is_none())
            .map(|entry| entry.bsid)
            .collect()
    }

    /// What the builds of a buildset named, all being over.
    pub(super) fn named_by_builds(&mut self, bsid: u64, commits: BTreeSet<Sha>) {
        if let Ok(at) = self.entries.binary_search_by_key(&bsid, |entry| entry.bsid)
            && let Some(entry) = self.entries.get_mut(at)
            && entry.naming.is_none()
        {
            entry.commits = commits;
            entry.naming = Some(Naming::Builds);
        }
    }
}

impl Entry {
    fn new(buildset: &Buildset) -> Self {
        Self {
            bsid: buildset.bsid,
            submitted_at: buildset.submitted_at,
            newest_stamp: newest_stamp(buildset),
            commits: buildset.commits(),
            naming: (!buildset.vague()).then_some(Naming::Stamps),
        }
    }
}

fn newest_stamp(buildset: &Buildset) -> u64 {
    buildset
        .sourcestamps
        .iter()
        .map(|stamp| stamp.ssid)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60;

    fn buildset(bsid: u64, submitted_at: i64, ssid: u64, revision: &str) -> Buildset {
        serde_json::from_value(serde_json::json!({
            "bsid": bsid,
            "submitted_at": submitted_at,
            "sourcestamps": [{"ssid": ssid, "revision": revision, "created_at": submitted_at}],
        }))
        .expect("a buildset")
    }

    fn commit(n: u64) -> String {
        format!("{n:040x}")
    }

    /// Buildsets `from..=to`, each an hour after the one before, each with a stamp of its own number.
    fn stretch(from: u64, to: u64) -> Vec<Buildset> {
        (from..=to)
            .map(|n| buildset(n, i64::try_from(n).expect("small") * HOUR, n, &commit(n)))
            .collect()
    }

    fn descending(from: u64, to: u64) -> Vec<Buildset> {
        stretch(from, to).into_iter().rev().collect()
    }

    fn held(from: u64, to: u64, last: bool) -> BuildsetIndex {
        let mut index = BuildsetIndex::default();
        index.extend_back(&descending(from, to), last);
        index
    }

    #[test]
    fn an_empty_master_is_known_to_its_beginning() {
        let index = held(1, 0, true);
        assert!(index.begun());
        assert_eq!((index.oldest(), index.newest()), (0, 0));
        assert!(index.reaches(Floor::Anywhere));
        assert_eq!(index.of_commit(&Sha::new(commit(1))), []);
    }

    #[test]
    fn a_commit_without_a_stamp_needs_only_what_came_after() {
        let index = held(50, 60, false);
        assert!(index.reaches(Floor::Above(60)));
        assert!(index.reaches(Floor::Above(49)));
        assert!(!index.reaches(Floor::Above(48)), "buildset 49 was not read");
    }

    #[test]
    fn a_commit_with_a_stamp_needs_a_run_up_of_older_buildsets() {
        let stamp = |n: u64| Floor::Stamp {
            ssid: n,
            created_at: i64::try_from(n).expect("small") * HOUR,
        };
        let index = held(100, 300, false);
        assert!(index.reaches(stamp(250)));
        assert!(index.reaches(stamp(201)));
        // The last of the hundred oldest is 199: of stamp 200 it is an hour older, not more.
        assert!(!index.reaches(stamp(200)));
        assert!(!index.reaches(stamp(150)));
        assert!(!held(201, 300, false).reaches(stamp(250)));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_end_the_search() {
        // All of the hundred oldest look older, but one uses a stamp that is younger than ours.
        let mut page = descending(100, 300);
        page[200] = buildset(100, 100 * HOUR, 260, &commit(100));
        let mut index = BuildsetIndex::default();
        index.extend_back(&page, false);
        let floor = Floor::Stamp {
            ssid: 250,
            created_at: 250 * HOUR,
        };
        assert!(!index.reaches(floor));
    }

    #[test]
    fn pages_join_without_a_gap_and_without_a_double() {
        let mut index = held(50, 60, false);
        index.extend_back(&descending(40, 50), false);
        let after = index.resume_after(3);
        assert_eq!(after, 57);
        assert_eq!(index.extend_forward(after, &stretch(58, 65)), Ok(()));
        assert_eq!((index.oldest(), index.newest(), index.len()), (40, 65, 26));
        assert_eq!(
            index.of_commit(&Sha::new(commit(50))),
            [(50, Naming::Stamps)]
        );
    }

    #[test]
    fn an_overlap_that_differs_is_another_database() {
        for page in [stretch(1, 3), vec![], {
            let mut page = stretch(58, 61);
            page[1].submitted_at += 1;
            page
        }] {
            let mut index = held(50, 60, false);
            assert_eq!(index.extend_forward(57, &page), Err(Replaced), "{page:?}");
        }
    }

    #[test]
    fn a_full_page_proves_nothing_beyond_its_end() {
        let mut index = held(50, 60, false);
        assert_eq!(index.extend_forward(57, &stretch(58, 59)), Ok(()));
        assert_eq!(index.newest(), 60);
    }

    #[test]
    fn the_oldest_go_when_too_many_are_held() {
        let kept = u64::try_from(KEPT_MAX).expect("small");
        let mut index = held(1, kept, true);
        assert!(index.reaches(Floor::Anywhere));
        let after = index.resume_after(1);
        assert_eq!(
            index.extend_forward(after, &stretch(kept, kept + 2)),
            Ok(())
        );
        assert_eq!((index.oldest(), index.len()), (3, KEPT_MAX));
        assert!(
            !index.reaches(Floor::Anywhere),
            "the oldest are no longer known"
        );
    }

    #[test]
    fn a_buildset_without_a_revision_is_told_by_its_builds() {
        let mut index = BuildsetIndex::default();
        index.extend_back(
            &[
                buildset(3, 3, 1, ""),
                buildset(2, 2, 2, "abc1234"),
                buildset(1, 1, 3, &commit(1)),
            ],
            true,
        );
        assert_eq!(index.vague(), [3, 2]);
        index.named_by_builds(3, BTreeSet::from([Sha::new(commit(9))]));
        index.named_by_builds(1, BTreeSet::from([Sha::new(commit(9))]));
        assert_eq!(index.vague(), [2]);
        assert_eq!(index.of_commit(&Sha::new(commit(9))), [(3, Naming::Builds)]);
        assert_eq!(index.of_commit(&Sha::new(commit(1))), [(1, Naming::Stamps)]);
    }
}
