//! Which address each load balancer has, and which Services' ports are not open: a pure function of the Services, the pool and
//! what could not be opened.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_client::{ObjectKey, is_terminating};
use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, PortStatus, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use crate::exposed::Door;
use crate::index::Transport;

/// The class of load balancers that is ours beside those without a class.
const CLASS: &str = "coracle.dev/pool";
/// The condition that says whether the ports are open; written only once one was not.
const REACHABLE: &str = "coracle.dev/Reachable";

/// All that a round may know.
pub(super) struct World<'a> {
    pub(super) services: Vec<Arc<Service>>,
    /// The addresses to be given, in order.
    pub(super) pool: &'a [IpAddr],
    /// Doors that could not be opened, and for whom.
    pub(super) failed: &'a BTreeMap<(Door, ObjectKey), io::ErrorKind>,
    pub(super) now: Timestamp,
}

/// One write of a status.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) service: Arc<Service>,
    /// `{"status": {…}}`, merged.
    pub(super) patch: Value,
    /// What its owner should know.
    pub(super) problem: Option<String>,
}

/// Whether this Service has to do with load balancers of ours.
pub(super) fn concerns(service: &Service) -> bool {
    wants(service) || has_been_given(service)
}

/// Whether it should have an address.
fn wants(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let ours = spec
        .load_balancer_class
        .as_deref()
        .is_none_or(|class| class == CLASS);
    spec.type_.as_deref() == Some("LoadBalancer") && ours && !is_terminating(service)
}

/// Whether it has one without being a load balancer any more.
fn has_been_given(service: &Service) -> bool {
    let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    type_ != Some("LoadBalancer") && !ingress(service).is_empty()
}

/// Brings the statuses to what the specs ask for, as far as the pool goes. Without any pool load balancers are somebody
/// else's.
pub(super) fn reconcile(world: &World<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    let is_ours = !world.pool.is_empty();
    let (mut wanting, others): (Vec<&Arc<Service>>, Vec<_>) =
        world.services.iter().partition(|s| is_ours && wants(s));
    for service in others {
        let status = status_of_other(service, is_ours && has_been_given(service), world);
        changes.extend(status.map(|status| Change {
            service: service.clone(),
            patch: json!({"status": status}),
            problem: None,
        }));
    }
    // Whoever has an address keeps it; then first come, first served.
    wanting.sort_by_key(|service| {
        let created = service
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0);
        (
            held(service).is_none(),
            created,
            ObjectKey::of(service.as_ref()),
        )
    });
    let mut taken: BTreeMap<Door, ObjectKey> = BTreeMap::new();
    for service in wanting {
        let choice = choose(service, world.pool, &taken);
        if let Ok(address) = choice {
            let key = ObjectKey::of(service.as_ref());
            let doors = doors(service, address);
            taken.extend(doors.into_iter().map(|door| (door, key.clone())));
        }
        changes.extend(change(service, choice, world));
    }
    changes
}

/// What is to be written of a Service that is no load balancer (any more): that its node ports, or external addresses, are
/// closed, or are open again.
fn status_of_other(service: &Service, was_given: bool, world: &World<'_>) -> Option<Value> {
    let closed = closed(service, world);
    let (reason, problem) = match closed {
        Some((door, kind)) => (reason_of(kind), Some(cannot_be_opened(door))),
        None => ("Listening", None),
    };
    let mut status = json!({});
    if was_given {
        status["loadBalancer"] = json!({"ingress": null});
    }
    let conditions = conditions(service, reason, problem.as_deref(), world.now);
    let known = service.status.as_ref().and_then(|s| s.conditions.clone());
    if !is_terminating(service) && known.unwrap_or_default() != conditions {
        status["conditions"] = json!(conditions);
    }
    status.as_object().filter(|all| !all.is_empty())?;
    Some(status)
}

/// A door of the Service's that could not be opened. An external address may be another machine's.
fn closed(service: &Service, world: &World<'_>) -> Option<(Door, io::ErrorKind)> {
    let spec = service.spec.as_ref()?;
    let key = ObjectKey::of(service);
    let has = |number: u16| {
        let mut ports = spec.ports.iter().flatten();
        ports.any(|port| [Some(port.port), port.node_port].contains(&Some(number.into())))
    };
    let mut failed = world.failed.iter();
    failed.find_map(|((door, owner), kind)| {
        let is_its = *owner == key && has(door.address.port());
        (is_its && *kind != io::ErrorKind::AddrNotAvailable).then_some((*door, *kind))
    })
}

fn cannot_be_opened(door: Door) -> String {
    format!("{} cannot be opened for it on this host", door.address)
}

/// The address that a Service keeps or gets, or why there is none.
fn choose(
    service: &Service,
    pool: &[IpAddr],
    taken: &BTreeMap<Door, ObjectKey>,
) -> Result<IpAddr, String> {
    let asked = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_ip.clone());
    let asked = asked.filter(|asked| !asked.is_empty());
    let candidates: Vec<IpAddr> = match &asked {
        Some(asked) => {
            let fits = pool.iter().find(|ip| ip.to_string() == *asked);
            let fits = fits.ok_or_else(|| {
                format!(
                    "loadBalancerIP {asked} is not in the pool of addresses ({})",
                    shown(pool)
                )
            })?;
            vec![*fits]
        }
        // The one it has comes first.
        None => {
            let held = held(service).filter(|held| pool.contains(held));
            held.into_iter().chain(pool.iter().copied()).collect()
        }
    };
    let mut in_the_way = None;
    for address in candidates {
        let doors = doors(service, address);
        match doors.iter().find_map(|door| Some((door, taken.get(door)?))) {
            None => return Ok(address),
            Some((door, holder)) => drop(in_the_way.get_or_insert((*door, holder.clone()))),
        }
    }
    Err(match in_the_way {
        Some((door, holder)) => format!(
            "no address of the pool ({}) has all ports free: {} is service {holder}'s; give this Service other ports, \
             or the cluster more addresses with --load-balancer-addresses",
            shown(pool),
            door.address
        ),
        None => "the pool has no addresses".to_owned(),
    })
}

