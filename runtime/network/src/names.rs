//! From names to addresses: the hosts table, search domains, and the resolver behind them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::ResolveError;
use crate::namespace::NetworkNamespace;

/// How a pod looks names up; the shape of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<IpAddr>,
    /// Suffixes tried in order.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

impl DnsConfig {
    /// Names with fewer dots are tried with the search suffixes first.
    pub fn ndots(&self) -> usize {
        let value = self
            .options
            .iter()
            .rev()
            .find_map(|option| option.strip_prefix("ndots:"));
        // 1 and 15 are the default and the cap of resolv.conf(5).
        value
            .and_then(|text| text.parse().ok())
            .map_or(1, |ndots: usize| ndots.min(15))
    }

    /// The text of `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }

    /// The absolute names (without the last dot) that `name` may mean, in the order to be tried.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self
            .searches
            .iter()
            .map(|suffix| suffix.trim_end_matches('.'))
            // `search .` means the name as it is, and once is enough.
            .filter(|suffix| !suffix.is_empty())
            .map(|suffix| format!("{name}.{suffix}"))
            .collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let position = if dots >= self.ndots() { 0 } else { names.len() };
        names.insert(position, name.to_owned());
        names
    }
}

/// Who asks for a name.
#[derive(Clone, Copy)]
pub struct NamespaceView<'a> {
    /// `namespace/name` of the pod.
    pub pod: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// Its DNS settings. The search suffixes have been applied already.
    pub dns: &'a DnsConfig,
    /// Its network, for resolvers that ask other servers as the pod itself would.
    pub namespace: &'a Arc<NetworkNamespace>,
}

/// Answers names in process.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of the absolute `name` (lower case, without the last dot), in the order to be
    /// tried. Called once per search suffix until one is found.
    async fn lookup(
        &self,
        from: NamespaceView<'_>,
        name: &str,
    ) -> Result<Vec<IpAddr>, ResolveError>;

    /// Whether who has these settings is answered by servers that the pod itself chose.
    fn asks_own_servers(&self, _dns: &DnsConfig) -> bool {
        false
    }
}

/// Knows no name.
pub(crate) struct NoNames;

#[async_trait]
impl Resolver for NoNames {
    async fn lookup(
        &self,
        _from: NamespaceView<'_>,
        name: &str,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        Err(ResolveError::NotFound(name.to_owned()))
    }
}

/// The pod's `/etc/hosts`.
#[derive(Debug)]
pub(crate) struct Hosts {
    addresses: Vec<IpAddr>,
    /// The pod's own, in the order of the file.
    names: Vec<String>,
    aliases: Vec<(IpAddr, Vec<String>)>,
}

/// What a pod with the host name `hostname` is called, as upstream's `managedHostsFileContent` has it: by its
/// full name, if it has one, and by the first label of that.
pub(crate) fn own_names(hostname: String, full_name: Option<String>) -> Vec<String> {
    let Some(full) = full_name else {
        return vec![hostname];
    };
    let short = full.split('.').next().unwrap_or(&full).to_owned();
    vec![full, short]
}

impl Hosts {
    pub(crate) fn new(
        addresses: Vec<IpAddr>,
        names: Vec<String>,
        aliases: Vec<(IpAddr, Vec<String>)>,
    ) -> Self {
        Self {
            addresses,
            names,
            aliases,
        }
    }

    /// Addresses of a name that the table has.
    pub(crate) fn lookup(&self, name: &str) -> Vec<IpAddr> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.eq_ignore_ascii_case("localhost") {
            let mut all = vec![Ipv4Addr::LOCALHOST.into()];
            // Only pods that have IPv6 can connect to it.
            if self.addresses.iter().any(IpAddr::is_ipv6) {
                all.push(Ipv6Addr::LOCALHOST.into());
            }
            return all;
        }
        let names = |names: &[String]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
        if names(&self.names) {
            return self.addresses.clone();
        }
        self.aliases
            .iter()
            .filter(|(_, all)| names(all))
            .map(|(ip, _)| *ip)
            .collect()
    }

    /// The text that a kubelet of Kubernetes would write.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        for address in &self.addresses {
            let _ = writeln!(text, "{address}\t{}", self.names.join("\t"));
        }
        if !self.aliases.is_empty() {
            text.push_str("\n# Entries added by HostAliases.\n");
            for (address, names) in &self.aliases {
                let _ = writeln!(text, "{address}\t{}", names.join("\t"));
            }
        }
        text
    }
}

