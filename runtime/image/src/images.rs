//! Policy: when the store's answer is enough and when a source is asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_cri::{
    ImageError, ImageFs, ImageListing, ImageRef, ImageRequest, PullPolicy, PullSecretForm,
    PulledImage,
};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use crate::content::{self, Content, failed};
use crate::digest::Digest;
use crate::file::FileSource;
use crate::keyring::{Credential, Keyring};
use crate::layout::{Layout, Use};
use crate::pull::Progress;
use crate::reference::{Name, Reference};
use crate::seen::Seen;
use crate::source::{ImageSource, Pull};
use crate::spec::RunConfig;
use crate::store::{ImageStore, Origin, StoredImage};
use crate::unpack::UnpackLimits;

/// Images that one node pulls at once; the others wait for their turn.
const PULLS_AT_ONCE: usize = 5;
/// An image may be so many times as large when it is unpacked.
const UNPACKED_TIMES: u64 = 4;
/// Files of an unpacked image.
const MAX_ENTRIES: u64 = 200_000;
/// Programs of unpacked images whose digests are remembered.
const KNOWN_PROGRAMS: usize = 256;

/// What [`Images`] is made of.
pub struct ImagesConfig {
    /// Where bytes are kept.
    pub store: ImageStore,
    /// Where names that the store does not have come from.
    pub source: Arc<dyn ImageSource>,
    /// Folders below which `file:` references may point.
    pub allowed_folders: Vec<PathBuf>,
    /// Largest image in bytes.
    pub max_bytes: u64,
}

/// Makes images present on the node; cheap to clone.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    store: ImageStore,
    source: Arc<dyn ImageSource>,
    files: FileSource,
    seen: Seen,
    max_bytes: u64,
    turns: Semaphore,
    pulls: Mutex<HashMap<PullKey, SharedPull>>,
    /// Digests of files of unpacked images, which never change.
    programs: Mutex<HashMap<PathBuf, Digest>>,
}

/// Pulls of one name with the same credentials are one pull.
type PullKey = (String, Vec<Credential>, bool);
type SharedPull = Arc<OnceCell<Result<(StoredImage, Duration), ImageError>>>;

/// The file to compile for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Where they are.
    pub path: PathBuf,
}

/// What a container is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSetup {
    /// What it runs.
    pub program: Program,
    /// How a container of it runs unless the pod says otherwise.
    pub run: RunConfig,
    /// Its unpacked files, not to be changed; none for a lone program.
    pub root: Option<PathBuf>,
}

/// What is to be done about a request.
enum Decision {
    /// The node has it.
    Use(StoredImage),
    /// Ask the source; the node has this much.
    Pull(Option<StoredImage>),
}

impl Images {
    /// Images as `config` says.
    pub fn new(config: ImagesConfig) -> Self {
        Self(Arc::new(Inner {
            files: FileSource::new(&config.allowed_folders),
            seen: Seen::default(),
            store: config.store,
            source: config.source,
            max_bytes: config.max_bytes,
            turns: Semaphore::new(PULLS_AT_ONCE),
            pulls: Mutex::default(),
            programs: Mutex::default(),
        }))
    }

    /// The store below.
    pub fn store(&self) -> &ImageStore {
        &self.0.store
    }

    /// Makes the image of `request` present and returns what its reference means now.
    pub async fn ensure(&self, request: &ImageRequest) -> Result<ImageRef, ImageError> {
        Ok(self.pull(request, Use::Run, None).await?.image)
    }

    /// [`ensure`](Self::ensure), for a use, and saying how long it waited for its turn. Of several
    /// callers that share a pull, the first one's `progress` hears of it.
    pub async fn pull(
        &self,
        request: &ImageRequest,
        wanted: Use,
        progress: Option<&Progress>,
    ) -> Result<PulledImage, ImageError> {
        let (found, waited) = match parse(request)? {
            Reference::File(path) => (self.file(&path, request).await?, Duration::ZERO),
            Reference::Named(name) => self.named(&name, request, wanted, progress).await?,
        };
        Ok(PulledImage {
            image: ImageRef {
                image: request.image.clone(),
                digest: found.digest.to_string(),
                size: found.size,
            },
            waited,
        })
    }

