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
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BoxError};
use crate::flowcontrol::Place;

/// How long an answer has its turn while it is sent: one that its client reads is sent by then.
const TURN: Duration = Duration::from_millis(5);
/// How long the client may take to read an answer, as upstream's time-out of whole requests.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// The size of a piece; an answer that is not larger is not held.
pub(crate) const PIECE: usize = 64 * 1024;

/// Ends the connection that a request came by; in the extensions of requests from the network.
#[derive(Clone)]
pub(crate) struct Cut(pub(crate) CancellationToken);

/// A body of `bytes` that holds `place` until it is sent or its time is over.
pub(crate) fn held(bytes: Bytes, place: Option<Place>, cut: Option<Cut>) -> Body {
    if bytes.len() <= PIECE {
        return crate::body::full(bytes);
    }
    let left = bytes.len();
    let rest = Arc::new(Mutex::new(Some((bytes, place))));
    let timer = tokio::spawn(give_up(Arc::clone(&rest), cut));
    let held = Held {
        rest,
        left,
        others_next: false,
        timer,
    };
    held.boxed_unsync()
}

type Rest = Arc<Mutex<Option<(Bytes, Option<Place>)>>>;

/// Runs until the body is dropped.
async fn give_up(rest: Rest, cut: Option<Cut>) {
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
    rest: Rest,
    left: usize,
    /// Whether other tasks have their turn before the next piece: encrypting and sending all of it takes milliseconds.
    others_next: bool,
    timer: JoinHandle<()>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.others_next) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = {
            let mut rest = self.rest.lock();
            // Copied: a slice that waits in a connection would keep all of the answer.
            let piece = rest
                .as_mut()
                .map(|(bytes, _)| Bytes::copy_from_slice(&bytes.split_to(PIECE.min(bytes.len()))));
            // The place is free with the last piece, not when the connection finds time to drop the body.
            if piece.as_ref().is_some_and(|piece| piece.len() == self.left) {
                *rest = None;
            }
            piece
        };
        let Some(piece) = piece else {
            self.left = 0;
            return Poll::Ready(Some(Err(
                "the client took too long to read the answer".into()
            )));
        };
        self.left -= piece.len();
        self.others_next = true;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.timer.abort();
    }
}
