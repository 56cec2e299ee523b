//! The cluster's zone: one pure lookup over the tables.
//!
//! Follows the [Kubernetes DNS specification] 1.1.0, and CoreDNS where that is silent.
//!
//! | name (below the cluster domain)     | records                                              |
//! |-------------------------------------|------------------------------------------------------|
//! | `web.default.svc`                   | A, AAAA: the cluster addresses, or all ready         |
//! |                                     | endpoints of a headless Service; CNAME: an external  |
//! |                                     | name; SRV: all ports                                 |
//! | `_http._tcp.web.default.svc`        | SRV: the named port, at the name above, or at that   |
//! |                                     | of each ready endpoint of a headless Service         |
//! | `db-0.db.default.svc`               | A, AAAA: the ready endpoints with that hostname      |
//! | `10-240-0-5.db.default.svc`         | the same for a ready endpoint of that address        |
//! | `10-240-0-5.default.pod`            | the address in the name, whoever has it              |
//! | `dns-version`                       | TXT: `1.1.0`                                         |
//! | (nothing), `ns.dns`                 | NS, SOA; A, AAAA: this server                        |
//!
//! And `5.0.96.10.in-addr.arpa` (or `….ip6.arpa`) has as PTR the name of the Service, or of the
//! endpoint, that has the address. A name above others that exist is there without records
//! (NODATA); all others below the domain, and addresses of the cluster that nobody has, do not
//! exist (NXDOMAIN). A Service without ready endpoints has no name if it is headless.
//!
//! [Kubernetes DNS specification]: https://github.com/kubernetes/dns/blob/master/docs/specification.md

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use coracle_client::ObjectKey;
use coracle_dns::{Data, Found, Kind, Lookup};
use coracle_network::Protocol;
use ipnet::IpNet;

use crate::index::{Front, Indexed, Port, Tables};

/// Of the specification.
const SCHEMA_VERSION: &str = "1.1.0";

/// More than any message holds.
const MOST_HOSTS: usize = 4096;

/// What is fixed about the zone.
#[derive(Clone, Debug)]
pub(crate) struct ZoneConfig {
    /// The cluster's domain: lower case, without the last dot.
    pub(crate) domain: String,
    /// The addresses of the DNS Service.
    pub(crate) servers: Vec<IpAddr>,
    /// The addresses whose names are ours to know.
    pub(crate) ranges: Vec<IpNet>,
}

/// Looks `name` (lower case, absolute, without the last dot) up.
pub(crate) fn lookup(tables: &Tables, zone: &ZoneConfig, name: &str, kind: Kind) -> Lookup {
    if let Some(address) = address_in_reverse(name) {
        return pointer(tables, zone, address, kind);
    }
    let Some(below) = name.strip_suffix(zone.domain.as_str()) else {
        return Lookup::Elsewhere;
    };
    if below.is_empty() {
        return match kind {
            Kind::Ns => {
                let name = format!("ns.dns.{}", zone.domain);
                let servers = zone.servers.iter();
                Lookup::Found(Found {
                    additional: servers.map(|server| (name.clone(), *server)).collect(),
                    records: vec![Data::NameServer(name)],
                })
            }
            _ => Lookup::no_data(),
        };
    }
    let Some(below) = below.strip_suffix('.') else {
        return Lookup::Elsewhere; // such as notcluster.local
    };
    let labels: Vec<&str> = below.split('.').collect();
    match labels[..] {
        ["dns-version"] if kind == Kind::Txt => {
            Lookup::records([Data::Text(SCHEMA_VERSION.to_owned())])
        }
        ["dns-version" | "dns" | "svc" | "pod"] => Lookup::no_data(),
        ["ns", "dns"] => addresses(&zone.servers, kind),
        [namespace, "svc" | "pod"] if tables.has_namespace(namespace) => Lookup::no_data(),
        [address, namespace, "pod"] if tables.has_namespace(namespace) => match dashed(address) {
            Some(address) => addresses(&[address], kind),
            None => Lookup::NoName,
        },
        [ref rest @ .., service, namespace, "svc"] => {
            let key = ObjectKey::new(namespace, service);
            let Some(indexed) = tables.service(&key) else {
                return Lookup::NoName;
            };
            let asked = Asked {
                service: indexed,
                domain: &zone.domain,
                kind,
            };
            match rest {
                [] => asked.service(),
                [protocol] if protocol.starts_with('_') => asked.protocol(protocol),
                [port, protocol] => asked.port(port, protocol),
                [endpoint] => asked.endpoint(endpoint),
                _ => Lookup::NoName,
            }
        }
        _ => Lookup::NoName,
    }
}

