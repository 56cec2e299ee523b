//! CustomResourceDefinition: a kind that users bring.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::{columns, conversion, schema};
use crate::field_errors::{ErrorType, go_quote};
use crate::kinds::{ALL_VERBS, DEFAULT_COLUMNS, NameRule, STATUS, Storage, default_cells};
use crate::object::default_text;
use crate::schema::internal_form;
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of custom resource definitions.
pub static RESOURCE: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: DEFAULT_COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &CustomResourceDefinition,
};

/// CustomResourceDefinition: a kind that users bring.
///
/// What is the same in all versions, upstream looks at once, and names it in findings as if it stood beside them:
/// `spec.validation`, not `spec.versions[0].schema`.
pub struct CustomResourceDefinition;

/// The annotation by which a group of the project's own domain says that it may be.
const APPROVED: &str = "api-approved.kubernetes.io";
const APPROVAL_PAGE: &str = "https://github.com/kubernetes/enhancements/pull/1111";

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Object) {
        let names = object.map_mut("spec.names");
        let kind = names
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (singular, list) = (kind.to_lowercase(), format!("{kind}List"));
        if list != "List" {
            default_text(names, "singular", &singular);
            default_text(names, "listKind", &list);
        }
        object.set_default("spec.conversion", json!({"strategy": "None"}));
        conversion::default(object);
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        let versions = new.at("spec.versions");
        let stored = versions
            .items()
            .find(|version| version.key("storage").is_true())
            .map(|version| version.key("name").str().to_owned());
        new.set(
            "status",
            json!({"acceptedNames": {"plural": "", "kind": ""}}),
        );
        new.set("status.conditions", Value::Null);
        new.set(
            "status.storedVersions",
            stored.map_or(Value::Null, |name| json!([name])),
        );
    }

    fn prepare_for_update(&self, new: &mut Object, _old: &Object) {
        // What is stored from now on is remembered.
        let versions = new.at("spec.versions");
        let stored = versions
            .items()
            .find(|version| version.key("storage").is_true())
            .map(|version| json!(version.key("name").str()));
        let list = new.get_mut("status.storedVersions");
        if let (Some(stored), Some(list)) = (stored, list.and_then(Value::as_array_mut))
            && !list.contains(&stored)
        {
            list.push(stored);
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        let name = new.at("metadata.name");
        let wanted = format!(
            "{}.{}",
            spec.at("names.plural").str(),
            spec.key("group").str()
        );
        if !name.is_empty() && name.str() != wanted {
            errors.invalid(&name, "must be spec.names.plural+\".\"+spec.group");
        }
        self::spec(&spec, errors);
        names_of(&new.at("status.acceptedNames"), errors);
        stored_versions(new, errors);
        approval(new, errors);
        let keep = spec.key("preserveUnknownFields");
        if keep.is_true() {
            errors.invalid(
                &keep,
                "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            );
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let conditions = old.at("status.conditions");
        let established = conditions.items().any(|condition| {
            condition.key("type").str() == "Established" && condition.key("status").str() == "True"
        });
        let mut same = |field: &str| errors.immutable(&new.at(field), &old.at(field));
        if established {
            same("spec.scope");
            same("spec.names.kind");
        }
        same("spec.group");
        same("spec.names.plural");
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        names_of(&new.at("status.acceptedNames"), errors);
        stored_versions(new, errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let before = old.map(unrecognized_formats).unwrap_or_default();
        let mut formats = unrecognized_formats(new);
        formats.retain(|format| !before.contains(format));
        let formats = formats.iter().map(|format| go_quote(format));
        formats
            .map(|format| format!("unrecognized format {format}"))
            .collect()
    }

    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        default_cells(object)
    }
}

/// Formats of texts that nobody will check.
fn unrecognized_formats(definition: &Object) -> Vec<String> {
    let mut found = Vec::new();
    for version in definition.at("spec.versions").items() {
        let schema = version.key("schema").key("openAPIV3Schema");
        schema::unrecognized_formats(&schema, &mut found);
    }
    found
}

/// A field of versions: at each of them, or once for all when it is the same everywhere.
struct Shared<'a> {
    /// Its place and the path to show, when all versions have the same.
    all: Option<At<'a>>,
}

fn shared<'a>(versions: &At<'a>, field: &str, path: &str) -> Shared<'a> {
    let mut items = versions.items().map(|version| version.key(field).value());
    let same = match items.next() {
        None => None,
        Some(first) => items.all(|other| other == first).then_some(first),
    };
    Shared {
        all: same.map(|value| At::maybe(value, path)),
    }
}

