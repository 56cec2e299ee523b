//! DefaultStorageClass and DefaultIngressClass: an object that names no class gets the default one.

use std::cmp::Reverse;

use async_trait::async_trait;
use coracle_api::Object;
use coracle_api::core::v1::persistent_volume_claim;
use coracle_api::networking::v1::{ingress, ingress_class};
use coracle_api::storage::v1::storage_class;

use super::{Admission, Attributes, Operation};
use crate::status::Result;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct DefaultClass {
    /// Group and plural of the objects that have a class.
    of: (&'static str, &'static str),
    /// The field that names it.
    field: &'static str,
    /// The annotation that named it before there was a field.
    annotation: &'static str,
    /// Group and plural of the classes.
    classes: (&'static str, &'static str),
    /// Whether a class is marked as the default.
    is_default: fn(&Object) -> bool,
}

impl DefaultClass {
    /// DefaultStorageClass: for claims.
    pub const STORAGE: Self = Self {
        of: ("", "persistentvolumeclaims"),
        field: "spec.storageClassName",
        annotation: persistent_volume_claim::CLASS_ANNOTATION,
        classes: ("storage.k8s.io", "storageclasses"),
        is_default: storage_class::is_default,
    };

    /// DefaultIngressClass: for Ingresses.
    pub const INGRESS: Self = Self {
        of: ("networking.k8s.io", "ingresses"),
        field: "spec.ingressClassName",
        annotation: ingress::CLASS_ANNOTATION,
        classes: ("networking.k8s.io", "ingressclasses"),
        is_default: ingress_class::is_default,
    };

    /// The default class; of several the newest, of those the first by name.
    fn chosen(&self, classes: Vec<Object>) -> Option<String> {
        classes
            .into_iter()
            .filter(self.is_default)
            .min_by_key(|class| {
                let created = class.metadata("creationTimestamp").to_owned();
                (Reverse(created), class.name().to_owned())
            })
            .map(|class| class.name().to_owned())
    }
}

#[async_trait]
impl Admission for DefaultClass {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let created =
            attributes.operation == Operation::Create && attributes.is(self.of.0, self.of.1);
        let (true, Some(object)) = (created, object) else {
            return Ok(());
        };
        let annotations = object.at("metadata.annotations");
        if object.at(self.field).exists() || annotations.entry(self.annotation).exists() {
            return Ok(());
        }
        let (group, plural) = self.classes;
        let classes = attributes.server.all(group, plural, "").await?;
        if let Some(name) = self.chosen(classes) {
            object.set(self.field, name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_is_chosen() {
        for (step, key) in [
            (DefaultClass::STORAGE, "storageclass.kubernetes.io"),
            (DefaultClass::INGRESS, "ingressclass.kubernetes.io"),
        ] {
            let class = |name: &str, created: &str, default: &str| {
                let annotations = json!({format!("{key}/is-default-class"): default});
                let class = json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": annotations}});
                Object::from_value(class).expect("an object")
            };
            let classes = vec![
                class("newest", "2030-01-03T00:00:00Z", "false"),
                class("z", "2030-01-02T00:00:00Z", "true"),
                class("y", "2030-01-02T00:00:00Z", "true"),
                class("a", "2030-01-01T00:00:00Z", "true"),
            ];
            assert_eq!(step.chosen(classes).as_deref(), Some("y"));
            assert_eq!(step.chosen(Vec::new()), None);
        }
    }
}
