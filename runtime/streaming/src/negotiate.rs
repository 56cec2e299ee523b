//! Which protocol a client and this side agree on: headers of the request in, headers of the answer out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use ring::digest;

use crate::websocket::Framing;

/// What every acceptance of a WebSocket is made with (RFC 6455, 1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// Port-forward over SPDY, and its SPDY within WebSocket.
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// A version of the remote command protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Errors are text.
    V1,
    /// Half-closed streams.
    V2,
    /// Sizes of the terminal.
    V3,
    /// The end is told as a `Status`.
    V4,
    /// Standard input can be ended, in WebSocket.
    V5,
}

/// How exec and attach are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteProtocol {
    /// Channels within WebSocket messages.
    WebSocket(Version, Encoding),
    /// A SPDY stream each.
    Spdy(Version),
}

/// How port-forward is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardProtocol {
    /// Two channels per port, within WebSocket messages.
    WebSocket(Encoding),
    /// Two SPDY streams per connection.
    Spdy,
    /// SPDY within WebSocket messages.
    Tunnel,
}

/// What WebSocket messages of channels look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes.
    Binary,
    /// Text in base64.
    Base64,
}

impl Encoding {
    pub(crate) fn framing(self, half_close: bool) -> Framing {
        match self {
            Self::Binary => Framing::Binary { half_close },
            Self::Base64 => Framing::Base64,
        }
    }
}

/// A protocol, and the headers of the answer 101 that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed<P> {
    /// The protocol.
    pub protocol: P,
    /// All headers of the answer.
    pub headers: HeaderMap,
}

/// Why a client cannot be served, as an HTTP answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// Its text, in upstream's words.
    pub message: String,
    /// Its headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            headers: Vec::new(),
        }
    }
}

/// Agrees on how to speak exec or attach.
pub fn remote_command<B>(request: &Request<B>) -> Result<Agreed<RemoteProtocol>, Refusal> {
    use Encoding::{Base64, Binary};
    use Version::{V1, V2, V3, V4, V5};
    let headers = request.headers();
    if is_websocket(headers) {
        let table = [
            ("v5.channel.k8s.io", (V5, Binary)),
            ("v4.channel.k8s.io", (V4, Binary)),
            ("v4.base64.channel.k8s.io", (V4, Base64)),
            ("channel.k8s.io", (V1, Binary)),
            ("base64.channel.k8s.io", (V1, Base64)),
        ];
        // Whoever can end standard input wants to, in whatever order it says so.
        let first = offered(headers, &header::SEC_WEBSOCKET_PROTOCOL)
            .find(|name| *name == "v5.channel.k8s.io");
        let (protocol, headers) = websocket(headers, &table, (V1, Binary), first)?;
        let protocol = RemoteProtocol::WebSocket(protocol.0, protocol.1);
        return Ok(Agreed { protocol, headers });
    }
    let table = [
        ("v4.channel.k8s.io", V4),
        ("v3.channel.k8s.io", V3),
        ("v2.channel.k8s.io", V2),
        ("channel.k8s.io", V1),
    ];
    let (version, headers) = spdy(request, &table)?;
    let protocol = RemoteProtocol::Spdy(version);
    Ok(Agreed { protocol, headers })
}

/// Agrees on how to speak port-forward.
pub fn port_forward<B>(request: &Request<B>) -> Result<Agreed<ForwardProtocol>, Refusal> {
    let headers = request.headers();
    if is_websocket(headers) {
        let table = [
            (TUNNEL, ForwardProtocol::Tunnel),
            (
                "v4.channel.k8s.io",
                ForwardProtocol::WebSocket(Encoding::Binary),
            ),
            (
                "v4.base64.channel.k8s.io",
                ForwardProtocol::WebSocket(Encoding::Base64),
            ),
        ];
        let default = ForwardProtocol::WebSocket(Encoding::Binary);
        let first = offered(headers, &header::SEC_WEBSOCKET_PROTOCOL).find(|name| *name == TUNNEL);
        let (protocol, headers) = websocket(headers, &table, default, first)?;
        return Ok(Agreed { protocol, headers });
    }
    let (protocol, headers) = spdy(request, &[(PORT_FORWARD, ForwardProtocol::Spdy)])?;
    Ok(Agreed { protocol, headers })
}

