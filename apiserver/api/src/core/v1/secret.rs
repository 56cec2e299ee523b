//! Secret: confidential data that Pods read; may be frozen by `immutable`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use coracle_clock::Timestamp;
use serde_json::Value;

use super::config_map::{MOST_BYTES, frozen, named_value};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::object::default_text;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of secrets.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Secret,
};

/// Secret: confidential data that Pods read; may be frozen by `immutable`.
pub struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Object) {
        default_text(object.root_mut(), "type", "Opaque");
        // `stringData` is for writing only; its values win.
        if let Some(Value::Object(texts)) = object.remove("stringData") {
            for (key, text) in texts {
                let bytes = BASE64.encode(text.as_str().unwrap_or_default());
                object.map_mut("data").insert(key, bytes.into());
            }
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let data = new.at("data");
        let mut bytes = 0;
        for (key, value) in data.entries() {
            named_value(key, &value, errors);
            bytes += value.str().len() / 4 * 3;
        }
        if bytes > MOST_BYTES {
            errors.too_long(&data, MOST_BYTES);
        }
        match new.at("type").str() {
            "kubernetes.io/service-account-token" => {
                let account = new
                    .at("metadata.annotations")
                    .entry("kubernetes.io/service-account.name");
                if account.str().is_empty() {
                    errors.required(&account, "");
                }
            }
            "kubernetes.io/dockercfg" => json_value(&data.entry(".dockercfg"), errors),
            "kubernetes.io/dockerconfigjson" => {
                json_value(&data.entry(".dockerconfigjson"), errors)
            }
            "kubernetes.io/basic-auth" => {
                let (user, password) = (data.entry("username"), data.entry("password"));
                if user.as_str().is_none() && password.as_str().is_none() {
                    errors.required(&user, "");
                    errors.required(&password, "");
                }
            }
            "kubernetes.io/ssh-auth" => {
                let key = data.entry("ssh-privatekey");
                if key.str().is_empty() {
                    errors.required(&key, "");
                }
            }
            "kubernetes.io/tls" => {
                for field in ["tls.crt", "tls.key"] {
                    if data.entry(field).as_str().is_none() {
                        errors.required(&data.entry(field), "");
                    }
                }
            }
            _ => {}
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.immutable(&new.at("type"), &old.at("type"));
        frozen(new, old, &["data"], errors);
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        if new.at("type").str() != "kubernetes.io/tls" {
            return Vec::new();
        }
        let has_pem = |key: &str| {
            let bytes = BASE64
                .decode(new.at("data").entry(key).str())
                .unwrap_or_default();
            bytes
                .windows(PEM_START.len())
                .any(|window| window == PEM_START)
        };
        let missing = [("tls.crt", "certificate"), ("tls.key", "key")]
            .into_iter()
            .find(|(key, _)| !has_pem(key));
        missing
            .map(|(_, what)| format!("tls: failed to find any PEM data in {what} input"))
            .into_iter()
            .collect()
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("type", object.at("type").str().to_owned())]
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let entries = object.at("data").len();
        vec![
            object.name().into(),
            object.at("type").str().into(),
            entries.into(),
            age(object, now),
        ]
    }
}

const PEM_START: &[u8] = b"-----BEGIN ";

/// A registry's credentials must be there and be JSON; what is wrong with them is not shown in full.
fn json_value(at: &At<'_>, errors: &mut FieldErrors) {
    let Some(text) = at.as_str() else {
        return errors.required(at, "");
    };
    let bytes = BASE64.decode(text).unwrap_or_default();
    let parsed = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes);
    if parsed.is_err() {
        let detail = match bytes.first() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => {
                format!(
                    "invalid character '{}' looking for beginning of value",
                    char::from(*byte)
                )
            }
        };
        let shown = Some(Value::from("<secret contents redacted>"));
        errors.push(ErrorType::Invalid, at.path(), shown, detail);
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Type",
        "Used to facilitate programmatic handling of secret data. More info: \
         https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    Column::string(
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. \
         The serialized form of the secret data is a base64 encoded string, representing the arbitrary \
         (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    AGE,
];
