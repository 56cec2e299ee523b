//! Services for clients outside: sockets on the host for node ports, load balancers' addresses,
//! external addresses, and the host ports of pods.
//!
//! ```text
//!   index ──exposures changed──▶ reconcile ──open, close──▶ door ──TCP accept──▶ Fabric::deliver
//!              ▲                      │                       └──UDP message──▶ a flow ──▶ a pod
//!              └── in use: Event, wait┘
//! ```
//!
//! A door knows nothing but its place: whom a connection is for is asked when it arrives. So a
//! change of endpoints, or of the Service that holds the place, moves no socket.

mod health;
mod plan;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Context, EventKind, ObjectKey};
use coracle_network::{Fabric, ServiceFlows};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use crate::index::{Exposure, Index, Transport};
use crate::router::Router;
pub(crate) use plan::Door;
use plan::{Failed, LeftOut, Why, World, reconcile};

/// How many accepted connections of one port may wait to be taken by a pod; past it, they wait in
/// the host's backlog. Of one port, so that a Service whose pods are stuck holds up no other.
const ARRIVING: usize = 256;
/// How long a listener rests when the host has no more sockets to give.
const REST: Duration = Duration::from_millis(50);

/// What is open now, and what could not be opened and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doors {
    /// As what, and for whom.
    pub(crate) open: BTreeMap<Door, (Exposure, ObjectKey)>,
    /// By whom wants it: a place that another one of the cluster has is in use, and one too many is past a quota.
    pub(crate) failed: BTreeMap<(Door, ObjectKey), io::ErrorKind>,
}

/// [`Doors`], to be asked or waited for.
pub(crate) type OpenDoors = Arc<watch::Sender<Doors>>;

/// Opens and closes the host's sockets as Services come and go.
pub(crate) struct Exposed {
    pub(crate) index: Arc<Index>,
    pub(crate) router: Arc<Router>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) context: Context,
    pub(crate) hosts: Arc<[std::net::IpAddr]>,
    pub(crate) doors: OpenDoors,
    /// How many doors there may be.
    pub(crate) limit: usize,
}

