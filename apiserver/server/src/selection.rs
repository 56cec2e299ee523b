//! The label and field selectors of one list or watch, parsed once and matched against cached entries.

use coracle_api::selector::{FieldSelector, LabelSelector, SelectorError};
use coracle_api::{Object, Resource};

use crate::cache::Entry;
use crate::request_info::Query;
use crate::status::{ApiError, Result};

/// Which objects of a collection are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// Only the object of this name, besides.
    name: Option<String>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; fields that the kind does not offer are refused.
    pub fn parse(query: &Query, resource: &Resource) -> Result<Self> {
        let (labels, fields) = read(query)?;
        let offered = resource.strategy.selectable_fields(&Object::default());
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            // Cluster-wide kinds with fields of their own do not know their namespace; the others do, though it is empty.
            let known = match field {
                "metadata.name" => true,
                "metadata.namespace" => resource.namespaced || offered.is_empty(),
                _ => false,
            };
            if known || offered.iter().any(|(name, _)| *name == field) {
                continue;
            }
            return Err(ApiError::bad_request(if offered.is_empty() {
                format!(
                    "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            } else {
                resource.strategy.unknown_field(field)
            }));
        }
        Ok(Self {
            labels,
            fields,
            name: None,
        })
    }

    /// The same, for the object of one name only: that of the path of a watch.
    pub fn and_path_name(self, name: &str) -> Result<Self> {
        let exact = self.fields.exact("metadata.name");
        if !self.fields.is_empty() && exact != Some(name) {
            let why = "fieldSelector metadata.name doesn't match requested name";
            return Err(ApiError::bad_request(why));
        }
        Ok(self.and_name(name))
    }

    /// The same, for the object of one name only.
    pub fn and_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.name.is_none() && self.fields.is_empty() && self.labels.is_empty()
    }

    /// Whether an object that has nothing but this name is meant.
    pub fn matches_bare(&self, name: &str) -> bool {
        let field = |field: &str| match field {
            "metadata.name" => Some(name),
            _ => None,
        };
        self.name.as_deref().is_none_or(|own| own == name)
            && self.labels.matches(|_| None)
            && self.fields.matches(field)
    }

    /// Whether `entry` is meant.
    pub fn matches(&self, entry: &Entry) -> bool {
        let label = |key: &str| {
            entry
                .labels
                .iter()
                .find(|(k, _)| k == key)
                .map(|(_, value)| value.as_str())
        };
        let field = |key: &str| match key {
            "metadata.name" => Some(entry.name()),
            "metadata.namespace" => Some(entry.namespace()),
            key => entry
                .fields
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.as_str()),
        };
        self.name.as_deref().is_none_or(|name| name == entry.name())
            && self.fields.matches(field)
            && self.labels.matches(label)
    }
}

/// Refuses selectors that break the grammar, whatever they are about.
pub(crate) fn check_grammar(query: &Query) -> Result<()> {
    read(query).map(|_| ())
}

fn read(query: &Query) -> Result<(LabelSelector, FieldSelector)> {
    let bad = |error: SelectorError| ApiError::bad_request(error.to_string());
    let text = |name: &str| query.get(name).unwrap_or_default();
    let labels = text("labelSelector").parse().map_err(bad)?;
    let fields = text("fieldSelector").parse().map_err(bad)?;
    Ok((labels, fields))
}
