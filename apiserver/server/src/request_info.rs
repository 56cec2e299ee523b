//! What a request is about, read from its method, path and query.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/request.RequestInfoFactory`: authorization and dispatch see the same answer.

use http::{Method, Uri};

/// What a request asks for, before anything is looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestInfo {
    /// Whether the path names a resource (`/api/…`, `/apis/…` with a resource segment).
    pub is_resource: bool,
    /// The path as sent, without the query.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; or the lower-case method for
    /// paths that name no resource.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Plural name.
    pub resource: String,
    /// Object name, or empty.
    pub name: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// What follows the subresource (`proxy/…`), decoded.
    pub rest: String,
    /// What follows the subresource as sent, with its slash; empty when nothing does, not even a slash.
    pub rest_path: String,
    /// The query as sent.
    pub query_text: String,
    /// Decoded query, in the order sent.
    pub query: Query,
    /// The namespace segment was there and empty (`/namespaces//pods`).
    pub empty_namespace: bool,
    /// The deprecated `/watch/` prefix was used.
    pub watch_prefix: bool,
}

impl RequestInfo {
    /// Reads `method` and `uri`. Never fails: a path that fits nothing is simply not a resource.
    pub fn parse(method: &Method, uri: &Uri) -> Self {
        let query = Query::parse(uri.query().unwrap_or_default());
        let path = uri.path().to_owned();
        let mut info = Self {
            verb: plain_verb(method),
            query_text: uri.query().unwrap_or_default().to_owned(),
            query,
            ..Self::default()
        };
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(percent_decode)
            .collect();
        info.path = path;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        info.segments(rest);
        if !info.subresource.is_empty() {
            let after = info
                .rest
                .split('/')
                .filter(|_| !info.rest.is_empty())
                .count();
            let before = parts.len() - after;
            let mut slashes = info.path.match_indices('/').map(|(at, _)| at);
            // The path begins with a slash; each segment before has one.
            let at = slashes.nth(before);
            info.rest_path = at.map_or("", |at| &info.path[at..]).to_owned();
        }
        info
    }

    fn segments(&mut self, mut rest: &[&str]) {
        if rest.len() > 1 && rest[0] == "watch" {
            self.watch_prefix = true;
            self.verb = "watch";
            rest = &rest[1..];
        }
        if rest[0] == "namespaces" && rest.len() > 1 {
            self.namespace = rest[1].to_owned();
            // `/namespaces/x/status` and `/namespaces/x/finalize` are subresources of the namespace itself.
            if rest.len() > 2 && !matches!(rest[2], "status" | "finalize") {
                self.empty_namespace = rest[1].is_empty();
                rest = &rest[2..];
            }
        }
        self.resource = rest[0].to_owned();
        self.name = rest.get(1).copied().unwrap_or_default().to_owned();
        self.subresource = rest.get(2).copied().unwrap_or_default().to_owned();
        self.rest = rest.get(3..).unwrap_or_default().join("/");
        if self.name.is_empty() {
            match self.verb {
                "get" if truthy(self.query.get("watch")) => self.verb = "watch",
                "get" => self.verb = "list",
                "delete" => self.verb = "deletecollection",
                _ => {}
            }
        }
    }

    /// `resource/subresource`, as access is decided.
    pub fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// A decoded query string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `text`; `+` is a space, broken escapes stay as they are.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                percent_decode(&key.replace('+', " ")),
                percent_decode(&value.replace('+', " ")),
            )
        });
        Self(pairs.collect())
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// Whether `key` occurs.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

/// How Go's conversion of query parameters reads a boolean: everything but `false`, `0` and absence is true.
pub(crate) fn truthy(value: Option<&str>) -> bool {
    !matches!(
        value.map(str::to_ascii_lowercase).as_deref(),
        None | Some("false" | "0")
    )
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::DELETE => "delete",
        Method::PATCH => "patch",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}

pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |index: usize| {
            bytes
                .get(index)
                .and_then(|byte| (*byte as char).to_digit(16))
        };
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::parse(
            &method.parse().expect("a method"),
            &uri.parse().expect("a uri"),
        )
    }

    #[test]
    fn namespaced_resources_are_read_from_the_path() {
        let info = parse(
            "PATCH",
            "/apis/apps/v1/namespaces/kt/deployments/web/scale?x=a%20b",
        );
        assert_eq!(
            (info.verb, info.group.as_str(), info.version.as_str()),
            ("patch", "apps", "v1")
        );
        assert_eq!(
            (info.namespace.as_str(), info.resource.as_str()),
            ("kt", "deployments")
        );
        assert_eq!(
            (info.name.as_str(), info.subresource.as_str()),
            ("web", "scale")
        );
        assert_eq!(info.query.get("x"), Some("a b"));
    }

    #[test]
    fn what_is_proxied_keeps_its_escapes_and_slashes() {
        for (path, rest, raw) in [
            ("/api/v1/namespaces/a/pods/b/proxy", "", ""),
            ("/api/v1/namespaces/a/pods/b/proxy/", "", "/"),
            ("/api/v1/namespaces/a/pods/b/proxy/c%20d", "c d", "/c%20d"),
            ("/api/v1/nodes/b/proxy/c//d/", "c//d", "/c//d/"),
        ] {
            let info = parse("GET", path);
            assert_eq!(
                (info.rest.as_str(), info.rest_path.as_str()),
                (rest, raw),
                "{path}"
            );
        }
    }

    #[test]
    fn namespaces_are_a_resource_of_their_own() {
        let info = parse("PUT", "/api/v1/namespaces/kt/finalize");
        assert_eq!(
            (
                info.resource.as_str(),
                info.name.as_str(),
                info.subresource.as_str()
            ),
            ("namespaces", "kt", "finalize")
        );
        assert_eq!(info.namespace, "kt");
        let info = parse("GET", "/api/v1/namespaces");
        assert_eq!(
            (info.verb, info.resource.as_str(), info.name.as_str()),
            ("list", "namespaces", "")
        );
    }

    #[test]
    fn collections_change_the_verb() {
        assert_eq!(parse("GET", "/api/v1/pods?watch=1").verb, "watch");
        assert_eq!(parse("GET", "/api/v1/pods?watch=false").verb, "list");
        assert_eq!(
            parse("DELETE", "/api/v1/namespaces/a/pods").verb,
            "deletecollection"
        );
        assert_eq!(
            parse("GET", "/api/v1/watch/namespaces/a/pods").verb,
            "watch"
        );
    }

    #[test]
    fn other_paths_are_not_resources() {
        for path in [
            "/",
            "/healthz",
            "/api",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/api/v1",
            "/openapi/v3/apis/apps/v1",
        ] {
            assert!(!parse("GET", path).is_resource, "{path}");
        }
        assert_eq!(parse("POST", "/healthz").verb, "post");
    }
}
