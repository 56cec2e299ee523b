//! A served version and the one in which its objects are stored: mostly the same.
//!
//! ```text
//! decode ▶ defaults ▶ field owners │ served version
//! ─────────────────────────────────┼─ to_stored
//! admission ▶ rules ▶ store        │ stored version
//! ─────────────────────────────────┼─ to_served
//! answer, list, watch, table       │ served version
//! ```

use coracle_api::{FieldErrors, Object, Resource};

use crate::call::Call;
use crate::server::Server;

/// The two versions of one request.
#[derive(Clone, Copy)]
pub(crate) struct Versions {
    /// What the path names.
    pub served: &'static Resource,
    /// What the store holds.
    pub stored: &'static Resource,
}

impl Versions {
    /// Those of a request.
    pub(crate) fn of(server: &Server, call: &Call) -> Self {
        Self {
            served: call.resource,
            stored: server.registry.stored(call.resource),
        }
    }

    /// Whether they are two.
    pub(crate) fn differ(&self) -> bool {
        !std::ptr::eq(self.served, self.stored)
    }

    /// The object as it is stored.
    pub(crate) fn store(&self, object: Object) -> Object {
        if self.differ() {
            self.served.strategy.to_stored(object)
        } else {
            object
        }
    }

    /// The object as it is served.
    pub(crate) fn serve(&self, object: Object) -> Object {
        if self.differ() {
            self.served.strategy.to_served(object)
        } else {
            object
        }
    }

    /// Reports what the served version asks of an object in stored form.
    pub(crate) fn validate(&self, new: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
        if self.differ() {
            self.served.strategy.validate_served(new, old, errors);
        }
    }
}
