//! Large answers: sent in pieces, counted among the requests at work until they are sent, and only for so long.
//!
//! ```text
//! held: bytes and place ──last piece──▶ free
//!        │ 5 ms: others have their turn
//!        │ 60 s: bytes and place are given up, the rest is an error
//!        ▼
//! given up ──60 s──▶ its connection is cut, if the client still does not read
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BoxError};
use crate::flowcontrol::Place;
use crate::gzip::Gzip;
use crate::items::Items;
use crate::pause::Pause;

/// How long an answer has its turn while it is sent: one that its client reads is sent by then.
const TURN: Duration = Duration::from_millis(5);
/// How long the client may take to read an answer, as upstream's time-out of whole requests.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of an answer is encrypted and sent in one go; one that is not larger is not held. It takes about a
/// microsecond for each KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// While one flow alone is served.
    Large,
    /// While others may wait.
    Small,
}

impl Piece {
    fn size(self) -> usize {
        match self {
            Self::Large => 64 * 1024,
            Self::Small => 32 * 1024,
        }
    }
}

/// Ends the connection that a request came by; in the extensions of requests from the network.
#[derive(Clone)]
pub(crate) struct Cut(pub(crate) CancellationToken);

/// The bytes of an answer that were not sent yet.
pub(crate) enum Rest {
    /// As they are.
    Bytes(Bytes),
    /// A list that is written as it is sent.
    Items(Items),
    /// Compressed as they are sent.
    Gzip(Box<Gzip>),
}

impl Rest {
    /// How many there are, if that is known.
    pub(crate) fn len(&self) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::Items(items) => Some(items.len()),
            Self::Gzip(_) => None,
        }
    }

    /// All of them, compressed.
    pub(crate) fn gzip(self) -> Self {
        Self::Gzip(Box::new(Gzip::new(self)))
    }

    /// The next ones, `most` of them if there are as many, or none if some more work is to be done first; and whether
    /// that was all.
    pub(crate) fn take(&mut self, most: usize) -> (Bytes, bool) {
        match self {
            Self::Bytes(bytes) => {
                // Copied: a slice that waits in a connection would keep all of the answer.
                let piece = bytes.split_to(most.min(bytes.len()));
                (Bytes::copy_from_slice(&piece), bytes.is_empty())
            }
            Self::Items(items) => (items.take(most), items.len() == 0),
            Self::Gzip(gzip) => gzip.take(),
        }
    }
}

/// A body of `rest` that holds `place` until it is sent or its time is over.
pub(crate) fn held(mut rest: Rest, piece: Piece, place: Option<Place>, cut: Option<Cut>) -> Body {
    let left = rest.len();
    if left.is_some_and(|left| left <= piece.size()) {
        let bytes = match rest {
            Rest::Bytes(bytes) => bytes,
            _ => rest.take(piece.size()).0,
        };
        return crate::body::full(bytes);
    }
    let rest = Arc::new(Mutex::new(Some((rest, place))));
    let timer = tokio::spawn(give_up(Arc::clone(&rest), cut));
    let held = Held {
        rest,
        piece,
        left,
        ended: false,
        others_next: false,
        pause: Pause::default(),
        timer,
    };
    held.boxed_unsync()
}

/// Emptied when it is sent, or when its time is over.
type Holding = Arc<Mutex<Option<(Rest, Option<Place>)>>>;

/// Runs until the body is dropped.
async fn give_up(rest: Holding, cut: Option<Cut>) {
    tokio::time::sleep(TURN).await;
    if let Some((_, Some(place))) = &*rest.lock() {
        place.done();
    }
    tokio::time::sleep(SEND_TIMEOUT).await;
    drop(rest.lock().take());
    tokio::time::sleep(SEND_TIMEOUT).await;
    if let Some(Cut(cut)) = cut {
        cut.cancel();
    }
}

struct Held {
    rest: Holding,
    piece: Piece,
    left: Option<usize>,
    ended: bool,
    /// Whether other tasks have their turn before the next piece: encrypting and sending all of it takes milliseconds.
    others_next: bool,
    pause: Pause,
    timer: JoinHandle<()>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.ended {
            if self.others_next {
                ready!(self.pause.poll(context));
            }
            self.others_next = true;
            let taken = {
                let mut rest = self.rest.lock();
                let taken = rest.as_mut().map(|(rest, _)| rest.take(self.piece.size()));
                // The place is free with the last piece, not when the connection finds time to drop the body.
                if taken.as_ref().is_some_and(|(_, last)| *last) {
                    *rest = None;
                }
                taken
            };
            let Some((piece, last)) = taken else {
                self.ended = true;
                return Poll::Ready(Some(Err(
                    "the client took too long to read the answer".into()
                )));
            };
            self.ended = last;
            if !piece.is_empty() {
                self.left = self.left.map(|left| left.saturating_sub(piece.len()));
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.left.map(|left| SizeHint::with_exact(left as u64));
        left.unwrap_or_default()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// hyper asks a body that is pending a second time before it lets go of the thread.
    #[tokio::test]
    async fn there_is_no_further_piece_before_others_had_their_turn() {
        let size = Piece::Small.size();
        for (length, expected) in [
            (size, vec![(size, false)]),
            (2 * size, vec![(size, false), (size, true)]),
            (2 * size + 1, vec![(size, false), (size, true), (1, true)]),
        ] {
            let bytes = Bytes::from(vec![b'x'; length]);
            let mut body = held(Rest::Bytes(bytes), Piece::Small, None, None);
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let (mut pieces, mut paused) = (Vec::new(), false);
            loop {
                match body.frame().now_or_never() {
                    Some(Some(frame)) => {
                        let data = frame.expect("no time is over").into_data();
                        let data = data.expect("there are no trailers");
                        pieces.push((data.len(), std::mem::take(&mut paused)));
                    }
                    Some(None) => break,
                    None => {
                        assert!(body.frame().now_or_never().is_none(), "nobody had a turn");
                        tokio::task::yield_now().await;
                        paused = true;
                    }
                }
            }
            assert_eq!(pieces, expected);
        }
    }
}
