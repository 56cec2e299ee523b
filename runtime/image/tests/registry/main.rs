//! Pulls from a registry of this process, whole and failing.

mod layouts;
mod mirrors;
mod pulls;
mod pushes;
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_cri::{ImageError, ImageRef, ImageRequest, PullPolicy, PullSecret, PullSecretForm};
use coracle_image::{ImageStore, Images, ImagesConfig, Patience, RegistryConfig, RegistrySource};

/// A node that pulls, in a temporary folder.
struct Node {
    folder: tempfile::TempDir,
    images: Images,
    secrets: Vec<PullSecret>,
}

impl Node {
    fn start() -> Self {
        Self::with(1 << 20, None)
    }

    fn with(max_bytes: u64, hosts: Option<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let patience = Patience {
            first_pause: Duration::from_millis(1),
            progress: Duration::from_millis(300),
            ..Patience::default()
        };
        let config = RegistryConfig {
            hosts,
            credentials: Some(folder.path().join("config.json")),
            patience,
        };
        let images = Images::new(ImagesConfig {
            store: ImageStore::open(folder.path().join("images"), clock.clone()).unwrap(),
            source: Arc::new(RegistrySource::new(config, clock)),
            allowed_folders: Vec::new(),
            max_bytes,
        });
        Self {
            folder,
            images,
            secrets: Vec::new(),
        }
    }

    /// Gives later requests a pull secret.
    fn secret(&mut self, place: &str, who: &str) {
        self.secrets.push(secret(place, who));
    }

    fn request(&self, image: &str, policy: PullPolicy) -> ImageRequest {
        ImageRequest {
            image: image.to_owned(),
            policy,
            known_digest: None,
            pull_secrets: self.secrets.clone(),
            command: Vec::new(),
        }
    }

    async fn pull(&self, image: &str) -> Result<ImageRef, ImageError> {
        let request = self.request(image, PullPolicy::IfNotPresent);
        self.images.ensure(&request).await
    }

    async fn error(&self, image: &str) -> String {
        self.pull(image).await.unwrap_err().to_string()
    }

    async fn program(&self, image: &ImageRef, command: &[&str]) -> Result<Vec<u8>, ImageError> {
        let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
        let setup = self.images.setup(image, &command).await?;
        self.images.bytes(&setup.program).await
    }

    /// The blobs of the store: nothing that was not verified may be among them.
    fn blobs(&self) -> usize {
        let folder = self.folder.path().join("images/blobs/sha256");
        let blobs = std::fs::read_dir(folder).unwrap();
        blobs
            .map(|entry| {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                assert_eq!(coracle_image::Digest::of(&bytes).hex(), name);
            })
            .count()
    }
}

fn secret(place: &str, who: &str) -> PullSecret {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(who);
    PullSecret {
        name: "default/login".to_owned(),
        form: PullSecretForm::ConfigJson,
        content: format!(r#"{{"auths":{{"{place}":{{"auth":"{auth}"}}}}}}"#).into_bytes(),
    }
}

/// Bytes that pass for a program, of any length.
fn wasm(length: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend((bytes.len()..length).map(|at| (at % 251) as u8));
    bytes
}
