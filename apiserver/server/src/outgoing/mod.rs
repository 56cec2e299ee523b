//! HTTPS to others: token issuers, and webhooks that know tokens or decide on requests.
//!
//! ```text
//! who asks ─▶ Client: a place, a connection (kept or new), one time limit for all ─▶ a whole, bounded body │ CallError
//!                              └── Outside: TCP, the system's roots, files
//! ```
//!
//! Every answer is read whole within a bound, every call ends within its time, and there are never more connections than
//! the client's places. Redirects are answers, not followed. Errors name hosts and paths; headers, bodies and keys never
//! come into them.

mod backoff;
mod client;
mod kubeconfig;
mod tls;
mod token_file;

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::RootCertStore;

pub(crate) use backoff::{Backoff, may_try_again};
pub use client::{Call, CallError, Client, Reply, Target, TargetError};
pub(crate) use kubeconfig::bearer;
pub use kubeconfig::{KubeconfigError, Webhook};
pub use tls::{TlsError, certificates_in};

use crate::dialer::Connection;

/// What the process gives a client of the world: this crate itself opens no sockets and reads no files.
#[async_trait]
pub trait Outside: Send + Sync {
    /// A connection over TCP to a host's port; resolves names.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>>;

    /// The authorities that the system trusts. The error says why there are none.
    fn roots(&self) -> Result<Arc<RootCertStore>, String>;

    /// A file's contents.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}
