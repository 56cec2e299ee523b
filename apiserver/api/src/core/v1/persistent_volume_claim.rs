//! PersistentVolumeClaim: a Pod's claim to a volume.

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::object::{default_text, default_value};
use crate::quantity::Quantity;
use crate::schema::{internal_form, show_empties};
use crate::validation::{diff, names, selectors};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of persistentvolumeclaims.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &PersistentVolumeClaim,
};

/// The ways in which a volume can be mounted.
pub const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// The name of the storage class, before it was a field.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// PersistentVolumeClaim: a Pod's claim to a volume.
pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Object) {
        defaults(object.root_mut());
    }

    fn prepare_for_create(&self, new: &mut Object) {
        // The phase comes when the claim is read.
        new.set("status", json!({}));
        settle_sources(new, None);
    }

    fn read_back(&self) -> Option<fn(&mut Object) -> bool> {
        Some(|object| {
            let unknown = object.at("status.phase").is_empty();
            if unknown {
                object.set("status.phase", "Pending");
            }
            unknown
        })
    }

    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        settle_sources(new, Some(old));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        claim_spec(&new.at("spec"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        update(new, old, errors);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        let status = new.at("status");
        for list in ["capacity", "allocatedResources"] {
            for (_, quantity) in status.key(list).entries() {
                let negative = parsed(&quantity).is_some_and(|quantity| quantity.is_negative());
                if negative {
                    errors.invalid(&quantity, "must be a valid resource quantity");
                }
            }
        }
        let states = status.key("allocatedResourceStatuses");
        for (name, state) in states.entries() {
            if !resource_key(name, &states, errors) {
                continue;
            }
            if !RESIZE_STATES.contains(&state.str()) {
                // Upstream shows the resource here, not its state.
                let name = Value::from(name);
                errors.not_supported(&At::maybe(Some(&name), states.path()), &RESIZE_STATES);
            }
        }
        let allocated = status.key("allocatedResources");
        for (name, _) in allocated.entries() {
            resource_key(name, &allocated, errors);
        }
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        if new
            .at("metadata.annotations")
            .entry(CLASS_ANNOTATION)
            .exists()
        {
            found.push(format!(
                "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute \
                 instead"
            ));
        }
        found.extend(spec_warnings(&new.at("spec")));
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (object.at("spec"), object.at("status"));
        let phase = if object.is_terminating() {
            "Terminating"
        } else {
            status.key("phase").str()
        };
        let volume = spec.key("volumeName").str();
        let (modes, capacity) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            let capacity = status.key("capacity").entry("storage");
            (
                modes_text(&status.key("accessModes")),
                if capacity.exists() {
                    quantity_text(&capacity)
                } else {
                    "0".to_owned()
                },
            )
        };
        vec![
            object.name().into(),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class_of(object).into(),
            attributes_class(&spec).into(),
            age(object, now),
            spec.key("volumeMode").as_str().unwrap_or("<unset>").into(),
        ]
    }
}

/// Fills in a claim, or a template of claims.
pub fn defaults(claim: &mut Map<String, Value>) {
    default_value(claim, "status", || json!({}));
    if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
        default_text(status, "phase", "Pending");
    }
    default_value(claim, "spec", || json!({}));
    if let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) {
        default_value(spec, "volumeMode", || json!("Filesystem"));
    }
}

/// `dataSource` and `dataSourceRef` say the same in the end. What had no meaning while there was only `dataSource` is
/// forgotten there, and so is a reference to another namespace, which belongs to a feature that is off upstream.
fn settle_sources(claim: &mut Object, old: Option<&Object>) {
    let had = |field: &str| old.is_some_and(|old| old.at(field).exists());
    let (of_old, of_new) = ("spec.dataSource", "spec.dataSourceRef");
    let elsewhere = claim.at("spec.dataSourceRef.namespace");
    if elsewhere.exists() {
        if elsewhere.is_empty() {
            claim.remove("spec.dataSourceRef.namespace");
        } else if !had(of_new) {
            claim.remove(of_new);
        }
    }
    let source = claim.at(of_old);
    if source.exists()
        && !claim.at(of_new).exists()
        && !had(of_old)
        && !was_always_a_source(&source)
    {
        claim.remove(of_old);
    }
    let source = claim.at(of_old).value().cloned();
    let reference = claim.at(of_new).value().cloned();
    match (source, reference) {
        (Some(source), None) => claim.set(of_new, source),
        (None, Some(reference)) if !claim.at("spec.dataSourceRef.namespace").exists() => {
            claim.set(of_old, reference);
        }
        _ => {}
    }
}

