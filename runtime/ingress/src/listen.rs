//! The listeners of the host, and the connections that they take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connection::Door;

/// Connections at once, of one listener; more wait to be accepted.
const CONNECTIONS: usize = 8192;
/// How long a listener rests when the host has no more sockets to give.
const REST: Duration = Duration::from_millis(50);
/// How long connections have at the stop for what is under way.
const LAST: Duration = Duration::from_secs(5);

/// Serves a listener until the door's stop signal, and then what is under way for some seconds.
pub(crate) async fn serve(listener: TcpListener, door: Door) {
    let door = Arc::new(door);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = door.stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted: std::io::Result<(_, SocketAddr)> = tokio::select! {
            () = door.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no connection can be accepted for Ingresses");
                door.proxy.clock().sleep(REST).await;
                continue;
            }
        };
        // Small answers should not wait for acknowledgements; a socket that just died refuses this.
        let _ = stream.set_nodelay(true);
        let door = door.clone();
        connections.spawn(async move {
            door.serve(stream, client).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST, rest).await;
}
