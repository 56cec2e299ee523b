//! Names outside the cluster, by the host's own resolver.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_network::ResolveError;
use tokio::sync::Semaphore;

/// How many lookups may run at once; each holds a thread of tokio's blocking pool.
const CONCURRENT: usize = 64;
/// How long one may take, waiting for its turn included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Resolves names that are not the cluster's.
#[async_trait]
pub(crate) trait Upstream: Send + Sync + 'static {
    /// The addresses of an absolute name, without the last dot.
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError>;
}

/// The host's resolver, with all that its files and name servers say.
pub(crate) struct HostResolver {
    turns: Arc<Semaphore>,
}

impl HostResolver {
    pub(crate) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(CONCURRENT)),
        }
    }
}

#[async_trait]
impl Upstream for HostResolver {
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let turns = self.turns.clone();
        let host = name.to_owned();
        let work = async move {
            let turn = turns.acquire_owned().await;
            // A task of its own: the turn ends with the system's call, not with our patience.
            let call = tokio::spawn(async move {
                let _turn = turn;
                let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
                io::Result::Ok(found.map(|address| address.ip()).collect::<Vec<_>>())
            });
            call.await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(mut addresses)) => {
                let mut seen = Vec::new();
                addresses.retain(|address| {
                    let new = !seen.contains(address);
                    seen.push(*address);
                    new
                });
                if addresses.is_empty() {
                    return Err(ResolveError::NotFound(name.to_owned()));
                }
                Ok(addresses)
            }
            Ok(Err(error)) => {
                tracing::debug!(name, %error, "the host's resolver has no answer");
                Err(failure(&error, name))
            }
            Err(_) => Err(ResolveError::Again(name.to_owned())),
        }
    }
}

/// The system's reason is only in the text: `EAI_AGAIN` has no `ErrorKind`.
fn failure(error: &io::Error, name: &str) -> ResolveError {
    if error.to_string().contains("Temporary failure") {
        ResolveError::Again(name.to_owned())
    } else {
        ResolveError::NotFound(name.to_owned())
    }
}
