//! From a registry into the store.
//!
//! ```text
//! name ─▶ manifest or index ─▶ choose ─▶ manifest ─▶ config ─▶ is it for us, is it small enough?
//!                                                      └─▶ layers, several at once ─▶ name
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use coracle_clock::Clock;
use coracle_cri::ImageError;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::content::{failed, not_runnable};
use crate::digest::Digest;
use crate::keyring::{Credential, Keyring};
use crate::layout::{choose, layout};
use crate::reference::Name;
use crate::registry::{Patience, Registry, RegistryError, Session};
use crate::source::{ImageSource, Pull};
use crate::spec::{Descriptor, ImageConfig, MAX_DOCUMENT_BYTES, Manifest};
use crate::store::{Access, Origin, Record, StoredImage, blocking};

/// Blobs that one node fetches at once.
const BLOBS_AT_ONCE: usize = 6;
/// Layers of one image.
const MAX_LAYERS: usize = 256;
/// Rounds after which a store that loses blobs as fast as they come is given up.
const ROUNDS: usize = 3;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Folder of `HOST/hosts.toml` files, if there is one.
    pub hosts: Option<PathBuf>,
    /// A `config.json` of Docker's form whose credentials every pod may use. Read at each pull; it
    /// need not exist.
    pub credentials: Option<PathBuf>,
    /// How long they are waited for.
    pub patience: Patience,
}

/// Pulls from registries. Holds no connections, threads or certificates while nothing is pulled.
pub struct RegistrySource {
    registry: Registry,
    credentials: Option<PathBuf>,
    /// Further credentials that stand for everybody.
    shared: Keyring,
    blobs: Semaphore,
    /// Blobs that are being fetched, so that two images with one layer fetch it once.
    fetching: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

/// Tells of bytes that have come: the blob, how many of its bytes are there, how many it has.
pub type Progress = Arc<dyn Fn(&Digest, u64, u64) + Send + Sync>;

impl RegistrySource {
    /// Registries as `config` says.
    pub fn new(config: RegistryConfig, clock: Clock) -> Self {
        Self {
            registry: Registry::new(config.hosts, config.patience, clock),
            credentials: config.credentials,
            shared: Keyring::default(),
            blobs: Semaphore::new(BLOBS_AT_ONCE),
            fetching: Mutex::default(),
        }
    }

    /// The same source with credentials that everybody may use beside the file's.
    pub fn sharing(self, shared: Keyring) -> Self {
        Self { shared, ..self }
    }

    /// The credentials of the node itself.
    fn node_keyring(&self) -> Keyring {
        let mut keyring = self.shared.clone();
        let Some(path) = &self.credentials else {
            return keyring;
        };
        match std::fs::read(path) {
            Ok(text) => {
                if let Err(error) = keyring.add_config(&text) {
                    tracing::warn!(path = %path.display(), %error, "credentials are not usable");
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "credentials cannot be read");
            }
        }
        keyring
    }

    pub(crate) fn session(
        &self,
        name: &Name,
        credential: Option<Credential>,
        mirrors: &Keyring,
    ) -> Result<Session, RegistryError> {
        self.registry.session(name, credential, mirrors)
    }

