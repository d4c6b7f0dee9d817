//! GitHub in the simulated world: pull requests, commits, branches.

use std::collections::BTreeMap;

use ci_watchdog::model::Sha;

/// A commit by its number; its hash is made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit(pub u32);

impl Commit {
    /// Its hash.
    pub fn sha(self) -> Sha {
        Sha::new(format!("c{:07x}", self.0))
    }

    /// The commit of a hash.
    pub fn of(sha: &Sha) -> Option<Self> {
        u32::from_str_radix(sha.as_str().strip_prefix('c')?, 16)
            .ok()
            .map(Self)
    }
}

/// GitHub.
#[derive(Clone, Debug, Default)]
pub struct Github {
    /// Whether it answers.
    pub down: bool,
    /// Whether little is left of the rate limit.
    pub quota_low: bool,
    /// Pull requests by their numbers, which are unique in the whole world.
    pub pulls: BTreeMap<u64, Pull>,
    /// Each repository's branches, by its place.
    pub branches: BTreeMap<usize, Branches>,
    /// What each merge commit was made from: base and head.
    pub parents: BTreeMap<Commit, (Commit, Commit)>,
    next: u32,
}

/// A pull request.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The place of its repository.
    pub repo: usize,
    /// Whether it is open.
    pub open: bool,
    /// Whether it was merged.
    pub merged: bool,
    /// Its head.
    pub head: Commit,
    /// The head that a reviewer approved in a comment.
    pub approved: Option<Commit>,
    /// The builder on which its head really is red, by its place in the repository.
    pub red_on: Option<usize>,
}

/// A repository's branches.
#[derive(Clone, Copy, Debug)]
pub struct Branches {
    /// What is merged.
    pub master: Commit,
    /// What the bot tests to merge.
    pub auto: Option<Commit>,
    /// What the bot only tries.
    pub try_: Option<Commit>,
}

impl Github {
    /// A commit that was not there before.
    pub fn commit(&mut self) -> Commit {
        self.next += 1;
        Commit(self.next)
    }

    /// A merge of a head into a base.
    pub fn merge(&mut self, base: Commit, head: Commit) -> Commit {
        let merge = self.commit();
        self.parents.insert(merge, (base, head));
        merge
    }
}
