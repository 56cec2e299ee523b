//! The pod runtime with real guests: small ones written as text, and the samples' own.

mod attach;
mod commands;
mod exec;
mod functions;
mod guests;
mod hostile;
mod http;
mod http_limits;
mod limits;
#[cfg(feature = "p3")]
mod newer;
mod node;
mod toolbox;
