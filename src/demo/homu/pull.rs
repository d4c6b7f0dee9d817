//! One pull request in the fake homu's memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What homu stores as a pull request's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is built; approved or not.
    Idle,
    /// A build is waited for.
    Pending,
    /// The build was green.
    Success,
    /// The build was red.
    Failure,
    /// It could not be merged.
    Error,
}

impl Status {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "",
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
        }
    }
}

/// What homu knows of one builder of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildResult {
    /// Green or red, once it is known.
    pub green: Option<bool>,
    /// The run's page; empty before homu was told of its start.
    pub url: String,
}

/// A pull request as homu holds it (`PullReqState` in homu's `main.py`).
#[derive(Clone, Debug)]
pub struct PullState {
    /// Its number.
    pub number: u64,
    /// Its head, as far as homu was told.
    pub head_sha: String,
    /// Who approved it; empty: nobody.
    pub approved_by: String,
    /// Where it stands.
    pub status: Status,
    /// The commit under test; empty: none.
    pub merge_sha: String,
    /// The builders that are waited for.
    pub results: BTreeMap<String, BuildResult>,
    /// Whether it is only tried.
    pub is_try: bool,
    /// Whether it merges without conflict, where homu knows.
    pub mergeable: Option<bool>,
    /// Higher goes first.
    pub priority: i64,
    /// Whether it is marked for a rollup.
    pub rollup: bool,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// `owner:branch` of its head.
    pub head_ref: String,
    /// The branch that it goes into.
    pub base_ref: String,
}

impl PullState {
    /// A pull request that was just opened.
    pub(super) fn new(number: u64, head_sha: &str) -> Self {
        Self {
            number,
            head_sha: head_sha.to_owned(),
            approved_by: String::new(),
            status: Status::Idle,
            merge_sha: String::new(),
            results: BTreeMap::new(),
            is_try: false,
            mergeable: None,
            priority: 0,
            rollup: false,
            title: String::new(),
            body: String::new(),
            head_ref: String::new(),
            base_ref: String::new(),
        }
    }

    /// The word on the queue page: `approved` is computed, never stored.
    pub fn shown_status(&self) -> &'static str {
        let approved = self.status == Status::Idle
            && !self.approved_by.is_empty()
            && self.mergeable != Some(false);
        if approved {
            "approved"
        } else {
            self.status.as_str()
        }
    }

    /// The order on the page and in the queue (`sort_key` in homu's `main.py`).
    pub(super) fn order(&self) -> impl Ord + use<> {
        let rank = match self.shown_status() {
            "success" => 0,
            "pending" => 1,
            "approved" => 2,
            "" => 3,
            "error" => 4,
            _ => 5,
        };
        (
            rank,
            self.mergeable == Some(false),
            self.approved_by.is_empty(),
            self.rollup,
            Reverse(self.priority),
            self.number,
        )
    }
}
