//! What can be wrong with an Ingress, in words for whoever wrote it.

use std::fmt;

use coracle_client::ObjectKey;

use crate::certificates::SecretProblem;

/// Something that keeps a part of an Ingress from working.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Problem {
    /// A Secret that cannot be used.
    Secret(ObjectKey, SecretProblem),
    /// A Service that does not exist.
    NoService(ObjectKey),
    /// A Service without the port that is named.
    NoPort(ObjectKey, String),
    /// A backend of another kind: its kind and name.
    Resource(String),
    /// An annotation that has no effect; the text tells all.
    Annotation(String),
    /// A path that is no expression.
    Expression(String),
    /// A path that an older Ingress has.
    Taken {
        /// The host; empty for every host.
        host: String,
        /// The path.
        path: String,
        /// Who has it.
        by: ObjectKey,
    },
}

impl Problem {
    /// The reason of the Event: a word that programs may test.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Secret(_, SecretProblem::Missing) => "SecretNotFound",
            Self::Secret(..) => "SecretInvalid",
            Self::NoService(_) => "ServiceNotFound",
            Self::NoPort(..) => "PortNotFound",
            Self::Resource(_) => "BackendNotSupported",
            Self::Annotation(_) => "AnnotationIgnored",
            Self::Expression(_) => "PathInvalid",
            Self::Taken { .. } => "PathTaken",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(key, problem) => write!(
                f,
                "secret {key} {problem}; its hosts are served with a certificate of the cluster's authority"
            ),
            Self::NoService(key) => write!(f, "service {key} was not found"),
            Self::NoPort(key, port) => {
                write!(f, "service {key} has no TCP port called or numbered {port}")
            }
            Self::Resource(name) => {
                write!(f, "backend {name} is not a Service, which alone is served")
            }
            Self::Annotation(text) => f.write_str(text),
            Self::Expression(path) => write!(
                f,
                "path {path} is not served: it is no regular expression, or one that is too large"
            ),
            Self::Taken { host, path, by } => {
                let host = if host.is_empty() { "every host" } else { host };
                write!(
                    f,
                    "path {path} of {host} is served for the older ingress {by}"
                )
            }
        }
    }
}
