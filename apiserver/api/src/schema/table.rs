//! The table of schema facts and the handle that reads it.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc, sync::LazyLock};

use serde_json::Value;

use super::{
    builder::{TableBuilder, TypeFacts},
    parse::{self, TableError},
};

/// A name in the table: borrowed from the built-in text, owned in tables made at run time.
pub(super) type Name = Cow<'static, str>;

/// Which type a place in a schema has, as Go sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaKind {
    /// A string.
    String,
    /// A boolean.
    Bool,
    /// A 32-bit signed integer.
    Int32,
    /// A 64-bit signed integer.
    Int64,
    /// A floating point number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A resource quantity: a string or a number in JSON.
    Quantity,
    /// An integer or a string such as a percentage or a port's name.
    IntOrString,
    /// A time stamp in whole seconds (RFC 3339).
    Time,
    /// A time stamp in microseconds.
    MicroTime,
    /// A Go duration such as `1m30s`.
    Duration,
    /// An embedded object of any kind.
    RawExtension,
    /// Any JSON value.
    Json,
    /// A set of fields as server-side apply writes it.
    FieldsV1,
    /// A list; see [`SchemaRef::elem`].
    List,
    /// A map from strings; see [`SchemaRef::elem`].
    Map,
    /// A struct with fields; see [`SchemaRef::field`].
    Struct,
}

/// How server-side apply owns a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// Element by element; an element is its own key.
    Set,
    /// Element by element; some fields are the key (see [`SchemaRef::list_keys`]).
    Map,
}

/// How server-side apply owns a map or a struct.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MapType {
    /// Key by key.
    #[default]
    Granular,
    /// As a whole.
    Atomic,
}

/// What a strategic merge patch does with a field; several may hold at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PatchStrategy {
    /// Lists are merged: of structs by [`SchemaRef::merge_key`], of primitives as sets.
    pub merge: bool,
    /// The patch's value takes the place of the old one.
    pub replace: bool,
    /// Keys that the patch's `$retainKeys` doesn't list are removed.
    pub retain_keys: bool,
}

/// A kind's full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version, for example `v1`.
    pub version: String,
    /// The kind, for example `Pod`.
    pub kind: String,
}

/// One type: what a field, an element or a whole definition is.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: SchemaKind,
    /// The element's node of a list or map, the definition of a struct.
    pub(super) target: u32,
    pub(super) facts: TypeFacts,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Name,
    pub(super) node: u32,
    /// Numbers of the messages on the way and of the field; unused places are 0.
    pub(super) numbers: [u32; 3],
    pub(super) required: bool,
    pub(super) value: bool,
    pub(super) always: bool,
    pub(super) inside: Option<Name>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Definition {
    pub(super) name: Name,
    pub(super) node: u32,
    pub(super) fields: Vec<Field>,
    pub(super) kinds: Vec<GroupVersionKind>,
}

/// The schema facts of a set of definitions.
#[derive(Default)]
pub struct SchemaTable {
    pub(super) nodes: Vec<Node>,
    pub(super) definitions: Vec<Definition>,
    pub(super) by_name: HashMap<Name, u32>,
    pub(super) by_kind: HashMap<GroupVersionKind, u32>,
}

impl fmt::Debug for SchemaTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchemaTable({} definitions)", self.definitions.len())
    }
}

static BUILTIN: LazyLock<SchemaTable> = LazyLock::new(|| {
    let text = concat!(
        include_str!("../../schema/v1_36.txt"),
        include_str!("../../schema/apidiscovery_v2.txt"),
        include_str!("../../schema/metrics_v1beta1.txt"),
    );
    parse::parse(text).expect("the checked-in table is tested to parse")
});

static ANY: LazyLock<SchemaTable> = LazyLock::new(|| {
    let mut builder = TableBuilder::default();
    builder.scalar(SchemaKind::Json, TypeFacts::default());
    builder.build()
});

