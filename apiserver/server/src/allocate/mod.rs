//! Addresses and node ports of Services, handed out between validation and the store.
//!
//! Addresses are claimed as objects (`addresses`). Which node ports are taken lives in memory, rebuilt from the stored
//! Services at the start and compared with them now and then. A `Reservation` is kept or undone, so a failed
//! write leaks nothing.

mod addresses;
mod families;
mod node_ports;
mod range;
pub(crate) mod repair;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, Object, Resource};
use coracle_clock::Clock;
use parking_lot::Mutex;
use serde_json::{Value, json};

use families::Family;
use node_ports::{NodePorts, PortRefusal};
pub use range::{AddressRange, RangeError};

use crate::server::Server;
use crate::status::{ApiError, Result};

/// The ranges that Services draw from.
#[derive(Clone, Debug)]
pub struct ServiceRanges {
    /// ClusterIPs of the default family.
    pub addresses: AddressRange,
    /// ClusterIPs of the other family, on a cluster with both.
    pub secondary: Option<AddressRange>,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceRanges {
    fn default() -> Self {
        let addresses = "10.96.0.0/16".parse().expect("a legal range");
        Self {
            addresses,
            secondary: None,
            node_ports: 30_000..=32_767,
        }
    }
}

impl ServiceRanges {
    /// The address of the API server: the first of the range.
    pub fn api_server(&self) -> IpAddr {
        self.addresses.at(1)
    }

    /// The address of DNS: the tenth of the range.
    pub fn dns(&self) -> IpAddr {
        self.addresses.at(10)
    }
}

/// Everything that is handed out.
pub struct Allocators {
    clock: Clock,
    /// One, or one of each family; the default one first.
    addresses: Vec<AddressRange>,
    ports: Arc<Mutex<NodePorts>>,
}

/// What one write took and gives up, until it is [kept](Self::keep) or [undone](Self::undo).
///
/// Dropped otherwise, after a panic say, it frees its ports; a claimed address stays until the controller or the
/// next start finds it.
#[derive(Default)]
pub(crate) struct Reservation {
    ports: Option<Arc<Mutex<NodePorts>>>,
    service: Object,
    new: Holdings,
    old: Holdings,
    kept: bool,
}

/// What one Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holdings {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Reservation {
    /// The write happened: what it took stays taken, what the object no longer uses is free.
    pub(crate) async fn keep(mut self, server: &Server) {
        self.kept = true;
        let Some(ports) = &self.ports else { return };
        let freed = self.old.without(&self.new);
        ports.lock().release_all(&freed.ports);
        for address in freed.addresses {
            addresses::release(server, address, &self.service).await;
        }
    }

    /// The write did not happen: what it took is free again.
    pub(crate) async fn undo(mut self, server: &Server) {
        self.kept = true;
        let Some(ports) = &self.ports else { return };
        let freed = self.new.without(&self.old);
        ports.lock().release_all(&freed.ports);
        for address in freed.addresses {
            addresses::release(server, address, &self.service).await;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(ports) = &self.ports
            && !self.kept
        {
            ports.lock().release_all(&self.new.without(&self.old).ports);
        }
    }
}

impl Holdings {
    fn of(service: &Object) -> Self {
        let addresses = addresses::addresses_of(service).collect();
        let mut ports: Vec<u16> = node_ports(service).collect();
        ports.extend(health_check_port(service));
        ports.sort_unstable();
        ports.dedup();
        Self { addresses, ports }
    }

    fn without(&self, other: &Self) -> Self {
        let ports = self
            .ports
            .iter()
            .copied()
            .filter(|port| !other.ports.contains(port))
            .collect();
        Self {
            addresses: self
                .addresses
                .iter()
                .copied()
                .filter(|address| !other.addresses.contains(address))
                .collect(),
            ports,
        }
    }
}

impl Allocators {
    /// Empty allocators over `ranges`.
    pub fn new(ranges: &ServiceRanges, clock: Clock) -> Self {
        Self {
            clock,
            addresses: [Some(&ranges.addresses), ranges.secondary.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            ports: Arc::new(Mutex::new(NodePorts::new(ranges.node_ports.clone()))),
        }
    }

    /// The ranges that the cluster was configured with, the default family's first.
    pub(crate) fn own_ranges(&self) -> &[AddressRange] {
        &self.addresses
    }

    fn families(&self) -> Vec<Family> {
        self.addresses.iter().map(AddressRange::family).collect()
    }

    /// Takes over what the stored Services hold.
    pub(crate) async fn adopt(&self, server: &Server) {
        let services = server.registry.by_plural("", "v1", "services");
        let cache = services.and_then(|services| server.storage.cache(services).ok());
        let entries = cache.map(|cache| cache.list("", 0).entries);
        let services: Vec<Object> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.object())
            .collect();
        for service in &services {
            for port in Holdings::of(service).ports {
                if let Err(problem) = self.ports.lock().take(port) {
                    let service = format!("{}/{}", service.namespace(), service.name());
                    tracing::warn!(service, port, %problem, "a stored Service holds what it should not");
                }
            }
        }
        addresses::repair(server, &services).await;
    }

