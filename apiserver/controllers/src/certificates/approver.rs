//! Approves the client certificates of kubelets that may have them, as `csrapproving` does upstream
//! (`pkg/controller/certificates/approver/sarapprove.go`).

use std::sync::Arc;

use coracle_client::{Context, Error, Lister, ObjectKey, Outcome};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};

use super::{CertificateAuthority, CertificateRequest, certificate, has, rules, with_condition};
use crate::worker::{outcome, work};

const WORKERS: usize = 2;

/// A right that lets a request through, and the words of the approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The subresource of `certificatesigningrequests` that the requester must be allowed to create.
    pub(super) subresource: &'static str,
    pub(super) message: &'static str,
}

pub(super) const SELF_NODE_CLIENT: Way = Way {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
pub(super) const NODE_CLIENT: Way = Way {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// Runs until the context is stopped.
pub(super) async fn run(ctx: Context, authority: Arc<dyn CertificateAuthority>) {
    let requests: Lister<CertificateSigningRequest> = ctx.lister();
    let queue = ctx.watch::<CertificateSigningRequest>().into_queue().await;
    let sync = async |key: ObjectKey| {
        let Some(csr) = requests.get(&key).filter(|csr| is_open(csr)) else {
            return Outcome::Done;
        };
        let request = match authority.read(&csr.spec.request.0) {
            Ok(request) => request,
            Err(why) => {
                tracing::debug!(%key, why, "a request that cannot be read is left to humans");
                return Outcome::Done;
            }
        };
        outcome(super::NAME, &key, approve(&ctx, &csr, &request).await)
    };
    work(queue, WORKERS, sync).await;
}

async fn approve(
    ctx: &Context,
    csr: &CertificateSigningRequest,
    request: &CertificateRequest,
) -> Result<Outcome, Error> {
    let ways = ways(&csr.spec, request);
    for way in &ways {
        let review = ctx.objects().create(&review(&csr.spec, *way)).await?;
        if review.status.is_some_and(|status| status.allowed) {
            let approved = with_condition(csr, "Approved", "AutoApproved", way.message);
            ctx.objects()
                .replace_subresource(&approved, "approval")
                .await?;
            return Ok(Outcome::Done);
        }
    }
    // Recognised but not allowed: the right may be granted later, so it is asked again.
    Ok(match ways.is_empty() {
        true => Outcome::Done,
        false => Outcome::Retry,
    })
}

/// Whether nobody has decided yet.
pub(super) fn is_open(csr: &CertificateSigningRequest) -> bool {
    certificate(csr).is_none() && !has(csr, "Approved") && !has(csr, "Denied")
}

/// The ways in which this request may be approved, in the order in which they are tried.
pub(super) fn ways(spec: &CertificateSigningRequestSpec, request: &CertificateRequest) -> Vec<Way> {
    let usages = spec.usages.as_deref().unwrap_or_default();
    if spec.signer_name != rules::KUBELET_CLIENT || rules::kubelet_client(request, usages).is_err()
    {
        return Vec::new();
    }
    match spec.username.as_deref() == Some(request.common_name.as_str()) {
        true => vec![SELF_NODE_CLIENT, NODE_CLIENT],
        false => vec![NODE_CLIENT],
    }
}

fn review(spec: &CertificateSigningRequestSpec, way: Way) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                version: Some("*".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(way.subresource.to_owned()),
                verb: Some("create".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    }
}
