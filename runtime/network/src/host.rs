//! A connection over a socket of the host, with the same edges as one in memory: exact readiness,
//! many waiting tasks, and writes that are taken whole once room was announced.

use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::error::NetError;
use crate::wakers::{SharedWaker, Wakers};

const READ_AHEAD: usize = 16 * 1024;
/// How much one write may bring; what the system does not take at once is kept and sent later.
const WRITE_ROOM: usize = 64 * 1024;
/// How long a dropped connection may go on sending what it had promised.
const LINGER: Duration = Duration::from_secs(30);

pub(crate) struct HostSocket(Arc<Shared>);

struct Shared {
    stream: TcpStream,
    runtime: Handle,
    reading: Mutex<Reading>,
    readers: Arc<SharedWaker>,
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct Reading {
    /// Bytes taken from the system to know for certain that there are some.
    ahead: Bytes,
    end: Option<Result<(), NetError>>,
}

#[derive(Default)]
struct Writing {
    /// A task is sending what the system did not take at once.
    busy: bool,
    finish: bool,
    error: Option<NetError>,
    writers: Wakers,
}

impl HostSocket {
    /// Must be called within a tokio runtime, which will send what is left over.
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Latency matters more to guests than segments; an error here means a dead socket, which
        // the first read or write will tell.
        let _ = stream.set_nodelay(true);
        Self(Arc::new(Shared {
            stream,
            runtime: Handle::current(),
            reading: Mutex::default(),
            readers: Arc::default(),
            writing: Mutex::default(),
        }))
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Bytes, NetError>> {
        let mut reading = self.0.reading.lock();
        std::task::ready!(self.0.fill(cx, &mut reading));
        if reading.ahead.is_empty() {
            let end = reading
                .end
                .clone()
                .expect("filled without bytes means the end");
            return Poll::Ready(end.map(|()| Bytes::new()));
        }
        let size = max.min(reading.ahead.len());
        Poll::Ready(Ok(reading.ahead.split_to(size)))
    }

    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), NetError>> {
        let bytes = std::task::ready!(self.poll_read(cx, buffer.remaining()))?;
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.fill(cx, &mut self.0.reading.lock())
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<Result<usize, NetError>> {
        let mut writing = self.0.writing.lock();
        if let Err(error) = writing.check() {
            return Poll::Ready(Err(error));
        }
        if writing.busy {
            writing.writers.park(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(Ok(WRITE_ROOM))
    }

    pub(crate) fn push(&self, mut bytes: Bytes) -> Result<usize, NetError> {
        bytes.truncate(WRITE_ROOM);
        let mut writing = self.0.writing.lock();
        writing.check()?;
        if writing.busy || bytes.is_empty() {
            return Ok(0);
        }
        let taken = bytes.len();
        let sent = match self.0.stream.try_write(&bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                let error = NetError::from(&error);
                writing.error = Some(error.clone());
                return Err(error);
            }
        };
        if sent < taken {
            writing.busy = true;
            let rest = bytes.split_off(sent);
            self.0.runtime.spawn(self.0.clone().send_rest(rest));
        }
        Ok(taken)
    }

    /// No more will be written.
    pub(crate) fn finish(&self) {
        let mut writing = self.0.writing.lock();
        if !std::mem::replace(&mut writing.finish, true) && !writing.busy {
            self.0.shutdown(Shutdown::Write);
        }
    }

    /// The guest wants no more bytes.
    pub(crate) fn shut_read(&self) {
        let mut reading = self.0.reading.lock();
        reading.ahead = Bytes::new();
        reading.end = Some(Ok(()));
        drop(reading);
        std::task::Wake::wake(self.0.readers.clone());
    }

    /// Ends both directions; the peer gets a reset when the last handle is dropped.
    pub(crate) fn reset(&self) {
        self.0.reset_when_closed();
        let mut writing = self.0.writing.lock();
        writing.error = Some(NetError::ConnectionReset);
        if writing.busy {
            // Lest the task that sends the rest keep the socket open.
            self.0.shutdown(Shutdown::Both);
        }
        let writers = writing.writers.take();
        drop(writing);
        writers.wake();
        self.shut_read();
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        if !self.0.reading.lock().ahead.is_empty() {
            self.0.reset_when_closed();
        }
        if self.0.writing.lock().busy {
            let shared = Arc::downgrade(&self.0);
            self.0.runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                if let Some(shared) = shared.upgrade() {
                    shared.shutdown(Shutdown::Both);
                }
            });
        }
    }
}

impl Writing {
    fn check(&self) -> Result<(), NetError> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None if self.finish => Err(NetError::BrokenPipe),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Ready once there are bytes or the end.
    fn fill(&self, cx: &mut Context<'_>, reading: &mut Reading) -> Poll<()> {
        if !reading.ahead.is_empty() || reading.end.is_some() {
            return Poll::Ready(());
        }
        self.readers.park(cx.waker());
        let waker = Waker::from(self.readers.clone());
        let mut shared = Context::from_waker(&waker);
        loop {
            if let Err(error) = std::task::ready!(self.stream.poll_read_ready(&mut shared)) {
                reading.end = Some(Err(NetError::from(&error)));
                return Poll::Ready(());
            }
            let mut buffer = BytesMut::with_capacity(READ_AHEAD);
            match self.stream.try_read_buf(&mut buffer) {
                Ok(0) => reading.end = Some(Ok(())),
                Ok(_) => reading.ahead = buffer.freeze(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => reading.end = Some(Err(NetError::from(&error))),
            }
            return Poll::Ready(());
        }
    }

    async fn send_rest(self: Arc<Self>, mut rest: Bytes) {
        let result = loop {
            if rest.is_empty() {
                break Ok(());
            }
            if let Err(error) = self.stream.writable().await {
                break Err(error);
            }
            match self.stream.try_write(&rest) {
                Ok(sent) => drop(rest.split_to(sent)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => break Err(error),
            }
        };
        let mut writing = self.writing.lock();
        writing.busy = false;
        if let Err(error) = result {
            writing.error.get_or_insert(NetError::from(&error));
        } else if writing.finish {
            self.shutdown(Shutdown::Write);
        }
        let writers = writing.writers.take();
        drop(writing);
        writers.wake();
    }

    /// Errors mean that the connection is gone already, which is what was wanted.
    fn shutdown(&self, how: Shutdown) {
        let _ = SockRef::from(&self.stream).shutdown(how);
    }

    fn reset_when_closed(&self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}