    /// Keeps the values that an update left out: the address, and node ports of ports that are still there.
    pub fn carry_over(&self, resource: &Resource, new: &mut Object, old: &Object) {
        if !is_service(resource) {
            return;
        }
        if needs_address(new) && needs_address(old) && new.at("spec.clusterIP").is_empty() {
            for field in ["spec.clusterIP", "spec.clusterIPs"] {
                if let Some(value) = old.at(field).value().filter(|_| new.at(field).is_empty()) {
                    new.set(field, value.clone());
                }
            }
        }
        if needs_node_ports(new) && needs_node_ports(old) {
            let had: Vec<(Value, Value, Value)> = old
                .at("spec.ports")
                .items()
                .map(|port| port_identity(&port))
                .collect();
            if let Some(ports) = new.get_mut("spec.ports").and_then(Value::as_array_mut) {
                for port in ports
                    .iter_mut()
                    .filter(|port| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0)
                {
                    let identity = port_identity(&coracle_api::At::root(port, ""));
                    let same = had.iter().find(|(protocol, number, _)| {
                        (protocol, number) == (&identity.0, &identity.1)
                    });
                    if let Some((_, _, node_port)) =
                        same.filter(|(_, _, node_port)| !node_port.is_null())
                    {
                        port["nodePort"] = node_port.clone();
                    }
                }
            }
        }
    }

    /// Settles the families of a Service, and refuses one for which no address could be claimed; upstream looks at
    /// that before all else.
    pub(crate) fn settle_families(
        &self,
        server: &Server,
        resource: &Resource,
        new: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<()> {
        if !is_service(resource) || !needs_address(new) {
            return Ok(());
        }
        if old.is_some_and(needs_health_check) && !needs_health_check(new) {
            new.remove("spec.healthCheckNodePort");
        }
        let mut errors = FieldErrors::default();
        families::settle(new, old, &self.families(), &mut errors);
        if errors.is_empty() && old.is_none() && !dry_run {
            self.check_name(server, new, &mut errors);
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(resource, new.name(), &errors))
        }
    }

    /// A claim names its Service: one with an illegal name gets none.
    fn check_name(&self, server: &Server, new: &Object, errors: &mut FieldErrors) {
        let asked = new.at("spec.clusterIP").str();
        if asked == "None" {
            return;
        }
        let Some(objection) = addresses::objection(server, &self.addresses[0], new) else {
            return;
        };
        let why = match asked {
            "" => format!("failed to allocate IP: {objection}"),
            asked => format!("failed to allocate IP {asked}: {objection}"),
        };
        let shown = Some(json!([asked]));
        errors.push(ErrorType::Invalid, "spec.clusterIPs", shown, why);
    }

