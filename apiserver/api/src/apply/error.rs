//! Why a configuration can't be applied, in upstream's words.

use std::fmt;

use super::element::Element;
use super::entries::Identity;

/// A field that the configuration would change and another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub(super) manager: Identity,
    pub(super) path: Vec<Element>,
}

impl Conflict {
    /// What the cause says: `conflict with "one" using v1`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }

    /// The field: `.data.a`.
    pub fn field(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

/// Why a configuration can't be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// The request makes no sense (400).
    BadRequest(String),
    /// The configuration or the live object does not fit the schema (upstream answers 500).
    Schema(String),
    /// Others own fields that would change (409); sorted by manager.
    Conflicts(Vec<Conflict>),
}

impl std::error::Error for ApplyError {}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(message) | Self::Schema(message) => f.write_str(message),
            Self::Conflicts(conflicts) => {
                if let [one] = &conflicts[..] {
                    let (message, field) = (one.message(), one.field());
                    return write!(f, "Apply failed with 1 conflict: {message}: {field}");
                }
                write!(f, "Apply failed with {} conflicts: ", conflicts.len())?;
                for (at, conflict) in conflicts.iter().enumerate() {
                    if at == 0 || conflicts[at - 1].manager != conflict.manager {
                        let newline = if at > 0 { "\n" } else { "" };
                        write!(f, "{newline}conflicts with {}:", conflict.manager)?;
                    }
                    write!(f, "\n- {}", conflict.field())?;
                }
                Ok(())
            }
        }
    }
}
