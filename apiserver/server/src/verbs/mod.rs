//! One file per verb; each is generic over the resource.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
mod shown;
pub(crate) mod update;
pub(crate) mod watch;

use std::time::Duration;

use coracle_api::{Object, Requester, Resource};

use crate::call::Call;
use crate::decode::Expected;
use crate::defaults;

/// How often a write is tried again when someone else changed the object meanwhile and the client did not say which
/// revision it meant.
const MAX_RETRIES: usize = 5;

/// How many generated names are tried before a new object is refused.
const NAME_ATTEMPTS: usize = 8;

/// How long Events live.
const EVENT_LIFETIME: Duration = Duration::from_secs(3600);

/// How long objects of `resource` live without being written again.
fn time_to_live(resource: &Resource) -> Option<Duration> {
    (resource.plural == "events").then_some(EVENT_LIFETIME)
}

/// Fills in the defaults of a decoded object.
pub(crate) fn set_defaults(object: &mut Object, resource: &Resource) {
    defaults::apply(object, &Expected::of(resource).schema());
    resource.strategy.default(object);
}

/// What a body of this call is expected to be.
pub(crate) fn expected(call: &Call) -> Expected {
    match call.subresource.and_then(|subresource| subresource.kind) {
        Some((group, version, kind)) => Expected {
            group,
            version,
            kind,
        },
        None => Expected::of(call.resource),
    }
}

/// Who asks, for kinds that record it; `now` is the time of the request.
fn requester<'a>(call: &'a Call, now: &'a str) -> Requester<'a> {
    let identity = &call.identity;
    Requester {
        user: &identity.user,
        uid: &identity.uid,
        groups: &identity.groups,
        extra: &identity.extra,
        now,
        subresource: call.subresource.map_or("", |subresource| subresource.name),
    }
}