    /// Fills in what `new` needs and takes what it asks for.
    pub(crate) async fn allocate(
        &self,
        server: &Server,
        resource: &Resource,
        new: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Reservation> {
        if !is_service(resource) {
            return Ok(Reservation::default());
        }
        let before = old.map(Holdings::of).unwrap_or_default();
        if !needs_address(new) {
            let about_addresses = [
                "clusterIP",
                "clusterIPs",
                "ipFamilies",
                "ipFamilyPolicy",
                "internalTrafficPolicy",
            ];
            for field in about_addresses {
                new.remove(&format!("spec.{field}"));
            }
        }
        if !may_have_node_ports(new) {
            self.clear_node_ports(new, old);
        }
        let mut reservation = Reservation {
            ports: Some(Arc::clone(&self.ports)),
            service: new.clone(),
            new: before.clone(),
            old: before.clone(),
            kept: false,
        };
        let mut errors = FieldErrors::default();
        if needs_address(new) {
            let claimed = self.allocate_addresses(
                server,
                new,
                old,
                dry_run,
                &mut errors,
                &mut reservation.new,
            );
            if let Err(error) = claimed.await {
                reservation.undo(server).await;
                return Err(error);
            }
        }
        if errors.is_empty() {
            let taken = {
                let mut ports = self.ports.lock();
                self.allocate_ports(&mut ports, new, &before, &mut reservation.new, &mut errors)
            };
            if let Err(error) = taken {
                reservation.undo(server).await;
                return Err(error);
            }
        }
        if !errors.is_empty() {
            reservation.undo(server).await;
            return Err(ApiError::invalid(resource, new.name(), &errors));
        }
        if dry_run {
            drop(reservation);
            return Ok(Reservation::default());
        }
        // What was taken on the way but is not in the object any more goes back with the old values.
        reservation.new = Holdings::of(new);
        Ok(reservation)
    }

    /// Frees what a removed Service held.
    pub(crate) async fn release(&self, server: &Server, resource: &Resource, object: &Object) {
        if is_service(resource) {
            let held = Holdings::of(object);
            self.ports.lock().release_all(&held.ports);
            for address in held.addresses {
                addresses::release(server, address, object).await;
            }
        }
    }

    /// Claims an address of each family that the Service has none of, and fills them in.
    async fn allocate_addresses(
        &self,
        server: &Server,
        new: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        errors: &mut FieldErrors,
        taken: &mut Holdings,
    ) -> Result<()> {
        if new.at("spec.clusterIP").str() == "None" {
            new.set_default("spec.clusterIPs", json!(["None"]));
            return Ok(());
        }
        if old.is_some_and(|old| families::keeps_preference(new, old)) {
            return Ok(());
        }
        let list = |path: &str| -> Vec<String> {
            new.at(path)
                .items()
                .map(|item| item.str().to_owned())
                .collect()
        };
        let families = list("spec.ipFamilies");
        let mut addresses = list("spec.clusterIPs");
        addresses.resize(families.len(), String::new());
        for (index, family) in families.iter().enumerate() {
            let range = self
                .addresses
                .iter()
                .find(|range| range.family().name() == family);
            let Some(own) = range else {
                continue;
            };
            let asked: Option<IpAddr> = addresses[index].parse().ok();
            if asked.is_some_and(|address| taken.addresses.contains(&address)) {
                continue;
            }
            let claimed = addresses::claim(server, own, asked, new, dry_run).await?;
            match (asked, claimed) {
                (_, Ok(address)) => {
                    addresses[index] = address.to_string();
                    taken.addresses.push(address);
                }
                (Some(asked), Err(refusal)) => {
                    let why = format!("failed to allocate IP {asked}: {refusal}");
                    let shown = Some(json!(addresses));
                    errors.push(ErrorType::Invalid, "spec.clusterIPs", shown, why);
                    return Ok(());
                }
                (None, Err(refusal)) => {
                    let why = format!("failed to allocate a serviceIP: {refusal}");
                    return Err(ApiError::internal(why));
                }
            }
        }
        new.set(
            "spec.clusterIP",
            addresses.first().cloned().unwrap_or_default(),
        );
        new.set("spec.clusterIPs", json!(addresses));
        Ok(())
    }

    /// Takes the ports of the host that the Service asks for, or any.
    fn allocate_ports(
        &self,
        taken: &mut NodePorts,
        new: &mut Object,
        before: &Holdings,
        holdings: &mut Holdings,
        errors: &mut FieldErrors,
    ) -> Result<()> {
        let any_too = needs_node_ports(new);
        let ports = match may_have_node_ports(new) {
            true => new.get_mut("spec.ports").and_then(Value::as_array_mut),
            false => None,
        };
        // One number may serve several protocols of one Service.
        let mut mine: Vec<(u16, String)> = Vec::new();
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let protocol = port.get("protocol").and_then(Value::as_str);
            let protocol = protocol.unwrap_or("TCP").to_owned();
            let asked = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
            if asked == 0 && !any_too {
                continue;
            }
            let number = if asked == 0 {
                let any = taken.take_any(&self.clock);
                any.ok_or_else(|| {
                    ApiError::internal("failed to allocate a nodePort: range is full")
                })?
            } else {
                let number = u16::try_from(asked).unwrap_or(0);
                let same = |(n, p): &(u16, String)| *n == number && *p == protocol;
                let again = mine.iter().any(|(n, _)| *n == number);
                let result = if mine.iter().any(same) {
                    Err(PortRefusal::Taken)
                } else if again || before.ports.contains(&number) {
                    Ok(())
                } else {
                    taken.take(number)
                };
                if let Err(refusal) = result {
                    let field = format!("spec.ports[{index}].nodePort");
                    let shown = Some(json!(asked));
                    errors.push(ErrorType::Invalid, &field, shown, refusal.to_string());
                    return Ok(());
                }
                number
            };
            port["nodePort"] = json!(number);
            mine.push((number, protocol));
            if !holdings.ports.contains(&number) {
                holdings.ports.push(number);
            }
        }
        if needs_health_check(new) {
            let number = self.health_check_port(taken, new, before)?;
            new.set("spec.healthCheckNodePort", i64::from(number));
            if !holdings.ports.contains(&number) {
                holdings.ports.push(number);
            }
        }
        Ok(())
    }

