//! The heads of requests and answers as they go through: what belongs to one connection stays behind.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Uri, Version};

/// Headers that speak of a connection and not of a request (RFC 9110, 7.6.1, with those of older days). `trailer` stays:
/// it says what comes after the body.
const OF_A_CONNECTION: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "te",
    "http2-settings",
];

/// Headers that say where a request came from. A client's own would be believed.
const OF_ORIGIN: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-original-forwarded-for",
    "x-original-url",
    "x-original-uri",
    "x-real-ip",
    "x-scheme",
];

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    /// The client.
    pub(crate) client: SocketAddr,
    /// The port that it asked.
    pub(crate) port: u16,
    /// Whether it spoke TLS.
    pub(crate) is_tls: bool,
}

impl Entrance {
    /// The client's address in its shortest form.
    pub(crate) fn client_ip(&self) -> IpAddr {
        self.client.ip().to_canonical()
    }
}

/// The host that a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// As the client wrote it, with its port.
    pub(crate) whole: HeaderValue,
    /// In lower case, without the port and the dot at the end.
    pub(crate) name: String,
}

/// Why a request names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoHost(pub(crate) &'static str);

/// The host that a request names, by its target or by its one header.
pub(crate) fn host<B>(request: &Request<B>) -> Result<Host, NoHost> {
    let mut headers = request.headers().get_all(header::HOST).iter();
    let (first, more) = (headers.next(), headers.next().is_some());
    if more {
        return Err(NoHost("the request has several Host headers"));
    }
    // The target goes before the header (RFC 9112, 3.2.2).
    let whole = match request.uri().authority() {
        Some(authority) => {
            let text = authority.as_str();
            let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
            HeaderValue::from_str(text).map_err(|_| NoHost("the host cannot be read"))?
        }
        None => match first {
            Some(value) => value.clone(),
            None if request.version() == Version::HTTP_10 => HeaderValue::from_static(""),
            None => return Err(NoHost("the request names no host")),
        },
    };
    let text = whole
        .to_str()
        .map_err(|_| NoHost("the host cannot be read"))?;
    let name = match (text.strip_prefix('['), text.rsplit_once(':')) {
        (Some(v6), _) => v6.split(']').next().unwrap_or_default(),
        (None, Some((name, _))) => name,
        (None, None) => text,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name
        .bytes()
        .any(|byte| byte.is_ascii_whitespace() || b"/@,".contains(&byte))
    {
        return Err(NoHost("the host cannot be read"));
    }
    Ok(Host { whole, name })
}

/// What a request wants to speak instead of HTTP, if that may go through.
pub(crate) fn upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let asks = tokens(request.headers(), &header::CONNECTION)
        .any(|token| token.eq_ignore_ascii_case("upgrade"));
    let value = request.headers().get(header::UPGRADE)?;
    let text = value.to_str().ok()?;
    // HTTP/2 on a tunnel would be requests that nobody looks at.
    let is_http = |token: &str| {
        let token = token.trim().to_ascii_lowercase();
        token.starts_with("h2") || token.starts_with("http") || token.starts_with("tls")
    };
    (asks && !text.split(',').any(is_http)).then(|| value.clone())
}

/// Takes out what belongs to the connection that the head came over.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let takes_trailers = tokens(headers, &header::TE).any(|token| {
        token
            .split(';')
            .next()
            .is_some_and(|t| t.trim() == "trailers")
    });
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| token.parse().ok())
        // Nobody may have the proxy's own headers taken out.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    // A length beside an encoding is a way to smuggle a request (RFC 9112, 6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in named {
        headers.remove(name);
    }
    for name in OF_A_CONNECTION {
        headers.remove(*name);
    }
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let tokens = texts.flat_map(|text| text.split(','));
    tokens.map(str::trim).filter(|token| !token.is_empty())
}

