//! Keeps what is remembered of node ports and the stored Services in agreement while the server runs.
//!
//! Upstream: `pkg/registry/core/service/portallocator/controller/repair.go`. Addresses have a controller of their own,
//! because their claims are objects.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_api::Object;
use http::Method;
use serde_json::json;

use super::Holdings;
use crate::metadata;
use crate::server::Server;
use crate::service::ApiServer;

/// How often Services and node ports are compared.
const EVERY: Duration = Duration::from_secs(3 * 60);
/// How often in a row a port must be found without a Service until it is free again: its Service may be on the way.
const ROUNDS_TO_LEAK: u8 = 3;
/// Who tells of it, as upstream's.
const REPORTER: &str = "portallocator-repair-controller";

/// What one round remembers for the next.
#[derive(Default)]
pub(super) struct Memory {
    /// How often in a row each port was found without a Service.
    leaks: BTreeMap<u16, u8>,
    /// What was told already, so that it is told once.
    told: BTreeSet<(String, u16, &'static str)>,
}

/// What one round changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repairs {
    /// Ports that Services have and nobody remembers.
    pub(super) take: Vec<u16>,
    /// Ports that are remembered and no Service has.
    pub(super) free: Vec<u16>,
    /// What to tell about Services, by their place in the list.
    pub(super) notes: Vec<Note>,
}

/// Something to tell about a Service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) service: usize,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Compares what is remembered with what the Services have; each has a UID and ports.
pub(super) fn reconcile(
    taken: &BTreeSet<u16>,
    range: &RangeInclusive<u16>,
    services: &[(String, Vec<u16>)],
    memory: &mut Memory,
) -> Repairs {
    let mut repairs = Repairs::default();
    let (mut used, mut told) = (BTreeSet::new(), BTreeSet::new());
    for (service, (uid, ports)) in services.iter().enumerate() {
        for port in ports.iter().copied() {
            let (reason, message) = if !range.contains(&port) {
                let (first, last) = (range.start(), range.end());
                (
                    "PortOutOfRange",
                    format!(
                        "Port {port} is not within the port range {first}-{last}; please recreate service"
                    ),
                )
            } else if !used.insert(port) {
                (
                    "PortAlreadyAllocated",
                    format!(
                        "Port {port} was assigned to multiple services; please recreate service"
                    ),
                )
            } else if !taken.contains(&port) {
                repairs.take.push(port);
                (
                    "PortNotAllocated",
                    format!("Port {port} is not allocated; repairing"),
                )
            } else {
                continue;
            };
            let topic = (uid.clone(), port, reason);
            if !memory.told.contains(&topic) {
                repairs.notes.push(Note {
                    service,
                    reason,
                    message,
                });
            }
            told.insert(topic);
        }
    }
    memory.told = told;
    let unused: BTreeSet<u16> = taken.difference(&used).copied().collect();
    memory.leaks.retain(|port, _| unused.contains(port));
    for port in unused {
        let rounds = memory.leaks.entry(port).or_default();
        *rounds += 1;
        if *rounds >= ROUNDS_TO_LEAK {
            memory.leaks.remove(&port);
            repairs.free.push(port);
        }
    }
    repairs
}

