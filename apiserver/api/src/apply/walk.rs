//! The fields of an object, and what differs between two, as the schema divides them among owners.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::Element;
use super::set::{FieldSet, Node};
use super::writable::Writable;
use crate::schema::{ListType, MapType, SchemaKind, SchemaRef};

/// How a place is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As a whole: scalars, and whatever is atomic.
    Leaf,
    /// Item by item.
    List,
    /// Key by key.
    Map,
}

impl Shape {
    /// The shape of a place, given one or two values in it; null and absence fit any shape.
    pub(super) fn of(schema: &SchemaRef, left: Option<&Value>, right: Option<&Value>) -> Self {
        let all = |test: fn(&Value) -> bool| {
            [left, right]
                .into_iter()
                .flatten()
                .all(|value| value.is_null() || test(value))
        };
        match schema.kind() {
            SchemaKind::List if schema.list_type() != ListType::Atomic && all(Value::is_array) => {
                Self::List
            }
            SchemaKind::Struct | SchemaKind::Map
                if schema.map_type() == MapType::Granular && all(Value::is_object) =>
            {
                Self::Map
            }
            // Free JSON: objects go key by key, all else is atomic.
            SchemaKind::Json | SchemaKind::RawExtension
                if all(Value::is_object) && (is_object(left) || is_object(right)) =>
            {
                Self::Map
            }
            _ => Self::Leaf,
        }
    }
}

fn is_object(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_object)
}

pub(super) fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty())
}

pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The schema below a map's key, free where the schema knows nothing.
pub(super) fn child(schema: &SchemaRef, key: &str) -> SchemaRef {
    schema.child(key).unwrap_or_else(SchemaRef::any)
}

/// The schema of a list's items.
pub(super) fn elem(schema: &SchemaRef) -> SchemaRef {
    schema.elem().unwrap_or_else(SchemaRef::any)
}

/// The fields that an object states.
pub(super) fn field_set(root: &Value, schema: &SchemaRef) -> Result<FieldSet, String> {
    Ok(fields_of(root, schema)?.below)
}

fn fields_of(value: &Value, schema: &SchemaRef) -> Result<Node, String> {
    let mut steps = Vec::new();
    match Shape::of(schema, Some(value), None) {
        Shape::Leaf => return Ok(Node::leaf()),
        Shape::List => {
            let elem = elem(schema);
            let mut nodes = BTreeMap::new();
            for item in items(Some(value)) {
                let mut node = fields_of(item, &elem)?;
                node.member = true;
                // Items of which there are two are owned as a whole.
                nodes
                    .entry(Element::of_item(item, schema)?)
                    .and_modify(|first| *first = Node::leaf())
                    .or_insert(node);
            }
            steps.extend(nodes);
        }
        Shape::Map => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let mut node = fields_of(value, &child(schema, key))?;
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                node.member |= empty || schema.kind() != SchemaKind::Struct;
                steps.push((Element::field(key), node));
            }
        }
    }
    Ok(Node {
        member: false,
        below: FieldSet::from_steps(steps),
    })
}

/// What differs between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Fields that only the second has.
    pub(super) added: FieldSet,
    /// Fields that both have, with other values.
    pub(super) modified: FieldSet,
    /// Fields that only the first has.
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// The differences among the fields that can be written.
    pub(super) fn kept(self, writable: &Writable) -> Self {
        Self {
            added: writable.of(&self.added),
            modified: writable.of(&self.modified),
            removed: writable.of(&self.removed),
        }
    }

    /// The fields that have a new value.
    pub(super) fn written(&self) -> FieldSet {
        self.modified.clone().union(&self.added)
    }
}

/// Compares two objects of one kind.
pub(super) fn compare(
    left: &Map<String, Value>,
    right: &Map<String, Value>,
    schema: &SchemaRef,
) -> Result<Comparison, String> {
    let delta = compare_maps(Some(left), Some(right), schema)?;
    Ok(Comparison {
        added: delta.added.below,
        modified: delta.modified.below,
        removed: delta.removed.below,
    })
}

#[derive(Default)]
struct Delta {
    added: Node,
    modified: Node,
    removed: Node,
}

/// The steps of a [`Delta`] while they are gathered.
#[derive(Default)]
struct Steps {
    added: Vec<(Element, Node)>,
    modified: Vec<(Element, Node)>,
    removed: Vec<(Element, Node)>,
}

impl Steps {
    fn push(&mut self, step: impl Fn() -> Element, delta: Delta) {
        let places = [&mut self.added, &mut self.modified, &mut self.removed];
        for (place, node) in places
            .into_iter()
            .zip([delta.added, delta.modified, delta.removed])
        {
            if !node.is_empty() {
                place.push((step(), node));
            }
        }
    }

    fn finish(self) -> Delta {
        let node = |steps| Node {
            member: false,
            below: FieldSet::from_steps(steps),
        };
        Delta {
            added: node(self.added),
            modified: node(self.modified),
            removed: node(self.removed),
        }
    }
}

fn compare_values(
    left: Option<&Value>,
    right: Option<&Value>,
    schema: &SchemaRef,
) -> Result<Delta, String> {
    let mut delta = match Shape::of(schema, left, right) {
        Shape::List if !items(left).is_empty() || !items(right).is_empty() => {
            if left == right {
                return Ok(Delta::default());
            }
            compare_lists(items(left), items(right), schema)?
        }
        Shape::Map if object(left).is_some() || object(right).is_some() => {
            compare_maps(object(left), object(right), schema)?
        }
        // Empty on both sides is a leaf too: empty and absent differ.
        _ => {
            let mut delta = Delta::default();
            delta.modified.member = left.is_some() && right.is_some() && left != right;
            delta
        }
    };
    delta.added.member |= left.is_none();
    delta.removed.member |= right.is_none();
    Ok(delta)
}

fn compare_maps(
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
    schema: &SchemaRef,
) -> Result<Delta, String> {
    let mut steps = Steps::default();
    for (key, value) in right.into_iter().flatten() {
        let before = left.and_then(|left| left.get(key));
        let delta = compare_values(before, Some(value), &child(schema, key))?;
        steps.push(|| Element::field(key), delta);
    }
    for (key, value) in left.into_iter().flatten() {
        if !right.is_some_and(|right| right.contains_key(key)) {
            let delta = compare_values(Some(value), None, &child(schema, key))?;
            steps.push(|| Element::field(key), delta);
        }
    }
    Ok(steps.finish())
}

fn compare_lists(left: &[Value], right: &[Value], schema: &SchemaRef) -> Result<Delta, String> {
    // An item may be there twice in objects that were not applied.
    let mut pairs: BTreeMap<Element, [Vec<&Value>; 2]> = BTreeMap::new();
    for (side, list) in [left, right].into_iter().enumerate() {
        for item in list {
            pairs.entry(Element::of_item(item, schema)?).or_default()[side].push(item);
        }
    }
    let elem = elem(schema);
    let mut steps = Steps::default();
    for (step, [left, right]) in pairs {
        let delta = match (&left[..], &right[..]) {
            ([] | [_], [] | [_]) => {
                compare_values(left.first().copied(), right.first().copied(), &elem)?
            }
            _ => {
                let mut delta = Delta::default();
                delta.added.member = left.is_empty();
                delta.removed.member = right.is_empty();
                delta.modified.member = !left.is_empty() && !right.is_empty() && left != right;
                delta
            }
        };
        steps.push(|| step.clone(), delta);
    }
    Ok(steps.finish())
}