/// Makes the head of a request what a backend is to see. `path` is asked for in place of the request's, which keeps its
/// query.
pub(crate) fn forward<B>(
    request: &mut Request<B>,
    host: &Host,
    entrance: &Entrance,
    path: Option<&str>,
    is_http2: bool,
) {
    let upgrade = upgrade(request);
    let headers = request.headers_mut();
    strip(headers);
    for name in OF_ORIGIN {
        headers.remove(*name);
    }
    // The client waits for it, and gets it from here as soon as the body is asked for.
    headers.remove(header::EXPECT);
    join_cookies(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let client = entrance.client_ip().to_string();
    if let Ok(client) = HeaderValue::from_str(&client) {
        headers.insert("x-forwarded-for", client.clone());
        headers.insert("x-real-ip", client);
    }
    let scheme = if entrance.is_tls { "https" } else { "http" };
    headers.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
    headers.insert("x-forwarded-host", host.whole.clone());
    headers.insert("x-forwarded-port", entrance.port.into());
    headers.insert(header::HOST, host.whole.clone());

    let asked = request.uri().path_and_query();
    let asked = asked.map_or("/", |path| path.as_str());
    let asked = if asked.is_empty() { "/" } else { asked };
    let target = match path {
        None => asked.parse::<PathAndQuery>(),
        Some(path) => match request.uri().query() {
            Some(query) => format!("{path}?{query}").parse(),
            None => path.parse(),
        },
    };
    let target = target.unwrap_or_else(|_| PathAndQuery::from_static("/"));
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    *request.version_mut() = Version::HTTP_11;
    if is_http2 {
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
        parts.scheme = Some(http::uri::Scheme::HTTP);
        let authority = host.whole.to_str().ok().and_then(|text| text.parse().ok());
        parts.authority =
            authority.or_else(|| Some(http::uri::Authority::from_static("localhost")));
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static("/"));
}

/// HTTP/2 may cut cookies into several headers, HTTP/1.1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrance() -> Entrance {
        Entrance {
            client: "192.0.2.7:5000".parse().expect("an address"),
            port: 8443,
            is_tls: true,
        }
    }

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn the_host_is_read_from_the_target_or_the_one_header() {
        let cases: &[(&str, &[&str], Result<&str, &str>)] = &[
            ("/", &["Web.Localhost:8080"], Ok("web.localhost")),
            ("/", &["web.example."], Ok("web.example")),
            ("/", &["[::1]:8080"], Ok("::1")),
            ("/", &["[::1]"], Ok("::1")),
            ("http://a.com:1/x", &["b.com"], Ok("a.com")),
            ("http://user@a.com/x", &[], Ok("a.com")),
            ("/", &[], Err("the request names no host")),
            (
                "/",
                &["a", "a"],
                Err("the request has several Host headers"),
            ),
            ("/", &["a/b"], Err("the host cannot be read")),
            ("/", &["a b"], Err("the host cannot be read")),
        ];
        for (target, hosts, wanted) in cases {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let got = host(&request(target, &headers)).map(|host| host.name);
            let wanted = wanted.map(str::to_owned).map_err(NoHost);
            assert_eq!(got, wanted, "{target} {hosts:?}");
        }
        let mut old = request("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(host(&old).map(|host| host.name), Ok(String::new()));
    }

    #[test]
    fn what_belongs_to_a_connection_stays_behind() {
        let mut request = request(
            "/x?q=1",
            &[
                ("host", "web.localhost:8443"),
                ("connection", "close, X-Hop, host"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
                ("te", "deflate, trailers"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABk"),
                ("expect", "100-continue"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "gopher"),
                ("forwarded", "for=1.2.3.4"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("x-own", "stays"),
            ],
        );
        let host = host(&request).expect("a host");
        forward(&mut request, &host, &entrance(), None, false);
        let mut got: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        got.sort();
        let wanted = [
            "cookie: a=1; b=2",
            "host: web.localhost:8443",
            "te: trailers",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: web.localhost:8443",
            "x-forwarded-port: 8443",
            "x-forwarded-proto: https",
            "x-own: stays",
            "x-real-ip: 192.0.2.7",
        ];
        assert_eq!(got, wanted);
        assert_eq!(request.uri(), "/x?q=1");
    }

    #[test]
    fn an_upgrade_goes_through_unless_it_is_to_http() {
        let with = |to: &str| {
            request(
                "/",
                &[
                    ("host", "a"),
                    ("connection", "keep-alive, Upgrade"),
                    ("upgrade", to),
                ],
            )
        };
        assert!(upgrade(&with("websocket")).is_some());
        assert!(upgrade(&with("h2c")).is_none());
        assert!(upgrade(&with("websocket, HTTP/2.0")).is_none());
        assert!(upgrade(&request("/", &[("upgrade", "websocket")])).is_none());
        let mut through = with("websocket");
        let host = host(&through).expect("a host");
        forward(&mut through, &host, &entrance(), None, false);
        assert_eq!(through.headers()["connection"], "upgrade");
        assert_eq!(through.headers()["upgrade"], "websocket");
    }

    #[test]
    fn the_target_is_what_the_backend_expects() {
        for (target, path, is_http2, wanted) in [
            ("http://a.com/x?y", None, false, "/x?y"),
            ("http://a.com", None, false, "/"),
            ("/x?y", Some("/z"), false, "/z?y"),
            ("/x", Some("no path at all"), false, "/"),
            ("/x?y", None, true, "http://a.com:81/x?y"),
        ] {
            let mut request = request(target, &[("host", "a.com:81")]);
            let whole = Host {
                whole: HeaderValue::from_static("a.com:81"),
                name: "a.com".to_owned(),
            };
            forward(&mut request, &whole, &entrance(), path, is_http2);
            assert_eq!(request.uri(), wanted, "{target}");
        }
    }
}
