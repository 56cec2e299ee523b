//! Both stores keep one contract; what only one of them can get wrong follows.

use std::path::Path;

use super::*;
use crate::memory::{MemoryBudget, Scope};

fn budget(limit: u64) -> Arc<MemoryBudget> {
    MemoryBudget::node(u64::MAX).child(Scope::Pod, Some(limit))
}

fn open(volumes: &Volumes, folder: &Path, read_only: bool) -> Arc<dyn Store> {
    let found = folder.to_owned();
    volumes.open(folder, read_only, Box::new(move || Some(found.clone())))
}

/// Runs `check` on a store of each kind.
fn on_both(check: impl Fn(&dyn Store)) {
    check(&*Memory::new(budget(1 << 20)));
    let folder = tempfile::tempdir().unwrap();
    check(&*open(&Volumes::default(), folder.path(), false));
}

fn set(store: &dyn Store, bucket: &str, key: &str, value: &str) -> Outcome<()> {
    store.set(bucket, vec![(key.to_owned(), value.into())])
}

fn get(store: &dyn Store, bucket: &str, key: &str) -> Option<String> {
    let value = store.get(bucket, key).unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

fn delete(store: &dyn Store, key: &str) {
    store.delete("default", &[key.to_owned()]).unwrap();
}

fn increment(store: &dyn Store, key: &str, delta: u64) -> Outcome<()> {
    store.update("default", key, &mut |value| {
        Ok(incremented(value, delta)?.to_string().into_bytes())
    })
}

#[test]
fn values_are_set_replaced_listed_and_deleted() {
    on_both(|store| {
        assert_eq!(get(store, "default", "a"), None);
        assert!(store.keys("default").unwrap().is_empty());
        for key in ["b", "a/1", "", "..", "Ä"] {
            set(store, "default", key, key).unwrap();
            assert_eq!(get(store, "default", key).as_deref(), Some(key));
        }
        set(store, "default", "b", "second").unwrap();
        set(store, "other", "b", "elsewhere").unwrap();
        assert_eq!(get(store, "default", "b").as_deref(), Some("second"));
        assert_eq!(store.keys("default").unwrap(), ["", "..", "a/1", "b", "Ä"]);
        delete(store, "b");
        delete(store, "b");
        assert_eq!(get(store, "default", "b"), None);
        assert_eq!(get(store, "other", "b").as_deref(), Some("elsewhere"));
    });
}

#[test]
fn counters_count_and_say_when_they_cannot() {
    on_both(|store| {
        increment(store, "n", 5).unwrap();
        increment(store, "n", 7).unwrap();
        assert_eq!(get(store, "default", "n").as_deref(), Some("12"));
        assert!(increment(store, "n", u64::MAX).is_err());
        set(store, "default", "text", "seven").unwrap();
        assert!(increment(store, "text", 1).is_err());
        assert_eq!(get(store, "default", "n").as_deref(), Some("12"));
    });
}

#[test]
fn increments_at_once_are_all_counted() {
    on_both(|store| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| increment(store, "n", 1).unwrap()));
            }
        });
        assert_eq!(get(store, "default", "n").as_deref(), Some("40"));
    });
}

#[test]
fn sizes_and_buckets_are_bounded() {
    on_both(|store| {
        let large = vec![0; MAX_VALUE + 1];
        assert!(store.set("default", vec![("a".into(), large)]).is_err());
        for n in 0..MAX_BUCKETS {
            set(store, &format!("bucket-{n}"), "a", "").unwrap();
        }
        assert!(set(store, "one-more", "a", "").is_err());
        set(store, "bucket-0", "b", "").unwrap();
    });
}

#[test]
fn memory_is_the_pods_and_is_given_back() {
    let budget = budget(10_000);
    let store = Memory::new(budget.clone());
    let value = "x".repeat(4000);
    set(&*store, "default", "a", &value).unwrap();
    set(&*store, "default", "b", &value).unwrap();
    let Err(Failure::Other(why)) = set(&*store, "default", "c", &value) else {
        panic!("it fits")
    };
    assert!(why.contains("memory limit of the pod"), "{why}");
    set(&*store, "default", "a", "small").unwrap();
    set(&*store, "default", "c", &value).unwrap();
    drop(store);
    assert_eq!(budget.used(), 0);
    assert!(budget.refusal().is_none(), "the guest is not to be killed");
}

#[test]
fn a_volume_keeps_its_values_for_the_next_node() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&Volumes::default(), folder.path(), false);
    set(&*first, "default", "a", "1").unwrap();
    // A crash between writing and renaming leaves this.
    let unfinished = folder.path().join("keyvalue/default/.unfinished");
    std::fs::write(&unfinished, "half").unwrap();
    let next = open(&Volumes::default(), folder.path(), false);
    assert_eq!(next.keys("default").unwrap(), ["a"]);
    set(&*next, "default", "b", "2").unwrap();
    assert_eq!(get(&*next, "default", "a").as_deref(), Some("1"));
    assert!(!unfinished.exists());
}

#[test]
fn a_read_only_volume_is_read_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let volumes = Volumes::default();
    let (writer, reader) = (
        open(&volumes, folder.path(), false),
        open(&volumes, folder.path(), true),
    );
    set(&*writer, "default", "a", "1").unwrap();
    assert_eq!(get(&*reader, "default", "a").as_deref(), Some("1"));
    assert_eq!(
        set(&*reader, "default", "a", "2"),
        Err(Failure::AccessDenied)
    );
    let keys = ["a".to_owned()];
    assert_eq!(reader.delete("default", &keys), Err(Failure::AccessDenied));
}

#[cfg(unix)]
#[test]
fn links_that_a_guest_made_lead_nowhere() {
    use std::os::unix::fs::symlink;
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let store = open(&Volumes::default(), folder.path(), false);
    set(&*store, "default", "a", "1").unwrap();
    let bucket = folder.path().join("keyvalue/default");
    symlink(outside.path().join("secret"), bucket.join("leak")).unwrap();
    symlink(outside.path(), folder.path().join("keyvalue/out")).unwrap();
    symlink(outside.path().join("made"), bucket.join(".unfinished")).unwrap();
    assert!(store.get("default", "leak").is_err());
    assert!(store.get("out", "secret").is_err());
    assert!(set(&*store, "out", "new", "x").is_err());
    // A write replaces a link, and not what it leads to.
    set(&*store, "default", "leak", "mine").unwrap();
    assert_eq!(get(&*store, "default", "leak").as_deref(), Some("mine"));
    let names: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(names.len(), 1);
    let secret = std::fs::read_to_string(outside.path().join("secret"));
    assert_eq!(secret.unwrap(), "secret");
}
