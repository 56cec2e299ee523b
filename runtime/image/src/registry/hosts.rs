//! Where a registry is reached: mirrors, authorities and plain HTTP, as files say.
//!
//! The files are containerd's: `<folder>/<host[:port]>/hosts.toml`, or `<folder>/_default/hosts.toml`
//! for registries without a folder of their own.
//!
//! ```toml
//! server = "https://registry.example.com"       # the registry itself, asked last
//!
//! [host."https://mirror.example.com"]           # asked in the order of the file
//! capabilities = ["pull", "resolve"]            # also "push"; all when left out
//! ca = "mirror-ca.pem"                          # or a list; relative to this file
//! client = [["client.pem", "client-key.pem"]]
//! skip_verify = false
//! override_path = false                         # true: the URL already ends in its /v2
//! [host."https://mirror.example.com".header]
//! x-team = "boats"
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// TLS or not.
    pub(crate) tls: bool,
    /// Host and port as the `Host` header has them.
    pub(crate) authority: String,
    /// What stands before the repository, such as `/v2`.
    pub(crate) base: String,
    /// What it may be asked for.
    pub(crate) can: Capabilities,
    /// How its certificate is judged and which one is shown.
    pub(crate) trust: Trust,
    /// Sent with each request.
    pub(crate) headers: Vec<(String, String)>,
    /// A mirror: its failures are not the last word.
    pub(crate) mirror: bool,
}

/// What a place may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Blobs and manifests by digest.
    pub(crate) pull: bool,
    /// What a tag means.
    pub(crate) resolve: bool,
    /// To take images.
    pub(crate) push: bool,
}

/// How a server's certificate is judged, and which one is shown to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// Files of further authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// Certificate and key to show.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// Any certificate will do.
    pub(crate) skip_verify: bool,
}

/// A file about registries that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidHosts {
    path: PathBuf,
    problem: String,
}

impl fmt::Display for InvalidHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

const ALL: Capabilities = Capabilities {
    pull: true,
    resolve: true,
    push: true,
};

/// The places to ask for images of `registry`, mirrors first, the registry itself last. Without a
/// folder or a file in it: the registry, by TLS unless it is on this machine.
pub(crate) fn endpoints(
    folder: Option<&Path>,
    registry: &str,
) -> Result<Vec<Endpoint>, InvalidHosts> {
    let Some(path) = folder.and_then(|folder| find(folder, registry)) else {
        return Ok(vec![plain(registry)]);
    };
    let invalid = |problem: String| InvalidHosts {
        path: path.clone(),
        problem,
    };
    let text = fs::read_to_string(&path).map_err(|error| invalid(error.to_string()))?;
    parse(&text, path.parent().unwrap_or(Path::new("/")), registry).map_err(invalid)
}

fn find(folder: &Path, registry: &str) -> Option<PathBuf> {
    // Windows has no colons in names: containerd knows the second form.
    let names = [
        registry.to_owned(),
        format!("{}_", registry.replace(':', "_")),
        "_default".to_owned(),
    ];
    let files = names
        .iter()
        .map(|name| folder.join(name).join("hosts.toml"));
    files.into_iter().find(|file| {
        fs::metadata(file).is_ok_and(|found| found.is_file())
            || fs::metadata(file).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
    })
}

/// The registry itself.
fn plain(registry: &str) -> Endpoint {
    let authority = match registry {
        // The name in references is not the name of the server.
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    };
    Endpoint {
        tls: !is_loopback(authority),
        authority: authority.to_owned(),
        base: "/v2".to_owned(),
        can: ALL,
        trust: Trust::default(),
        headers: Vec::new(),
        mirror: false,
    }
}

/// Whether `authority` is on this machine, where a registry needs no TLS.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

