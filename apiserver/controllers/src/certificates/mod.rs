//! Certificate signing requests: who is approved without a human, what is signed, what is cleaned up.
//!
//! ```text
//! CertificateSigningRequest ─▶ approver (kubelets that may, by a SubjectAccessReview)
//!                           ─▶ signer (approved, and right for its signer) ─▶ status.certificate
//!                           ─▶ cleaner (old ones go)
//! ```
//!
//! The three are upstream's `pkg/controller/certificates`. Keys and X.509 stay outside, behind
//! [`CertificateAuthority`].

mod approver;
mod cleaner;
mod rules;
mod signer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{Context, supervise};
use coracle_clock::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};

/// The user's name, as upstream's: one for the three.
pub(crate) const NAME: &str = "certificate-controller";

/// What signs: the cluster's own authority, given by whoever holds its key.
pub trait CertificateAuthority: Send + Sync {
    /// Reads a PKCS#10 request in PEM form; the error says what is wrong with it.
    fn read(&self, request: &[u8]) -> Result<CertificateRequest, String>;

    /// Signs a PKCS#10 request in PEM form after checking the signature of its maker; yields the certificate in PEM
    /// form. It never outlives the authority.
    fn issue(&self, request: &[u8], terms: &Terms) -> Result<Vec<u8>, String>;

    /// When the first certificate of this PEM text ends.
    fn expiry(&self, certificate: &[u8]) -> Result<Timestamp, String>;
}

/// What a PKCS#10 request asks to be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The common name, the user of a client certificate; empty if there is none.
    pub common_name: String,
    /// The organisations, the groups of a client certificate.
    pub organizations: Vec<String>,
    /// Alternative names: host names.
    pub dns_names: Vec<String>,
    /// Alternative names: addresses, as text.
    pub addresses: Vec<String>,
    /// Alternative names: mail addresses.
    pub emails: Vec<String>,
    /// Alternative names: URIs.
    pub uris: Vec<String>,
}

/// What a certificate may be used for, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The API's words for key usages, such as `client auth`.
    pub usages: Vec<String>,
    /// The first moment.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

/// Runs the approver, the signer and the cleaner until the context is stopped, under upstream's user
/// `certificate-controller`; one that panics is started again.
pub async fn run_certificates(ctx: Context, authority: Arc<dyn CertificateAuthority>) {
    let ctx = ctx.for_component(NAME);
    let (clock, stop) = (ctx.clock().clone(), ctx.stop().clone());
    let supervised = |name: &'static str| (name, clock.clone(), stop.clone());
    let (name, a, b) = supervised("certificate-approver");
    let approver = supervise(name, a, b, || {
        approver::run(ctx.clone(), Arc::clone(&authority))
    });
    let (name, a, b) = supervised("certificate-signer");
    let signer = supervise(name, a, b, || {
        signer::run(ctx.clone(), Arc::clone(&authority))
    });
    let (name, a, b) = supervised("certificate-cleaner");
    let cleaner = supervise(name, a, b, || {
        cleaner::run(ctx.clone(), Arc::clone(&authority))
    });
    tokio::join!(approver, signer, cleaner);
}

fn conditions(
    csr: &CertificateSigningRequest,
) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    csr.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
}

/// Whether there is a condition of this type; its status can only be True.
fn has(csr: &CertificateSigningRequest, type_: &str) -> bool {
    conditions(csr).any(|condition| condition.type_ == type_)
}

/// The issued certificate in PEM form.
fn certificate(csr: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = csr.status.as_ref()?.certificate.as_ref()?;
    Some(&certificate.0)
        .filter(|c| !c.is_empty())
        .map(Vec::as_slice)
}

/// The request with one more condition.
fn with_condition(
    csr: &CertificateSigningRequest,
    type_: &str,
    reason: &str,
    message: &str,
) -> CertificateSigningRequest {
    let mut changed = csr.clone();
    let status = changed.status.get_or_insert_default();
    let condition = CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Default::default()
    };
    status.conditions.get_or_insert_default().push(condition);
    changed
}
