//! The forms that images have.

use std::io::Write as _;

use coracle_cri::PullPolicy;
use coracle_image::{Descriptor, ImageConfig, Manifest, Platform, Use, media};

use crate::server::TestRegistry;
use crate::{Node, wasm};

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A container image as a builder makes it.
fn container(
    registry: &TestRegistry,
    platform: (&str, &str),
    entrypoint: &[&str],
    layers: &[Vec<u8>],
) -> Manifest {
    let mut config = ImageConfig::default();
    config.platform.os = platform.0.to_owned();
    config.platform.architecture = platform.1.to_owned();
    config.config.entrypoint = entrypoint.iter().map(|part| (*part).to_owned()).collect();
    config.config.env = vec!["A=1".to_owned()];
    config.config.working_dir = "/srv".to_owned();
    let config = serde_json::to_vec(&config).unwrap();
    Manifest {
        schema_version: 2,
        config: Some(registry.blob(media::CONFIG, &config)),
        layers: layers
            .iter()
            .map(|layer| registry.blob(media::LAYER, layer))
            .collect(),
        ..Manifest::default()
    }
}

#[tokio::test]
async fn every_type_of_a_wasm_layer_is_pulled() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    for (index, kind) in media::WASM_LAYERS.iter().enumerate() {
        let program = wasm(100 + index);
        let manifest = Manifest {
            schema_version: 2,
            config: Some(registry.blob("application/vnd.oci.empty.v1+json", b"{}")),
            layers: vec![registry.blob(kind, &program)],
            ..Manifest::default()
        };
        registry.manifest("app", &index.to_string(), &manifest);
        let pulled = node
            .pull(&registry.image(&format!("app:{index}")))
            .await
            .unwrap();
        assert_eq!(node.program(&pulled, &[]).await.unwrap(), program, "{kind}");
        let files = node.images.files(&pulled).await.unwrap();
        assert_eq!(std::fs::read(files.join("app.wasm")).unwrap(), program);
    }
}

#[tokio::test]
async fn an_image_of_archives_is_unpacked_and_its_entrypoint_found() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let (app, tool) = (wasm(1000), wasm(900));
    let layers = [
        archive(&[("app.wasm", &wasm(5)), ("etc/motd", b"old"), ("gone", b"x")]),
        gzip(&archive(&[("app.wasm", &app), ("srv/tool.wasm", &tool)])),
        zstd(&archive(&[(".wh.gone", b""), ("etc/motd", b"new")])),
    ];
    let manifest = container(&registry, ("linux", "amd64"), &["/app.wasm"], &layers);
    registry.manifest("app", "1", &manifest);
    let pulled = node.pull(&registry.image("app:1")).await.unwrap();
    assert_eq!(node.program(&pulled, &[]).await.unwrap(), app);
    for command in ["/srv/tool.wasm", "tool.wasm", "./tool.wasm"] {
        assert_eq!(
            node.program(&pulled, &[command]).await.unwrap(),
            tool,
            "{command}"
        );
    }
    let error = node
        .program(&pulled, &["/bin/sh"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("stat /bin/sh: no such file or directory"),
        "{error}"
    );
    let error = node
        .program(&pulled, &["/etc/motd"])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not WebAssembly"), "{error}");
    let setup = node.images.setup(&pulled, &[]).await.unwrap();
    assert_eq!(setup.run.env, ["A=1"]);
    assert_eq!(setup.run.working_dir, "/srv");
    let root = setup.root.unwrap();
    assert_eq!(std::fs::read(root.join("etc/motd")).unwrap(), b"new");
    assert!(!root.join("gone").exists());
    assert_eq!(node.images.files(&pulled).await.unwrap(), root);
}

#[tokio::test]
async fn an_image_for_another_machine_is_refused_before_its_layers_are_fetched() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let layers = [archive(&[("bin/nginx", b"elf")])];
    let manifest = container(&registry, ("linux", "amd64"), &["/bin/nginx"], &layers);
    registry.manifest("nginx", "1", &manifest);
    let image = registry.image("nginx:1");
    let error = node.pull(&image).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNotRunnable");
    let error = error.to_string();
    assert!(
        error.contains("container image for linux/amd64 whose entrypoint is"),
        "{error}"
    );
    assert!(error.contains("needed is WebAssembly"), "{error}");
    assert_eq!(registry.asked("/blobs/").len(), 1);

    // A volume has no use for a program.
    let request = node.request(&image, PullPolicy::IfNotPresent);
    let pulled = node
        .images
        .pull(&request, Use::Files, None)
        .await
        .unwrap()
        .image;
    let files = node.images.files(&pulled).await.unwrap();
    assert_eq!(std::fs::read(files.join("bin/nginx")).unwrap(), b"elf");
}

#[tokio::test]
async fn an_image_without_an_entrypoint_runs_what_the_pod_says() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let tool = wasm(200);
    let layers = [archive(&[("tool.wasm", &tool)])];
    let manifest = container(&registry, ("wasip1", "wasm"), &[], &layers);
    registry.manifest("tools", "1", &manifest);
    let pulled = node.pull(&registry.image("tools:1")).await.unwrap();
    let found = node.program(&pulled, &["/tool.wasm"]).await;
    assert_eq!(found.unwrap(), tool);
    let error = node.program(&pulled, &[]).await.unwrap_err().to_string();
    assert!(error.contains("no command specified"), "{error}");
}

#[tokio::test]
async fn the_wasm_manifest_of_an_index_is_taken() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let program = wasm(300);
    let linux = container(
        &registry,
        ("linux", "amd64"),
        &["/bin/sh"],
        &[archive(&[("x", b"x")])],
    );
    let ours = container(
        &registry,
        ("wasi", "wasm"),
        &["/app"],
        &[archive(&[("app", &program)])],
    );
    let entry = |manifest: &Manifest, os: &str, architecture: &str| Descriptor {
        platform: Some(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
        }),
        ..registry.manifest("app", "part", manifest)
    };
    let mut index = Manifest {
        schema_version: 2,
        manifests: vec![
            entry(&linux, "linux", "amd64"),
            entry(&ours, "wasi", "wasm"),
        ],
        ..Manifest::default()
    };
    let top = registry.manifest("app", "1", &index);
    let pulled = node.pull(&registry.image("app:1")).await.unwrap();
    assert_eq!(pulled.digest, top.digest.to_string());
    assert_eq!(node.program(&pulled, &[]).await.unwrap(), program);
    index.manifests.pop();
    registry.manifest("app", "2", &index);
    let error = node.error(&registry.image("app:2")).await;
    assert!(
        error.contains("for linux/amd64 and for no wasm platform"),
        "{error}"
    );
}

#[tokio::test]
async fn an_archive_that_leads_out_is_refused() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..10].copy_from_slice(b"../../evil");
    header.set_size(4);
    header.set_cksum();
    archive.append(&header, &b"evil"[..]).unwrap();
    let layers = [archive.into_inner().unwrap()];
    let manifest = container(&registry, ("wasi", "wasm"), &["/app.wasm"], &layers);
    registry.manifest("app", "1", &manifest);
    let pulled = node.pull(&registry.image("app:1")).await.unwrap();
    let error = node.program(&pulled, &[]).await.unwrap_err().to_string();
    assert!(error.contains("leads out of the image"), "{error}");
    assert!(!node.folder.path().join("images/evil").exists());
    assert!(!node.folder.path().join("evil").exists());
}
