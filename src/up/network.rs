//! The addresses of a cluster: of its nodes, pods and Services, as the flags have them; and the domain of its names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use coracle_kubelet::Ipam;
use coracle_kubelet::ipam::pods_in;
use ipnet::IpNet;

use crate::cli::UpArgs;

/// The domain of the cluster's names.
pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";
/// Pods that a node takes unless it is told otherwise. Upstream's 110 are for processes of their own; here a pod at rest
/// costs little, and whoever scales to a thousand expects a thousand.
const MAX_PODS: u32 = 10_000;

/// The addresses that follow from the flags. Lists have one entry, or one of each family, the primary one first.
pub(super) struct Network {
    /// All pods of the cluster.
    pub(super) cluster_ranges: Vec<IpNet>,
    /// The pods of this node.
    pub(super) pod_ranges: Vec<IpNet>,
    /// Services. Guests reach those of both families if pods have both, too.
    pub(super) service_ranges: Vec<IpNet>,
    /// How many pods this node takes.
    pub(super) max_pods: u32,
    /// This node inside the pod network.
    pub(super) node_addresses: Vec<IpAddr>,
    /// The Service `kubernetes`: the first of the Services' addresses, of the primary family alone.
    pub(super) kubernetes: IpAddr,
    /// The cluster's DNS server: the tenth, of each family that pods have.
    pub(super) dns: Vec<IpAddr>,
}

impl Network {
    /// Checks the flags against each other.
    pub(super) fn of(args: &UpArgs) -> Result<Self> {
        let services = families("--service-cidr", &args.service_cidr)?;
        let clusters = families("--cluster-cidr", &args.cluster_cidr)?;
        let (cluster, service) = (clusters[0], services[0]);
        if is_v6(&cluster) != is_v6(&service) {
            bail!(
                "--cluster-cidr {cluster} and --service-cidr {service} are of different families: name the ranges of the \
                 same family first in both"
            );
        }
        let mut pod_ranges = Vec::new();
        for cluster in &clusters {
            pod_ranges.push(node_range(*cluster, args)?);
        }
        for services in &services {
            let (least, most) = match is_v6(services) {
                true => (64, 124),
                false => (0, 28),
            };
            if !(least..=most).contains(&services.prefix_len()) {
                bail!(
                    "--service-cidr {services} needs a prefix of {least} to {most} bits, which is at least 16 addresses"
                );
            }
            let overlaps = |cluster: &&IpNet| {
                cluster.contains(&services.network()) || services.contains(&cluster.network())
            };
            if let Some(cluster) = clusters.iter().find(overlaps) {
                bail!(
                    "--cluster-cidr {cluster} and --service-cidr {services} overlap: choose ranges that do not"
                );
            }
        }
        if let Some(small) = pod_ranges.iter().find(|range| pods_in(**range) < 5) {
            bail!("the node's share of --cluster-cidr, {small}, needs at least 8 addresses");
        }
        if let [first, second] = *pod_ranges
            && let (IpNet::V4(v4), IpNet::V6(v6)) | (IpNet::V6(v6), IpNet::V4(v4)) = (first, second)
            && 128 - v6.prefix_len() < 32 - v4.prefix_len()
        {
            bail!(
                "--node-cidr-mask-size-ipv6 {} leaves fewer addresses than the node's IPv4 range {v4}: choose {} or less",
                v6.prefix_len(),
                128 - (32 - v4.prefix_len())
            );
        }
        let smallest = pod_ranges.iter().min_by_key(|range| pods_in(**range));
        let smallest = *smallest.expect("there is a range");
        let addresses = pods_in(smallest);
        let max_pods = args.max_pods.unwrap_or(addresses.min(MAX_PODS));
        if max_pods > addresses {
            let (flag, bits) = (mask_flag(&smallest), smallest.prefix_len());
            bail!(
                "--max-pods {max_pods} needs as many addresses, and a node's share of --cluster-cidr, {smallest}, has \
                 {addresses}: choose a {flag} below {bits}"
            );
        }
        let pods_have = |range: &&IpNet| clusters.iter().any(|pods| is_v6(pods) == is_v6(range));
        Ok(Self {
            kubernetes: address_at(service, 1),
            dns: services
                .iter()
                .filter(pods_have)
                .map(|range| address_at(*range, 10))
                .collect(),
            node_addresses: pod_ranges
                .iter()
                .map(|range| Ipam::node_address(*range))
                .collect(),
            cluster_ranges: clusters,
            pod_ranges,
            service_ranges: services,
            max_pods,
        })
    }