/// A question about a Service.
struct Asked<'a> {
    service: &'a Indexed,
    domain: &'a str,
    kind: Kind,
}

impl Asked<'_> {
    /// The Service's own name.
    fn service(&self) -> Lookup {
        let entry = &self.service.entry;
        match &entry.front {
            Front::ExternalName(target) if target.is_empty() => Lookup::NoName,
            Front::ExternalName(target) => Lookup::Alias(target.clone()),
            Front::Headless if entry.addresses.is_empty() => Lookup::NoName,
            _ if self.kind == Kind::Srv => self.services(entry.ports.iter()),
            Front::ClusterIps(all) => addresses(all, self.kind),
            Front::Headless => {
                // Clients take the first address, so that the endpoints take turns at being first.
                let mut all = of_kind(&entry.addresses, self.kind);
                if !all.is_empty() {
                    let turn = self.service.next_turn() % all.len();
                    all.rotate_left(turn);
                }
                Lookup::records(all)
            }
        }
    }

    /// A protocol of the Service, which has no records but those of ports below it.
    fn protocol(&self, protocol: &str) -> Lookup {
        let named =
            |port: &&Port| !port.name.is_empty() && Some(port.protocol) == of_label(protocol);
        match self.has_ports() && self.service.entry.ports.iter().any(|port| named(&port)) {
            true => Lookup::no_data(),
            false => Lookup::NoName,
        }
    }

    /// A named port of the Service.
    fn port(&self, port: &str, protocol: &str) -> Lookup {
        let (Some(name), Some(protocol)) = (port.strip_prefix('_'), of_label(protocol)) else {
            return Lookup::NoName;
        };
        let wanted = |port: &&Port| {
            !name.is_empty() && port.name.eq_ignore_ascii_case(name) && port.protocol == protocol
        };
        let mut ports = self.service.entry.ports.iter().filter(wanted).peekable();
        if ports.peek().is_none() || !self.has_ports() {
            return Lookup::NoName;
        }
        match self.kind {
            Kind::Srv => self.services(ports),
            _ => Lookup::no_data(),
        }
    }

    /// Whether there is anything that a port could lead to.
    fn has_ports(&self) -> bool {
        let entry = &self.service.entry;
        match entry.front {
            Front::ClusterIps(_) => true,
            Front::Headless => !entry.addresses.is_empty(),
            Front::ExternalName(_) => false,
        }
    }

    /// SRV records of the given ports, and the addresses of the hosts in them.
    fn services<'p>(&self, ports: impl Iterator<Item = &'p Port>) -> Lookup {
        let entry = &self.service.entry;
        let name = self.own_name();
        let mut hosts: Vec<(String, u16, IpAddr)> = Vec::new();
        for port in ports {
            match &entry.front {
                Front::ClusterIps(all) => {
                    hosts.extend(all.iter().map(|ip| (name.clone(), port.port, *ip)));
                }
                Front::Headless => {
                    let endpoints = port.endpoints.all();
                    let ready =
                        endpoints.filter(|at| entry.addresses.binary_search(&at.ip()).is_ok());
                    hosts.extend(ready.map(|at| (self.name_of(at.ip()), at.port(), at.ip())));
                }
                Front::ExternalName(_) => {}
            }
        }
        hosts.truncate(MOST_HOSTS);
        let (mut targets, mut additional) = (Vec::new(), Vec::new());
        let (mut known, mut known_hosts) = (HashSet::new(), HashSet::new());
        for (target, port, address) in hosts {
            if known.insert((target.clone(), port)) {
                targets.push((target.clone(), port));
            }
            if known_hosts.insert((target.clone(), address)) {
                additional.push((target, address));
            }
        }
        // Shares of a hundred, as CoreDNS gives them.
        let share = (100 / targets.len().max(1)).max(1);
        let weight = u16::try_from(share).unwrap_or(1);
        let records = targets.into_iter().map(|(target, port)| Data::Service {
            priority: 0,
            weight,
            port,
            target,
        });
        Lookup::Found(Found {
            records: records.collect(),
            additional,
        })
    }

    /// An endpoint's name: its hostname, or its address.
    fn endpoint(&self, label: &str) -> Lookup {
        let entry = &self.service.entry;
        if let Some(all) = entry.hostnames.get(label) {
            return addresses(all, self.kind);
        }
        let address = dashed(label).filter(|ip| entry.addresses.binary_search(ip).is_ok());
        match address {
            Some(address) => addresses(&[address], self.kind),
            None => Lookup::NoName,
        }
    }

    fn own_name(&self) -> String {
        own_name(self.service, self.domain)
    }

    fn name_of(&self, endpoint: IpAddr) -> String {
        name_of(self.service, endpoint, self.domain)
    }
}

