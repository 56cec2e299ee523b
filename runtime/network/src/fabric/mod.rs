//! The node's switch: finds who answers at an address, and joins the two ends.
//!
//! Here is who takes part in it; [`targets`] says who answers at an address, [`connections`] opens TCP connections there.

mod connections;
mod targets;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use ipnet::IpNet;
use parking_lot::RwLock;

use crate::account::{Account, Limits, PodAccount};
use crate::egress::EgressPolicy;
use crate::error::NetError;
use crate::names::{NoNames, Resolver};
use crate::namespace::{NamespaceConfig, NetworkNamespace};
use crate::ports::EPHEMERAL;
use crate::route::{
    AllowAll, ConnectionPolicy, DatagramHandler, NoRemoteNodes, NoServices, RemoteNodes,
    ServiceRouter, StreamHandler,
};
pub(crate) use targets::{Caller, Target, is_same};

/// Sockets that the node itself may have in the pod network (probes, proxies, the API server).
const NODE_SOCKETS: usize = 65_536;

/// What a fabric is made of.
pub struct FabricConfig {
    /// The node's own address in the pod network.
    pub node_address: IpAddr,
    /// Its address of the other family, if the cluster has both.
    pub second_node_address: Option<IpAddr>,
    /// Addresses of the cluster's pods. What nobody holds there is unreachable, never the outside.
    pub pod_ranges: Vec<IpNet>,
    /// Addresses of Services. What no Service has there is unreachable, never the outside.
    pub service_ranges: Vec<IpNet>,
    /// What pods may dial outside.
    pub egress: EgressPolicy,
    /// How long a connect may take.
    pub connect_timeout: Duration,
}

impl FabricConfig {
    /// A node with the given address, no cluster, the default egress policy and 30 s to connect.
    pub fn new(node_address: IpAddr) -> Self {
        Self {
            node_address,
            second_node_address: None,
            pod_ranges: Vec::new(),
            service_ranges: Vec::new(),
            egress: EgressPolicy::default(),
            connect_timeout: Duration::from_secs(30),
        }
    }
}

/// Routes between the pods of a node, Services, handlers of this process, and the outside.
pub struct Fabric {
    config: FabricConfig,
    clock: Clock,
    namespaces: RwLock<HashMap<IpAddr, Arc<NetworkNamespace>>>,
    handlers: RwLock<HashMap<SocketAddr, Arc<dyn StreamHandler>>>,
    datagrams: RwLock<HashMap<SocketAddr, Arc<dyn DatagramHandler>>>,
    router: RwLock<Arc<dyn ServiceRouter>>,
    resolver: RwLock<Arc<dyn Resolver>>,
    policy: RwLock<Arc<dyn ConnectionPolicy>>,
    remote: RwLock<Arc<dyn RemoteNodes>>,
    node: Arc<Account>,
    next_node_port: AtomicU16,
}

impl Fabric {
    /// A switch without pods, Services and names.
    pub fn new(config: FabricConfig, clock: Clock) -> Arc<Self> {
        let limits = Limits {
            sockets: NODE_SOCKETS,
            ..Limits::default()
        };
        Arc::new(Self {
            node: Account::new(PodAccount::new(limits), clock.clone()),
            config,
            clock,
            namespaces: RwLock::default(),
            handlers: RwLock::default(),
            datagrams: RwLock::default(),
            router: RwLock::new(Arc::new(NoServices)),
            resolver: RwLock::new(Arc::new(NoNames)),
            policy: RwLock::new(Arc::new(AllowAll)),
            remote: RwLock::new(Arc::new(NoRemoteNodes)),
            next_node_port: AtomicU16::new(0),
        })
    }

    /// The node's own address in the pod network.
    pub fn node_address(&self) -> IpAddr {
        self.config.node_address
    }

