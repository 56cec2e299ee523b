//! All roles and bindings, decoded, and indexed by whom the bindings are for.
//!
//! It is changed when an object is, and read at every request: what a request costs depends on the bindings of its user
//! and groups, not on how many there are.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use coracle_api::{At, Object};

use super::Rule;
use crate::authn::Identity;

/// What kind of object is part of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// ClusterRoles.
    ClusterRoles,
    /// ClusterRoleBindings.
    ClusterRoleBindings,
    /// Roles.
    Roles,
    /// RoleBindings.
    RoleBindings,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 4] = [
        Self::ClusterRoles,
        Self::ClusterRoleBindings,
        Self::Roles,
        Self::RoleBindings,
    ];

    /// The resource of the part's objects.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ClusterRoles => "clusterroles",
            Self::ClusterRoleBindings => "clusterrolebindings",
            Self::Roles => "roles",
            Self::RoleBindings => "rolebindings",
        }
    }
}

/// Who may do what.
#[derive(Default)]
pub struct Policy {
    cluster_roles: HashMap<Box<str>, Arc<[Rule]>>,
    /// By `namespace/name`.
    roles: HashMap<Box<str>, Arc<[Rule]>>,
    cluster: Bindings,
    namespaces: HashMap<Box<str>, Bindings>,
}

/// A rule that is somebody's, and by what.
pub struct Grant<'a> {
    /// The binding.
    pub binding: &'a Binding,
    /// The binding's first subject that the user is, or is in.
    pub subject: &'a Subject,
    /// The rule.
    pub rule: &'a Rule,
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding {
            name,
            namespace,
            role,
            ..
        } = self.binding;
        match namespace.is_empty() {
            true => write!(f, "ClusterRoleBinding {name:?}")?,
            false => write!(f, "RoleBinding {:?}", format!("{name}/{namespace}"))?,
        }
        write!(f, " of {} {:?} to {}", role.kind, role.name, self.subject)
    }
}

impl Policy {
    /// Takes over how an object is from now on; `None`: it is gone.
    pub fn set(&mut self, part: Part, key: &str, object: Option<&Object>) {
        let rules = || {
            let rules = object?.at("rules");
            Some(rules.items().map(|rule| Rule::read(&rule)).collect())
        };
        match part {
            Part::ClusterRoles => put(&mut self.cluster_roles, key, rules()),
            Part::Roles => put(&mut self.roles, key, rules()),
            Part::ClusterRoleBindings => self.cluster.set(key, object.map(Binding::read)),
            Part::RoleBindings => {
                let (namespace, name) = key.split_once('/').unwrap_or(("", key));
                let bindings = self.namespaces.entry(namespace.into()).or_default();
                bindings.set(name, object.map(Binding::read));
                if bindings.by_name.is_empty() {
                    self.namespaces.remove(namespace);
                }
            }
        }
    }

    /// Whether no binding and nothing of one is left.
    #[cfg(test)]
    pub(super) fn is_empty_but_for_roles(&self) -> bool {
        let Bindings {
            by_name,
            users,
            groups,
        } = &self.cluster;
        self.namespaces.is_empty() && by_name.is_empty() && users.is_empty() && groups.is_empty()
    }

