//! Keeping `metadata.managedFields` through updates, and applying configurations.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::entries::{Entries, Identity, Operation, Owned, is_reset};
use super::error::{ApplyError, Conflict};
use super::set::FieldSet;
use super::walk::{compare, field_set};
use super::writable::Writable;
use super::{LAST_APPLIED, check, merge, prune};
use crate::schema::{self, SchemaRef};
use crate::{Object, Resource};

/// Who owns what an object had before anyone applied to it, when nobody kept account.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The manager that migrates from client-side apply.
const KUBECTL: &str = "kubectl";

/// How many steps the paths of all conflicts that are reported may have together.
const MAX_CONFLICT_STEPS: usize = 100_000;

/// Most bytes of annotations; a longer last-applied configuration is left out.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// What belongs to the system: in nobody's set.
static NOBODYS: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields([
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

/// Keeps account of the owners of one kind's fields, as seen through one path to it.
#[derive(Clone, Debug)]
pub struct FieldManager {
    schema: SchemaRef,
    api_version: String,
    kind: &'static str,
    subresource: &'static str,
    /// The fields that writes through this path can change, hence own.
    writable: Writable,
}

/// What became of an applied configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The whole object, with `metadata.managedFields`; not decoded by the schema yet.
    pub object: Value,
}

/// The apiVersion of scales.
const SCALE_VERSION: &str = "autoscaling/v1";

impl FieldManager {
    /// For a resource, or a subresource of it such as `status`.
    pub fn new(resource: &Resource, subresource: &'static str) -> Self {
        let schema = SchemaRef::for_kind(resource.group, resource.version, resource.kind);
        Self {
            schema: schema.unwrap_or_else(SchemaRef::any),
            api_version: resource.api_version(),
            kind: resource.kind,
            subresource,
            writable: Writable::through(resource, subresource),
        }
    }

    /// Notes in `new` that `manager` owns what differs from `live` (`None` for a new object).
    ///
    /// Only the differences are looked at; an object whose owners nobody accounts for stays so until something is
    /// applied to it. A list item without its key leaves the object without `managedFields`, as upstream has it.
    pub fn update(&self, live: Option<&Object>, new: &mut Object, manager: &str, now: &str) {
        let given = new.metadata_mut().shift_remove("managedFields");
        let kept = live.and_then(managed_fields);
        let own = given.as_ref().filter(|_| self.subresource.is_empty());
        let entries = match own {
            Some(given) if is_reset(given) => Some(Entries::default()),
            Some(given) if Some(given) != kept => {
                Entries::decode(given).filter(|entries| !entries.0.is_empty())
            }
            _ => None,
        };
        if live.is_some()
            && entries
                .as_ref()
                .map_or(kept.is_none(), |entries| entries.0.is_empty())
        {
            return;
        }
        let zero;
        let before = match live {
            Some(live) => live.root(),
            None => {
                zero = self.zero();
                &zero
            }
        };
        let Ok(comparison) = compare(before, new.root(), &self.schema) else {
            return;
        };
        let comparison = comparison.kept(&self.writable);
        let written = comparison.written().difference(&NOBODYS);
        let removed = comparison.removed.difference(&NOBODYS);
        if entries.is_none() && written.is_empty() && removed.is_empty() {
            // Nothing changed hands; the entries need not even be read.
            set_managed_fields(new, kept.cloned());
            return;
        }
        let mut entries = entries.unwrap_or_else(|| decode_live(kept));
        if live.is_some() && entries.0.is_empty() {
            return;
        }
        self.note_update(&mut entries, &written, &removed, manager, now);
        set_managed_fields(new, entries.encode());
    }

    /// The configuration of the object that a configuration of its `scale` stands for.
    pub fn of_scale(&self, scale: &Value) -> Result<Value, ApplyError> {
        let checker = Self {
            schema: SchemaRef::for_kind("autoscaling", "v1", "Scale")
                .unwrap_or_else(SchemaRef::any),
            api_version: SCALE_VERSION.to_owned(),
            kind: "Scale",
            ..self.clone()
        };
        checker.check_config(scale)?;
        let mut metadata = Map::new();
        for field in ["name", "namespace", "uid", "resourceVersion"] {
            if let Some(value) = scale
                .get("metadata")
                .and_then(|metadata| metadata.get(field))
            {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
        let mut config =
            json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata});
        if let Some(replicas) = scale.get("spec").and_then(|spec| spec.get("replicas")) {
            config["spec"] = json!({"replicas": replicas});
        }
        Ok(config)
    }

    /// `managedFields` of the `scale` of an object: who owns the replicas, in the words of the scale.
    pub fn owners_of_scale(&self, object: &Object) -> Option<Value> {
        let replicas = FieldSet::of_fields(["spec.replicas"]);
        let mut entries = decode_live(managed_fields(object));
        entries.0.retain(|_, owned| {
            let known = owned.api_version == self.api_version;
            known && !owned.fields.intersection(&replicas).is_empty()
        });
        for owned in entries.0.values_mut() {
            owned.api_version = SCALE_VERSION.to_owned();
            owned.fields = replicas.clone();
        }
        entries.encode()
    }

    fn note_update(
        &self,
        entries: &mut Entries,
        written: &FieldSet,
        removed: &FieldSet,
        manager: &str,
        now: &str,
    ) {
        if !written.is_empty() {
            entries.take(written, None);
        }
        if !removed.is_empty() {
            entries.take(removed, None);
        }
        if !written.is_empty() {
            let identity = Identity::new(
                manager,
                Operation::Update,
                &self.api_version,
                self.subresource,
            );
            let owned = entries.0.entry(identity).or_insert_with(|| Owned {
                api_version: self.api_version.clone(),
                time: String::new(),
                fields: FieldSet::default(),
            });
            owned.fields = std::mem::take(&mut owned.fields).union(written);
            owned.time = now.to_owned();
        }
        entries.cap();
    }

    /// Applies a configuration to `live` (`None` for a new object).
    ///
    /// Fields that `manager` applied before and leaves out now go away unless others own them. A field that another
    /// manager owns with another value is a conflict, or with `force` becomes this manager's.
    pub fn apply(
        &self,
        live: Option<&Object>,
        config: &Value,
        manager: &str,
        force: bool,
        now: &str,
    ) -> Result<Applied, ApplyError> {
        self.check_config(config)?;
        let schema_error = |error: String| {
            let (namespace, name) = live.map_or(("", ""), |live| (live.namespace(), live.name()));
            let kind = self.group_version_kind(config);
            ApplyError::Schema(format!(
                "failed to create typed live object ({namespace}/{name}; {kind}): {error}"
            ))
        };
        let mut entries = decode_live(live.and_then(managed_fields));
        if let Some(live) = live.filter(|_| entries.0.is_empty()) {
            let all = compare(&self.zero(), live.root(), &self.schema).map_err(schema_error)?;
            let all = self.writable.of(&all.written()).difference(&NOBODYS);
            self.note_update(
                &mut entries,
                &all,
                &FieldSet::default(),
                BEFORE_FIRST_APPLY,
                now,
            );
        }
        let before = Value::Object(live.map_or_else(|| self.zero(), |live| live.root().clone()));
        let identity = Identity::new(manager, Operation::Apply, "", self.subresource);
        let last = entries.0.get(&identity).cloned();
        let fields = field_set(config, &self.schema).map_err(schema_error)?;
        let owned = Owned {
            api_version: self.api_version.clone(),
            time: last
                .as_ref()
                .map(|last| last.time.clone())
                .unwrap_or_default(),
            fields: self.writable.of(&fields),
        };
        entries.0.insert(identity.clone(), owned);
        let merged = merge::merge(&before, config, &self.schema).map_err(schema_error)?;
        let last_fields = last
            .map(|last| self.writable.of(&last.fields))
            .unwrap_or_default();
        let mut object = prune::prune(&merged, &last_fields, &entries.all_fields(), &self.schema)
            .map_err(schema_error)?;
        self.settle(&mut entries, &identity, (&before, &object), force)?;
        if let Some(owned) = entries.0.get_mut(&identity) {
            owned.fields = owned.fields.difference(&NOBODYS);
            if before != object {
                owned.time = now.to_owned();
            }
        }
        entries.0.retain(|_, owned| !owned.fields.is_empty());
        if manager == KUBECTL {
            follow_last_applied(&mut object, config);
        }
        let mut object = Object::from_value(object).unwrap_or_default();
        set_managed_fields(&mut object, entries.encode());
        Ok(Applied {
            object: object.into_value(),
        })
    }

    /// Takes what changes from its other owners, or reports them.
    fn settle(
        &self,
        entries: &mut Entries,
        applier: &Identity,
        (before, after): (&Value, &Value),
        force: bool,
    ) -> Result<(), ApplyError> {
        let empty = Map::new();
        let map = |value| Value::as_object(value).unwrap_or(&empty);
        let comparison = compare(map(before), map(after), &self.schema)
            .map_err(ApplyError::Schema)?
            .kept(&self.writable);
        let written = comparison.written();
        let mut contested = entries
            .0
            .iter()
            .filter(|(identity, _)| *identity != applier)
            .map(|(identity, owned)| (identity, owned.fields.intersection(&written)))
            .filter(|(_, fields)| !fields.is_empty())
            .peekable();
        if !force && contested.peek().is_some() {
            let allowed = match applier.manager == KUBECTL && applier.subresource.is_empty() {
                true => self.unchanged_since_last_applied(map(before)),
                false => FieldSet::default(),
            };
            let mut conflicts = Vec::new();
            let mut left = MAX_CONFLICT_STEPS;
            for (identity, fields) in contested {
                for path in fields.difference(&allowed).paths(left) {
                    left = left.saturating_sub(path.len());
                    conflicts.push(Conflict {
                        manager: identity.clone(),
                        path,
                    });
                }
            }
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
        }
        entries.take(&written, Some(applier));
        entries.take(&comparison.removed, Some(applier));
        Ok(())
    }

    /// The fields that `kubectl apply` stated last and that nobody changed since: kubectl may take them over.
    fn unchanged_since_last_applied(&self, live: &Map<String, Value>) -> FieldSet {
        let annotations = live
            .get("metadata")
            .and_then(|metadata| metadata.get("annotations"));
        let last = annotations
            .and_then(|annotations| annotations.get(LAST_APPLIED))
            .and_then(Value::as_str)
            .and_then(|text| schema::parse_json(text.as_bytes()).ok());
        let Some(last @ Value::Object(root)) = &last else {
            return FieldSet::default();
        };
        if last.get("apiVersion").and_then(Value::as_str) != Some(&self.api_version) {
            return FieldSet::default();
        }
        match (
            field_set(last, &self.schema),
            compare(live, root, &self.schema),
        ) {
            (Ok(fields), Ok(comparison)) => fields
                .difference(&comparison.written())
                .difference(&comparison.removed),
            _ => FieldSet::default(),
        }
    }

    /// Refuses configurations of another type, such that state owners, and such that don't fit the schema.
    fn check_config(&self, config: &Value) -> Result<(), ApplyError> {
        let text = |field: &str| {
            config
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let kind = self.group_version_kind(config);
        if text("apiVersion") != self.api_version || text("kind") != self.kind {
            return Err(ApplyError::BadRequest(format!(
                "invalid object type: {kind}"
            )));
        }
        let managed = config
            .get("metadata")
            .and_then(|metadata| metadata.get("managedFields"));
        if managed.is_some_and(|managed| !managed.is_null()) {
            let message = "metadata.managedFields must be nil";
            return Err(ApplyError::BadRequest(message.to_owned()));
        }
        check::check(config, &self.schema).map_err(|error| {
            let text = |field: &str| {
                let value = config
                    .get("metadata")
                    .and_then(|metadata| metadata.get(field));
                value.and_then(Value::as_str).unwrap_or_default()
            };
            let (namespace, name) = (text("namespace"), text("name"));
            ApplyError::Schema(format!(
                "failed to create typed patch object ({namespace}/{name}; {kind}): {error}"
            ))
        })
    }

    /// A configuration's type as Go prints it: `/v1, Kind=Pod`.
    fn group_version_kind(&self, config: &Value) -> String {
        let text = |field: &str| {
            config
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let version = text("apiVersion");
        if version.matches('/').count() > 1 {
            return "/, Kind=".to_owned(); // Go knows neither then
        }
        let slash = if version.contains('/') { "" } else { "/" };
        format!("{slash}{version}, Kind={}", text("kind"))
    }

    /// What Go writes for a new object of the kind.
    fn zero(&self) -> Map<String, Value> {
        match schema::zero(&self.schema) {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn managed_fields(object: &Object) -> Option<&Value> {
    object
        .root()
        .get("metadata")?
        .get("managedFields")
        .filter(|value| !value.is_null())
}

/// The entries of a stored object; none if they can't be read.
fn decode_live(value: Option<&Value>) -> Entries {
    value.and_then(Entries::decode).unwrap_or_default()
}

fn set_managed_fields(object: &mut Object, value: Option<Value>) {
    match value {
        Some(value) => object
            .metadata_mut()
            .insert("managedFields".to_owned(), value),
        None => object.metadata_mut().shift_remove("managedFields"),
    };
}

/// Keeps the annotation of client-side apply up to date, so that both ways of applying can be mixed.
fn follow_last_applied(object: &mut Value, config: &Value) {
    let annotations = object
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"))
        .and_then(Value::as_object_mut);
    let Some(annotations) = annotations.filter(|map| map.contains_key(LAST_APPLIED)) else {
        return;
    };
    let mut config = config.clone();
    let given = config
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"))
        .and_then(Value::as_object_mut);
    if let Some(given) = given {
        given.shift_remove(LAST_APPLIED);
    }
    config.sort_all_objects();
    annotations.shift_remove(LAST_APPLIED);
    let others: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    let text = format!("{config}\n");
    if others + LAST_APPLIED.len() + text.len() <= MAX_ANNOTATIONS {
        annotations.insert(LAST_APPLIED.to_owned(), text.into());
    }
}
