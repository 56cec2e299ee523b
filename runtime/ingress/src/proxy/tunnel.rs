//! A connection after an upgrade: bytes in both directions, until both have ended or nothing moves any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_clock::Clock;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Held;
use super::pool::Lease;

/// How long the two ends may take to be there after the head was answered.
const UPGRADE: Duration = Duration::from_secs(10);

/// Both ends of an upgrade that the backend agreed to.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) backend: OnUpgrade,
    /// How long nothing may move.
    pub(crate) patience: Duration,
    /// The connection to the backend.
    pub(crate) lease: Lease,
    /// What the request holds.
    pub(crate) held: Held,
    pub(crate) clock: Clock,
}

impl Tunnel {
    /// Moves bytes until the end.
    pub(crate) async fn run(self) {
        let both = async { tokio::try_join!(self.client, self.backend) };
        let (client, backend) = match tokio::time::timeout(UPGRADE, both).await {
            Ok(Ok(both)) => both,
            Ok(Err(error)) => return tracing::debug!(%error, "an upgrade failed"),
            Err(_) => return tracing::debug!("an upgrade took too long"),
        };
        let moved = Arc::new(Moved {
            clock: self.clock.clone(),
            last: AtomicU64::new(0),
        });
        moved.now();
        let mut client = Watched {
            io: TokioIo::new(client),
            moved: moved.clone(),
        };
        let mut backend = TokioIo::new(backend);
        let copy = tokio::io::copy_bidirectional(&mut client, &mut backend);
        tokio::select! {
            ended = copy => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded connection ended");
                }
            }
            () = moved.rests(self.patience) => tracing::debug!("an upgraded connection was silent for too long"),
        }
        drop((self.lease, self.held));
    }
}

/// When bytes last moved.
struct Moved {
    clock: Clock,
    last: AtomicU64,
}

impl Moved {
    fn now(&self) {
        let now = u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Completes once nothing has moved for that long.
    async fn rests(&self, patience: Duration) {
        loop {
            let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
            let rested = self.clock.monotonic().saturating_sub(last);
            match patience.checked_sub(rested).filter(|left| !left.is_zero()) {
                Some(left) => self.clock.sleep(left).await,
                None => return,
            }
        }
    }
}

/// The client's end: whatever moves in either direction moves here.
struct Watched<S> {
    io: S,
    moved: Arc<Moved>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() {
            self.moved.now();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        if written.is_ready() {
            self.moved.now();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
