//! What a pod's `/etc/resolv.conf` says, and so how its names are looked up.
//!
//! The rules are those of `pkg/kubelet/network/dns/dns.go`.

use std::net::IpAddr;
use std::path::Path;

use coracle_cri::DnsConfig;
use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

use crate::translate::PodDefaults;

/// Upstream's limits (`validation.MaxDNSNameservers`, `MaxDNSSearchPaths`, `MaxDNSSearchListChars`).
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARS: usize = 2048;
/// What systemd-resolved gives out for its stub at 127.0.0.53, which pods do not reach.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Where a pod's settings begin, before its `dnsConfig` adds to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Cluster,
    Host,
    Nothing,
}

fn policy(spec: &PodSpec) -> Policy {
    let on_host = spec.host_network == Some(true);
    match spec.dns_policy.as_deref() {
        Some("None") => Policy::Nothing,
        Some("Default") => Policy::Host,
        Some("ClusterFirstWithHostNet") => Policy::Cluster,
        // Pods on the host's network are asked to say that they want the cluster's.
        _ if on_host => Policy::Host,
        _ => Policy::Cluster,
    }
}

/// The settings of a pod in `namespace`.
pub(crate) fn config(spec: &PodSpec, namespace: &str, defaults: &PodDefaults) -> DnsConfig {
    let mut dns = match policy(spec) {
        Policy::Nothing => DnsConfig::default(),
        Policy::Host => host(&defaults.resolv_conf),
        Policy::Cluster => cluster(namespace, defaults),
    };
    if let Some(more) = &spec.dns_config {
        add(&mut dns, more);
    }
    distinct(&mut dns.servers);
    distinct(&mut dns.searches);
    limit(&mut dns);
    dns
}

fn cluster(namespace: &str, defaults: &PodDefaults) -> DnsConfig {
    let domain = &defaults.cluster_domain;
    let mut searches = vec![
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    searches.extend(host(&defaults.resolv_conf).searches);
    DnsConfig {
        servers: defaults.cluster_dns.clone(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// The host's own settings.
fn host(path: &Path) -> DnsConfig {
    let dns = read(path);
    let stub = !dns.servers.is_empty() && dns.servers.iter().all(IpAddr::is_loopback);
    if stub {
        let behind = read(Path::new(RESOLVED));
        if !behind.servers.is_empty() {
            return behind;
        }
    }
    dns
}

fn read(path: &Path) -> DnsConfig {
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

/// Of several `search` lines the last one counts (`parseResolvConf`).
fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                dns.servers
                    .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
            }
            Some("search") => dns.searches = words.map(suffix).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

/// A suffix in the one form that is compared; the root stays a dot.
fn suffix(word: &str) -> String {
    match word.trim_end_matches('.') {
        "" => ".".to_owned(),
        bare => bare.to_owned(),
    }
}

fn add(dns: &mut DnsConfig, more: &PodDNSConfig) {
    let servers = more.nameservers.iter().flatten();
    dns.servers
        .extend(servers.filter_map(|ip| ip.parse::<IpAddr>().ok()));
    dns.searches
        .extend(more.searches.iter().flatten().map(|word| suffix(word)));
    for option in more.options.iter().flatten() {
        let name = option.name.clone().unwrap_or_default();
        dns.options
            .retain(|kept| kept.split(':').next() != Some(&name));
        dns.options.push(match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name,
        });
    }
}

fn distinct<T: PartialEq + Clone>(all: &mut Vec<T>) {
    let mut seen: Vec<T> = Vec::new();
    all.retain(|item| {
        let new = !seen.contains(item);
        if new {
            seen.push(item.clone());
        }
        new
    });
}

/// Cuts off what resolvers would not read.
fn limit(dns: &mut DnsConfig) {
    dns.servers.truncate(SERVERS);
    dns.searches.truncate(SEARCHES);
    // With the spaces in between.
    let mut chars = 0;
    dns.searches.retain(|search| {
        chars += search.len() + 1;
        chars <= SEARCH_CHARS + 1
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: &str = "nameserver 192.0.2.53 # comment\nsearch lost.test\nsearch corp.test. lab.test\n\
                        options edns0 ndots:2\nnonsense\n";

    fn defaults(resolv_conf: &Path) -> PodDefaults {
        PodDefaults {
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec![[10, 96, 0, 10].into()],
            resolv_conf: resolv_conf.to_owned(),
            pods_directory: "/pods".into(),
        }
    }

    /// `servers | searches | options` of a pod in `shop` on a host with [`HOST`].
    fn shown(spec: Value) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), HOST).expect("written");
        let spec = serde_json::from_value(spec).expect("a spec");
        let dns = config(&spec, "shop", &defaults(file.path()));
        let servers: Vec<_> = dns.servers.iter().map(ToString::to_string).collect();
        format!(
            "{} | {} | {}",
            servers.join(" "),
            dns.searches.join(" "),
            dns.options.join(" ")
        )
    }

    #[test]
    fn every_policy_has_its_settings() {
        let cluster = "10.96.0.10 | shop.svc.cluster.local svc.cluster.local cluster.local corp.test lab.test | ndots:5";
        let host = "192.0.2.53 | corp.test lab.test | edns0 ndots:2";
        let cases = [
            (json!({"containers": []}), cluster),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirst"}),
                cluster,
            ),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                host,
            ),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                cluster,
            ),
            (json!({"containers": [], "dnsPolicy": "Default"}), host),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
                    "nameservers": ["192.0.2.1", "192.0.2.1", "fd00::1"], "searches": ["a.test", "a.test."],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
                }}),
                "192.0.2.1 fd00::1 | a.test | ndots:2 rotate",
            ),
            (
                json!({"containers": [], "dnsConfig": {
                    "nameservers": ["192.0.2.1"], "searches": ["corp.test", "x.test"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                }}),
                "10.96.0.10 192.0.2.1 | shop.svc.cluster.local svc.cluster.local cluster.local corp.test lab.test \
                 x.test | ndots:2 edns0",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(shown(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn what_resolvers_would_not_read_is_cut_off() {
        let servers: Vec<_> = (1..9).map(|last| format!("192.0.2.{last}")).collect();
        let searches: Vec<_> = (0..40)
            .map(|number| format!("{}{number}.test", "x".repeat(100)))
            .collect();
        let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": servers, "searches": searches,
        }});
        let spec = serde_json::from_value(spec).expect("a spec");
        let dns = config(&spec, "shop", &defaults(Path::new("/nonexistent")));
        assert_eq!(dns.servers.len(), SERVERS);
        assert!(dns.searches.len() < SEARCHES && dns.searches.join(" ").len() <= SEARCH_CHARS);
        assert_eq!(dns.searches, searches[..dns.searches.len()]);
    }

    #[test]
    fn the_root_is_a_suffix_too() {
        assert_eq!(parse("search . corp.test.").searches, [".", "corp.test"]);
    }
}
