//! Registries: the OCI distribution specification, from a client's side.
//!
//! ```text
//! Session (one repository, one credential)
//!   ├─ endpoints ── hosts.toml: mirrors first, the registry last
//!   ├─ ask ──────── challenge ─▶ token ─▶ again; redirects; the registry's words on refusal
//!   └─ retrying ─── 408, 429 and 5xx after a pause, broken connections; never 401, 403 or 404
//! ```
//!
//! Our own client rather than a library: a pull has to resume a broken blob, to write it to disk while
//! it comes, to go by mirrors and authorities of files, and to say what the registry said.

pub(crate) mod auth;
pub(crate) mod error;
pub(crate) mod hosts;
mod http;
mod push;
mod session;
mod tls;

pub use error::RegistryError;
pub use http::Patience;
pub(crate) use session::{Registry, Session};
