//! Which Secrets a pod may name: those of its account, if the account says so, and none for mirror pods.
//!
//! The rules and words are those of upstream's plugin/pkg/admission/serviceaccount.

use coracle_api::{At, Object};

use crate::authz::node::named_by;

/// An account with this annotation lets its pods name only the Secrets that it lists.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Why the new `pod` of `account` is refused, if it is.
pub(super) fn refuse(account: &Object, pod: &Object) -> Option<String> {
    if !is_enforced(account) {
        return None;
    }
    let (spec, name) = (pod.at("spec"), account.name());
    let listed = names(account, "secrets");
    for volume in spec.key("volumes").items() {
        let secret = volume.at("secret");
        let secret_name = secret.key("secretName").str();
        if secret.exists() && !listed.contains(&secret_name) {
            return Some(format!(
                "volume with secret.secretName=\"{secret_name}\" is not allowed because service account {name} does \
                 not reference that secret"
            ));
        }
    }
    for (list, what) in [
        ("initContainers", "init container"),
        ("containers", "container"),
    ] {
        let refused = refuse_variables(spec.key(list), what, &listed, name);
        if refused.is_some() {
            return refused;
        }
    }
    let pulls = names(account, "imagePullSecrets");
    let wanted = spec.key("imagePullSecrets");
    let mut wanted = wanted.items().enumerate();
    let (index, secret) = wanted.find(|(_, secret)| !pulls.contains(&secret.key("name").str()))?;
    let secret = secret.key("name").str();
    Some(format!(
        "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {name} does not reference \
         that imagePullSecret"
    ))
}

/// Why `pod` of `account` may not get the ephemeral containers that it has, if it may not.
pub(super) fn refuse_ephemeral(account: &Object, pod: &Object) -> Option<String> {
    if !is_enforced(account) {
        return None;
    }
    let containers = pod.at("spec.ephemeralContainers");
    let listed = names(account, "secrets");
    refuse_variables(containers, "ephemeral container", &listed, account.name())
}

/// Why a mirror pod, which a node made of a file, is refused, if it is.
pub(super) fn refuse_mirror(pod: &Object) -> Option<&'static str> {
    let spec = pod.at("spec");
    if !spec.key("serviceAccountName").is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    if named_by(pod).secrets {
        return Some("a mirror pod may not reference secrets");
    }
    let volumes = spec.key("volumes");
    let has_token = volumes.items().any(|volume| {
        let sources = volume.at("projected.sources");
        let mut sources = sources.items();
        sources.any(|source| source.key("serviceAccountToken").exists())
    });
    has_token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

/// As Go's `strconv.ParseBool` reads it; what it cannot read is false.
fn is_enforced(account: &Object) -> bool {
    let said = account.at("metadata.annotations").entry(ENFORCE).str();
    matches!(said, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The names in a list of references.
fn names<'a>(account: &'a Object, list: &str) -> Vec<&'a str> {
    let references = account.at(list);
    let references = references.items();
    references.map(|secret| secret.key("name").str()).collect()
}