    /// This node's address inside the pod network, of the primary family.
    pub(super) fn node_address(&self) -> IpAddr {
        self.node_addresses[0]
    }

    /// The names and addresses by which pods know the API server.
    pub(super) fn names_in_cluster(&self) -> Vec<String> {
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut names = service.map(str::to_owned).to_vec();
        names.push(format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"));
        names.push(self.kubernetes.to_string());
        names.extend(self.node_addresses.iter().map(ToString::to_string));
        names
    }
}

fn is_v6(range: &IpNet) -> bool {
    matches!(range, IpNet::V6(_))
}

/// One range, or one of each family.
fn families(flag: &str, ranges: &[IpNet]) -> Result<Vec<IpNet>> {
    match ranges {
        [_] => {}
        [first, second] if is_v6(first) != is_v6(second) => {}
        _ => bail!("{flag} takes one range, or an IPv4 and an IPv6 range with a comma between"),
    }
    Ok(ranges.iter().map(IpNet::trunc).collect())
}

/// The flag that says how large a node's share of the range is.
fn mask_flag(range: &IpNet) -> &'static str {
    match is_v6(range) {
        true => "--node-cidr-mask-size-ipv6",
        false => "--node-cidr-mask-size",
    }
}

/// This node's share of the pods' addresses: the first.
fn node_range(cluster: IpNet, args: &UpArgs) -> Result<IpNet> {
    let (flag, most) = (mask_flag(&cluster), cluster.max_prefix_len());
    let bits = match is_v6(&cluster) {
        true => args.node_cidr_mask_size_ipv6,
        false => args.node_cidr_mask_size,
    };
    let first = cluster.subnets(bits).ok().and_then(|mut all| all.next());
    first.with_context(|| {
        format!(
            "{flag} {bits} does not fit into --cluster-cidr {cluster}: it lies between {} and {most}",
            cluster.prefix_len()
        )
    })
}