pub(crate) fn parse(text: &str, folder: &Path, registry: &str) -> Result<Vec<Endpoint>, String> {
    let file: Table = text.parse().map_err(|error| format!("{error}"))?;
    let mut endpoints = Vec::new();
    if let Some(hosts) = file.get("host") {
        let hosts = hosts
            .as_table()
            .ok_or("host has the form [host.\"https://mirror.example.com\"]")?;
        for (url, settings) in hosts {
            let settings = settings
                .as_table()
                .ok_or_else(|| format!("host.\"{url}\" is not a table"))?;
            let endpoint = endpoint(url, settings, folder)
                .map_err(|problem| format!("host.\"{url}\": {problem}"))?;
            endpoints.push(Endpoint {
                mirror: true,
                ..endpoint
            });
        }
    }
    let server = match file.get("server") {
        None => {
            let registry = plain(registry);
            let scheme = if registry.tls { "https" } else { "http" };
            format!("{scheme}://{}", registry.authority)
        }
        Some(server) => {
            let server = server.as_str().ok_or("server is not a text")?;
            match server.contains("://") {
                true => server.to_owned(),
                false => format!("https://{server}"),
            }
        }
    };
    let origin = endpoint(&server, &file, folder).map_err(|why| format!("server: {why}"))?;
    endpoints.push(origin);
    Ok(endpoints)
}

fn endpoint(url: &str, settings: &Table, folder: &Path) -> Result<Endpoint, String> {
    let (tls, rest) = match url.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return Err(format!("{url:?} does not begin with https:// or http://")),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || authority.contains(['@', '?', '#']) {
        return Err(format!("{url:?} has no plain host"));
    }
    let path = path.trim_end_matches('/');
    let is_whole = flag(settings, "override_path")?;
    let base = match (path, is_whole) {
        ("", true) => String::new(),
        ("" | "v2", _) => "/v2".to_owned(),
        (path, true) => format!("/{path}"),
        (path, false) => format!("/v2/{path}"),
    };
    Ok(Endpoint {
        tls,
        authority: authority.to_owned(),
        base,
        can: capabilities(settings)?,
        trust: trust(settings, folder)?,
        headers: headers(settings)?,
        mirror: false,
    })
}

fn flag(settings: &Table, name: &str) -> Result<bool, String> {
    let value = settings.get(name);
    value.map_or(Ok(false), |value| {
        value.as_bool().ok_or(format!("{name} is true or false"))
    })
}

fn capabilities(settings: &Table) -> Result<Capabilities, String> {
    let Some(value) = settings.get("capabilities") else {
        return Ok(ALL);
    };
    let wrong = || "capabilities is a list of \"pull\", \"resolve\" and \"push\"".to_owned();
    let mut can = Capabilities {
        pull: false,
        resolve: false,
        push: false,
    };
    for one in value.as_array().ok_or_else(wrong)? {
        match one.as_str() {
            Some("pull") => can.pull = true,
            Some("resolve") => can.resolve = true,
            Some("push") => can.push = true,
            _ => return Err(wrong()),
        }
    }
    Ok(can)
}

fn trust(settings: &Table, folder: &Path) -> Result<Trust, String> {
    let file = |value: &Value| value.as_str().map(|path| folder.join(path));
    let wrong_ca = || "ca is the path of a PEM file, or a list of paths".to_owned();
    let authorities = match settings.get("ca") {
        None => Vec::new(),
        Some(Value::Array(files)) => files
            .iter()
            .map(|one| file(one).ok_or_else(wrong_ca))
            .collect::<Result<_, _>>()?,
        Some(one) => vec![file(one).ok_or_else(wrong_ca)?],
    };
    let wrong_client =
        || "client is the path of a PEM file with certificate and key, or [[cert, key]]".to_owned();
    let client = match settings.get("client") {
        None => None,
        Some(Value::Array(pairs)) => match pairs.first() {
            None => None,
            Some(Value::Array(pair)) if pair.len() == 2 => Some((
                file(&pair[0]).ok_or_else(wrong_client)?,
                file(&pair[1]).ok_or_else(wrong_client)?,
            )),
            Some(one) => {
                let path = file(one).ok_or_else(wrong_client)?;
                Some((path.clone(), path))
            }
        },
        Some(one) => {
            let path = file(one).ok_or_else(wrong_client)?;
            Some((path.clone(), path))
        }
    };
    Ok(Trust {
        authorities,
        client,
        skip_verify: flag(settings, "skip_verify")?,
    })
}

