//! Signs approved requests of the known signers (`pkg/controller/certificates/signer`).

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Context, Error, Lister, ObjectKey, Outcome};
use coracle_clock::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{
    CertificateAuthority, CertificateRequest, Terms, certificate, has, rules, with_condition,
};
use crate::worker::{outcome, work};

const WORKERS: usize = 2;

/// The longest life of a certificate, and the one without a wish (`--cluster-signing-duration`).
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// The shortest.
const SHORTEST: Duration = Duration::from_secs(600);
/// How far the beginning lies back, for peers whose clocks are late.
const BACKDATE: Duration = Duration::from_secs(300);
/// Certificates with a shorter life keep their end when their beginning is moved back.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is not approved, already answered, or for somebody else.
    Leave,
    /// It is refused for good, for this reason.
    Refuse(String),
    /// It is signed.
    Sign(Terms),
}

/// Runs until the context is stopped.
pub(super) async fn run(ctx: Context, authority: Arc<dyn CertificateAuthority>) {
    let requests: Lister<CertificateSigningRequest> = ctx.lister();
    let queue = ctx.watch::<CertificateSigningRequest>().into_queue().await;
    let sync = async |key: ObjectKey| {
        let Some(csr) = requests.get(&key).filter(|csr| is_waiting(csr)) else {
            return Outcome::Done;
        };
        let request = authority.read(&csr.spec.request.0);
        let changed = match decide(&csr, request, ctx.clock().now()) {
            Decision::Leave => return Outcome::Done,
            Decision::Refuse(why) => {
                with_condition(&csr, "Failed", "SignerValidationFailure", &why)
            }
            Decision::Sign(terms) => match authority.issue(&csr.spec.request.0, &terms) {
                Ok(certificate) => with_certificate(&csr, certificate),
                Err(why) => {
                    tracing::warn!(%key, why, "failed to sign a request; will retry");
                    return Outcome::Retry;
                }
            },
        };
        outcome(super::NAME, &key, store(&ctx, &changed).await)
    };
    work(queue, WORKERS, sync).await;
}

async fn store(ctx: &Context, csr: &CertificateSigningRequest) -> Result<Outcome, Error> {
    ctx.objects().replace_subresource(csr, "status").await?;
    Ok(Outcome::Done)
}

fn with_certificate(
    csr: &CertificateSigningRequest,
    certificate: Vec<u8>,
) -> CertificateSigningRequest {
    let mut changed = csr.clone();
    changed.status.get_or_insert_default().certificate = Some(ByteString(certificate));
    changed
}

/// Whether a request is approved, unanswered and for one of the known signers.
pub(super) fn is_waiting(csr: &CertificateSigningRequest) -> bool {
    rules::is_known(&csr.spec.signer_name)
        && has(csr, "Approved")
        && !has(csr, "Denied")
        && !has(csr, "Failed")
        && certificate(csr).is_none()
}

/// What becomes of a request at `now`, given what it says or why it cannot be read.
pub(super) fn decide(
    csr: &CertificateSigningRequest,
    request: Result<CertificateRequest, String>,
    now: Timestamp,
) -> Decision {
    if !is_waiting(csr) {
        return Decision::Leave;
    }
    let usages = csr.spec.usages.clone().unwrap_or_default();
    let checked = request.map(|request| rules::check(&csr.spec.signer_name, &request, &usages));
    match checked {
        Ok(None) => Decision::Leave,
        Ok(Some(Ok(()))) => Decision::Sign(terms(usages, csr.spec.expiration_seconds, now)),
        Ok(Some(Err(why))) | Err(why) => Decision::Refuse(why),
    }
}

fn terms(usages: Vec<String>, seconds: Option<i32>, now: Timestamp) -> Terms {
    let life = match seconds {
        None => LONGEST,
        Some(seconds) => {
            let wished = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            wished.clamp(SHORTEST, LONGEST)
        }
    };
    let life = match life < SHORT {
        true => life,
        false => life - BACKDATE,
    };
    Terms {
        usages,
        not_before: now - BACKDATE,
        not_after: now + life,
    }
}
