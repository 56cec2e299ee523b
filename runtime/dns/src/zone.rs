//! What a zone that answers from memory is asked, and what it answers.

use std::net::IpAddr;

use async_trait::async_trait;

/// The type of the records that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name that this one stands for.
    Cname,
    /// Name servers.
    Ns,
    /// The name of an address.
    Ptr,
    /// The start of authority; answered by the server.
    Soa,
    /// Where a service's port is.
    Srv,
    /// Text.
    Txt,
    /// Any other number.
    Other(u16),
}

/// One record of the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// `A` or `AAAA`.
    Address(IpAddr),
    /// `NS`.
    NameServer(String),
    /// `PTR`.
    Pointer(String),
    /// `SRV`.
    Service {
        /// Lower ones are tried first.
        priority: u16,
        /// A share among those of one priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The name of the host that serves it.
        target: String,
    },
    /// `TXT`.
    Text(String),
}

/// Records of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The records of the type that was asked for; none if the name has only others (NODATA).
    pub records: Vec<Data>,
    /// Addresses of names in `records`, to save the next question.
    pub additional: Vec<(String, IpAddr)>,
}

/// What a zone knows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The name is there.
    Found(Found),
    /// It stands for another name, in this zone or elsewhere.
    Alias(String),
    /// It would lie in this zone, and is not there (NXDOMAIN).
    NoName,
    /// It does not lie in this zone.
    Elsewhere,
    /// The zone does not know all of its names yet, and not this one.
    NotYet,
}

impl Lookup {
    /// These records, and no others to go with them.
    pub fn records(records: impl IntoIterator<Item = Data>) -> Self {
        Self::Found(Found {
            records: records.into_iter().collect(),
            additional: Vec::new(),
        })
    }

    /// The name is there, with none of the records that were asked for.
    pub fn no_data() -> Self {
        Self::Found(Found::default())
    }
}

/// Knows the names below one domain (and of some addresses).
#[async_trait]
pub trait Zone: Send + Sync + 'static {
    /// Looks an absolute name up: lower case, without the last dot. Must answer from memory.
    fn lookup(&self, name: &str, kind: Kind) -> Lookup;

    /// The domain, lower case, without the last dot.
    fn apex(&self) -> &str;

    /// Seconds for which an answer may be kept.
    fn ttl(&self) -> u32;

    /// Waits until [`lookup`](Self::lookup) never answers [`Lookup::NotYet`] again; false if that
    /// takes too long.
    async fn filled(&self) -> bool;
}