fn own_name(service: &Indexed, domain: &str) -> String {
    let key = &service.entry.key;
    format!("{}.{}.svc.{domain}", key.name, key.namespace)
}

/// The name of an endpoint below its Service's.
fn name_of(service: &Indexed, endpoint: IpAddr, domain: &str) -> String {
    let name = service.entry.names.get(&endpoint).cloned();
    let name = name.unwrap_or_else(|| endpoint.to_string().replace(['.', ':'], "-"));
    format!("{name}.{}", own_name(service, domain))
}

/// The names of an address: the Service's whose it is, else those of endpoints there, of headless
/// Services first.
fn pointer(tables: &Tables, zone: &ZoneConfig, address: IpAddr, kind: Kind) -> Lookup {
    let mut names = Vec::new();
    match tables.service_at(address) {
        Some(service) => names.push(own_name(service, &zone.domain)),
        None => {
            let mut services: Vec<_> = tables.services_behind(address).collect();
            services.sort_by_key(|service| service.entry.front != Front::Headless);
            names.extend(
                services
                    .iter()
                    .map(|service| name_of(service, address, &zone.domain)),
            );
        }
    }
    if names.is_empty() {
        let ours = zone.ranges.iter().any(|range| range.contains(&address));
        return if ours {
            Lookup::NoName
        } else {
            Lookup::Elsewhere
        };
    }
    match kind {
        Kind::Ptr => Lookup::records(names.into_iter().map(Data::Pointer)),
        _ => Lookup::no_data(),
    }
}

fn addresses(all: &[IpAddr], kind: Kind) -> Lookup {
    if all.is_empty() {
        return Lookup::NoName;
    }
    Lookup::records(of_kind(all, kind))
}

/// The addresses of the family that is asked for.
fn of_kind(all: &[IpAddr], kind: Kind) -> Vec<Data> {
    let wanted = |address: &&IpAddr| match kind {
        Kind::A => address.is_ipv4(),
        Kind::Aaaa => address.is_ipv6(),
        _ => false,
    };
    all.iter()
        .filter(wanted)
        .copied()
        .map(Data::Address)
        .collect()
}

fn of_label(label: &str) -> Option<Protocol> {
    match label {
        "_tcp" => Some(Protocol::Tcp),
        "_udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// An address with dashes for dots (or colons).
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6);
    v4.or_else(|_| v6()).ok()
}