/// Repairs now and then, until the server stops or is gone.
pub(crate) async fn run(server: Weak<Server>) {
    let mut memory = Memory::default();
    loop {
        let Some((clock, stop)) = server
            .upgrade()
            .map(|server| (server.clock.clone(), server.stop.clone()))
        else {
            return;
        };
        tokio::select! {
            () = clock.sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        let Some(server) = server.upgrade() else {
            return;
        };
        round(&server, &mut memory).await;
    }
}

async fn round(server: &Arc<Server>, memory: &mut Memory) {
    let Some(resource) = server.registry.by_plural("", "v1", "services") else {
        return;
    };
    let Ok(cache) = server.storage.cache(resource) else {
        return;
    };
    let (repairs, services) = {
        // Ports are taken before a Service is written and freed after it is gone: with the ports held still, a Service
        // that is seen has its ports.
        let mut ports = server.allocators.ports.lock();
        let entries = cache.list("", 0).entries;
        let services: Vec<Object> = entries.iter().map(|entry| entry.object()).collect();
        let held: Vec<_> = services
            .iter()
            .map(|service| (service.uid().to_owned(), Holdings::of(service).ports))
            .collect();
        let repairs = reconcile(ports.taken(), ports.range(), &held, memory);
        for port in &repairs.take {
            // It was looked up under the same lock.
            let _ = ports.take(*port);
        }
        ports.release_all(&repairs.free);
        (repairs, services)
    };
    for port in &repairs.free {
        tracing::warn!(port, "a node port appears to have leaked; it is free again");
    }
    for note in repairs.notes {
        let service = &services[note.service];
        tracing::warn!(
            namespace = service.namespace(),
            service = service.name(),
            reason = note.reason,
            "{}",
            note.message
        );
        tell(server, service, note.reason, &note.message).await;
    }
}

/// Writes an Event about a Service; one that cannot be written is lost.
async fn tell(server: &Arc<Server>, service: &Object, reason: &str, message: &str) {
    let api = ApiServer {
        server: Arc::clone(server),
    };
    let (namespace, name) = (service.namespace(), service.name());
    let now = metadata::time_stamp(server.clock());
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{name}.{:x}", server.clock().random_u64()), "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Service", "namespace": namespace, "name": name, "uid": service.uid(),
            "resourceVersion": service.resource_version(),
        },
        "reason": reason, "message": message, "type": "Warning", "count": 1,
        "firstTimestamp": now, "lastTimestamp": now,
        "source": {"component": REPORTER}, "reportingComponent": REPORTER, "reportingInstance": "",
    });
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let (status, text) = api.send(Method::POST, &path, &event).await;
    if !status.is_success() {
        tracing::debug!(%status, text, "failed to write an event");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(taken: &[u16], services: &[(&str, &[u16])], memory: &mut Memory) -> Repairs {
        let services: Vec<_> = services
            .iter()
            .map(|(uid, ports)| ((*uid).to_owned(), ports.to_vec()))
            .collect();
        let taken = taken.iter().copied().collect();
        reconcile(&taken, &(30_000..=30_009), &services, memory)
    }

    #[test]
    fn what_agrees_stays() {
        let mut memory = Memory::default();
        let services: &[(&str, &[u16])] = &[("a", &[30_001, 30_002]), ("b", &[])];
        let repairs = round(&[30_001, 30_002], services, &mut memory);
        assert_eq!(repairs, Repairs::default());
    }

    #[test]
    fn a_port_without_a_service_is_free_after_three_rounds() {
        let mut memory = Memory::default();
        for _ in 0..2 {
            assert_eq!(round(&[30_001], &[], &mut memory), Repairs::default());
        }
        // Its Service came after all: the count starts again.
        let services: &[(&str, &[u16])] = &[("a", &[30_001])];
        assert_eq!(round(&[30_001], services, &mut memory), Repairs::default());
        for _ in 0..2 {
            assert_eq!(round(&[30_001], &[], &mut memory), Repairs::default());
        }
        assert_eq!(round(&[30_001], &[], &mut memory).free, [30_001]);
    }

    #[test]
    fn what_services_have_is_taken_and_what_they_should_not_have_is_told_once() {
        let mut memory = Memory::default();
        let services: &[(&str, &[u16])] = &[
            ("a", &[30_001]),
            ("b", &[30_001]),
            ("c", &[80]),
            ("d", &[30_003]),
        ];
        let repairs = round(&[30_001], services, &mut memory);
        assert_eq!(repairs.take, [30_003]);
        let told: Vec<_> = repairs
            .notes
            .iter()
            .map(|note| (note.service, note.reason))
            .collect();
        let expected = [
            (1, "PortAlreadyAllocated"),
            (2, "PortOutOfRange"),
            (3, "PortNotAllocated"),
        ];
        assert_eq!(told, expected);
        let repairs = round(&[30_001, 30_003], services, &mut memory);
        assert_eq!(repairs, Repairs::default());
    }
}
