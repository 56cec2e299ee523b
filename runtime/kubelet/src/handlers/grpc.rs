//! One call of the gRPC health protocol (`grpc.health.v1.Health/Check`), by hand: its messages are one
//! string and one number.

use bytes::{BufMut, Bytes, BytesMut};
use coracle_cri::BoxedStream;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Failure;

/// Longer answers are none of this protocol.
const MOST_BYTES: usize = 64 << 10;
/// The status of a method or service that the server does not have.
const UNIMPLEMENTED: &str = "12";

/// Asks whether `service` is well; an empty name stands for the whole server.
pub(super) async fn check(
    stream: BoxedStream,
    address: &str,
    port: u16,
    service: &str,
) -> Result<(), Failure> {
    let failed =
        |error: String| Failure::Failed(format!("error: health rpc probe failed: {error}"));
    let (status, message, body) = call(stream, address, port, service).await.map_err(failed)?;
    if status == UNIMPLEMENTED {
        let message = format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        );
        return Err(Failure::Failed(message));
    }
    if status != "0" {
        let error = format!("rpc error: code = {} desc = {message}", code(&status));
        return Err(failed(error));
    }
    match serving_status(&body) {
        Some(1) => Ok(()),
        found => {
            let name = match found {
                Some(0) => "UNKNOWN".to_owned(),
                Some(2) => "NOT_SERVING".to_owned(),
                Some(3) => "SERVICE_UNKNOWN".to_owned(),
                Some(number) => number.to_string(),
                None => return Err(failed("the answer cannot be read".to_owned())),
            };
            let message = format!("service unhealthy (responded with {name:?})");
            Err(Failure::Failed(message))
        }
    }
}

/// The status, the words for it, and the body of the answer.
async fn call(
    stream: BoxedStream,
    address: &str,
    port: u16,
    service: &str,
) -> Result<(String, String, Bytes), String> {
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    let uri = format!("http://{address}:{port}/grpc.health.v1.Health/Check");
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("unexpected HTTP status code: {}", answer.status()));
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?;
        // An answer without a body has its status in front.
        let trailers = body.trailers().cloned().unwrap_or(head.headers);
        let status = text(&trailers, "grpc-status").unwrap_or_else(|| "2".to_owned());
        let message = text(&trailers, "grpc-message").unwrap_or_default();
        Ok((status, message, body.to_bytes()))
    };
    // Both in this task: when the time is up, dropping it closes the connection.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => {
            ended.map_err(|error| error.to_string())?;
            exchange.await
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// `HealthCheckRequest { service }` behind gRPC's prefix: not compressed, and its length.
fn message(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

/// `HealthCheckResponse.status`, which is not there when it is 0.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, message) = framed.split_at_checked(5)?;
    if prefix[0] != 0 {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, rest @ ..] => {
            let mut value = 0u64;
            for (index, byte) in rest.iter().take(9).enumerate() {
                value |= u64::from(byte & 0x7f) << (7 * index);
                if byte & 0x80 == 0 {
                    return Some(value);
                }
            }
            None
        }
        _ => None,
    }
}

/// The names that Go gives to the statuses.
fn code(status: &str) -> &str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let number = status.parse::<usize>().ok();
    number
        .and_then(|number| NAMES.get(number).copied())
        .unwrap_or(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Response};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    /// What the probe says of a server that answers with `body` and `status`.
    async fn asked(service: &'static str, body: &'static [u8], status: &'static str) -> String {
        let (near, far) = tokio::io::duplex(4096);
        let serve =
            hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let sent = request
                    .into_body()
                    .collect()
                    .await
                    .expect("sent")
                    .to_bytes();
                assert_eq!(sent, message(service));
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(status));
                trailers.insert("grpc-message", HeaderValue::from_static("words"));
                let frames = [
                    Frame::data(Bytes::from_static(body)),
                    Frame::trailers(trailers),
                ];
                let frames = frames.map(Ok::<_, std::convert::Infallible>);
                Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(
                    futures::stream::iter(frames),
                )))
            });
        tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(far), serve),
        );
        match check(Box::pin(near), "10.0.0.2", 9, service).await {
            Ok(()) => "well".to_owned(),
            Err(failure) => failure.to_string(),
        }
    }

    #[tokio::test]
    async fn a_server_is_well_when_it_says_serving() {
        assert_eq!(asked("", b"\0\0\0\0\x02\x08\x01", "0").await, "well");
        assert_eq!(
            asked("shop.Cart", b"\0\0\0\0\x02\x08\x01", "0").await,
            "well"
        );
        let unwell = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(asked("", b"\0\0\0\0\x02\x08\x02", "0").await, unwell);
        let unknown = asked("", b"\0\0\0\0\0", "0").await;
        assert_eq!(unknown, "service unhealthy (responded with \"UNKNOWN\")");
        let none = asked("", b"", "12").await;
        assert!(
            none.contains("does not implement the grpc health protocol"),
            "{none}"
        );
        let missing = asked("", b"", "5").await;
        assert_eq!(
            missing,
            "error: health rpc probe failed: rpc error: code = NotFound desc = words"
        );
        assert!(asked("", b"nonsense", "0").await.contains("cannot be read"));
    }

    #[tokio::test]
    async fn a_server_that_speaks_something_else_is_an_error() {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::io::AsyncWriteExt::write_all(&mut far, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .expect("room");
        drop(far);
        let failure = check(Box::pin(near), "10.0.0.2", 9, "").await;
        assert!(matches!(failure, Err(Failure::Failed(_))), "{failure:?}");
    }

    #[test]
    fn any_bytes_can_be_read() {
        for bytes in [
            &b""[..],
            b"\0",
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(serving_status(bytes), None);
        }
    }
}
