//! Blobs: fetched in pieces, gone on with where a failure left them, verified at their end.

use ::http::header::{CONTENT_RANGE, RANGE};
use ::http::{Response, StatusCode};
use hyper::body::Incoming;

use super::{Ask, Session, joined, local};
use crate::registry::error::RegistryError;
use crate::spec::Descriptor;
use crate::store::BlobWriter;

/// Bytes of a blob after which its failures are counted anew.
const RESTARTS_PATIENCE: u64 = 64 << 10;
/// Bytes that are collected before they go to the disk.
const CHUNK: usize = 256 << 10;

impl Session {
    /// Fetches the blob of `wanted` into `writer`, going on where it is. Tells `progress` how many
    /// bytes are there. The writer has verified the digest when this returns.
    pub(crate) async fn blob(
        &self,
        wanted: &Descriptor,
        mut writer: BlobWriter,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let path = self.path("blobs", &wanted.digest.to_string());
        let mut before: Option<RegistryError> = None;
        for (place, endpoint) in self.places.iter().enumerate() {
            if !endpoint.can.pull {
                continue;
            }
            let mut failures = 0;
            loop {
                let had = writer.len();
                let failed = match self.blob_from(place, &path, wanted, writer, progress).await {
                    (_, Ok(())) => return Ok(()),
                    (back, Err(error)) => {
                        match back {
                            Some(back) => writer = back,
                            // The disk's fault; another place would not help.
                            None => return Err(error),
                        }
                        error
                    }
                };
                let is_progress = writer.len() >= had + RESTARTS_PATIENCE;
                failures = if is_progress { 1 } else { failures + 1 };
                if endpoint.mirror || !self.pause(&failed, failures).await {
                    before = Some(joined(before, failed, endpoint.mirror));
                    break;
                }
            }
        }
        Err(before.unwrap_or_else(|| self.nobody("pull")))
    }

    /// One attempt at a blob at one place. Gives the writer back when it can go on.
    async fn blob_from(
        &self,
        place: usize,
        path: &str,
        wanted: &Descriptor,
        mut writer: BlobWriter,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> (Option<BlobWriter>, Result<(), RegistryError>) {
        let host = self.places[place].authority.clone();
        let mut ask = Ask::get(path.to_owned());
        if writer.len() > 0 && writer.len() < wanted.size {
            ask = ask.with(RANGE, format!("bytes={}-", writer.len()));
        }
        let answer = match self.ask(place, &ask).await {
            Ok(answer) => answer,
            Err(error) => return (Some(writer), Err(error)),
        };
        let resumes = answer.status() == StatusCode::PARTIAL_CONTENT
            && starts_at(&answer) == Some(writer.len());
        if !resumes && (writer.len() > 0 || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE) {
            // It has no ranges, or another idea of the blob.
            match writer.restart().await {
                Ok(fresh) => writer = fresh,
                Err(error) => return (None, Err(local(error))),
            }
        }
        let mut body = match self.check(place, answer).await {
            Ok(answer) => answer.into_body(),
            Err(error) => return (Some(writer), Err(error)),
        };
        let mut window = self.http.window();
        let mut pending: Vec<u8> = Vec::with_capacity(CHUNK);
        let outcome = loop {
            let next = self.http.next(&host, &mut body, &mut window).await;
            if let Ok(Some(data)) = &next {
                pending.extend_from_slice(data);
            }
            let total = writer.len() + pending.len() as u64;
            if total > wanted.size {
                break Err(RegistryError::Wrong {
                    host: host.clone(),
                    problem: format!(
                        "blob {} is longer than the {} bytes that its manifest says",
                        wanted.digest, wanted.size
                    ),
                });
            }
            let is_last = !matches!(next, Ok(Some(_)));
            if pending.len() >= CHUNK || is_last && !pending.is_empty() {
                let chunk = std::mem::replace(&mut pending, Vec::with_capacity(CHUNK));
                match writer.write(chunk).await {
                    Ok(back) => writer = back,
                    Err(error) => return (None, Err(local(error))),
                }
                progress(writer.len());
            }
            match next {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = outcome {
            if matches!(error, RegistryError::Wrong { .. }) {
                // Nothing of it can be trusted to be a beginning.
                return match writer.restart().await {
                    Ok(fresh) => (Some(fresh), Err(error)),
                    Err(disk) => (None, Err(local(disk))),
                };
            }
            return (Some(writer), Err(error));
        }
        if writer.len() < wanted.size {
            let problem = format!(
                "blob {} ended after {} of {} bytes",
                wanted.digest,
                writer.len(),
                wanted.size
            );
            return (
                Some(writer),
                Err(RegistryError::Unreachable { host, problem }),
            );
        }
        match writer.finish().await {
            Ok(Ok(())) => (None, Ok(())),
            Ok(Err((fresh, found))) => {
                let problem = format!(
                    "blob {} has the digest {found}: it was damaged or replaced",
                    wanted.digest
                );
                (Some(fresh), Err(RegistryError::Wrong { host, problem }))
            }
            Err(error) => (None, Err(local(error))),
        }
    }
}

/// Where the bytes of a partial answer begin.
fn starts_at(answer: &Response<Incoming>) -> Option<u64> {
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}
