//! The bytes of a list, put together as they are sent: a long one takes milliseconds to copy, and much memory to hold.
//!
//! ```text
//! {"kind":"PodList","apiVersion":"v1","metadata":{…},"items":[ {…} ,{…} ,{…} ]}
//! └──────────────────────────── head ────────────────────────┘ └ entries ┘ └ tail
//! ```

use std::sync::Arc;
use std::vec::IntoIter;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use crate::cache::Entry;
use crate::pause::others_first;

/// Entries whose size is looked up before others have their turn.
const SLICE: usize = 512;
/// What ends a list.
const TAIL: &[u8] = b"]}";

/// A list of cached objects that is not written yet.
pub(crate) struct Items {
    part: Part,
    /// Bytes of the part that were written.
    written: usize,
    entries: IntoIter<Arc<Entry>>,
    left: usize,
    form: Form,
}

/// What is shown of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// All of it.
    Whole,
    /// All but the owners of its fields.
    WithoutManagedFields,
}

impl Form {
    /// The parts of an entry's `json` that are shown.
    pub(crate) fn parts<'a>(self, entry: &Entry, json: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        match self {
            Self::Whole => (json, &[]),
            Self::WithoutManagedFields => entry.around_managed_fields(json),
        }
    }
}

/// What is written next.
enum Part {
    Head(Bytes),
    /// What separates an entry from what is before it, and opens it.
    Before(&'static [u8], Arc<Entry>),
    Item(Arc<Entry>),
    /// What is left of an item.
    Rest(Arc<Entry>),
    Tail,
}

impl Part {
    fn bytes(&self, form: Form) -> &[u8] {
        match self {
            Self::Head(bytes) => bytes,
            Self::Before(bytes, _) => bytes,
            Self::Item(entry) => form.parts(entry, entry.item()).0,
            Self::Rest(entry) => form.parts(entry, entry.item()).1,
            Self::Tail => TAIL,
        }
    }

    fn next(self, entries: &mut IntoIter<Arc<Entry>>) -> Self {
        let separator: &[u8] = match self {
            Self::Before(_, entry) => return Self::Item(entry),
            Self::Item(entry) => return Self::Rest(entry),
            Self::Head(_) => b"{",
            Self::Rest(_) | Self::Tail => b",{",
        };
        let entry = entries.next();
        entry.map_or(Self::Tail, |entry| Self::Before(separator, entry))
    }
}

impl Items {
    /// A list of such a kind and with this metadata. Others have their turn while a long one is measured.
    pub(crate) async fn new(
        kind: &str,
        api_version: &str,
        metadata: &Value,
        entries: Vec<Arc<Entry>>,
        form: Form,
    ) -> Self {
        let head = format!(
            r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#
        );
        let mut left = head.len() + entries.len().saturating_sub(1) + TAIL.len();
        for (number, slice) in entries.chunks(SLICE).enumerate() {
            if number > 0 {
                others_first().await;
            }
            left += slice
                .iter()
                .map(|entry| {
                    let (before, after) = form.parts(entry, entry.item());
                    before.len() + after.len() + 1
                })
                .sum::<usize>();
        }
        Self {
            part: Part::Head(Bytes::from(head)),
            written: 0,
            entries: entries.into_iter(),
            left,
            form,
        }
    }

    /// How many bytes there still are.
    pub(crate) fn len(&self) -> usize {
        self.left
    }

    /// The next bytes, `most` of them if there are as many.
    pub(crate) fn take(&mut self, most: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(most.min(self.left));
        let mut room = most.min(self.left);
        self.left -= room;
        while room > 0 {
            let rest = self
                .part
                .bytes(self.form)
                .get(self.written..)
                .unwrap_or_default();
            let fits = rest.len().min(room);
            out.put_slice(&rest[..fits]);
            self.written += fits;
            room -= fits;
            if fits == rest.len() {
                let part = std::mem::replace(&mut self.part, Part::Tail);
                self.part = part.next(&mut self.entries);
                self.written = 0;
            }
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::{Object, Registry};
    use serde_json::json;

    use super::*;
    use crate::cache::encode;

    fn entries(count: u64) -> Vec<Arc<Entry>> {
        let registry = Registry::builtin();
        let config_maps = registry.by_plural("", "v1", "configmaps").expect("served");
        let entry = |number: u64| {
            let object = json!({"metadata": {"name": format!("a{number}")}, "data": {"a": "b".repeat(number as usize)}});
            let value = encode(config_maps, &Object::from_value(object).expect("an object"));
            let entry = Entry::from_stored(config_maps, "n/a", &value, number + 1);
            Arc::new(entry.expect("well-formed"))
        };
        (0..count).map(entry).collect()
    }

    #[tokio::test]
    async fn pieces_of_any_size_make_the_list() {
        for count in [0, 1, 2, 40] {
            let metadata = json!({"resourceVersion": "7"});
            let make = async || {
                let entries = entries(count);
                Items::new("ConfigMapList", "v1", &metadata, entries, Form::Whole).await
            };
            let mut items = make().await;
            let whole = items.take(usize::MAX);
            assert_eq!(items.len(), 0);
            let list: Value = serde_json::from_slice(&whole).expect("JSON");
            let shown = list["items"].as_array().expect("items");
            assert_eq!(shown.len() as u64, count);
            for (number, item) in shown.iter().enumerate() {
                assert_eq!(item["metadata"]["name"], format!("a{number}"));
            }
            for most in [1, 2, 7, 100, 1000] {
                let (mut items, mut pieces) = (make().await, Vec::new());
                assert_eq!(items.len(), whole.len());
                while items.len() > 0 {
                    let before = items.len();
                    let piece = items.take(most);
                    assert_eq!(piece.len(), most.min(before));
                    pieces.extend_from_slice(&piece);
                }
                assert_eq!(pieces, whole, "{count} entries by {most}");
            }
        }
    }
}