fn refuse_variables(
    containers: At<'_>,
    what: &str,
    listed: &[&str],
    account: &str,
) -> Option<String> {
    let because =
        format!("is not allowed because service account {account} does not reference that secret");
    for container in containers.items() {
        let name = container.key("name").str();
        for variable in container.key("env").items() {
            let reference = variable.at("valueFrom.secretKeyRef");
            let secret = reference.key("name").str();
            if reference.exists() && !listed.contains(&secret) {
                let variable = variable.key("name").str();
                return Some(format!(
                    "{what} {name} with envVar {variable} referencing secret.secretName=\"{secret}\" {because}"
                ));
            }
        }
        for source in container.key("envFrom").items() {
            let reference = source.key("secretRef");
            let secret = reference.key("name").str();
            if reference.exists() && !listed.contains(&secret) {
                return Some(format!(
                    "{what} {name} with envFrom referencing secret.secretName=\"{secret}\" {because}"
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn account(enforce: &str) -> Object {
        object(json!({
            "metadata": {"name": "sa", "annotations": {ENFORCE: enforce}},
            "secrets": [{"name": "good"}],
            "imagePullSecrets": [{"name": "pull"}],
        }))
    }

    fn pod(spec: Value) -> Object {
        object(json!({"metadata": {"name": "p"}, "spec": spec}))
    }

    #[test]
    fn pods_name_what_their_account_lists() {
        let variable = |secret: &str| json!([{"name": "V", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]);
        let source = |secret: &str| json!([{"secretRef": {"name": secret}}]);
        let container = |field: &str, value: Value| json!([{"name": "c", field: value}]);
        let because = "is not allowed because service account sa does not reference that";
        for (spec, expected) in [
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "bad"}}]}),
                "volume with secret.secretName=\"bad\"",
            ),
            (
                json!({"initContainers": container("env", variable("bad"))}),
                "init container c with envVar V referencing secret.secretName=\"bad\"",
            ),
            (
                json!({"initContainers": container("envFrom", source("bad"))}),
                "init container c with envFrom referencing secret.secretName=\"bad\"",
            ),
            (
                json!({"containers": container("env", variable("bad"))}),
                "container c with envVar V referencing secret.secretName=\"bad\"",
            ),
            (
                json!({"containers": container("envFrom", source("bad"))}),
                "container c with envFrom referencing secret.secretName=\"bad\"",
            ),
            (
                json!({"imagePullSecrets": [{"name": "pull"}, {"name": "other"}]}),
                "imagePullSecrets[1].name=\"other\"",
            ),
        ] {
            let pod = pod(spec);
            let said = refuse(&account("true"), &pod).expect("refused");
            assert!(said.starts_with(&format!("{expected} {because}")), "{said}");
            // Only the account that asks for it is looked at.
            for lax in ["false", "yes", ""] {
                assert_eq!(refuse(&account(lax), &pod), None, "{lax:?}");
            }
        }
        let good = pod(json!({
            "volumes": [{"name": "v", "secret": {"secretName": "good"}}, {"name": "e", "emptyDir": {}}],
            "containers": [{"name": "c", "env": variable("good"), "envFrom": source("good")}],
            "imagePullSecrets": [{"name": "pull"}],
        }));
        assert_eq!(refuse(&account("1"), &good), None);
    }

    #[test]
    fn ephemeral_containers_do_so_too() {
        let source = |secret: &str| {
            pod(
                json!({"ephemeralContainers": [{"name": "d", "envFrom": [{"secretRef": {"name": secret}}]}]}),
            )
        };
        assert_eq!(
            refuse_ephemeral(&account("t"), &source("bad")).as_deref(),
            Some(
                "ephemeral container d with envFrom referencing secret.secretName=\"bad\" is not allowed because \
                 service account sa does not reference that secret"
            )
        );
        assert_eq!(refuse_ephemeral(&account("t"), &source("good")), None);
        assert_eq!(refuse_ephemeral(&account("f"), &source("bad")), None);
    }

    #[test]
    fn mirror_pods_name_nothing_secret() {
        for (spec, expected) in [
            (json!({}), None),
            (
                json!({"serviceAccountName": "sa"}),
                Some("service accounts"),
            ),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
                Some("secrets"),
            ),
            (
                json!({"containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}),
                Some("secrets"),
            ),
            (
                json!({"imagePullSecrets": [{"name": "s"}]}),
                Some("secrets"),
            ),
            (
                json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}),
                Some("ServiceAccountToken volume projections"),
            ),
            (json!({"volumes": [{"configMap": {"name": "c"}}]}), None),
        ] {
            let said = refuse_mirror(&pod(spec.clone()));
            let matches = match expected {
                Some(end) => said.is_some_and(|said| said.ends_with(end)),
                None => said.is_none(),
            };
            assert!(matches, "{spec}: {said:?}");
        }
    }
}
