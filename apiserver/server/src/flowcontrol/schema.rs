//! Which FlowSchema a request belongs to, and which flow of it.
//!
//! Rules: `k8s.io/apiserver/pkg/util/flowcontrol/rule.go`.

use std::hash::{DefaultHasher, Hash, Hasher};

use coracle_api::{At, Object};

use crate::authn::Identity;
use crate::request_info::RequestInfo;

/// A FlowSchema, decoded.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, Debug)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// Every account of the namespace whose users begin like this.
    Accounts(String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

impl Schema {
    pub(super) fn read(object: &Object) -> Self {
        let spec = object.at("spec");
        let distinguisher = match spec.at("distinguisherMethod.type").str() {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::Nothing,
        };
        Self {
            name: object.name().to_owned(),
            uid: object.at("metadata.uid").str().to_owned(),
            level: spec.at("priorityLevelConfiguration.name").str().to_owned(),
            precedence: spec.key("matchingPrecedence").as_i64().unwrap_or(1000),
            distinguisher,
            rules: spec.key("rules").items().map(|r| Rule::read(&r)).collect(),
        }
    }

    /// Schemas are asked in this order.
    pub(super) fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    /// Whether the request belongs here, if no earlier schema has it.
    pub(super) fn matches(&self, identity: &Identity, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(identity, info))
    }

    /// Which flow the request is of: the same number for the same schema and user, or namespace.
    pub(super) fn flow(&self, identity: &Identity, info: &RequestInfo) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        self.distinguished(identity, info).hash(&mut hasher);
        hasher.finish()
    }

    /// What tells the request's flow from others of this schema.
    pub(super) fn distinguished<'a>(
        &self,
        identity: &'a Identity,
        info: &'a RequestInfo,
    ) -> &'a str {
        match self.distinguisher {
            Distinguisher::Nothing => "",
            Distinguisher::User => &identity.user,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

impl Rule {
    fn read(rule: &At<'_>) -> Self {
        let texts =
            |at: At<'_>| -> Vec<String> { at.items().map(|i| i.str().to_owned()).collect() };
        let resources = rule.key("resourceRules");
        let resources = resources.items().map(|rule| ResourceRule {
            verbs: texts(rule.key("verbs")),
            groups: texts(rule.key("apiGroups")),
            resources: texts(rule.key("resources")),
            namespaces: texts(rule.key("namespaces")),
            cluster_scope: rule.key("clusterScope").is_true(),
        });
        let paths = rule.key("nonResourceRules");
        let paths = paths.items().map(|rule| PathRule {
            verbs: texts(rule.key("verbs")),
            paths: texts(rule.key("nonResourceURLs")),
        });
        let (resources, paths) = (resources.collect(), paths.collect());
        let subjects = rule.key("subjects");
        Self {
            subjects: subjects.items().filter_map(|s| Subject::read(&s)).collect(),
            resources,
            paths,
        }
    }

    fn matches(&self, identity: &Identity, info: &RequestInfo) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(identity)) {
            return false;
        }
        match info.is_resource {
            true => self.resources.iter().any(|rule| rule.matches(info)),
            false => self.paths.iter().any(|rule| rule.matches(info)),
        }
    }
}

impl Subject {
    fn read(subject: &At<'_>) -> Option<Self> {
        Some(match subject.key("kind").str() {
            "User" => Self::User(subject.at("user.name").str().to_owned()),
            "Group" => Self::Group(subject.at("group.name").str().to_owned()),
            "ServiceAccount" => {
                let account = subject.key("serviceAccount");
                let begin = format!("system:serviceaccount:{}:", account.key("namespace").str());
                match account.key("name").str() {
                    "*" => Self::Accounts(begin),
                    name => Self::User(begin + name),
                }
            }
            _ => return None,
        })
    }

    fn is(&self, identity: &Identity) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == identity.user,
            Self::Group(name) => name == "*" || identity.is_in(name),
            Self::Accounts(begin) => identity.user.starts_with(begin),
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let placed = match info.namespace.as_str() {
            "" => self.cluster_scope,
            namespace => has(&self.namespaces, namespace),
        };
        placed
            && has(&self.verbs, info.verb)
            && has(&self.groups, &info.group)
            && self.resources.iter().any(|rule| {
                rule == "*"
                    || match rule.strip_prefix(info.resource.as_str()) {
                        Some("") => info.subresource.is_empty(),
                        Some(rest) => rest.strip_prefix('/') == Some(&info.subresource),
                        None => false,
                    }
            })
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let covers = |rule: &String| match rule.strip_suffix('*') {
            Some(begin) => info.path.starts_with(begin),
            None => *rule == info.path,
        };
        has(&self.verbs, info.verb) && self.paths.iter().any(covers)
    }
}

