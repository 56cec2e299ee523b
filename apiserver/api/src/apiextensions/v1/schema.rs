//! Schemas as OpenAPI has them: what of it may be said, and what goes together.

use serde_json::Value;

use super::declared::{self, Declared};
use super::structural;
use crate::field_errors::ErrorType;
use crate::schema::internal_form;
use crate::{At, FieldErrors};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
/// What a root schema may say when `status` is taken out of it.
const AT_ROOT: &[&str] = &[
    "description",
    "example",
    "externalDocs",
    "format",
    "required",
    "title",
    "type",
    "items",
    "additionalItems",
    "properties",
    "additionalProperties",
    "patternProperties",
    "dependencies",
    "definitions",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
/// Vocabulary that Kubernetes does not take.
const UNSUPPORTED: &[&str] = &[
    "id",
    "additionalItems",
    "patternProperties",
    "definitions",
    "dependencies",
];

/// Formats of texts that are checked: `supportedVersionedFormats` of `k8s.io/apiextensions-apiserver`, without dashes.
const FORMATS: &[&str] = &[
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "quantity",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Collects the formats of texts in and below a schema that are none of those.
pub(super) fn unrecognized_formats(at: &At<'_>, found: &mut Vec<String>) {
    let (kind, format) = (at.key("type"), at.key("format"));
    let known = || FORMATS.contains(&format.str().replace('-', "").as_str());
    if kind.str() == "string" && !format.is_empty() && !known() {
        found.push(format.str().to_owned());
    }
    below(at, &mut |schema| unrecognized_formats(schema, found));
}

/// Reports what is wrong with the schema of a version, or of all.
pub(super) fn validation(at: &At<'_>, status: bool, errors: &mut FieldErrors) {
    let schema = at.key("openAPIV3Schema");
    if !schema.exists() {
        return;
    }
    if status {
        root_with_status(&schema, errors);
    }
    if schema.key("nullable").is_true() {
        errors.forbidden(
            &schema.key("nullable"),
            "nullable cannot be true at the root",
        );
    }
    let mut found = FieldErrors::default();
    openapi(&schema, None, &mut found);
    if !structural::check(&schema, errors) && found.is_empty() {
        let before = errors.len();
        structural::defaults(&schema, errors);
        if errors.len() == before {
            // Rules are looked at only where what they are about makes sense.
            openapi(&schema, Some(&mut Declared::default()), &mut found);
        }
    }
    for error in found.iter() {
        let (field, detail) = (error.field.as_str(), error.detail.as_str());
        errors.push(error.kind, field, error.value.clone(), detail);
    }
}

fn root_with_status(schema: &At<'_>, errors: &mut FieldErrors) {
    let given = schema.value().and_then(Value::as_object);
    for (field, value) in given.into_iter().flatten() {
        let place = schema.key(field);
        if place.is_empty() {
            continue;
        }
        if field == "type" && value != "object" {
            errors.invalid(
                &place,
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
            );
            return;
        }
        if !AT_ROOT.contains(&field.as_str()) {
            errors.forbidden(
                schema,
                "only [Description Example ExternalDocs Format Required Title Type Items AdditionalItems Properties \
                 AdditionalProperties PatternProperties Dependencies Definitions XPreserveUnknownFields XValidations] \
                 fields are allowed at the root of the schema if the status subresource is enabled",
            );
            return;
        }
    }
}

/// Reports what is wrong with a schema and those below; expressions are checked if there is where to look for types.
fn openapi(at: &At<'_>, mut types: Option<&mut Declared>, errors: &mut FieldErrors) {
    let kind = at.key("type");
    if !kind.is_empty() && !TYPES.contains(&kind.str()) {
        errors.not_supported(&kind, TYPES);
    }
    for field in UNSUPPORTED {
        if !at.key(field).is_empty() {
            errors.forbidden(&at.key(field), format!("{field} is not supported"));
        }
    }
    if at.key("$ref").exists() {
        errors.forbidden(&at.key("$ref"), "$ref is not supported");
    }
    if kind.str() == "null" {
        errors.forbidden(
            &kind,
            "type cannot be set to null, use nullable as an alternative",
        );
    }
    let items = at.key("items");
    if items
        .value()
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
    {
        errors.forbidden(&items, "items must be a schema object and not an array");
    }
    if at.key("uniqueItems").is_true() {
        errors.forbidden(
            &at.key("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    let more = at.key("additionalProperties");
    if more.exists() && !at.key("properties").is_empty() {
        errors.forbidden(
            &more,
            "additionalProperties and properties are mutual exclusive",
        );
    }
    below(at, &mut |schema| {
        openapi(schema, types.as_deref_mut(), errors)
    });
    let keep = at.key("x-kubernetes-preserve-unknown-fields");
    if keep.as_bool() == Some(false) {
        errors.invalid(&keep, "must be true or undefined");
    }
    lists_and_maps(at, errors);
    rules(at, types, errors);
}

/// Calls `check` with every schema directly below one, in the order in which upstream looks at them.
pub(super) fn below(at: &At<'_>, check: &mut dyn FnMut(&At<'_>)) {
    let is_schema = |at: &At<'_>| at.value().is_some_and(Value::is_object);
    let more = at.key("additionalProperties");
    if is_schema(&more) {
        check(&more);
    }
    let properties = at.key("properties");
    for (_, property) in properties.entries() {
        check(&property);
    }
    if is_schema(&at.key("not")) {
        check(&at.key("not"));
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for schema in at.key(field).items() {
            check(&schema);
        }
    }
    if is_schema(&at.key("items")) {
        check(&at.key("items"));
    }
}

/// How lists and maps are merged.
fn lists_and_maps(at: &At<'_>, errors: &mut FieldErrors) {
    let kind = at.key("type");
    let (list, map, keys) = (
        at.key("x-kubernetes-list-type"),
        at.key("x-kubernetes-map-type"),
        at.key("x-kubernetes-list-map-keys"),
    );
    let mut needs = |extension: &At<'_>, wanted: &str, name: &str| {
        let detail = format!("must be {wanted} if {name} is specified");
        if extension.exists() && kind.is_empty() {
            errors.required(&kind, detail);
        } else if extension.exists() && kind.str() != wanted {
            errors.invalid(&kind, detail);
        }
    };
    needs(&map, "object", "x-kubernetes-map-type");
    needs(&list, "array", "x-kubernetes-list-type");
    if map.exists() {
        errors.one_of(&map, &["granular", "atomic"]);
    }
    if list.exists() && kind.str() == "array" {
        errors.one_of(&list, &["atomic", "set", "map"]);
    }
    let is_map = list.str() == "map";
    if !keys.is_empty() && !is_map {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list.exists() {
            true => errors.invalid(&list, detail),
            false => errors.required(&list, detail),
        }
    }
    if is_map {
        keyed_list(at, &keys, errors);
    }
}

fn keyed_list(at: &At<'_>, keys: &At<'_>, errors: &mut FieldErrors) {
    if keys.is_empty() {
        errors.required(keys, "must not be empty if x-kubernetes-list-type is map");
    }
    let items = at.key("items");
    if !items.exists() {
        errors.required(
            &items,
            "must have a schema if x-kubernetes-list-type is map",
        );
        return;
    }
    let kind = items.key("type");
    if kind.str() != "object" {
        errors.invalid(
            &kind,
            "must be object if parent array's x-kubernetes-list-type is map",
        );
        return;
    }
    let properties = items.key("properties");
    let required = items.key("required");
    let mut seen: Vec<&str> = Vec::new();
    for key in keys.items() {
        let property = properties.entry(key.str());
        if !property.exists() {
            errors.invalid(keys, "entries must all be names of item properties");
        } else if matches!(property.key("type").str(), "object" | "array") {
            errors.invalid(
                &property.key("type"),
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            );
        }
        if seen.contains(&key.str()) {
            errors.invalid(keys, "must not contain duplicate entries");
        }
        seen.push(key.str());
    }
    for key in keys.items() {
        let property = properties.entry(key.str());
        let always = required.items().any(|name| name.str() == key.str());
        if property.exists() && !always && !property.key("default").exists() {
            errors.required(
                &property.key("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            );
        }
    }
}

/// Rules in CEL about what the schema `at` describes.
fn rules(at: &At<'_>, types: Option<&mut Declared>, errors: &mut FieldErrors) {
    const RULE: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ValidationRule";
    const REASONS: &[&str] = &[
        "FieldValueInvalid",
        "FieldValueForbidden",
        "FieldValueRequired",
        "FieldValueDuplicate",
    ];
    let rules = at.key("x-kubernetes-validations");
    if rules.is_empty() {
        return;
    }
    let found = types.and_then(|types| types.at(at, at.name() == "openAPIV3Schema"));
    for rule in rules.items() {
        let (text, message) = (rule.key("rule"), rule.key("message"));
        if text.str().trim().is_empty() {
            errors.required(&text, "rule is not specified");
        } else if let Some(why) = found.as_ref().and_then(|of| declared::rule(text.str(), of)) {
            errors.invalid_as(&text, internal_form(RULE, rule.value()), why);
        }
        let trimmed = message.str().trim();
        if !message.is_empty() && trimmed.is_empty() {
            errors.invalid(&message, "message must be non-empty if specified");
        } else if trimmed.contains(['\n', '\r']) {
            errors.invalid(&message, "message must not contain line breaks");
        } else if text.str().trim().contains(['\n', '\r']) && trimmed.is_empty() {
            errors.required(
                &message,
                "message must be specified if rule contains line breaks",
            );
        }
        let computed = rule.key("messageExpression");
        if !computed.is_empty() && computed.str().trim().is_empty() {
            let shown = internal_form(RULE, rule.value());
            let detail = "messageExpression must be non-empty if specified";
            errors.push(ErrorType::Required, computed.path(), Some(shown), detail);
        } else if !computed.is_empty()
            && let Some(why) = found
                .as_ref()
                .and_then(|of| declared::message(computed.str(), of))
        {
            errors.invalid_as(&computed, internal_form(RULE, rule.value()), why);
        }
        if rule.key("reason").exists() {
            errors.one_of(&rule.key("reason"), REASONS);
        }
    }
}
