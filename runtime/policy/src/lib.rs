//! Network policies: which connections of pods may be, and which rule is missing for the others.
//!
//! Sits between the cluster's objects and the [`Fabric`](coracle_network::Fabric), which asks it at every connect and
//! accept, on the address that is dialled, after names and Services were resolved.
//!
//! ```text
//!   Pods, Namespaces, NetworkPolicies ──informers──▶ Facts ◀── decide ◀── Guard ◀── Fabric (connect, accept)
//!                                                                           │   ◀── Fabric (lookup)
//!                                           Events on pods, counters ◀──────┘ denials
//! ```
//!
//! What is decided is pure: [`decide`] says what the API's policies do, [`AllowedHosts`] what the annotation
//! `coracle.dev/allowed-hosts` lets a pod reach outside. The [`Guard`] knows who is who, remembers the addresses that names
//! stood for, and tells of denials.
//!
//! Deliberately absent: a data path. A connection that was let through is not looked at again, as with connection tracking
//! upstream; one that exists when a policy comes goes on.

mod decide;
mod facts;
mod guard;
mod hosts;
mod rules;
mod told;

pub use decide::{Denied, End, Question, decide};
pub use facts::{Facts, NamespaceFacts, PodFacts};
pub use guard::{Denials, Guard, GuardConfig, NotKnown};
pub use hosts::{ANNOTATION, AllowedHosts, AllowedPorts};
pub use rules::{Direction, Policy};