impl SchemaTable {
    /// The facts of every built-in definition of Kubernetes 1.36, of discovery in one document, and of the figures of
    /// nodes and pods; parsed at first use.
    pub fn builtin() -> &'static SchemaTable {
        &BUILTIN
    }

    /// Reads a table in the text form that the generator writes.
    pub fn parse(text: &'static str) -> Result<SchemaTable, TableError> {
        parse::parse(text)
    }

    /// The schema of a definition of this table by its full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn definition(self: &Arc<Self>, name: &str) -> Option<SchemaRef> {
        let node = self.definitions[*self.by_name.get(name)? as usize].node;
        Some(SchemaRef {
            table: Table::Shared(self.clone()),
            node,
        })
    }
}

/// How a handle holds its table: the built-in one is never counted.
#[derive(Clone)]
enum Table {
    Static(&'static SchemaTable),
    Shared(Arc<SchemaTable>),
}

/// A handle on one place in a schema; cheap to clone.
#[derive(Clone)]
pub struct SchemaRef {
    table: Table,
    node: u32,
}

impl fmt::Debug for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.definition_name() {
            Some(name) => write!(f, "SchemaRef({name})"),
            None => write!(f, "SchemaRef({:?})", self.kind()),
        }
    }
}

impl PartialEq for SchemaRef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.table(), other.table()) && self.node == other.node
    }
}

impl SchemaRef {
    /// The schema that any JSON value satisfies.
    pub fn any() -> SchemaRef {
        SchemaRef {
            table: Table::Static(&ANY),
            node: 0,
        }
    }

    /// The schema of a built-in definition by its full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn builtin(definition: &str) -> Option<SchemaRef> {
        let table = SchemaTable::builtin();
        let definition = *table.by_name.get(definition)?;
        Some(SchemaRef {
            table: Table::Static(table),
            node: table.definitions[definition as usize].node,
        })
    }

    /// The schema of a built-in kind; the core group is the empty string.
    pub fn for_kind(group: &str, version: &str, kind: &str) -> Option<SchemaRef> {
        let table = SchemaTable::builtin();
        let kind = GroupVersionKind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        };
        let definition = *table.by_kind.get(&kind)?;
        Some(SchemaRef {
            table: Table::Static(table),
            node: table.definitions[definition as usize].node,
        })
    }

    pub(super) fn table(&self) -> &SchemaTable {
        match &self.table {
            Table::Static(table) => table,
            Table::Shared(table) => table,
        }
    }

    fn node(&self) -> &Node {
        &self.table().nodes[self.node as usize]
    }

    fn at(&self, node: u32) -> SchemaRef {
        SchemaRef {
            table: self.table.clone(),
            node,
        }
    }

    fn definition(&self) -> Option<&Definition> {
        let node = self.node();
        (node.kind == SchemaKind::Struct).then(|| &self.table().definitions[node.target as usize])
    }

    /// The type here.
    pub fn kind(&self) -> SchemaKind {
        self.node().kind
    }

    /// The definition's full name, if this is a struct.
    pub fn definition_name(&self) -> Option<&str> {
        self.definition().map(|definition| &*definition.name)
    }

    /// The definition's name without its package, as Go and its error messages say it.
    pub fn type_name(&self) -> Option<&str> {
        self.definition_name()
            .map(|name| name.rsplit('.').next().unwrap_or(name))
    }

    /// The kinds that the definition serves; empty for parts of kinds.
    pub fn kinds(&self) -> &[GroupVersionKind] {
        self.definition()
            .map_or(&[], |definition| &definition.kinds)
    }

    /// The field of that JSON name, if this is a struct that has one.
    pub fn field(&self, name: &str) -> Option<FieldSchema> {
        let index = self
            .definition()?
            .fields
            .iter()
            .position(|field| field.name == name)?;
        Some(FieldSchema {
            parent: self.clone(),
            index,
        })
    }

    /// The fields of a struct in their order in Go; none for other types.
    pub fn fields(&self) -> impl Iterator<Item = FieldSchema> + '_ {
        let count = self
            .definition()
            .map_or(0, |definition| definition.fields.len());
        (0..count).map(|index| FieldSchema {
            parent: self.clone(),
            index,
        })
    }

    /// What the elements of a list or the values of a map are.
    pub fn elem(&self) -> Option<SchemaRef> {
        let node = self.node();
        matches!(node.kind, SchemaKind::List | SchemaKind::Map).then(|| self.at(node.target))
    }

    /// The schema below a key: a struct's field, a map's or a list's element; any value is free below `Json`.
    pub fn child(&self, key: &str) -> Option<SchemaRef> {
        match self.kind() {
            SchemaKind::Struct => self.field(key).map(|field| field.schema()),
            SchemaKind::Map | SchemaKind::List => self.elem(),
            SchemaKind::Json | SchemaKind::RawExtension => Some(SchemaRef::any()),
            _ => None,
        }
    }

    /// How server-side apply owns this list.
    pub fn list_type(&self) -> ListType {
        self.node().facts.list_type
    }

    /// The fields that identify an element of a list of type map.
    pub fn list_keys(&self) -> &[Cow<'static, str>] {
        &self.node().facts.list_keys
    }

    /// How server-side apply owns this map or struct.
    pub fn map_type(&self) -> MapType {
        let node = self.node();
        match self.definition() {
            Some(definition) if node.facts.map_type == MapType::Granular => {
                self.table().nodes[definition.node as usize].facts.map_type
            }
            _ => node.facts.map_type,
        }
    }

    /// What a strategic merge patch does here.
    pub fn patch_strategy(&self) -> PatchStrategy {
        self.node().facts.patch
    }

    /// The field by which a strategic merge patch finds a list's element.
    pub fn merge_key(&self) -> Option<&str> {
        self.node().facts.merge_key.as_deref()
    }

    /// The default that the schema states.
    pub fn default(&self) -> Option<&Value> {
        self.node().facts.default.as_deref()
    }

    /// The name of the Go type where it isn't the kind's own, for example `v1.RestartPolicy` for a string.
    pub fn go_name(&self) -> Option<&str> {
        self.node().facts.go_name.as_deref()
    }

    /// Whether fields that the schema doesn't know are kept (custom resources only).
    pub fn preserves_unknown(&self) -> bool {
        self.node().facts.preserve_unknown
    }
}

