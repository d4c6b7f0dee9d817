//! A wall clock for one process, which a test sets while the process runs (Debian's libfaketime).
//!
//! It stands between a process and what libc says of the wall clock, and of that clock only. Time
//! since boot comes from the kernel as ever, as when a person or NTP sets a machine's clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::tools::libfaketime;

/// What a test calls a year; libfaketime's is as long.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The clock; it agrees with the machine's until it is set.
pub struct WallClock {
    file: PathBuf,
    library: PathBuf,
}

impl WallClock {
    /// A clock whose setting lies in this directory.
    pub fn new(dir: &Path) -> Self {
        let clock = Self {
            file: dir.join("wall-clock"),
            library: libfaketime(),
        };
        clock.set(0);
        clock
    }

    /// Sets it so many years from the machine's clock.
    pub fn set(&self, years: i32) {
        // Renamed into place, so that nobody reads half a number.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{years:+}y\n")).expect("a clock can be set");
        fs::rename(&new, &self.file).expect("a clock can be set");
    }

    /// What gives it to a process.
    pub fn environment(&self) -> [(&str, &str); 5] {
        [
            ("LD_PRELOAD", utf8(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", utf8(&self.file)),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
    }
}

impl Drop for WallClock {
    /// The library leaves a piece of shared memory and a semaphore behind for each process that was
    /// killed, with its number in their names. A process that ends well takes its own away.
    fn drop(&mut self) {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of = name.rsplit_once('_').map_or("", |(_, number)| number);
            let gone = !Path::new("/proc").join(of).exists();
            if name.contains("faketime_s") && gone {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// By how many years a time that was told differs from the machine's clock.
pub fn years_from_now(told: &str) -> i64 {
    let told: SystemTime = told
        .parse::<jiff::Timestamp>()
        .unwrap_or_else(|error| panic!("{told:?} is no time: {error}"))
        .into();
    let half = YEAR.as_secs() / 2;
    let years = |span: Duration| i64::try_from((span.as_secs() + half) / YEAR.as_secs()).unwrap();
    match told.duration_since(SystemTime::now()) {
        Ok(ahead) => years(ahead),
        Err(behind) => -years(behind.duration()),
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}
