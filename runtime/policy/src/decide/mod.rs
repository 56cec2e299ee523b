//! Whether a connection may be: a pure function.
//!
//! As the API has it (<https://kubernetes.io/docs/concepts/services-networking/network-policies/>): a pod that no policy of a
//! direction is about may do everything in that direction; one that some are about may do what any of them lets through.
//! A connection has to be let through at both ends. Whoever is not known yet, in a namespace with policies, is taken for
//! somebody whom they are all about.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use coracle_client::ObjectKey;
use coracle_network::Protocol;

use crate::facts::{Facts, Labels};
use crate::rules::{Direction, PeerFacts, Policy, PortFacts};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// The pod that has it, if one does.
    pub pod: Option<ObjectKey>,
}

/// A connection that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who dials.
    pub from: End,
    /// Who is dialled: an endpoint, never a Service.
    pub to: End,
    /// The port that is dialled.
    pub port: u16,
    /// Streams or datagrams.
    pub protocol: Protocol,
}

/// Why a connection may not be: which rule is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The way, as `pod` sees it.
    pub direction: Direction,
    /// The pod whose policies do not let it through.
    pub pod: ObjectKey,
    /// The policies that are about it.
    pub policies: Vec<ObjectKey>,
    /// The other end.
    pub peer: End,
    /// The labels of the other end, if it is a pod that is known.
    labels: Option<Labels>,
    /// The port that is dialled.
    pub port: u16,
    protocol: Protocol,
    /// A policy has a rule with the peer, and not with the port.
    only_port: Option<ObjectKey>,
}

/// Decides one direction of a connection; the pod that it is about is one of the ends.
pub fn decide(facts: &Facts, direction: Direction, question: &Question) -> Result<(), Box<Denied>> {
    let (subject, peer) = match direction {
        Direction::Ingress => (&question.to, &question.from),
        Direction::Egress => (&question.from, &question.to),
    };
    let Some(pod) = &subject.pod else {
        return Ok(()); // policies are about pods alone
    };
    let Some(policies) = facts.policies.get(&pod.namespace) else {
        return Ok(());
    };
    let labels = facts.pods.get(pod).map(|pod| &pod.labels);
    let none = Labels::new();
    let peer_pod = peer
        .pod
        .as_ref()
        .and_then(|key| Some((key, facts.pods.get(key)?)));
    let peer_facts = PeerFacts {
        address: peer.address,
        pod: peer_pod.map(|(key, pod)| {
            let namespace = facts.namespaces.get(&key.namespace);
            let of_namespace = namespace.map_or(&none, |namespace| &namespace.labels);
            (key.namespace.as_str(), of_namespace, &pod.labels)
        }),
    };
    let dialled = question.to.pod.as_ref().and_then(|key| facts.pods.get(key));
    let port = PortFacts {
        number: question.port,
        protocol: question.protocol,
        names: dialled.map_or(&[], |pod| &pod.ports),
    };
    let mut about: Vec<&Policy> = Vec::new();
    let mut only_port = None;
    for policy in policies.values() {
        let Some(rules) = policy.rules(direction, labels) else {
            continue;
        };
        for rule in rules {
            let has_peer = rule.has_peer(&pod.namespace, peer_facts);
            if has_peer && rule.has_port(port) {
                return Ok(());
            }
            if has_peer {
                only_port.get_or_insert_with(|| policy.key.clone());
            }
        }
        about.push(policy);
    }
    if about.is_empty() {
        return Ok(());
    }
    Err(Box::new(Denied {
        direction,
        pod: pod.clone(),
        policies: about.iter().map(|policy| policy.key.clone()).collect(),
        peer: peer.clone(),
        labels: peer_pod.map(|(_, pod)| pod.labels.clone()),
        port: question.port,
        protocol: question.protocol,
        only_port,
    }))
}

/// Policies that a message names at most.
const NAMED: usize = 3;

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let (port, address) = (self.port, self.peer.address);
        let (of, list) = match self.direction {
            Direction::Ingress => ("from", "from"),
            Direction::Egress => ("of", "to"),
        };
        let peer = match &self.peer.pod {
            Some(pod) => format!("pod {pod} ({address})"),
            None => address.to_string(),
        };
        let names = self.policies.iter().take(NAMED);
        let names = names
            .map(|key| key.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let more = match self.policies.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let word = self.direction.word();
        write!(
            f,
            "{word}: {protocol} port {port} {of} {peer} is not let through by the network policies of this pod: \
             {names}{more}. "
        )?;
        if let Some(policy) = &self.only_port {
            return write!(
                f,
                "Missing: the port in the {word} rule of {} that has the peer",
                policy.name
            );
        }
        let labels = self
            .labels
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"));
        let labels = labels.collect::<Vec<_>>().join(",");
        let named = match (&self.peer.pod, labels.is_empty()) {
            (Some(pod), false) => format!(
                "a pod with the labels {labels} in namespace {}",
                pod.namespace
            ),
            (Some(pod), true) => format!("pods of namespace {}", pod.namespace),
            (None, _) => format!("an ipBlock with {address}"),
        };
        write!(f, "Missing: an {word} rule with {named} in its `{list}`")
    }
}

impl Question {
    /// Where it leads.
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(self.to.address, self.port)
    }
}
