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
        Box::new(Incoming {
            connection: connection.clone(),
            closed: false,
        }),
        Box::new(Outgoing {
            connection: connection.clone(),
            closed: false,
        }),
    )
}

struct Incoming {
    connection: TcpStream,
    /// It said that it ended or failed: it says nothing else any more.
    closed: bool,
}

#[async_trait::async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        if !self.closed {
            poll_fn(|cx| self.connection.poll_readable(cx)).await;
        }
    }
}

#[async_trait::async_trait]
impl InputStream for Incoming {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        if size == 0 {
            return Ok(Bytes::new());
        }
        let size = size.min(MAX_READ);
        let read = self
            .connection
            .poll_read_bytes(&mut without_waiting(), size);
        let error = match read {
            Poll::Pending => return Ok(Bytes::new()),
            Poll::Ready(Ok(bytes)) if !bytes.is_empty() => return Ok(bytes),
            Poll::Ready(Ok(_)) => StreamError::Closed,
            Poll::Ready(Err(error)) => stream_error(error),
        };
        self.closed = true;
        Err(error)
    }
}

struct Outgoing {
    connection: TcpStream,
    /// It said that it failed: it says nothing else any more.
    closed: bool,
}

impl Outgoing {
    fn fail(&mut self, error: NetError) -> StreamError {
        self.closed = true;
        stream_error(error)
    }
}

#[async_trait::async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        // An error is ready too: the next write tells it.
        if !self.closed {
            let _ = poll_fn(|cx| self.connection.poll_writable(cx)).await;
        }
    }
}

#[async_trait::async_trait]
impl OutputStream for Outgoing {
    fn check_write(&mut self) -> StreamResult<usize> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        match self.connection.poll_writable(&mut without_waiting()) {
            Poll::Pending => Ok(0),
            Poll::Ready(Ok(room)) => Ok(room),
            Poll::Ready(Err(error)) => {
                let error = self.connection.take_error().unwrap_or(error);
                Err(self.fail(error))
            }
        }
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        let length = bytes.len();
        match self.connection.push(bytes) {
            Ok(taken) if taken == length => Ok(()),
            Ok(_) => Err(StreamError::trap(
                "write exceeded the room that check-write gave",
            )),
            Err(error) => Err(self.fail(error)),
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
