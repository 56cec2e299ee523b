//! Removes requests that are done with (`pkg/controller/certificates/cleaner`).

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Context, DeletePropagation, Lister, ObjectKey, Precondition};
use coracle_clock::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{CertificateAuthority, certificate, conditions, has};

/// Between two looks at all requests.
const EVERY: Duration = Duration::from_secs(3600);
/// How long an answered request stays.
const ANSWERED: Duration = Duration::from_secs(3600);
/// How long one stays that nobody answers.
const PENDING: Duration = Duration::from_secs(24 * 3600);

/// Runs until the context is stopped.
pub(super) async fn run(ctx: Context, authority: Arc<dyn CertificateAuthority>) {
    let requests: Lister<CertificateSigningRequest> = ctx.lister();
    let rounds = async {
        requests.synced().await;
        loop {
            clean(&ctx, &requests, authority.as_ref()).await;
            ctx.clock().sleep(EVERY).await;
        }
    };
    tokio::select! {
        () = ctx.stop().cancelled() => {}
        () = rounds => {}
    }
}

async fn clean(
    ctx: &Context,
    requests: &Lister<CertificateSigningRequest>,
    authority: &dyn CertificateAuthority,
) {
    for csr in requests.list() {
        let key = ObjectKey::of(csr.as_ref());
        let expiry = certificate(&csr).and_then(|pem| match authority.expiry(pem) {
            Ok(end) => Some(end),
            Err(why) => {
                tracing::debug!(%key, why, "a certificate that cannot be read has no end");
                None
            }
        });
        if !is_over(&csr, expiry, ctx.clock().now()) {
            continue;
        }
        let when = Precondition::uid_of(csr.as_ref());
        let gone = ctx
            .objects()
            .delete::<CertificateSigningRequest>(&key, &when, DeletePropagation::Default, None)
            .await;
        if let Err(error) = gone.or_else(|error| match error.is_not_found() {
            true => Ok(()),
            false => Err(error),
        }) {
            tracing::warn!(%key, %error, message = error.message(), "failed to clean up");
        }
    }
}

/// Whether a request is done with at `now`; `expiry` is the end of its certificate.
pub(super) fn is_over(
    csr: &CertificateSigningRequest,
    expiry: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let older =
        |since: Option<&Time>, age: Duration| since.is_some_and(|since| since.0 + age < now);
    let said = |type_: &str, age: Duration| {
        conditions(csr)
            .filter(|condition| condition.type_ == type_)
            .any(|condition| older(condition.last_update_time.as_ref(), age))
    };
    let issued = certificate(csr).is_some();
    let unheard = conditions(csr).next().is_none()
        && older(csr.metadata.creation_timestamp.as_ref(), PENDING);
    let expired = issued && has(csr, "Approved") && expiry.is_some_and(|end| end < now);
    unheard
        || expired
        || said("Denied", ANSWERED)
        || said("Failed", ANSWERED)
        || said("Approved", if issued { ANSWERED } else { PENDING })
}
