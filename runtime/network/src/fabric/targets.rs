//! Who answers at an address, and whether the caller may ask.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Fabric;
use crate::error::NetError;
use crate::namespace::NetworkNamespace;
use crate::route::{DatagramHandler, Protocol, RemoteNodes, Route, StreamHandler, Verdict};
use crate::service_flows::{RefusedFlow, ServiceFlows};
use crate::socket::canonical;
use crate::stream::Path;

/// Who opens a connection: a pod, or without a namespace the node.
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    /// Of the other family.
    pub(crate) second_address: Option<IpAddr>,
    pub(crate) namespace: Option<Arc<NetworkNamespace>>,
}

impl Caller {
    /// Its address of the family of `to`.
    pub(crate) fn address_towards(&self, to: IpAddr) -> Option<IpAddr> {
        let mut all = [Some(self.address), self.second_address].into_iter();
        all.find_map(|own| own.filter(|own| own.is_ipv4() == to.is_ipv4()))
    }
}

/// Who answers at an address.
#[derive(Clone)]
pub(crate) enum Target {
    Pod(Arc<NetworkNamespace>),
    Handler(Arc<dyn StreamHandler>),
    Datagrams(Arc<dyn DatagramHandler>),
    Remote(Arc<dyn RemoteNodes>),
    Outside,
}

/// Where a connect or a message leads.
pub(crate) struct Routes {
    /// The endpoints to try, in order.
    pub(crate) ends: Vec<(SocketAddr, Target)>,
    /// What to say if there is none.
    pub(crate) failure: NetError,
    /// What it is to the Service if nobody takes the connection.
    pub(super) refused: RefusedFlow,
    /// Who counts what becomes of it.
    pub(crate) service: Option<Arc<ServiceFlows>>,
}

impl Routes {
    fn to(address: SocketAddr, target: Target) -> Self {
        Self {
            ends: vec![(address, target)],
            failure: NetError::ConnectionRefused(address),
            refused: RefusedFlow::Endpoints,
            service: None,
        }
    }
}

