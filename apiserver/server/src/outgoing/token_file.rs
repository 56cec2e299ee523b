//! A token in a file, which others write anew before it ends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use http::HeaderValue;
use parking_lot::Mutex;

use super::Outside;
use super::kubeconfig::bearer;

/// How long what was read counts, as in upstream's `NewCachedFileTokenSource`.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A file with a token in it.
pub(super) struct TokenFile {
    path: PathBuf,
    outside: Arc<dyn Outside>,
    /// What was read last, and until when it counts.
    known: Mutex<Option<(HeaderValue, Duration)>>,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf, outside: Arc<dyn Outside>) -> Self {
        Self {
            path,
            outside,
            known: Mutex::new(None),
        }
    }

    /// The header that says who calls. The error says why there is none; the token is not told.
    pub(super) async fn header(&self, clock: &Clock) -> Result<HeaderValue, String> {
        let now = clock.monotonic();
        let known = self.known.lock().clone();
        if let Some((header, until)) = &known
            && *until > now
        {
            return Ok(header.clone());
        }
        // Files may be on a disk that is slow, or somewhere else.
        let (path, outside) = (self.path.clone(), Arc::clone(&self.outside));
        let read = tokio::task::spawn_blocking(move || outside.read(&path)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        match (self.judge(read), known) {
            (Ok(header), _) => {
                *self.known.lock() = Some((header.clone(), now + REMEMBERED));
                Ok(header)
            }
            // Whoever is called says whether that is still good.
            (Err(why), Some((header, _))) => {
                tracing::warn!("{why}; the token that it had before is used");
                *self.known.lock() = Some((header.clone(), now + REMEMBERED));
                Ok(header)
            }
            (Err(why), None) => Err(why),
        }
    }

    fn judge(&self, read: io::Result<Vec<u8>>) -> Result<HeaderValue, String> {
        let wrong = |why: &str| format!("the token file {} {why}", self.path.display());
        let read = read.map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        let text = String::from_utf8(read).unwrap_or_default();
        match text.trim() {
            "" => Err(wrong("has no text in it")),
            token => bearer(token).ok_or_else(|| wrong("has what cannot be sent as a token")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use async_trait::async_trait;
    use rustls::RootCertStore;

    use super::*;
    use crate::dialer::Connection;

    /// What is in the file; `None`: it is gone.
    #[derive(Default)]
    struct Disk(Mutex<Option<Vec<u8>>>);

    #[async_trait]
    impl Outside for Disk {
        async fn connect(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Connection>> {
            Err(io::ErrorKind::ConnectionRefused.into())
        }

        fn roots(&self) -> Result<Arc<RootCertStore>, String> {
            Err("there are none".to_owned())
        }

        fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
            let found = self.0.lock().clone();
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_read_again_after_a_minute() {
        let (disk, clock) = (Arc::new(Disk::default()), Clock::fake(1));
        let file = TokenFile::new(PathBuf::from("/token"), disk.clone());
        let header = async || {
            let header = file.header(&clock).await?;
            Ok::<_, String>(header.to_str().expect("text").to_owned())
        };
        for (text, why) in [
            (None, "cannot be read: entity not found"),
            (Some(&b" \n"[..]), "has no text in it"),
            (Some(b"\xff"), "has no text in it"),
            (Some(b"a\nb"), "has what cannot be sent as a token"),
        ] {
            *disk.0.lock() = text.map(<[u8]>::to_vec);
            assert_eq!(header().await, Err(format!("the token file /token {why}")));
        }
        let first = Ok("Bearer first".to_owned());
        *disk.0.lock() = Some(b"first\n".to_vec());
        assert_eq!(header().await, first);
        *disk.0.lock() = Some(b"second".to_vec());
        assert_eq!(header().await, first, "it is remembered");
        *disk.0.lock() = None;
        clock.sleep(REMEMBERED).await;
        assert_eq!(header().await, first, "there is no other");
        *disk.0.lock() = Some(b"second".to_vec());
        clock.sleep(REMEMBERED).await;
        assert_eq!(header().await, Ok("Bearer second".to_owned()));
    }
}
