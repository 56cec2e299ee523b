//! Connections to servers that stay open between the requests of a container's instances.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_network::Path;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use wasmtime_wasi_http::{Error, WasiBody};

/// How often is looked for connections that have waited for too long.
const LOOK: Duration = Duration::from_secs(2);
/// The looks that a connection survives. Four seconds at most are shorter than most servers wait, so
/// that they seldom close one in the moment that it is used.
const LOOKS: u8 = 1;
/// Connections that wait, to one server and to all. They count among the pod's sockets.
const TO_ONE: usize = 16;
const TO_ALL: usize = 64;

/// Whom a connection is to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) encrypted: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// An open connection; closed when dropped.
pub(super) struct Connection {
    pub(super) sender: SendRequest<WasiBody>,
    pub(super) path: Path,
    driver: JoinHandle<Result<(), Error>>,
}

impl Connection {
    /// A connection along `path` whose bytes `driver` moves.
    pub(super) fn new(
        path: Path,
        sender: SendRequest<WasiBody>,
        driver: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Self {
        let driver = tokio::spawn(driver);
        Self {
            sender,
            path,
            driver,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The connections of one run of a container that wait for another request.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// With how often each was looked at; the one that was used last is at the end.
    servers: HashMap<Server, Vec<(u8, Connection)>>,
    /// A task will look for those that wait for too long.
    is_swept: bool,
}

impl Pool {
    /// The connection to `server` that was used last, of those that can be used.
    pub(super) fn take(&self, server: &Server) -> Option<Connection> {
        let mut waiting = self.0.lock();
        let connections = waiting.servers.get_mut(server)?;
        connections.retain(|(_, connection)| !connection.sender.is_closed());
        // One whose last request is not wholly sent, though it was answered, has to wait.
        let ready = |(_, connection): &(u8, Connection)| connection.sender.is_ready();
        let found = connections.iter().rposition(ready);
        let taken = found.map(|index| connections.remove(index).1);
        if connections.is_empty() {
            waiting.servers.remove(server);
        }
        taken
    }

    /// Keeps a connection whose answer was read to its end, unless enough are kept.
    pub(super) fn put(self: &Arc<Self>, server: Server, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut waiting = self.0.lock();
        let all: usize = waiting.servers.values().map(Vec::len).sum();
        if all >= TO_ALL {
            return;
        }
        let connections = waiting.servers.entry(server).or_default();
        if connections.len() < TO_ONE {
            connections.push((0, connection));
        }
        if !std::mem::replace(&mut waiting.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what has waited for too long; false when nothing is left.
    fn close_old(&self) -> bool {
        let mut waiting = self.0.lock();
        waiting.servers.retain(|_, connections| {
            connections.retain_mut(|(looks, connection)| {
                *looks += 1;
                *looks <= LOOKS && !connection.sender.is_closed()
            });
            !connections.is_empty()
        });
        waiting.is_swept = !waiting.servers.is_empty();
        waiting.is_swept
    }
}

/// Looks after a pool as long as something waits in it.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !pool.upgrade().is_some_and(|pool| pool.close_old()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use std::net::SocketAddr;

    fn server(port: u16) -> Server {
        Server {
            encrypted: false,
            host: "web".to_owned(),
            port,
        }
    }

    /// A connection that is ready, and the other end of it.
    async fn connection() -> (Connection, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(near));
        let (sender, driver) = handshake.await.unwrap();
        let driver = async move { driver.await.map_err(Error::from) };
        let address = SocketAddr::from(([10, 240, 0, 2], 80));
        let path = Path {
            from: address,
            to: address,
            endpoint: address,
        };
        let mut connection = Connection::new(path, sender, driver);
        connection.sender.ready().await.unwrap();
        (connection, far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_used_again_by_requests_to_the_same_server() {
        let pool = Arc::new(Pool::default());
        let (open, _far) = connection().await;
        pool.put(server(80), open);
        assert!(pool.take(&server(81)).is_none());
        assert!(pool.take(&server(80)).is_some());
        assert!(pool.take(&server(80)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_the_server_closed_is_not_used() {
        let pool = Arc::new(Pool::default());
        let (open, far) = connection().await;
        pool.put(server(80), open);
        drop(far);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(pool.take(&server(80)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_for_too_long_is_closed() {
        use tokio::io::AsyncReadExt;
        let pool = Arc::new(Pool::default());
        let (open, mut far) = connection().await;
        pool.put(server(80), open);
        // Ends when the connection is closed.
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(pool.take(&server(80)).is_none());
        assert!(!pool.0.lock().is_swept);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait() {
        let pool = Arc::new(Pool::default());
        let mut ends = Vec::new();
        for index in 0..TO_ALL + TO_ONE {
            let (open, far) = connection().await;
            pool.put(server(u16::try_from(index / (TO_ONE + 1)).unwrap()), open);
            ends.push(far);
        }
        let waiting = pool.0.lock();
        assert!(waiting.servers.values().all(|those| those.len() <= TO_ONE));
        assert_eq!(
            waiting.servers.values().map(Vec::len).sum::<usize>(),
            TO_ALL
        );
    }
}
