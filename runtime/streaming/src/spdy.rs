//! SPDY/3.1: many streams over one connection, the protocol of `kubectl exec` and `port-forward` before
//! WebSocket, and of `port-forward` within WebSocket since.
//!
//! Only what Kubernetes uses: clients open streams, each with headers that say what it is for; both
//! sides send and end independently. Windows: what was read is reported, so that a client that keeps
//! to windows goes on. The clients of Kubernetes neither keep to windows nor give any, so one that sends
//! to a stream that nobody reads holds up its other streams once that one's buffer is full.

mod connection;
mod frame;
mod headers;

pub(crate) use connection::{Connection, Stream, header};
pub use frame::{Frame, FrameDecoder, FrameEncoder, Headers, Reset, SpdyError};
