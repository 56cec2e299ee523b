//! The streaming protocols of a node: exec, attach and port-forward, as the clients of Kubernetes speak them.
//!
//! ```text
//!            negotiate          serve
//! request ─────────────▶ 101 ─────────▶ WebSocket channels ┐
//!                                       SPDY streams       ├─▶ Session, or connections to ports
//!                                       SPDY in WebSocket  ┘
//! ```
//!
//! It sits between the kubelet, which finds the container, and its runtime, which runs the command: a byte
//! stream comes in, on which the answer 101 was sent, and what it carries is moved to and from a
//! [`Session`](coracle_cri::Session). Everything that waits is bounded. It opens no sockets, decides no
//! access, and knows no Kubernetes objects but the `Status` at the end of a command.

mod forward;
mod idle;
mod negotiate;
mod outbox;
mod remote;
pub mod spdy;
pub mod websocket;

pub use forward::{Forwarding, serve_forward};
pub use idle::Limits;
pub use negotiate::{
    Agreed, Encoding, ForwardProtocol, Refusal, RemoteProtocol, Version, port_forward,
    remote_command,
};
pub use remote::{Failure, Remote, Verb, serve_remote};