fn has(texts: &[String], text: &str) -> bool {
    texts.iter().any(|t| t == text || t == "*")
}

#[cfg(test)]
mod tests {
    use super::super::{Part, defaults};
    use super::*;
    use crate::authn::MASTERS;

    fn schemas() -> Vec<Schema> {
        let schemas = defaults::all()
            .into_iter()
            .filter(|d| d.part == Part::Schemas);
        let objects = schemas.map(|d| Object::from_value(d.object()).expect("an object"));
        let mut schemas: Vec<_> = objects.map(|object| Schema::read(&object)).collect();
        schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        schemas
    }

    fn info(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::parse(
            &method.parse().expect("a method"),
            &uri.parse().expect("a uri"),
        )
    }

    #[test]
    fn the_default_schemas_share_out_requests_as_upstream_does() {
        let pods = "/api/v1/namespaces/a/pods";
        let leases = "/apis/coordination.k8s.io/v1/namespaces/a/leases/x";
        let account = |namespace: &str, name: &str| {
            let groups = [
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ];
            Identity::new(format!("system:serviceaccount:{namespace}:{name}"), groups)
        };
        let user = |name: &str| Identity::component(name);
        let node = || Identity::new("system:node:a", ["system:nodes"]);
        let schemas = schemas();
        for (identity, method, uri, schema) in [
            (Identity::new("root", [MASTERS]), "GET", pods, "exempt"),
            (Identity::anonymous(), "GET", "/readyz", "probes"),
            (Identity::anonymous(), "GET", "/readyz/x", "global-default"),
            (user("jane"), "GET", pods, "global-default"),
            (user("system:kube-scheduler"), "GET", pods, "kube-scheduler"),
            (
                user("system:kube-scheduler"),
                "PUT",
                leases,
                "system-leader-election",
            ),
            (
                user("system:kube-controller-manager"),
                "DELETE",
                leases,
                "kube-controller-manager",
            ),
            (
                account("kube-system", "x"),
                "PUT",
                leases,
                "system-leader-election",
            ),
            (
                account("kube-system", "x"),
                "GET",
                "/api/v1/namespaces/a/configmaps/x",
                "workload-leader-election",
            ),
            (
                account("kube-system", "endpoint-controller"),
                "PUT",
                "/api/v1/namespaces/a/endpoints/x",
                "endpoint-controller",
            ),
            (
                account("kube-system", "x"),
                "GET",
                pods,
                "kube-system-service-accounts",
            ),
            (account("a", "x"), "GET", pods, "service-accounts"),
            (node(), "PUT", "/api/v1/nodes/a/status", "system-node-high"),
            (node(), "PUT", leases, "system-node-high"),
            (node(), "GET", "/api/v1/nodes/a/proxy", "system-nodes"),
            (node(), "GET", "/version", "system-nodes"),
        ] {
            let info = info(method, uri);
            let found = schemas.iter().find(|s| s.matches(&identity, &info));
            let found = found.map(|schema| schema.name.as_str());
            assert_eq!(found, Some(schema), "{} {method} {uri}", identity.user);
        }
    }

    #[test]
    fn flows_are_told_apart_by_user_or_namespace() {
        let schemas = schemas();
        let of = |name: &str| schemas.iter().find(|s| s.name == name).expect("a default");
        let (a, b) = (
            info("GET", "/api/v1/namespaces/a/pods"),
            info("GET", "/api/v1/namespaces/b/pods"),
        );
        let (jane, john) = (Identity::component("jane"), Identity::component("john"));
        let by_user = of("global-default");
        assert_eq!(by_user.flow(&jane, &a), by_user.flow(&jane, &b));
        assert_ne!(by_user.flow(&jane, &a), by_user.flow(&john, &a));
        let by_namespace = of("kube-scheduler");
        assert_eq!(by_namespace.flow(&jane, &a), by_namespace.flow(&john, &a));
        assert_ne!(by_namespace.flow(&jane, &a), by_namespace.flow(&jane, &b));
        let not = of("exempt");
        assert_eq!(not.flow(&jane, &a), not.flow(&john, &b));
    }
}
