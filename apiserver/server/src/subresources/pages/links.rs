//! Where a link of a proxied page leads as seen through the proxy.

/// What links are seen from: the proxy's own place, and the names of what is behind it.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// The part of the path that leads to the proxy.
    prefix: String,
    /// How the pod is addressed by the proxy.
    inner: Vec<String>,
    /// How the client addressed the proxy; empty if it did not say.
    outer: String,
}

impl Links {
    /// Links of what is at `authority`, host and port, seen through the proxy at `prefix` by a client that asked `outer`,
    /// its `Host`.
    pub(crate) fn new(prefix: &str, authority: &str, tls: bool, outer: &str) -> Self {
        let usual = if tls { ":443" } else { ":80" };
        let mut inner = vec![authority.to_owned()];
        inner.extend(authority.strip_suffix(usual).map(str::to_owned));
        Self {
            prefix: prefix.to_owned(),
            inner,
            outer: outer.to_owned(),
        }
    }

    /// What `link` becomes; `None` if it stays as it is.
    ///
    /// As upstream's `Transport.rewriteURL` (apimachinery's pkg/util/proxy/transport.go): relative links and those to
    /// other hosts are nobody's business, and one that leads through the proxy already is left in it. A link that is not
    /// HTTP is none of ours either, where upstream takes `mailto:/x` for a path.
    pub(crate) fn seen(&self, link: &str) -> Option<String> {
        let link = link.trim_matches(|c: char| c.is_ascii_whitespace());
        let after_scheme = match link.find(['/', '?', '#', ':']) {
            Some(colon) if link[colon..].starts_with(':') => {
                let scheme = &link[..colon];
                let known = ["http", "https"];
                if !known.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
                    return None;
                }
                &link[colon + 1..]
            }
            _ => link,
        };
        let Some(rest) = after_scheme.strip_prefix("//") else {
            return self.through(after_scheme);
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let is = |name: &String| name.eq_ignore_ascii_case(host);
        if host.is_empty() || self.inner.iter().any(is) {
            return self.through(path);
        }
        if !is(&self.outer) || path.starts_with(&self.prefix) {
            return None;
        }
        // The client gets its own name of the proxy back.
        let moved = self.through(path)?;
        let before = link.len() - path.len();
        Some(format!("{}{moved}", &link[..before]))
    }

    /// A path of the pod's as a path of the proxy's.
    fn through(&self, path: &str) -> Option<String> {
        let moved = match path.starts_with(&self.prefix) {
            true => path.to_owned(),
            false => format!("{}{path}", self.prefix),
        };
        path.starts_with('/').then_some(moved)
    }
}

#[cfg(test)]
pub(crate) fn test_links() -> Links {
    Links::new("/api/p/proxy", "10.1.2.3:80", false, "cluster:6443")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_the_pod_lead_through_the_proxy_and_no_others() {
        for (link, seen) in [
            ("/login?a=b", Some("/api/p/proxy/login?a=b")),
            ("/", Some("/api/p/proxy/")),
            (" /x\n", Some("/api/p/proxy/x")),
            ("http://10.1.2.3:80/x/", Some("/api/p/proxy/x/")),
            ("HTTP://10.1.2.3/x#y", Some("/api/p/proxy/x#y")),
            ("//10.1.2.3/x", Some("/api/p/proxy/x")),
            ("/api/p/proxy/x", Some("/api/p/proxy/x")),
            (
                "https://cluster:6443/x",
                Some("https://cluster:6443/api/p/proxy/x"),
            ),
            ("https://cluster:6443/api/p/proxy/x", None),
            ("http://10.1.2.3:81/x", None),
            ("http://10.1.2.3", None),
            ("http://elsewhere/x", None),
            ("//elsewhere/x", None),
            ("next", None),
            ("a:b/c", None),
            ("?a=/b", None),
            ("#/b", None),
            ("mailto:/x", None),
            ("javascript:alert('/')", None),
            ("", None),
            ("http://[", None),
        ] {
            assert_eq!(test_links().seen(link).as_deref(), seen, "{link}");
        }
    }

    #[test]
    fn a_pod_that_speaks_tls_is_named_with_its_port_or_without() {
        let links = Links::new("/p", "[fd00::1]:443", true, "");
        assert_eq!(links.seen("https://[fd00::1]/x").as_deref(), Some("/p/x"));
        assert_eq!(
            links.seen("https://[fd00::1]:443/x").as_deref(),
            Some("/p/x")
        );
        assert_eq!(links.seen("https://[fd00::2]/x"), None);
    }
}
