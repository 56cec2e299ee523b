//! Decides what a manifest means: which of an index's manifests is taken, which layer is the program,
//! and what is no image for this node. Pure.

use std::fmt;

use crate::spec::{Descriptor, ImageConfig, Manifest, Platform, media};

/// How the bytes of an image lie in its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One layer is the program.
    Artifact {
        /// That layer.
        program: Descriptor,
    },
    /// Layers that are unpacked over each other; the program is a file in there.
    Root {
        /// Lowest first.
        layers: Vec<Descriptor>,
    },
}

/// An image that is not for this node: what was found and what is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotWasm(String);

impl fmt::Display for NotWasm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; needed is WebAssembly: an OCI artifact with one application/wasm layer, or an image \
             whose entrypoint is a .wasm file",
            self.0
        )
    }
}

/// What an image is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To run its program.
    Run,
    /// To read its files, as an `image` volume.
    Files,
}

/// The manifest of `index` to take: one for wasm; for files alone, also one for any platform.
pub(crate) fn choose(index: &Manifest, wanted: Use) -> Result<&Descriptor, NotWasm> {
    let rank = |platform: &Platform| match (platform.architecture.as_str(), platform.os.as_str()) {
        // Names in use: runwasi and buildkit say wasi/wasm, the artifact specification wasip1 and
        // wasip2.
        ("wasm" | "wasm32", "wasip2") => Some(0),
        ("wasm" | "wasm32", "wasip1") => Some(1),
        ("wasm" | "wasm32", _) => Some(2),
        // What buildx calls its attestations.
        ("unknown", "unknown") => None,
        ("amd64", "linux") if wanted == Use::Files => Some(3),
        _ if wanted == Use::Files => Some(4),
        _ => None,
    };
    let best = index
        .manifests
        .iter()
        .filter_map(|entry| {
            // An entry without a platform says nothing; its own manifest will.
            let rank = entry.platform.as_ref().map_or(Some(5), rank)?;
            Some((rank, entry))
        })
        .min_by_key(|(rank, _)| *rank);
    best.map(|(_, entry)| entry).ok_or_else(|| {
        let platforms: Vec<_> = index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(Platform::to_string)
            .collect();
        NotWasm(format!(
            "found an image for {} and for no wasm platform such as wasi/wasm",
            platforms.join(", ")
        ))
    })
}

/// How the layers of `manifest` make an image. Fails before a byte of them is fetched when `config`
/// already shows that it is no WebAssembly.
pub(crate) fn layout(
    manifest: &Manifest,
    config: &ImageConfig,
    wanted: Use,
) -> Result<Layout, NotWasm> {
    let programs: Vec<_> = manifest.layers.iter().filter(|l| is_wasm(l)).collect();
    match programs.as_slice() {
        [program] => {
            return Ok(Layout::Artifact {
                program: (*program).clone(),
            });
        }
        [_, _, ..] => {
            return Err(NotWasm(format!(
                "found an artifact of {} wasm layers{}, which one is the program it does not say",
                programs.len(),
                described(manifest)
            )));
        }
        [] => {}
    }
    if let Some(other) = manifest.layers.iter().find(|layer| !is_archive(layer)) {
        return Err(NotWasm(format!(
            "found an artifact with a layer of type {:?}{}",
            other.media_type,
            described(manifest)
        )));
    }
    if manifest.layers.is_empty() {
        return Err(NotWasm("found an image without layers".to_owned()));
    }
    let start = argv(config);
    // `ENTRYPOINT ["/app"]` is taken at its platform's word; the file's first bytes will tell. Without
    // any, the pod has to say what runs.
    let is_wasm = config.platform.architecture.starts_with("wasm")
        || start.iter().take(2).any(|part| part.ends_with(".wasm"));
    if wanted == Use::Run && !is_wasm {
        let start = match start.is_empty() {
            true => "without an entrypoint".to_owned(),
            false => format!("whose entrypoint is {start:?}"),
        };
        return Err(NotWasm(format!(
            "found a container image for {} {start}",
            config.platform
        )));
    }
    Ok(Layout::Root {
        layers: manifest.layers.clone(),
    })
}

/// Entry point and arguments of an image by itself.
pub(crate) fn argv(config: &ImageConfig) -> Vec<String> {
    let run = &config.config;
    run.entrypoint.iter().chain(&run.cmd).cloned().collect()
}

