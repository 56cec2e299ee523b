//! What a request's body claims to be, before it is decoded by a schema.

use super::{
    decode::DecodeError,
    scan::{self, Tree},
    yaml,
};

/// The kind that a body says it is; both may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// The body's `apiVersion`.
    pub api_version: String,
    /// The body's `kind`.
    pub kind: String,
}

impl TypeMeta {
    /// The group, empty for the core group, and the version.
    pub fn group_version(&self) -> (&str, &str) {
        self.api_version
            .rsplit_once('/')
            .unwrap_or(("", &self.api_version))
    }
}

/// How upstream's messages show the struct that it reads the two fields into.
const GO_STRUCT: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// Reads a JSON body's kind; the error is upstream's for bodies that aren't JSON objects.
pub fn type_meta_of_json(body: &[u8]) -> Result<TypeMeta, DecodeError> {
    let parsed = scan::scan(body).and_then(type_meta);
    parsed.map_err(|error| {
        DecodeError::Syntax(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })
}

/// Reads a YAML body's kind.
pub fn type_meta_of_yaml(body: &[u8]) -> Result<TypeMeta, DecodeError> {
    yaml::read(body)
        .and_then(type_meta)
        .map_err(DecodeError::Yaml)
}

fn type_meta(tree: Tree) -> Result<TypeMeta, String> {
    let mut meta = TypeMeta::default();
    let entries = match tree {
        Tree::Map(entries) => entries,
        Tree::Null => return Ok(meta),
        other => {
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type {GO_STRUCT}",
                other.go_word()
            ));
        }
    };
    for (name, value) in entries {
        let slot = match name.as_str() {
            "apiVersion" => &mut meta.api_version,
            "kind" => &mut meta.kind,
            _ => continue,
        };
        match value {
            Tree::String(text) => *slot = text,
            Tree::Null => {}
            other => {
                return Err(format!(
                    "json: cannot unmarshal {} into Go struct field .{name} of type string",
                    other.go_word()
                ));
            }
        }
    }
    Ok(meta)
}

/// How many bytes of a body upstream shows.
const SHOWN: usize = 30;

/// A body as upstream shows it after an error: the beginning of JSON as text, anything else in hexadecimal.
pub fn excerpt(body: &[u8]) -> String {
    if body.is_empty() {
        return "<empty>".into();
    }
    let head = &body[..body.len().min(SHOWN)];
    let shown = match head[0] {
        b'{' => String::from_utf8_lossy(head).into_owned(),
        _ => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SHOWN {
        shown + " ..."
    } else {
        shown
    }
}
