//! The process is killed between any two changes of files; whatever it was doing, the store is whole
//! when it is opened again, and the same work then succeeds.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_clock::Clock;

use super::*;
use crate::content::ensure_root;
use crate::layout::Use;
use crate::spec::{Descriptor, Manifest, media};
use crate::unpack::UnpackLimits;

fn limits() -> UnpackLimits {
    UnpackLimits::new(1 << 20, 100)
}

fn open(disk: Disk, folder: &Path) -> Result<ImageStore, StoreError> {
    // Another process draws other random numbers.
    static PROCESSES: AtomicU64 = AtomicU64::new(0);
    let seed = PROCESSES.fetch_add(1, Ordering::Relaxed);
    ImageStore::on(disk, folder.to_owned(), Clock::fake(seed))
}

/// What a pull does with the store, without the network.
fn pull(store: &ImageStore, name: &str, content: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let blob = |kind: &str, bytes: &[u8]| -> Result<Descriptor, StoreError> {
        let digest = Digest::of(bytes);
        let mut writer = store.writer(&digest)?;
        let had = writer.len() as usize;
        assert!(had <= bytes.len(), "what is left is a beginning");
        let (first, second) = bytes[had..].split_at((bytes.len() - had) / 2);
        writer.append(first)?;
        writer.append(second)?;
        let finished = writer.finish_now()?;
        assert!(
            finished.is_ok(),
            "what was left was the blob's own beginning"
        );
        Ok(Descriptor {
            media_type: kind.to_owned(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        })
    };
    let mut archive = tar::Builder::new(Vec::new());
    for file in ["app.wasm", "data/file"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, file, content)?;
    }
    let config = br#"{"os":"wasi","architecture":"wasm","config":{"Entrypoint":["/app.wasm"]}}"#;
    let manifest = Manifest {
        schema_version: 2,
        config: Some(blob(media::CONFIG, config)?),
        layers: vec![blob(media::LAYER, &archive.into_inner()?)?],
        ..Manifest::default()
    };
    let image = store.put(&serde_json::to_vec(&manifest)?)?;
    if !store.commit(&Record::new(name, &image, Origin::Pulled))? {
        return Err("not whole".into());
    }
    ensure_root(store, &image.digest, &manifest.layers, limits())?;
    Ok(())
}

/// Every name means an image whose parts are all there and undamaged, and whose root, if it has one,
/// is complete.
fn check(store: &ImageStore) {
    for record in store.records().unwrap() {
        let image = record.image().unwrap();
        assert_eq!(store.missing(&image.digest).unwrap(), []);
        for part in store.parts(&image.digest).unwrap().keys() {
            assert!(
                store.get(part).unwrap().is_some(),
                "{}: {part}",
                record.name
            );
        }
        let content = crate::content::content(store, &image.digest, Use::Run).unwrap();
        assert!(content.is_some(), "{}", record.name);
        let root = store.root_path(&image.digest);
        if root.exists() {
            for file in ["app.wasm", "data/file"] {
                let bytes = fs::read(root.join(file)).unwrap();
                assert!(bytes.starts_with(b"\0asm"), "{file}");
            }
        }
    }
    for blob in fs::read_dir(store.folder().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        if path.extension().is_none() {
            let digest = Digest::of(&fs::read(&path).unwrap());
            assert_eq!(digest.hex(), path.file_name().unwrap().to_str().unwrap());
        }
    }
}

/// Runs `work` with a life of one change more each time, until it survives.
fn killed_everywhere(
    before: impl Fn(&ImageStore),
    work: impl Fn(&ImageStore) -> Result<(), Box<dyn std::error::Error>>,
) -> i64 {
    for life in 0.. {
        let folder = tempfile::tempdir().unwrap();
        before(&open(Disk::default(), folder.path()).unwrap());
        let died = open(Disk::killed_after(life), folder.path())
            .map_err(Into::into)
            .and_then(|store| work(&store))
            .is_err();
        let store = open(Disk::default(), folder.path()).unwrap();
        check(&store);
        work(&store).unwrap();
        check(&store);
        // Nothing is left behind but what is known, once it is old enough.
        store.sweep(&[], Duration::ZERO).unwrap();
        check(&store);
        for part in ["partial", "names", "roots", "blobs/sha256"] {
            for entry in fs::read_dir(folder.path().join(part)).unwrap() {
                let path = entry.unwrap().path();
                assert!(
                    path.extension().is_none() && part != "partial",
                    "{}",
                    path.display()
                );
            }
        }
        if !died {
            return life;
        }
    }
    unreachable!("the loop has no end")
}

fn wasm(seed: u8) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.resize(1000, seed);
    bytes
}

#[test]
fn a_pull_can_be_killed_anywhere() {
    let moments = killed_everywhere(|_| {}, |store| pull(store, "r.io/app:1", &wasm(1)));
    assert!(moments > 20, "only {moments} moments were tried");
}

#[test]
fn a_name_that_moves_to_another_image_can_be_killed_anywhere() {
    killed_everywhere(
        |store| pull(store, "r.io/app:1", &wasm(1)).unwrap(),
        |store| pull(store, "r.io/app:1", &wasm(2)),
    );
}

#[test]
fn a_removal_can_be_killed_anywhere_and_spares_what_others_need() {
    let moments = killed_everywhere(
        |store| {
            pull(store, "r.io/app:1", &wasm(1)).unwrap();
            pull(store, "r.io/other:1", &wasm(2)).unwrap();
        },
        |store| {
            if let Some(image) = store.resolve("r.io/app:1")? {
                store.remove_image(&image.digest)?;
            }
            assert!(store.record("r.io/other:1")?.is_some());
            Ok(())
        },
    );
    assert!(moments > 4, "only {moments} moments were tried");
}

#[test]
fn a_load_and_a_sweep_can_be_killed_anywhere() {
    killed_everywhere(
        |store| pull(store, "r.io/app:1", &wasm(1)).unwrap(),
        |store| {
            let image = store.put(&wasm(3))?;
            store.set_name("docker.io/library/app:dev", &image)?;
            store.sweep(&[], Duration::ZERO)?;
            Ok(())
        },
    );
}

#[test]
fn an_image_that_several_want_at_once_is_unpacked_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::killed_after(1_000_000);
    let life = disk.life.clone().unwrap();
    let store = open(disk, folder.path()).unwrap();
    pull(&store, "r.io/app:1", &wasm(1)).unwrap();
    let image = store.resolve("r.io/app:1").unwrap().unwrap().digest;
    let layers = store.manifest(&image).unwrap().unwrap().layers;
    let root = store.root_path(&image);
    let changes_of = |callers: usize| {
        fs::remove_dir_all(&root).unwrap();
        let (before, start) = (life.load(Ordering::Relaxed), Barrier::new(callers));
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    start.wait();
                    ensure_root(&store, &image, &layers, limits()).unwrap();
                });
            }
        });
        before - life.load(Ordering::Relaxed)
    };
    assert_eq!(changes_of(1), changes_of(16));
}
