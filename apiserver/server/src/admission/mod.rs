//! Admission: may this object, by everything that the cluster knows.
//!
//! ```text
//! decode ▶ default ▶ admit (may change the object) ▶ validate ▶ verify (may only refuse) ▶ store
//! ```
//!
//! One step is one file. Steps run in the order in which the pipeline was given them.

mod certificates;
mod default_class;
mod lifecycle;
mod mountable_secrets;
mod node_restriction;
mod pod_topology_labels;
mod priority;
mod runtime_class;
mod service_account;
mod storage_protection;
mod taint_nodes;
mod toleration_seconds;

use async_trait::async_trait;
use coracle_api::{Object, Resource};

pub use certificates::{CertificateApproval, CertificateSigning, CertificateSubjectRestriction};
pub use default_class::DefaultClass;
pub use lifecycle::{NamespaceLifecycle, PROTECTED_NAMESPACES};
pub use node_restriction::NodeRestriction;
pub use pod_topology_labels::PodTopologyLabels;
pub use priority::Priority;
pub use runtime_class::RuntimeClassAdmission;
pub use service_account::ServiceAccountAdmission;
pub use storage_protection::StorageObjectInUseProtection;
pub use taint_nodes::TaintNodesByCondition;
pub use toleration_seconds::DefaultTolerationSeconds;

use crate::authn::Identity;
use crate::server::Server;
use crate::status::Result;

/// What is about to happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change.
    Update,
    /// A removal.
    Delete,
}

/// One request as admission sees it.
pub struct Attributes<'a> {
    /// What happens.
    pub operation: Operation,
    /// To which resource.
    pub resource: &'static Resource,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Name; empty for collections and generated names.
    pub name: &'a str,
    /// Who asks.
    pub identity: &'a Identity,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The object as stored, for updates and deletions.
    pub old: Option<&'a Object>,
    /// Lookups.
    pub server: &'a Server,
}

impl Attributes<'_> {
    /// Whether this is about whole objects of that resource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        (self.resource.group, self.resource.plural) == (group, plural)
            && self.subresource.is_empty()
    }
}

/// One step of admission.
#[async_trait]
pub trait Admission: Send + Sync {
    /// May change the object, or refuse it. Deletions have no object.
    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        _object: Option<&mut Object>,
    ) -> Result<()> {
        Ok(())
    }

    /// May refuse the object as it will be stored.
    async fn verify(&self, _attributes: &Attributes<'_>, _object: Option<&Object>) -> Result<()> {
        Ok(())
    }
}

/// All steps.
#[derive(Default)]
pub struct AdmissionChain {
    steps: Vec<Box<dyn Admission>>,
}

impl AdmissionChain {
    /// The given steps, in order.
    pub fn new(steps: Vec<Box<dyn Admission>>) -> Self {
        Self { steps }
    }

    /// Lets every step change the object.
    pub async fn admit(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Object>,
    ) -> Result<()> {
        for step in &self.steps {
            step.admit(attributes, object.as_deref_mut()).await?;
        }
        Ok(())
    }

    /// Lets every step refuse the object.
    pub async fn verify(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<()> {
        for step in &self.steps {
            step.verify(attributes, object).await?;
        }
        Ok(())
    }
}
