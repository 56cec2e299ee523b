//! Ports of the host that pods ask for by `hostPort`: a pure function of a Pod.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Exposure, Transport};

/// Where on the host a pod wants to be reached, and where the connections are led: to its address of the same family, if
/// `hostIP` names one. None while it has no address, and once it is over.
///
/// Without a `hostIP` it is the addresses of node ports, and not all of the host's as upstream: what is open to
/// other machines has to be asked for. `0.0.0.0` asks for it.
pub(super) fn host_ports(pod: &Pod) -> Vec<(Exposure, SocketAddr)> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return Vec::new();
    };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let addresses = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let addresses: Vec<IpAddr> = addresses
        .chain(status.pod_ip.as_deref())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let lasting = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(lasting);
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let mut found = Vec::new();
    for port in ports {
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number != 0);
        let (Some(on_host), Some(inside)) =
            (port.host_port.and_then(number), number(port.container_port))
        else {
            continue;
        };
        let transport = match port.protocol.as_deref() {
            None | Some("TCP") => Transport::Tcp,
            Some("UDP") => Transport::Udp,
            Some(_) => continue,
        };
        let host = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
        let host = match host.map(str::parse::<IpAddr>) {
            None => None,
            Some(Ok(ip)) => Some(ip),
            Some(Err(_)) => continue, // the API server lets none through
        };
        let fits = |ip: &&IpAddr| host.is_none_or(|host| host.is_ipv4() == ip.is_ipv4());
        let address = addresses.iter().find(fits).or(addresses.first());
        if let Some(address) = address {
            let exposure = Exposure::HostPort(host, on_host, transport);
            found.push((exposure, SocketAddr::new(*address, inside)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ports_of_a_pod_that_lives_are_open() {
        let pod = |phase: &str, ips: &[&str]| -> Pod {
            let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            let sidecar = json!({
                "name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 9, "hostPort": 90}],
            });
            let once = json!({"name": "o", "ports": [{"containerPort": 9, "hostPort": 91}]});
            let ports = json!([
                {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "0.0.0.0"},
                {"containerPort": 443, "hostPort": 443, "hostIP": "::1"},
                {"containerPort": 81}, {"containerPort": 82, "hostPort": 82, "protocol": "SCTP"},
            ]);
            let spec = json!({
                "initContainers": [sidecar, once], "containers": [{"name": "c", "ports": ports}],
            });
            let status = json!({"phase": phase, "podIPs": ips});
            serde_json::from_value(json!({"spec": spec, "status": status})).expect("a pod")
        };
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let tcp = |ip: Option<&str>, port| {
            let ip = ip.map(|ip| ip.parse().expect("an address"));
            Exposure::HostPort(ip, port, Transport::Tcp)
        };
        let any = Some([0, 0, 0, 0].into());
        assert_eq!(
            host_ports(&pod("Running", &["10.240.0.2", "fd00::2"])),
            [
                (tcp(None, 8080), at("10.240.0.2:80")),
                (
                    Exposure::HostPort(any, 53, Transport::Udp),
                    at("10.240.0.2:53")
                ),
                (tcp(Some("::1"), 443), at("[fd00::2]:443")),
                (tcp(None, 90), at("10.240.0.2:9")),
            ]
        );
        assert!(host_ports(&pod("Succeeded", &["10.240.0.2"])).is_empty());
        assert!(host_ports(&pod("Pending", &[])).is_empty());
    }
}
