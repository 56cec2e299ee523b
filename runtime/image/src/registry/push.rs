//! Giving an image to a registry.

use std::io;
use std::path::Path;

use ::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncReadExt as _;

use super::error::RegistryError;
use super::http::Body;
use super::session::{Ask, Payload, Session};
use crate::digest::Digest;

/// Bytes of a file that are read at once.
const CHUNK: usize = 64 << 10;

impl Session {
    /// The place that takes images.
    fn push_place(&self) -> Result<usize, RegistryError> {
        let able = self.places.iter().rposition(|place| place.can.push);
        able.ok_or_else(|| {
            RegistryError::Local(
                "no host of the registry's hosts.toml has the capability \"push\"".to_owned(),
            )
        })
    }

    /// Whether the registry has the blob already.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let mut ask = Ask::get(self.path("blobs", &digest.to_string()));
        (ask.method, ask.push) = (Method::HEAD, true);
        self.again(async |place| {
            let answer = self.ask(place, &ask).await?;
            match answer.status() {
                StatusCode::NOT_FOUND => Ok(false),
                _ => self.check(place, answer).await.map(|_| true),
            }
        })
        .await
    }

    /// Sends the file of a blob.
    pub(crate) async fn push_blob(
        &self,
        digest: &Digest,
        file: &Path,
        size: u64,
    ) -> Result<(), RegistryError> {
        self.again(async |place| {
            let begin = Ask {
                method: Method::POST,
                target: format!("/{}/blobs/uploads/", self.repository),
                headers: vec![(CONTENT_LENGTH, "0".to_owned())],
                body: Payload::Nothing,
                push: true,
            };
            let answer = self.check(place, self.ask(place, &begin).await?).await?;
            let location = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let location = location.ok_or_else(|| RegistryError::Wrong {
                host: self.places[place].authority.clone(),
                problem: "does not say where to send a blob".to_owned(),
            })?;
            let joint = if location.contains('?') { '&' } else { '?' };
            let upload = format!("{location}{joint}digest={digest}");
            // A path is one at the host, not below the place's base.
            let target = match upload.starts_with('/') {
                true => {
                    let endpoint = &self.places[place];
                    let scheme = if endpoint.tls { "https" } else { "http" };
                    format!("{scheme}://{}{upload}", endpoint.authority)
                }
                false => upload,
            };
            let put = Ask {
                method: Method::PUT,
                target,
                headers: vec![
                    (CONTENT_TYPE, "application/octet-stream".to_owned()),
                    (CONTENT_LENGTH, size.to_string()),
                ],
                body: Payload::File(file.to_owned(), size),
                push: true,
            };
            self.check(place, self.ask(place, &put).await?).await?;
            Ok(())
        })
        .await
    }

    /// Sends a manifest, whose blobs are there, under a tag or its digest.
    pub(crate) async fn push_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<(), RegistryError> {
        let bytes = Bytes::from(bytes);
        self.again(async |place| {
            let put = Ask {
                method: Method::PUT,
                target: self.path("manifests", reference),
                headers: vec![(CONTENT_TYPE, media_type.to_owned())],
                body: Payload::Bytes(bytes.clone()),
                push: true,
            };
            self.check(place, self.ask(place, &put).await?).await?;
            Ok(())
        })
        .await
    }

    /// Asks the place that takes images, several times while the failure may pass.
    async fn again<T>(
        &self,
        ask: impl AsyncFn(usize) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let place = self.push_place()?;
        let mut failures = 0;
        loop {
            match ask(place).await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    failures += 1;
                    if !self.pause(&error, failures).await {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// A file as a body of `size` bytes.
pub(super) async fn file(path: &Path, size: u64) -> io::Result<Body> {
    let file = tokio::fs::File::open(path).await?.take(size);
    let chunks = futures::stream::try_unfold(file, async |mut file| {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, io::Error>((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    let frames = chunks.map(|chunk| chunk.map(Frame::data));
    Ok(BodyExt::boxed_unsync(StreamBody::new(frames)))
}
