//! Name lookup by `wasi:sockets/ip-name-lookup`: search domains and cluster names are the host's business.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddress};

use crate::executor::ready;
use crate::tcp::error;

/// All addresses of a name, such as a Service's short name, its full name, or an address.
pub async fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    let stream = resolve_addresses(&instance_network(), name).map_err(error)?;
    let mut addresses = Vec::new();
    loop {
        match stream.resolve_next_address() {
            Ok(Some(address)) => addresses.push(from_wasi(address)),
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => ready(stream.subscribe()).await,
            Err(code) => return Err(error(code)),
        }
    }
}

fn from_wasi(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => Ipv6Addr::new(a, b, c, d, e, f, g, h).into(),
    }
}
