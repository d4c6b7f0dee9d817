//! `ci-watchdog run`: the daemon.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{FAILED, LogFormat, OK, Run, block_on, complain, load};
use crate::app::{App, Observer, Shared};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::decision::policy::Mode;
use crate::metrics::Metrics;
use crate::web::{self, Web};

/// Reads the configuration, and watches until it is told to stop.
pub(super) fn main(arguments: Run) -> u8 {
    if let Err(error) = log(&arguments) {
        complain(&error);
        return super::USAGE;
    }
    let config = match load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match block_on(watch(config)) {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => {
            complain(&format!("ci-watchdog: {error}"));
            FAILED
        }
        Err(code) => code,
    }
}

/// Runs the daemon: the loop and the server, until SIGTERM or SIGINT.
async fn watch(config: Config) -> Result<(), String> {
    let stop = CancellationToken::new();
    let address = config.server.listen;
    let app = open(config)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("server.listen = {address}: {error}"))?;
    let running = start(app, listener, stop.clone())?;
    on_signals(&running.shared, &stop)?;
    running.ended.await
}

/// A watchdog that runs.
pub(crate) struct Running {
    /// What it shares.
    pub(crate) shared: Arc<Shared>,
    /// Ready when it has stopped.
    pub(crate) ended: std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>>,
}

/// The loop that is ready to start, with what the server needs.
pub(crate) struct Opened {
    app: App,
    metrics: Arc<Metrics>,
    mode: Mode,
}

/// Opens the journal. It comes before the socket: two watchdogs of one configuration share both,
/// and the journal's lock says who the other one is.
///
/// # Errors
///
/// The journal cannot be opened.
pub(crate) fn open(config: Config) -> Result<Opened, String> {
    let metrics = Arc::new(Metrics::new());
    let clock = Arc::new(SystemClock);
    metrics.reload(true, clock.wall());
    let mode = config.policy.mode;
    let observer: Arc<dyn Observer> = Arc::<Metrics>::clone(&metrics);
    let app = App::new(config, clock, observer).map_err(|error| error.to_string())?;
    Ok(Opened { app, metrics, mode })
}

/// Starts the loop and the server; both end when `stop` is cancelled.
///
/// # Errors
///
/// The socket has no address.
pub(crate) fn start(
    opened: Opened,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<Running, String> {
    let Opened { app, metrics, mode } = opened;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let shared = app.shared();
    let mode = match mode {
        Mode::Observe => "observing",
        Mode::Act => "acting",
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "{mode}; the page is http://{address}/"
    );
    let router = web::router(Arc::new(Web {
        shared: Arc::<Shared>::clone(&shared),
        metrics,
    }));
    let server = tokio::spawn(web::serve(listener, router, stop.clone().cancelled_owned()));
    let watching = tokio::spawn(app.run(stop.clone().cancelled_owned()));
    notify_systemd(&Arc::clone(&shared), stop.clone());
    let ended = async move {
        let watched = watching.await;
        stop.cancel();
        let served = server.await;
        watched.map_err(|error| format!("the loop ended badly: {error}"))?;
        served.map_err(|error| format!("the server ended badly: {error}"))
    };
    Ok(Running {
        shared,
        ended: Box::pin(ended),
    })
}

fn on_signals(shared: &Arc<Shared>, stop: &CancellationToken) -> Result<(), String> {
    let handle = |kind| signal(kind).map_err(|error| format!("signals cannot be handled: {error}"));
    let mut term = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut hangup = handle(SignalKind::hangup())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping, after the attempt under way where there is one");
        // systemd may not be there; then nobody waits for it.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        stopping.cancel();
    });
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // The loop logs what came of it.
            let _ = shared.request_reload().await;
        }
    });
    Ok(())
}

/// Tells systemd that we are ready after the first tick, and that we live while the loop ticks.
fn notify_systemd(shared: &Arc<Shared>, stop: CancellationToken) {
    let mut interval_us = 0;
    let watched = sd_notify::watchdog_enabled(false, &mut interval_us);
    let pause = if watched {
        std::time::Duration::from_micros(interval_us / 2)
    } else {
        std::time::Duration::from_secs(1)
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut ready = false;
        while !stop.is_cancelled() {
            let health = shared.health();
            let mut states = Vec::new();
            if !ready && health.last_tick.is_some() {
                ready = true;
                states.push(sd_notify::NotifyState::Ready);
            }
            if watched && health.loop_alive {
                states.push(sd_notify::NotifyState::Watchdog);
            }
            if !states.is_empty() {
                // systemd may not be there; then nobody waits for it.
                let _ = sd_notify::notify(false, &states);
            }
            if ready && !watched {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

fn log(arguments: &Run) -> Result<(), String> {
    let filter = match &arguments.log_level {
        Some(level) => EnvFilter::try_new(level).map_err(|error| {
            format!("--log-level {level}: {error}; write \"info\" or \"debug\"")
        })?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // What cannot be logged is lost: the other way is to panic where standard error fails too,
        // and a full disk under the log must not end the watchdog.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let done = match arguments.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    done.map_err(|error| format!("the log could not be set up: {error}"))
}