    /// All addresses of the node in the pod network: one, or one of each family.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let both = [
            Some(self.config.node_address),
            self.config.second_node_address,
        ];
        both.into_iter().flatten()
    }

    /// Sets who knows the Services.
    pub fn set_router(&self, router: Arc<dyn ServiceRouter>) {
        *self.router.write() = router;
    }

    /// Sets who knows the names.
    pub fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        *self.resolver.write() = resolver;
    }

    /// Sets who decides which connections may be.
    pub fn set_policy(&self, policy: Arc<dyn ConnectionPolicy>) {
        *self.policy.write() = policy;
    }

    /// Sets who reaches the pods of other nodes.
    pub fn set_remote_nodes(&self, remote: Arc<dyn RemoteNodes>) {
        *self.remote.write() = remote;
    }

    /// Makes the namespace of a pod; fails while its address is held by another.
    pub fn create_namespace(
        self: &Arc<Self>,
        config: NamespaceConfig,
    ) -> Result<Arc<NetworkNamespace>, NetError> {
        let second = config.second_address;
        if second.is_some_and(|second| second.is_ipv4() == config.address.is_ipv4()) {
            return Err(NetError::InvalidArgument(
                "a pod's addresses are of different families",
            ));
        }
        let mut namespaces = self.namespaces.write();
        for address in [Some(config.address), second].into_iter().flatten() {
            if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
                return Err(NetError::InvalidArgument("a pod needs a unicast address"));
            }
            let is_node = self.node_addresses().any(|node| node == address);
            if is_node || namespaces.contains_key(&address) {
                return Err(NetError::AddressInUse(SocketAddr::new(address, 0)));
            }
        }
        let namespace = NetworkNamespace::new(config, self);
        for address in namespace.addresses() {
            namespaces.insert(address, namespace.clone());
        }
        Ok(namespace)
    }

    /// The local namespace that holds `address`.
    pub fn namespace(&self, address: IpAddr) -> Option<Arc<NetworkNamespace>> {
        self.namespaces.read().get(&address).cloned()
    }

    /// Serves connections to `address` (usually a port of the node) inside this process, until
    /// [`remove_handler`](Self::remove_handler); an earlier handler is replaced.
    pub fn set_handler(&self, address: SocketAddr, handler: Arc<dyn StreamHandler>) {
        self.handlers.write().insert(address, handler);
    }

    /// Refuses connections to a handler's address again.
    pub fn remove_handler(&self, address: SocketAddr) {
        self.handlers.write().remove(&address);
    }

    /// Answers datagrams to `address` inside this process, until
    /// [`remove_datagram_handler`](Self::remove_datagram_handler); an earlier handler is replaced.
    pub fn set_datagram_handler(&self, address: SocketAddr, handler: Arc<dyn DatagramHandler>) {
        self.datagrams.write().insert(address, handler);
    }

    /// Loses datagrams to a handler's address again.
    pub fn remove_datagram_handler(&self, address: SocketAddr) {
        self.datagrams.write().remove(&address);
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Who decides which connections may be.
    pub fn policy(&self) -> Arc<dyn ConnectionPolicy> {
        self.policy.read().clone()
    }

    /// Who knows the Services, for whoever wants to know where an address leads.
    pub fn router(&self) -> Arc<dyn ServiceRouter> {
        self.router.read().clone()
    }

    /// Who knows the names, for whoever puts itself before them.
    pub fn resolver(&self) -> Arc<dyn Resolver> {
        self.resolver.read().clone()
    }

    /// Frees the address of a namespace, unless another one holds it by now.
    pub(crate) fn remove(&self, namespace: &Arc<NetworkNamespace>) {
        let mut namespaces = self.namespaces.write();
        for address in namespace.addresses() {
            let held = namespaces.get(&address);
            if held.is_some_and(|held| Arc::ptr_eq(held, namespace)) {
                namespaces.remove(&address);
            }
        }
    }

    /// Takes a UDP port of the node that nobody holds.
    pub(crate) fn claim_node_udp(
        &self,
        handler: Arc<dyn DatagramHandler>,
        towards: IpAddr,
    ) -> Result<SocketAddr, NetError> {
        let mut datagrams = self.datagrams.write();
        for _ in EPHEMERAL {
            let address = self.node_source(&self.node_caller(), towards);
            if let std::collections::hash_map::Entry::Vacant(free) = datagrams.entry(address) {
                free.insert(handler);
                return Ok(address);
            }
        }
        Err(NetError::AddressInUse(SocketAddr::new(
            self.config.node_address,
            0,
        )))
    }

    /// Who pays for what the node does.
    pub(crate) fn node_account(&self) -> &PodAccount {
        &self.node.pod
    }

    /// The node as the one who opens a connection.
    pub(crate) fn node_caller(&self) -> Caller {
        Caller {
            address: self.config.node_address,
            second_address: self.config.second_node_address,
            namespace: None,
        }
    }

    /// An address for a connection that the node opens as `caller`: itself, or a pod into whose loopback it goes. Nothing
    /// ever connects to it, so ports may repeat.
    fn node_source(&self, caller: &Caller, towards: IpAddr) -> SocketAddr {
        let offset = self.next_node_port.fetch_add(1, Ordering::Relaxed);
        let range = EPHEMERAL.end() - EPHEMERAL.start() + 1;
        let own = match caller.namespace.is_some() && towards.is_loopback() {
            true => towards,
            false => caller.address_towards(towards).unwrap_or(caller.address),
        };
        SocketAddr::new(own, EPHEMERAL.start() + offset % range)
    }
}
