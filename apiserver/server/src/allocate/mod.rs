//! Addresses and node ports of Services, handed out between validation and the store.
//!
//! Addresses are claimed as objects (`addresses`). Which node ports are taken lives in memory, rebuilt from the stored
//! Services at the start and compared with them now and then. A `Reservation` is kept or undone, so a failed
//! write leaks nothing.

mod addresses;
mod node_ports;
mod range;
pub(crate) mod repair;

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, Object, Resource};
use coracle_clock::Clock;
use parking_lot::Mutex;
use serde_json::{Value, json};

use node_ports::{NodePorts, PortRefusal};
pub use range::{AddressRange, RangeError};

use crate::server::Server;
use crate::status::{ApiError, Result};

/// The ranges that Services draw from.
#[derive(Clone, Debug)]
pub struct ServiceRanges {
    /// ClusterIPs.
    pub addresses: AddressRange,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceRanges {
    fn default() -> Self {
        let addresses = "10.96.0.0/16".parse().expect("a legal range");
        Self {
            addresses,
            node_ports: 30_000..=32_767,
        }
    }
}

impl ServiceRanges {
    /// The address of the API server: the first of the range.
    pub fn api_server(&self) -> Ipv4Addr {
        self.addresses.at(1)
    }

    /// The address of DNS: the tenth of the range.
    pub fn dns(&self) -> Ipv4Addr {
        self.addresses.at(10)
    }
}

/// Everything that is handed out.
pub struct Allocators {
    clock: Clock,
    addresses: AddressRange,
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
    address: Option<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Reservation {
    /// The write happened: what it took stays taken, what the object no longer uses is free.
    pub(crate) async fn keep(mut self, server: &Server) {
        self.kept = true;
        let Some(ports) = &self.ports else { return };
        let freed = self.old.without(&self.new);
        ports.lock().release_all(&freed.ports);
        if let Some(address) = freed.address {
            addresses::release(server, address, &self.service).await;
        }
    }

    /// The write did not happen: what it took is free again.
    pub(crate) async fn undo(mut self, server: &Server) {
        self.kept = true;
        let Some(ports) = &self.ports else { return };
        let freed = self.new.without(&self.old);
        ports.lock().release_all(&freed.ports);
        if let Some(address) = freed.address {
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
        let address = addresses::address_of(service);
        let mut ports: Vec<u16> = node_ports(service).collect();
        ports.extend(health_check_port(service));
        ports.sort_unstable();
        ports.dedup();
        Self { address, ports }
    }

    fn without(&self, other: &Self) -> Self {
        let ports = self
            .ports
            .iter()
            .copied()
            .filter(|port| !other.ports.contains(port))
            .collect();
        Self {
            address: self
                .address
                .filter(|address| other.address != Some(*address)),
            ports,
        }
    }
}

impl Allocators {
    /// Empty allocators over `ranges`.
    pub fn new(ranges: &ServiceRanges, clock: Clock) -> Self {
        Self {
            clock,
            addresses: ranges.addresses.clone(),
            ports: Arc::new(Mutex::new(NodePorts::new(ranges.node_ports.clone()))),
        }
    }

    /// The range that the cluster was configured with.
    pub(crate) fn own_range(&self) -> &AddressRange {
        &self.addresses
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

    /// Refuses a new Service for which no address could be claimed; upstream claims before all else.
    pub(crate) fn check_create(
        &self,
        server: &Server,
        resource: &Resource,
        new: &Object,
        dry_run: bool,
    ) -> Result<()> {
        let asked = new.at("spec.clusterIP").str();
        let claims = is_service(resource) && needs_address(new) && !dry_run;
        let legible = asked.is_empty() || asked.parse::<Ipv4Addr>().is_ok();
        let mut errors = FieldErrors::default();
        if claims && legible {
            check_families(new, &mut errors);
        }
        if !(claims && legible && errors.is_empty()) {
            return Ok(());
        }
        let Some(objection) = addresses::objection(server, &self.addresses, new) else {
            return Ok(());
        };
        let why = match asked {
            "" => format!("failed to allocate IP: {objection}"),
            asked => format!("failed to allocate IP {asked}: {objection}"),
        };
        let shown = Some(json!([asked]));
        errors.push(ErrorType::Invalid, "spec.clusterIPs", shown, why);
        Err(ApiError::invalid(resource, new.name(), &errors))
    }

    /// Refuses an address for a Service whose families the cluster does not have: one without a selector could name
    /// any while it was headless. Upstream looks at that before all else.
    pub(crate) fn check_update(
        &self,
        resource: &Resource,
        new: &Object,
        old: &Object,
    ) -> Result<()> {
        let mut errors = FieldErrors::default();
        let was_free = is_service(resource) && is_headless_without_selector(old);
        if was_free && needs_address(new) && !is_headless_without_selector(new) {
            check_families(new, &mut errors);
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(resource, new.name(), &errors))
        }
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
        if !needs_node_ports(new) {
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
            let address = self.allocate_address(server, new, &before, dry_run, &mut errors);
            if let Some(address) = address.await? {
                reservation.new.address = Some(address);
            }
        }
        if errors.is_empty() && needs_node_ports(new) {
            let mut ports = self.ports.lock();
            self.allocate_ports(&mut ports, new, &before, &mut reservation, &mut errors);
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
            if let Some(address) = held.address {
                addresses::release(server, address, object).await;
            }
        }
    }

    /// Fills in address, families and policy; the answer is the address, if there is one.
    async fn allocate_address(
        &self,
        server: &Server,
        new: &mut Object,
        before: &Holdings,
        dry_run: bool,
        errors: &mut FieldErrors,
    ) -> Result<Option<Ipv4Addr>> {
        let headless = new.at("spec.clusterIP").str() == "None";
        let without_selector = is_headless_without_selector(new);
        let (families, policy) = if without_selector {
            (json!(["IPv4", "IPv6"]), "RequireDualStack")
        } else {
            (json!(["IPv4"]), "SingleStack")
        };
        new.set_default("spec.ipFamilies", families);
        new.set_default("spec.ipFamilyPolicy", policy);
        // Whoever names the endpoints of a headless Service himself may name addresses of any family.
        if !without_selector {
            check_families(new, errors);
        }
        if headless {
            new.set_default("spec.clusterIPs", json!(["None"]));
            return Ok(None);
        }
        if !errors.is_empty() {
            return Ok(None);
        }
        let text = new.at("spec.clusterIP").str().to_owned();
        let asked = match text.as_str() {
            "" => None,
            text => match text.parse::<Ipv4Addr>() {
                Ok(address) => Some(address),
                Err(_) => return Ok(None),
            },
        };
        let claimed = match asked {
            Some(address) if before.address == Some(address) => Ok(address),
            asked => addresses::claim(server, &self.addresses, asked, new, dry_run).await?,
        };
        let address = match claimed {
            Ok(address) => address,
            Err(refusal) => {
                let why = match (asked, refusal) {
                    (Some(address), refusal) => {
                        format!("failed to allocate IP {address}: {refusal}")
                    }
                    (None, refusal) => format!("failed to allocate a serviceIP: {refusal}"),
                };
                let shown = Some(json!([text]));
                errors.push(ErrorType::Invalid, "spec.clusterIPs", shown, why);
                return Ok(None);
            }
        };
        new.set("spec.clusterIP", address.to_string());
        new.set("spec.clusterIPs", json!([address.to_string()]));
        Ok(Some(address))
    }

    fn allocate_ports(
        &self,
        taken: &mut NodePorts,
        new: &mut Object,
        before: &Holdings,
        reservation: &mut Reservation,
        errors: &mut FieldErrors,
    ) {
        let Some(ports) = new.get_mut("spec.ports").and_then(Value::as_array_mut) else {
            return;
        };
        // One number may serve several protocols of one Service.
        let mut mine: Vec<(u16, String)> = Vec::new();
        for (index, port) in ports.iter_mut().enumerate() {
            let protocol = port
                .get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("TCP")
                .to_owned();
            let asked = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
            let number = if asked == 0 {
                match taken.take_any(&self.clock) {
                    Some(number) => number,
                    None => {
                        let why = "failed to allocate a nodePort: range is full";
                        errors.push(
                            ErrorType::Invalid,
                            &format!("spec.ports[{index}].nodePort"),
                            Some(json!(0)),
                            why,
                        );
                        return;
                    }
                }
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
                    errors.push(
                        ErrorType::Invalid,
                        &field,
                        Some(json!(asked)),
                        refusal.to_string(),
                    );
                    return;
                }
                number
            };
            port["nodePort"] = json!(number);
            mine.push((number, protocol));
            if !reservation.new.ports.contains(&number) {
                reservation.new.ports.push(number);
            }
        }
    }

    /// A Service that needs no node ports any more loses those that it had.
    fn clear_node_ports(&self, new: &mut Object, old: Option<&Object>) {
        let Some(old) = old.filter(|old| needs_node_ports(old)) else {
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

/// The cluster has IPv4 addresses only.
fn check_families(service: &Object, errors: &mut FieldErrors) {
    let (policy, families) = (
        service.at("spec.ipFamilyPolicy"),
        service.at("spec.ipFamilies"),
    );
    if policy.str() == "SingleStack" && families.len() > 1 {
        let detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        return errors.invalid(&policy, detail);
    }
    if policy.str() == "RequireDualStack" {
        errors.invalid(
            &policy,
            "this cluster is not configured for dual-stack services",
        );
    }
    for family in families.items().filter(|family| family.str() == "IPv6") {
        errors.invalid(&family, "not configured on this cluster");
    }
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

fn is_headless_without_selector(service: &Object) -> bool {
    service.at("spec.clusterIP").str() == "None" && service.at("spec.selector").is_empty()
}

fn needs_address(service: &Object) -> bool {
    matches!(
        service.at("spec.type").str(),
        "" | "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

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
