//! WebSocket, from the side that is connected to: channels of bytes within messages, or one stream of
//! bytes.
//!
//! In `channel.k8s.io` the first byte of each message is the number of a channel; in
//! `base64.channel.k8s.io` messages are text: a digit, and the bytes in base64. In `v5.channel.k8s.io` the
//! number 255 ends the channel whose number follows.

mod connection;
mod frame;

pub(crate) use connection::{Framing, WebSocket};
pub use frame::{Event, Frame, FrameDecoder, Role, WebSocketError};
