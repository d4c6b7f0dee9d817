//! The machine's clocks.

use std::time::{Duration, SystemTime};

/// The clocks that the loop reads; tests hand in their own.
pub trait Clock: Send + Sync {
    /// Time since boot, suspend included (Linux: `CLOCK_BOOTTIME`).
    fn boot(&self) -> Duration;

    /// Wall time, for people only.
    fn wall(&self) -> SystemTime;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
