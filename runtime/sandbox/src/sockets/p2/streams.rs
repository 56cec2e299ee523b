//! A connection as `wasi:io` streams.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use coracle_network::{NetError, TcpStream};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use crate::sockets::without_waiting;

/// The most that one read brings, however much the guest asks for.
const MAX_READ: usize = 256 * 1024;

pub(super) fn streams(connection: &TcpStream) -> (DynInputStream, DynOutputStream) {
    (
        Box::new(Incoming(connection.clone())),
        Box::new(Outgoing(connection.clone())),
    )
}

struct Incoming(TcpStream);

#[async_trait::async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        poll_fn(|cx| self.0.poll_readable(cx)).await;
    }
}

#[async_trait::async_trait]
impl InputStream for Incoming {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self
            .0
            .poll_read_bytes(&mut without_waiting(), size.min(MAX_READ))
        {
            Poll::Pending => Ok(Bytes::new()),
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => Err(StreamError::Closed),
            Poll::Ready(Ok(bytes)) => Ok(bytes),
            Poll::Ready(Err(error)) => Err(stream_error(error)),
        }
    }
}

struct Outgoing(TcpStream);

#[async_trait::async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        // An error is ready too: the next write tells it.
        let _ = poll_fn(|cx| self.0.poll_writable(cx)).await;
    }
}

#[async_trait::async_trait]
impl OutputStream for Outgoing {
    fn check_write(&mut self) -> StreamResult<usize> {
        match self.0.poll_writable(&mut without_waiting()) {
            Poll::Pending => Ok(0),
            Poll::Ready(Ok(room)) => Ok(room),
            Poll::Ready(Err(error)) => Err(stream_error(error)),
        }
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let length = bytes.len();
        match self.0.push(bytes) {
            Ok(taken) if taken == length => Ok(()),
            Ok(_) => Err(StreamError::trap(
                "write exceeded the room that check-write gave",
            )),
            Err(error) => Err(stream_error(error)),
        }
    }

    /// What was written is on its way already.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }
}

fn stream_error(error: NetError) -> StreamError {
    match error {
        NetError::BrokenPipe => StreamError::Closed,
        error => StreamError::LastOperationFailed(error.into()),
    }
}