    /// The rules of the role that a binding in `namespace` names.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&Arc<[Rule]>, RoleError> {
        let found = match role.kind.as_str() {
            "Role" => self
                .roles
                .get(format!("{namespace}/{}", role.name).as_str()),
            "ClusterRole" => self.cluster_roles.get(role.name.as_str()),
            kind => return Err(RoleError::Kind(kind.to_owned())),
        };
        found.ok_or_else(|| RoleError::Missing(role.clone()))
    }

    /// Shows every rule that is `identity`'s in `namespace` (empty: at the cluster scope), until `visit` has enough.
    /// Bindings come in the order of their names; one without its role is an error beside the others' rules.
    pub fn visit(
        &self,
        identity: &Identity,
        namespace: &str,
        visit: &mut dyn FnMut(Result<Grant<'_>, RoleError>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let local = (!namespace.is_empty())
            .then(|| self.namespaces.get(namespace))
            .flatten();
        for bindings in [Some(&self.cluster), local].into_iter().flatten() {
            for binding in bindings.of(identity) {
                let Some(subject) = binding.applies_to(identity) else {
                    continue;
                };
                match self.rules_of(&binding.role, &binding.namespace) {
                    Err(error) => visit(Err(error))?,
                    Ok(rules) => {
                        for rule in rules.iter() {
                            visit(Ok(Grant {
                                binding,
                                subject,
                                rule,
                            }))?;
                        }
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn put(roles: &mut HashMap<Box<str>, Arc<[Rule]>>, key: &str, rules: Option<Arc<[Rule]>>) {
    match rules {
        Some(rules) => drop(roles.insert(key.into(), rules)),
        None => drop(roles.remove(key)),
    }
}

/// The role that a binding names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleRef {
    /// API group of the role.
    pub group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The role's name.
    pub name: String,
}

impl RoleRef {
    /// Reads a binding's `roleRef`.
    pub fn read(role: &At<'_>) -> Self {
        let text = |field: &str| role.key(field).str().to_owned();
        Self {
            group: text("apiGroup"),
            kind: text("kind"),
            name: text("name"),
        }
    }
}

/// Why a binding has no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// There is no such role.
    #[error("{}.rbac.authorization.k8s.io {:?} not found", .0.kind.to_lowercase(), .0.name)]
    Missing(RoleRef),
    /// The kind is none of a role.
    #[error("unsupported role reference kind: {0:?}")]
    Kind(String),
}

/// A binding: some rules for some people.
pub struct Binding {
    name: String,
    namespace: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

impl Binding {
    fn read(object: &Object) -> Self {
        let namespace = object.namespace();
        let subjects = object.at("subjects");
        Self {
            name: object.name().to_owned(),
            namespace: namespace.to_owned(),
            role: RoleRef::read(&object.at("roleRef")),
            subjects: subjects
                .items()
                .filter_map(|subject| Subject::read(&subject, namespace))
                .collect(),
        }
    }

    fn applies_to(&self, identity: &Identity) -> Option<&Subject> {
        self.subjects.iter().find(|subject| match subject {
            Subject::Group(group) => identity.is_in(group),
            Subject::User(user) | Subject::Account { user, .. } => *user == identity.user,
        })
    }
}

/// Whom a binding is for.
pub enum Subject {
    /// A user.
    User(String),
    /// Everybody in a group.
    Group(String),
    /// A service account.
    Account {
        /// The account's user name.
        user: String,
        /// `name/namespace`, as reasons show it.
        shown: String,
    },
}

impl Subject {
    fn read(subject: &At<'_>, binding_namespace: &str) -> Option<Self> {
        let name = subject.key("name").str();
        match subject.key("kind").str() {
            "User" => Some(Self::User(name.to_owned())),
            "Group" => Some(Self::Group(name.to_owned())),
            "ServiceAccount" => {
                let namespace = match subject.key("namespace").str() {
                    "" => binding_namespace,
                    namespace => namespace,
                };
                // An account of no namespace is nobody.
                (!namespace.is_empty()).then(|| Self::Account {
                    user: format!("system:serviceaccount:{namespace}:{name}"),
                    shown: format!("{name}/{namespace}"),
                })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "User {name:?}"),
            Self::Group(name) => write!(f, "Group {name:?}"),
            Self::Account { shown, .. } => write!(f, "ServiceAccount {shown:?}"),
        }
    }
}

/// The bindings of one scope.
#[derive(Default)]
struct Bindings {
    by_name: HashMap<Box<str>, Arc<Binding>>,
    users: HashMap<Box<str>, Vec<Arc<Binding>>>,
    groups: HashMap<Box<str>, Vec<Arc<Binding>>>,
}

impl Bindings {
    fn set(&mut self, name: &str, binding: Option<Binding>) {
        if let Some(old) = self.by_name.remove(name) {
            for subject in &old.subjects {
                let (index, key) = self.index(subject);
                if let Some(bindings) = index.get_mut(key) {
                    bindings.retain(|binding| !Arc::ptr_eq(binding, &old));
                    if bindings.is_empty() {
                        index.remove(key);
                    }
                }
            }
        }
        let Some(binding) = binding.map(Arc::new) else {
            return;
        };
        for subject in &binding.subjects {
            let (index, key) = self.index(subject);
            let bindings = index.entry(key.into()).or_default();
            if !bindings.iter().any(|other| Arc::ptr_eq(other, &binding)) {
                bindings.push(Arc::clone(&binding));
            }
        }
        self.by_name.insert(name.into(), binding);
    }

    fn index<'s>(
        &mut self,
        subject: &'s Subject,
    ) -> (&mut HashMap<Box<str>, Vec<Arc<Binding>>>, &'s str) {
        match subject {
            Subject::Group(group) => (&mut self.groups, group),
            Subject::User(user) | Subject::Account { user, .. } => (&mut self.users, user),
        }
    }

    /// The bindings that may be for `identity`, each once, by name.
    fn of(&self, identity: &Identity) -> Vec<&Binding> {
        let users = self.users.get(identity.user.as_str());
        let groups = identity
            .groups
            .iter()
            .map(|group| self.groups.get(group.as_str()));
        let found = [users].into_iter().chain(groups).flatten().flatten();
        let mut found: Vec<&Binding> = found.map(|binding| &**binding).collect();
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| std::ptr::eq(*a, *b));
        found
    }
}
