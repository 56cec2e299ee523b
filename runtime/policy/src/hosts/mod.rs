//! `coracle.dev/allowed-hosts`: which hosts outside the cluster a pod may reach.
//!
//! A list with commas: names (`api.example.com`), names below one (`*.example.com`), addresses and ranges (`192.0.2.0/24`),
//! `*` for all, each with a port if only that one is meant (`api.example.com:443`). Empty: none. What cannot be read lets
//! nothing through.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The annotation, on a pod or a namespace. If both have it, both have to agree.
pub const ANNOTATION: &str = "coracle.dev/allowed-hosts";
/// Entries that are read; more let nothing through.
const ENTRIES: usize = 1024;

/// What one annotation lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    host: Host,
    /// `None`: every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    /// Names that end so; it begins with a dot.
    Below(String),
    Addresses(IpNet),
}

/// The ports of a name that may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedPorts {
    /// Every one.
    All,
    /// These.
    These(Vec<u16>),
}

impl AllowedPorts {
    /// Whether the port is among them.
    pub fn has(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}

impl AllowedHosts {
    /// What an object's annotation says, if it has one.
    pub fn of(metadata: &ObjectMeta) -> Option<Arc<Self>> {
        let text = metadata.annotations.as_ref()?.get(ANNOTATION)?;
        Some(Arc::new(Self::read(text)))
    }

    /// Reads a list.
    pub fn read(text: &str) -> Self {
        let parts = text.split(|c: char| c == ',' || c.is_whitespace());
        let parts = parts.filter(|part| !part.is_empty()).take(ENTRIES);
        Self(parts.filter_map(Entry::read).collect())
    }

    /// The ports of a name (in lower case, without the last dot) that may be reached; `None`: none.
    pub fn ports_of(&self, name: &str) -> Option<AllowedPorts> {
        let mut ports = Vec::new();
        let named = self.0.iter().filter(|entry| match &entry.host {
            Host::Any => true,
            Host::Name(known) => known == name,
            Host::Below(end) => name.len() > end.len() && name.ends_with(end.as_str()),
            Host::Addresses(_) => false,
        });
        for entry in named {
            match entry.port {
                None => return Some(AllowedPorts::All),
                Some(port) => ports.push(port),
            }
        }
        (!ports.is_empty()).then_some(AllowedPorts::These(ports))
    }

    /// Whether an address may be reached, whatever its name.
    pub fn has_address(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|entry| {
            let is_there = match &entry.host {
                Host::Any => true,
                Host::Addresses(range) => range.contains(&address),
                Host::Name(_) | Host::Below(_) => false,
            };
            is_there && entry.port.is_none_or(|only| only == port)
        })
    }
}

impl Entry {
    /// `None`: it cannot be read.
    fn read(text: &str) -> Option<Self> {
        if let Some(host) = Host::read(text) {
            return Some(Self { host, port: None });
        }
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        Some(Self {
            host: Host::read(bare.unwrap_or(host))?,
            port: Some(port),
        })
    }
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if let Ok(range) = text.parse::<IpNet>() {
            return Some(Self::Addresses(range));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Addresses(address.to_canonical().into()));
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_label = |label: &str| {
            let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.len() <= 63 && label.bytes().all(is_fit)
        };
        if !name.split('.').all(is_label) {
            return None;
        }
        Some(match below {
            true => Self::Below(format!(".{name}")),
            false => Self::Name(name),
        })
    }
}
