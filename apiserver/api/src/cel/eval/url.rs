//! Web addresses, as far as expressions look into them.

/// The parts of an absolute address, or of a path alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Before `://`, in small letters.
    pub scheme: String,
    /// Host and port.
    pub host: String,
    /// The path as it was written.
    pub path: String,
    /// What follows `?`.
    pub query: String,
}

impl Url {
    /// Reads an address as Go's `url.ParseRequestURI` takes it: absolute, or an absolute path.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ if text.starts_with('/') => ("", text),
            _ => return None,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match scheme.is_empty() {
            true => ("", rest),
            false => match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            },
        };
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        if !is_host(host) || !are_escapes(path) {
            return None;
        }
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// The host without its port and brackets.
    pub fn hostname(&self) -> &str {
        let host = match self.host.strip_prefix('[') {
            Some(inside) => return inside.split(']').next().unwrap_or_default(),
            None => &self.host,
        };
        host.rsplit_once(':').map_or(host, |(name, _)| name)
    }

    /// The port, or nothing.
    pub fn port(&self) -> &str {
        let after = match self.host.rsplit_once(']') {
            Some((_, after)) => after,
            None => &self.host,
        };
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    /// The parameters of the query, each with its values.
    pub fn parameters(&self) -> Vec<(String, Vec<String>)> {
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                continue;
            };
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => found.push((name, vec![value])),
            }
        }
        found
    }
}

fn is_scheme(scheme: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(legal)
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(']') {
        Some((name, port)) => match name.strip_prefix('[') {
            Some(_) => ("", port),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, &host[host.len() - port.len() - 1..]),
            None => (host, ""),
        },
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    port.bytes().all(|byte| byte.is_ascii_digit())
        && !name.contains(|c: char| "<>\"{}|\\^`".contains(c))
        && are_escapes(name)
}

/// Whether every `%` is followed by two hexadecimal digits.
fn are_escapes(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Without escapes and with spaces for `+`; `None` if an escape is none.
fn decoded(text: &str) -> Option<String> {
    if !are_escapes(text) {
        return None;
    }
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}