/// One field of a struct.
#[derive(Clone, Debug)]
pub struct FieldSchema {
    parent: SchemaRef,
    index: usize,
}

impl FieldSchema {
    fn field(&self) -> &Field {
        &self
            .parent
            .definition()
            .expect("only structs have fields")
            .fields[self.index]
    }

    /// The name in JSON.
    pub fn name(&self) -> &str {
        &self.field().name
    }

    /// What the field holds, with the list, map and patch facts that were declared on the field.
    pub fn schema(&self) -> SchemaRef {
        self.parent.at(self.field().node)
    }

    /// Its place among the fields of the struct, in Go's order.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether the schema lists it as required.
    pub fn required(&self) -> bool {
        self.field().required
    }

    /// Whether Go holds it by value, not by pointer: a zero is then the same as none.
    pub fn is_value(&self) -> bool {
        self.field().value
    }

    /// Whether Go writes it even when it is empty: as its zero, or as null where it has none.
    pub fn is_always_written(&self) -> bool {
        self.field().always
    }

    /// The names of the embedded Go structs around the field, with dots between; they show in error messages only.
    pub fn inside(&self) -> Option<&str> {
        self.field().inside.as_deref()
    }

    /// The field's number in protobuf, after the numbers of the messages around it that JSON doesn't show
    /// (`volumeSource`, `handler` …); empty where protobuf has no such field (`kind`, `apiVersion`).
    pub fn numbers(&self) -> &[u32] {
        let numbers = &self.field().numbers;
        let used = numbers
            .iter()
            .position(|number| *number == 0)
            .unwrap_or(numbers.len());
        &numbers[..used]
    }
}