/// Whether the client asks for WebSocket.
fn is_websocket(headers: &HeaderMap) -> bool {
    asks_for_upgrade(headers)
        && offered(headers, &header::UPGRADE).any(|name| name.eq_ignore_ascii_case("websocket"))
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    offered(headers, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// The values of a header, which are lists.
fn offered<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

/// Protocols by their names, the best first.
type Table<P> = [(&'static str, P)];

/// The handshake of WebSocket. A client that names no protocol means `default`.
fn websocket<P: Copy>(
    headers: &HeaderMap,
    table: &Table<P>,
    default: P,
    first: Option<&str>,
) -> Result<(P, HeaderMap), Refusal> {
    let bad = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, message);
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        let mut refusal = bad("websocket: version 13 is required");
        let version = HeaderValue::from_static("13");
        refusal
            .headers
            .push((header::SEC_WEBSOCKET_VERSION, version));
        return Err(refusal);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| bad("websocket: the header Sec-WebSocket-Key is missing"))?;
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    let mut asked = first.into_iter().chain(offered(headers, &name)).peekable();
    let agreed = if asked.peek().is_none() {
        (None, default)
    } else {
        let found = asked.find_map(|asked| table.iter().find(|(name, _)| *name == asked));
        let found = found.ok_or_else(|| {
            let asked: Vec<&str> = offered(headers, &name).collect();
            let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            Refusal::new(
                StatusCode::FORBIDDEN,
                format!(
                    "requested protocol(s) are not supported: [{}]; supports {known:?}",
                    asked.join(" ")
                ),
            )
        })?;
        (Some(found.0), found.1)
    };
    let mut accepted = switching("websocket");
    let accept = HeaderValue::try_from(accept(key.as_bytes())).expect("base64 is plain");
    accepted.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = agreed.0 {
        accepted.insert(name, HeaderValue::from_static(protocol));
    }
    Ok((agreed.1, accepted))
}

/// What proves that a key was read.
fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(WEBSOCKET_GUID.as_bytes());
    STANDARD.encode(context.finish())
}

/// The handshake of SPDY (upstream's `httpstream.Handshake`, then its `UpgradeResponse`).
fn spdy<P: Copy, B>(request: &Request<B>, table: &Table<P>) -> Result<(P, HeaderMap), Refusal> {
    let headers = request.headers();
    let asked: Vec<&str> = offered(headers, &STREAM_PROTOCOL).collect();
    if asked.is_empty() {
        let message = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let mut agreed = asked
        .iter()
        .filter_map(|asked| table.iter().find(|(name, _)| name == asked));
    let Some((name, protocol)) = agreed.next() else {
        let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        let mut refusal = Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                asked.join(" "),
                known.join(" ")
            ),
        );
        for name in known {
            let name = HeaderValue::from_static(name);
            refusal.headers.push((ACCEPTED, name));
        }
        return Err(refusal);
    };
    let spdy = offered(headers, &header::UPGRADE)
        .any(|name| name.to_ascii_lowercase().contains("spdy/3.1"));
    if !asks_for_upgrade(headers) || !spdy {
        let message = "unable to upgrade: missing upgrade headers in request";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let mut accepted = switching("SPDY/3.1");
    accepted.insert(STREAM_PROTOCOL, HeaderValue::from_static(name));
    Ok((*protocol, accepted))
}

fn switching(protocol: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn websocket(protocols: &[&str]) -> Request<()> {
        let mut headers = vec![
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            // The example of RFC 6455, 1.3.
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        headers.extend(
            protocols
                .iter()
                .map(|name| ("sec-websocket-protocol", *name)),
        );
        request(&headers)
    }

    fn spdy(protocols: &[&str]) -> Request<()> {
        let mut headers = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        headers.extend(
            protocols
                .iter()
                .map(|name| ("x-stream-protocol-version", *name)),
        );
        request(&headers)
    }

    #[test]
    fn a_websocket_is_accepted_with_the_proof_of_the_rfc() {
        let agreed = remote_command(&websocket(&["v4.channel.k8s.io"])).unwrap();
        let header = |name: &str| agreed.headers[name].to_str().unwrap();
        assert_eq!(
            header("sec-websocket-accept"),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(header("sec-websocket-protocol"), "v4.channel.k8s.io");
        assert_eq!(header("upgrade"), "websocket");
    }

    #[test]
    fn exec_is_spoken_in_the_best_way_that_both_know() {
        use Encoding::{Base64, Binary};
        use RemoteProtocol::{Spdy, WebSocket};
        for (request, protocol) in [
            (websocket(&[]), WebSocket(Version::V1, Binary)),
            (
                websocket(&["v4.channel.k8s.io, v5.channel.k8s.io"]),
                WebSocket(Version::V5, Binary),
            ),
            (
                websocket(&["v9.channel.k8s.io", "base64.channel.k8s.io"]),
                WebSocket(Version::V1, Base64),
            ),
            (
                spdy(&["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]),
                Spdy(Version::V4),
            ),
            (spdy(&["channel.k8s.io"]), Spdy(Version::V1)),
        ] {
            assert_eq!(remote_command(&request).unwrap().protocol, protocol);
        }
    }

    #[test]
    fn port_forward_is_spoken_in_the_best_way_that_both_know() {
        for (request, protocol) in [
            (spdy(&[PORT_FORWARD]), ForwardProtocol::Spdy),
            (websocket(&[TUNNEL]), ForwardProtocol::Tunnel),
            (
                websocket(&["v4.channel.k8s.io"]),
                ForwardProtocol::WebSocket(Encoding::Binary),
            ),
        ] {
            assert_eq!(port_forward(&request).unwrap().protocol, protocol);
        }
    }

    #[test]
    fn what_cannot_be_agreed_on_is_refused_in_upstreams_words() {
        let mut old = websocket(&[]);
        old.headers_mut()
            .insert("sec-websocket-version", HeaderValue::from_static("8"));
        let no_upgrade = request(&[("x-stream-protocol-version", "v4.channel.k8s.io")]);
        for (request, status, message) in [
            (
                spdy(&[]),
                400,
                "unable to upgrade: X-Stream-Protocol-Version is required",
            ),
            (
                spdy(&["v9.channel.k8s.io"]),
                403,
                "unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], \
                 server accepts [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]",
            ),
            (
                no_upgrade,
                400,
                "unable to upgrade: missing upgrade headers in request",
            ),
            (old, 400, "websocket: version 13 is required"),
            (
                websocket(&["v9.channel.k8s.io"]),
                403,
                "requested protocol(s) are not supported: [v9.channel.k8s.io]; supports \
                 [\"v5.channel.k8s.io\", \"v4.channel.k8s.io\", \"v4.base64.channel.k8s.io\", \
                 \"channel.k8s.io\", \"base64.channel.k8s.io\"]",
            ),
        ] {
            let refusal = remote_command(&request).unwrap_err();
            assert_eq!(
                (refusal.status.as_u16(), refusal.message.as_str()),
                (status, message)
            );
        }
    }
}
