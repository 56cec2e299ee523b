//! `metadata.managedFields`, decoded: what each manager owns, and since when.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// How many managers of updates are told apart; older ones share one entry.
const MAX_UPDATERS: usize = 10;

/// The name of the entry that the oldest updates share.
const ANCIENT: &str = "ancient-changes";

/// Whether a manager applies or updates; the order is that of the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who owns fields: what tells two entries apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) manager: String,
    pub(super) operation: Operation,
    /// Empty for appliers, who are the same in every version.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Identity {
    pub(super) fn new(
        manager: &str,
        operation: Operation,
        api_version: &str,
        subresource: &str,
    ) -> Self {
        let manager = if manager.is_empty() {
            "unknown"
        } else {
            manager
        };
        let api_version = match operation {
            Operation::Apply => "",
            Operation::Update => api_version,
        };
        Self {
            manager: manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

/// As conflicts name it.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::from(self.manager.as_str()))?;
        if !self.subresource.is_empty() {
            write!(
                f,
                " with subresource {}",
                Value::from(self.subresource.as_str())
            )?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) api_version: String,
    /// When the set last changed; empty if it was never stated.
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries(pub(super) BTreeMap<Identity, Owned>);

impl Entries {
    /// Reads `managedFields`; `None` if any entry can't be read.
    pub(super) fn decode(value: &Value) -> Option<Self> {
        let mut entries = BTreeMap::new();
        for entry in value.as_array()? {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            if text("fieldsType") != "FieldsV1" {
                return None;
            }
            let fields = match entry.get("fieldsV1") {
                Some(fields) if fields.as_object().is_some_and(|map| !map.is_empty()) => {
                    FieldSet::parse(fields).ok()?
                }
                _ => FieldSet::default(),
            };
            let api_version = text("apiVersion");
            let identity = Identity {
                manager: text("manager").to_owned(),
                ..Identity::new("", operation, api_version, text("subresource"))
            };
            let owned = Owned {
                api_version: api_version.to_owned(),
                time: text("time").to_owned(),
                fields,
            };
            entries.insert(identity, owned);
        }
        Some(Self(entries))
    }

    /// Writes `managedFields`, appliers first, then by time; `None` when there are no entries.
    pub(super) fn encode(&self) -> Option<Value> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by(|(a, a_owned), (b, b_owned)| {
            let key = |identity: &Identity| identity.operation;
            key(a)
                .cmp(&key(b))
                .then_with(|| a_owned.time.cmp(&b_owned.time))
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| a_owned.api_version.cmp(&b_owned.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|(identity, owned)| {
                let mut entry = Map::new();
                let operation = match identity.operation {
                    Operation::Apply => "Apply",
                    Operation::Update => "Update",
                };
                entry.insert("manager".into(), identity.manager.clone().into());
                entry.insert("operation".into(), operation.into());
                entry.insert("apiVersion".into(), owned.api_version.clone().into());
                if !owned.time.is_empty() {
                    entry.insert("time".into(), owned.time.clone().into());
                }
                entry.insert("fieldsType".into(), "FieldsV1".into());
                entry.insert("fieldsV1".into(), owned.fields.to_value());
                if !identity.subresource.is_empty() {
                    entry.insert("subresource".into(), identity.subresource.clone().into());
                }
                Value::Object(entry)
            })
            .collect();
        (!entries.is_empty()).then_some(Value::Array(entries))
    }

    /// Takes fields from everyone but `except`, and forgets who is left with none.
    pub(super) fn take(&mut self, fields: &FieldSet, except: Option<&Identity>) {
        for (identity, owned) in &mut self.0 {
            if Some(identity) != except {
                owned.fields = owned.fields.difference(fields);
            }
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Everything that anyone owns.
    pub(super) fn all_fields(&self) -> FieldSet {
        self.0
            .values()
            .fold(FieldSet::default(), |all, owned| all.union(&owned.fields))
    }

    /// Merges the oldest updates of a version into one entry until at most [`MAX_UPDATERS`] are left.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<(String, Identity)> = self
            .0
            .iter()
            .filter(|(identity, _)| identity.operation == Operation::Update)
            .map(|(identity, owned)| (owned.time.clone(), identity.clone()))
            .collect();
        updaters.sort_unstable();
        let mut count = updaters.len();
        let mut first_of_version: BTreeMap<String, Identity> = BTreeMap::new();
        for (time, identity) in updaters {
            if count <= MAX_UPDATERS {
                return;
            }
            let version = identity.api_version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, identity);
                continue;
            };
            let bucket = Identity::new(ANCIENT, Operation::Update, &version, "");
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if identity == bucket {
                continue;
            }
            if let (Some(owned), Some(into)) = (self.0.remove(&identity), self.0.get_mut(&bucket)) {
                let fields = std::mem::take(&mut into.fields);
                into.fields = fields.union(&owned.fields);
                into.time = time;
                count -= 1;
            }
        }
    }
}

/// Whether `managedFields` asks for them to be forgotten: one empty entry.
pub(super) fn is_reset(value: &Value) -> bool {
    *value == json!([{}])
}
