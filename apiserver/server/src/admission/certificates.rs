//! Who may approve and sign certificates, and which ones nobody signs.
//!
//! Whoever may write `certificatesigningrequests/approval` needs the right to `approve` for the request's signer besides,
//! and `sign` for its answer: else the right to approve for one signer would be that to approve for all. Rules and texts:
//! `plugin/pkg/admission/certificates` of `k8s.io/kubernetes`.

use std::borrow::Cow;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_api::Object;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::{Admission, Attributes, Operation};
use crate::authn::MASTERS;
use crate::authz::Attributes as Access;
use crate::status::{ApiError, Result};

const GROUP: &str = "certificates.k8s.io";
/// The signer of users' client certificates.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Approving or denying takes the right to `approve` for the signer.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateApproval;

/// Writing a certificate or a condition into the status takes the right to `sign` for the signer.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateSigning;

/// Nobody gets a client certificate of `system:masters`, whom no role binds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateSubjectRestriction;

/// Whether this is about that part of a request, in that operation.
fn is_about(attributes: &Attributes<'_>, subresource: &str, operation: Operation) -> bool {
    let Attributes { resource, .. } = attributes;
    (resource.group, resource.plural) == (GROUP, "certificatesigningrequests")
        && (attributes.subresource, attributes.operation) == (subresource, operation)
}

/// Refuses who may not do `verb` for the signer of the request, by its name or by its domain.
async fn check(attributes: &Attributes<'_>, verb: &str) -> Result<()> {
    let signer = attributes
        .old
        .map_or("", |old| old.at("spec.signerName").str());
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let asked = Access {
            name: Cow::Borrowed(name),
            ..Access::resource(attributes.identity, verb, GROUP, "signers")
        };
        if attributes.server.authorization.allows(&asked).await {
            return Ok(());
        }
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(ApiError::forbidden(
        attributes.resource,
        attributes.name,
        why,
    ))
}

#[async_trait]
impl Admission for CertificateApproval {
    async fn verify(&self, attributes: &Attributes<'_>, _object: Option<&Object>) -> Result<()> {
        match is_about(attributes, "approval", Operation::Update) {
            true => check(attributes, "approve").await,
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Admission for CertificateSigning {
    async fn verify(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<()> {
        let concerned = is_about(attributes, "status", Operation::Update);
        let (true, Some(new), Some(old)) = (concerned, object, attributes.old) else {
            return Ok(());
        };
        let changed = ["status.certificate", "status.conditions"]
            .iter()
            .any(|field| new.at(field).value() != old.at(field).value());
        match changed {
            true => check(attributes, "sign").await,
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Admission for CertificateSubjectRestriction {
    async fn verify(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<()> {
        let (true, Some(new)) = (is_about(attributes, "", Operation::Create), object) else {
            return Ok(());
        };
        if new.at("spec.signerName").str() != CLIENT_SIGNER {
            return Ok(());
        }
        let why = match organizations(new.at("spec.request").str()) {
            Ok(groups) if groups.iter().any(|group| group == MASTERS) => {
                format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")
            }
            Ok(_) => return Ok(()),
            Err(why) => format!("failed to parse CSR: {why}"),
        };
        Err(ApiError::forbidden(
            attributes.resource,
            attributes.name,
            why,
        ))
    }
}

/// The organisations in the subject of a request, given as base64 of PEM.
fn organizations(request: &str) -> Result<Vec<String>, String> {
    let pem = STANDARD
        .decode(request)
        .map_err(|error| error.to_string())?;
    let (_, pem) = parse_x509_pem(&pem).map_err(|error| error.to_string())?;
    let parsed = X509CertificationRequest::from_der(&pem.contents);
    let (_, parsed) = parsed.map_err(|error| error.to_string())?;
    let subject = &parsed.certification_request_info.subject;
    let names = subject
        .iter_organization()
        .map(|name| name.as_str().map(str::to_owned));
    names
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}
