//! What kinds and fields mean, in upstream's words.
//!
//! The texts are several megabytes; they come with `k8s-openapi`, are read when a document is made, and not kept.

use std::collections::HashMap;

use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, certificates,
    coordination, core, discovery, events, flowcontrol, networking, node, policy, rbac, resource,
    scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use schemars::SchemaGenerator;
use serde_json::Value;

use super::paths::Kind;

/// The texts of definitions and of their fields.
pub(super) struct Descriptions {
    definitions: HashMap<String, Texts>,
}

#[derive(Default)]
struct Texts {
    own: Option<String>,
    fields: HashMap<String, String>,
}

impl Descriptions {
    /// The texts of these kinds and of all that they contain. Kinds without texts are simply not described.
    pub(super) fn of(kinds: &[Kind]) -> Self {
        let mut generator = SchemaGenerator::default();
        for kind in kinds {
            describe(*kind, &mut generator);
        }
        let mut definitions = HashMap::new();
        for (name, schema) in generator.take_definitions(true) {
            definitions.insert(name, texts(&schema));
        }
        Self { definitions }
    }

    /// What a definition is.
    pub(super) fn definition(&self, name: &str) -> Option<&str> {
        let published = self.definitions.get(name);
        published.map_or_else(|| metrics(name, ""), |texts| texts.own.as_deref())
    }

    /// What a field of a definition is.
    pub(super) fn field(&self, definition: &str, field: &str) -> Option<&str> {
        match self.definitions.get(definition) {
            Some(texts) => texts.fields.get(field).map(String::as_str),
            None => metrics(definition, field),
        }
    }
}

/// What the figures of nodes and pods are, which `k8s-openapi` does not have; with an empty field, the kind itself.
fn metrics(definition: &str, field: &str) -> Option<&'static str> {
    let kind = definition.strip_prefix("io.k8s.metrics.pkg.apis.metrics.v1beta1.")?;
    Some(match (kind, field) {
        ("NodeMetrics", "") => "NodeMetrics is what a node uses.",
        ("PodMetrics", "") => "PodMetrics is what the containers of a pod use.",
        ("ContainerMetrics", "") => "ContainerMetrics is what a container uses.",
        ("NodeMetricsList", "") => "NodeMetricsList is a list of NodeMetrics.",
        ("PodMetricsList", "") => "PodMetricsList is a list of PodMetrics.",
        (_, "kind") => "Kind is the REST resource that this object represents.",
        (_, "apiVersion") => "APIVersion is the versioned schema of this object.",
        (_, "metadata") => "Standard metadata; labels are those of the object that was measured.",
        (_, "timestamp") => "The end of the interval over which the use was measured.",
        (_, "window") => "The length of that interval.",
        (_, "usage") => "Use of cpu, as an average over the interval, and of memory, at its end.",
        (_, "containers") => "What each container uses.",
        (_, "name") => "The name of the container.",
        (_, "items") => "What was measured.",
        _ => return None,
    })
}

