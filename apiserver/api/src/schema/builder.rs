//! Making a table: by the parser for the built-in kinds, at run time for custom resources.

use serde_json::Value;

use super::table::{
    Definition, Field, GroupVersionKind, ListType, MapType, Name, Node, PatchStrategy, SchemaKind,
    SchemaTable,
};

/// A type in the table being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(u32);

/// A definition in the table being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefinitionId(u32);

/// What is known of a type beyond its kind.
#[derive(Clone, Debug, Default)]
pub struct TypeFacts {
    /// How server-side apply owns a list.
    pub list_type: ListType,
    /// The key fields of a list of type map.
    pub list_keys: Box<[Name]>,
    /// How server-side apply owns a map or struct.
    pub map_type: MapType,
    /// What a strategic merge patch does.
    pub patch: PatchStrategy,
    /// The key field for strategic merge patches.
    pub merge_key: Option<Name>,
    /// The default that the schema states.
    pub default: Option<Box<Value>>,
    /// The name of the Go type, where it isn't the kind's own.
    pub go_name: Option<Name>,
    /// Whether unknown fields are kept.
    pub preserve_unknown: bool,
}

/// What is known of a field beyond its type.
#[derive(Clone, Debug, Default)]
pub struct FieldFacts {
    /// Protobuf field numbers, see [`super::FieldSchema::numbers`]; unused places are 0.
    pub numbers: [u32; 3],
    /// Whether the schema lists it as required.
    pub required: bool,
    /// Whether Go holds it by value, see [`super::FieldSchema::is_value`].
    pub value: bool,
    /// Whether Go writes it even when it is empty.
    pub always: bool,
    /// The embedded Go structs around it, see [`super::FieldSchema::inside`].
    pub inside: Option<Name>,
}

/// Collects definitions, then becomes a [`SchemaTable`].
#[derive(Debug, Default)]
pub struct TableBuilder {
    table: SchemaTable,
}

impl TableBuilder {
    /// The definition of that name, made empty if it is new; so types may refer to what comes later.
    pub fn definition(&mut self, name: impl Into<Name>) -> DefinitionId {
        let name = name.into();
        if let Some(id) = self.table.by_name.get(&name) {
            return DefinitionId(*id);
        }
        let id = self.table.definitions.len() as u32;
        let node = self.push(SchemaKind::Struct, id, TypeFacts::default()).0;
        self.table.by_name.insert(name.clone(), id);
        self.table.definitions.push(Definition {
            name,
            node,
            fields: Vec::new(),
            kinds: Vec::new(),
        });
        DefinitionId(id)
    }

    /// States that a definition is what a kind's objects look like.
    pub fn serves(&mut self, definition: DefinitionId, kind: GroupVersionKind) {
        self.table
            .by_kind
            .entry(kind.clone())
            .or_insert(definition.0);
        self.table.definitions[definition.0 as usize]
            .kinds
            .push(kind);
    }

    /// States facts of a definition as a whole, wherever it is used.
    pub fn describe(&mut self, definition: DefinitionId, facts: TypeFacts) {
        let node = self.table.definitions[definition.0 as usize].node;
        self.table.nodes[node as usize].facts = facts;
    }

    /// Adds a field to a definition; the order of calls is the order of fields.
    pub fn field(
        &mut self,
        definition: DefinitionId,
        name: impl Into<Name>,
        kind: TypeId,
        facts: FieldFacts,
    ) {
        let FieldFacts {
            numbers,
            required,
            value,
            always,
            inside,
        } = facts;
        let field = Field {
            name: name.into(),
            node: kind.0,
            numbers,
            required,
            value,
            always,
            inside,
        };
        self.table.definitions[definition.0 as usize]
            .fields
            .push(field);
    }

    /// A type without parts.
    pub fn scalar(&mut self, kind: SchemaKind, facts: TypeFacts) -> TypeId {
        assert!(
            !matches!(
                kind,
                SchemaKind::List | SchemaKind::Map | SchemaKind::Struct
            ),
            "{kind:?} has parts; it has a method of its own"
        );
        self.push(kind, 0, facts)
    }

    /// A list of `elem`.
    pub fn list(&mut self, elem: TypeId, facts: TypeFacts) -> TypeId {
        self.push(SchemaKind::List, elem.0, facts)
    }

    /// A map from strings to `elem`.
    pub fn map(&mut self, elem: TypeId, facts: TypeFacts) -> TypeId {
        self.push(SchemaKind::Map, elem.0, facts)
    }

    /// A struct with the fields of a definition.
    pub fn structure(&mut self, definition: DefinitionId, facts: TypeFacts) -> TypeId {
        self.push(SchemaKind::Struct, definition.0, facts)
    }

    /// The finished table.
    pub fn build(self) -> SchemaTable {
        self.table
    }

    fn push(&mut self, kind: SchemaKind, target: u32, facts: TypeFacts) -> TypeId {
        self.table.nodes.push(Node {
            kind,
            target,
            facts,
        });
        TypeId(self.table.nodes.len() as u32 - 1)
    }
}
