//! The pod runtime with real guests: small ones written as text, and the samples' own.

mod attach;
mod commands;
#[cfg(target_os = "linux")]
mod conformance;
mod exec;
mod functions;
mod guests;
mod hostile;
mod http;
mod http_ends;
mod http_limits;
#[cfg(feature = "p3")]
mod http_reuse;
mod http_streams;
mod http_tls;
mod limits;
#[cfg(feature = "p3")]
mod newer;
mod node;
mod pod_limits;
mod toolbox;
mod wasmedge;
