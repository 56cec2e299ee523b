//! Which of the host's ports should be open: a pure function.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coracle_client::ObjectKey;

/// The first wait after a port could not be opened; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A port that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// For which Service.
    pub(super) service: ObjectKey,
    /// When it is tried again, by the clock's monotonic time.
    pub(super) due: Duration,
    /// How long was waited this time.
    wait: Duration,
}

impl Failed {
    /// What is known after one more failure at `now`.
    pub(super) fn after(before: Option<&Self>, service: ObjectKey, now: Duration) -> Self {
        let wait = match before {
            Some(before) if before.service == service => (before.wait * 2).min(LONGEST_WAIT),
            _ => FIRST_WAIT,
        };
        Self {
            service,
            due: now + wait,
            wait,
        }
    }
}

/// Everything that the decision needs.
pub(super) struct World<'a> {
    /// The node ports of all Services.
    pub(super) wanted: &'a BTreeMap<u16, ObjectKey>,
    /// The addresses of the host to listen on.
    pub(super) hosts: &'a [IpAddr],
    /// The listeners that are open.
    pub(super) open: Vec<SocketAddr>,
    /// Those that could not be opened.
    pub(super) failed: &'a BTreeMap<SocketAddr, Failed>,
    /// The clock's monotonic time.
    pub(super) now: Duration,
    /// How many may be open at once.
    pub(super) limit: usize,
}

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Listeners to close, first.
    pub(super) close: Vec<SocketAddr>,
    /// Listeners to open, and for whom.
    pub(super) open: Vec<(SocketAddr, ObjectKey)>,
    /// Failures that no longer matter.
    pub(super) forget: Vec<SocketAddr>,
    /// When to look again if nothing changes until then.
    pub(super) next: Option<Duration>,
}

/// Brings the open listeners to those that Services want.
pub(super) fn reconcile(world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    let wanted: BTreeMap<SocketAddr, &ObjectKey> = world
        .wanted
        .iter()
        .flat_map(|(port, service)| {
            let at = move |host: &IpAddr| (SocketAddr::new(*host, *port), service);
            world.hosts.iter().map(at)
        })
        .take(world.limit)
        .collect();
    for address in &world.open {
        if !wanted.contains_key(address) {
            plan.close.push(*address);
        }
    }
    for address in world.failed.keys() {
        if !wanted.contains_key(address) {
            plan.forget.push(*address);
        }
    }
    for (address, service) in wanted {
        if world.open.contains(&address) {
            continue; // who serves it is asked for every connection
        }
        match world.failed.get(&address) {
            // A failure counts for the Service that met it; the next one tries at once.
            Some(failed) if failed.service == *service && failed.due > world.now => {
                let due = plan.next.map_or(failed.due, |next| next.min(failed.due));
                plan.next = Some(due);
            }
            _ => plan.open.push((address, service.clone())),
        }
    }
    plan
}
