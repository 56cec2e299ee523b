//! Fields of features that are off upstream unless somebody turns them on: what is written there is forgotten.

use serde_json::{Map, Value};

use crate::{Object, Resource};

/// Where a kind has such fields: the path of what they are in (`*` is every element), and their names.
struct Off {
    place: &'static [&'static str],
    fields: &'static [&'static str],
}

/// The fields that all specs of pods have.
const OF_PODS: &[Off] = &[
    Off {
        place: &[],
        fields: &["schedulingGroup"],
    },
    Off {
        place: &["volumes", "*", "projected", "sources", "*"],
        fields: &["clusterTrustBundle", "podCertificate"],
    },
];

/// Forgets the fields of features that are off. Those that the object already had stay.
pub fn forget(resource: &Resource, new: &mut Object, old: Option<&Object>) {
    let (place, off) = fields_of(resource);
    for Off {
        place: below,
        fields,
    } in off
    {
        let segments = [place, *below].concat();
        for field in *fields {
            let mut kept = false;
            if let Some(old) = old {
                each(old.root(), &segments, &mut |map| {
                    kept |= map.contains_key(*field);
                });
            }
            if !kept {
                each_mut(new.root_mut(), &segments, &mut |map| {
                    map.shift_remove(*field);
                });
            }
        }
    }
}

/// The place below which a kind has such fields, and which.
fn fields_of(resource: &Resource) -> (&'static [&'static str], &'static [Off]) {
    match (resource.group, resource.plural) {
        ("", "pods") => (&["spec"], OF_PODS),
        ("", "podtemplates") => (&["template", "spec"], OF_PODS),
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => (&["spec", "template", "spec"], OF_PODS),
        ("batch", "cronjobs") => (
            &["spec", "jobTemplate", "spec", "template", "spec"],
            OF_PODS,
        ),
        ("coordination.k8s.io", "leases") => (
            &["spec"],
            &[Off {
                place: &[],
                fields: &["strategy", "preferredHolder"],
            }],
        ),
        ("storage.k8s.io", "csidrivers") => (
            &["spec"],
            &[Off {
                place: &[],
                fields: &["preventPodSchedulingIfMissing"],
            }],
        ),
        ("resource.k8s.io", "resourceslices") => (
            &["spec", "devices", "*"],
            &[Off {
                place: &[],
                fields: &["nodeAllocatableResourceMappings"],
            }],
        ),
        _ => (&[], &[]),
    }
}

fn each(map: &Map<String, Value>, place: &[&str], visit: &mut impl FnMut(&Map<String, Value>)) {
    let Some((first, rest)) = place.split_first() else {
        visit(map);
        return;
    };
    match (map.get(*first), rest) {
        (Some(Value::Object(map)), _) => each(map, rest, visit),
        (Some(Value::Array(items)), ["*", rest @ ..]) => {
            for map in items.iter().filter_map(Value::as_object) {
                each(map, rest, visit);
            }
        }
        _ => {}
    }
}

fn each_mut(
    map: &mut Map<String, Value>,
    place: &[&str],
    visit: &mut impl FnMut(&mut Map<String, Value>),
) {
    let Some((first, rest)) = place.split_first() else {
        visit(map);
        return;
    };
    match (map.get_mut(*first), rest) {
        (Some(Value::Object(map)), _) => each_mut(map, rest, visit),
        (Some(Value::Array(items)), ["*", rest @ ..]) => {
            for map in items.iter_mut().filter_map(Value::as_object_mut) {
                each_mut(map, rest, visit);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn fields_of_features_that_are_off_are_forgotten_unless_they_were_there() {
        let lease = &crate::coordination::v1::lease::RESOURCE;
        let written =
            json!({"spec": {"holderIdentity": "a", "strategy": "Oldest", "preferredHolder": "b"}});
        let mut new = object(written.clone());
        forget(lease, &mut new, None);
        assert_eq!(
            new.into_value(),
            json!({"spec": {"holderIdentity": "a"}}),
            "a new lease"
        );
        let mut new = object(written);
        let old = object(json!({"spec": {"preferredHolder": "a"}}));
        forget(lease, &mut new, Some(&old));
        assert_eq!(
            new.into_value(),
            json!({"spec": {"holderIdentity": "a", "preferredHolder": "b"}}),
            "a lease that had one of them"
        );
    }

    #[test]
    fn pods_and_their_templates_forget_the_same() {
        let spec = json!({
            "schedulingGroup": {"podGroupName": "a"},
            "volumes": [{"name": "a"}, {"name": "b", "projected": {"sources": [
                {"clusterTrustBundle": {"path": "a"}}, {"secret": {"name": "a"}},
            ]}}],
        });
        let left = json!({
            "volumes": [{"name": "a"}, {"name": "b", "projected": {"sources": [{}, {"secret": {"name": "a"}}]}}],
        });
        let mut pod = object(json!({"spec": spec}));
        forget(&crate::core::v1::pod::RESOURCE, &mut pod, None);
        assert_eq!(pod.into_value(), json!({"spec": left}));
        let template = |spec| json!({"spec": {"template": {"spec": spec}}});
        let mut set = object(template(spec));
        forget(&crate::apps::v1::daemon_set::RESOURCE, &mut set, None);
        assert_eq!(set.into_value(), template(left));
    }
}
