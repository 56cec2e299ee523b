//! What the store promises, one process at a time.

use std::fs;

use coracle_clock::Clock;

use super::*;

fn store() -> (tempfile::TempDir, ImageStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path().join("images"), Clock::fake(1)).unwrap();
    (folder, store)
}

#[tokio::test]
async fn a_name_follows_the_latest_load() {
    let (folder, store) = store();
    let file = folder.path().join("app.wasm");
    fs::write(&file, b"one").unwrap();
    let (name, first) = store.load(&file, "app:dev").unwrap();
    assert_eq!(name.to_string(), "docker.io/library/app:dev");
    fs::write(&file, b"two").unwrap();
    let (_, second) = store.load(&file, "docker.io/library/app:dev").unwrap();
    assert_ne!(first.digest, second.digest);
    assert_eq!(store.resolve(&name.to_string()).unwrap(), Some(second));
    assert_eq!(store.get(&first.digest).unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn damaged_bytes_are_not_given_out() {
    let (_folder, store) = store();
    let image = store.put(b"good").unwrap();
    fs::write(store.blob_path(&image.digest), b"evil").unwrap();
    assert_eq!(store.get(&image.digest).unwrap(), None);
}

#[tokio::test]
async fn a_name_without_bytes_means_nothing() {
    let (_folder, store) = store();
    let image = store.put(b"gone").unwrap();
    store.set_name("x", &image).unwrap();
    fs::remove_file(store.blob_path(&image.digest)).unwrap();
    assert_eq!(store.resolve("x").unwrap(), None);
    assert_eq!(store.resolve("never set").unwrap(), None);
}

#[tokio::test]
async fn loading_names_what_is_missing() {
    let (folder, store) = store();
    let error = store
        .load(&folder.path().join("none.wasm"), "app")
        .unwrap_err();
    assert!(error.to_string().contains("none.wasm"), "{error}");
    let pinned = format!("app@{}", Digest::of(b""));
    assert!(store.load(folder.path(), &pinned).is_err());
}
