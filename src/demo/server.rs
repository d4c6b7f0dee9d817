//! An HTTP server on loopback that can go down, connections and all, and come back on its port.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

/// Connections at one time; a watchdog, a bot and some people open far fewer.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may take to send its headers.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// A server that runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    router: Router,
    state: Mutex<State>,
}

enum State {
    Up(JoinHandle<()>),
    /// Bound but not listening: connections are refused, and nobody else can take the port.
    Down(TcpSocket),
}

impl Server {
    /// A socket of loopback on a port that the system chooses.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn bind() -> io::Result<TcpListener> {
        bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.listen(BACKLOG)
    }

    /// Serves `router` on `listener`.
    ///
    /// # Errors
    ///
    /// When the socket has no address.
    pub fn start(listener: TcpListener, router: Router) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let state = Mutex::new(State::Up(serve(listener, router.clone())));
        Ok(Self {
            address,
            router,
            state,
        })
    }

    /// Cuts every connection, and refuses new ones.
    ///
    /// # Errors
    ///
    /// When the port cannot be kept.
    pub async fn go_down(&self) -> io::Result<()> {
        let task = match &mut *self.lock() {
            State::Up(task) => std::mem::replace(task, tokio::spawn(async {})),
            State::Down(_) => return Ok(()),
        };
        task.abort();
        // The listener and the connections are dropped when the task has ended, and only then
        // can the port be bound again.
        let _ = task.await;
        let held = bind(self.address)?;
        *self.lock() = State::Down(held);
        Ok(())
    }

    /// Serves again on the same port.
    ///
    /// # Errors
    ///
    /// When the port cannot be listened on.
    pub fn come_up(&self) -> io::Result<()> {
        let mut state = self.lock();
        let listening = State::Up(tokio::spawn(async {}));
        match std::mem::replace(&mut *state, listening) {
            State::Up(task) => *state = State::Up(task),
            State::Down(held) => {
                let listener = held.listen(BACKLOG)?;
                *state = State::Up(serve(listener, self.router.clone()));
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &*self.lock() {
            State::Up(task) => task.abort(),
            State::Down(_) => {}
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn serve(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Dropped with this task, and every connection with it.
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors: they come back when connections end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            let service = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_DEADLINE)
                    .serve_connection(TokioIo::new(stream), service);
                // A connection that breaks is its client's trouble.
                let _ = connection.await;
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(stream: &mut TcpStream) -> io::Result<String> {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: fake\r\n\r\n")
            .await?;
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    #[tokio::test]
    async fn a_server_that_is_down_cuts_and_refuses_connections_until_it_is_up() {
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = Server::start(Server::bind().unwrap(), router).unwrap();
        let mut open = TcpStream::connect(server.address).await.unwrap();
        assert!(ask(&mut open).await.unwrap().ends_with("here"));

        server.go_down().await.unwrap();
        assert!(
            ask(&mut open)
                .await
                .map_or(true, |answer| answer.is_empty())
        );
        let refused = TcpStream::connect(server.address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        server.come_up().unwrap();
        let mut open = TcpStream::connect(server.address).await.unwrap();
        assert!(ask(&mut open).await.unwrap().ends_with("here"));
    }
}
