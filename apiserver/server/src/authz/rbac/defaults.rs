//! The default roles and bindings, read from `default-policy.txt`.

use coracle_api::Object;
use serde_json::{Map, Value, json};

use super::{GROUP, Part, Rule};

/// The table; its head says how it is written.
const TABLE: &str = include_str!("default-policy.txt");

/// What metrics-server brings along: who may read objects may read what they use.
const METRICS: &str = "\
role system:aggregated-metrics-reader label=rbac.authorization.k8s.io/aggregate-to-admin \
label=rbac.authorization.k8s.io/aggregate-to-edit label=rbac.authorization.k8s.io/aggregate-to-view
  read metrics.k8s.io nodes,pods
";

/// What roles and bindings of the table carry: whoever changes the value of it keeps the object from being updated.
pub(super) const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A role or binding that every cluster has.
#[derive(Clone, Debug)]
pub struct DefaultObject {
    /// What it is.
    pub part: Part,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The whole of it, as it is created.
    pub object: Object,
}

/// All default roles and bindings.
pub fn default_policy() -> Vec<DefaultObject> {
    parse(TABLE).expect("the table is part of the program, and a test reads it")
}

/// The roles of a server that measures what nodes and pods use.
pub fn metrics_policy() -> Vec<DefaultObject> {
    parse(METRICS).expect("the table is part of the program, and a test reads it")
}

/// The rules of a default ClusterRole.
pub fn default_rules(role: &str) -> Vec<Rule> {
    let roles = default_policy();
    let found = roles
        .iter()
        .find(|object| object.part == Part::ClusterRoles && object.name == role);
    let rules = found.map(|role| role.object.at("rules"));
    let rules = rules.iter().flat_map(|rules| rules.items());
    rules.map(|rule| Rule::read(&rule)).collect()
}

/// Reads a table; the error is the line that cannot be understood.
fn parse(table: &str) -> Result<Vec<DefaultObject>, String> {
    let mut objects: Vec<DefaultObject> = Vec::new();
    for line in table.lines() {
        let wrong = || line.to_owned();
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let rule = rule(line).ok_or_else(wrong)?;
            let role = objects
                .iter_mut()
                .rev()
                .find(|object| matches!(object.part, Part::ClusterRoles | Part::Roles));
            let rules = role.and_then(|role| role.object.get_mut("rules"));
            match rules.ok_or_else(wrong)? {
                Value::Array(rules) => rules.push(rule),
                rules => *rules = vec![rule].into(),
            }
            continue;
        }
        let (head, rest) = line.split_once(' ').ok_or_else(wrong)?;
        match head {
            "role" => objects.push(role(rest).ok_or_else(wrong)?),
            "controller" => {
                let name = format!("system:controller:{rest}");
                let subject = format!("account=kube-system/{rest}");
                objects.push(binding(&name, &name, &subject).ok_or_else(wrong)?);
                objects.push(role(&name).ok_or_else(wrong)?);
            }
            "binding" => {
                // Names have colons, so the list of subjects begins after one that a space or the end follows.
                let (names, subjects) = match rest.split_once(": ") {
                    Some(parts) => parts,
                    None => (rest.strip_suffix(':').ok_or_else(wrong)?, ""),
                };
                let (name, role) = names.split_once(' ').unwrap_or((names, names));
                let role = role.split_once('/').map_or(role, |(_, role)| role);
                objects.push(binding(name, role, subjects).ok_or_else(wrong)?);
            }
            _ => return Err(wrong()),
        }
    }
    Ok(objects)
}

fn role(text: &str) -> Option<DefaultObject> {
    let mut words = text.split_whitespace();
    let mut role = object(words.next()?, ["ClusterRole", "Role"])?;
    role.object.set("rules", Value::Null);
    for word in words {
        match word.split_once('=')? {
            ("label", label) => {
                let labels = role.object.map_mut("metadata.labels");
                labels.insert(label.to_owned(), "true".into());
            }
            ("aggregates", label) => {
                let selectors = json!([{"matchLabels": {label: "true"}}]);
                role.object.set(
                    "aggregationRule",
                    json!({"clusterRoleSelectors": selectors}),
                );
            }
            _ => return None,
        }
    }
    Some(role)
}

