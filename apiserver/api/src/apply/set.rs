//! Sets of paths into an object, in the form that `fieldsV1` has.

use serde_json::{Map, Value};

use super::element::Element;
use crate::schema::{MAX_NESTING, SchemaKind, SchemaRef};

/// A set of paths: a tree whose steps are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    steps: Vec<(Element, Node)>,
}

/// What a set says of one place: whether it is in the set, and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

/// A `fieldsV1` that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step:?} is not a step of a field set")]
pub struct FieldsError {
    step: String,
}

impl Node {
    /// A place that is in the set, with nothing below.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            below: FieldSet::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// Adds what another node says of the same place.
    fn join(&mut self, other: &Node) {
        self.member |= other.member;
        if !other.below.is_empty() {
            self.below = std::mem::take(&mut self.below).union(&other.below);
        }
    }
}

impl FieldSet {
    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Puts a path in.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let node = self.entry(first);
        if rest.is_empty() {
            node.member = true;
        } else {
            node.below.insert(rest);
        }
    }

    /// The set of the given dotted paths of fields.
    pub fn of_fields<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<_> = path.split('.').map(Element::field).collect();
            set.insert(&path);
        }
        set
    }

    /// Whether the very path is in the set.
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.get(first).is_some_and(|node| node.below.has(rest)),
        }
    }

    pub(super) fn get(&self, step: &Element) -> Option<&Node> {
        let at = self
            .steps
            .binary_search_by(|(have, _)| have.cmp(step))
            .ok()?;
        Some(&self.steps[at].1)
    }

    fn entry(&mut self, step: &Element) -> &mut Node {
        let at = match self.steps.binary_search_by(|(have, _)| have.cmp(step)) {
            Ok(at) => at,
            Err(at) => {
                self.steps.insert(at, (step.clone(), Node::default()));
                at
            }
        };
        &mut self.steps[at].1
    }

    /// Takes steps in any order, joins those that are there twice, and drops the empty ones.
    pub(super) fn from_steps(mut steps: Vec<(Element, Node)>) -> Self {
        steps.retain(|(_, node)| !node.is_empty());
        steps.sort_by(|a, b| a.0.cmp(&b.0));
        steps.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1.join(&later.1);
            }
            same
        });
        Self { steps }
    }

    /// All paths of both.
    pub fn union(self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        let mut steps = Vec::with_capacity(self.steps.len().max(other.steps.len()));
        let mut theirs = other.steps.iter().peekable();
        for (step, mut node) in self.steps {
            while let Some(before) = theirs.next_if(|(other, _)| *other < step) {
                steps.push(before.clone());
            }
            if let Some((_, same)) = theirs.next_if(|(other, _)| *other == step) {
                node.join(same);
            }
            steps.push((step, node));
        }
        steps.extend(theirs.cloned());
        Self { steps }
    }

    /// The paths that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| match theirs {
            Some(theirs) => Node {
                member: mine.member && theirs.member,
                below: mine.below.intersection(&theirs.below),
            },
            None => Node::default(),
        })
    }

    /// The paths that are not in `other`; what is below a path of `other` stays.
    pub fn difference(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        self.combine(other, |mine, theirs| match theirs {
            Some(theirs) => Node {
                member: mine.member && !theirs.member,
                below: mine.below.difference(&theirs.below),
            },
            None => mine.clone(),
        })
    }

    /// The paths that lead to one of `places`, are one or are below one; a step `*` of a place is any step.
    pub(super) fn within(&self, places: &[&[&str]]) -> Self {
        let keep = |(step, node): &(Element, Node)| {
            let fits = |place: &&&[&str]| {
                let first = place.first();
                first.is_some_and(|name| *name == "*" || Element::field(*name) == *step)
            };
            let rest: Vec<&[&str]> = places
                .iter()
                .filter(fits)
                .map(|place| &place[1..])
                .collect();
            match rest.iter().any(|place| place.is_empty()) {
                true => (step.clone(), node.clone()),
                false => {
                    let below = node.below.within(&rest);
                    let member = node.member && !rest.is_empty();
                    (step.clone(), Node { member, below })
                }
            }
        };
        Self::from_steps(self.steps.iter().map(keep).collect())
    }

    /// The paths that are neither in `other` nor below a path of it.
    pub fn outside(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        self.combine(other, |mine, theirs| match theirs {
            Some(theirs) if theirs.member => Node::default(),
            Some(theirs) => Node {
                member: mine.member,
                below: mine.below.outside(&theirs.below),
            },
            None => mine.clone(),
        })
    }

    fn combine(&self, other: &Self, join: impl Fn(&Node, Option<&Node>) -> Node) -> Self {
        let steps = self
            .steps
            .iter()
            .map(|(step, node)| (step.clone(), join(node, other.get(step))));
        Self {
            steps: steps.filter(|(_, node)| !node.is_empty()).collect(),
        }
    }

    /// The set with every struct field in it that has something below; keys of maps are not added.
    pub(super) fn with_named_fields(&self, schema: &SchemaRef) -> Self {
        let steps = self.steps.iter().map(|(step, node)| {
            let (child, named) = match step {
                Element::Field(name) => (
                    schema.child(name),
                    schema.kind() == SchemaKind::Struct && schema.field(name).is_some(),
                ),
                _ => (schema.elem(), false),
            };
            let child = child.unwrap_or_else(SchemaRef::any);
            let node = Node {
                member: node.member || named && !node.below.is_empty(),
                below: node.below.with_named_fields(&child),
            };
            (step.clone(), node)
        });
        Self {
            steps: steps.collect(),
        }
    }

    /// The paths, members of a level before what is below them, as upstream lists conflicts: as many as have about
    /// `most_steps` together, since a body can bring thousands that are thousands of steps long.
    pub fn paths(&self, most_steps: usize) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        let mut left = most_steps;
        self.collect(&mut Vec::new(), &mut paths, &mut left);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>, left: &mut usize) {
        for (step, _) in self.steps.iter().filter(|(_, node)| node.member) {
            if *left == 0 {
                return;
            }
            let mut path = prefix.clone();
            path.push(step.clone());
            *left = left.saturating_sub(path.len());
            paths.push(path);
        }
        for (step, node) in &self.steps {
            prefix.push(step.clone());
            node.below.collect(prefix, paths, left);
            prefix.pop();
        }
    }

    /// Reads `fieldsV1`.
    pub fn parse(fields: &Value) -> Result<Self, FieldsError> {
        Self::parse_node(fields, 0).map(|node| node.below)
    }

    fn parse_node(value: &Value, depth: usize) -> Result<Node, FieldsError> {
        let error = |step: &str| FieldsError { step: step.into() };
        let map = match value {
            Value::Object(map) if depth < MAX_NESTING => map,
            other => return Err(error(&other.to_string())),
        };
        let mut node = Node {
            member: map.is_empty(),
            below: Self::default(),
        };
        let mut steps = Vec::with_capacity(map.len());
        for (text, value) in map {
            if text == "." {
                node.member = true;
                continue;
            }
            let step = Element::parse(text).ok_or_else(|| error(text))?;
            steps.push((step, Self::parse_node(value, depth + 1)?));
        }
        // The same key may be spelled in two ways.
        node.below = Self::from_steps(steps);
        Ok(node)
    }

    /// The form that `fieldsV1` has.
    pub fn to_value(&self) -> Value {
        let entries = self.steps.iter().map(|(step, node)| {
            let mut value = node.below.to_value();
            if let Value::Object(map) = &mut value
                && node.member
                && !map.is_empty()
            {
                map.shift_insert(0, ".".to_owned(), Value::Object(Map::new()));
            }
            (step.to_key(), value)
        });
        Value::Object(entries.collect())
    }
}
