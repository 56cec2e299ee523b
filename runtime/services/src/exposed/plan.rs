//! Which of the host's ports should be open: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coracle_client::ObjectKey;

use crate::index::{Exposure, Transport};

/// The first wait after a port could not be opened; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// One socket of the host that takes what is for Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
}

/// A port that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// For which Service or pod.
    pub(super) service: ObjectKey,
    pub(super) kind: io::ErrorKind,
    /// When it is tried again, by the clock's monotonic time.
    pub(super) due: Duration,
    /// How long was waited this time.
    wait: Duration,
}

impl Failed {
    /// What is known after one more failure at `now`.
    pub(super) fn after(
        before: Option<&Self>,
        service: ObjectKey,
        kind: io::ErrorKind,
        now: Duration,
    ) -> Self {
        let wait = match before {
            Some(before) if before.service == service => (before.wait * 2).min(LONGEST_WAIT),
            _ => FIRST_WAIT,
        };
        Self {
            service,
            kind,
            due: now + wait,
            wait,
        }
    }
}

/// Everything that the decision needs.
pub(super) struct World<'a> {
    /// The places at which Services and pods are to be reached, with all who want each: the first one gets it.
    pub(super) wanted: &'a BTreeMap<Exposure, Vec<ObjectKey>>,
    /// The addresses of the host on which node ports are.
    pub(super) hosts: &'a [IpAddr],
    /// What is open, and for what.
    pub(super) open: BTreeMap<Door, Exposure>,
    /// Those that could not be opened.
    pub(super) failed: &'a BTreeMap<Door, Failed>,
    /// The clock's monotonic time.
    pub(super) now: Duration,
    /// How many may be open at once.
    pub(super) limit: usize,
}

/// A place that somebody wants in vain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LeftOut {
    pub(super) door: Door,
    /// As what, and for whom, it is wanted.
    pub(super) exposure: Exposure,
    pub(super) service: ObjectKey,
    pub(super) why: Why,
}

/// Why somebody does not get a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// It is open as this, and for that one.
    Held(Exposure, ObjectKey),
    /// As many are open as may be.
    Full,
}

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Everything that is wanted and may be open, as what, and for whom.
    pub(super) wanted: BTreeMap<Door, (Exposure, ObjectKey)>,
    /// What to close, first.
    pub(super) close: Vec<Door>,
    /// What to open, for what, and for whom.
    pub(super) open: Vec<(Door, Exposure, ObjectKey)>,
    /// Failures that no longer matter.
    pub(super) forget: Vec<Door>,
    /// What stays closed as long as others want it, or there are too many.
    pub(super) left_out: BTreeSet<LeftOut>,
    /// When to look again if nothing changes until then.
    pub(super) next: Option<Duration>,
}

/// Brings what is open to what Services want.
pub(super) fn reconcile(world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    // Node ports come first, so that one keeps its socket should a load balancer want it too.
    let mut wanted: BTreeMap<Door, (Exposure, &ObjectKey)> = BTreeMap::new();
    for (exposure, services) in world.wanted {
        for door in doors(*exposure, world.hosts) {
            for service in services {
                let (by, first) = *wanted.entry(door).or_insert((*exposure, service));
                // A Service may want the same place twice, and has it.
                if first != service {
                    plan.left_out.insert(LeftOut {
                        door,
                        exposure: *exposure,
                        service: service.clone(),
                        why: Why::Held(by, first.clone()),
                    });
                }
            }
        }
    }
    // What is open stays so when there are too many.
    let excess = wanted.len().saturating_sub(world.limit);
    let mut last: Vec<Door> = wanted.keys().copied().rev().collect();
    last.sort_by_key(|door| world.open.contains_key(door));
    for door in last.into_iter().take(excess) {
        if let Some((exposure, service)) = wanted.remove(&door) {
            plan.left_out.insert(LeftOut {
                door,
                exposure,
                service: service.clone(),
                why: Why::Full,
            });
        }
    }
    let fits = |door: &Door, exposure: &Exposure| {
        wanted
            .get(door)
            .is_some_and(|(wanted, _)| wanted == exposure)
    };
    for (door, exposure) in &world.open {
        if !fits(door, exposure) {
            plan.close.push(*door);
        }
    }
    for door in world.failed.keys() {
        if !wanted.contains_key(door) {
            plan.forget.push(*door);
        }
    }
    for (door, (exposure, service)) in &wanted {
        if world.open.get(door) == Some(exposure) {
            continue; // who serves it is asked for every connection
        }
        match world.failed.get(door) {
            // A failure counts for the Service that met it; the next one tries at once.
            Some(failed) if failed.service == **service && failed.due > world.now => {
                let due = plan.next.map_or(failed.due, |next| next.min(failed.due));
                plan.next = Some(due);
            }
            _ => plan.open.push((*door, *exposure, (*service).clone())),
        }
    }
    let owned = |(door, (exposure, service)): (Door, (Exposure, &ObjectKey))| {
        (door, (exposure, service.clone()))
    };
    plan.wanted = wanted.into_iter().map(owned).collect();
    plan
}

/// The sockets that a place outside needs.
fn doors(exposure: Exposure, hosts: &[IpAddr]) -> Vec<Door> {
    match exposure {
        Exposure::NodePort(port, transport) => {
            let at = |host: &IpAddr| Door {
                address: SocketAddr::new(*host, port),
                transport,
            };
            hosts.iter().map(at).collect()
        }
        Exposure::Outer(address, transport) => vec![Door { address, transport }],
        Exposure::Health(port) => doors(Exposure::NodePort(port, Transport::Tcp), hosts),
        Exposure::HostPort(None, port, transport) => {
            doors(Exposure::NodePort(port, transport), hosts)
        }
        Exposure::HostPort(Some(host), port, transport) => vec![Door {
            address: SocketAddr::new(host, port),
            transport,
        }],
    }
}
