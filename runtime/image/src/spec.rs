//! Manifests, indexes and configurations, as far as a node reads them (OCI image specification 1.1,
//! Docker's image manifest version 2 schema 2, and the wasm artifacts' own media types).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;

/// Largest manifest, index or configuration; registries refuse larger manifests too.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Media types.
pub mod media {
    /// A manifest of OCI.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An index of OCI: manifests for several platforms.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A manifest of Docker.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// The configuration of a container image.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// The configuration of a wasm artifact.
    pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
    /// The one layer of a wasm artifact.
    pub const WASM: &str = "application/wasm";
    /// A layer that is a tar archive, compressed with gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer that is a tar archive.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// What a registry is asked for.
    pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
        application/vnd.oci.image.index.v1+json, \
        application/vnd.docker.distribution.manifest.v2+json, \
        application/vnd.docker.distribution.manifest.list.v2+json";
    /// Layers that are one wasm file.
    pub const WASM_LAYERS: [&str; 4] = [
        WASM,
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/vnd.module.wasm.content.layer.v1+wasm",
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    ];
}

/// Names some bytes: what they are, their digest, how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    #[serde(default)]
    pub media_type: String,
    /// Their digest.
    #[serde(with = "text")]
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// For which platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free notes, such as the title of a layer.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "or_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest was built for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `wasm`, `amd64`, …
    #[serde(default)]
    pub architecture: String,
    /// `wasi`, `wasip1`, `linux`, …
    #[serde(default)]
    pub os: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// A manifest or an index; which one it is shows in what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    #[serde(default)]
    pub schema_version: u32,
    /// What this document says it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What an artifact says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration, of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// The layers, of a manifest, lowest first.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub layers: Vec<Descriptor>,
    /// The manifests, of an index.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub manifests: Vec<Descriptor>,
    /// Free notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "or_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest or an index; says what is wrong with anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("the manifest cannot be read: {error}"))?;
        if manifest.schema_version != 2 {
            return Err(format!(
                "the manifest has schemaVersion {}; only 2 is known",
                manifest.schema_version
            ));
        }
        if manifest.config.is_none() && !manifest.is_index() {
            return Err("the manifest has neither a config nor manifests".to_owned());
        }
        Ok(manifest)
    }

    /// Whether it names other manifests.
    pub fn is_index(&self) -> bool {
        self.config.is_none() && !self.manifests.is_empty()
    }

    /// The media type to send it with; documents need not say it themselves.
    pub fn media_type(&self) -> &str {
        match (self.media_type.as_str(), self.is_index()) {
            ("", true) => media::INDEX,
            ("", false) => media::MANIFEST,
            (said, _) => said,
        }
    }
}

/// The configuration of an image, as far as it matters for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// What it was built for.
    #[serde(flatten)]
    pub platform: Platform,
    /// How a container of it runs.
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The digests of the unpacked layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<RootFs>,
}

/// The digests of the unpacked layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}

/// How a container of an image runs unless the pod says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `NAME=value` each.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub entrypoint: Vec<String>,
    /// Arguments that a pod's `args` replace.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub working_dir: String,
}

/// `null` is as good as absent: Docker writes it for empty lists.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(value)?.unwrap_or_default())
}

/// Digests as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::digest::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_is_read() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"x","digest":"{digest}","size":2}},"layers":null}}"#,
            media::DOCKER_MANIFEST
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.config.unwrap().digest, digest);
        let config = r#"{"architecture":"wasm","os":"wasi","config":{"Env":null,"Entrypoint":["/a.wasm"],"Cmd":null}}"#;
        let config: ImageConfig = serde_json::from_str(config).unwrap();
        assert_eq!(config.platform.to_string(), "wasi/wasm");
        assert_eq!(config.config.entrypoint, ["/a.wasm"]);
    }

    #[test]
    fn other_documents_are_refused_with_a_reason() {
        for (text, why) in [
            ("hello", "cannot be read"),
            (r#"{"schemaVersion":1}"#, "only 2"),
            (r#"{"schemaVersion":2}"#, "neither"),
            (
                r#"{"schemaVersion":2,"config":{"digest":"sha512:00","size":1}}"#,
                "sha256",
            ),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
