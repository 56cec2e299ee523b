//! The health port of a Service (`healthCheckNodePort`): load balancers elsewhere ask it which nodes have endpoints, for those that
//! keep to the node they come by (`externalTrafficPolicy: Local`). It says what upstream's proxies say
//! (`pkg/proxy/healthcheck/service_health.go`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::REST;
use crate::index::{Exposure, Index};

/// Connections of one port at once; more wait in the host's backlog.
const CONNECTIONS: usize = 16;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers at one port for ever.
pub(super) async fn serve(
    listener: TcpListener,
    index: Arc<Index>,
    exposure: Exposure,
    clock: Clock,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return; // never closed
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(?exposure, %error, "cannot accept from outside");
                clock.sleep(REST).await;
                continue;
            }
        };
        let (index, clock) = (index.clone(), clock.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = answer(stream, &index, exposure) => {}
                () = clock.sleep(PATIENCE) => {}
            }
        });
    }
}

async fn answer(stream: TcpStream, index: &Index, exposure: Exposure) {
    let page = |_: http::Request<hyper::body::Incoming>| {
        let response = page(index, &exposure);
        async move { Ok::<_, Infallible>(response) }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), hyper::service::service_fn(page));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a question for a Service's health ended");
    }
}

/// The same whatever is asked for.
fn page(index: &Index, exposure: &Exposure) -> Response<Full<Bytes>> {
    let found = index.ask(|tables| tables.at_exposure(exposure).cloned());
    let Some(found) = found else {
        let mut nobody = Response::new(Full::default());
        *nobody.status_mut() = StatusCode::NOT_FOUND;
        return nobody;
    };
    let entry = &found.service.entry;
    let body = json!({
        "service": {"namespace": entry.key.namespace, "name": entry.key.name},
        "localEndpoints": entry.local_ready,
        "serviceProxyHealthy": true,
    });
    let status = match entry.local_ready {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header("x-content-type-options", "nosniff")
        .header("x-load-balancing-endpoint-weight", entry.local_ready)
        .body(Full::from(body.to_string()))
        .expect("a valid response")
}