fn binding(name: &str, role: &str, subjects: &str) -> Option<DefaultObject> {
    let mut binding = object(name, ["ClusterRoleBinding", "RoleBinding"])?;
    let kind = match binding.part {
        Part::RoleBindings => "Role",
        _ => "ClusterRole",
    };
    let mut all = Vec::new();
    for subject in subjects.split_whitespace() {
        all.push(match subject.split_once('=')? {
            ("user", name) => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
            ("group", name) => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
            ("account", name) => {
                let (namespace, name) = name.split_once('/')?;
                json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
            }
            _ => return None,
        });
    }
    if !all.is_empty() {
        binding.object.set("subjects", all);
    }
    let role = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    binding.object.set("roleRef", role);
    Some(binding)
}

/// An object of the first kind, or with a namespace of the second.
fn object(name: &str, kinds: [&str; 2]) -> Option<DefaultObject> {
    let (namespace, name, kind) = match name.split_once('/') {
        Some((namespace, name)) => (namespace, name, kinds[1]),
        None => ("", name, kinds[0]),
    };
    let part = match kind {
        "ClusterRole" => Part::ClusterRoles,
        "Role" => Part::Roles,
        "ClusterRoleBinding" => Part::ClusterRoleBindings,
        _ => Part::RoleBindings,
    };
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.into());
    if !namespace.is_empty() {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    metadata.insert("labels".to_owned(), labels);
    metadata.insert("annotations".to_owned(), json!({AUTO_UPDATE: "true"}));
    let object = json!({"kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": metadata});
    Some(DefaultObject {
        part,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        object: Object::from_value(object)?,
    })
}

fn rule(line: &str) -> Option<Value> {
    let list = |word: &str| -> Vec<String> { word.split(',').map(str::to_owned).collect() };
    let mut words = line.split_whitespace();
    let verbs = match words.next()? {
        "read" => "get,list,watch",
        "write" => "create,delete,deletecollection,patch,update",
        "readwrite" => "create,delete,deletecollection,get,list,patch,update,watch",
        verbs => verbs,
    };
    let (groups, resources) = (words.next()?, words.next()?);
    let mut rule = Rule {
        verbs: list(verbs),
        ..Rule::default()
    };
    if groups == "urls" {
        rule.urls = list(resources);
    } else {
        let groups = groups.split(',');
        let groups = groups.map(|group| if group == "core" { "" } else { group });
        rule.api_groups = groups.map(str::to_owned).collect();
        rule.resources = list(resources);
        rule.resource_names = words.next().map(list).unwrap_or_default();
    }
    words.next().is_none().then(|| rule.to_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let policy = default_policy();
        let count = |part| policy.iter().filter(|object| object.part == part).count();
        assert_eq!(Part::ALL.map(count), [69, 50, 7, 7]);
        let mut keys: Vec<_> = (policy.iter())
            .map(|object| format!("{:?} {}/{}", object.part, object.namespace, object.name))
            .collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), policy.len(), "a name is there twice");
    }

    #[test]
    fn every_binding_has_its_role() {
        let policy = default_policy();
        for binding in &policy {
            let role = binding.object.at("roleRef");
            if !role.exists() {
                continue;
            }
            let (kind, name) = (role.key("kind").str(), role.key("name").str());
            let there = policy.iter().any(|object| {
                object.object.at("kind").str() == kind
                    && object.name == name
                    && object.namespace == binding.namespace
            });
            assert!(there, "{} {}", binding.namespace, binding.name);
        }
    }

    #[test]
    fn lines_that_say_nothing_are_named() {
        for table in [
            "role",
            "rule x",
            "  get core pods",
            "role x y",
            "binding x",
            "role a\n  get core",
        ] {
            assert!(parse(table).is_err(), "{table}");
        }
    }
}