    /// Whether [`ensure`](Self::ensure) would ask no source.
    pub async fn has(&self, request: &ImageRequest) -> bool {
        let Ok(reference) = parse(request) else {
            return false;
        };
        let is_file = matches!(reference, Reference::File(_));
        if is_file && request.policy == PullPolicy::Always {
            return false;
        }
        let request = request.clone();
        let decided = self.blocking(move |images| {
            let name = match reference {
                Reference::Named(name) => name,
                Reference::File(path) => return Ok(images.unchanged(&path)?.is_some()),
            };
            let credentials = lookup(&name, &keyring(&request)?);
            let decision = images.decide(&name, &request, &credentials)?;
            Ok(matches!(decision, Decision::Use(_)))
        });
        decided.await.unwrap_or(false)
    }

    /// What a container of `image` is made of. `command` is the pod's, which may name another file of
    /// an unpacked image as its program.
    pub async fn setup(
        &self,
        image: &ImageRef,
        command: &[String],
    ) -> Result<ImageSetup, ImageError> {
        let digest = digest_of(image)?;
        let (image, command) = (image.clone(), command.to_vec());
        self.blocking(move |images| {
            let lone = |digest: Digest, run: RunConfig| ImageSetup {
                program: Program {
                    path: images.store.blob_path(&digest),
                    digest,
                },
                run,
                root: None,
            };
            let parts = match images.content(&image, &digest, Use::Run)? {
                Content::Bare => return Ok(lone(digest, RunConfig::default())),
                Content::Image(parts) => parts,
            };
            let layers = match &parts.layout {
                Layout::Artifact { program } => {
                    return Ok(lone(program.digest, parts.config.config));
                }
                Layout::Root { layers } => layers,
            };
            let root = images.root(&parts.manifest, layers)?;
            let path = content::program_path(&root, &parts.config, &command);
            let path = path.map_err(|problem| {
                ImageError::NotRunnable(format!("{}: {problem}", image.image))
            })?;
            Ok(ImageSetup {
                program: images.program_at(path)?,
                run: parts.config.config,
                root: Some(root),
            })
        })
        .await
    }

    /// The bytes of a program, verified.
    pub async fn bytes(&self, program: &Program) -> Result<Vec<u8>, ImageError> {
        let program = program.clone();
        self.blocking(move |images| {
            let blob = images.store.blob_path(&program.digest);
            let bytes = match blob == program.path {
                true => images.store.get(&program.digest).map_err(failed)?,
                false => std::fs::read(&program.path)
                    .ok()
                    .filter(|bytes| Digest::of(bytes) == program.digest),
            };
            bytes.ok_or_else(|| {
                let digest = program.digest;
                ImageError::Pull(format!(
                    "program {digest} has disappeared from this node's store"
                ))
            })
        })
        .await
    }

    /// The files of `image` in a folder that nobody may write to: what an `image` volume shows. A lone
    /// program is the file `app.wasm`, or has the title that its layer gives it.
    pub async fn files(&self, image: &ImageRef) -> Result<PathBuf, ImageError> {
        let (digest, image) = (digest_of(image)?, image.clone());
        self.blocking(move |images| {
            let (folder, blob, title) = match images.content(&image, &digest, Use::Files)? {
                Content::Bare => (digest, digest, None),
                Content::Image(parts) => match parts.layout {
                    Layout::Root { layers } => return images.root(&parts.manifest, &layers),
                    Layout::Artifact { program } => {
                        let title = program.annotations.get("org.opencontainers.image.title");
                        (parts.manifest, program.digest, title.cloned())
                    }
                },
            };
            let is_name = |title: &String| {
                !title.is_empty() && !title.starts_with('.') && !title.contains(['/', '\\', '\0'])
            };
            let title = title
                .filter(is_name)
                .unwrap_or_else(|| "app.wasm".to_owned());
            images.lone(&folder, &blob, &title)
        })
        .await
    }

