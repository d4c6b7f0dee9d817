//! The connection loop: deadlines on headers and on whole connections, and a cap on connections.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::guard::HEAD_MAX;

/// From a connection's first byte to the end of a request's headers, and between two requests.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a connection lasts, so that a client that does not read its answers cannot keep
/// its place; a reload that waits for a slow tick fits.
pub const CONNECTION_MAX: Duration = Duration::from_secs(120);
/// How much of a connection is kept in memory, bytes. hyper refuses (431) a head only where this
/// much was read before its end came; the guard measures what passes.
const BUFFER_MAX: usize = HEAD_MAX;
/// Connections at one time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 256;
/// How long connections under way may take to end after a stop.
const GRACE: Duration = Duration::from_secs(3);
/// The pause after an accept that failed, so that a lack of file descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is ready, then lets requests under way end.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.clone()),
            );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that goes away or is too slow is its own matter.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
            drop(place);
        });
    }
    // What does not end in time ends with the process.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, place))
}
