//! Requests to a server in another pod.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_clock::Clock;
use coracle_network::{ConnectionPolicy, Fabric, FabricConfig, NamespaceConfig, Protocol, Verdict};
use http::Method;
use http_body_util::{Empty, Full};
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const SERVER: [u8; 4] = [10, 240, 0, 2];

/// A pod that answers, and one that asks.
struct Pods {
    outgoing: OutgoingHttp,
    /// Connections that the server took.
    connections: Arc<AtomicUsize>,
    clock: Clock,
    fabric: Arc<Fabric>,
}

impl Pods {
    /// The server answers `/` at once, `/begin` with the begin of a body only, and `/never` never.
    fn start() -> Self {
        let clock = Clock::fake(1);
        let config = FabricConfig {
            pod_ranges: vec!["10.240.0.0/12".parse().unwrap()],
            ..FabricConfig::new(Ipv4Addr::new(10, 240, 0, 1).into())
        };
        let fabric = Fabric::new(config, clock.clone());
        let scope = |last| {
            let address = Ipv4Addr::new(10, 240, 0, last).into();
            let config = NamespaceConfig::new("default/test", address, "test");
            fabric.create_namespace(config).unwrap().scope()
        };
        let server = scope(SERVER[3]);
        let listener = server.listen_tcp((SERVER, 80).into(), 16).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let service = service_fn(serve);
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        let logs = LogQueue::new(clock.clone());
        let trust = Arc::new(TlsTrust::host());
        let outgoing = OutgoingHttp::new(scope(3), trust, logs, Arc::default());
        Self {
            outgoing,
            connections,
            clock,
            fabric,
        }
    }

    async fn ask(
        &mut self,
        path: &str,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        self.request(Method::GET, path, options).await
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        let body = Empty::new().map_err(|never: Infallible| match never {});
        let request = Request::builder()
            .method(method)
            .uri(format!("http://10.240.0.2{path}"))
            .header("host", "10.240.0.2")
            .body(body.boxed_unsync())
            .unwrap();
        let sent = Box::new(async { Ok(()) });
        let answer = self.outgoing.send_request(request, Some(options), sent);
        Box::into_pin(answer).await.map(|(response, _)| response)
    }

    async fn text(&mut self) -> String {
        let response = self.ask("/", RequestOptions::default()).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(
    request: Request<Incoming>,
) -> Result<Response<http_body_util::Either<Full<Bytes>, Begun>>, Infallible> {
    use http_body_util::Either::{Left, Right};
    let body = match request.uri().path() {
        "/never" => std::future::pending().await,
        "/begin" => Right(Begun(false)),
        _ => Left(Full::new(Bytes::from_static(b"whole"))),
    };
    Ok(Response::new(body))
}

/// A body that begins.
struct Begun(bool);

impl Body for Begun {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match std::mem::replace(&mut self.0, true) {
            false => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"begin"))))),
            true => Poll::Pending,
        }
    }
}

fn options() -> RequestOptions {
    RequestOptions {
        connect_timeout: Some(Duration::from_secs(1)),
        first_byte_timeout: Some(Duration::from_secs(2)),
        between_bytes_timeout: Some(Duration::from_secs(3)),
    }
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection_one_after_the_other() {
    let mut pods = Pods::start();
    for _ in 0..5 {
        assert_eq!(pods.text().await, "whole");
        // The server sees the end of the exchange.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pods.connections(), 1);
    // One that is not read to its end is not used again.
    let response = pods.ask("/begin", options()).await.unwrap();
    assert_eq!(pods.connections(), 1);
    drop(response);
    assert_eq!(pods.text().await, "whole");
    assert_eq!(pods.connections(), 2);
}

/// Lets nobody connect.
struct Closed;

impl ConnectionPolicy for Closed {
    fn on_connect(&self, _from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Verdict {
        let reason = "closed".to_owned();
        Verdict::Deny { reason }
    }

    fn on_accept(&self, _from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Verdict {
        Verdict::Allow
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_holds_for_the_next_request_whatever_was_open_before() {
    let mut pods = Pods::start();
    assert_eq!(pods.text().await, "whole");
    pods.fabric.set_policy(Arc::new(Closed));
    let denied = pods.ask("/", RequestOptions::default()).await;
    assert!(matches!(denied, Err(Error::DestinationIpProhibited)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_waited_for_long_is_not_used() {
    let mut pods = Pods::start();
    pods.text().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pods.text().await, "whole");
    assert_eq!(pods.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_and_the_next_ones_have_time_outs_of_their_own() {
    let mut pods = Pods::start();
    let start = pods.clock.monotonic();
    let error = pods.ask("/never", options()).await.unwrap_err();
    assert!(matches!(error, Error::ConnectionReadTimeout), "{error:?}");
    assert_eq!((pods.clock.monotonic() - start).as_secs(), 2);
    let response = pods.ask("/begin", options()).await.unwrap();
    let mut body = pin!(response.into_body());
    assert!(body.frame().await.unwrap().is_ok());
    let start = pods.clock.monotonic();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::ConnectionReadTimeout), "{error:?}");
    assert_eq!((pods.clock.monotonic() - start).as_secs(), 3);
}

#[test]
fn secrets_of_a_target_are_not_shown() {
    for (uri, text) in [
        (
            "https://jane:secret@api:8443/a/b?token=secret",
            "https://api:8443/a/b",
        ),
        ("http://[::1]/?q", "http://[::1]/"),
        ("/path?secret", "http:///path"),
    ] {
        assert_eq!(shown(&uri.parse().unwrap()), text);
    }
}

/// Answers the first request of every connection, and closes it upon the second.
async fn answer_once_each(listener: coracle_network::TcpListener, count: Arc<AtomicUsize>) {
    while let Ok(mut stream) = listener.accept().await {
        count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            for answers in [true, false] {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                if answers {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await?;
                }
            }
            std::io::Result::Ok(())
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_met_the_end_of_its_connection_is_sent_again_if_it_may() {
    let mut pods = Pods::start();
    let namespace = pods.fabric.namespace(SERVER.into()).unwrap();
    let listener = namespace.scope().listen_tcp((SERVER, 81).into(), 4);
    let count = Arc::<AtomicUsize>::default();
    tokio::spawn(answer_once_each(listener.unwrap(), count.clone()));
    for connections in 1..4 {
        let response = pods.ask(":81/", options()).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(&body.to_bytes()[..], b"ok");
        assert_eq!(count.load(Ordering::Relaxed), connections);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A server may have done what this one asks for.
    let post = pods.request(Method::POST, ":81/", options()).await;
    assert!(post.is_err());
    assert_eq!(count.load(Ordering::Relaxed), 3);
}
