//! `ci-watchdog demo`: fakes on loopback, broken one after the other, with the real watchdog.

use std::path::Path;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Demo, FAILED, OK, block_on, complain, run, say};
use crate::config;
use crate::demo::{self, DemoOptions, Ended};

pub(super) fn main(arguments: &Demo) -> u8 {
    let options = DemoOptions {
        keep_running: arguments.keep_running,
        reading_time: arguments.reading_time,
        tell: Box::new(say),
        start,
    };
    match block_on(demo::run(options)) {
        Ok(Ok(summary)) if summary.is_as_told() => OK,
        Ok(Ok(_)) => FAILED,
        Ok(Err(error)) => {
            complain(&format!("ci-watchdog demo: {error:#}"));
            FAILED
        }
        Err(code) => code,
    }
}

/// Starts a watchdog as `ci-watchdog run` does, from its configuration file.
fn start(config: &Path, listener: TcpListener, stop: CancellationToken) -> Result<Ended, String> {
    let config = config::load(config).map_err(|mistakes| mistakes.to_string())?;
    let opened = run::open(config)?;
    Ok(run::start(opened, listener, stop)?.ended)
}
