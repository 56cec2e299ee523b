//! NetworkPolicies in the form that is decided by.

use std::net::IpAddr;

use coracle_client::kube::core::SelectorExt;
use coracle_client::{ObjectKey, Selector};
use coracle_network::Protocol;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::facts::Labels;

/// One policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name.
    pub key: ObjectKey,
    /// The pods of its namespace that it is about.
    selects: Selects,
    /// What may come in; `None`: it is not about that.
    ingress: Option<Vec<Rule>>,
    /// What may go out; `None`: it is not about that.
    egress: Option<Vec<Rule>>,
}

/// The way of a connection, as the pod sees it that a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// As rules are called in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What one rule lets through.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Empty: everybody.
    peers: Vec<Peer>,
    /// Empty: every port of every protocol.
    ports: Vec<PortRule>,
}

#[derive(Clone, Debug)]
enum Peer {
    Pods {
        /// `None`: the namespace of the policy.
        namespaces: Option<Selects>,
        pods: Selects,
    },
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    /// One that cannot be read, which is nobody.
    Nobody,
}

#[derive(Clone, Debug)]
struct PortRule {
    protocol: Option<Protocol>,
    ports: Ports,
}

#[derive(Clone, Debug)]
enum Ports {
    All,
    Range(u16, u16),
    Named(String),
}

/// A label selector; one that cannot be read selects nothing where it lets in, and everything where it shuts out.
#[derive(Clone, Debug)]
struct Selects(Result<Selector, ()>);

impl Selects {
    fn of(selector: Option<&LabelSelector>) -> Self {
        match selector {
            None => Self(Ok(Selector::default())),
            Some(selector) => Self(Selector::try_from(selector.clone()).map_err(|_| ())),
        }
    }

    fn lets(&self, labels: &Labels) -> bool {
        self.0
            .as_ref()
            .is_ok_and(|selector| selector.matches(labels))
    }

    fn shuts(&self, labels: &Labels) -> bool {
        self.0
            .as_ref()
            .map_or(true, |selector| selector.matches(labels))
    }
}

/// The other end of a connection, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerFacts<'a> {
    pub(crate) address: IpAddr,
    /// Of a pod: its namespace, the labels of that, and its own.
    pub(crate) pod: Option<(&'a str, &'a Labels, &'a Labels)>,
}

/// The port that is dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortFacts<'a> {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    /// Ports that the pod which is dialled has names for.
    pub(crate) names: &'a [(String, Protocol, u16)],
}

impl Policy {
    /// Reads an object.
    pub fn of(policy: &NetworkPolicy) -> Self {
        let none = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&none);
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let names = |direction: &str| types.iter().any(|name| name == direction);
        // As the API's defaults have it, should they be missing.
        let is_egress = names("Egress") || (types.is_empty() && spec.egress.is_some());
        let is_ingress = names("Ingress") || types.is_empty();
        let ingress = spec.ingress.iter().flatten();
        let egress = spec.egress.iter().flatten();
        let incoming = ingress.map(|rule| Rule::of(rule.from.as_ref(), rule.ports.as_ref()));
        let outgoing = egress.map(|rule| Rule::of(rule.to.as_ref(), rule.ports.as_ref()));
        Self {
            key: ObjectKey::of(policy),
            selects: Selects::of(spec.pod_selector.as_ref()),
            ingress: is_ingress.then(|| incoming.collect()),
            egress: is_egress.then(|| outgoing.collect()),
        }
    }

    /// Its rules for the direction, if it is about that and about a pod with these labels (`None`: nobody knows them).
    pub(crate) fn rules(&self, direction: Direction, labels: Option<&Labels>) -> Option<&[Rule]> {
        let rules = match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        };
        let is_about = labels.is_none_or(|labels| self.selects.shuts(labels));
        rules.filter(|_| is_about)
    }
}

impl Rule {
    fn of(peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>) -> Self {
        Self {
            peers: peers.into_iter().flatten().map(Peer::of).collect(),
            ports: ports.into_iter().flatten().map(PortRule::of).collect(),
        }
    }

    /// Whether it lets the peer through, whatever the port; `home` is the namespace of the policy.
    pub(crate) fn has_peer(&self, home: &str, peer: PeerFacts<'_>) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|rule| rule.is(home, peer))
    }

    /// Whether it lets the port through, whoever dials it.
    pub(crate) fn has_port(&self, port: PortFacts<'_>) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|rule| rule.is(port))
    }
}

impl Peer {
    fn of(peer: &NetworkPolicyPeer) -> Self {
        if let Some(block) = &peer.ip_block {
            let Ok(cidr) = block.cidr.parse() else {
                return Self::Nobody;
            };
            let except: Result<Vec<IpNet>, _> = block
                .except
                .iter()
                .flatten()
                .map(|text| text.parse())
                .collect();
            return match except {
                Ok(except) => Self::Block { cidr, except },
                Err(_) => Self::Nobody,
            };
        }
        if peer.namespace_selector.is_none() && peer.pod_selector.is_none() {
            return Self::Nobody;
        }
        let namespaces = peer.namespace_selector.as_ref();
        Self::Pods {
            namespaces: namespaces.map(|selector| Selects::of(Some(selector))),
            pods: Selects::of(peer.pod_selector.as_ref()),
        }
    }

    fn is(&self, home: &str, peer: PeerFacts<'_>) -> bool {
        match self {
            Self::Nobody => false,
            Self::Block { cidr, except } => {
                let address = peer.address.to_canonical();
                cidr.contains(&address) && !except.iter().any(|part| part.contains(&address))
            }
            Self::Pods { namespaces, pods } => {
                let Some((namespace, namespace_labels, labels)) = peer.pod else {
                    return false;
                };
                let is_there = match namespaces {
                    None => namespace == home,
                    Some(selector) => selector.lets(namespace_labels),
                };
                is_there && pods.lets(labels)
            }
        }
    }
}

impl PortRule {
    fn of(rule: &NetworkPolicyPort) -> Self {
        let protocol = match rule.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            // SCTP is not spoken here, so the rule lets nothing through.
            _ => None,
        };
        let number = |number: i32| u16::try_from(number).unwrap_or(0);
        let ports = match &rule.port {
            None => Ports::All,
            Some(IntOrString::Int(first)) => {
                Ports::Range(number(*first), number(rule.end_port.unwrap_or(*first)))
            }
            Some(IntOrString::String(name)) => Ports::Named(name.clone()),
        };
        Self { protocol, ports }
    }

    fn is(&self, port: PortFacts<'_>) -> bool {
        if self.protocol != Some(port.protocol) {
            return false;
        }
        match &self.ports {
            Ports::All => true,
            Ports::Range(first, last) => (*first..=*last).contains(&port.number),
            Ports::Named(name) => port.names.iter().any(|(known, protocol, number)| {
                known == name && *protocol == port.protocol && *number == port.number
            }),
        }
    }
}
