//! `image pull` and `image push`, with bars where someone watches.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use coracle_clock::Clock;
use coracle_image::{
    Credential, Digest, ImageSource as _, Keyring, Name, Progress, Pull, RegistrySource, Use,
};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::{find, open, registries, registry_name};
use crate::cli::{DataDir, RegistryArgs};
use crate::data_dir;

/// Largest image; the node's own bound is the same.
pub(crate) const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// Fetches an image into the store.
pub(super) fn pull(name: &str, registry: &RegistryArgs, data: &DataDir) -> Result<()> {
    let (store, parsed) = (open(data)?, registry_name(name)?);
    let mut shared = Keyring::default();
    if let Some(credential) = credential(&parsed)? {
        shared.add(&parsed.registry, credential);
    }
    let source = source(registry, data)?.sharing(shared);
    let bars = Bars::new();
    let progress = bars.progress();
    let pull = Pull {
        name: &parsed,
        wanted: Use::Files,
        credentials: &Keyring::default(),
        store: &store,
        known: store.resolve(&parsed.to_string())?,
        limit: MAX_IMAGE_BYTES,
        progress: Some(&progress),
    };
    let image = runtime()?.block_on(source.pull(pull))?;
    bars.clear();
    println!("pulled {name} ({}, {} bytes)", image.digest, image.size);
    if let Err(why) = super::show::runnable(&store, &image.digest) {
        anstream::eprintln!("warning: {name} does not run here: {why}");
    }
    Ok(())
}

/// Gives an image to a registry.
pub(super) fn push(
    name: &str,
    to: Option<&str>,
    registry: &RegistryArgs,
    data: &DataDir,
) -> Result<()> {
    let store = open(data)?;
    let (_, image) = find(&store, name)?;
    let target = registry_name(to.unwrap_or(name))?;
    if target.digest.is_some() {
        bail!("{target} names a digest; an image is pushed under a tag");
    }
    let credential = credential(&target)?;
    let source = source(registry, data)?;
    let bars = Bars::new();
    let progress = bars.progress();
    let pushed = source.push(&store, &image.digest, &target, credential, Some(&progress));
    let digest = runtime()?.block_on(pushed)?;
    bars.clear();
    println!("pushed {target} ({digest})");
    Ok(())
}

fn source(registry: &RegistryArgs, data: &DataDir) -> Result<RegistrySource> {
    let folder = data_dir::locate(data.data_dir.as_deref())?;
    let config = registries(&folder, registry.registry_hosts.as_deref());
    Ok(RegistrySource::new(config, Clock::system()))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")
}

/// What `docker login` has kept for the registry, if anything.
fn credential(name: &Name) -> Result<Option<Credential>> {
    let server = match name.registry.as_str() {
        // The name under which Docker keeps it.
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    match docker_credential::get_credential(server) {
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(Some(Credential {
            username,
            password,
            ..Credential::default()
        })),
        Ok(DockerCredential::IdentityToken(identity_token)) => Ok(Some(Credential {
            identity_token,
            ..Credential::default()
        })),
        Err(
            CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::NoCredentialConfigured,
        ) => Ok(None),
        // Nobody has ever logged in.
        Err(CredentialRetrievalError::ConfigReadError) if !has_config() => Ok(None),
        // Helpers fail when they have nothing for a server; the registry will tell if it matters.
        Err(CredentialRetrievalError::HelperFailure { .. }) => Ok(None),
        Err(error) => Err(error).context("failed to read the credentials of docker login"),
    }
}

/// Whether Docker's configuration is there, readable or not.
fn has_config() -> bool {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    folder
        .or_else(home)
        .is_some_and(|folder| folder.join("config.json").exists())
}

/// A bar per blob; nothing is drawn where standard error is no terminal.
struct Bars {
    all: MultiProgress,
    each: Arc<Mutex<HashMap<Digest, ProgressBar>>>,
}

impl Bars {
    fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            each: Arc::default(),
        }
    }

    fn progress(&self) -> Progress {
        let (all, each) = (self.all.clone(), self.each.clone());
        Arc::new(move |digest, done, total| {
            let mut each = each.lock();
            let bar = each.entry(*digest).or_insert_with(|| {
                let style = ProgressStyle::with_template(
                    "{prefix} [{bar:30}] {bytes:>10} of {total_bytes} {bytes_per_sec}",
                );
                let bar = all.add(ProgressBar::new(total));
                bar.set_prefix(digest.hex().chars().take(12).collect::<String>());
                bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
            bar.set_position(done);
            if done >= total {
                bar.finish();
            }
        })
    }

    fn clear(&self) {
        // What is left of them on the screen is no reason to fail.
        let _ = self.all.clear();
    }
}
