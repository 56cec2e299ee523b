//! Many connections at once, and no more than a bound.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use crate::service::ApiServer;

/// How long nothing is accepted after a failure, which is mostly a lack of descriptors and passes as connections end.
const PAUSE: Duration = Duration::from_millis(50);

impl ApiServer {
    /// Serves the connections that `accept` yields until the server stops, at most `most` of them at once.
    ///
    /// While there are as many, nothing is accepted: whoever comes waits where connections wait, such as in a listener's
    /// backlog, and open connections go on. None stays open without requests for long, so whoever waits gets in. `tls`
    /// is asked at the start of every connection.
    pub async fn serve_all<S, F>(
        &self,
        mut accept: impl FnMut() -> F,
        tls: impl Fn() -> Option<Arc<ServerConfig>>,
        most: usize,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = std::io::Result<(S, Option<IpAddr>)>>,
    {
        let places = Arc::new(Semaphore::new(most));
        let stopped = self.stopped();
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (
                    place.expect("the semaphore is never closed"),
                    accept().await,
                )
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = stopped.cancelled() => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    let (server, tls) = (self.clone(), tls());
                    tokio::spawn(async move {
                        if let Err(error) = server.serve(stream, tls, from).await {
                            tracing::debug!(target: "coracle::access", %error, "connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection to the API");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
