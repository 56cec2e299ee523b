//! What an Ingress's status should say: a pure function.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

/// Where Ingresses are served: addresses of the host with their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Without TLS.
    pub(crate) http: Option<SocketAddr>,
    /// With TLS.
    pub(crate) https: Option<SocketAddr>,
}

impl Addresses {
    /// `status.loadBalancer.ingress`: an entry for each address.
    fn points(&self) -> Value {
        let mut points: Vec<(IpAddr, Vec<u16>)> = Vec::new();
        for address in [self.http, self.https].into_iter().flatten() {
            let ip = shown(address.ip());
            match points.iter_mut().find(|(known, _)| *known == ip) {
                Some((_, ports)) => ports.push(address.port()),
                None => points.push((ip, vec![address.port()])),
            }
        }
        let point = |(ip, ports): (IpAddr, Vec<u16>)| {
            let port = |port| json!({"port": port, "protocol": "TCP"});
            let ports: Vec<Value> = ports.into_iter().map(port).collect();
            json!({"ip": ip, "ports": ports})
        };
        points.into_iter().map(point).collect()
    }
}

impl std::fmt::Display for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls = [("http", self.http), ("https", self.https)];
        let urls = urls.into_iter().filter_map(|(scheme, address)| {
            let address = address?;
            let shown = SocketAddr::new(shown(address.ip()), address.port());
            Some(format!("{scheme}://{shown}"))
        });
        let urls: Vec<String> = urls.collect();
        write!(f, "served at {}", urls.join(" and "))
    }
}

/// The address by which this machine reaches a listener.
fn shown(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// What has to be written into the status; `None` if it says so already.
///
/// An Ingress that is not served keeps what others wrote, and loses what was written here.
pub(crate) fn change(ingress: &Ingress, is_served: bool, addresses: &Addresses) -> Option<Value> {
    let status = ingress.status.as_ref();
    let points = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let has = points.map_or(json!([]), |points| json!(points));
    let ours = addresses.points();
    let wanted = match is_served {
        true => ours,
        false if has == ours => json!([]),
        false => return None,
    };
    (has != wanted).then(|| match wanted.as_array() {
        Some(none) if none.is_empty() => json!({"status": {"loadBalancer": {"ingress": null}}}),
        _ => json!({"status": {"loadBalancer": {"ingress": wanted}}}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress(points: Value) -> Ingress {
        let status = json!({"loadBalancer": {"ingress": points}});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "status": status}))
            .expect("an ingress")
    }

    fn both() -> Addresses {
        Addresses {
            http: Some("0.0.0.0:8080".parse().expect("an address")),
            https: Some("127.0.0.1:8443".parse().expect("an address")),
        }
    }

    #[test]
    fn a_served_ingress_shows_where() {
        let ports = json!([{"port": 8080, "protocol": "TCP"}, {"port": 8443, "protocol": "TCP"}]);
        let ours = json!([{"ip": "127.0.0.1", "ports": ports}]);
        let written =
            |points: &Value| Some(json!({"status": {"loadBalancer": {"ingress": points}}}));
        let elsewhere = json!([{"ip": "192.0.2.1"}]);
        assert_eq!(change(&ingress(json!(null)), true, &both()), written(&ours));
        assert_eq!(
            change(&ingress(elsewhere.clone()), true, &both()),
            written(&ours)
        );
        assert_eq!(change(&ingress(ours.clone()), true, &both()), None);
        // Another class now: ours goes, another's stays.
        assert_eq!(
            change(&ingress(ours), false, &both()),
            written(&json!(null))
        );
        assert_eq!(change(&ingress(elsewhere), false, &both()), None);
        assert_eq!(change(&ingress(json!(null)), false, &both()), None);
        assert_eq!(
            change(&ingress(json!(null)), true, &Addresses::default()),
            None
        );
    }
}
