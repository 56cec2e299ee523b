//! DefaultIngressClass: an Ingress that names no class gets the default one.

use std::cmp::Reverse;

use async_trait::async_trait;
use coracle_api::Object;
use coracle_api::networking::v1::ingress::CLASS_ANNOTATION;
use coracle_api::networking::v1::ingress_class::is_default;

use super::{Admission, Attributes, Operation};
use crate::status::Result;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultIngressClass;

#[async_trait]
impl Admission for DefaultIngressClass {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let resource = attributes.resource;
        let concerned = attributes.operation == Operation::Create
            && attributes.subresource.is_empty()
            && (resource.group, resource.plural) == ("networking.k8s.io", "ingresses");
        let (true, Some(ingress)) = (concerned, object) else {
            return Ok(());
        };
        let annotations = ingress.at("metadata.annotations");
        if ingress.at("spec.ingressClassName").exists()
            || annotations.entry(CLASS_ANNOTATION).exists()
        {
            return Ok(());
        }
        let classes = attributes
            .server
            .all("networking.k8s.io", "ingressclasses", "")
            .await?;
        if let Some(name) = chosen(classes) {
            ingress.set("spec.ingressClassName", name);
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
            let annotation = json!({"ingressclass.kubernetes.io/is-default-class": default});
            let class = json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": annotation}});
            Object::from_value(class).expect("an object")
        };
        let classes = vec![
            class("newest", "2030-01-03T00:00:00Z", "false"),
            class("z", "2030-01-02T00:00:00Z", "true"),
            class("y", "2030-01-02T00:00:00Z", "true"),
            class("a", "2030-01-01T00:00:00Z", "true"),
        ];
        assert_eq!(chosen(classes).as_deref(), Some("y"));
        assert_eq!(chosen(Vec::new()), None);
    }
}
