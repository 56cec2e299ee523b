//! What an Ingress's annotations say about its requests.
//!
//! Each is known by two names: `coracle.dev/NAME`, and `nginx.ingress.kubernetes.io/NAME` as ingress-nginx has it, with its
//! meaning. The first goes before the second. What restricts who may ask, and is not known here, closes the Ingress: it
//! would be open otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

/// How our own annotations begin.
pub(crate) const OWN: &str = "coracle.dev/";
/// How those of ingress-nginx begin.
const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// How long a connection to an endpoint may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a backend, and how long a client, may leave the other waiting.
const READ: Duration = Duration::from_secs(600);
const SEND: Duration = Duration::from_secs(60);
/// How long an upgraded connection may be silent.
const TUNNEL: Duration = Duration::from_secs(3600);

/// Beginnings of the names of annotations that keep somebody out.
const RESTRICTIONS: &[&str] = &[
    "auth-",
    "whitelist-source-range",
    "denylist-source-range",
    "satisfy",
    "enable-modsecurity",
    "enable-global-auth",
    "limit-whitelist",
];

/// What holds for the requests of one Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How long a connection to an endpoint may take.
    pub(crate) connect_timeout: Duration,
    /// How long the backend may take for the head of its answer, and between two parts of its body.
    pub(crate) read_timeout: Duration,
    /// How long the client may take between two parts of the body that it sends.
    pub(crate) send_timeout: Duration,
    /// How long an upgraded connection may be silent in both directions.
    pub(crate) tunnel_timeout: Duration,
    /// The most bytes of a request's body.
    pub(crate) body_limit: Option<u64>,
    /// Requests without TLS are sent to where there is TLS.
    pub(crate) ssl_redirect: Redirect,
    /// What is asked of the backend in place of the path.
    pub(crate) rewrite: Option<String>,
    /// Paths are expressions, unless they are exact.
    pub(crate) use_regex: bool,
    /// Backends speak HTTP/2 by prior knowledge, as gRPC does.
    pub(crate) is_http2: bool,
    /// Its requests are in the access log.
    pub(crate) access_log: bool,
    /// Nobody is let in, because of this annotation.
    pub(crate) closed_by: Option<String>,
}

/// Who is redirected to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// Nobody.
    Never,
    /// Whoever asks an Ingress that has certificates.
    WithTls,
    /// Everybody.
    Always,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT,
            read_timeout: READ,
            send_timeout: SEND,
            tunnel_timeout: TUNNEL,
            body_limit: None,
            ssl_redirect: Redirect::Never,
            rewrite: None,
            use_regex: false,
            is_http2: false,
            access_log: true,
            closed_by: None,
        }
    }
}

impl Settings {
    /// What the annotations say, and what is wrong with them: a value that cannot be read counts as absent.
    pub(crate) fn read(annotations: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let (mut settings, mut problems) = (Self::default(), Vec::new());
        // Our names come after those of nginx, and so overwrite them.
        let both = [NGINX, OWN].into_iter().flat_map(|prefix| {
            let named = annotations.range(prefix.to_owned()..);
            let named = named.take_while(move |(key, _)| key.starts_with(prefix));
            named.map(move |(key, value)| (prefix, key, value))
        });
        for (prefix, key, value) in both {
            let name = &key[prefix.len()..];
            match settings.set(name, value.trim()) {
                Ok(true) => {}
                Ok(false) if prefix == NGINX => {
                    if RESTRICTIONS.iter().any(|start| name.starts_with(start)) {
                        settings.closed_by = Some(key.clone());
                        problems.push(format!(
                            "annotation {key} is not supported, so nobody is let in: remove it if everybody may ask"
                        ));
                    } else {
                        problems.push(format!(
                            "annotation {key} is not supported and has no effect"
                        ));
                    }
                }
                // Annotations of ours that mean something to somebody else.
                Ok(false) => {}
                Err(wanted) => problems.push(format!(
                    "annotation {key} has the value {value:?}, which has no effect: {wanted}"
                )),
            }
        }
        // As in ingress-nginx: a reference to a part of the path makes the path an expression.
        settings.use_regex |= settings
            .rewrite
            .as_deref()
            .is_some_and(|to| to.contains('$'));
        (settings, problems)
    }

