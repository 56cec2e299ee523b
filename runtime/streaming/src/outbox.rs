//! What waits to be sent on a connection, and the loop that sends it.
//!
//! Frames with data wait in a short queue, in their order, and whoever brings more waits for room. Answers
//! that the connection itself owes its peer overtake them; there is a bound to how many may be owed.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

/// Frames with data that wait.
const QUEUE: usize = 16;
/// Most bytes of a frame with data.
pub(crate) const PIECE: usize = 32 << 10;
/// Most answers that may be owed.
const OWED: usize = 4096;
/// Frames are put together up to so many bytes.
const BATCH: usize = 64 << 10;

/// The peer asks for more than it takes.
#[derive(Debug, thiserror::Error)]
#[error("the peer does not read the answers to what it asks")]
pub(crate) struct Flooded;

/// The near end; cheap to clone. The connection's writing ends once all are gone.
pub(crate) struct Outbox<F> {
    owed: Arc<Owed<F>>,
    frames: mpsc::Sender<F>,
}

impl<F> Clone for Outbox<F> {
    fn clone(&self) -> Self {
        Self {
            owed: self.owed.clone(),
            frames: self.frames.clone(),
        }
    }
}

/// An [`Outbox`] that does not keep the connection open, and can only owe.
pub(crate) struct WeakOutbox<F> {
    owed: Arc<Owed<F>>,
    frames: mpsc::WeakSender<F>,
}

impl<F> Clone for WeakOutbox<F> {
    fn clone(&self) -> Self {
        Self {
            owed: self.owed.clone(),
            frames: self.frames.clone(),
        }
    }
}

impl<F: Send + 'static> WeakOutbox<F> {
    /// The whole, while there is one.
    pub(crate) fn upgrade(&self) -> Option<Outbox<F>> {
        let (owed, frames) = (self.owed.clone(), self.frames.upgrade()?);
        Some(Outbox { owed, frames })
    }

    /// Sends `frame` before everything that waits.
    pub(crate) fn owe(&self, frame: F) -> Result<(), Flooded> {
        self.owed.add(frame, |_, _| false)
    }

    /// As [`owe`](Self::owe), unless `merge` can make it part of one that waits.
    pub(crate) fn owe_or_merge(
        &self,
        frame: F,
        merge: impl Fn(&mut F, &F) -> bool,
    ) -> Result<(), Flooded> {
        self.owed.add(frame, merge)
    }
}

/// The far end.
pub(crate) struct Outgoing<F> {
    owed: Arc<Owed<F>>,
    frames: mpsc::Receiver<F>,
}

struct Owed<F> {
    frames: Mutex<VecDeque<F>>,
    added: Notify,
}

impl<F> Owed<F> {
    fn frames(&self) -> MutexGuard<'_, VecDeque<F>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, frame: F, merge: impl Fn(&mut F, &F) -> bool) -> Result<(), Flooded> {
        let mut frames = self.frames();
        if frames.iter_mut().any(|waiting| merge(waiting, &frame)) {
            return Ok(());
        }
        if frames.len() >= OWED {
            return Err(Flooded);
        }
        frames.push_back(frame);
        drop(frames);
        self.added.notify_one();
        Ok(())
    }
}

pub(crate) fn outbox<F>() -> (Outbox<F>, Outgoing<F>) {
    let (sender, frames) = mpsc::channel(QUEUE);
    let owed = Arc::new(Owed {
        frames: Mutex::default(),
        added: Notify::new(),
    });
    let near = Outbox {
        owed: owed.clone(),
        frames: sender,
    };
    (near, Outgoing { owed, frames })
}

impl<F: Send + 'static> Outbox<F> {
    /// Sends `frame` before everything that waits.
    pub(crate) fn owe(&self, frame: F) -> Result<(), Flooded> {
        self.owed.add(frame, |_, _| false)
    }

    /// One that does not keep the connection open.
    pub(crate) fn downgrade(&self) -> WeakOutbox<F> {
        let (owed, frames) = (self.owed.clone(), self.frames.downgrade());
        WeakOutbox { owed, frames }
    }

    /// Sends `frame` after everything that waits; gives up when the connection has ended.
    pub(crate) async fn send(&self, frame: F) {
        let _ = self.frames.send(frame).await;
    }

    /// The queue, for writers that poll.
    pub(crate) fn queue(&self) -> tokio_util::sync::PollSender<F> {
        tokio_util::sync::PollSender::new(self.frames.clone())
    }
}

/// Whether anything follows a frame.
#[derive(PartialEq)]
pub(crate) enum Then {
    GoOn,
    Stop,
}

impl<F> Outgoing<F> {
    /// Sends until all near ends are gone, or until `encode` says that a frame was the last.
    pub(crate) async fn write<W: AsyncWrite + Unpin>(
        mut self,
        mut target: W,
        mut encode: impl FnMut(F, &mut BytesMut) -> io::Result<Then>,
    ) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(BATCH);
        let mut then = Then::GoOn;
        while then == Then::GoOn {
            let Some(frame) = self.next().await else {
                break;
            };
            then = encode(frame, &mut buffer)?;
            while then == Then::GoOn
                && buffer.len() < BATCH
                && let Some(frame) = self.ready()
            {
                then = encode(frame, &mut buffer)?;
            }
            target.write_all(&buffer).await?;
            target.flush().await?;
            buffer.clear();
        }
        target.shutdown().await
    }

    async fn next(&mut self) -> Option<F> {
        loop {
            if let Some(frame) = self.owed.frames().pop_front() {
                return Some(frame);
            }
            tokio::select! {
                biased;
                () = self.owed.added.notified() => {}
                frame = self.frames.recv() => match frame {
                    Some(frame) => return Some(frame),
                    None => return self.owed.frames().pop_front(),
                },
            }
        }
    }

    fn ready(&mut self) -> Option<F> {
        let owed = self.owed.frames().pop_front();
        owed.or_else(|| self.frames.try_recv().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    #[tokio::test(start_paused = true)]
    async fn answers_overtake_data_and_neither_grows_without_end() {
        let (near, far) = outbox::<u8>();
        for number in 0..QUEUE as u8 {
            near.send(number).await;
        }
        assert!(near.frames.try_send(99).is_err(), "the queue has a bound");
        near.owe(200).unwrap();
        for _ in 0..5 {
            let weak = near.downgrade();
            weak.owe_or_merge(201, |waiting, new| waiting == new)
                .unwrap();
        }
        drop(near);
        let mut written = Vec::new();
        far.write(&mut written, |number, buffer| {
            buffer.put_u8(number);
            Ok(Then::GoOn)
        })
        .await
        .unwrap();
        let expected: Vec<u8> = [200, 201].into_iter().chain(0..QUEUE as u8).collect();
        assert_eq!(written, expected);

        let (near, _far) = outbox::<u8>();
        let owed = std::iter::repeat_with(|| near.owe(1)).take_while(Result::is_ok);
        assert_eq!(owed.take(OWED + 1).count(), OWED);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_the_last_frame() {
        let (near, far) = outbox::<u8>();
        for number in 0..4 {
            near.send(number).await;
        }
        let mut written = Vec::new();
        let encode = |number, buffer: &mut BytesMut| {
            buffer.put_u8(number);
            Ok(if number == 2 { Then::Stop } else { Then::GoOn })
        };
        far.write(&mut written, encode).await.unwrap();
        assert_eq!(written, [0, 1, 2]);
    }
}
