//! Schema facts: what fields a kind has, of which types, and how lists and maps of it merge.
//!
//! One generated table ([`SchemaTable::builtin`]) holds the facts of every built-in definition; a custom resource
//! brings a table of its own, made with [`TableBuilder`]. Both are read through [`SchemaRef`], a cheap handle on one
//! place in a schema, so whoever walks an object (decoding, patches, defaults, protobuf, OpenAPI) need not know where
//! the schema came from.
//!
//! ```text
//! schema/v1_36.txt ──parse──▶ SchemaTable ◀──TableBuilder── a CustomResourceDefinition
//!                                  ▲
//!                   SchemaRef ─────┘ field("spec") ▶ field("containers") ▶ elem()
//! ```
//!
//! There are no descriptions here, and no validation beyond types.

mod body;
mod builder;
mod decode;
mod go_form;
mod nesting;
mod parse;
mod scan;
mod table;
mod time;
mod unstructured;
mod yaml;

pub use body::{TypeMeta, excerpt, type_meta_of_json, type_meta_of_yaml};
pub use builder::{DefinitionId, FieldFacts, TableBuilder, TypeFacts, TypeId};
pub(crate) use decode::zero;
pub use decode::{
    DecodeError, Decoded, StrictError, decode_json, decode_unstructured, decode_value, decode_yaml,
    parse_json,
};
pub use go_form::{go_form, internal_form, show_empties};
pub(crate) use nesting::size;
pub use nesting::{MAX_NESTING, STACK_SIZE, from_kept_json, nests_deeper, on_deep_stack};
pub use parse::TableError;
pub use table::{
    FieldSchema, GroupVersionKind, ListType, MapType, PatchStrategy, SchemaKind, SchemaRef,
    SchemaTable,
};
pub use time::seconds as rfc3339_seconds;

#[cfg(test)]
mod tests;
