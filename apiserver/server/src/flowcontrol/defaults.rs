//! The FlowSchemas and PriorityLevelConfigurations that every cluster has, and how they are kept.
//!
//! Upstream: `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go` for the objects,
//! `k8s.io/apiserver/pkg/util/flowcontrol` and `pkg/registry/flowcontrol/ensurer` for how they are kept.

use coracle_api::Object;
use serde_json::{Value, json};

use super::Part;
use crate::authn::{AUTHENTICATED, MASTERS, UNAUTHENTICATED};

/// The annotation that says whether the spec follows the defaults.
pub(super) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// An object that every cluster has.
pub(super) struct DefaultObject {
    pub(super) part: Part,
    pub(super) name: &'static str,
    /// Nobody may change or remove it for long.
    pub(super) mandatory: bool,
    pub(super) spec: Value,
}

impl DefaultObject {
    /// The whole object, as it is created.
    pub(super) fn object(&self) -> Value {
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": self.part.kind(),
            "metadata": {"name": self.name, "annotations": {AUTO_UPDATE: "true"}},
            "spec": self.spec,
        })
    }
}

/// All of them: levels before the schemas that name them.
pub(super) fn all() -> Vec<DefaultObject> {
    let mut all = levels();
    all.extend(schemas());
    all
}

fn levels() -> Vec<DefaultObject> {
    let make = |name: &'static str, mandatory: bool, spec: Value| DefaultObject {
        part: Part::Levels,
        name,
        mandatory,
        spec,
    };
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    let catch_all = json!({
        "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0,
    });
    let mut levels = vec![
        make("exempt", true, json!({"type": "Exempt", "exempt": exempt})),
        make(
            "catch-all",
            true,
            json!({"type": "Limited", "limited": catch_all}),
        ),
    ];
    for (name, shares, lendable, queues, hand) in [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ] {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let limited = json!({
            "nominalConcurrencyShares": shares,
            "limitResponse": {"type": "Queue", "queuing": queuing},
            "lendablePercent": lendable,
        });
        let spec = json!({"type": "Limited", "limited": limited});
        levels.push(make(name, false, spec));
    }
    levels
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// A service account of `kube-system`; `*` is each.
fn account(name: &str) -> Value {
    let account = json!({"namespace": "kube-system", "name": name});
    json!({"kind": "ServiceAccount", "serviceAccount": account})
}

/// Rules about everything.
fn everything(subjects: &[Value]) -> Value {
    let all = json!(["*"]);
    json!({
        "subjects": subjects,
        "resourceRules": [
            {"verbs": all, "apiGroups": all, "resources": all, "clusterScope": true, "namespaces": all},
        ],
        "nonResourceRules": [{"verbs": all, "nonResourceURLs": all}],
    })
}

/// Rules about some resources in all namespaces.
fn resources(subjects: &[Value], rules: &[(&[&str], &str, &[&str])]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(verbs, group, resources)| {
            let (groups, namespaces) = ([group], ["*"]);
            json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": namespaces})
        })
        .collect();
    json!({"subjects": subjects, "resourceRules": rules})
}

fn schemas() -> Vec<DefaultObject> {
    const ELECT: &[&str] = &["get", "create", "update"];
    const LEASES: (&[&str], &str, &[&str]) = (ELECT, "coordination.k8s.io", &["leases"]);
    let everybody = [group(UNAUTHENTICATED), group(AUTHENTICATED)];
    let (manager, scheduler) = (
        user("system:kube-controller-manager"),
        user("system:kube-scheduler"),
    );
    let nodes = [group("system:nodes")];
    let mut health = resources(
        &nodes,
        &[
            (&["*"], "", &["nodes", "nodes/status"]),
            (&["*"], "coordination.k8s.io", &["leases"]),
        ],
    );
    health["resourceRules"][0]["clusterScope"] = true.into();
    let probes = json!({
        "subjects": everybody,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let electing = [manager.clone(), scheduler.clone(), account("*")];
    let endpoints = [
        manager.clone(),
        account("endpoint-controller"),
        account("endpointslicemirroring-controller"),
    ];
    let by_objects: (&[&str], &str, &[&str]) = (ELECT, "", &["endpoints", "configmaps"]);
    [
        ("exempt", "exempt", 1, "", everything(&[group(MASTERS)])),
        ("probes", "exempt", 2, "", probes),
        (
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            resources(&electing, &[LEASES]),
        ),
        (
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            resources(&endpoints, &[(ELECT, "", &["endpoints"])]),
        ),
        (
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            resources(&[account("*")], &[by_objects, LEASES]),
        ),
        ("system-node-high", "node-high", 400, "ByUser", health),
        ("system-nodes", "system", 500, "ByUser", everything(&nodes)),
        (
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            everything(&[manager]),
        ),
        (
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            everything(&[scheduler]),
        ),
        (
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            everything(&[account("*")]),
        ),
        (
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            everything(&[group("system:serviceaccounts")]),
        ),
        (
            "global-default",
            "global-default",
            9900,
            "ByUser",
            everything(&everybody),
        ),
        (
            "catch-all",
            "catch-all",
            10000,
            "ByUser",
            everything(&everybody),
        ),
    ]
    .into_iter()
    .map(|(name, level, precedence, method, rules)| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        });
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        spec["rules"] = json!([rules]);
        DefaultObject {
            part: Part::Schemas,
            name,
            mandatory: matches!(name, "exempt" | "catch-all"),
            spec,
        }
    })
    .collect()
}

