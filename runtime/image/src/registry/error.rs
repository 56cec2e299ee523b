//! What can go wrong with a registry, in its own words where it has some.

use std::time::Duration;

use serde::Deserialize;

/// A request that came to nothing. The text is shown to users as it is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry answered, and not with what was asked for.
    #[error("{host}: {status}{words}")]
    Refused {
        /// Who answered.
        host: String,
        /// The code and its name, such as `404 Not Found`.
        status: http::StatusCode,
        /// What it said, after a colon; empty when it said nothing.
        words: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Nobody is there, or the connection broke.
    #[error("{host}: {problem}")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What happened.
        problem: String,
    },
    /// Its certificate or ours is no good; trying again does not help.
    #[error("{host}: {problem}")]
    Untrusted {
        /// Who was asked.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// Bytes come too slowly, or none at all.
    #[error("{host}: no progress for {}s", .after.as_secs())]
    Stalled {
        /// Who was asked.
        host: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The bytes are others than those that were asked for.
    #[error("{host}: {problem}")]
    Wrong {
        /// Who answered.
        host: String,
        /// How it shows.
        problem: String,
    },
    /// More than this node takes.
    #[error("{0}")]
    TooLarge(String),
    /// The node's own fault: files about registries, the store.
    #[error("{0}")]
    Local(String),
}

impl RegistryError {
    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
            }
            Self::Unreachable { .. } | Self::Stalled { .. } => true,
            Self::Untrusted { .. } | Self::Wrong { .. } | Self::TooLarge(_) | Self::Local(_) => {
                false
            }
        }
    }

    /// How the registry answered, if it did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// When it wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Longest text of a registry that is passed on.
const MAX_WORDS: usize = 300;

/// What a registry's answer says: the errors of the distribution specification, the `details` of
/// token servers, or a short text.
pub(crate) fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(
            default,
            alias = "error_description",
            alias = "error",
            alias = "message"
        )]
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said = match serde_json::from_slice::<Answer>(body) {
        Ok(answer) if !answer.errors.is_empty() => {
            let each = answer.errors.iter().map(|one| {
                let parts = [one.code.as_str(), one.message.as_str()];
                let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                parts.join(": ")
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Ok(answer) => answer.details.unwrap_or_default(),
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            // A page for browsers says nothing here.
            match text.trim_start().starts_with('<') {
                true => String::new(),
                false => text.into_owned(),
            }
        }
    };
    let clean: String = said
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect();
    match clean.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_quoted() {
        let errors =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(words(errors), ": MANIFEST_UNKNOWN: manifest unknown");
        assert_eq!(
            words(br#"{"details":"incorrect username"}"#),
            ": incorrect username"
        );
        assert_eq!(
            words(b"Client sent an HTTP request\nto an HTTPS server."),
            ": Client sent an HTTP request to an HTTPS server."
        );
        assert_eq!(words(b"<html>502</html>"), "");
        assert_eq!(words(b""), "");
        assert!(words(&[b'x'; 9000]).len() < 400);
    }
}
