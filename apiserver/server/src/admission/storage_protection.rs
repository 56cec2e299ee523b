//! StorageObjectInUseProtection: what storage is in use of is not deleted under its users.

use async_trait::async_trait;
use coracle_api::Object;

use super::{Admission, Attributes, Operation};
use crate::metadata;
use crate::status::Result;

/// Kinds that are protected from the start, and the finalizers that do it.
const PROTECTED: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    (
        "storage.k8s.io",
        "volumeattributesclasses",
        "kubernetes.io/vac-protection",
    ),
];

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let resource = attributes.resource;
        let protection = PROTECTED
            .iter()
            .find(|(group, plural, _)| (resource.group, resource.plural) == (*group, *plural));
        let creates =
            attributes.operation == Operation::Create && attributes.subresource.is_empty();
        if let (true, Some((_, _, finalizer)), Some(object)) = (creates, protection, object) {
            let mut finalizers = metadata::finalizers(object);
            if !finalizers.iter().any(|name| name == finalizer) {
                finalizers.push((*finalizer).to_owned());
                metadata::set_finalizers(object, &finalizers);
            }
        }
        Ok(())
    }
}
