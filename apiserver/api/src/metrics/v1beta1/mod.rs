//! Version v1beta1 of the group.

pub mod node_metrics;
pub mod pod_metrics;

use crate::kinds::{Column, NameRule, Storage};
use crate::{At, Object, Resource, Strategy, duration};

/// The descriptor of a kind of figures; there is nothing to write.
const fn figures(
    kind: &'static str,
    names: [&'static str; 2],
    namespaced: bool,
    strategy: &'static dyn Strategy,
) -> Resource {
    Resource {
        group: "metrics.k8s.io",
        version: "v1beta1",
        kind,
        plural: names[0],
        singular: names[1],
        short_names: &[],
        categories: &[],
        namespaced,
        verbs: &["get", "list"],
        subresources: &[],
        columns: COLUMNS,
        name_rule: NameRule::Subdomain,
        generation: false,
        create_on_update: false,
        unconditional_update: false,
        storage: Storage::None,
        deprecation: None,
        strategy,
    }
}

/// As metrics-server shows what has been measured: resources in the order of their names.
static COLUMNS: &[Column] = &[
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the resource",
        priority: 0,
    },
    figure("cpu", "quantity"),
    figure("memory", "quantity"),
    figure("Window", "duration"),
];

const fn figure(name: &'static str, format: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format,
        description: "",
        priority: 0,
    }
}

/// The window, as Go writes durations.
fn window(object: &Object) -> String {
    let window: At<'_> = object.at("window");
    duration::parse(window.str()).map_or_else(|_| window.str().to_owned(), duration::shown)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Registry;
    use crate::schema::SchemaRef;

    #[test]
    fn what_is_measured_is_shown_in_columns() {
        let registry = Registry::builtin().with_metrics();
        let now = "2030-01-01T00:00:00Z".parse().expect("a time");
        let cells = |plural: &str, object: serde_json::Value| {
            let resource = registry.by_plural("metrics.k8s.io", "v1beta1", plural);
            let object = crate::Object::from_value(object).expect("an object");
            resource.expect("served").strategy.cells(&object, now)
        };
        let usage = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let node =
            json!({"metadata": {"name": "a"}, "window": "15s", "usage": usage("250m", "1Gi")});
        assert_eq!(cells("nodes", node), ["a", "250m", "1Gi", "15s"]);
        let containers = json!([
            {"name": "one", "usage": usage("100m", "1Mi")}, {"name": "two", "usage": usage("150m", "2Mi")},
        ]);
        let pod = json!({"metadata": {"name": "b"}, "window": "1m0.5s", "containers": containers});
        assert_eq!(cells("pods", pod), ["b", "250m", "3Mi", "1m0.5s"]);
    }

    #[test]
    fn the_kinds_have_a_schema_and_are_not_built_in() {
        for kind in [
            "NodeMetrics",
            "NodeMetricsList",
            "PodMetrics",
            "PodMetricsList",
        ] {
            assert!(
                SchemaRef::for_kind("metrics.k8s.io", "v1beta1", kind).is_some(),
                "{kind}"
            );
        }
        assert!(
            Registry::builtin()
                .iter()
                .all(|kind| kind.group != "metrics.k8s.io")
        );
    }
}
