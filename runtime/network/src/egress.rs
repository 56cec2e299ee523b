//! Which addresses outside the cluster a pod may dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::error::NetError;

/// Knows the host's own addresses.
pub trait HostAddresses: Send + Sync + 'static {
    /// Whether `address` belongs to an interface of this host, as of now.
    fn is_own(&self, address: IpAddr) -> bool;
}

/// Asks the system by binding: only an own address can be bound, on every platform and for every
/// interface that comes or goes. Where the host allows foreign binds (`ip_nonlocal_bind`) all
/// addresses look like its own, which closes the outside rather than opening the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProbedHostAddresses;

impl HostAddresses for ProbedHostAddresses {
    fn is_own(&self, address: IpAddr) -> bool {
        UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
    }
}

/// The outside as pods may see it. Loopback, unspecified, link-local, multicast, broadcast and
/// the host's own addresses are closed; the check is made on the address that is dialled, after
/// names and Services were resolved.
pub struct EgressPolicy {
    enabled: bool,
    host: Box<dyn HostAddresses>,
    /// Only tests open the loopback: the one address that every machine has.
    loopback: bool,
}

impl Default for EgressPolicy {
    fn default() -> Self {
        Self::new(ProbedHostAddresses)
    }
}

impl EgressPolicy {
    /// The outside without the special addresses and without those that `host` knows for its own.
    pub fn new(host: impl HostAddresses) -> Self {
        Self {
            enabled: true,
            host: Box::new(host),
            loopback: false,
        }
    }

    /// No outside at all.
    pub fn closed() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(crate) fn open_for_tests(host: impl HostAddresses) -> Self {
        Self {
            loopback: true,
            ..Self::new(host)
        }
    }

    /// Whether a pod may dial `address`. `exempt` are addresses that its manifest names (host
    /// aliases): they may be link-local or the host's own, but never loopback or a group.
    pub fn check(&self, address: IpAddr, exempt: &[IpAddr]) -> Result<(), NetError> {
        let address = address.to_canonical();
        let deny = |reason: &str| {
            Err(NetError::Denied {
                address,
                reason: reason.to_owned(),
            })
        };
        if !self.enabled {
            return deny("this node lets no pod out");
        }
        let tested = self.loopback && address.is_loopback();
        if let Some(reason) = never_reachable(address).filter(|_| !tested) {
            return deny(reason);
        }
        if exempt.contains(&address) {
            return Ok(());
        }
        if is_link_local(address) {
            return deny("link-local addresses are not reachable from pods");
        }
        if self.host.is_own(address) {
            return deny("the address belongs to the host");
        }
        Ok(())
    }
}

/// Why no manifest can open `address`.
fn never_reachable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified address is not reachable from pods");
    }
    if address.is_loopback() {
        return Some("the host's loopback is not reachable from pods");
    }
    if address.is_multicast() {
        return Some("multicast is not supported");
    }
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("0.0.0.0/8 is not reachable from pods"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("broadcast is not supported"),
        // ::a.b.c.d, which some stacks still send to a.b.c.d.
        IpAddr::V6(v6) if is_v4_compatible(v6) => Some("IPv4-compatible addresses are closed"),
        _ => None,
    }
}

fn is_v4_compatible(address: Ipv6Addr) -> bool {
    address.segments()[..6].iter().all(|segment| *segment == 0)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Own(IpAddr);

    impl HostAddresses for Own {
        fn is_own(&self, address: IpAddr) -> bool {
            address == self.0
        }
    }

    fn policy() -> EgressPolicy {
        EgressPolicy::new(Own("192.168.1.20".parse().unwrap()))
    }

    #[test]
    fn the_host_and_special_addresses_are_closed_in_every_form() {
        for closed in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "192.168.1.20",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:192.168.1.20",
            "::ffff:0.0.0.0",
        ] {
            let result = policy().check(closed.parse().unwrap(), &[]);
            assert!(
                matches!(result, Err(NetError::Denied { .. })),
                "{closed}: {result:?}"
            );
        }
        for open in [
            "1.1.1.1",
            "192.168.1.21",
            "10.0.0.1",
            "2001:db8::1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(policy().check(open.parse().unwrap(), &[]), Ok(()), "{open}");
        }
    }

    #[test]
    fn a_manifest_opens_the_addresses_it_names_but_never_loopback() {
        let named: Vec<IpAddr> = ["192.168.1.20", "169.254.1.1", "127.0.0.1"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        assert_eq!(policy().check(named[0], &named), Ok(()));
        assert_eq!(policy().check(named[1], &named), Ok(()));
        assert!(policy().check(named[2], &named).is_err());
    }

    #[test]
    fn the_probe_knows_loopback_for_its_own_and_a_documentation_address_for_foreign() {
        assert!(ProbedHostAddresses.is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!ProbedHostAddresses.is_own(Ipv4Addr::new(192, 0, 2, 1).into()));
    }

    #[test]
    fn a_closed_node_lets_nothing_out() {
        assert!(
            EgressPolicy::closed()
                .check(Ipv4Addr::new(1, 1, 1, 1).into(), &[])
                .is_err()
        );
    }
}