/// A door's task, which ends with this.
struct Serving {
    exposure: Exposure,
    task: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Exposed {
    /// Follows the index until the context's stop signal, then closes all doors.
    pub(crate) async fn run(self) {
        let mut changed = self.index.follow_exposures();
        let mut open: BTreeMap<Door, Serving> = BTreeMap::new();
        let mut failed: BTreeMap<Door, Failed> = BTreeMap::new();
        let mut left_out: BTreeSet<LeftOut> = BTreeSet::new();
        loop {
            changed.mark_unchanged();
            let wanted = self.index.ask(|tables| tables.exposures());
            let now = self.context.clock().monotonic();
            let plan = reconcile(&World {
                wanted: &wanted,
                hosts: &self.hosts,
                open: open
                    .iter()
                    .map(|(door, held)| (*door, held.exposure))
                    .collect(),
                failed: &failed,
                now,
                limit: self.limit,
            });
            for door in plan.forget {
                failed.remove(&door);
            }
            for door in plan.close {
                tracing::debug!(?door, "closed to the outside");
                open.remove(&door);
            }
            for new in plan.left_out.difference(&left_out) {
                self.report_left_out(new);
            }
            left_out = plan.left_out;
            let mut next = plan.next;
            for (door, exposure, service) in plan.open {
                match self.open(door, exposure).await {
                    Ok(task) => {
                        tracing::debug!(?door, %service, "open to the outside");
                        failed.remove(&door);
                        open.insert(door, Serving { exposure, task });
                    }
                    Err(error) => {
                        self.report(&service, door, exposure, &error);
                        let failure = Failed::after(failed.get(&door), service, error.kind(), now);
                        next = Some(next.map_or(failure.due, |next| next.min(failure.due)));
                        failed.insert(door, failure);
                    }
                }
            }
            let mut wanted = plan.wanted;
            wanted.retain(|door, _| open.contains_key(door));
            self.doors.send_replace(Doors {
                open: wanted,
                failed: failures(&failed).chain(in_vain(&left_out)).collect(),
            });
            let retry = async {
                match next {
                    Some(due) => self.context.clock().sleep(due.saturating_sub(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.context.stop().cancelled() => break,
                // The sender lives in the index, which lives in self.
                _ = changed.changed() => {}
                () = retry => {}
            }
        }
        self.doors.send_replace(Doors::default());
    }

    async fn open(&self, door: Door, exposure: Exposure) -> io::Result<AbortHandle> {
        Ok(match door.transport {
            Transport::Tcp => {
                let listener = TcpListener::bind(door.address).await?;
                let task = match exposure {
                    Exposure::Health(_) => {
                        let (index, clock) = (self.index.clone(), self.context.clock().clone());
                        tokio::spawn(health::serve(listener, index, exposure, clock))
                    }
                    _ => tokio::spawn(self.serve(listener, exposure)),
                };
                task.abort_handle()
            }
            Transport::Udp => {
                let socket = UdpSocket::bind(door.address).await?;
                let flows = udp::Flows {
                    socket: Arc::new(socket),
                    exposure,
                    router: self.router.clone(),
                    fabric: self.fabric.clone(),
                    clock: self.context.clock().clone(),
                };
                tokio::spawn(flows.run()).abort_handle()
            }
        })
    }

    /// Accepts connections of one listener for ever.
    fn serve(
        &self,
        listener: TcpListener,
        exposure: Exposure,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (router, fabric) = (self.router.clone(), self.fabric.clone());
        let clock = self.context.clock().clone();
        let arriving = Arc::new(Semaphore::new(ARRIVING));
        async move {
            loop {
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(?exposure, %error, "cannot accept from outside");
                        clock.sleep(REST).await;
                        continue;
                    }
                };
                let Ok(place) = arriving.clone().acquire_owned().await else {
                    return; // never closed
                };
                let led = router.outside(peer.ip(), &exposure);
                if let (true, Some(service)) = (led.is_denied, &led.service) {
                    tracing::debug!(?exposure, %peer, "not in the Service's loadBalancerSourceRanges");
                    fabric.deny_for(stream, peer, service.clone());
                    continue;
                }
                let fabric = fabric.clone();
                tokio::spawn(async move {
                    let _place = place;
                    deliver(&fabric, stream, peer, &led.endpoints, led.service).await;
                });
            }
        }
    }

    /// Tells the owner of a Service or a pod who has the place, or that there are too many.
    fn report_left_out(&self, left_out: &LeftOut) {
        let LeftOut {
            door,
            exposure,
            service: key,
            why,
        } = left_out;
        let place = format!("{} {}", protocol(door.transport), door.address);
        let (wanted, in_use, other) = match exposure {
            Exposure::HostPort(_, port, _) => (
                format!("hostPort {port} is not open"),
                "HostPortUnavailable",
                "the container another hostPort",
            ),
            _ => (
                format!("service {key} is not reachable at {place}"),
                "AddressInUse",
                "the Service another port",
            ),
        };
        let (reason, message) = match why {
            Why::Held(by, first) => {
                let holder = match by {
                    Exposure::HostPort(..) => format!("pod {first}"),
                    _ => format!("service {first}"),
                };
                let message = format!(
                    "{wanted}: {holder} has {place}; give {other} (it is opened when the other one goes)"
                );
                (in_use, message)
            }
            Why::Full => {
                let message = format!(
                    "{wanted}: no more than {} ports of the host are opened; delete Services or pods that have some (it is \
                     opened when there is room)",
                    self.limit
                );
                ("TooManyHostPorts", message)
            }
        };
        self.tell(key, *exposure, reason, message);
    }

    /// An Event of the pod that wants a port, or of the Service.
    fn tell(&self, key: &ObjectKey, exposure: Exposure, reason: &str, message: String) {
        let recorder = self.context.recorder();
        if let Exposure::HostPort(..) = exposure {
            if let Some(pod) = self.context.lister::<Pod>().get(key) {
                recorder.event(pod.as_ref(), EventKind::Warning, reason, message);
            }
        } else if let Some(service) = self.context.lister::<Service>().get(key) {
            recorder.event(service.as_ref(), EventKind::Warning, reason, message);
        }
    }

    /// Tells the owner of a Service or a pod what is in the way, and what to do.
    fn report(&self, key: &ObjectKey, door: Door, exposure: Exposure, error: &io::Error) {
        let Door { address, transport } = door;
        let protocol = protocol(transport);
        tracing::debug!(service = %key, %address, protocol, %error, "cannot be opened");
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        let (reason, message) = match exposure {
            Exposure::NodePort(port, _) if in_use => (
                "NodePortUnavailable",
                format!(
                    "node port {port} of service {key} cannot be opened: another program holds {protocol} {address}; \
                     stop it, or give the Service another nodePort (it is tried again)"
                ),
            ),
            Exposure::NodePort(port, _) => (
                "NodePortUnavailable",
                format!(
                    "node port {port} of service {key} cannot be opened on {protocol} {address}: {error} (it is tried \
                     again)"
                ),
            ),
            Exposure::HostPort(_, port, _) if in_use => (
                "HostPortUnavailable",
                format!(
                    "hostPort {port} cannot be opened: another program, or a Service, holds {protocol} {address}; stop it, \
                     or give the container another hostPort (it is tried again)"
                ),
            ),
            Exposure::HostPort(_, port, _) => (
                "HostPortUnavailable",
                format!(
                    "hostPort {port} cannot be opened on {protocol} {address}: {error} (it is tried again)"
                ),
            ),
            Exposure::Health(port) => (
                "FailedToStartServiceHealthcheck",
                format!(
                    "healthCheckNodePort {port} of service {key} cannot be opened on {protocol} {address}: {error} (it is \
                     tried again)"
                ),
            ),
            // An external address is often another machine's, which leads here: nothing is wrong.
            Exposure::Outer(..) if error.kind() == io::ErrorKind::AddrNotAvailable => return,
            Exposure::Outer(..) if in_use => (
                "AddressInUse",
                format!(
                    "service {key} is not reachable at {protocol} {address}: another program holds it; stop it, or \
                     give the Service another port (it is tried again)"
                ),
            ),
            Exposure::Outer(..) => (
                "AddressUnavailable",
                format!(
                    "service {key} is not reachable at {protocol} {address}: {error} (it is tried again)"
                ),
            ),
        };
        self.tell(key, exposure, reason, message);
    }
}

/// What could not be opened, for whom and why.
fn failures(
    failed: &BTreeMap<Door, Failed>,
) -> impl Iterator<Item = ((Door, ObjectKey), io::ErrorKind)> {
    let failure = |(door, failed): (&Door, &Failed)| ((*door, failed.service.clone()), failed.kind);
    failed.iter().map(failure)
}

/// Which Services want places in vain, and why.
fn in_vain(
    left_out: &BTreeSet<LeftOut>,
) -> impl Iterator<Item = ((Door, ObjectKey), io::ErrorKind)> {
    // A pod may have a Service's name.
    let services = left_out
        .iter()
        .filter(|left_out| !matches!(left_out.exposure, Exposure::HostPort(..)));
    services.map(|left_out| {
        let kind = match left_out.why {
            Why::Held(..) => io::ErrorKind::AddrInUse,
            Why::Full => io::ErrorKind::QuotaExceeded,
        };
        ((left_out.door, left_out.service.clone()), kind)
    })
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

/// Hands one accepted connection to a pod; nobody there resets it.
async fn deliver(
    fabric: &Fabric,
    stream: TcpStream,
    peer: SocketAddr,
    endpoints: &[SocketAddr],
    service: Option<Arc<ServiceFlows>>,
) {
    // Small answers should not wait for acknowledgements; a socket that just died refuses this.
    let _ = stream.set_nodelay(true);
    if let Err(error) = fabric.deliver_for(stream, peer, endpoints, service).await {
        tracing::debug!(%peer, %error, "nobody took a connection from outside");
    }
}
