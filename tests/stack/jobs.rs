//! What the steps of runs do: the test decides when and how each of them ends.

use std::fs;
use std::path::PathBuf;

/// What a step does, from the moment it reads it (within 50 ms).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It ends well, at once.
    Green,
    /// It ends badly, at once.
    Red,
    /// It waits for another order and prints nothing.
    Silent,
    /// It waits for another order and prints a line every 250 ms.
    Chatter,
    /// It prints a line every 250 ms, and ends after so many seconds of its time.
    Work { seconds: u32, green: bool },
}

/// The orders that steps read, again and again while they run
/// (`tests/stack/buildbot/job.py`). The most special one holds.
pub struct Jobs {
    dir: PathBuf,
}

impl Jobs {
    /// Orders in an empty directory; `default` is for all builders.
    pub fn new(dir: PathBuf, default: Order) -> Self {
        let jobs = Self { dir };
        jobs.write("default", default);
        jobs
    }

    /// Orders every run of a builder.
    pub fn set(&self, builder: &str, order: Order) {
        self.write(builder, order);
    }

    /// Orders every builder that has no order of its own.
    pub fn set_all(&self, order: Order) {
        self.write("default", order);
    }

    /// Orders one step of a builder.
    pub fn set_step(&self, builder: &str, step: &str, order: Order) {
        self.write(&format!("{builder}.{step}"), order);
    }

    /// Orders a builder's runs of one commit.
    pub fn set_commit(&self, builder: &str, sha: &str, order: Order) {
        self.write(&format!("{sha}.{builder}"), order);
    }

    /// The directory that the steps look into.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    fn write(&self, name: &str, order: Order) {
        let word = match order {
            Order::Green => "green".to_owned(),
            Order::Red => "red".to_owned(),
            Order::Silent => "silent".to_owned(),
            Order::Chatter => "chatter".to_owned(),
            Order::Work { seconds, green } => {
                format!("work {seconds} {}", if green { "green" } else { "red" })
            }
        };
        // Renamed into place, so that no step reads half a word.
        let new = self.dir.join(format!(".new-{name}"));
        fs::write(&new, word).expect("an order can be written");
        fs::rename(&new, self.dir.join(name)).expect("an order can be put in place");
    }
}