fn headers(settings: &Table) -> Result<Vec<(String, String)>, String> {
    let Some(value) = settings.get("header") else {
        return Ok(Vec::new());
    };
    let wrong = || "header is a table of texts, or of lists of texts".to_owned();
    let mut headers = Vec::new();
    for (name, value) in value.as_table().ok_or_else(wrong)? {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let value = value.as_str().ok_or_else(wrong)?;
            headers.push((name.clone(), value.to_owned()));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_without_a_file_is_asked_itself() {
        for (registry, tls, authority) in [
            ("ghcr.io", true, "ghcr.io"),
            ("docker.io", true, "registry-1.docker.io"),
            ("localhost:5000", false, "localhost:5000"),
            ("127.1.2.3:5000", false, "127.1.2.3:5000"),
            ("[::1]:5000", false, "[::1]:5000"),
            ("localhost.example.com", true, "localhost.example.com"),
            ("10.0.0.1:5000", true, "10.0.0.1:5000"),
        ] {
            let found = &endpoints(None, registry).unwrap()[0];
            assert_eq!(
                (found.tls, &*found.authority),
                (tls, authority),
                "{registry}"
            );
            assert_eq!(found.base, "/v2");
        }
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
        let text = r#"
            server = "https://registry.example.com"
            ca = "own.pem"
            [host."http://z.example.com"]
            capabilities = ["pull"]
            [host."https://a.example.com/v2/proxy"]
            override_path = true
            skip_verify = true
            client = [["c.pem", "k.pem"]]
            [host."https://a.example.com/v2/proxy".header]
            x-team = ["boats"]
        "#;
        let found = parse(text, Path::new("/etc/d"), "registry.example.com").unwrap();
        let places: Vec<_> = found.iter().map(|e| (&*e.authority, &*e.base)).collect();
        assert_eq!(
            places,
            [
                ("z.example.com", "/v2"),
                ("a.example.com", "/v2/proxy"),
                ("registry.example.com", "/v2")
            ]
        );
        assert!(found[0].mirror && !found[0].tls && !found[0].can.resolve);
        assert!(found[1].trust.skip_verify);
        assert_eq!(
            found[1].trust.client,
            Some(("/etc/d/c.pem".into(), "/etc/d/k.pem".into()))
        );
        assert_eq!(
            found[1].headers,
            [("x-team".to_owned(), "boats".to_owned())]
        );
        assert_eq!(
            found[2].trust.authorities,
            [PathBuf::from("/etc/d/own.pem")]
        );
        assert!(!found[2].mirror);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("server = 1", "server is not a text"),
            ("[host.\"mirror\"]", "https://"),
            ("ca = 1", "ca is"),
            ("capabilities = [\"fly\"]", "capabilities is"),
            ("server = ", "TOML parse error"),
        ] {
            let error = parse(text, Path::new("/"), "r.io").unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_found_by_host_and_port_or_by_default() {
        let folder = tempfile::tempdir().unwrap();
        for (name, server) in [("r.io:5000", "http://one"), ("_default", "http://two")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            let text = format!("server = \"{server}\"");
            fs::write(folder.path().join(name).join("hosts.toml"), text).unwrap();
        }
        let of = |registry| {
            endpoints(Some(folder.path()), registry).unwrap()[0]
                .authority
                .clone()
        };
        assert_eq!(of("r.io:5000"), "one");
        assert_eq!(of("r.io"), "two");
    }
}
