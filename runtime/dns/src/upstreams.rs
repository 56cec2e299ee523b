//! Which name servers know a name that is not ours.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// The port of DNS.
pub const DNS_PORT: u16 = 53;
/// How often the host's file is looked at: machines change networks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The most bytes of the file that are read.
const MOST_BYTES: u64 = 64 * 1024;
/// The most servers that are asked for one name.
const MOST_SERVERS: usize = 15;

/// Where questions go that the zone does not answer.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// For all names but those of the stub domains.
    pub servers: Servers,
    /// Domains with servers of their own; the longest that fits counts.
    pub stub_domains: Vec<(String, Vec<SocketAddr>)>,
}

/// Name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Always these, in this order.
    Fixed(Vec<SocketAddr>),
    /// Those that a file of the form of resolv.conf(5) names, as of now.
    File(PathBuf),
}

/// The name servers that a text of the form of resolv.conf(5) names, in order.
fn named_in(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        // A scope such as fe80::1%eth0 means nothing to others.
        let is_one = words.next() == Some("nameserver");
        words.next().filter(|_| is_one)?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// Those of a file; one that cannot be read names none.
fn named_by(path: &Path) -> Vec<IpAddr> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => named_in(&String::from_utf8_lossy(&bytes)),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "no name servers are known");
            Vec::new()
        }
    }
}

/// Finds the servers of each name.
pub(crate) struct Upstreams {
    servers: Known,
    /// Longest domain first.
    stubs: Vec<(String, Vec<SocketAddr>)>,
}

enum Known {
    Fixed(Vec<SocketAddr>),
    File(PathBuf, Mutex<Looked>),
}

#[derive(Default)]
struct Looked {
    /// When the file was last looked at.
    at: Option<Duration>,
    /// What it was then: when it was written, and how long.
    version: Option<(SystemTime, u64)>,
    servers: Vec<SocketAddr>,
}

impl Upstreams {
    pub(crate) fn new(config: UpstreamConfig) -> Self {
        let mut stubs = config.stub_domains;
        for (domain, _) in &mut stubs {
            *domain = domain.trim_matches('.').to_ascii_lowercase();
        }
        stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.len()));
        let servers = match config.servers {
            Servers::Fixed(servers) => Known::Fixed(servers),
            Servers::File(path) => Known::File(path, Mutex::default()),
        };
        Self { servers, stubs }
    }

    /// The servers that know `name` (lower case, without the last dot), in order.
    pub(crate) fn of(&self, name: &str, now: Duration) -> Vec<SocketAddr> {
        let stub = self.stubs.iter().find(|(domain, _)| is_below(name, domain));
        match stub {
            Some((_, servers)) => servers.clone(),
            None => self.servers.now(now),
        }
    }

    /// The servers for names of no stub domain.
    pub(crate) fn general(&self, now: Duration) -> Vec<SocketAddr> {
        self.servers.now(now)
    }
}

impl Known {
    fn now(&self, now: Duration) -> Vec<SocketAddr> {
        let (path, looked) = match self {
            Self::Fixed(servers) => return servers.clone(),
            Self::File(path, looked) => (path, looked),
        };
        let mut looked = looked.lock();
        let due = looked
            .at
            .is_none_or(|at| now.saturating_sub(at) >= LOOK_EVERY);
        if due {
            looked.at = Some(now);
            let version = std::fs::metadata(path).ok();
            let version = version.and_then(|data| Some((data.modified().ok()?, data.len())));
            if version.is_none() || version != looked.version {
                let servers = named_by(path).into_iter().take(MOST_SERVERS);
                looked.servers = servers.map(|ip| SocketAddr::new(ip, DNS_PORT)).collect();
                looked.version = version;
            }
        }
        looked.servers.clone()
    }
}

/// Whether `name` is `domain` or lies below it.
fn is_below(name: &str, domain: &str) -> bool {
    match name.strip_suffix(domain) {
        Some(below) => below.is_empty() || below.ends_with('.') || domain.is_empty(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 53))
    }

    #[test]
    fn servers_are_found_among_the_other_lines() {
        let text = "# nameserver 192.0.2.9\nnameserver 192.0.2.1 ignored\n nameserver fe80::1%eth0\n\
                    search nameserver\nnameserver ::1 ; end\nnameserver\nnonsense\n";
        let expected = [IpAddr::from([192, 0, 2, 1]), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(named_in(text), expected);
        assert!(named_by(Path::new("/nonexistent/resolv.conf")).is_empty());
    }

    #[test]
    fn the_longest_stub_domain_counts() {
        let upstreams = Upstreams::new(UpstreamConfig {
            servers: Servers::Fixed(vec![server(1)]),
            stub_domains: vec![
                ("corp.test".into(), vec![server(2)]),
                ("Lab.Corp.Test.".into(), vec![server(3)]),
            ],
        });
        let cases = [
            ("example.org", 1),
            ("corp.test", 2),
            ("a.corp.test", 2),
            ("notcorp.test", 1),
            ("a.lab.corp.test", 3),
        ];
        for (name, last) in cases {
            assert_eq!(upstreams.of(name, Duration::ZERO), [server(last)], "{name}");
        }
    }

    #[test]
    fn a_changed_file_is_seen_when_it_is_looked_at_again() {
        let folder = std::env::temp_dir().join(format!("coracle-dns-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("resolv.conf");
        std::fs::write(&file, "nameserver 192.0.2.1\n").expect("written");
        let upstreams = Upstreams::new(UpstreamConfig {
            servers: Servers::File(file.clone()),
            stub_domains: Vec::new(),
        });
        let seen = |seconds| upstreams.general(Duration::from_secs(seconds));
        assert_eq!(seen(0), [server(1)]);
        std::fs::write(&file, "nameserver 192.0.2.22\n").expect("written");
        assert_eq!(seen(4), [server(1)]);
        assert_eq!(seen(5), [server(22)]);
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(seen(10).is_empty());
    }
}