    /// The images that have a name.
    pub async fn list(&self) -> Result<Vec<ImageListing>, ImageError> {
        self.blocking(|images| {
            let all = images.store.images().map_err(failed)?;
            let listing = all.into_iter().map(|info| ImageListing {
                digest: info.image.digest.to_string(),
                names: info.names,
                size: info.image.size,
                pinned: info.loaded,
            });
            Ok(listing.collect())
        })
        .await
    }

    /// Removes an image with all its names.
    pub async fn remove(&self, digest: &str) -> Result<(), ImageError> {
        let digest: Digest = parse_digest(digest)?;
        self.blocking(move |images| images.store.remove_image(&digest).map_err(failed))
            .await
    }

    /// See [`ImageStore::sweep`].
    pub async fn sweep(&self, used: &[String], age: Duration) -> Result<u64, ImageError> {
        let used: Vec<Digest> = used
            .iter()
            .filter_map(|digest| digest.parse().ok())
            .collect();
        self.blocking(move |images| images.store.sweep(&used, age).map_err(failed))
            .await
    }

    /// How full the store's file system is.
    pub async fn file_system(&self) -> Option<ImageFs> {
        let usage = self.blocking(|images| Ok(file_system(images.store.folder())));
        usage.await.ok().flatten()
    }

    /// Whatever the policy, a file that has changed is another image: it is the one source that can be asked for
    /// nothing. `IfNotPresent` does without a file that is not there (any more) once the node has its bytes.
    async fn file(&self, path: &Path, request: &ImageRequest) -> Result<StoredImage, ImageError> {
        let name = Reference::File(path.to_owned()).to_string();
        if request.policy == PullPolicy::Never {
            return self.resolve(name).await?.ok_or_else(|| never(request));
        }
        let path = path.to_owned();
        let read = self.blocking(move |images| match images.unchanged(&path)? {
            Some(image) => Ok(image),
            None => images.read(&path),
        });
        let error = match read.await {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        // A pod that ran from this file keeps running from the bytes that the node stored then.
        let known = request
            .known_digest
            .as_ref()
            .and_then(|known| known.parse::<Digest>().ok());
        let mut stored = known.and_then(|digest| {
            self.0
                .store
                .size(&digest)
                .map(|size| StoredImage { digest, size })
        });
        if stored.is_none() && request.policy == PullPolicy::IfNotPresent {
            stored = self.resolve(name).await?;
        }
        match stored {
            Some(stored) => {
                tracing::warn!(image = %request.image, digest = %stored.digest, %error,
                    "the image's file cannot be used, running from the stored copy");
                Ok(stored)
            }
            None => Err(error),
        }
    }

    async fn named(
        &self,
        name: &Name,
        request: &ImageRequest,
        wanted: Use,
        progress: Option<&Progress>,
    ) -> Result<(StoredImage, Duration), ImageError> {
        let keyring = keyring(request)?;
        let credentials = lookup(name, &keyring);
        let known = {
            let (name, request, credentials) = (name.clone(), request.clone(), credentials.clone());
            let decision =
                self.blocking(move |images| images.decide(&name, &request, &credentials));
            match decision.await? {
                Decision::Use(image) => return Ok((image, Duration::ZERO)),
                Decision::Pull(known) => known,
            }
        };
        let key = (name.to_string(), credentials, wanted == Use::Run);
        let shared = self.0.pulls.lock().entry(key.clone()).or_default().clone();
        // When whoever pulls is dropped, one of those who wait goes on.
        let outcome = shared
            .get_or_init(|| self.pull_once(name, &keyring, known, wanted, progress))
            .await
            .clone();
        let mut pulls = self.0.pulls.lock();
        if pulls
            .get(&key)
            .is_some_and(|other| Arc::ptr_eq(other, &shared))
        {
            pulls.remove(&key);
        }
        outcome
    }

    async fn pull_once(
        &self,
        name: &Name,
        credentials: &Keyring,
        known: Option<StoredImage>,
        wanted: Use,
        progress: Option<&Progress>,
    ) -> Result<(StoredImage, Duration), ImageError> {
        let clock = self.0.store.clock();
        let asked = clock.monotonic();
        let _turn = self.0.turns.acquire().await;
        let waited = clock.monotonic() - asked;
        let pull = Pull {
            name,
            wanted,
            credentials,
            store: &self.0.store,
            known,
            limit: self.0.max_bytes,
            progress,
        };
        let image = self.0.source.pull(pull).await?;
        Ok((image, waited))
    }

    async fn resolve(&self, name: String) -> Result<Option<StoredImage>, ImageError> {
        self.blocking(move |images| images.store.resolve(&name).map_err(failed))
            .await
    }

    /// Runs `work` where blocking on the disk hurts no one.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|stopped| Err(ImageError::Pull(format!("image store: {stopped}"))))
    }
}

