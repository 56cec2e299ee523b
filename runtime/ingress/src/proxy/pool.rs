//! Connections to endpoints, which stay open between requests.
//!
//! One that rests for some seconds is closed, sooner than most servers would; so those to endpoints that went away do not
//! stay for long, and none is used for a Service that has no such endpoint any more: endpoints are chosen for each request.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_network::TcpStream;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::body::RequestBody;
use super::driver::Driver;

/// How often is looked for connections that rest for too long, and the looks that one survives.
const LOOK: Duration = Duration::from_secs(2);
const LOOKS: u8 = 1;
/// Connections that rest, to one endpoint and to all.
const TO_ONE: usize = 128;
const TO_ALL: usize = 2048;
/// Requests at once on a connection of HTTP/2.
const STREAMS: usize = 100;
/// The most bytes of the head of an answer.
const HEAD: usize = 64 << 10;
/// What an HTTP/2 backend may send ahead: on a stream, and on a connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    driver: Driver,
}

struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    active: AtomicUsize,
    _driver: Driver,
}

impl Http1 {
    /// Whether the backend has closed it; while it rests, nobody else looks.
    fn is_closed(&mut self) -> bool {
        self.driver.look();
        self.sender.is_closed()
    }
}

enum Connection {
    Http1(Http1),
    Http2(Arc<Http2>),
}

/// A connection in use by one request.
pub(crate) struct Lease {
    pool: Weak<Pool>,
    endpoint: SocketAddr,
    connection: Option<Connection>,
    /// It has served another request before.
    pub(crate) is_used: bool,
}

/// The connections that rest, and those of HTTP/2.
#[derive(Default)]
pub(crate) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    /// With how often each was looked at; the one that was used last is at the end.
    resting: HashMap<SocketAddr, Vec<(u8, Http1)>>,
    count: usize,
    shared: HashMap<SocketAddr, Vec<(u8, Arc<Http2>)>>,
    /// A task will look for those that rest for too long.
    is_swept: bool,
}

impl Pool {
    /// A connection to the endpoint that can be used.
    pub(crate) fn take(self: &Arc<Self>, endpoint: SocketAddr, is_http2: bool) -> Option<Lease> {
        let mut state = self.0.lock();
        let connection = match is_http2 {
            true => Connection::Http2(state.take_shared(endpoint)?),
            false => Connection::Http1(state.take_resting(endpoint)?),
        };
        drop(state);
        Some(self.lease(endpoint, connection, true))
    }

    /// A new connection over `stream`.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        endpoint: SocketAddr,
        stream: TcpStream,
        is_http2: bool,
    ) -> hyper::Result<Lease> {
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(HEAD as u32)
                .handshake(io)
                .await?;
            let shared = Arc::new(Http2 {
                sender,
                active: AtomicUsize::new(1),
                _driver: Driver::apart(async move {
                    if let Err(error) = driver.await {
                        tracing::debug!(%endpoint, %error, "connection to a backend ended");
                    }
                }),
            });
            let mut state = self.0.lock();
            let known = state.shared.entry(endpoint).or_default();
            known.push((0, shared.clone()));
            self.sweep_later(&mut state);
            drop(state);
            return Ok(self.lease(endpoint, Connection::Http2(shared), false));
        }
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(io)
            .await?;
        let driver = Driver::at_hand(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%endpoint, %error, "connection to a backend ended");
            }
        });
        let connection = Http1 { sender, driver };
        Ok(self.lease(endpoint, Connection::Http1(connection), false))
    }

    fn lease(
        self: &Arc<Self>,
        endpoint: SocketAddr,
        connection: Connection,
        is_used: bool,
    ) -> Lease {
        Lease {
            pool: Arc::downgrade(self),
            endpoint,
            connection: Some(connection),
            is_used,
        }
    }

    fn put(self: &Arc<Self>, endpoint: SocketAddr, mut connection: Http1) {
        if connection.is_closed() {
            return;
        }
        if !connection.sender.is_ready() {
            // The rest of its request is still to be sent.
            connection.driver.put_apart();
        }
        let mut state = self.0.lock();
        if state.count >= TO_ALL {
            return;
        }
        let resting = state.resting.entry(endpoint).or_default();
        if resting.len() < TO_ONE {
            resting.push((0, connection));
            state.count += 1;
        }
        self.sweep_later(&mut state);
    }

    fn sweep_later(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// How many connections are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        let state = self.0.lock();
        state.count + state.shared.values().map(Vec::len).sum::<usize>()
    }
}