fn shown(pool: &[IpAddr]) -> String {
    match pool {
        [] => "none".to_owned(),
        [one] => one.to_string(),
        [first, .., last] => format!("{first} to {last}"),
    }
}

fn change(
    service: &Arc<Service>,
    choice: Result<IpAddr, String>,
    world: &World<'_>,
) -> Option<Change> {
    let address = choice.as_ref().ok().copied();
    let key = ObjectKey::of(service.as_ref());
    let failure = |door: &Door| world.failed.get(&(*door, key.clone())).copied();
    let wanted: Vec<LoadBalancerIngress> = address
        .map(|address| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ports: Some(ports(service, address, failure)),
            hostname: None,
        })
        .into_iter()
        .collect();
    let mut doors = address
        .into_iter()
        .flat_map(|address| doors(service, address));
    let of_address = doors.find_map(|door| Some((door, failure(&door)?)));
    let closed = of_address.or_else(|| closed(service, world));
    let (reason, problem) = match (&choice, closed) {
        (Err(problem), _) => ("NoAddress", Some(problem.clone())),
        // The door tells the owner itself, by an Event.
        (Ok(_), Some((door, kind))) => (reason_of(kind), Some(cannot_be_opened(door))),
        (Ok(_), None) => ("Listening", None),
    };
    let conditions = conditions(service, reason, problem.as_deref(), world.now);
    let same_conditions = service
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let same_conditions = same_conditions.unwrap_or_default() == conditions;
    if ingress(service) == wanted && same_conditions {
        return None;
    }
    let ingress = match wanted.is_empty() {
        true => Value::Null,
        false => json!(wanted),
    };
    let mut status = json!({"loadBalancer": {"ingress": ingress}});
    if !same_conditions {
        status["conditions"] = json!(conditions);
    }
    Some(Change {
        service: service.clone(),
        patch: json!({"status": status}),
        problem: problem.filter(|_| choice.is_err()),
    })
}

/// The Service's conditions with ours among them, if there is anything to say.
fn conditions(
    service: &Service,
    reason: &str,
    problem: Option<&str>,
    now: Timestamp,
) -> Vec<Condition> {
    let status = service.status.as_ref();
    let mut all = status
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let known = all
        .iter()
        .position(|condition| condition.type_ == REACHABLE);
    if known.is_none() && problem.is_none() {
        return all;
    }
    let word = if problem.is_none() { "True" } else { "False" };
    let old = known
        .map(|index| &all[index])
        .filter(|old| old.status == word);
    let since = old.map_or(Time(now), |old| old.last_transition_time.clone());
    let condition = Condition {
        type_: REACHABLE.to_owned(),
        status: word.to_owned(),
        reason: reason.to_owned(),
        message: problem.unwrap_or("all ports are open").to_owned(),
        last_transition_time: since,
        observed_generation: service.metadata.generation,
    };
    match known {
        Some(index) => all[index] = condition,
        None => all.push(condition),
    }
    all
}

fn reason_of(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "PortInUse",
        io::ErrorKind::QuotaExceeded => "TooManyPorts",
        io::ErrorKind::PermissionDenied => "PortNotPermitted",
        io::ErrorKind::AddrNotAvailable => "NotThisHostsAddress",
        _ => "PortNotOpen",
    }
}

/// The ports of the status, each with what went wrong.
fn ports(
    service: &Service,
    address: IpAddr,
    failure: impl Fn(&Door) -> Option<io::ErrorKind>,
) -> Vec<PortStatus> {
    let spec = service.spec.as_ref();
    let ports = spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let status = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let kind = door(address, port.port, &protocol).and_then(|door| failure(&door));
        PortStatus {
            error: kind.map(|kind| format!("coracle.dev/{}", reason_of(kind))),
            port: port.port,
            protocol,
        }
    };
    ports.map(status).collect()
}

fn doors(service: &Service, address: IpAddr) -> Vec<Door> {
    let spec = service.spec.as_ref();
    let ports = spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            door(
                address,
                port.port,
                port.protocol.as_deref().unwrap_or("TCP"),
            )
        })
        .collect()
}

fn door(address: IpAddr, port: i32, protocol: &str) -> Option<Door> {
    Some(Door {
        address: SocketAddr::new(address, u16::try_from(port).ok()?),
        transport: match protocol {
            "TCP" => Transport::Tcp,
            "UDP" => Transport::Udp,
            _ => return None,
        },
    })
}

fn ingress(service: &Service) -> Vec<LoadBalancerIngress> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    balancer
        .and_then(|balancer| balancer.ingress.clone())
        .unwrap_or_default()
}

/// The address that it has.
fn held(service: &Service) -> Option<IpAddr> {
    ingress(service).first()?.ip.as_deref()?.parse().ok()
}