fn texts(schema: &Value) -> Texts {
    let text = |value: &Value| {
        value
            .get("description")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    let fields = properties
        .into_iter()
        .flatten()
        .filter_map(|(name, field)| Some((name.clone(), text(field)?)))
        .collect();
    Texts {
        own: text(schema),
        fields,
    }
}

/// Adds a kind to the generator's definitions.
fn describe((group, version, kind): Kind, generator: &mut SchemaGenerator) {
    macro_rules! add {
        ($type:ty) => {
            drop(generator.subschema_for::<$type>())
        };
    }
    match (group, version, kind) {
        ("", "v1", "Binding") => add!(core::v1::Binding),
        ("", "v1", "ConfigMap") => add!(core::v1::ConfigMap),
        ("", "v1", "DeleteOptions") => add!(meta::DeleteOptions),
        ("", "v1", "Endpoints") => add!(core::v1::Endpoints),
        ("", "v1", "Event") => add!(core::v1::Event),
        ("", "v1", "Namespace") => add!(core::v1::Namespace),
        ("", "v1", "Node") => add!(core::v1::Node),
        ("", "v1", "Pod") => add!(core::v1::Pod),
        ("", "v1", "Secret") => add!(core::v1::Secret),
        ("", "v1", "Service") => add!(core::v1::Service),
        ("", "v1", "ServiceAccount") => add!(core::v1::ServiceAccount),
        ("", "v1", "Status") => add!(meta::Status),
        ("apps", "v1", "Deployment") => add!(apps::v1::Deployment),
        ("apps", "v1", "ReplicaSet") => add!(apps::v1::ReplicaSet),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => {
            add!(autoscaling::v1::HorizontalPodAutoscaler)
        }
        ("autoscaling", "v1", "Scale") => add!(autoscaling::v1::Scale),
        ("autoscaling", "v2", "HorizontalPodAutoscaler") => {
            add!(autoscaling::v2::HorizontalPodAutoscaler)
        }
        ("coordination.k8s.io", "v1", "Lease") => add!(coordination::v1::Lease),
        ("discovery.k8s.io", "v1", "EndpointSlice") => add!(discovery::v1::EndpointSlice),
        ("events.k8s.io", "v1", "Event") => add!(events::v1::Event),
        ("networking.k8s.io", "v1", "IPAddress") => add!(networking::v1::IPAddress),
        ("networking.k8s.io", "v1", "Ingress") => add!(networking::v1::Ingress),
        ("networking.k8s.io", "v1", "IngressClass") => add!(networking::v1::IngressClass),
        ("networking.k8s.io", "v1", "NetworkPolicy") => add!(networking::v1::NetworkPolicy),
        ("networking.k8s.io", "v1", "ServiceCIDR") => add!(networking::v1::ServiceCIDR),
        ("node.k8s.io", "v1", "RuntimeClass") => add!(node::v1::RuntimeClass),
        ("policy", "v1", "Eviction") => add!(policy::v1::Eviction),
        ("", "v1", "ComponentStatus") => add!(core::v1::ComponentStatus),
        ("", "v1", "LimitRange") => add!(core::v1::LimitRange),
        ("", "v1", "PersistentVolume") => add!(core::v1::PersistentVolume),
        ("", "v1", "PersistentVolumeClaim") => add!(core::v1::PersistentVolumeClaim),
        ("", "v1", "PodTemplate") => add!(core::v1::PodTemplate),
        ("", "v1", "ReplicationController") => add!(core::v1::ReplicationController),
        ("", "v1", "ResourceQuota") => add!(core::v1::ResourceQuota),
        ("apps", "v1", "ControllerRevision") => add!(apps::v1::ControllerRevision),
        ("apps", "v1", "DaemonSet") => add!(apps::v1::DaemonSet),
        ("apps", "v1", "StatefulSet") => add!(apps::v1::StatefulSet),
        ("batch", "v1", "CronJob") => add!(batch::v1::CronJob),
        ("batch", "v1", "Job") => add!(batch::v1::Job),
        ("policy", "v1", "PodDisruptionBudget") => add!(policy::v1::PodDisruptionBudget),
        ("scheduling.k8s.io", "v1", "PriorityClass") => add!(scheduling::v1::PriorityClass),
        ("storage.k8s.io", "v1", "CSIDriver") => add!(storage::v1::CSIDriver),
        ("storage.k8s.io", "v1", "CSINode") => add!(storage::v1::CSINode),
        ("storage.k8s.io", "v1", "CSIStorageCapacity") => add!(storage::v1::CSIStorageCapacity),
        ("storage.k8s.io", "v1", "StorageClass") => add!(storage::v1::StorageClass),
        ("storage.k8s.io", "v1", "VolumeAttachment") => add!(storage::v1::VolumeAttachment),
        ("storage.k8s.io", "v1", "VolumeAttributesClass") => {
            add!(storage::v1::VolumeAttributesClass)
        }
        ("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy") => {
            add!(admissionregistration::v1::MutatingAdmissionPolicy)
        }
        ("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding") => {
            add!(admissionregistration::v1::MutatingAdmissionPolicyBinding)
        }
        ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration") => {
            add!(admissionregistration::v1::MutatingWebhookConfiguration)
        }
        ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy") => {
            add!(admissionregistration::v1::ValidatingAdmissionPolicy)
        }
        ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding") => {
            add!(admissionregistration::v1::ValidatingAdmissionPolicyBinding)
        }
        ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration") => {
            add!(admissionregistration::v1::ValidatingWebhookConfiguration)
        }
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition") => {
            add!(apiextensions::v1::CustomResourceDefinition)
        }
        ("apiregistration.k8s.io", "v1", "APIService") => add!(apiregistration::v1::APIService),
        ("authentication.k8s.io", "v1", "SelfSubjectReview") => {
            add!(authentication::v1::SelfSubjectReview)
        }
        ("authentication.k8s.io", "v1", "TokenRequest") => add!(authentication::v1::TokenRequest),
        ("authentication.k8s.io", "v1", "TokenReview") => add!(authentication::v1::TokenReview),
        ("authorization.k8s.io", "v1", "LocalSubjectAccessReview") => {
            add!(authorization::v1::LocalSubjectAccessReview)
        }
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview") => {
            add!(authorization::v1::SelfSubjectAccessReview)
        }
        ("authorization.k8s.io", "v1", "SelfSubjectRulesReview") => {
            add!(authorization::v1::SelfSubjectRulesReview)
        }
        ("authorization.k8s.io", "v1", "SubjectAccessReview") => {
            add!(authorization::v1::SubjectAccessReview)
        }
        ("certificates.k8s.io", "v1", "CertificateSigningRequest") => {
            add!(certificates::v1::CertificateSigningRequest)
        }
        ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema") => add!(flowcontrol::v1::FlowSchema),
        ("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration") => {
            add!(flowcontrol::v1::PriorityLevelConfiguration)
        }
        ("rbac.authorization.k8s.io", "v1", "ClusterRole") => add!(rbac::v1::ClusterRole),
        ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding") => {
            add!(rbac::v1::ClusterRoleBinding)
        }
        ("rbac.authorization.k8s.io", "v1", "Role") => add!(rbac::v1::Role),
        ("rbac.authorization.k8s.io", "v1", "RoleBinding") => add!(rbac::v1::RoleBinding),
        ("resource.k8s.io", "v1", "DeviceClass") => add!(resource::v1::DeviceClass),
        ("resource.k8s.io", "v1", "ResourceClaim") => add!(resource::v1::ResourceClaim),
        ("resource.k8s.io", "v1", "ResourceClaimTemplate") => {
            add!(resource::v1::ResourceClaimTemplate)
        }
        ("resource.k8s.io", "v1", "ResourceSlice") => add!(resource::v1::ResourceSlice),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::Registry;

    #[test]
    fn every_served_kind_is_described() {
        for resource in Registry::builtin().iter() {
            let kind = (resource.group, resource.version, resource.kind);
            let texts = Descriptions::of(&[kind]);
            let name = super::super::paths::name_of(kind).expect("in the schema table");
            assert!(texts.definition(&name).is_some(), "{kind:?}");
            // Upstream says of a few kinds what their metadata is, of others not.
            assert!(texts.field(&name, "kind").is_some(), "{kind:?}");
        }
    }
}
