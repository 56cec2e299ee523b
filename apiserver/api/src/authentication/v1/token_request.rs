//! TokenRequest: the body of a ServiceAccount's `token` subresource.

use serde_json::json;

use crate::{FieldErrors, Object};

/// Seconds that a token must be good for at least, and may be at most.
const SECONDS: (i64, i64) = (600, 1 << 32);

/// Fills in how long the token is asked to be good for.
pub fn default(request: &mut Object) {
    request.set_default("spec.expirationSeconds", json!(3600));
}

/// Reports what is wrong with a request for a token.
pub fn validate(request: &Object, errors: &mut FieldErrors) {
    let seconds = request.at("spec.expirationSeconds");
    match seconds.as_i64() {
        Some(asked) if asked < SECONDS.0 => {
            errors.invalid(&seconds, "may not specify a duration less than 10 minutes")
        }
        Some(asked) if asked > SECONDS.1 => errors.invalid(
            &seconds,
            "may not specify a duration larger than 2^32 seconds",
        ),
        _ => {}
    }
}