impl Inner {
    /// The image of the file at `path` if the node has it and the file looks as it did when it was read.
    fn unchanged(&self, path: &Path) -> Result<Option<StoredImage>, ImageError> {
        let stamp = self.files.open(path)?.stamp()?;
        let Some(digest) = self.seen.digest(path, &stamp) else {
            return Ok(None);
        };
        let name = Reference::File(path.to_owned()).to_string();
        let stored = self.store.resolve(&name).map_err(failed)?;
        let is_whole = |image: &StoredImage| {
            image.digest == digest && self.store.size(&digest) == Some(image.size)
        };
        Ok(stored.filter(is_whole))
    }

    /// Puts the file at `path` into the store.
    fn read(&self, path: &Path) -> Result<StoredImage, ImageError> {
        let file = self.files.open(path)?;
        let now = self.store.clock().now();
        let before = file.stamp()?;
        let bytes = file.read(self.max_bytes)?;
        let name = Reference::File(path.to_owned()).to_string();
        let image = self.store.put_named(&name, &bytes).map_err(failed)?;
        if file.stamp()? == before {
            self.seen.remember(path, before, image.digest, now);
        }
        Ok(image)
    }

    /// Names that were loaded into the store are taken from there even under `Always`: whoever
    /// loaded them is their source. What was pulled for somebody else's credentials is not given out
    /// without a look at one's own.
    fn decide(
        &self,
        name: &Name,
        request: &ImageRequest,
        credentials: &[Credential],
    ) -> Result<Decision, ImageError> {
        let record = self.store.record(&name.to_string()).map_err(failed)?;
        let whole = match record.as_ref().and_then(|record| record.image()) {
            Some(image)
                if self
                    .store
                    .missing(&image.digest)
                    .map_err(failed)?
                    .is_empty() =>
            {
                Some(image)
            }
            _ => None,
        };
        let (Some(record), Some(image)) = (record, whole) else {
            return match request.policy {
                PullPolicy::Never => Err(never(request)),
                _ => Ok(Decision::Pull(None)),
            };
        };
        let is_open = record.origin != Origin::Pulled || record.access.allows(credentials);
        match request.policy {
            _ if record.origin != Origin::Pulled => Ok(Decision::Use(image)),
            PullPolicy::Always => Ok(Decision::Pull(Some(image))),
            PullPolicy::IfNotPresent | PullPolicy::Never if is_open => Ok(Decision::Use(image)),
            PullPolicy::IfNotPresent => Ok(Decision::Pull(Some(image))),
            PullPolicy::Never => Err(ImageError::NeverPull(format!(
                "image \"{}\" is present with pull policy of Never but does not have the proper \
                 credentials to access the image",
                request.image
            ))),
        }
    }

    fn content(
        &self,
        image: &ImageRef,
        digest: &Digest,
        wanted: Use,
    ) -> Result<Content, ImageError> {
        let found = content::content(&self.store, digest, wanted).map_err(|error| match error {
            ImageError::NotRunnable(why) => {
                ImageError::NotRunnable(format!("{}: {why}", image.image))
            }
            other => other,
        })?;
        found.ok_or_else(|| {
            ImageError::Pull(format!(
                "image {} ({}) has disappeared from this node's store",
                image.image, image.digest
            ))
        })
    }

    fn root(
        &self,
        manifest: &Digest,
        layers: &[crate::spec::Descriptor],
    ) -> Result<PathBuf, ImageError> {
        let limits = UnpackLimits::new(self.max_bytes.saturating_mul(UNPACKED_TIMES), MAX_ENTRIES);
        content::ensure_root(&self.store, manifest, layers, limits)
    }