fn spec(spec: &At<'_>, errors: &mut FieldErrors) {
    let group = spec.key("group");
    let problems = names::dns1123_subdomain(group.str());
    if group.is_empty() {
        errors.required(&group, "");
    } else if !problems.is_empty() {
        errors.invalid(&group, problems.join(","));
    } else if !group.str().contains('.') {
        errors.invalid(&group, "should be a domain with at least one dot");
    }
    let scope = spec.key("scope");
    if scope.is_empty() {
        errors.required(&scope, "");
    } else {
        errors.one_of(&scope, &["Cluster", "Namespaced"]);
    }
    let versions = spec.key("versions");
    let schemas = shared(&versions, "schema", "spec.validation");
    let subresources = shared(&versions, "subresources", "spec.subresources");
    let printed = shared(
        &versions,
        "additionalPrinterColumns",
        "spec.additionalPrinterColumns",
    );
    let selectable = shared(&versions, "selectableFields", "spec.selectableFields");
    for version in versions.items() {
        let schema = version.at("schema.openAPIV3Schema");
        if !schema.exists() {
            errors.required(&schema, "");
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    let (mut unique, mut storage) = (true, 0);
    for version in versions.items() {
        let name = version.key("name");
        storage += usize::from(version.key("storage").is_true());
        unique &= !seen.contains(&name.str());
        seen.push(name.str());
        let problems = names::dns1035_label(name.str());
        if !problems.is_empty() {
            let shown = Some(name.str().into());
            errors.push(ErrorType::Invalid, name.path(), shown, problems.join(","));
        }
        deprecation(&version, errors);
        let status = version.at("subresources.status").exists();
        if schemas.all.is_none() {
            schema::validation(&version.key("schema"), status, errors);
        }
        if subresources.all.is_none() {
            columns::subresources(&version.key("subresources"), errors);
        }
        if printed.all.is_none() {
            columns::printed(&version.key("additionalPrinterColumns"), errors);
        }
        if selectable.all.is_none() {
            let root = version.at("schema.openAPIV3Schema");
            columns::selectable(&version.key("selectableFields"), &root, errors);
        }
    }
    let hoisted = [&schemas, &subresources, &printed, &selectable].map(|s| s.all.is_some());
    let mut whole = |detail: &str| {
        let shown = Some(internal_versions(&versions, hoisted));
        errors.push(ErrorType::Invalid, versions.path(), shown, detail);
    };
    if !unique {
        whole("must contain unique version names");
    }
    if storage != 1 {
        whole("must have exactly one version marked as storage version");
    }
    let names = spec.key("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if names.key(field).is_empty() {
            errors.required(&names.key(field), "");
        }
    }
    names_of(&names, errors);
    let status = versions
        .items()
        .any(|version| version.at("subresources.status").exists());
    if let Some(schema) = &schemas.all {
        schema::validation(schema, status, errors);
    }
    if let Some(subresources) = &subresources.all {
        columns::subresources(subresources, errors);
    }
    if let Some(printed) = &printed.all {
        columns::printed(printed, errors);
    }
    if let Some(fields) = &selectable.all {
        let first = versions.index(0).at("schema.openAPIV3Schema");
        columns::selectable(fields, &first, errors);
    }
    conversion::conversion(&spec.key("conversion"), errors);
}

/// The versions as upstream shows them: without what it has taken out of them.
fn internal_versions(versions: &At<'_>, hoisted: [bool; 4]) -> Value {
    const FIELDS: [&str; 4] = [
        "schema",
        "subresources",
        "additionalPrinterColumns",
        "selectableFields",
    ];
    const VERSION: &str =
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionVersion";
    let Some(list) = versions.value().and_then(Value::as_array) else {
        return Value::Null;
    };
    let shown = list.iter().map(|version| {
        let mut version = match version {
            Value::Null => json!({}),
            version => version.clone(),
        };
        if let Some(map) = version.as_object_mut() {
            for (field, _) in FIELDS.iter().zip(hoisted).filter(|(_, gone)| *gone) {
                map.shift_remove(*field);
            }
        }
        internal_form(VERSION, Some(&version))
    });
    Value::Array(shown.collect())
}

fn deprecation(version: &At<'_>, errors: &mut FieldErrors) {
    const MOST: usize = 256;
    let warning = version.key("deprecationWarning");
    let Some(text) = warning.as_str() else {
        return;
    };
    if !version.key("deprecated").is_true() {
        errors.invalid(&warning, "can only be set for deprecated versions");
    }
    if text.len() > MOST {
        errors.invalid(&warning, format!("must be <= {MOST} characters long"));
    }
    if text.is_empty() {
        errors.invalid(&warning, "must not be an empty string");
    }
    if let Some((index, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        errors.invalid(
            &warning,
            format!(
                "must only contain printable UTF-8 characters; non-printable character found at index {index}"
            ),
        );
    }
}

/// Names of the kind, as asked for or as accepted.
fn names_of(names: &At<'_>, errors: &mut FieldErrors) {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    for field in ["plural", "singular", "kind", "listKind"] {
        let at = names.key(field);
        let mixed = matches!(field, "kind" | "listKind");
        let problems = match mixed {
            true => names::dns1035_label(&at.str().to_lowercase()),
            false => names::dns1035_label(at.str()),
        };
        if !at.is_empty() && !problems.is_empty() {
            let prefix = if mixed { MIXED } else { "" };
            errors.invalid(&at, format!("{prefix}{}", problems.join(",")));
        }
    }
    let mut labels = |field: &str| {
        for label in names.key(field).items() {
            let problems = names::dns1035_label(label.str());
            if !problems.is_empty() {
                errors.invalid(&label, problems.join(","));
            }
        }
    };
    labels("shortNames");
    let (kind, list) = (names.key("kind"), names.key("listKind"));
    if !kind.is_empty() && kind.str() == list.str() {
        errors.invalid(&list, "kind and listKind may not be the same");
    }
    let mut labels = |field: &str| {
        for label in names.key(field).items() {
            let problems = names::dns1035_label(label.str());
            if !problems.is_empty() {
                errors.invalid(&label, problems.join(","));
            }
        }
    };
    labels("categories");
}

/// Every version in which objects may still be stored is a version of the kind.
fn stored_versions(new: &Object, errors: &mut FieldErrors) {
    let stored = new.at("status.storedVersions");
    if stored.is_empty() {
        errors.invalid(&stored, "must have at least one stored version");
    }
    let versions = new.at("spec.versions");
    for version in stored.items() {
        let name = version.str();
        if !versions
            .items()
            .any(|other| other.key("name").str() == name)
        {
            errors.invalid(
                &version,
                format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in \
                     spec.versions until a storage migration ensures no data remains persisted in {name} and removes \
                     {name} from status.storedVersions"
                ),
            );
        }
    }
}

/// Groups of the project's own domains need somebody's approval.
fn approval(new: &Object, errors: &mut FieldErrors) {
    let group = new.at("spec.group").str();
    let own = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    if !own {
        return;
    }
    let annotation = new.at("metadata.annotations").entry(APPROVED);
    match annotation.str() {
        "" => errors.required(
            &annotation,
            format!(
                "protected groups must have approval annotation {APPROVED:?}, see {APPROVAL_PAGE}"
            ),
        ),
        text if text.starts_with("unapproved") || text.contains("://") => {}
        _ => errors.invalid(
            &annotation,
            format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting \
                 with \"unapproved\", see {APPROVAL_PAGE}"
            ),
        ),
    }
}
