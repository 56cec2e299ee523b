//! `sock_getaddrinfo`.
//!
//! The guest brings a list of results to be filled in, each with room for an address:
//!
//! ```text
//! addrinfo  0 flags:2  2 family:1  3 kind:1  4 protocol:1  8 length of the address  12 sockaddr
//!           16 canonical name  20 its length  24 next
//! sockaddr  0 family:1  4 length of the data  8 data: port (big endian), address …
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use coracle_network::{ResolveError, SocketScope};

use super::super::errno::Errno;
use super::super::memory::Memory;
use super::address::{INET4, INET6, UNSPECIFIED};
use super::sockets::{ANY, STREAM};

/// Results that one question may want.
const MOST: u32 = 64;
const ADDRINFO: u32 = 28;
const SOCKADDR: u32 = 12;
/// Lengths of a `sockaddr_in` and a `sockaddr_in6`, and the least room for their data. The scope of IPv6, the last four
/// bytes of its 26, is left out where there is no room for it.
const V4: (u32, usize) = (16, 6);
const V6: (u32, usize) = (28, 22);

const PASSIVE: u16 = 1;
const CANONICAL_NAME: u16 = 2;
const NUMERIC_HOST: u16 = 4;
const NUMERIC_SERVICE: u16 = 8;
const KNOWN_FLAGS: u16 = 0x7f;

/// Services that programs ask for by name.
const SERVICES: &[(&str, u16)] = &[
    ("domain", 53),
    ("echo", 7),
    ("ftp", 21),
    ("http", 80),
    ("https", 443),
    ("imap", 143),
    ("ldap", 389),
    ("ntp", 123),
    ("pop3", 110),
    ("smtp", 25),
    ("ssh", 22),
    ("telnet", 23),
];

/// What is asked: pointers and lengths of two texts, and a pointer to wishes.
pub(super) struct Question {
    pub(super) node: (u32, u32),
    pub(super) service: (u32, u32),
    pub(super) hints: u32,
}

struct Hints {
    flags: u16,
    family: u32,
    kind: u8,
    protocol: u8,
}

/// Fills in the list whose first part `list` points at, of `most` parts, and writes to `out` how
/// many were filled.
pub(super) async fn resolve(
    memory: &mut Memory<'_>,
    scope: &SocketScope,
    question: Question,
    (list, most, out): (u32, u32, u32),
) -> Result<(), Errno> {
    let node = text(memory, question.node)?;
    let service = text(memory, question.service)?;
    let hints = Hints::read(memory, question.hints)?;
    memory.get_mut(out, 4)?;
    let first = memory.read_u32(list)?;
    if node.is_empty() && service.is_empty() {
        return Err(Errno::AINONAME);
    }
    if most == 0 {
        return Err(Errno::AIMEMORY);
    }
    if hints.flags & CANONICAL_NAME != 0 && node.is_empty() {
        return Err(Errno::AIBADFLAG);
    }
    let port = port(&service, hints.flags)?;
    let addresses = addresses(scope, &node, &hints).await?;
    let wanted = |ip: &&IpAddr| match hints.family {
        INET4 => ip.is_ipv4(),
        INET6 => ip.is_ipv6(),
        _ => true,
    };
    let mut place = first;
    let mut count = 0u32;
    let mut none = Errno::AINODATA;
    for ip in addresses.iter().filter(wanted) {
        if count == most.min(MOST) {
            break;
        }
        match write(memory, place, *ip, port, &hints) {
            Ok(next) => {
                place = next;
                count += 1;
            }
            // Older programs make room for IPv4 alone, and shall have that.
            Err(Errno::AIMEMORY) => none = Errno::AIMEMORY,
            Err(error) => return Err(error),
        }
    }
    if count == 0 {
        return Err(none);
    }
    memory.write(out, &count.to_le_bytes())
}

