//! Listeners and connections as streams of the component model.
//!
//! A read or write of no bytes asks for readiness only. `finish` says that the guest wants its buffer
//! back at once: what cannot be done without waiting is cancelled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use coracle_network::{NetError, TcpListener, TcpStream};
use tokio::sync::oneshot;
use wasmtime::component::{
    Destination, Resource, Source, StreamConsumer, StreamProducer, StreamResult,
};
use wasmtime::{AsContextMut, StoreContextMut};

use super::bindings::wasi::sockets::types::ErrorCode;
use super::convert::error_code;
use super::tcp::TcpSocket;
use crate::sockets::options::TcpOptions;
use crate::sockets::p2::SocketHost;

/// The most that one read brings when the guest does not say how much it wants.
const READ: usize = 64 * 1024;

type Produced = Poll<wasmtime::Result<StreamResult>>;

/// What `finish` makes of waiting.
fn waiting(finish: bool) -> Produced {
    match finish {
        true => Poll::Ready(Ok(StreamResult::Cancelled)),
        false => Poll::Pending,
    }
}

fn done(result: StreamResult) -> Produced {
    Poll::Ready(Ok(result))
}

/// Tells once how a direction of a connection ended; the guest may have stopped asking.
struct Outcome(Option<oneshot::Sender<Result<(), ErrorCode>>>);

impl Outcome {
    fn tell(&mut self, outcome: Result<(), NetError>) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(outcome.map_err(|error| error_code(&error)));
        }
    }
}

/// The connections that come in at a listener.
pub(super) struct Accepting {
    pub(super) listener: Arc<TcpListener>,
    /// Accepted sockets inherit the listener's.
    pub(super) options: TcpOptions,
}

impl<T: SocketHost + 'static> StreamProducer<T> for Accepting {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Self::Item>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Produced {
        if destination.remaining(&mut store) == Some(0) {
            return match self.listener.poll_acceptable(cx) {
                Poll::Ready(()) => done(StreamResult::Completed),
                Poll::Pending => waiting(finish),
            };
        }
        match self.listener.poll_accept(cx) {
            Poll::Ready(Ok(connection)) => {
                let socket = TcpSocket::connected(connection, self.options);
                let socket = store.data_mut().sockets().table.push(socket)?;
                destination.set_buffer(Some(socket));
                done(StreamResult::Completed)
            }
            // Closed with its container.
            Poll::Ready(Err(_)) => done(StreamResult::Dropped),
            Poll::Pending => waiting(finish),
        }
    }
}

/// The bytes that come in on a connection.
pub(super) struct Receiving {
    connection: TcpStream,
    outcome: Outcome,
}

impl Receiving {
    pub(super) fn new(
        connection: TcpStream,
        outcome: oneshot::Sender<Result<(), ErrorCode>>,
    ) -> Self {
        let outcome = Outcome(Some(outcome));
        Self {
            connection,
            outcome,
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // A guest that drops the stream before its end wants no more.
        if self.outcome.0.is_some() {
            self.connection.shutdown_read();
        }
        self.outcome.tell(Ok(()));
    }
}

impl<T: 'static> StreamProducer<T> for Receiving {
    type Item = u8;
    type Buffer = Bytes;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Produced {
        let wanted = destination.remaining(&mut store).unwrap_or(READ);
        if wanted == 0 {
            return match self.connection.poll_readable(cx) {
                Poll::Ready(()) => done(StreamResult::Completed),
                Poll::Pending => waiting(finish),
            };
        }
        match self.connection.poll_read_bytes(cx, wanted.min(READ)) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                self.outcome.tell(Ok(()));
                done(StreamResult::Dropped)
            }
            Poll::Ready(Ok(bytes)) => {
                destination.set_buffer(bytes);
                done(StreamResult::Completed)
            }
            Poll::Ready(Err(error)) => {
                self.outcome.tell(Err(error));
                done(StreamResult::Dropped)
            }
            Poll::Pending => waiting(finish),
        }
    }
}

/// The bytes that go out on a connection. Dropped with the guest's stream, whose end is the end of
/// the outgoing direction.
pub(super) struct Sending {
    connection: TcpStream,
    outcome: Outcome,
}

impl Sending {
    pub(super) fn new(
        connection: TcpStream,
        outcome: oneshot::Sender<Result<(), ErrorCode>>,
    ) -> Self {
        let outcome = Outcome(Some(outcome));
        Self {
            connection,
            outcome,
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<usize, NetError>> {
        let room = self.connection.poll_writable(cx);
        room.map_err(|error| self.connection.take_error().unwrap_or(error))
    }

    /// Takes what there is room for, at least one byte.
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, NetError>> {
        let room = ready!(self.poll_room(cx))?;
        let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(room)]);
        Poll::Ready(self.connection.push(piece))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.connection.shutdown_write();
        self.outcome.tell(Ok(()));
    }
}

impl<T: 'static> StreamConsumer<T> for Sending {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'_, T>,
        source: Source<'_, Self::Item>,
        finish: bool,
    ) -> Produced {
        let mut source = source.as_direct(store.as_context_mut());
        let result = if source.remaining().is_empty() {
            self.poll_room(cx).map_ok(|_| 0)
        } else {
            self.poll_send(cx, source.remaining())
        };
        match result {
            Poll::Ready(Ok(sent)) => {
                source.mark_read(sent);
                done(StreamResult::Completed)
            }
            Poll::Ready(Err(error)) => {
                self.outcome.tell(Err(error));
                done(StreamResult::Dropped)
            }
            Poll::Pending => waiting(finish),
        }
    }
}
