//! Pod: containers that run together on one node.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::pod_spec::{
    annotations, defaults, qos, resize, subresources, update, validation, warnings,
};
use crate::kinds::{
    AGE, ALL_VERBS, ATTACH, BINDING, Column, EPHEMERAL_CONTAINERS, EVICTION, EXEC, LOG, NAME,
    NameRule, PORT_FORWARD, RESIZE, STATUS, Storage, proxy,
};
use crate::{FieldErrors, Object, Resource, Strategy};

mod label_keys;
mod status;
mod table;

/// What the pipeline knows of pods.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[
        ATTACH,
        BINDING,
        EPHEMERAL_CONTAINERS,
        EVICTION,
        EXEC,
        LOG,
        PORT_FORWARD,
        proxy("PodProxyOptions"),
        RESIZE,
        STATUS,
    ],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Pod,
};

/// Pod: containers that run together on one node.
pub struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        defaults::pod_spec(spec);
        defaults::pod(spec);
        status::agree_on_addresses(object);
    }

    fn early_warnings(&self, new: &Object) -> Vec<String> {
        annotations::warnings(new)
    }

    fn prepare_for_create(&self, new: &mut Object) {
        annotations::make_fields(new);
        let qos = qos::class(&new.at("spec"));
        let gated = !new.at("spec.schedulingGates").is_empty();
        new.set("status", json!({"phase": "Pending", "qosClass": qos}));
        label_keys::merge(new);
        if gated {
            // The pipeline has stamped the object before.
            let now = new.metadata("creationTimestamp");
            let now = if now.is_empty() {
                Value::Null
            } else {
                now.into()
            };
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "lastProbeTime": null, "lastTransitionTime": now,
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            });
            new.set("status.conditions", json!([condition]));
        }
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        // A deletion's deadline is not the status writer's to change.
        &[
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "ownerReferences",
        ]
    }

    fn prepare_for_status_update(&self, new: &mut Object, old: &Object) {
        status::keep_observed_generations(new, old);
        if let Some(qos) = old.at("status.qosClass").as_str() {
            new.set_default("status.qosClass", qos);
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        annotations::annotations(&new.at("metadata.annotations"), &spec, errors);
        validation::pod_spec(&new.at("spec"), true, errors);
        let ephemeral = new.at("spec.ephemeralContainers");
        if !ephemeral.is_empty() && new.resource_version().is_empty() {
            errors.forbidden(&ephemeral, "cannot be set on create");
        }
        let name = new.at("spec.nodeName");
        if !name.str().is_empty()
            && !new.at("spec.schedulingGates").is_empty()
            && new.resource_version().is_empty()
        {
            errors.forbidden(
                &name,
                "cannot be set until all schedulingGates have been cleared",
            );
        }
        if new.resource_version().is_empty() {
            annotations::agreement(new, errors);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let annotations = "metadata.annotations";
        annotations::changes(&new.at(annotations), &old.at(annotations), errors);
        update::pod(new, old, errors);
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.immutable(&new.at("status.qosClass"), &old.at("status.qosClass"));
        let annotations = "metadata.annotations";
        annotations::changes(&new.at(annotations), &old.at(annotations), errors);
        status::validate(new, old, errors);
    }

    fn prepare_for_subresource_update(&self, name: &str, new: &mut Object, old: &Object) {
        match name {
            "ephemeralcontainers" => subresources::keep_ephemeral(new, old),
            "resize" => resize::keep(new, old),
            _ => {}
        }
    }

    fn validate_subresource_update(
        &self,
        name: &str,
        new: &Object,
        old: &Object,
        errors: &mut FieldErrors,
    ) {
        self.validate(new, errors);
        match name {
            "ephemeralcontainers" => subresources::ephemeral(new, old, errors),
            "resize" => resize::validate(new, old, errors),
            _ => {}
        }
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        // Upstream warns of a Pod once, when it is made: machines update it, not people.
        if old.is_some() {
            return Vec::new();
        }
        let mut found: Vec<String> = warnings::name(new, "the Pod's hostname")
            .into_iter()
            .collect();
        let annotations = new.at("metadata.annotations");
        found.extend(warnings::pod(&new.at("spec"), &annotations, false));
        found
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let text = |path: &str| object.at(path).str().to_owned();
        let address = object
            .at("status.podIPs")
            .index(0)
            .key("ip")
            .str()
            .to_owned();
        let host_network = object.at("spec.hostNetwork").is_true();
        vec![
            ("spec.nodeName", text("spec.nodeName")),
            ("spec.restartPolicy", text("spec.restartPolicy")),
            ("spec.schedulerName", text("spec.schedulerName")),
            ("spec.serviceAccountName", text("spec.serviceAccountName")),
            ("spec.hostNetwork", host_network.to_string()),
            ("status.phase", text("status.phase")),
            ("status.podIP", address),
            ("status.nominatedNodeName", text("status.nominatedNodeName")),
        ]
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        table::cells(object, now)
    }

    fn row_conditions(&self, object: &Object) -> Vec<Value> {
        let (reason, message) = match object.at("status.phase").str() {
            "Succeeded" => ("Succeeded", "The pod has completed successfully."),
            "Failed" => ("Failed", "The pod failed."),
            _ => return Vec::new(),
        };
        vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
    }

    fn grace_period_seconds(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        let own = object.at("spec.terminationGracePeriodSeconds").as_i64();
        let ended = ["Succeeded", "Failed"].contains(&object.at("status.phase").str());
        if ended || object.at("spec.nodeName").str().is_empty() {
            return Some(0);
        }
        match requested.or(own).unwrap_or(0) {
            // Negative periods were once accepted; they mean the shortest one.
            ..0 => Some(1),
            seconds => Some(seconds),
        }
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    Column::string(
        "Status",
        "The aggregate status of the containers in this pod.",
    ),
    Column::string(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in \
         this pod has restarted.",
    ),
    AGE,
    Column::wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet \
         allocated.",
    ),
    Column::wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for \
         scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this \
         node becomes responsible for the lifecycle of this pod. This field should not be used to express a \
         desire for the pod to be scheduled on a specific node. \
         https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    Column::wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be \
         scheduled right away as preemption victims receive their graceful termination periods. This field \
         does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the \
         pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the \
         resources on this node to a higher priority pod that is created after preemption. As a result, this \
         field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    Column::wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its \
         containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" \
         More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];