/// Checks the shape of a name and brings it to lower case.
pub(crate) fn normalise(name: &str) -> Result<String, ResolveError> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if bare.len() > 253 || !bare.split('.').all(label) {
        let shown = name.chars().take(80).collect();
        return Err(ResolveError::InvalidName(shown));
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> DnsConfig {
        DnsConfig {
            servers: vec![Ipv4Addr::new(10, 96, 0, 10).into()],
            searches: vec![
                "default.svc.cluster.local".into(),
                "svc.cluster.local".into(),
            ],
            options: vec!["ndots:5".into()],
        }
    }

    #[test]
    fn search_suffixes_are_tried_as_ndots_says() {
        assert_eq!(
            cluster().candidates("api"),
            [
                "api.default.svc.cluster.local",
                "api.svc.cluster.local",
                "api"
            ]
        );
        assert_eq!(cluster().candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(
            cluster().candidates("api.other.svc.cluster.local.").len(),
            1
        );
        assert_eq!(
            DnsConfig::default().candidates("example.org"),
            ["example.org"]
        );
    }

    #[test]
    fn resolv_conf_has_the_order_that_a_kubelet_writes() {
        assert_eq!(
            cluster().resolv_conf(),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn hosts_know_localhost_the_pod_and_its_aliases() {
        let alias = Ipv4Addr::new(192, 0, 2, 9);
        let pod = Ipv4Addr::new(10, 240, 0, 5);
        let hosts = Hosts::new(
            vec![pod.into()],
            own_names("web-0".into(), None),
            vec![(alias.into(), vec!["db".into(), "db.example".into()])],
        );
        assert_eq!(
            hosts.lookup("LOCALHOST"),
            [IpAddr::from(Ipv4Addr::LOCALHOST)]
        );
        assert_eq!(hosts.lookup("web-0"), [IpAddr::from(pod)]);
        assert_eq!(hosts.lookup("db.example."), [IpAddr::from(alias)]);
        assert!(hosts.lookup("other").is_empty());
        assert!(
            hosts
                .text()
                .ends_with("HostAliases.\n192.0.2.9\tdb\tdb.example\n")
        );
    }

    #[test]
    fn a_pod_with_a_domain_stands_there_with_its_full_name_first() {
        let pod = IpAddr::from(Ipv4Addr::new(10, 240, 0, 5));
        let full = "web-0.web.shop.svc.cluster.local";
        // Whether or not the full name is the host name, too.
        for hostname in ["web-0", full] {
            let names = own_names(hostname.into(), Some(full.into()));
            let hosts = Hosts::new(vec![pod], names, Vec::new());
            assert!(hosts.text().ends_with(&format!("\n{pod}\t{full}\tweb-0\n")));
            assert_eq!(
                (hosts.lookup("web-0"), hosts.lookup(full)),
                (vec![pod], vec![pod])
            );
        }
    }

    #[test]
    fn hosts_of_both_families_know_both_addresses() {
        let both: [IpAddr; 2] = ["10.240.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let hosts = Hosts::new(both.to_vec(), own_names("web-0".into(), None), Vec::new());
        assert_eq!(hosts.lookup("web-0"), both);
        assert_eq!(hosts.lookup("localhost").len(), 2);
        assert!(
            hosts
                .text()
                .ends_with("10.240.0.5\tweb-0\nfd00::5\tweb-0\n")
        );
    }

    #[test]
    fn things_that_are_no_names_are_told_apart() {
        for bad in [
            "",
            ".",
            "a..b",
            "with space",
            "x\0y",
            &"a".repeat(64),
            &"a.".repeat(200),
        ] {
            assert!(normalise(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            normalise("My_Service.Default").unwrap(),
            "my_service.default"
        );
    }
}
