//! `wasi:keyvalue`: buckets in the pod's memory, or on a volume.
//!
//! ```text
//! guest ─▶ bucket ─▶ Store ─┬▶ memory: gone with the pod, shared by its containers
//!                           └▶ volume: a file per key below a mount, `coracle.dev/keyvalue: /data`
//! ```
//!
//! A bucket comes into being with its first key. Everything has a bound, and past it the answer is an
//! error that says so.

mod bindings;
mod memory;
mod names;
mod volume;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use bindings::add_to_linker;
pub(crate) use memory::Memory;

use crate::preopens::Preopens;

/// Names the mount that holds the buckets.
const ANNOTATION: &str = "coracle.dev/keyvalue";
/// The bucket of a guest that does not name one.
const DEFAULT_BUCKET: &str = "default";
/// The longest value.
const MAX_VALUE: usize = 4 << 20;
/// Buckets of one store.
const MAX_BUCKETS: usize = 64;
/// Keys of one bucket.
const MAX_KEYS: usize = 100_000;
/// Keys that one answer lists.
const PAGE: usize = 1000;
/// Bytes that one batch brings. What it takes is bounded by what a call of the host is.
const MAX_BATCH: usize = 16 << 20;

/// What a guest is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    NoSuchStore,
    AccessDenied,
    Other(String),
}

type Outcome<T> = Result<T, Failure>;

fn other(why: impl std::fmt::Display) -> Failure {
    Failure::Other(why.to_string())
}

/// Buckets of keys with values. Calls may block. Names and sizes have been checked.
trait Store: Send + Sync {
    fn get(&self, bucket: &str, key: &str) -> Outcome<Option<Vec<u8>>>;
    /// All or, after an error, the first of them.
    fn set(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Outcome<()>;
    fn delete(&self, bucket: &str, keys: &[String]) -> Outcome<()>;
    /// All keys in their order.
    fn keys(&self, bucket: &str) -> Outcome<Vec<String>>;
    /// Replaces a value by what `change` makes of it, with no other write between.
    fn update(&self, bucket: &str, key: &str, change: &mut Change<'_>) -> Outcome<()>;
}

type Change<'a> = dyn FnMut(Option<&[u8]>) -> Outcome<Vec<u8>> + 'a;

/// Where a container's buckets are.
#[derive(Clone)]
pub(crate) struct Buckets(Result<Arc<dyn Store>, String>);

/// The stores on volumes, each once however many containers use it.
pub(crate) type Volumes = volume::Volumes;

impl Buckets {
    /// What the pod's annotation says; without one, the pod's memory.
    pub(crate) fn choose(
        annotations: &BTreeMap<String, String>,
        preopens: &Preopens,
        memory: &Arc<Memory>,
        volumes: &Volumes,
    ) -> Self {
        let Some(mount) = annotations.get(ANNOTATION) else {
            return Self(Ok(memory.clone()));
        };
        let wanted = mount.trim().trim_end_matches('/');
        let found = preopens.list().find(|(guest, _, _)| *guest == wanted);
        Self(match found {
            Some((_, host, read_only)) if !wanted.is_empty() => {
                let (preopens, path) = (preopens.clone(), wanted.to_owned());
                let locate = Box::new(move || Some(preopens.locate(&path)?.0));
                Ok(volumes.open(host, read_only, locate))
            }
            _ => Err(format!(
                "{ANNOTATION} names {mount}, and the container has no volume mounted there"
            )),
        })
    }

    fn store(&self) -> Outcome<Arc<dyn Store>> {
        self.0.clone().map_err(Failure::Other)
    }
}

/// The value of a counter, which is its decimal text.
fn incremented(value: Option<&[u8]>, delta: u64) -> Outcome<u64> {
    let Some(value) = value else { return Ok(delta) };
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.trim().parse::<u64>().ok());
    let number = number.ok_or_else(|| other("the value is no decimal number"))?;
    let sum = number.checked_add(delta);
    sum.ok_or_else(|| other(format!("{number} + {delta} does not fit into 64 bits")))
}

fn check_value(value: &[u8]) -> Outcome<()> {
    match value.len() > MAX_VALUE {
        true => Err(other(format!(
            "the value has {} bytes; at most {MAX_VALUE} are kept",
            value.len()
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
