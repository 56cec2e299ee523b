//! What the default roles allow, by a table of users, verbs and resources that is made of the roles themselves.

use coracle_api::Registry;

use super::*;

/// The default policy, and nothing else.
fn rbac() -> Rbac {
    let rbac = Rbac::default();
    for DefaultObject {
        part,
        namespace,
        name,
        object,
    } in default_policy()
    {
        let key = match namespace.is_empty() {
            true => name,
            false => format!("{namespace}/{name}"),
        };
        rbac.policy.write().set(part, &key, Some(&object));
    }
    rbac
}

#[test]
fn who_views_objects_may_view_what_they_use() {
    let policy = metrics_policy();
    let [role] = policy.as_slice() else {
        panic!("{policy:?}");
    };
    assert_eq!(role.name, "system:aggregated-metrics-reader");
    let labels = role.object.at("metadata.labels");
    for role in ["admin", "edit", "view"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        assert_eq!(labels.key(&label).str(), "true", "{role}");
    }
}

fn cluster_bindings() -> Vec<DefaultObject> {
    let policy = default_policy().into_iter();
    policy
        .filter(|object| object.part == Part::ClusterRoleBindings)
        .collect()
}

/// Somebody for every subject of the default cluster-wide bindings, with the rules that they have by the table.
fn everybody() -> Vec<(Identity, Vec<Rule>)> {
    let account = |namespace: &str, name: &str| format!("system:serviceaccount:{namespace}:{name}");
    let bindings = cluster_bindings();
    let mut people: Vec<Identity> = Vec::new();
    for subject in bindings
        .iter()
        .flat_map(|binding| binding.object.at("subjects").items().collect::<Vec<_>>())
    {
        let name = subject.key("name").str();
        let identity = match subject.key("kind").str() {
            "User" => Identity::component(name),
            "Group" if name == "system:unauthenticated" => Identity::anonymous(),
            "Group" => Identity::new("somebody", [name]),
            _ => Identity::component(account(subject.key("namespace").str(), name)),
        };
        if !people.contains(&identity) {
            people.push(identity);
        }
    }
    let is = |identity: &Identity, subject: &coracle_api::At<'_>| {
        let name = subject.key("name").str();
        match subject.key("kind").str() {
            "Group" => identity.is_in(name),
            "User" => identity.user == name,
            _ => identity.user == account(subject.key("namespace").str(), name),
        }
    };
    let with_rules = people.into_iter().map(|identity| {
        let theirs = bindings.iter().filter(|binding| {
            let subjects = binding.object.at("subjects");
            subjects.items().any(|subject| is(&identity, &subject))
        });
        let rules =
            theirs.flat_map(|binding| default_rules(binding.object.at("roleRef.name").str()));
        let rules = rules.collect();
        (identity, rules)
    });
    with_rules.collect()
}

#[test]
fn everybody_may_do_what_their_default_rules_say_and_nothing_else() {
    let rbac = rbac();
    let verbs = [
        "get", "list", "watch", "create", "update", "patch", "delete", "escalate",
    ];
    let names =
        |list: &[String], word: &str| list.iter().any(|entry| entry == "*" || entry == word);
    let (mut yes, mut no) = (0, 0);
    for (identity, rules) in everybody() {
        for resource in Registry::builtin().iter() {
            let subresources = resource.subresources.iter().map(|sub| sub.name);
            for subresource in [""].into_iter().chain(subresources) {
                let path = match subresource {
                    "" => resource.plural.to_owned(),
                    _ => format!("{}/{subresource}", resource.plural),
                };
                let any = format!("*/{subresource}");
                for verb in verbs {
                    let expected = rules.iter().any(|rule| {
                        names(&rule.verbs, verb)
                            && names(&rule.api_groups, resource.group)
                            && (names(&rule.resources, &path) || rule.resources.contains(&any))
                            && rule.resource_names.is_empty()
                    });
                    let asked = Attributes {
                        subresource,
                        namespace: "default",
                        ..Attributes::resource(&identity, verb, resource.group, resource.plural)
                    };
                    let found = matches!(rbac.decide(&asked), Decision::Allow(_));
                    assert_eq!(
                        found, expected,
                        "{} {verb} {path} {}",
                        identity.user, resource.group
                    );
                    *(if found { &mut yes } else { &mut no }) += 1;
                }
            }
        }
    }
    assert!(
        yes > 1_000 && no > 10_000,
        "the table was not read: {yes}, {no}"
    );
}

#[test]
fn well_known_rights_are_there_and_well_known_limits_too() {
    let rbac = rbac();
    let controller =
        |name: &str| Identity::component(format!("system:serviceaccount:kube-system:{name}"));
    let scheduler = || Identity::component("system:kube-scheduler");
    let proxy = || Identity::component("system:kube-proxy");
    let node = || Identity::new("system:node:a", ["system:nodes"]);
    let jane = || Identity::new("jane", ["devs"]);
    for (identity, asked, expected) in [
        (
            Identity::new("root", ["system:masters"]),
            "delete  nodes",
            true,
        ),
        (scheduler(), "create  pods/binding", true),
        (scheduler(), "create  pods", false),
        (scheduler(), "get  secrets", false),
        (proxy(), "watch discovery.k8s.io endpointslices", true),
        (proxy(), "get  secrets", false),
        // Nodes have their rights by another authorizer.
        (node(), "get  pods", false),
        (controller("replicaset-controller"), "create  pods", true),
        (controller("replicaset-controller"), "get  secrets", false),
        (
            controller("deployment-controller"),
            "create apps replicasets",
            true,
        ),
        (controller("deployment-controller"), "create  pods", false),
        (
            controller("generic-garbage-collector"),
            "delete apps deployments",
            true,
        ),
        (
            controller("generic-garbage-collector"),
            "create apps deployments",
            false,
        ),
        (
            controller("namespace-controller"),
            "deletecollection  secrets",
            true,
        ),
        (
            controller("clusterrole-aggregation-controller"),
            "escalate rbac.authorization.k8s.io clusterroles",
            true,
        ),
        (controller("nobody"), "list  pods", false),
        (
            jane(),
            "create authorization.k8s.io selfsubjectaccessreviews",
            true,
        ),
        (
            jane(),
            "create authorization.k8s.io subjectaccessreviews",
            false,
        ),
        (
            jane(),
            "create authentication.k8s.io selfsubjectreviews",
            true,
        ),
        (jane(), "list  namespaces", false),
        (
            Identity::anonymous(),
            "create authorization.k8s.io selfsubjectaccessreviews",
            false,
        ),
    ] {
        let words: Vec<&str> = asked.split(' ').collect();
        let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
        let attributes = Attributes {
            subresource,
            namespace: "default",
            ..Attributes::resource(&identity, words[0], words[1], resource)
        };
        let found = matches!(rbac.decide(&attributes), Decision::Allow(_));
        assert_eq!(found, expected, "{} {asked}", identity.user);
    }
}