impl State {
    fn take_resting(&mut self, endpoint: SocketAddr) -> Option<Http1> {
        let resting = self.resting.get_mut(&endpoint)?;
        let before = resting.len();
        let mut taken = None;
        let mut index = resting.len();
        while taken.is_none() && index > 0 {
            index -= 1;
            let connection = &mut resting[index].1;
            if connection.is_closed() {
                resting.remove(index);
            } else if connection.sender.is_ready() {
                // One whose last request is not wholly sent, though it was answered, has to wait.
                taken = Some(resting.remove(index).1);
            }
        }
        self.count -= before - resting.len();
        if resting.is_empty() {
            self.resting.remove(&endpoint);
        }
        taken
    }

    fn take_shared(&mut self, endpoint: SocketAddr) -> Option<Arc<Http2>> {
        let shared = self.shared.get_mut(&endpoint)?;
        shared.retain(|(_, connection)| !connection.sender.is_closed());
        let found = shared.iter_mut().find_map(|(looks, connection)| {
            let has_room = |active| (active < STREAMS).then_some(active + 1);
            let update =
                connection
                    .active
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room);
            update.ok()?;
            *looks = 0;
            Some(connection.clone())
        });
        if shared.is_empty() {
            self.shared.remove(&endpoint);
        }
        found
    }

    /// Closes what rests for too long; false when nothing is left.
    fn close_old(&mut self) -> bool {
        self.resting.retain(|_, resting| {
            resting.retain_mut(|(looks, connection)| {
                *looks += 1;
                *looks <= LOOKS && !connection.is_closed()
            });
            !resting.is_empty()
        });
        self.count = self.resting.values().map(Vec::len).sum();
        self.shared.retain(|_, shared| {
            shared.retain_mut(|(looks, connection)| {
                let is_busy = connection.active.load(Ordering::Relaxed) > 0;
                *looks = if is_busy { 0 } else { *looks + 1 };
                *looks <= LOOKS && !connection.sender.is_closed()
            });
            !shared.is_empty()
        });
        self.is_swept = !self.resting.is_empty() || !self.shared.is_empty();
        self.is_swept
    }
}

/// Looks after a pool as long as something is in it.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !pool.upgrade().is_some_and(|pool| pool.0.lock().close_old()) {
            return;
        }
    }
}

impl Lease {
    /// Sends a request, and waits for the head of its answer. A request that was not sent at all is in the error.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self
            .connection
            .as_mut()
            .expect("there until it is finished")
        {
            Connection::Http1(Http1 { sender, driver }) => {
                if !request.body().is_empty() {
                    // Sent while nobody reads the answer, too.
                    driver.put_apart();
                }
                let mut answer = std::pin::pin!(sender.try_send_request(request));
                poll_fn(|context| driver.drive(context, |context| answer.as_mut().poll(context)))
                    .await
            }
            Connection::Http2(connection) => {
                connection.sender.clone().try_send_request(request).await
            }
        }
    }

    /// Polls for what comes over the connection, and moves its bytes for that.
    pub(super) fn drive<T>(
        &mut self,
        context: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &mut self.connection {
            Some(Connection::Http1(connection)) => connection.driver.drive(context, poll),
            _ => poll(context),
        }
    }

    /// Lets the connection's bytes move whether or not anybody polls for them.
    pub(super) fn put_apart(&mut self) {
        if let Some(Connection::Http1(connection)) = &mut self.connection {
            connection.driver.put_apart();
        }
    }

    /// The answer was read to its end: the connection may serve another request.
    pub(crate) fn finish(mut self) {
        if let (Some(Connection::Http1(connection)), Some(pool)) = (
            self.connection
                .take_if(|c| matches!(c, Connection::Http1(_))),
            self.pool.upgrade(),
        ) {
            pool.put(self.endpoint, connection);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Connection::Http2(connection)) = &self.connection {
            connection.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