/// The address that a whole name below `in-addr.arpa` or `ip6.arpa` stands for.
fn address_in_reverse(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut octets: Vec<&str> = octets.split('.').collect();
        octets.reverse();
        return octets.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    if nibbles.len() != 63 {
        return None;
    }
    let mut bits = 0u128;
    for nibble in nibbles.split('.').rev() {
        let [digit] = nibble.as_bytes() else {
            return None;
        };
        bits = (bits << 4) | u128::from(char::from(*digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_client::Change;
    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::json;
    use std::sync::Arc;

    use crate::fixtures::{applied, cluster_ip, external, index, pod_ip, ready, service, slice};
    use crate::index::Index;

    fn zone() -> ZoneConfig {
        ZoneConfig {
            domain: "cluster.local".into(),
            servers: vec![Ipv4Addr::new(10, 96, 0, 10).into()],
            ranges: vec![
                "10.240.0.0/12".parse().unwrap(),
                "10.96.0.0/16".parse().unwrap(),
            ],
        }
    }

    fn cluster() -> Arc<Index> {
        let ports = json!([
            {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 99},
        ]);
        let backends = json!([
            {"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "", "port": 99},
        ]);
        let both = json!({"clusterIP": "10.96.0.6", "clusterIPs": ["10.96.0.6", "fd00::6"], "ports": [{"name": "http", "port": 80}]});
        let headless = json!({"clusterIP": "None", "ports": ports});
        let endpoints = json!([
            {"addresses": [pod_ip(1)], "hostname": "DB-0", "conditions": {"ready": true}},
            {"addresses": [pod_ip(2)], "conditions": {"ready": true}},
            {"addresses": [pod_ip(3)], "hostname": "db-2", "conditions": {"ready": false}},
        ]);
        let index = index(
            [
                cluster_ip("web", 5),
                service("both", both),
                service("db", headless.clone()),
                service("nobody", headless),
                external("out", "Example.ORG."),
                external("nameless", ""),
            ],
            [
                slice("s", "db", backends, endpoints),
                ready("web", 80, &[7]),
            ],
        );
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        index.namespace_changed(&applied(namespace));
        index
    }

    fn ask(index: &Index, name: &str, kind: Kind) -> Lookup {
        index.ask(|tables| lookup(tables, &zone(), name, kind))
    }

    /// Records as text, in order; `-` without any, `NXDOMAIN` without the name.
    fn shown(lookup: Lookup) -> Vec<String> {
        let found = match lookup {
            Lookup::Found(found) if found.records.is_empty() => return vec!["-".into()],
            Lookup::Found(found) => found,
            Lookup::Alias(target) => return vec![format!("CNAME {target}")],
            Lookup::NoName => return vec!["NXDOMAIN".into()],
            Lookup::Elsewhere => return vec!["elsewhere".into()],
            Lookup::NotYet => return vec!["not yet".into()],
        };
        let text = |data: Data| match data {
            Data::Address(address) => address.to_string(),
            Data::NameServer(name) | Data::Pointer(name) | Data::Text(name) => name,
            Data::Service {
                priority,
                weight,
                port,
                target,
            } => format!("{priority} {weight} {port} {target}"),
        };
        let mut all: Vec<_> = found.records.into_iter().map(text).collect();
        all.sort();
        all
    }

    #[test]
    fn names_have_the_records_of_the_specification() {
        let index = cluster();
        let cases: [(&str, Kind, &[&str]); 44] = [
            ("dns-version.cluster.local", Kind::Txt, &["1.1.0"]),
            ("dns-version.cluster.local", Kind::A, &["-"]),
            ("cluster.local", Kind::Ns, &["ns.dns.cluster.local"]),
            ("cluster.local", Kind::A, &["-"]),
            ("dns.cluster.local", Kind::A, &["-"]),
            ("ns.dns.cluster.local", Kind::A, &["10.96.0.10"]),
            ("ns.dns.cluster.local", Kind::Aaaa, &["-"]),
            ("svc.cluster.local", Kind::A, &["-"]),
            ("default.svc.cluster.local", Kind::A, &["-"]),
            ("default.pod.cluster.local", Kind::A, &["-"]),
            ("other.svc.cluster.local", Kind::A, &["NXDOMAIN"]),
            ("web.default.svc.cluster.local", Kind::A, &["10.96.0.5"]),
            ("web.default.svc.cluster.local", Kind::Aaaa, &["-"]),
            ("web.default.svc.cluster.local", Kind::Txt, &["-"]),
            ("web.default.svc.cluster.local", Kind::Cname, &["-"]),
            ("both.default.svc.cluster.local", Kind::A, &["10.96.0.6"]),
            ("both.default.svc.cluster.local", Kind::Aaaa, &["fd00::6"]),
            ("missing.default.svc.cluster.local", Kind::A, &["NXDOMAIN"]),
            ("web.other.svc.cluster.local", Kind::A, &["NXDOMAIN"]),
            (
                "_http._tcp.web.default.svc.cluster.local",
                Kind::Srv,
                &["0 100 80 web.default.svc.cluster.local"],
            ),
            ("_http._tcp.web.default.svc.cluster.local", Kind::A, &["-"]),
            ("_tcp.web.default.svc.cluster.local", Kind::Srv, &["-"]),
            (
                "_udp.web.default.svc.cluster.local",
                Kind::Srv,
                &["NXDOMAIN"],
            ),
            (
                "_http._udp.web.default.svc.cluster.local",
                Kind::Srv,
                &["NXDOMAIN"],
            ),
            (
                "_._tcp.db.default.svc.cluster.local",
                Kind::Srv,
                &["NXDOMAIN"],
            ),
            (
                "web.default.svc.cluster.local",
                Kind::Srv,
                &["0 100 80 web.default.svc.cluster.local"],
            ),
            (
                "db.default.svc.cluster.local",
                Kind::A,
                &["10.240.0.1", "10.240.0.2"],
            ),
            ("db.default.svc.cluster.local", Kind::Aaaa, &["-"]),
            ("nobody.default.svc.cluster.local", Kind::A, &["NXDOMAIN"]),
            (
                "_http._tcp.nobody.default.svc.cluster.local",
                Kind::Srv,
                &["NXDOMAIN"],
            ),
            (
                "db-0.db.default.svc.cluster.local",
                Kind::A,
                &["10.240.0.1"],
            ),
            ("db-0.db.default.svc.cluster.local", Kind::Aaaa, &["-"]),
            ("db-2.db.default.svc.cluster.local", Kind::A, &["NXDOMAIN"]),
            (
                "10-240-0-2.db.default.svc.cluster.local",
                Kind::A,
                &["10.240.0.2"],
            ),
            (
                "10-240-0-3.db.default.svc.cluster.local",
                Kind::A,
                &["NXDOMAIN"],
            ),
            (
                "10-240-0-7.web.default.svc.cluster.local",
                Kind::A,
                &["10.240.0.7"],
            ),
            ("10-9-8-7.default.pod.cluster.local", Kind::A, &["10.9.8.7"]),
            ("10-9-8-7.default.pod.cluster.local", Kind::Aaaa, &["-"]),
            (
                "fd00--7.default.pod.cluster.local",
                Kind::Aaaa,
                &["fd00::7"],
            ),
            ("10-9-8-7.other.pod.cluster.local", Kind::A, &["NXDOMAIN"]),
            ("web.default.pod.cluster.local", Kind::A, &["NXDOMAIN"]),
            (
                "out.default.svc.cluster.local",
                Kind::A,
                &["CNAME example.org"],
            ),
            ("nameless.default.svc.cluster.local", Kind::A, &["NXDOMAIN"]),
            ("example.org", Kind::A, &["elsewhere"]),
        ];
        for (name, kind, expected) in cases {
            assert_eq!(shown(ask(&index, name, kind)), expected, "{name} {kind:?}");
        }
        for name in [
            "example.org.cluster.local",
            "a.b.web.default.svc.cluster.local",
            "x.cluster.local",
        ] {
            assert_eq!(shown(ask(&index, name, Kind::A)), ["NXDOMAIN"], "{name}");
        }
        assert_eq!(
            shown(ask(&index, "notcluster.local", Kind::A)),
            ["elsewhere"]
        );
    }

    #[test]
    fn a_port_of_a_headless_service_leads_to_each_ready_endpoint() {
        let index = cluster();
        let db = "db.default.svc.cluster.local";
        let port = |label: &str| ask(&index, &format!("{label}.{db}"), Kind::Srv);
        let expected = [
            format!("0 50 5353 10-240-0-2.{db}"),
            format!("0 50 5353 db-0.{db}"),
        ];
        assert_eq!(shown(port("_dns._udp")), expected);
        let expected = [
            format!("0 50 8080 10-240-0-2.{db}"),
            format!("0 50 8080 db-0.{db}"),
        ];
        assert_eq!(shown(port("_http._tcp")), expected);
        let Lookup::Found(found) = port("_http._tcp") else {
            panic!("two records")
        };
        let hosts = [
            (format!("db-0.{db}"), pod_ip(1)),
            (format!("10-240-0-2.{db}"), pod_ip(2)),
        ];
        assert_eq!(found.additional, hosts);
        let Lookup::Found(all) = ask(&index, db, Kind::Srv) else {
            panic!("all ports")
        };
        assert_eq!(all.records.len(), 6);
    }

    #[test]
    fn addresses_have_names() {
        let index = cluster();
        let cases: [(&str, &[&str]); 10] = [
            ("5.0.96.10.in-addr.arpa", &["web.default.svc.cluster.local"]),
            (
                "1.0.240.10.in-addr.arpa",
                &["db-0.db.default.svc.cluster.local"],
            ),
            (
                "2.0.240.10.in-addr.arpa",
                &["10-240-0-2.db.default.svc.cluster.local"],
            ),
            (
                "7.0.240.10.in-addr.arpa",
                &["10-240-0-7.web.default.svc.cluster.local"],
            ),
            ("3.0.240.10.in-addr.arpa", &["NXDOMAIN"]),
            ("99.0.96.10.in-addr.arpa", &["NXDOMAIN"]),
            ("1.2.0.192.in-addr.arpa", &["elsewhere"]),
            ("0.96.10.in-addr.arpa", &["elsewhere"]),
            (
                "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                &["both.default.svc.cluster.local"],
            ),
            (
                "g.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                &["elsewhere"],
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(shown(ask(&index, name, Kind::Ptr)), expected, "{name}");
        }
        assert_eq!(shown(ask(&index, "5.0.96.10.in-addr.arpa", Kind::A)), ["-"]);
        index.slice_changed(&Change::Deleted(Arc::new(ready("web", 80, &[7]))));
        assert_eq!(
            shown(ask(&index, "7.0.240.10.in-addr.arpa", Kind::Ptr)),
            ["NXDOMAIN"]
        );
    }

    #[test]
    fn endpoints_of_a_headless_service_take_turns_at_being_first() {
        let index = cluster();
        let first = || match ask(&index, "db.default.svc.cluster.local", Kind::A) {
            Lookup::Found(found) => found.records[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_ne!(first(), first());
    }
}
