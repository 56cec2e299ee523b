//! VolumeAttachment: a wish to attach a volume to a node, and what came of it.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::csi_driver_name;
use crate::core::v1::persistent_volume;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::schema::{SchemaRef, go_form};
use crate::strategy::ALL_METADATA;
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// Most bytes of what the driver notes about an attached volume.
const MOST_METADATA_BYTES: usize = 256 * 1024;
/// Most bytes of a message about a failure.
const MOST_MESSAGE_BYTES: usize = 1024;

/// What the pipeline knows of volume attachments.
pub static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &VolumeAttachment,
};

/// VolumeAttachment: a wish to attach a volume to a node, and what came of it.
pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({"attached": false}));
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        ALL_METADATA
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        if spec.key("attacher").is_empty() {
            errors.required(&spec.key("attacher"), "");
        }
        source(&spec.key("source"), errors);
        errors.text(&spec.key("nodeName"), names::dns1123_subdomain);
        status(&new.at("status"), errors);
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        let attacher = new.at("spec.attacher");
        if !attacher.is_empty() {
            csi_driver_name(&attacher, errors);
        }
        let volume = new.at("spec.source.persistentVolumeName");
        if volume.exists() {
            errors.text(&volume, names::dns1123_subdomain);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        // Upstream looks twice.
        self.validate(new, errors);
        let (now, before) = (new.at("spec"), old.at("spec"));
        if now.value() != before.value() {
            let schema = SchemaRef::for_kind("storage.k8s.io", "v1", "VolumeAttachment")
                .and_then(|kind| kind.child("spec"))
                .unwrap_or_else(SchemaRef::any);
            let shown = go_form(now.value().unwrap_or(&Value::Null), &schema);
            errors.invalid_as(&now, shown, "field is immutable");
        }
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        self.validate(new, errors);
        self.validate_update(new, old, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        vec![
            object.name().into(),
            spec.key("attacher").str().into(),
            spec.at("source.persistentVolumeName").str().into(),
            spec.key("nodeName").str().into(),
            object.at("status.attached").is_true().into(),
            age(object, now),
        ]
    }
}

fn source(at: &At<'_>, errors: &mut FieldErrors) {
    let (name, inline) = (at.key("persistentVolumeName"), at.key("inlineVolumeSpec"));
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.exists(), name.exists()) {
        (false, false) => errors.required(at, detail),
        (true, true) => errors.forbidden(at, detail),
        (false, true) if name.is_empty() => {
            errors.required(&name, "must specify non empty persistentVolumeName");
        }
        (true, false) => persistent_volume::validate_spec(&inline, true, errors),
        _ => {}
    }
}

fn status(at: &At<'_>, errors: &mut FieldErrors) {
    let metadata = at.key("attachmentMetadata");
    let bytes: usize = metadata
        .entries()
        .map(|(key, value)| key.len() + value.str().len())
        .sum();
    if bytes > MOST_METADATA_BYTES {
        errors.too_long(&metadata, MOST_METADATA_BYTES);
    }
    for error in [at.key("attachError"), at.key("detachError")] {
        if error.key("message").str().len() > MOST_MESSAGE_BYTES {
            // Upstream names the other limit.
            errors.too_long(&error.key("message"), MOST_METADATA_BYTES);
        }
        let code = error.key("errorCode");
        if code.as_i64().is_some_and(|code| code < 0) {
            errors.invalid(&code, "must be between 0 and 2147483647, inclusive");
        }
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Attacher",
        "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned \
         by GetPluginName().",
    ),
    Column::string(
        "PV",
        "persistentVolumeName represents the name of the persistent volume to attach.",
    ),
    Column::string(
        "Node",
        "nodeName represents the node that the volume should be attached to.",
    ),
    Column {
        name: "Attached",
        kind: "boolean",
        format: "",
        description: "attached indicates the volume is successfully attached. This field must only be set by the \
                      entity completing the attach operation, i.e. the external-attacher.",
        priority: 0,
    },
    AGE,
];
