//! A small disk of the watchdog's own, which a test fills and frees.
//!
//! It is a small tmpfs, whose kernel says `ENOSPC` when it is full. Where this process may not
//! mount one, as in many containers, the kernel refuses every write to the watchdog's files instead
//! (`RLIMIT_FSIZE`): a disk that fails rather than one that is full, at the same calls.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Room for a journal many times over.
const SIZE: &str = "size=1m";

/// The disk.
pub struct SmallDisk {
    kind: Kind,
    full: bool,
}

enum Kind {
    /// Mounted over this directory.
    Mounted(PathBuf),
    /// A limit on the watchdog's files.
    Limit,
}

impl SmallDisk {
    /// An empty disk under an empty directory.
    pub fn under(dir: &Path) -> Self {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(dir)
            .stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        let kind = if mounted {
            Kind::Mounted(dir.to_owned())
        } else {
            Kind::Limit
        };
        Self { kind, full: false }
    }

    /// What the journal says when it is full.
    pub fn complaint(&self) -> &'static str {
        match self.kind {
            Kind::Mounted(_) => "because its disk is full",
            Kind::Limit => "the journal cannot be written",
        }
    }

    /// Leaves no room, and none to the watchdog that runs.
    pub fn fill(&mut self, watchdog: Option<u32>) {
        self.full = true;
        match &self.kind {
            Kind::Mounted(dir) => {
                let mut ballast = File::create(ballast(dir)).expect("a file can be made");
                while ballast.write_all(&[0; 4096]).is_ok() {}
            }
            Kind::Limit => limit(watchdog, Some(0)),
        }
    }

    /// Gives the room back.
    pub fn free(&mut self, watchdog: Option<u32>) {
        self.full = false;
        match &self.kind {
            Kind::Mounted(dir) => fs::remove_file(ballast(dir)).expect("it is there"),
            Kind::Limit => limit(watchdog, None),
        }
    }

    /// What stands before the watchdog's command when it is started on this disk.
    pub fn prefix(&self) -> Vec<&'static str> {
        // The signal of the limit would end it; a full disk sends none.
        let deaf = ["env", "--ignore-signal=XFSZ"];
        match (&self.kind, self.full) {
            (Kind::Mounted(_), _) => vec![],
            (Kind::Limit, false) => deaf.to_vec(),
            (Kind::Limit, true) => [["prlimit", "--fsize=0:"], deaf].concat(),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Kind::Mounted(dir) = &self.kind {
            // Somebody may still have files of it.
            let _ = Command::new("umount").arg("--lazy").arg(dir).status();
        }
    }
}

fn ballast(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

fn limit(process: Option<u32>, current: Option<u64>) {
    let Some(process) = process else { return };
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).expect("a child's limit can be set");
}
