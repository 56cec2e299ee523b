//! The few things that gnostic's protobuf forms of OpenAPI are made of, written by hand.

use serde_json::Value;

/// A protobuf message as it grows.
#[derive(Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A field of bytes.
    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// A field of text; an absent or empty one is left out.
    pub(super) fn text(&mut self, number: u32, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.bytes(number, text.as_bytes());
        }
    }

    /// A field for each text of a list.
    pub(super) fn texts(&mut self, number: u32, list: &Value) {
        for text in list.as_array().into_iter().flatten() {
            self.text(number, text.as_str());
        }
    }

    /// A flag that is one of several choices, and written whatever it is.
    pub(super) fn choice(&mut self, number: u32, set: bool) {
        self.varint(u64::from(number) << 3);
        self.varint(u64::from(set));
    }

    /// A flag; one that is not set is left out.
    pub(super) fn flag(&mut self, number: u32, set: bool) {
        if set {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    /// A float that is one of several choices, and written whatever it is.
    pub(super) fn float(&mut self, number: u32, value: f64) {
        self.varint(u64::from(number) << 3 | 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A field of a float; an absent one and zero are left out.
    pub(super) fn double(&mut self, number: u32, value: Option<f64>) {
        if let Some(value) = value.filter(|value| *value != 0.0) {
            self.float(number, value);
        }
    }

    /// A field of a whole number; an absent one and zero are left out.
    pub(super) fn whole(&mut self, number: u32, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value != 0) {
            self.varint(u64::from(number) << 3);
            self.varint(value.cast_unsigned());
        }
    }

    /// A message within this one.
    pub(super) fn message(&mut self, number: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(number, &inner.bytes);
    }

    /// An entry of what protobuf has for a map: a name and a value.
    pub(super) fn named(&mut self, number: u32, name: &str, write: impl FnOnce(&mut Message)) {
        self.message(number, |entry| {
            entry.text(1, Some(name));
            entry.message(2, write);
        });
    }

    /// The `x-…` keys; JSON is YAML too.
    pub(super) fn extensions(&mut self, number: u32, value: &Value) {
        for (key, value) in value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("x-"))
        {
            self.named(number, key, |any| any.text(2, Some(&value.to_string())));
        }
    }
}