    /// Takes one annotation over; false: it is none of ours.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, &'static str> {
        match name {
            "proxy-connect-timeout" => self.connect_timeout = time(value)?,
            "proxy-read-timeout" => {
                self.read_timeout = time(value)?;
                self.tunnel_timeout = self.read_timeout;
            }
            "proxy-send-timeout" => self.send_timeout = time(value)?,
            "proxy-body-size" => self.body_limit = size(value)?,
            "ssl-redirect" if self.ssl_redirect != Redirect::Always => {
                self.ssl_redirect = match flag(value)? {
                    true => Redirect::WithTls,
                    false => Redirect::Never,
                };
            }
            "ssl-redirect" => drop(flag(value)?),
            "force-ssl-redirect" => {
                if flag(value)? {
                    self.ssl_redirect = Redirect::Always;
                }
            }
            "rewrite-target" => {
                if !value.starts_with('/') && !value.starts_with('$') {
                    return Err("a path is expected, such as / or /$2");
                }
                self.rewrite = Some(braced(value));
            }
            "access-log" | "enable-access-log" => self.access_log = flag(value)?,
            "use-regex" => self.use_regex = flag(value)?,
            "backend-protocol" => {
                self.is_http2 = match value.to_ascii_uppercase().as_str() {
                    "HTTP" | "AUTO_HTTP" => false,
                    "GRPC" | "H2C" => true,
                    _ => return Err("HTTP and GRPC are known"),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `$1x` means the first group in nginx, and a group called `1x` in expressions here.
fn braced(rewrite: &str) -> String {
    let mut out = String::with_capacity(rewrite.len() + 4);
    let mut rest = rewrite;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        match digits {
            0 => out.push_str("$$"),
            _ => out.push_str(&format!("${{{}}}", &after[..digits])),
        }
        rest = &after[digits..];
    }
    out.push_str(rest);
    out
}

/// Seconds, or a number with a unit.
fn time(text: &str) -> Result<Duration, &'static str> {
    const WANTED: &str = "seconds are expected, or a time such as 1m30s or 500ms, of a day at most";
    const LONGEST: Duration = Duration::from_secs(86_400);
    let mut all = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u32 = rest[..digits].parse().map_err(|_| WANTED)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "" if digits == text.len() => Duration::from_secs(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(WANTED),
        };
        all = unit
            .checked_mul(count)
            .and_then(|part| all.checked_add(part))
            .ok_or(WANTED)?;
        rest = &rest[letters..];
    }
    match all.is_zero() || all > LONGEST {
        true => Err(WANTED),
        false => Ok(all),
    }
}

/// Bytes, with nginx's units; 0 is no limit.
fn size(text: &str) -> Result<Option<u64>, &'static str> {
    const WANTED: &str =
        "bytes are expected, or a number with k, m or g, such as 8m; 0 is no limit";
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (&lower[..], 0),
    };
    let count: u64 = digits.parse().map_err(|_| WANTED)?;
    let bytes = count.checked_mul(1 << shift).ok_or(WANTED)?;
    Ok((bytes > 0).then_some(bytes))
}

fn flag(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false is expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let annotations = annotations.iter();
        let annotations = annotations.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Settings::read(&annotations.collect())
    }

    #[test]
    fn both_names_are_known_and_ours_goes_first() {
        let (settings, problems) = read(&[
            ("nginx.ingress.kubernetes.io/proxy-body-size", "8m"),
            ("coracle.dev/proxy-body-size", "1k"),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "30"),
            ("coracle.dev/proxy-connect-timeout", "1m30s"),
            ("nginx.ingress.kubernetes.io/ssl-redirect", "true"),
            ("nginx.ingress.kubernetes.io/backend-protocol", "GRPC"),
            ("nginx.ingress.kubernetes.io/enable-access-log", "false"),
            ("coracle.dev/http-queue", "7"),
            ("example.com/other", "x"),
        ]);
        assert_eq!(problems, Vec::<String>::new());
        let wanted = Settings {
            body_limit: Some(1024),
            read_timeout: Duration::from_secs(30),
            tunnel_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(90),
            ssl_redirect: Redirect::WithTls,
            is_http2: true,
            access_log: false,
            ..Settings::default()
        };
        assert_eq!(settings, wanted);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_has_no_effect() {
        for (name, value) in [
            ("proxy-body-size", "big"),
            ("proxy-body-size", "99999999999999g"),
            ("proxy-read-timeout", "0"),
            ("proxy-read-timeout", "1d"),
            ("proxy-read-timeout", "48h"),
            ("proxy-read-timeout", "1m30"),
            ("ssl-redirect", "yes"),
            ("rewrite-target", "x"),
            ("backend-protocol", "HTTPS"),
        ] {
            let key = format!("coracle.dev/{name}");
            let (settings, problems) = read(&[(&key, value)]);
            assert_eq!(settings, Settings::default(), "{name}: {value}");
            assert!(
                problems.len() == 1 && problems[0].contains(&key) && problems[0].contains(value),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn what_keeps_somebody_out_and_is_not_known_keeps_everybody_out() {
        let key = "nginx.ingress.kubernetes.io/auth-url";
        let (settings, problems) = read(&[(key, "http://auth")]);
        assert_eq!(settings.closed_by.as_deref(), Some(key));
        assert!(problems[0].contains("nobody is let in"), "{problems:?}");
        let (settings, problems) = read(&[("nginx.ingress.kubernetes.io/enable-cors", "true")]);
        assert_eq!(settings, Settings::default());
        assert!(problems[0].contains("has no effect"), "{problems:?}");
    }

    #[test]
    fn a_rewrite_with_a_group_makes_paths_expressions() {
        let (settings, _) = read(&[("nginx.ingress.kubernetes.io/rewrite-target", "/v1/$2x$")]);
        assert_eq!(settings.rewrite.as_deref(), Some("/v1/${2}x$$"));
        assert!(settings.use_regex);
        let (settings, _) = read(&[("nginx.ingress.kubernetes.io/rewrite-target", "/")]);
        assert_eq!(settings.rewrite.as_deref(), Some("/"));
        assert!(!settings.use_regex);
    }
}
