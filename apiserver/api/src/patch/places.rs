//! Where the elements of a list are, without looking through it again and again.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// The elements of a list by what tells them apart: the merge key, or all of a primitive.
pub(super) struct Places<'a> {
    key: Option<&'a str>,
    first: HashMap<&'a Value, usize>,
}

impl<'a> Places<'a> {
    /// The places in `items`; elements without the key have none.
    pub(super) fn of(items: &'a [Value], key: Option<&'a str>) -> Self {
        let mut first = HashMap::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if let Some(identity) = identity(item, key) {
                first.entry(identity).or_insert(index);
            }
        }
        Self { key, first }
    }

    /// Where the first element is that is the same as `item`.
    pub(super) fn find(&self, item: &Value) -> Option<usize> {
        self.first.get(identity(item, self.key)?).copied()
    }
}

fn identity<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

/// A list that changes while its elements are looked up by their merge key.
pub(super) struct Growing<'a> {
    items: Vec<Value>,
    key: &'a str,
    places: HashMap<Value, BTreeSet<usize>>,
}

impl<'a> Growing<'a> {
    /// A list that begins with `items`.
    pub(super) fn new(items: Vec<Value>, key: &'a str) -> Self {
        let mut list = Self {
            items: Vec::with_capacity(items.len()),
            key,
            places: HashMap::new(),
        };
        items.into_iter().for_each(|item| list.push(item));
        list
    }

    /// Where the first element is whose key is `value`.
    pub(super) fn first(&self, value: &Value) -> Option<usize> {
        self.places.get(value)?.first().copied()
    }

    /// Adds an element at the end.
    pub(super) fn push(&mut self, item: Value) {
        self.items.push(Value::Null);
        self.put(self.items.len() - 1, item);
    }

    /// Takes the element whose key is `value` from its place, for [`Growing::put`] to fill.
    pub(super) fn take(&mut self, index: usize, value: &Value) -> Value {
        if let Some(places) = self.places.get_mut(value) {
            places.remove(&index);
        }
        self.items[index].take()
    }

    /// Puts an element in a place that is empty.
    pub(super) fn put(&mut self, index: usize, item: Value) {
        if let Some(value) = item.get(self.key) {
            // A key is cloned once, not at every change of its element.
            match self.places.get_mut(value) {
                Some(places) => drop(places.insert(index)),
                None => drop(self.places.insert(value.clone(), [index].into())),
            }
        }
        self.items[index] = item;
    }

    /// The list as it is now.
    pub(super) fn into_items(self) -> Vec<Value> {
        self.items
    }
}