    /// The port at which a load balancer asks whether a node has endpoints.
    fn health_check_port(
        &self,
        taken: &mut NodePorts,
        new: &Object,
        before: &Holdings,
    ) -> Result<u16> {
        let internal = |why: String| ApiError::internal(why);
        match health_check_port(new) {
            Some(port) if before.ports.contains(&port) => Ok(port),
            Some(port) => match taken.take(port) {
                Ok(()) => Ok(port),
                Err(refusal) => Err(internal(format!(
                    "failed to allocate requested HealthCheck NodePort {port}: {refusal}"
                ))),
            },
            None => taken.take_any(&self.clock).ok_or_else(|| {
                internal("failed to allocate a HealthCheck NodePort 0: range is full".to_owned())
            }),
        }
    }

    /// A Service that needs no node ports any more loses those that it had.
    fn clear_node_ports(&self, new: &mut Object, old: Option<&Object>) {
        let Some(old) = old.filter(|old| may_have_node_ports(old)) else {
            return;
        };
        let had: Vec<u16> = node_ports(old).collect();
        if let Some(ports) = new.get_mut("spec.ports").and_then(Value::as_array_mut) {
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                let number = port
                    .get("nodePort")
                    .and_then(Value::as_u64)
                    .and_then(|number| u16::try_from(number).ok());
                if number.is_some_and(|number| had.contains(&number)) {
                    port.shift_remove("nodePort");
                }
            }
        }
        new.remove("spec.externalTrafficPolicy");
        new.remove("spec.healthCheckNodePort");
    }
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

fn needs_address(service: &Object) -> bool {
    matches!(
        service.at("spec.type").str(),
        "" | "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

/// Whether ports of the nodes are for this Service: those that it asks for.
fn may_have_node_ports(service: &Object) -> bool {
    matches!(service.at("spec.type").str(), "NodePort" | "LoadBalancer")
}

/// Whether it is to have ports of the nodes even where it asks for none.
fn needs_node_ports(service: &Object) -> bool {
    match service.at("spec.type").str() {
        "NodePort" => true,
        "LoadBalancer" => service.at("spec.allocateLoadBalancerNodePorts").as_bool() != Some(false),
        _ => false,
    }
}

fn node_ports(service: &Object) -> impl Iterator<Item = u16> {
    let ports: Vec<u16> = service
        .at("spec.ports")
        .items()
        .filter_map(|port| {
            port.key("nodePort")
                .as_i64()
                .and_then(|number| u16::try_from(number).ok())
        })
        .filter(|number| *number != 0)
        .collect();
    ports.into_iter()
}

/// Whether a load balancer asks nodes before it sends them anything.
fn needs_health_check(service: &Object) -> bool {
    service.at("spec.type").str() == "LoadBalancer"
        && service.at("spec.externalTrafficPolicy").str() == "Local"
}

fn health_check_port(service: &Object) -> Option<u16> {
    service
        .at("spec.healthCheckNodePort")
        .as_i64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
}

fn port_identity(port: &coracle_api::At<'_>) -> (Value, Value, Value) {
    let value = |field: &str| port.key(field).value().cloned().unwrap_or_default();
    let protocol = match value("protocol") {
        Value::Null => Value::from("TCP"),
        protocol => protocol,
    };
    (protocol, value("port"), value("nodePort"))
}

#[cfg(test)]
mod tests;
