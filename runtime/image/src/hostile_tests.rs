//! What strangers send: whatever it is, it is no panic, and nothing lands outside its folder.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::archive::load_archive;
use crate::keyring::Keyring;
use crate::layout::{Use, choose, layout};
use crate::reference::Reference;
use crate::registry::auth::{Challenge, token_of};
use crate::registry::error::words;
use crate::spec::{ImageConfig, Manifest};
use crate::store::{Disk, ImageStore};
use crate::unpack::{UnpackLimits, layer, resolve};

/// A path as an archive may have it.
fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "..",
        ".",
        "",
        "a",
        "b",
        "link",
        ".wh.a",
        ".wh..wh..opq",
        "/",
    ]);
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

/// An entry of an archive: kind, name, where it links to.
fn entry() -> impl Strategy<Value = (u8, String, String)> {
    (prop::sample::select(b"0123456LKx".to_vec()), path(), path())
}

fn archive(entries: &[(u8, String, String)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, name, link) in entries {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        let content: &[u8] = match kind {
            b'L' | b'K' => link.as_bytes(),
            b'0' => b"evil",
            _ => b"",
        };
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_size(content.len() as u64);
        header.set_mode(0o777);
        header.set_cksum();
        archive
            .append(&header, content)
            .expect("memory takes all bytes");
    }
    archive.into_inner().expect("memory takes all bytes")
}

/// Everything in `folder` but its `root`, as far as it matters.
fn outside(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let secret = fs::read_to_string(folder.join("a")).expect("still there");
    assert_eq!(secret, "secret");
    names
}

proptest! {
    #[test]
    fn no_archive_writes_outside_its_folder(layers in prop::collection::vec(prop::collection::vec(entry(), 0..8), 1..3)) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("made");
        fs::write(folder.path().join("a"), "secret").expect("written");
        let file = folder.path().join("layer");
        let mut limits = UnpackLimits::new(1000, 100);
        for entries in &layers {
            fs::write(&file, archive(entries)).expect("written");
            let _ = layer(&Disk::default(), &file, &root, &mut limits);
            prop_assert!(root.is_dir());
            prop_assert_eq!(outside(folder.path()), ["a", "layer", "root"]);
        }
        for path in ["a", "../a", "link/a", "a/b/link", "/../../a"] {
            if let Ok(Some(found)) = resolve(&root, Path::new(path)) {
                prop_assert!(found.starts_with(&root));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes);
        let _ = token_of(&bytes);
        prop_assert!(words(&bytes).chars().all(|c| !c.is_control()));
        let mut keyring = Keyring::default();
        let _ = keyring.add_config(&bytes);
        let _ = keyring.add_dockercfg(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = Challenge::of([text.as_str()].into_iter());
        let _ = crate::registry::hosts::parse(&text, Path::new("/"), "r.io");
        let mut keyring = Keyring::default();
        keyring.add(&text, Default::default());
        let _ = keyring.lookup("registry.example.com:5000/team/app");
        let _ = keyring.lookup(&text);
        if let Ok(reference) = text.parse::<Reference>() {
            let again = reference.to_string().parse::<Reference>();
            prop_assert_eq!(again.expect("a full name is a name"), reference);
        }
    }

    #[test]
    fn any_manifest_is_decided_on(kinds in prop::collection::vec("(application/wasm|application/vnd.oci.image.layer.v1.tar|x)", 0..4), os in "(linux|wasi|wasip1|)") {
        let digest = crate::Digest::of(b"");
        let entries: Vec<_> = kinds.iter().map(|kind| serde_json::json!({
            "mediaType": kind, "digest": digest.to_string(), "size": 1,
            "platform": {"os": os, "architecture": "wasm"},
        })).collect();
        let text = serde_json::json!({"schemaVersion": 2, "config": entries.first(), "layers": entries, "manifests": entries});
        if let Ok(manifest) = Manifest::parse(text.to_string().as_bytes()) {
            for wanted in [Use::Run, Use::Files] {
                let _ = choose(&manifest, wanted);
                if let Err(why) = layout(&manifest, &ImageConfig::default(), wanted) {
                    prop_assert!(why.to_string().contains("needed is WebAssembly"));
                }
            }
        }
    }
}

#[test]
fn damaged_archives_of_images_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = coracle_clock::Clock::fake(1);
    let store = ImageStore::open(folder.path().join("images"), clock.clone()).expect("opened");
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(index.len() as u64);
    header.set_cksum();
    archive
        .append_data(&mut header, "index.json", &index[..])
        .expect("written");
    let whole = archive.into_inner().expect("written");
    let path = folder.path().join("archive.tar");
    for _ in 0..200 {
        let mut bytes = whole.clone();
        let at = clock.random_below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << clock.random_below(8);
        fs::write(&path, bytes).expect("written");
        assert!(load_archive(&store, &path, None).is_err());
    }
}