    fn program_at(&self, path: PathBuf) -> Result<Program, ImageError> {
        let known = self.programs.lock().get(&path).copied();
        let digest = match known {
            Some(digest) => digest,
            None => {
                let bytes = std::fs::read(&path).map_err(|error| {
                    ImageError::Pull(format!("image store: {}: {error}", path.display()))
                })?;
                let digest = Digest::of(&bytes);
                let mut programs = self.programs.lock();
                if programs.len() >= KNOWN_PROGRAMS {
                    programs.clear();
                }
                programs.insert(path.clone(), digest);
                digest
            }
        };
        Ok(Program { digest, path })
    }

    /// A folder with one blob in it, under `title`.
    fn lone(&self, folder: &Digest, blob: &Digest, title: &str) -> Result<PathBuf, ImageError> {
        let root = self.store.root_path(folder);
        if root.is_dir() {
            return Ok(root);
        }
        let unique = crate::store::unique(self.store.clock());
        let temporary = root.with_extension(format!("{unique}.tmp"));
        let (disk, source) = (self.store.disk(), self.store.blob_path(blob));
        let made = disk.create_folder(&temporary).and_then(|()| {
            disk.link(&source, &temporary.join(title))?;
            disk.rename(&temporary, &root)
        });
        match made {
            Err(error) if !root.is_dir() => {
                let _ = disk.remove_folder(&temporary);
                Err(ImageError::Pull(format!(
                    "image store: {}: {error}",
                    root.display()
                )))
            }
            _ => Ok(root),
        }
    }
}

fn parse(request: &ImageRequest) -> Result<Reference, ImageError> {
    request.image.parse().map_err(|error| {
        // The wording of the kubelet of Kubernetes.
        let image = &request.image;
        ImageError::InvalidName(format!(
            "Failed to apply default image tag \"{image}\": {error}"
        ))
    })
}

fn keyring(request: &ImageRequest) -> Result<Keyring, ImageError> {
    let mut keyring = Keyring::default();
    for secret in &request.pull_secrets {
        let added = match secret.form {
            PullSecretForm::ConfigJson => keyring.add_config(&secret.content),
            PullSecretForm::DockerCfg => keyring.add_dockercfg(&secret.content),
        };
        added.map_err(|error| {
            ImageError::Pull(format!("the image pull secret {}: {error}", secret.name))
        })?;
    }
    Ok(keyring)
}

fn lookup(name: &Name, keyring: &Keyring) -> Vec<Credential> {
    keyring.lookup(&format!("{}/{}", name.registry, name.repository))
}

fn digest_of(image: &ImageRef) -> Result<Digest, ImageError> {
    parse_digest(&image.digest)
}

fn parse_digest(digest: &str) -> Result<Digest, ImageError> {
    digest
        .parse()
        .map_err(|error| ImageError::InvalidName(format!("{error}")))
}

fn never(request: &ImageRequest) -> ImageError {
    let image = &request.image;
    ImageError::NeverPull(format!(
        "Container image \"{image}\" is not present with pull policy of Never"
    ))
}

