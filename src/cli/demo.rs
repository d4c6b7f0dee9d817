//! `ci-watchdog demo`.

use super::{Demo, FAILED};

pub(super) fn main(arguments: &Demo) -> u8 {
    let _ = arguments.keep_running;
    FAILED
}