fn was_always_a_source(source: &At<'_>) -> bool {
    matches!(
        (source.key("apiGroup").str(), source.key("kind").str()),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// Reports what is wrong with the spec of a claim, of a claim's template, or of an ephemeral volume.
pub fn claim_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    let modes = spec.key("accessModes");
    if modes.is_empty() {
        errors.required(&modes, "at least 1 access mode is required");
    }
    if spec.key("selector").exists() {
        selectors::label_selector(&spec.key("selector"), errors);
    }
    access_modes(&modes, errors);
    storage(spec, errors);
    optional_name(&spec.key("storageClassName"), errors);
    volume_mode(&spec.key("volumeMode"), errors);
    let (source, reference) = (spec.key("dataSource"), spec.key("dataSourceRef"));
    data_source(&source, errors);
    data_source(&reference, errors);
    let namespace = reference.key("namespace");
    if !namespace.str().is_empty() {
        errors.text(&namespace, names::dns1123_label);
    }
    if source.exists() && reference.exists() {
        let same = ["apiGroup", "kind", "name"]
            .iter()
            .all(|field| source.key(field).as_str() == reference.key(field).as_str());
        let detail = if !namespace.str().is_empty() {
            Some("may not be specified when dataSourceRef.namespace is specified")
        } else {
            (!same).then_some("must match dataSourceRef")
        };
        if let Some(detail) = detail {
            // Upstream shows its own path object, which is empty in JSON.
            errors.push(ErrorType::Invalid, spec.path(), Some(json!({})), detail);
        }
    }
    optional_name(&spec.key("volumeAttributesClassName"), errors);
}

/// Reports access modes that are not known or don't go together.
pub fn access_modes(modes: &At<'_>, errors: &mut FieldErrors) {
    for mode in modes.items() {
        let shown = Value::from(mode.str());
        errors.one_of(&At::maybe(Some(&shown), modes.path()), ACCESS_MODES);
    }
    let known = |mode: &At<'_>| ACCESS_MODES.contains(&mode.str());
    let single = |mode: &At<'_>| mode.str() == "ReadWriteOncePod";
    if modes.items().any(|mode| single(&mode))
        && modes.items().any(|mode| known(&mode) && !single(&mode))
    {
        errors.forbidden(
            modes,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

/// Reports a volume mode that is not known.
pub fn volume_mode(mode: &At<'_>, errors: &mut FieldErrors) {
    if mode.exists() {
        errors.one_of(mode, &["Block", "Filesystem"]);
    }
}

fn storage(spec: &At<'_>, errors: &mut FieldErrors) {
    let request = spec.at("resources.requests").entry("storage");
    // Upstream leaves `requests` out of this path.
    let at = At::maybe(
        request.value(),
        format!("{}[storage]", spec.key("resources").path()),
    );
    if !at.exists() && !spec.at("resources.requests").entry("storage").exists() {
        return errors.required(&at, "");
    }
    let quantity = parsed(&request);
    if quantity.is_some_and(|quantity| quantity.is_negative() || quantity.is_zero()) {
        quantity_invalid(&at, "must be greater than zero", errors);
    }
}

/// An invalid quantity, shown in its canonical form.
pub fn quantity_invalid(at: &At<'_>, detail: &str, errors: &mut FieldErrors) {
    errors.push(
        ErrorType::Invalid,
        at.path(),
        Some(quantity_text(at).into()),
        detail,
    );
}

fn optional_name(at: &At<'_>, errors: &mut FieldErrors) {
    if !at.str().is_empty() {
        errors.text(at, names::dns1123_subdomain);
    }
}

fn data_source(source: &At<'_>, errors: &mut FieldErrors) {
    if !source.exists() {
        return;
    }
    for field in ["name", "kind"] {
        if source.key(field).str().is_empty() {
            errors.required(&source.key(field), "");
        }
    }
    let (group, kind) = (source.key("apiGroup"), source.key("kind").str());
    if group.str().is_empty() && kind != "PersistentVolumeClaim" {
        errors.push(
            ErrorType::Invalid,
            source.path(),
            Some(kind.into()),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        );
    }
    optional_name(&group, errors);
}

/// A claim stays as it was made, but for the volume it gets, and the size of a bound one.
fn update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let spec_of = |object: &Object| {
        let spec = object.at("spec");
        let map = spec.value().and_then(Value::as_object);
        map.cloned().unwrap_or_default()
    };
    let (mut now, mut was) = (spec_of(new), spec_of(old));
    let copy = |from: &Map<String, Value>, to: &mut Map<String, Value>, field: &str| match from
        .get(field)
    {
        Some(value) => {
            to.insert(field.to_owned(), value.clone());
        }
        None => {
            to.shift_remove(field);
        }
    };
    if old.at("spec.volumeName").is_empty() {
        copy(&now, &mut was, "volumeName");
    }
    class_change(new, old, &mut now, errors);
    let bound = old.at("status.phase").str() == "Bound";
    if bound && new.at("spec.resources.requests").exists() {
        let before = old.at("spec.resources.requests").entry("storage");
        let requests = now
            .get_mut("resources")
            .and_then(|resources| resources.get_mut("requests"))
            .and_then(Value::as_object_mut);
        if let (Some(requests), Some(before)) = (requests, before.value()) {
            requests.insert("storage".to_owned(), before.clone());
        }
    }
    copy(&was, &mut now, "volumeAttributesClassName");
    let definition = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";
    let shown = |map: Map<String, Value>| internal_form(definition, Some(&Value::Object(map)));
    let (mut now, was) = (shown(now), shown(was));
    if now != was {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        show_empties(&mut now, "spec", new.empties());
        errors.forbidden(
            &new.at("spec"),
            format!("{detail}\n{}", diff::values(&was, &now)),
        );
    }
    smaller(new, old, errors);
    let mode = At::maybe(new.at("spec.volumeMode").value(), "volumeMode");
    errors.immutable(&mode, &old.at("spec.volumeMode"));
    let (class, before) = (
        new.at("spec.volumeAttributesClassName"),
        old.at("spec.volumeAttributesClassName"),
    );
    if before.exists() && class.as_str() != before.as_str() {
        let detail = match class.as_str() {
            None => "update from non-nil value to nil is forbidden",
            Some("") => "update from non-nil value to an empty string is forbidden",
            Some(_) => return,
        };
        errors.forbidden(&class, detail);
    }
}

/// The class may be set where there was none, if the old annotation agrees.
fn class_change(
    new: &Object,
    old: &Object,
    now: &mut Map<String, Value>,
    errors: &mut FieldErrors,
) {
    let annotation = |object: &'_ Object| {
        let at = object.at("metadata.annotations").entry(CLASS_ANNOTATION);
        at.as_str().map(str::to_owned)
    };
    let (noted, was_noted) = (annotation(new), annotation(old));
    let (class, was) = (
        new.at("spec.storageClassName").as_str(),
        old.at("spec.storageClassName").as_str(),
    );
    let set = was.is_none() && class.is_some();
    let from_annotation = set
        && was_noted.as_deref() == class
        && noted
            .as_ref()
            .is_none_or(|noted| Some(noted) == was_noted.as_ref());
    if from_annotation {
        now.shift_remove("storageClassName");
        return;
    }
    if noted != was_noted {
        errors.push(
            ErrorType::Invalid,
            &format!("metadata.annotations[{CLASS_ANNOTATION}]"),
            Some(noted.unwrap_or_default().into()),
            "field is immutable",
        );
    }
    if set && was_noted.is_none_or(|noted| Some(noted.as_str()) == class) {
        now.shift_remove("storageClassName");
    }
}

/// A claim may shrink again as far as its volume had not grown yet.
fn smaller(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let size = |object: &Object, list: &str| {
        let at = object.at(list).entry("storage");
        parsed(&at).unwrap_or_else(|| Quantity::from_value(0))
    };
    let now = size(new, "spec.resources.requests");
    if now < size(old, "spec.resources.requests") && now <= size(old, "status.capacity") {
        errors.forbidden(
            &At::maybe(None, "spec.resources.requests.storage"),
            "field can not be less than status.capacity",
        );
    }
}

/// Warnings about a claim's spec.
pub fn spec_warnings(spec: &At<'_>) -> Option<String> {
    let storage = spec.at("resources.requests").entry("storage");
    let quantity = parsed(&storage)?;
    (Quantity::from_value(quantity.value()) != quantity).then(|| {
        format!(
            "{}: fractional byte value {:?} is invalid, must be an integer",
            storage.path(),
            quantity.to_string()
        )
    })
}

/// The quantity here.
pub fn parsed(at: &At<'_>) -> Option<Quantity> {
    match at.value()? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// The quantity here in its canonical form; what is none as it stands.
pub fn quantity_text(at: &At<'_>) -> String {
    parsed(at).map_or_else(|| at.str().to_owned(), |quantity| quantity.to_string())
}

/// Access modes as tables show them: `RWO,ROX`.
pub fn modes_text(modes: &At<'_>) -> String {
    let has = |mode: &str| modes.items().any(|item| item.str() == mode);
    let short: Vec<&str> = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter_map(|(mode, short)| has(mode).then_some(short))
    .collect();
    short.join(",")
}

/// The storage class of a volume or claim.
pub fn class_of(object: &Object) -> String {
    let annotation = object.at("metadata.annotations").entry(CLASS_ANNOTATION);
    let class = object.at("spec.storageClassName");
    annotation.as_str().unwrap_or(class.str()).to_owned()
}

/// The class of a volume's or claim's attributes, as tables show it.
pub fn attributes_class(spec: &At<'_>) -> String {
    let class = spec.key("volumeAttributesClassName");
    class.as_str().unwrap_or("<unset>").to_owned()
}

/// How far a change of what a claim has may be.
const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// Whether claims have a resource of that name; of Kubernetes' own that is the storage alone.
fn resource_key(name: &str, map: &At<'_>, errors: &mut FieldErrors) -> bool {
    let shown = Value::from(name);
    let place = At::maybe(Some(&shown), map.path());
    let before = errors.len();
    errors.text(&place, names::qualified_name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if errors.len() == before && native && name != "storage" {
        errors.not_supported(&place, &["storage"]);
    }
    errors.len() == before
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Status",
        "phase represents the current phase of PersistentVolumeClaim.",
    ),
    Column::string(
        "Volume",
        "volumeName is the binding reference to the PersistentVolume backing this claim.",
    ),
    Column::string(
        "Capacity",
        "capacity represents the actual resources of the underlying volume.",
    ),
    Column::string(
        "Access Modes",
        "accessModes contains the actual access modes the volume backing the PVC has. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
    ),
    Column::string("StorageClass", "StorageClass of the pvc"),
    Column::string("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    Column::wide(
        "VolumeMode",
        "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not \
         included in claim spec.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(spec: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        claim_spec(&At::root(&spec, "spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn accepted_and_refused_side_by_side() {
        let sized = json!({"requests": {"storage": "1Gi"}});
        assert!(findings(json!({"accessModes": ["ReadWriteOnce"], "resources": sized})).is_empty());
        assert_eq!(
            findings(json!({})),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ]
        );
        assert_eq!(
            findings(
                json!({"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "resources": sized})
            ),
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]
        );
    }

    #[test]
    fn sources_without_meaning_are_forgotten() {
        let claim = |spec: Value| Object::from_value(json!({"spec": spec})).expect("an object");
        let other = json!({"kind": "Backup", "apiGroup": "example.com", "name": "a"});
        let snapshot =
            json!({"kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io", "name": "a"});
        let mut elsewhere = other.clone();
        elsewhere["namespace"] = "b".into();
        for (spec, left) in [
            (json!({"dataSource": other}), json!({})),
            (
                json!({"dataSource": snapshot}),
                json!({"dataSource": snapshot, "dataSourceRef": snapshot}),
            ),
            (
                json!({"dataSourceRef": other}),
                json!({"dataSourceRef": other, "dataSource": other}),
            ),
            (json!({"dataSourceRef": elsewhere}), json!({})),
        ] {
            let mut new = claim(spec.clone());
            settle_sources(&mut new, None);
            assert_eq!(new.at("spec").value(), Some(&left), "{spec}");
        }
        let old = claim(json!({"dataSource": other, "dataSourceRef": other}));
        let mut new = claim(json!({"dataSource": other}));
        settle_sources(&mut new, Some(&old));
        assert_eq!(new.at("spec").value(), old.at("spec").value());
    }

    #[test]
    fn a_claim_stays_as_it_was_made() {
        let claim = |spec: Value| {
            let mut object = Object::from_value(json!({"spec": spec})).expect("an object");
            PersistentVolumeClaim.default(&mut object);
            object
        };
        let check = |new: &Object, old: &Object| {
            let mut errors = FieldErrors::default();
            update(new, old, &mut errors);
            errors.len()
        };
        let old = claim(json!({"accessModes": ["ReadWriteOnce"]}));
        assert_eq!(
            check(
                &claim(json!({"accessModes": ["ReadWriteOnce"], "volumeName": "v"})),
                &old
            ),
            0
        );
        assert_eq!(
            check(&claim(json!({"accessModes": ["ReadOnlyMany"]})), &old),
            1
        );
    }
}
