//! NamespaceLifecycle: nothing new in a namespace that is absent or going, and some namespaces stay.

use async_trait::async_trait;
use coracle_api::Object;

use super::{Admission, Attributes, Operation};
use crate::status::{ApiError, Result};

/// Namespaces that may not be deleted.
pub const PROTECTED_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public"];

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceLifecycle;

#[async_trait]
impl Admission for NamespaceLifecycle {
    async fn admit(&self, attributes: &Attributes<'_>, _object: Option<&mut Object>) -> Result<()> {
        let Attributes {
            operation,
            resource,
            namespace,
            name,
            server,
            ..
        } = attributes;
        if resource.group.is_empty() && resource.plural == "namespaces" {
            if *operation == Operation::Delete && PROTECTED_NAMESPACES.contains(name) {
                return Err(ApiError::forbidden(
                    resource,
                    name,
                    "this namespace may not be deleted",
                ));
            }
            return Ok(());
        }
        if !resource.namespaced || namespace.is_empty() || *operation == Operation::Delete {
            return Ok(());
        }
        let Some(found) = server.namespace(namespace).await? else {
            return match operation {
                Operation::Create => Err(ApiError::not_found(server.namespaces(), namespace)),
                _ => Ok(()),
            };
        };
        if *operation == Operation::Create && found.terminating {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let cause = format!("namespace {namespace} is being terminated");
            return Err(ApiError::forbidden(resource, name, why).with_cause(
                "NamespaceTerminating",
                cause,
                "metadata.namespace",
            ));
        }
        Ok(())
    }
}