/// What is to be done about a default object.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Keep,
    Create,
    Update(Object),
}

/// Compares what is there with what should be.
///
/// A suggested object whose annotation says nothing follows the defaults as long as nobody changed its spec.
pub(super) fn reconcile(default: &DefaultObject, existing: Option<&Object>) -> Step {
    let Some(existing) = existing else {
        return Step::Create;
    };
    let annotation = existing
        .at("metadata.annotations")
        .entry(AUTO_UPDATE)
        .str()
        .to_owned();
    let follows = default.mandatory
        || match annotation.as_str() {
            "true" => true,
            "false" => false,
            _ => existing.at("metadata.generation").as_i64() == Some(1),
        };
    let mut new = existing.clone();
    let wanted = follows.to_string();
    if annotation != wanted {
        new.map_mut("metadata.annotations")
            .insert(AUTO_UPDATE.to_owned(), wanted.into());
    }
    if follows && existing.at("spec").value() != Some(&default.spec) {
        new.set("spec", default.spec.clone());
    }
    match new == *existing {
        true => Step::Keep,
        false => Step::Update(new),
    }
}

/// Whether an object once was a default, and is none any more.
pub(super) fn is_outdated(object: &Object, names: &[&str]) -> bool {
    let annotations = object.at("metadata.annotations");
    annotations.entry(AUTO_UPDATE).str() == "true" && !names.contains(&object.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(part: Part, name: &str) -> DefaultObject {
        let mut all = all().into_iter();
        all.find(|d| d.part == part && d.name == name)
            .expect("a default")
    }

    fn changed(default: &DefaultObject, annotations: Value, generation: i64) -> Object {
        let mut value = default.object();
        value["metadata"]["annotations"] = annotations;
        value["metadata"]["generation"] = generation.into();
        value["spec"]["x"] = 1.into();
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn every_schema_names_a_level_and_the_kinds_agree() {
        let all = all();
        let levels: Vec<_> = all.iter().filter(|d| d.part == Part::Levels).collect();
        let schemas: Vec<_> = all.iter().filter(|d| d.part == Part::Schemas).collect();
        assert_eq!((levels.len(), schemas.len()), (8, 13));
        let registry = coracle_api::Registry::builtin();
        for default in &all {
            let resource = registry.by_plural(super::super::GROUP, "v1", default.part.plural());
            let strategy = resource.expect("served").strategy;
            let made = Object::from_value(default.object()).expect("an object");
            let mut object = made.clone();
            strategy.default(&mut object);
            assert_eq!(
                object.at("spec").value(),
                Some(&default.spec),
                "{}",
                default.name
            );
            let mut errors = coracle_api::FieldErrors::default();
            strategy.validate(&object, &mut errors);
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", default.name);
        }
        for schema in schemas {
            let level = &schema.spec["priorityLevelConfiguration"]["name"];
            assert!(levels.iter().any(|l| l.name == level), "{level}");
        }
    }

    #[test]
    fn suggested_objects_follow_the_defaults_unless_somebody_took_them_over() {
        let system = default(Part::Levels, "system");
        assert_eq!(reconcile(&system, None), Step::Create);
        for (annotations, generation, follows) in [
            (json!({AUTO_UPDATE: "true"}), 2, true),
            (json!({AUTO_UPDATE: "false"}), 2, false),
            (json!({AUTO_UPDATE: "false"}), 1, false),
            (json!({}), 1, true),
            (json!({}), 2, false),
            (json!({AUTO_UPDATE: "maybe"}), 2, false),
        ] {
            let existing = changed(&system, annotations.clone(), generation);
            let after = match reconcile(&system, Some(&existing)) {
                Step::Update(after) => after,
                Step::Keep => existing,
                Step::Create => panic!("it is there"),
            };
            let case = format!("{annotations} {generation}");
            let says = after.at("metadata.annotations").entry(AUTO_UPDATE).str() == "true";
            assert_eq!(says, follows, "{case}");
            let is_default = after.at("spec").value() == Some(&system.spec);
            assert_eq!(is_default, follows, "{case}");
            assert_eq!(reconcile(&system, Some(&after)), Step::Keep, "{case}");
        }
    }

    #[test]
    fn mandatory_objects_are_nobodys_to_change() {
        let exempt = default(Part::Schemas, "exempt");
        let existing = changed(&exempt, json!({AUTO_UPDATE: "false"}), 2);
        let Step::Update(after) = reconcile(&exempt, Some(&existing)) else {
            panic!("it was changed");
        };
        assert_eq!(after.at("spec").value(), Some(&exempt.spec));
    }

    #[test]
    fn what_was_a_default_once_is_outdated() {
        let system = default(Part::Levels, "system");
        let object = changed(&system, json!({AUTO_UPDATE: "true"}), 1);
        assert!(!is_outdated(&object, &["system"]));
        assert!(is_outdated(&object, &["other"]));
        let mine = changed(&system, json!({}), 1);
        assert!(!is_outdated(&mine, &["other"]));
    }
}