fn address_at(range: IpNet, place: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + place).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(place)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn shown<T: ToString>(all: &[T]) -> String {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        all.join(" ")
    }

    fn network(flags: &[&str]) -> Result<Network> {
        let line = ["coracle", "up"].iter().chain(flags);
        let crate::cli::Command::Up(args) = crate::cli::Cli::try_parse_from(line)?.command else {
            unreachable!("the line says up")
        };
        Network::of(&args)
    }

    #[test]
    fn the_default_addresses_are_those_of_the_documentation() {
        let network = network(&[]).expect("valid");
        assert_eq!(shown(&network.pod_ranges), "10.240.0.0/18");
        assert_eq!(shown(&network.node_addresses), "10.240.0.1");
        assert_eq!(network.kubernetes.to_string(), "10.96.0.1");
        assert_eq!(shown(&network.dns), "10.96.0.10");
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "10.96.0.1",
            "10.240.0.1",
        ];
        assert_eq!(network.names_in_cluster(), names);
    }

    #[test]
    fn pods_have_both_families_if_the_flags_say_so() {
        let both = network(&["--cluster-cidr", "10.240.0.0/12,fd00:10:240::/48"]).expect("valid");
        assert_eq!(shown(&both.pod_ranges), "10.240.0.0/18 fd00:10:240::/64");
        assert_eq!(shown(&both.node_addresses), "10.240.0.1 fd00:10:240::1");
        assert_eq!(
            shown(&both.dns),
            "10.96.0.10",
            "there is no Service of IPv6"
        );
        let error = |flags: &[&str]| network(flags).err().expect("refused").to_string();
        assert!(error(&["--cluster-cidr", "fd00::/48"]).contains("different families"));
        let three = "10.240.0.0/12,fd00::/48,fd01::/48";
        assert!(error(&["--cluster-cidr", three]).contains("an IPv4 and an IPv6 range"));
        let twice = "10.240.0.0/12,10.0.0.0/16";
        assert!(error(&["--cluster-cidr", twice]).contains("an IPv4 and an IPv6 range"));
        let small = ["--cluster-cidr", "10.240.0.0/12,fd00::/120"];
        assert!(error(&small).contains("between 120 and 128"));
        let few = [&small[..], &["--node-cidr-mask-size-ipv6", "120"]].concat();
        assert!(
            error(&few).contains("choose 114 or less"),
            "{}",
            error(&few)
        );
        let same = [
            "--cluster-cidr",
            "10.240.0.0/12,fd00::/64",
            "--service-cidr",
            "10.96.0.0/16,fd00::/108",
        ];
        assert!(error(&same).contains("overlap"));
    }

    #[test]
    fn a_node_takes_as_many_pods_as_it_is_told_or_has_addresses_for() {
        let pods = |flags: &[&str]| network(flags).map(|network| network.max_pods);
        assert_eq!(pods(&[]).expect("valid"), 10_000);
        assert_eq!(pods(&["--max-pods", "16381"]).expect("valid"), 16_381);
        assert_eq!(pods(&["--node-cidr-mask-size", "24"]).expect("valid"), 253);
        let error = pods(&["--max-pods", "20000"]).expect_err("too many");
        assert!(error.to_string().contains("has 16381"), "{error}");
        let small = [
            "--cluster-cidr=fd00::/112",
            "--service-cidr=fd01::/112",
            "--node-cidr-mask-size-ipv6=120",
        ];
        assert_eq!(pods(&small).expect("valid"), 254);
        let error = pods(&[&small[..], &["--max-pods=300"]].concat()).expect_err("too many");
        let wanted = "has 254: choose a --node-cidr-mask-size-ipv6 below 120";
        assert!(error.to_string().contains(wanted), "{error}");
        let more = ["--max-pods", "20000", "--node-cidr-mask-size", "17"];
        assert_eq!(pods(&more).expect("valid"), 20_000);
    }

    #[test]
    fn ipv6_may_be_the_first_family_or_the_only_one() {
        let first = network(&[
            "--cluster-cidr=fd00:10:240::/48,10.240.0.0/12",
            "--service-cidr=fd00:10:96::/112,10.96.0.0/16",
        ]);
        let first = first.expect("valid");
        assert_eq!(shown(&first.pod_ranges), "fd00:10:240::/64 10.240.0.0/18");
        assert_eq!(shown(&first.node_addresses), "fd00:10:240::1 10.240.0.1");
        assert_eq!(first.kubernetes.to_string(), "fd00:10:96::1");
        assert_eq!(shown(&first.dns), "fd00:10:96::a 10.96.0.10");
        assert_eq!(first.max_pods, MAX_PODS);
        let names = first.names_in_cluster();
        for name in ["fd00:10:96::1", "fd00:10:240::1", "10.240.0.1"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        let only = network(&["--cluster-cidr=fd00::/48", "--service-cidr=fd01::/112"]);
        let only = only.expect("valid");
        assert_eq!(shown(&only.node_addresses), "fd00::1");
        assert_eq!(
            (shown(&only.dns).as_str(), only.max_pods),
            ("fd01::a", MAX_PODS)
        );
    }

    #[test]
    fn ranges_that_do_not_work_are_explained() {
        let error = |flags: &[&str]| network(flags).err().expect("refused").to_string();
        assert!(error(&["--node-cidr-mask-size", "8"]).contains("between 12 and 32"));
        assert!(error(&["--service-cidr", "10.240.0.0/16"]).contains("overlap"));
        assert!(error(&["--service-cidr", "10.96.0.0/30"]).contains("at least 16"));
        assert!(error(&["--node-cidr-mask-size", "30"]).contains("at least 8"));
        assert!(error(&["--service-cidr", "fd00::/112"]).contains("different families"));
        assert!(error(&["--service-cidr", "10.96.0.0/16,fd00::/32"]).contains("64 to 124"));
    }
}
