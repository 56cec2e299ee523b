//! Values that nest: how deep they may, and what whoever handles them needs for it.

use std::{io, thread};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// How deep a body may nest, as upstream's (`maxNestingDepth` in sigs.k8s.io/json).
pub const MAX_NESTING: usize = 10_000;

/// Bytes of stack that a thread needs which reads, changes, compares, writes or drops objects: all of these call
/// themselves once for each level. An unoptimised build's calls take several times as much.
///
/// It is address space, of which a thread takes memory as far as it gets.
pub const STACK_SIZE: usize = match cfg!(debug_assertions) {
    true => 512 * 1024 * 1024,
    false => 128 * 1024 * 1024,
};

/// Does `work` on a thread of its own with such a stack, and goes on with its panic. The error is that there is no room
/// for a thread.
pub fn on_deep_stack<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned());
        let thread = thread.stack_size(STACK_SIZE).spawn_scoped(scope, work)?;
        let done = thread.join();
        Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Reads JSON that was written from an object, hence nests no deeper than one may. `serde_json` by itself stops at 128
/// levels.
pub fn from_kept_json<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.disable_recursion_limit();
    let value = T::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Whether lists and maps nest more than `levels` levels in a value.
pub fn nests_deeper(value: &Value, levels: usize) -> bool {
    let below = |value: &Value| match levels.checked_sub(1) {
        Some(levels) => nests_deeper(value, levels),
        None => false,
    };
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => true,
        Value::Array(items) => items.iter().any(below),
        Value::Object(map) => map.values().any(below),
        _ => false,
    }
}

/// About how many bytes of JSON a value takes; counting ends past `most`.
pub(crate) fn size(value: &Value, most: usize) -> usize {
    let mut total = 0;
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        total += match value {
            Value::String(text) => text.len() + 2,
            Value::Array(items) => {
                left.extend(items);
                items.len() + 1
            }
            Value::Object(map) => {
                left.extend(map.values());
                map.keys().map(|key| key.len() + 4).sum::<usize>() + 1
            }
            _ => 4,
        };
        if total > most {
            break;
        }
    }
    total
}