#[cfg(target_os = "linux")]
fn file_system(folder: &Path) -> Option<ImageFs> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(ImageFs {
        capacity: found.f_blocks.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// Without a way to know, nothing is removed for want of space.
#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> Option<ImageFs> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::NoRegistry;
    use coracle_clock::Clock;
    use std::fs;

    struct Node {
        folder: tempfile::TempDir,
        images: Images,
    }

    fn node() -> Node {
        node_at(Clock::fake(1))
    }

    fn node_at(clock: Clock) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("images"), clock).unwrap();
        let images = Images::new(ImagesConfig {
            store,
            source: Arc::new(NoRegistry),
            allowed_folders: vec![folder.path().to_owned()],
            max_bytes: 1 << 20,
        });
        Node { folder, images }
    }

    impl Node {
        fn write(&self, bytes: &[u8]) -> String {
            let path = self.folder.path().join("app.wasm");
            fs::write(&path, bytes).unwrap();
            format!("file://{}", path.display())
        }

        async fn bytes(&self, image: &ImageRef) -> Vec<u8> {
            let setup = self.images.setup(image, &[]).await.unwrap();
            self.images.bytes(&setup.program).await.unwrap()
        }

        async fn ask(&self, image: &str, policy: PullPolicy) -> Result<ImageRef, ImageError> {
            self.images.ensure(&request(image, policy)).await
        }
    }

    fn request(image: &str, policy: PullPolicy) -> ImageRequest {
        ImageRequest {
            image: image.to_owned(),
            policy,
            known_digest: None,
            pull_secrets: Vec::new(),
            command: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_rebuilt_file_is_another_image_unless_the_node_may_not_look() {
        let node = node();
        let image = node.write(b"one");
        for (bytes, policy) in [
            (b"two", PullPolicy::IfNotPresent),
            (b"six", PullPolicy::Always),
        ] {
            let first = node.ask(&image, policy).await.unwrap();
            assert_eq!(node.ask(&image, policy).await.unwrap(), first);
            node.write(bytes);
            assert_eq!(node.ask(&image, PullPolicy::Never).await.unwrap(), first);
            let second = node.ask(&image, policy).await.unwrap();
            assert_ne!(first.digest, second.digest);
            assert_eq!(node.bytes(&second).await, bytes);
        }
    }

    #[tokio::test]
    async fn a_file_that_looks_the_same_is_not_read_again() {
        // The clock of now: files are as old as they look.
        let node = node_at(Clock::system());
        let image = node.write(b"one");
        let path = node.folder.path().join("app.wasm");
        let request = request(&image, PullPolicy::IfNotPresent);
        let first = node.images.ensure(&request).await.unwrap();
        assert!(!node.images.has(&request).await, "it has just been written");
        // As if it had been read long after it was written.
        let inner = &node.images.0;
        let stamp = inner.files.open(&path).unwrap().stamp().unwrap();
        let later = Clock::system().now() + Duration::from_secs(60);
        let digest = first.digest.parse().unwrap();
        inner.seen.remember(&path, stamp, digest, later);
        assert!(node.images.has(&request).await);
        assert_eq!(node.images.ensure(&request).await.unwrap(), first);
        // What the store has lost is read again.
        node.images.remove(&first.digest).await.unwrap();
        assert!(!node.images.has(&request).await);
        assert_eq!(node.images.ensure(&request).await.unwrap(), first);
        assert_eq!(node.bytes(&first).await, b"one");
    }

    #[tokio::test]
    async fn what_is_present_outlives_its_file() {
        let node = node();
        let image = node.write(b"bytes");
        let known = node.ask(&image, PullPolicy::Always).await.unwrap();
        fs::remove_file(node.folder.path().join("app.wasm")).unwrap();
        assert!(node.ask(&image, PullPolicy::Always).await.is_err());
        let request = ImageRequest {
            known_digest: Some(known.digest.clone()),
            ..request(&image, PullPolicy::Always)
        };
        assert_eq!(node.images.ensure(&request).await.unwrap(), known);
        for policy in [PullPolicy::IfNotPresent, PullPolicy::Never] {
            assert_eq!(node.ask(&image, policy).await.unwrap(), known);
        }
    }

    #[tokio::test]
    async fn loaded_names_are_found_and_others_say_what_to_do() {
        let node = node();
        node.write(b"bytes");
        let path = node.folder.path().join("app.wasm");
        node.images.store().load(&path, "app:dev").unwrap();
        for image in ["app:dev", "docker.io/library/app:dev"] {
            assert!(node.ask(image, PullPolicy::Always).await.is_ok(), "{image}");
        }
        let error = node
            .ask("other:dev", PullPolicy::IfNotPresent)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), "ErrImagePull");
        assert!(error.to_string().contains("coracle image load"), "{error}");
        let error = node.ask("other:dev", PullPolicy::Never).await.unwrap_err();
        assert_eq!(error.reason(), "ErrImageNeverPull");
        let error = node.ask("Not/A/Name", PullPolicy::Never).await.unwrap_err();
        assert_eq!(error.reason(), "InvalidImageName");
    }
}
