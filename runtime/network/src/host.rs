//! A connection over a socket of the host, with the same edges as one in memory: exact readiness,
//! many waiting tasks, and writes that are taken whole once room was announced.

use std::io::{ErrorKind, Read as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
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
            let end = reading.tell_end();
            return Poll::Ready(
                end.expect("filled without bytes means the end")
                    .map(|()| Bytes::new()),
            );
        }
        let size = max.min(reading.ahead.len());
        Poll::Ready(Ok(reading.ahead.split_to(size)))
    }

    /// The next bytes, from the system straight into `buffer`, which must have room; none at the end.
    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), NetError>> {
        let mut reading = self.0.reading.lock();
        if reading.ahead.is_empty() && reading.end.is_none() {
            let read = std::task::ready!(self.0.receive(cx, buffer.initialize_unfilled()));
            match read {
                Ok(0) => reading.end = Some(Ok(())),
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => reading.end = Some(Err(error)),
            }
        }
        if reading.ahead.is_empty() {
            let end = reading.tell_end();
            return Poll::Ready(
                end.expect("there are neither bytes nor an end only before a read"),
            );
        }
        let size = buffer.remaining().min(reading.ahead.len());
        buffer.put_slice(&reading.ahead.split_to(size));
        Poll::Ready(Ok(()))
    }

    /// Writes as much of `data`, which must not be empty, as the system takes at once.
    pub(crate) fn poll_write_from(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, NetError>> {
        let mut writing = self.0.writing.lock();
        writing.tell()?;
        if writing.busy {
            writing.writers.park(cx.waker());
            return Poll::Pending;
        }
        match self.0.stream.try_write(data) {
            Ok(sent) => return Poll::Ready(Ok(sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                writing.error = Some(NetError::from(&error));
                writing.tell()?;
            }
        }
        drop(writing);
        // A task keeps it, and is woken when there is room; so any number of writers can wait.
        let part = &data[..data.len().min(WRITE_ROOM)];
        match self.push(Bytes::copy_from_slice(part))? {
            // Another handle was quicker: its bytes are being sent now.
            0 => self.poll_write_from(cx, data),
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// Has `runtime` watch the socket from now on: whoever uses it there is woken without a detour
    /// over the threads of another one. For sockets that nobody waits on yet.
    pub(crate) fn drive_by(&mut self, runtime: &Handle) {
        let Some(shared) = Arc::get_mut(&mut self.0) else {
            return; // something is being sent
        };
        let _entered = runtime.enter();
        // A second descriptor; closing the first does not end the connection.
        let socket = SockRef::from(&shared.stream).try_clone();
        match socket.and_then(|socket| TcpStream::from_std(socket.into())) {
            Ok(stream) => {
                shared.stream = stream;
                shared.runtime = runtime.clone();
            }
            Err(error) => tracing::debug!(%error, "a socket stays where it was accepted"),
        }
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
        writing.tell()?;
        if writing.busy || bytes.is_empty() {
            return Ok(0);
        }
        let taken = bytes.len();
        let sent = match self.0.stream.try_write(&bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => {
                writing.error = Some(NetError::from(&error));
                writing.tell()?;
                0
            }
        };
        if sent < taken {
            writing.busy = true;
            let rest = bytes.split_off(sent);
            self.0.runtime.spawn(self.0.clone().send_rest(rest));
        }
        Ok(taken)
    }

    /// Whether a write met a reset and nobody was told of it; from now on somebody is.
    pub(crate) fn tell_reset(&self) -> bool {
        self.0.writing.lock().tell() == Err(NetError::ConnectionReset)
    }

    /// No more will be written.
    pub(crate) fn finish(&self) {
        let mut writing = self.0.writing.lock();
        if !std::mem::replace(&mut writing.finish, true) && !writing.busy {
            self.0.shutdown(Shutdown::Write);
        }
    }

    /// Whether bytes are left that nobody has read.
    pub(crate) fn has_unread(&self) -> bool {
        !self.0.reading.lock().ahead.is_empty()
    }

    /// Whether the peer has broken the connection off, as far as was noticed.
    pub(crate) fn is_broken(&self) -> bool {
        let unread = matches!(self.0.reading.lock().end, Some(Err(_)));
        unread || self.0.writing.lock().error.is_some()
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

impl Reading {
    /// How it ended. An error is told once, then it is the end, as the system does it.
    fn tell_end(&mut self) -> Option<Result<(), NetError>> {
        let told = self.end.is_some().then_some(Ok(()));
        std::mem::replace(&mut self.end, told)
    }
}

impl Writing {
    /// As [`check`](Self::check), and a reset is told once.
    fn tell(&mut self) -> Result<(), NetError> {
        let told = self.check();
        if told == Err(NetError::ConnectionReset) {
            self.error = Some(NetError::BrokenPipe);
        }
        told
    }

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
        std::task::ready!(self.poll_ready(cx));
        let mut buffer = BytesMut::zeroed(READ_AHEAD);
        match std::task::ready!(self.receive(cx, &mut buffer)) {
            Ok(0) => reading.end = Some(Ok(())),
            Ok(read) => {
                buffer.truncate(read);
                reading.ahead = buffer.freeze();
            }
            Err(error) => reading.end = Some(Err(error)),
        }
        Poll::Ready(())
    }

    /// Ready when the system says that a read makes sense, which may be in vain.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.readers.park(cx.waker());
        let waker = Waker::from(self.readers.clone());
        // A socket that fails does so again when it is read.
        self.stream
            .poll_read_ready(&mut Context::from_waker(&waker))
            .map(drop)
    }

    /// Reads what the system has; 0 is the end.
    fn receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, NetError>> {
        loop {
            std::task::ready!(self.poll_ready(cx));
            let mut read = 0;
            let socket = SockRef::from(&self.stream);
            let outcome = self.stream.try_io(Interest::READABLE, || {
                read = (&*socket).read(buffer)?;
                // Less than there was room for: nothing is left. Linux tells when more comes, so
                // the next read need not ask in vain.
                let drained = cfg!(target_os = "linux") && 0 < read && read < buffer.len();
                if drained {
                    Err(ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match outcome {
                Ok(()) => return Poll::Ready(Ok(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock && read > 0 => {
                    return Poll::Ready(Ok(read));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(NetError::from(&error))),
            }
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
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