fn is_wasm(layer: &Descriptor) -> bool {
    media::WASM_LAYERS.contains(&layer.media_type.as_str())
}

/// Archives of OCI and Docker; how they are compressed shows in their first bytes.
fn is_archive(layer: &Descriptor) -> bool {
    let kind = layer.media_type.as_str();
    kind.starts_with("application/vnd.oci.image.layer.")
        || kind.starts_with("application/vnd.docker.image.rootfs.")
}

fn described(manifest: &Manifest) -> String {
    let config = manifest.config.as_ref();
    let kind = manifest
        .artifact_type
        .as_deref()
        .or_else(|| config.map(|config| config.media_type.as_str()));
    kind.map_or_else(String::new, |kind| format!(" of type {kind:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn layer(kind: &str) -> Descriptor {
        Descriptor {
            media_type: kind.to_owned(),
            digest: Digest::of(kind.as_bytes()),
            size: 1,
            platform: None,
            annotations: Default::default(),
        }
    }

    fn manifest(layers: &[&str]) -> Manifest {
        Manifest {
            config: Some(layer("application/vnd.test")),
            layers: layers.iter().map(|kind| layer(kind)).collect(),
            ..Manifest::default()
        }
    }

    fn config(platform: (&str, &str), entrypoint: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        config.platform.os = platform.0.to_owned();
        config.platform.architecture = platform.1.to_owned();
        config.config.entrypoint = entrypoint.iter().map(|part| (*part).to_owned()).collect();
        config
    }

    fn index(platforms: &[(&str, &str)]) -> Manifest {
        let entry = |(os, architecture): &(&str, &str)| Descriptor {
            platform: Some(config((os, architecture), &[]).platform),
            ..layer(os)
        };
        Manifest {
            manifests: platforms.iter().map(entry).collect(),
            ..Manifest::default()
        }
    }

    #[test]
    fn every_kind_of_wasm_layer_is_a_program() {
        let config = ImageConfig::default();
        for kind in media::WASM_LAYERS {
            let found = layout(&manifest(&[kind]), &config, Use::Run).unwrap();
            let program = layer(kind);
            assert_eq!(found, Layout::Artifact { program });
        }
    }

    #[test]
    fn archives_need_an_entrypoint_that_is_wasm() {
        let archive = manifest(&[media::LAYER_GZIP]);
        let linux = ("linux", "amd64");
        for start in [&["/app.wasm"][..], &["/wasm-runtime", "app.wasm"]] {
            let found = layout(&archive, &config(linux, start), Use::Run);
            assert!(matches!(found, Ok(Layout::Root { .. })), "{found:?}");
        }
        for start in [&[][..], &["/app"]] {
            let found = layout(&archive, &config(("wasip1", "wasm"), start), Use::Run);
            assert!(matches!(found, Ok(Layout::Root { .. })), "{found:?}");
        }
        let error = layout(&archive, &config(linux, &["/bin/nginx"]), Use::Run).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("linux/amd64"), "{error}");
        assert!(error.contains("/bin/nginx"), "{error}");
        assert!(error.contains("needed is WebAssembly"), "{error}");
        assert!(layout(&archive, &config(linux, &["/bin/nginx"]), Use::Files).is_ok());
    }

    #[test]
    fn what_is_no_image_is_named() {
        let config = ImageConfig::default();
        for (layers, why) in [
            (&[][..], "without layers"),
            (&[media::WASM, media::WASM], "2 wasm layers"),
            (&["application/vnd.cncf.helm.chart"], "helm.chart"),
        ] {
            let error = layout(&manifest(layers), &config, Use::Run).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn the_wasm_platform_of_an_index_is_taken() {
        let both = index(&[("linux", "amd64"), ("wasi", "wasm"), ("wasip1", "wasm")]);
        assert_eq!(choose(&both, Use::Run).unwrap(), &both.manifests[2]);
        let none = index(&[("linux", "amd64"), ("unknown", "unknown")]);
        let error = choose(&none, Use::Run).unwrap_err().to_string();
        assert!(error.contains("linux/amd64 and for no wasm"), "{error}");
        assert_eq!(choose(&none, Use::Files).unwrap(), &none.manifests[0]);
    }
}
