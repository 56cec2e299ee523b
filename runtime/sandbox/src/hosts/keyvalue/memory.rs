//! Buckets in memory, charged to the pod that they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Change, MAX_BUCKETS, MAX_KEYS, Outcome, Store, check_value, other};
use crate::memory::MemoryBudget;

/// What an entry takes beside its key and its value.
const OVERHEAD: u64 = 128;
/// Most bytes of one pod's buckets, whatever its memory limit.
const MAX_BYTES: u64 = 256 << 20;

type Bucket = BTreeMap<String, Vec<u8>>;

/// The buckets of one pod. They live as long as its sandbox: a container that starts again finds them.
pub(crate) struct Memory {
    budget: Arc<MemoryBudget>,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    by_name: BTreeMap<String, Bucket>,
    bytes: u64,
}

impl Memory {
    /// Buckets that count for `budget`.
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Arc<Self> {
        let buckets = Mutex::default();
        Arc::new(Self { budget, buckets })
    }

    fn put(&self, buckets: &mut Buckets, bucket: &str, key: &str, value: Vec<u8>) -> Outcome<()> {
        check_value(&value)?;
        let known = buckets.by_name.get(bucket);
        if known.is_none() && buckets.by_name.len() >= MAX_BUCKETS {
            return Err(other(format!("a pod has at most {MAX_BUCKETS} buckets")));
        }
        let before = known.and_then(|bucket| bucket.get(key));
        if before.is_none() && known.is_some_and(|bucket| bucket.len() >= MAX_KEYS) {
            return Err(other(format!("a bucket has at most {MAX_KEYS} keys")));
        }
        let before = before.map_or(0, |value| size(key, value));
        let after = size(key, &value);
        if buckets.bytes - before + after > MAX_BYTES {
            return Err(other(format!(
                "the buckets of a pod have at most {MAX_BYTES} bytes in memory"
            )));
        }
        self.budget.charge(after).map_err(other)?;
        self.budget.release(before);
        buckets.bytes = buckets.bytes - before + after;
        let bucket = buckets.by_name.entry(bucket.to_owned()).or_default();
        bucket.insert(key.to_owned(), value);
        Ok(())
    }
}

fn size(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + OVERHEAD
}

impl Store for Memory {
    fn get(&self, bucket: &str, key: &str) -> Outcome<Option<Vec<u8>>> {
        let buckets = self.buckets.lock();
        let bucket = buckets.by_name.get(bucket);
        Ok(bucket.and_then(|bucket| bucket.get(key)).cloned())
    }

    fn set(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Outcome<()> {
        let mut buckets = self.buckets.lock();
        for (key, value) in pairs {
            self.put(&mut buckets, bucket, &key, value)?;
        }
        Ok(())
    }

    fn delete(&self, bucket: &str, keys: &[String]) -> Outcome<()> {
        let mut buckets = self.buckets.lock();
        let Buckets { by_name, bytes } = &mut *buckets;
        let Some(entries) = by_name.get_mut(bucket) else {
            return Ok(());
        };
        for key in keys {
            if let Some(value) = entries.remove(key) {
                *bytes -= size(key, &value);
                self.budget.release(size(key, &value));
            }
        }
        if entries.is_empty() {
            by_name.remove(bucket);
        }
        Ok(())
    }

    fn keys(&self, bucket: &str) -> Outcome<Vec<String>> {
        let buckets = self.buckets.lock();
        let bucket = buckets.by_name.get(bucket);
        Ok(bucket.map_or_else(Vec::new, |bucket| bucket.keys().cloned().collect()))
    }

    fn update(&self, bucket: &str, key: &str, change: &mut Change<'_>) -> Outcome<()> {
        let mut buckets = self.buckets.lock();
        let found = buckets.by_name.get(bucket);
        let value = change(found.and_then(|bucket| bucket.get(key)).map(Vec::as_slice))?;
        self.put(&mut buckets, bucket, key, value)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.budget.release(self.buckets.get_mut().bytes);
    }
}