    /// One attempt with one credential.
    async fn pull_as(&self, session: &Session, pull: &Pull<'_>) -> Result<StoredImage, PullError> {
        let name = pull.name;
        let reference = match (&name.digest, &name.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        // Asking what a tag means costs nothing where fetching its manifest is counted.
        if let Some(known) = &pull.known
            && name.digest.is_none_or(|digest| digest == known.digest)
        {
            match session.resolve(&reference).await {
                Ok(Some(digest)) if digest == known.digest => return Ok(known.clone()),
                // A refusal comes without words here; the manifest's will have them.
                Ok(_) | Err(RegistryError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (store, top) = (pull.store.clone(), session.manifest(&reference).await?);
        let image = top.digest;
        let parsed = |bytes: &[u8]| {
            Manifest::parse(bytes).map_err(|problem| RegistryError::Wrong {
                host: name.registry.clone(),
                problem,
            })
        };
        let mut manifest = parsed(&top.bytes)?;
        let mut documents = vec![top.bytes];
        if manifest.is_index() {
            let entry = choose(&manifest, pull.wanted).map_err(not_runnable)?;
            let inner = session.manifest(&entry.digest.to_string()).await?;
            manifest = parsed(&inner.bytes)?;
            if manifest.is_index() {
                return Err(RegistryError::Wrong {
                    host: name.registry.clone(),
                    problem: "the index names another index".to_owned(),
                }
                .into());
            }
            documents.push(inner.bytes);
        }
        if manifest.layers.len() > MAX_LAYERS {
            let layers = manifest.layers.len();
            return Err(RegistryError::TooLarge(format!(
                "the image has {layers} layers; this node takes at most {MAX_LAYERS}"
            ))
            .into());
        }
        let config = manifest.config.clone().expect("`parse` has seen it");
        if config.size > MAX_DOCUMENT_BYTES {
            return Err(too_large("its configuration", config.size, MAX_DOCUMENT_BYTES).into());
        }
        let total = manifest
            .layers
            .iter()
            .fold(config.size, |sum, layer| sum.saturating_add(layer.size));
        if total > pull.limit {
            return Err(too_large("the image", total, pull.limit).into());
        }
        // So that whoever watches knows how much there will be.
        if let Some(progress) = pull.progress {
            for blob in std::iter::once(&config).chain(&manifest.layers) {
                progress(&blob.digest, 0, blob.size);
            }
        }
        for _ in 0..ROUNDS {
            self.fetch(session, &config, pull).await?;
            // Before anything large is fetched.
            let read = store.get(&config.digest).map_err(failed)?;
            let read: ImageConfig = read
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            layout(&manifest, &read, pull.wanted).map_err(not_runnable)?;
            let fetches = FuturesUnordered::new();
            for layer in &manifest.layers {
                fetches.push(self.fetch(session, layer, pull).boxed());
            }
            fetches.try_collect::<()>().await?;
            let (store, documents) = (store.clone(), documents.clone());
            let is_whole = blocking(move || {
                for document in documents.iter().rev() {
                    store.put(document)?;
                }
                Ok(store.missing(&image)?.is_empty())
            });
            if is_whole.await.map_err(failed)? {
                let parts = pull.store.parts(&image).map_err(failed)?;
                let size = parts.values().sum();
                return Ok(StoredImage {
                    digest: image,
                    size,
                });
            }
        }
        Err(RegistryError::Local("image store: blobs disappear as they come".to_owned()).into())
    }

    /// Makes one blob present.
    async fn fetch(
        &self,
        session: &Session,
        wanted: &Descriptor,
        pull: &Pull<'_>,
    ) -> Result<(), PullError> {
        let digest = wanted.digest;
        let turn = {
            let mut fetching = self.fetching.lock();
            fetching.retain(|_, turn| turn.strong_count() > 0);
            let known = fetching.get(&digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::new(AsyncMutex::new(()));
                fetching.insert(digest, Arc::downgrade(&turn));
                turn
            })
        };
        let _turn = turn.lock().await;
        let say = |done: u64| {
            if let Some(progress) = pull.progress {
                progress(&digest, done, wanted.size);
            }
        };
        if pull.store.size(&digest) == Some(wanted.size) {
            say(wanted.size);
            return Ok(());
        }
        let _permit = self.blobs.acquire().await;
        let store = pull.store.clone();
        let writer = blocking(move || store.writer(&digest))
            .await
            .map_err(failed)?;
        // All of it came the last time, and then the process ended.
        let writer = match writer.len() == wanted.size {
            false => writer,
            true => match writer.finish().await.map_err(failed)? {
                Ok(()) => return Ok(()),
                Err((fresh, _)) => fresh,
            },
        };
        session.blob(wanted, writer, &say).await?;
        Ok(())
    }
}

/// Either of two worlds.
enum PullError {
    Registry(RegistryError),
    Image(ImageError),
}

impl From<RegistryError> for PullError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<ImageError> for PullError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

#[async_trait]
impl ImageSource for RegistrySource {
    async fn pull(&self, pull: Pull<'_>) -> Result<StoredImage, ImageError> {
        let name = pull.name;
        let words = |error: &dyn std::fmt::Display| format!("failed to pull {name}: {error}");
        let node = self.node_keyring();
        let repository = format!("{}/{}", name.registry, name.repository);
        let mut credentials = pull.credentials.lookup(&repository);
        let of_pod = credentials.len();
        for credential in node.lookup(&repository) {
            if !credentials.contains(&credential) {
                credentials.push(credential);
            }
        }
        // Who is known anywhere there is not tried as nobody (upstream's image manager).
        let attempts: Vec<Option<Credential>> = match credentials.is_empty() {
            true => vec![None],
            false => credentials.into_iter().map(Some).collect(),
        };
        let mut problems: Vec<String> = Vec::new();
        for (index, credential) in attempts.into_iter().enumerate() {
            let session = self
                .session(name, credential.clone(), &node)
                .map_err(|error| ImageError::Pull(words(&error)))?;
            match self.pull_as(&session, &pull).await {
                Ok(image) => {
                    // The node's own credentials stand for everybody.
                    let needed = credential.filter(|_| index < of_pod);
                    return named(&pull, &image, needed.as_ref()).await;
                }
                Err(PullError::Image(ImageError::NotRunnable(why))) => {
                    return Err(ImageError::NotRunnable(format!("{name}: {why}")));
                }
                Err(PullError::Image(error)) => return Err(error),
                Err(PullError::Registry(error)) => {
                    let mut problem = error.to_string();
                    if credential.is_none() && matches!(error.status(), Some(401 | 403)) {
                        problem.push_str(
                            "; if it exists and is private, give the pod an imagePullSecret",
                        );
                    }
                    let may_be_ours = matches!(error.status(), Some(401 | 403 | 404));
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                    if !may_be_ours {
                        break;
                    }
                }
            }
        }
        let mut problem = problems.join("; ");
        if name.registry == "docker.io" {
            // What a typed name without a registry means is easily forgotten.
            problem.push_str(&format!(
                "; a file of this machine gets this name by `coracle image load app.wasm -t {name}`"
            ));
        }
        Err(ImageError::Pull(words(&problem)))
    }
}

/// Writes the name, and who may use it.
async fn named(
    pull: &Pull<'_>,
    image: &StoredImage,
    needed: Option<&Credential>,
) -> Result<StoredImage, ImageError> {
    let (store, image) = (pull.store.clone(), image.clone());
    let (name, needed) = (pull.name.to_string(), needed.cloned());
    let written = blocking(move || {
        let mut record = Record::new(name.as_str(), &image, Origin::Pulled);
        if let Some(credential) = &needed {
            let before = store
                .record(&name)?
                .filter(|old| old.image().as_ref() == Some(&image));
            let open = before
                .as_ref()
                .is_some_and(|old| old.access == Access::default());
            if let Some(old) = before.filter(|old| old.origin == Origin::Pulled) {
                record.access = old.access;
            }
            if !open {
                record.access.grant(&store, credential);
            }
        }
        Ok(store.commit(&record)?.then_some(image))
    });
    written.await.map_err(failed)?.ok_or_else(|| {
        ImageError::Pull("image store: the image was removed while it was pulled".to_owned())
    })
}

fn too_large(what: &str, size: u64, limit: u64) -> RegistryError {
    RegistryError::TooLarge(format!(
        "{what} has {size} bytes; this node takes at most {limit}"
    ))
}
