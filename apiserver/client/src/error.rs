//! What can go wrong between a component and the API server.

use kube::core::Status;

/// A request that the API server refused or that never reached it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a failure, or the transport failed.
    #[error("failed to {verb} {object}")]
    Request {
        /// What was tried: `create`, `patch`, …
        verb: &'static str,
        /// Kind and key of the object.
        object: String,
        /// The server's or the transport's words.
        #[source]
        source: Box<kube::Error>,
    },
    /// The request could not be expressed.
    #[error("failed to encode {object}")]
    Encode {
        /// Kind and key of the object.
        object: String,
        /// What serde said.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// A failed request made with kube's own types.
    pub fn request(verb: &'static str, object: impl Into<String>, source: kube::Error) -> Self {
        Self::Request {
            verb,
            object: object.into(),
            source: Box::new(source),
        }
    }

    /// The server's `Status`, if it gave one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Encode { .. } => None,
        }
    }

    /// The reason of the server's `Status`, such as `NotFound`; empty without one.
    pub fn reason(&self) -> &str {
        self.status().map_or("", |status| status.reason.as_str())
    }

    /// The server's message, or the transport's error: what an Event should quote.
    pub fn message(&self) -> String {
        match (self.status(), std::error::Error::source(self)) {
            (Some(status), _) => status.message.clone(),
            (None, Some(source)) => source.to_string(),
            (None, None) => self.to_string(),
        }
    }

    /// Someone else wrote first (or a precondition failed): look again.
    pub fn is_conflict(&self) -> bool {
        self.code() == 409 && self.reason() != "AlreadyExists"
    }

    /// An object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// The object (or the resource) does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// The namespace is being deleted, so that nothing can be created in it.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status()
            .and_then(|status| status.details.as_ref())
            .is_some_and(|details| {
                details
                    .causes
                    .iter()
                    .any(|cause| cause.reason == "NamespaceTerminating")
            })
    }

    fn code(&self) -> u16 {
        self.status().map_or(0, |status| status.code)
    }
}