impl Fabric {
    /// The endpoints that a connect to `to` may end at, in order; none only if a Service has none.
    pub(crate) fn routes(
        &self,
        caller: &Caller,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<Routes, NetError> {
        if to.ip().is_loopback()
            && let Some(own) = &caller.namespace
        {
            // What listens in the pod is nearer than what listens on the host.
            let is_host = own.is_on_host() && !own.has_taker(to, protocol);
            let target = match is_host {
                true => Target::Outside,
                false => Target::Pod(own.clone()),
            };
            return Ok(Routes::to(to, target));
        }
        if let Some(target) = self.inside(to, protocol) {
            return Ok(Routes::to(to, target));
        }
        let router = self.router();
        let from = caller.address_towards(to.ip()).unwrap_or(caller.address);
        let (route, service) = router.route_counted(from, to, protocol);
        let mut routes = Routes {
            ends: Vec::new(),
            failure: NetError::ConnectionRefused(to),
            refused: RefusedFlow::NoEndpoints,
            service,
        };
        match route {
            Route::NotAService => {
                return Ok(Routes::to(to, self.target(caller, to, protocol)?));
            }
            Route::Refuse => {}
            Route::NoPort => routes.refused = RefusedFlow::NoPort,
            Route::Deny { reason } => {
                routes.failure = NetError::Denied {
                    address: to.ip(),
                    reason,
                }
            }
            Route::Endpoints(endpoints) => {
                routes.refused = RefusedFlow::Endpoints;
                routes.ends.reserve(endpoints.len());
                for endpoint in endpoints.into_iter().map(canonical) {
                    match self.target(caller, endpoint, protocol) {
                        Ok(target) => routes.ends.push((endpoint, target)),
                        Err(error) => routes.failure = error,
                    }
                }
            }
        }
        Ok(routes)
    }

    /// Whether what `caller` sends to `to` may still go to `endpoint`, where it went before. What listens in the pod itself, or
    /// has the address, stays who it is.
    pub(crate) fn still_leads(
        &self,
        caller: &Caller,
        to: SocketAddr,
        endpoint: SocketAddr,
        protocol: Protocol,
    ) -> bool {
        if to == endpoint {
            return true;
        }
        let from = caller.address_towards(to.ip()).unwrap_or(caller.address);
        self.router().still_leads(from, to, endpoint, protocol)
    }

    /// Whether `caller` could open a connection along `path` now: its Service has the endpoint, and no policy is against it.
    pub(crate) fn could_connect(&self, caller: &Caller, path: &Path) -> bool {
        let Path { from, to, endpoint } = *path;
        if to.ip().is_loopback() {
            return true; // in the pod, which no policy concerns
        }
        let is_let_in = |target: Option<Target>| match target {
            Some(Target::Pod(namespace)) if !is_same(caller, &namespace) => {
                self.may_accept(from.ip(), endpoint, Protocol::Tcp).is_ok()
            }
            _ => true,
        };
        self.still_leads(caller, to, endpoint, Protocol::Tcp)
            && self.may_connect(caller, endpoint, Protocol::Tcp).is_ok()
            && is_let_in(self.inside(endpoint, Protocol::Tcp))
    }

    /// Who answers at an address that is not a Service's. A Service's endpoints may have been
    /// written by anyone, so loopback and the host are closed to them like to any other dial.
    pub(crate) fn target(
        &self,
        caller: &Caller,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<Target, NetError> {
        if let Some(target) = self.inside(to, protocol) {
            return Ok(target);
        }
        let ip = to.ip();
        let remote = self.remote.read().clone();
        if remote.reaches(ip) {
            return Ok(Target::Remote(remote));
        }
        if self.node_addresses().any(|node| node == ip) {
            return Err(NetError::ConnectionRefused(to));
        }
        let mut ranges = self
            .config
            .pod_ranges
            .iter()
            .chain(&self.config.service_ranges);
        if ranges.any(|range| range.contains(&ip)) {
            return Err(NetError::HostUnreachable(to));
        }
        let exempt = match &caller.namespace {
            Some(namespace) if namespace.is_on_host() => return Ok(Target::Outside),
            Some(namespace) => namespace.exempt(),
            None => &[],
        };
        self.config.egress.check(ip, exempt)?;
        Ok(Target::Outside)
    }

    /// Pods and handlers of this node.
    fn inside(&self, to: SocketAddr, protocol: Protocol) -> Option<Target> {
        if let Some(namespace) = self.namespaces.read().get(&to.ip()) {
            return Some(Target::Pod(namespace.clone()));
        }
        match protocol {
            Protocol::Tcp => self.handlers.read().get(&to).cloned().map(Target::Handler),
            Protocol::Udp => self
                .datagrams
                .read()
                .get(&to)
                .cloned()
                .map(Target::Datagrams),
        }
    }

    /// The caller is asked about by its address of the family of `to`, so that one that dials itself is seen to.
    pub(crate) fn may_connect(
        &self,
        caller: &Caller,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<(), NetError> {
        let from = caller.address_towards(to.ip()).unwrap_or(caller.address);
        let verdict = self.policy.read().on_connect(from, to, protocol);
        judge(verdict, to)
    }

    pub(crate) fn may_accept(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<(), NetError> {
        let verdict = self.policy.read().on_accept(from, to, protocol);
        judge(verdict, to)
    }
}

/// Whether the caller is the pod itself, whose own connections no policy concerns.
pub(crate) fn is_same(caller: &Caller, namespace: &Arc<NetworkNamespace>) -> bool {
    caller
        .namespace
        .as_ref()
        .is_some_and(|own| Arc::ptr_eq(own, namespace))
}

fn judge(verdict: Verdict, to: SocketAddr) -> Result<(), NetError> {
    match verdict {
        Verdict::Allow => Ok(()),
        Verdict::Deny { reason } => Err(NetError::Denied {
            address: to.ip(),
            reason,
        }),
    }
}
