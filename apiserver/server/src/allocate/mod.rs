//! Addresses and node ports of Services, handed out between validation and the store.
//!
//! What is taken lives in memory, rebuilt from the stored Services at the start; a [`Reservation`] that is not kept
//! gives back what it took, so a failed write leaks nothing.

mod addresses;
mod node_ports;

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, Object, Resource};
use coracle_clock::Clock;
use parking_lot::Mutex;
use serde_json::{Value, json};

use addresses::Addresses;
pub use addresses::{AddressRange, RangeError};
use node_ports::{NodePorts, PortRefusal};

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
    taken: Arc<Mutex<Taken>>,
}

struct Taken {
    addresses: Addresses,
    ports: NodePorts,
}

/// What one write took and gave up; undone unless [kept](Self::keep).
#[derive(Default)]
pub struct Reservation {
    taken: Option<Arc<Mutex<Taken>>>,
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
    pub fn keep(mut self) {
        self.kept = true;
        let Some(taken) = &self.taken else { return };
        let mut taken = taken.lock();
        taken.release(self.old.without(&self.new));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken
            && !self.kept
        {
            taken.lock().release(self.new.without(&self.old));
        }
    }
}

impl Holdings {
    fn of(service: &Object) -> Self {
        let address = service.at("spec.clusterIP").str().parse().ok();
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

impl Taken {
    fn release(&mut self, holdings: Holdings) {
        if let Some(address) = holdings.address {
            self.addresses.release(address);
        }
        for port in holdings.ports {
            self.ports.release(port);
        }
    }
}

impl Allocators {
    /// Empty allocators over `ranges`.
    pub fn new(ranges: &ServiceRanges, clock: Clock) -> Self {
        let addresses = Addresses::new(ranges.addresses.clone());
        let ports = NodePorts::new(ranges.node_ports.clone());
        Self {
            clock,
            taken: Arc::new(Mutex::new(Taken { addresses, ports })),
        }
    }

    /// Marks what a stored Service holds. Returns what is wrong with it: an address or port out of range or held twice.
    pub fn adopt(&self, service: &Object) -> Vec<String> {
        let holdings = Holdings::of(service);
        let mut taken = self.taken.lock();
        let mut problems = Vec::new();
        if let Some(address) = holdings.address
            && let Err(refusal) = taken.addresses.take(address)
        {
            problems.push(format!("address {address}: {refusal}"));
        }
        for port in holdings.ports {
            if let Err(refusal) = taken.ports.take(port) {
                problems.push(format!("node port {port}: {refusal}"));
            }
        }
        problems
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

    /// Fills in what `new` needs and takes what it asks for.
    pub fn allocate(
        &self,
        resource: &Resource,
        new: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Reservation> {
        if !is_service(resource) {
            return Ok(Reservation::default());
        }
        let before = old.map(Holdings::of).unwrap_or_default();
        let mut reservation = Reservation {
            taken: Some(Arc::clone(&self.taken)),
            new: before.clone(),
            old: before.clone(),
            kept: false,
        };
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
        let mut errors = FieldErrors::default();
        {
            let mut taken = self.taken.lock();
            if needs_address(new) {
                self.allocate_address(&mut taken, new, &before, &mut reservation, &mut errors);
            }
            if errors.is_empty() && needs_node_ports(new) {
                self.allocate_ports(&mut taken, new, &before, &mut reservation, &mut errors);
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource, new.name(), &errors));
        }
        let after = Holdings::of(new);
        // What was taken on the way but is not in the object any more goes back at once.
        reservation.new = after;
        if dry_run {
            drop(reservation);
            return Ok(Reservation::default());
        }
        Ok(reservation)
    }

    /// Frees what a removed Service held.
    pub fn release(&self, resource: &Resource, object: &Object) {
        if is_service(resource) {
            self.taken.lock().release(Holdings::of(object));
        }
    }

    fn allocate_address(
        &self,
        taken: &mut Taken,
        new: &mut Object,
        before: &Holdings,
        reservation: &mut Reservation,
        errors: &mut FieldErrors,
    ) {
        let headless = new.at("spec.clusterIP").str() == "None";
        let without_selector = headless && new.at("spec.selector").is_empty();
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
            return;
        }
        if !errors.is_empty() {
            return;
        }
        let asked = new.at("spec.clusterIP").str().to_owned();
        let refuse = |errors: &mut FieldErrors, value: Value, why: String| {
            errors.push(ErrorType::Invalid, "spec.clusterIPs", Some(value), why);
        };
        let address = if asked.is_empty() {
            match taken.addresses.take_any(&self.clock) {
                Some(address) => address,
                None => {
                    return refuse(
                        errors,
                        json!([""]),
                        "failed to allocate a serviceIP: range is full".to_owned(),
                    );
                }
            }
        } else {
            let Ok(address) = asked.parse::<Ipv4Addr>() else {
                return;
            };
            if before.address != Some(address)
                && let Err(refusal) = taken.addresses.take(address)
            {
                return refuse(
                    errors,
                    json!([asked]),
                    format!("failed to allocate IP {address}: {refusal}"),
                );
            }
            address
        };
        reservation.new.address = Some(address);
        new.set("spec.clusterIP", address.to_string());
        new.set("spec.clusterIPs", json!([address.to_string()]));
    }

    fn allocate_ports(
        &self,
        taken: &mut Taken,
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
                match taken.ports.take_any(&self.clock) {
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
                    taken.ports.take(number)
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
