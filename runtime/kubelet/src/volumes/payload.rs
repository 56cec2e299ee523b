//! The files of volumes that are made of objects, as a value.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume,
};

use super::{Problem, relative};
use crate::environment::{Sources, field, resource_of};

/// Bytes that one volume may have; a single object is bounded by the API server already.
const LIMIT: usize = 16 << 20;

/// The mode of files when neither the volume nor the item says one (the API's default).
const DEFAULT_MODE: i32 = 0o644;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

/// Files by their path below the volume's folder.
pub(super) type Files = BTreeMap<String, File>;

/// The files of `volume` as its sources stand now.
pub(super) fn of(
    pod: &Pod,
    volume: &Volume,
    address: &str,
    sources: &dyn Sources,
) -> Result<Files, Problem> {
    let mut payload = Payload {
        pod,
        address,
        sources,
        files: Files::new(),
        size: 0,
    };
    if let Some(source) = &volume.config_map {
        let selection = Selection::new(
            source.items.as_deref(),
            source.optional,
            source.default_mode,
        );
        payload.config_map(&source.name, &selection)?;
    } else if let Some(source) = &volume.secret {
        let selection = Selection::new(
            source.items.as_deref(),
            source.optional,
            source.default_mode,
        );
        payload.secret(
            source.secret_name.as_deref().unwrap_or_default(),
            &selection,
        )?;
    } else if let Some(source) = &volume.downward_api {
        payload.downward(
            source.items.as_deref(),
            source.default_mode.unwrap_or(DEFAULT_MODE),
        )?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode;
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.config_map {
                let selection = Selection::new(part.items.as_deref(), part.optional, mode);
                payload.config_map(&part.name, &selection)?;
            }
            if let Some(part) = &part.secret {
                let selection = Selection::new(part.items.as_deref(), part.optional, mode);
                payload.secret(&part.name, &selection)?;
            }
            if let Some(part) = &part.downward_api {
                payload.downward(part.items.as_deref(), mode.unwrap_or(DEFAULT_MODE))?;
            }
            if part.cluster_trust_bundle.is_some() {
                return Err(Problem::Unsupported("projected clusterTrustBundle".into()));
            }
            if let Some(part) = &part.service_account_token {
                let token = payload.sources.token(part);
                let token = token.ok_or_else(|| Problem::Token("there is no token".into()))?;
                // Other users of the host have no business with tokens; guests never see modes.
                let mode = mode.unwrap_or(DEFAULT_MODE) & 0o700;
                payload.add(&part.path, token.into_bytes(), mode)?;
            }
        }
    } else {
        return Err(Problem::Unsupported(kind(volume)));
    }
    Ok(payload.files)
}

/// Which keys of an object become files.
struct Selection<'a> {
    items: Option<&'a [KeyToPath]>,
    optional: bool,
    mode: i32,
}

impl<'a> Selection<'a> {
    fn new(items: Option<&'a [KeyToPath]>, optional: Option<bool>, mode: Option<i32>) -> Self {
        let items = items.filter(|items| !items.is_empty());
        Self {
            items,
            optional: optional == Some(true),
            mode: mode.unwrap_or(DEFAULT_MODE),
        }
    }

    /// Each file's key, path and mode.
    fn of<'k>(&'k self, keys: impl Iterator<Item = &'k String>) -> Vec<(&'k str, &'k str, i32)> {
        match self.items {
            Some(items) => items
                .iter()
                .map(|item| {
                    (
                        item.key.as_str(),
                        item.path.as_str(),
                        item.mode.unwrap_or(self.mode),
                    )
                })
                .collect(),
            None => keys
                .map(|key| (key.as_str(), key.as_str(), self.mode))
                .collect(),
        }
    }
}

struct Payload<'a> {
    pod: &'a Pod,
    address: &'a str,
    sources: &'a dyn Sources,
    files: Files,
    size: usize,
}

impl Payload<'_> {
    fn config_map(&mut self, name: &str, selection: &Selection<'_>) -> Result<(), Problem> {
        let Some(map) = self.sources.config_map(name) else {
            return absent("configmap", name, selection);
        };
        let ConfigMap {
            data, binary_data, ..
        } = map.as_ref();
        let keys = data.iter().flatten().map(|(key, _)| key);
        let keys = keys.chain(binary_data.iter().flatten().map(|(key, _)| key));
        for (key, path, mode) in selection.of(keys) {
            let text = data
                .as_ref()
                .and_then(|data| data.get(key))
                .map(String::as_bytes);
            let bytes = text.or_else(|| Some(binary_data.as_ref()?.get(key)?.0.as_slice()));
            match bytes {
                Some(bytes) => self.add(path, bytes.to_vec(), mode)?,
                None if selection.optional => {}
                None => {
                    return Err(Problem::NoKey {
                        kind: "config",
                        key: key.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn secret(&mut self, name: &str, selection: &Selection<'_>) -> Result<(), Problem> {
        let Some(secret) = self.sources.secret(name) else {
            return absent("secret", name, selection);
        };
        let Secret { data, .. } = secret.as_ref();
        for (key, path, mode) in selection.of(data.iter().flatten().map(|(key, _)| key)) {
            match data.as_ref().and_then(|data| data.get(key)) {
                // Other users of the host have no business with secrets; guests never see modes.
                Some(bytes) => self.add(path, bytes.0.clone(), mode & 0o700)?,
                None if selection.optional => {}
                None => {
                    return Err(Problem::NoKey {
                        kind: "secret",
                        key: key.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn downward(
        &mut self,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: i32,
    ) -> Result<(), Problem> {
        for item in items.unwrap_or_default() {
            let value = if let Some(reference) = &item.field_ref {
                field(
                    self.pod,
                    &reference.field_path,
                    self.address,
                    &self.sources.host_ips(),
                )?
            } else if let Some(reference) = &item.resource_field_ref {
                let name = reference.container_name.as_deref().unwrap_or_default();
                resource_of(self.pod, name, reference, self.sources)?
            } else {
                continue;
            };
            self.add(&item.path, value.into_bytes(), item.mode.unwrap_or(mode))?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>, mode: i32) -> Result<(), Problem> {
        relative(path)?;
        // Names that begin so are the swap's own.
        if path.starts_with("..") {
            return Err(Problem::Escapes(path.to_owned()));
        }
        self.size += bytes.len();
        if self.size > LIMIT {
            return Err(Problem::TooLarge {
                size: self.size,
                limit: LIMIT,
            });
        }
        let mode = u32::try_from(mode).unwrap_or(0) & 0o777;
        self.files.insert(path.to_owned(), File { bytes, mode });
        Ok(())
    }
}

fn absent(kind: &'static str, name: &str, selection: &Selection<'_>) -> Result<(), Problem> {
    if selection.optional {
        Ok(())
    } else {
        Err(Problem::NotFound {
            kind,
            name: name.to_owned(),
        })
    }
}

/// The name of the field that says what a volume is.
fn kind(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let mut names = fields
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys());
    names
        .find(|name| *name != "name")
        .cloned()
        .unwrap_or_else(|| "unset".to_owned())
}
