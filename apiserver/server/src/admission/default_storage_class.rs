//! DefaultStorageClass: a claim that names no class gets the default one.

use std::cmp::Reverse;

use async_trait::async_trait;
use coracle_api::Object;
use coracle_api::core::v1::persistent_volume_claim::CLASS_ANNOTATION;
use coracle_api::storage::v1::storage_class::is_default;

use super::{Admission, Attributes, Operation};
use crate::status::Result;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let created = attributes.operation == Operation::Create
            && attributes.is("", "persistentvolumeclaims");
        let (true, Some(claim)) = (created, object) else {
            return Ok(());
        };
        let annotations = claim.at("metadata.annotations");
        if claim.at("spec.storageClassName").exists()
            || annotations.entry(CLASS_ANNOTATION).exists()
        {
            return Ok(());
        }
        let classes = attributes
            .server
            .all("storage.k8s.io", "storageclasses", "")
            .await?;
        if let Some(name) = chosen(classes) {
            claim.set("spec.storageClassName", name);
        }
        Ok(())
    }
}

/// The default class; of several the newest, of those the first by name.
fn chosen(classes: Vec<Object>) -> Option<String> {
    classes
        .into_iter()
        .filter(is_default)
        .min_by_key(|class| {
            let created = class.metadata("creationTimestamp").to_owned();
            (Reverse(created), class.name().to_owned())
        })
        .map(|class| class.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_is_chosen() {
        let class = |name: &str, created: &str, default: &str| {
            let annotation = json!({"storageclass.kubernetes.io/is-default-class": default});
            let class = json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": annotation}});
            Object::from_value(class).expect("an object")
        };
        let classes = vec![
            class("newest", "2030-01-03T00:00:00Z", "false"),
            class("z", "2030-01-02T00:00:00Z", "true"),
            class("y", "2030-01-02T00:00:00Z", "true"),
        ];
        assert_eq!(chosen(classes).as_deref(), Some("y"));
    }
}