impl Hints {
    fn read(memory: &Memory<'_>, pointer: u32) -> Result<Self, Errno> {
        let bytes = memory.get(pointer, ADDRINFO)?;
        let hints = Self {
            flags: u16::from_le_bytes([bytes[0], bytes[1]]),
            family: bytes[2].into(),
            kind: bytes[3],
            protocol: bytes[4],
        };
        if hints.flags & !KNOWN_FLAGS != 0 {
            return Err(Errno::AIBADFLAG);
        }
        if !matches!(hints.family, UNSPECIFIED | INET4 | INET6) {
            return Err(Errno::AIFAMILY);
        }
        if u32::from(hints.kind) > STREAM {
            return Err(Errno::AISOCKTYPE);
        }
        Ok(hints)
    }
}

async fn addresses(scope: &SocketScope, node: &str, hints: &Hints) -> Result<Vec<IpAddr>, Errno> {
    if node.is_empty() {
        let any = hints.flags & PASSIVE != 0;
        return Ok(vec![match (hints.family == INET6, any) {
            (false, true) => Ipv4Addr::UNSPECIFIED.into(),
            (false, false) => Ipv4Addr::LOCALHOST.into(),
            (true, true) => Ipv6Addr::UNSPECIFIED.into(),
            (true, false) => Ipv6Addr::LOCALHOST.into(),
        }]);
    }
    if hints.flags & NUMERIC_HOST != 0 {
        let literal = node.parse().map_err(|_| Errno::AINONAME)?;
        return Ok(vec![literal]);
    }
    // A question costs like a socket, and is bounded with them.
    let _permit = scope.permit().map_err(|_| Errno::AIAGAIN)?;
    let found = scope.lookup(node).await;
    let mut found = found.map_err(|error| match error {
        ResolveError::NotFound(_) | ResolveError::InvalidName(_) => Errno::AINONAME,
        ResolveError::Again(_) => Errno::AIAGAIN,
        ResolveError::Failed(_) => Errno::AIFAIL,
    })?;
    // Many programs know IPv4 alone, and some look at the first result alone.
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}

fn port(service: &str, flags: u16) -> Result<u16, Errno> {
    if service.is_empty() {
        return Ok(0);
    }
    if let Ok(number) = service.parse() {
        return Ok(number);
    }
    let known = SERVICES.iter().find(|(name, _)| *name == service);
    match known {
        Some((_, port)) if flags & NUMERIC_SERVICE == 0 => Ok(*port),
        _ => Err(Errno::AISERVICE),
    }
}

/// A text, which may end before its length does, as those of C do.
fn text(memory: &Memory<'_>, (pointer, length): (u32, u32)) -> Result<String, Errno> {
    let bytes = memory.get(pointer, length)?;
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8(bytes.to_vec()).map_err(|_| Errno::AINONAME)
}

/// Fills in one result; gives the place of the next.
fn write(
    memory: &mut Memory<'_>,
    place: u32,
    ip: IpAddr,
    port: u16,
    hints: &Hints,
) -> Result<u32, Errno> {
    let field = |memory: &Memory<'_>, base: u32, offset: u32| {
        memory.read_u32(base.checked_add(offset).ok_or(Errno::FAULT)?)
    };
    memory.get_mut(place, ADDRINFO)?;
    let sockaddr = field(memory, place, 12)?;
    let next = field(memory, place, 24)?;
    memory.get_mut(sockaddr, SOCKADDR)?;
    let (room, data) = (field(memory, sockaddr, 4)?, field(memory, sockaddr, 8)?);
    let ((length, size), family) = match ip {
        IpAddr::V4(_) => (V4, INET4),
        IpAddr::V6(_) => (V6, INET6),
    };
    if (room as usize) < size {
        return Err(Errno::AIMEMORY);
    }
    let mut bytes = port.to_be_bytes().to_vec();
    match ip {
        IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => {
            // No flow.
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&v6.octets());
            bytes.extend_from_slice(&[0; 4]);
            bytes.truncate(room as usize);
        }
    }
    memory.write(data, &bytes)?;
    memory.write(sockaddr, &[family as u8])?;
    let kind = match u32::from(hints.kind) {
        ANY => STREAM as u8,
        _ => hints.kind,
    };
    memory.write(place + 2, &[family as u8, kind, hints.protocol])?;
    memory.write(place + 8, &length.to_le_bytes())?;
    // No canonical name is told.
    memory.write(place + 20, &0u32.to_le_bytes())?;
    Ok(next)
}
