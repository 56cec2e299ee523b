//! `__wasi_address_t`: where the bytes of an address are, and how many.
//!
//! | bytes | generation | content |
//! |---|---|---|
//! | 4, 16 | first | an address of IPv4, of IPv6 |
//! | 128 | second | the family in two bytes, then the address |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::errno::Errno;
use super::super::memory::{Buffer, Memory};

/// Families, as `sock_open` is told them too.
pub(super) const UNSPECIFIED: u32 = 0;
pub(super) const INET4: u32 = 1;
pub(super) const INET6: u32 = 2;

/// The least size of an address that begins with its family.
const WITH_FAMILY: u32 = 128;

/// An address that the guest gives, or wants to be given.
#[derive(Clone, Copy)]
pub(super) struct Address(Buffer);

impl Address {
    /// The address whose description is at `pointer`.
    pub(super) fn at(memory: &Memory<'_>, pointer: u32) -> Result<Self, Errno> {
        let after = pointer.checked_add(4).ok_or(Errno::FAULT)?;
        let buffer = Buffer {
            pointer: memory.read_u32(pointer)?,
            length: memory.read_u32(after)?,
        };
        memory.get(buffer.pointer, buffer.length)?;
        Ok(Self(buffer))
    }

    pub(super) fn read(self, memory: &Memory<'_>, port: u32) -> Result<SocketAddr, Errno> {
        let port = u16::try_from(port).map_err(|_| Errno::INVAL)?;
        let bytes = memory.get(self.0.pointer, self.0.length)?;
        let ip = match bytes.len() {
            4 => Some(v4(bytes)),
            16 => Some(v6(bytes)),
            _ if self.0.length >= WITH_FAMILY => {
                match u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) {
                    INET4 => Some(v4(&bytes[2..6])),
                    INET6 => Some(v6(&bytes[2..18])),
                    _ => return Err(Errno::AFNOSUPPORT),
                }
            }
            _ => None,
        };
        Ok(SocketAddr::new(
            ip.ok_or(Errno::INVAL)?.to_canonical(),
            port,
        ))
    }

    /// Writes an address; `INVAL` when there is no room for one of its family.
    pub(super) fn write(self, memory: &mut Memory<'_>, ip: IpAddr) -> Result<(), Errno> {
        let family = if ip.is_ipv4() { INET4 } else { INET6 };
        let mut bytes = Vec::with_capacity(18);
        if self.0.length >= WITH_FAMILY {
            bytes.extend_from_slice(&(family as u16).to_le_bytes());
        }
        match ip {
            IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
        }
        if bytes.len() > self.0.length as usize {
            return Err(Errno::INVAL);
        }
        memory.write(self.0.pointer, &bytes)
    }
}

fn v4(bytes: &[u8]) -> IpAddr {
    let bytes: [u8; 4] = bytes.try_into().expect("4 bytes");
    Ipv4Addr::from(bytes).into()
}

fn v6(bytes: &[u8]) -> IpAddr {
    let bytes: [u8; 16] = bytes.try_into().expect("16 bytes");
    Ipv6Addr::from(bytes).into()
}
