//! HTTP/2 by upgrade: a request of HTTP/1.1 that offers `h2c` becomes the first stream of HTTP/2
//! (RFC 7540, section 3.2; RFC 9113 has dropped it, and `curl --http2` still does it).
//!
//! ```text
//! client: GET / with Upgrade: h2c ─▶ 101 ─▶ client: preface, SETTINGS, …
//! server's input:                            preface, SETTINGS, HEADERS of stream 1, …
//! ```
//!
//! The request is put behind the client's first frame as if it had come in HTTP/2; from there on it is
//! a connection like any other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::Handler;
use super::body::AnswerBody;
use super::connection::UPGRADE_PATIENCE;

/// What a client of HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of a frame's head, and the longest payload that needs no agreement.
const FRAME_HEAD: usize = 9;
const MAX_PAYLOAD: usize = 16 << 10;

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
/// Of HEADERS: the request has no body, and no more headers.
const END_STREAM_AND_HEADERS: u8 = 0x1 | 0x4;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The request as a frame of HTTP/2, if it asks for an upgrade that can be granted: without a body,
/// which would have to be read first, and short enough for one frame. Others are answered in HTTP/1.1,
/// as a server may.
pub(super) fn asked(request: &Request<Incoming>) -> Option<Bytes> {
    let headers = request.headers();
    let names = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let asks = headers.contains_key(header::UPGRADE)
        && request.version() == Version::HTTP_11
        && names(header::UPGRADE, "h2c")
        && names(header::CONNECTION, "upgrade")
        && names(header::CONNECTION, HTTP2_SETTINGS.as_str())
        && headers.get_all(HTTP2_SETTINGS).iter().count() == 1
        && request.body().is_end_stream();
    if asks { as_frame(request) } else { None }
}

/// Answers with 101 and goes on in HTTP/2, with `first` as the first request.
pub(super) fn switch(
    handler: &Arc<Handler>,
    request: Request<Incoming>,
    first: Bytes,
) -> Response<AnswerBody> {
    let upgraded = hyper::upgrade::on(request);
    let this = handler.clone();
    handler.spawner.spawn(async move {
        match begin(upgraded, first).await {
            Ok(io) => {
                let protocol = this.protocol.clone().http2_only();
                this.serve_io(&protocol, TokioIo::new(io)).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade to HTTP/2 came to nothing"),
        }
    });
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("h2c"));
    response
}

/// Reads what the client begins with and puts `first` behind it.
async fn begin(upgraded: OnUpgrade, first: Bytes) -> io::Result<Replayed> {
    let work = async {
        let mut io = TokioIo::new(upgraded.await.map_err(io::Error::other)?);
        let mut ahead = BytesMut::zeroed(PREFACE.len() + FRAME_HEAD);
        io.read_exact(&mut ahead).await?;
        let (preface, head) = ahead.split_at(PREFACE.len());
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if preface != PREFACE || head[3] != SETTINGS || length > MAX_PAYLOAD {
            let why = "the client did not begin with a preface and settings";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let begin = ahead.len();
        ahead.resize(begin + length, 0);
        io.read_exact(&mut ahead[begin..]).await?;
        ahead.extend_from_slice(&first);
        let ahead = ahead.freeze();
        Ok(Replayed { ahead, io })
    };
    let patience = tokio::time::timeout(UPGRADE_PATIENCE, work);
    patience.await.map_err(io::Error::from)?
}

/// HEADERS of stream 1: the request's, without those that are about its connection.
fn as_frame<B>(request: &Request<B>) -> Option<Bytes> {
    let headers = request.headers();
    let authority = headers.get(header::HOST)?;
    let path = request.uri().path_and_query()?;
    let mut block = BytesMut::new();
    block.put_bytes(0, FRAME_HEAD);
    put_header(&mut block, b":method", request.method().as_str().as_bytes());
    put_header(&mut block, b":scheme", b"http");
    put_header(&mut block, b":authority", authority.as_bytes());
    put_header(&mut block, b":path", path.as_str().as_bytes());
    for (name, value) in headers {
        if !is_about_connection(name) {
            put_header(&mut block, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let length = block.len() - FRAME_HEAD;
    if length > MAX_PAYLOAD {
        return None;
    }
    let [_, high, middle, low] = u32::try_from(length).ok()?.to_be_bytes();
    let head = [
        high,
        middle,
        low,
        HEADERS,
        END_STREAM_AND_HEADERS,
        0,
        0,
        0,
        1,
    ];
    block[..FRAME_HEAD].copy_from_slice(&head);
    Some(block.freeze())
}

fn is_about_connection(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::HOST,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HTTP2_SETTINGS,
    ]
    .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// A header that leaves no trace in the other side's table (RFC 7541, section 6.2.2).
fn put_header(block: &mut BytesMut, name: &[u8], value: &[u8]) {
    block.put_u8(0);
    for text in [name, value] {
        put_length(block, text.len());
        block.put_slice(text);
    }
}

/// A number with a prefix of seven bits (RFC 7541, section 5.1), for a text that is not compressed.
fn put_length(block: &mut BytesMut, length: usize) {
    const PREFIX: usize = 0x7f;
    if length < PREFIX {
        block.put_u8(length as u8);
        return;
    }
    block.put_u8(PREFIX as u8);
    let mut rest = length - PREFIX;
    while rest >= 0x80 {
        block.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.put_u8(rest as u8);
}

/// A connection of which some was read already.
struct Replayed {
    ahead: Bytes,
    io: TokioIo<Upgraded>,
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_encoded_in_as_many_bytes_as_they_need() {
        for (length, bytes) in [
            (0, &[0][..]),
            (126, &[126]),
            (127, &[127, 0]),
            (128, &[127, 1]),
            (254, &[127, 127]),
            (255, &[127, 128, 1]),
            (1337 + 96, &[127, 0x9a, 10]),
        ] {
            let mut block = BytesMut::new();
            put_length(&mut block, length);
            assert_eq!(&block[..], bytes, "{length}");
        }
    }

    #[test]
    fn a_request_becomes_one_frame_without_what_was_about_its_connection() {
        let request = Request::get("/a?b")
            .header("host", "web")
            .header("connection", "upgrade, http2-settings")
            .header("upgrade", "h2c")
            .header("http2-settings", "AAMAAABk")
            .header("accept", "*/*")
            .body(())
            .unwrap();
        let frame = as_frame(&request).expect("it is short");
        let text = String::from_utf8_lossy(&frame).into_owned();
        for part in [":path\u{4}/a?b", ":authority\u{3}web", "accept\u{3}*/*"] {
            assert!(text.contains(part), "{text:?}");
        }
        assert!(
            !text.contains("h2c") && !text.contains("settings"),
            "{text:?}"
        );
        assert_eq!(usize::from(frame[2]), frame.len() - FRAME_HEAD);
        let long = Request::get("/")
            .header("host", "web")
            .header("cookie", "x".repeat(MAX_PAYLOAD));
        assert!(as_frame(&long.body(()).unwrap()).is_none());
    }
}
