//! The question that a webhook is asked, and its answer.

use coracle_api::selector::{LabelSelector, Operator};
use serde_json::{Map, Value, json};

use super::Attributes;

/// The `spec` of a SubjectAccessReview; what is empty is left out.
pub(super) fn spec(asked: &Attributes<'_>) -> Value {
    let mut spec = Map::new();
    if asked.is_resource {
        let mut resource = texts([
            ("namespace", asked.namespace),
            ("verb", asked.verb),
            ("group", asked.group),
            ("version", asked.version),
            ("resource", asked.resource),
            ("subresource", asked.subresource),
            ("name", &asked.name),
        ]);
        let mut selector = |name: &str, requirements: Vec<Value>| {
            if !requirements.is_empty() {
                resource.insert(name.to_owned(), json!({"requirements": requirements}));
            }
        };
        selector("fieldSelector", fields(asked));
        selector("labelSelector", labels(&asked.labels));
        spec.insert("resourceAttributes".to_owned(), resource.into());
    } else {
        let other = texts([("path", asked.path), ("verb", asked.verb)]);
        spec.insert("nonResourceAttributes".to_owned(), other.into());
    }
    let identity = asked.identity;
    spec.append(&mut texts([("user", identity.user.as_str())]));
    if !identity.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(identity.groups));
    }
    if !identity.extra.is_empty() {
        let extra = identity.extra.iter();
        let extra = extra.map(|(key, values)| (key.clone(), json!(values)));
        spec.insert("extra".to_owned(), Value::Object(extra.collect()));
    }
    spec.append(&mut texts([("uid", identity.uid.as_str())]));
    Value::Object(spec)
}

fn texts<const N: usize>(fields: [(&str, &str); N]) -> Map<String, Value> {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    fields
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

fn fields(asked: &Attributes<'_>) -> Vec<Value> {
    let terms = asked.fields.requirements().iter();
    let requirement = terms.map(|term| {
        let operator = if term.equal { "In" } else { "NotIn" };
        json!({"key": term.field, "operator": operator, "values": [term.value]})
    });
    requirement.collect()
}

/// Those terms of a label selector that the question can have. One that cannot be read selects nothing in particular.
fn labels(raw: &str) -> Vec<Value> {
    if raw.is_empty() {
        return Vec::new();
    }
    let selector = raw
        .parse::<LabelSelector>()
        .unwrap_or_else(|_| LabelSelector::everything());
    let terms = selector.requirements().iter().filter_map(|term| {
        let operator = match term.operator() {
            Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
            Operator::NotEquals | Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut requirement = json!({"key": term.key(), "operator": operator});
        if !term.values().is_empty() {
            requirement["values"] = json!(term.values());
        }
        Some(requirement)
    });
    terms.collect()
}

/// The `spec` with all its texts, as conditions see it: they need not ask whether a field is there. Upstream:
/// `convertObjectToUnstructured`.
pub(super) fn whole(mut spec: Value) -> Value {
    let fill = |map: &mut Value, names: &[&str], empty: Value| {
        if let Value::Object(map) = map {
            for name in names {
                map.entry(*name).or_insert_with(|| empty.clone());
            }
        }
    };
    fill(&mut spec, &["user", "uid"], "".into());
    fill(&mut spec, &["groups"], json!([]));
    fill(&mut spec, &["extra"], json!({}));
    let names = [
        "namespace",
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "name",
    ];
    if let Some(resource) = spec.get_mut("resourceAttributes") {
        fill(resource, &names, "".into());
    }
    if let Some(other) = spec.get_mut("nonResourceAttributes") {
        fill(other, &["verb", "path"], "".into());
    }
    spec
}

/// The question as it is sent.
pub(super) fn review(mut spec: Value, version: &str) -> Value {
    if version == "v1beta1"
        && let Some(groups) = spec.as_object_mut().and_then(|spec| spec.remove("groups"))
    {
        spec["group"] = groups;
    }
    json!({
        "kind": "SubjectAccessReview",
        "apiVersion": format!("authorization.k8s.io/{version}"),
        "metadata": {"creationTimestamp": null},
        "spec": spec,
        "status": {"allowed": false},
    })
}

/// The answer, if it is one.
pub(super) fn answer(body: &[u8], version: &str) -> Result<Value, String> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let api = format!("authorization.k8s.io/{version}");
    if answer["kind"] == "SubjectAccessReview" && answer["apiVersion"] == api.as_str() {
        return Ok(answer);
    }
    Err(format!(
        "the webhook's answer is no SubjectAccessReview of {api}"
    ))
}

/// How many bytes of the question whoever asks has chosen freely.
pub(super) fn written_by_asker(asked: &Attributes<'_>) -> usize {
    let texts = [
        asked.namespace,
        asked.verb,
        asked.group,
        asked.version,
        asked.resource,
        asked.subresource,
        &asked.name,
        asked.path,
        &asked.labels,
    ];
    let fields = asked.fields.requirements().iter();
    let fields: usize = fields.map(|term| term.field.len() + term.value.len()).sum();
    texts.iter().map(|text| text.len()).sum::<usize>() + fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::Identity;
    use crate::request_info::RequestInfo;

    #[test]
    fn questions_are_upstreams() {
        let jane = Identity {
            uid: "7".to_owned(),
            extra: vec![("k".to_owned(), vec!["v".to_owned()])],
            ..Identity::new("jane", ["devs"])
        };
        let uri = "/apis/apps/v1/namespaces/a/deployments?fieldSelector=spec.x%21%3Dy&labelSelector=app+in+(b,a),!c,d";
        let info = RequestInfo::parse(&http::Method::GET, &uri.parse().expect("a uri"));
        let asked = Attributes::of(&jane, &info);
        let resource = json!({
            "namespace": "a", "verb": "list", "group": "apps", "version": "v1", "resource": "deployments",
            "fieldSelector": {"requirements": [{"key": "spec.x", "operator": "NotIn", "values": ["y"]}]},
            "labelSelector": {"requirements": [
                {"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "c", "operator": "DoesNotExist"},
                {"key": "d", "operator": "Exists"},
            ]},
        });
        let user = json!({"user": "jane", "groups": ["devs", "system:authenticated"], "extra": {"k": ["v"]}, "uid": "7"});
        let mut expected = user.clone();
        expected["resourceAttributes"] = resource;
        assert_eq!(spec(&asked), expected);
        let old = review(spec(&asked), "v1beta1");
        assert_eq!(old["spec"]["group"], user["groups"]);
        assert_eq!(old["apiVersion"], "authorization.k8s.io/v1beta1");
        let path = Attributes::path(&jane, "get", "/healthz");
        assert_eq!(
            spec(&path)["nonResourceAttributes"],
            json!({"path": "/healthz", "verb": "get"})
        );
        let nobody = Identity::default();
        let whole = whole(spec(&Attributes::resource(&nobody, "get", "", "pods")));
        assert_eq!(whole["resourceAttributes"]["namespace"], "");
        assert_eq!(
            (&whole["user"], &whole["groups"], &whole["extra"]),
            (&json!(""), &json!([]), &json!({}))
        );
    }

    #[test]
    fn only_answers_are_answers() {
        let good = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"})
            .to_string();
        assert!(answer(good.as_bytes(), "v1").is_ok());
        assert!(answer(good.as_bytes(), "v1beta1").is_err());
        assert!(answer(b"<html>", "v1").is_err());
    }
}
