//! What a proxied request looks like to whoever it goes on to: its path and its headers.
//!
//! As upstream's `UpgradeAwareHandler` (apimachinery's pkg/util/proxy) and the `ReverseProxy` of Go's net/http/httputil
//! make it: the `Host` is the one that the client asked for, the path comes after `proxy`, tidied, and `X-Forwarded-Uri`
//! and `X-Forwarded-For` say what was asked of the API server and from where. What the client itself says of other
//! `X-Forwarded-…` goes on.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::connect::wants_upgrade;
use crate::answer::Answer;
use crate::call::Call;

/// What is about one connection only and doesn't go on.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Takes off what is about one connection only, and what `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named) {
        headers.remove(name);
    }
}

/// Path and query of the request as it goes on; or the way to the root, which ends in a slash.
pub(super) fn path(call: &Call) -> Result<String, Box<Answer>> {
    let query = call.query_text();
    let question = match query {
        "" => String::new(),
        query => format!("?{query}"),
    };
    let path = &call.info.rest_path;
    if path.is_empty()
        && matches!(call.method, Method::GET | Method::HEAD)
        && !wants_upgrade(&call.headers)
    {
        let mut answer = Answer::bytes(StatusCode::MOVED_PERMANENTLY, "", Bytes::new());
        let location = format!("{}/{question}", call.info.path);
        if let Ok(location) = HeaderValue::try_from(location) {
            answer.headers.push((header::LOCATION, location));
        }
        return Err(Box::new(answer));
    }
    Ok(format!("{}{question}", escaped(&tidy(&decoded(path)))))
}

/// The part of the path that leads to the proxy.
pub(super) fn prefix(call: &Call) -> &str {
    let path = call.info.path.as_str();
    path.strip_suffix(call.info.rest_path.as_str())
        .unwrap_or(path)
}

/// The headers as they go on.
pub(super) fn forwarded(call: &Call) -> HeaderMap {
    let mut headers = call.headers.clone();
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        let value = value.to_str().unwrap_or_default();
        value.split(',').any(|coding| coding.trim() == "trailers")
    });
    strip(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(host) = &call.host {
        headers.insert(header::HOST, host.clone());
    }
    if let Some(from) = call.from {
        let mut all: Vec<String> = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        all.push(from.to_string());
        if let Ok(all) = HeaderValue::try_from(all.join(", ")) {
            headers.insert(FORWARDED_FOR, all);
        }
    }
    if wants_upgrade(&call.headers) {
        for name in [header::CONNECTION, header::UPGRADE] {
            if let Some(value) = call.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        return headers;
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let uri = [decoded(prefix(call)), tidy(&decoded(&call.info.rest_path))].concat();
    if let Ok(uri) = HeaderValue::try_from(uri) {
        headers.insert(FORWARDED_URI, uri);
    }
    headers
}

/// The bytes that a part of a URL stands for.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |index: usize| after.get(index).and_then(|&b| char::from(b).to_digit(16));
        rest = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                &after[2..]
            }
            _ => {
                bytes.push(first);
                after
            }
        };
    }
    bytes
}

/// The path without empty segments and dots; it begins with a slash, and ends with one if it did.
fn tidy(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut tidy = vec![b'/'];
    tidy.extend(segments.join(&b'/'));
    if path.ends_with(b"/") && !segments.is_empty() {
        tidy.push(b'/');
    }
    tidy
}

/// The path as Go writes it into a URL.
fn escaped(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(byte.into()),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_and_written_as_go_does() {
        for (path, onward) in [
            ("", "/"),
            ("/", "/"),
            ("/a%20b//c/", "/a%20b/c/"),
            ("/a/../../b/./c", "/b/c"),
            ("/a%2Fb", "/a/b"),
            ("/%ff%3f!", "/%FF%3F%21"),
            ("/a%zz%", "/a%25zz%25"),
            ("/..", "/"),
            ("/x:1;y=2,3@&$+~", "/x:1;y=2,3@&$+~"),
        ] {
            assert_eq!(escaped(&tidy(&decoded(path))), onward, "{path}");
        }
    }

    #[test]
    fn what_a_connection_names_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-own, close"),
            ("x-own", "1"),
            ("keep-alive", "timeout=1"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }
}
