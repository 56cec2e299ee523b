//! A registry that does wrong what its repositories are called after, until its faults end: `500/tiny:1` answers with 500,
//! `fine/tiny:1` is pulled at once.
//!
//! The second part of a repository's name is the guest: `tiny`, which ends at once, or one of `tests/guests/wasm`. The bytes
//! of every image are its own, so that none is found because another was pulled.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_image::Digest;
use serde_json::json;

/// What a client may take for its request, or to read.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);
/// Between two bytes of a blob that comes slowly.
const SLOWLY: Duration = Duration::from_millis(100);
/// Bytes that stand in each image for nothing: a blob is large enough to break in its middle.
const PADDING: usize = 100_000;

/// A module whose `_start` does nothing.
const TINY: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

/// A running registry; its threads end with the process.
pub(crate) struct FaultyRegistry {
    /// Where it listens.
    pub(crate) address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_healed: AtomicBool,
    /// By repository.
    images: Mutex<HashMap<String, Arc<Image>>>,
}

/// The three documents of an image.
struct Image {
    program: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl FaultyRegistry {
    /// Starts one at `127.0.0.1`.
    pub(crate) fn start() -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let shared = Arc::<Shared>::default();
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                // One that sends slowly holds nobody up.
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(CLIENT_LIMIT));
                    let _ = stream.set_write_timeout(Some(CLIENT_LIMIT));
                    // Who goes away in the middle is not this test's affair.
                    let _ = shared.answer(stream);
                });
            }
        });
        Ok(Self {
            address: address.to_string(),
            shared,
        })
    }

    /// From now on nothing is wrong.
    pub(crate) fn heal(&self) {
        self.shared.is_healed.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn image(&self, repository: &str, guest: &str) -> Option<Arc<Image>> {
        let mut images = self.images.lock().expect("no thread panics");
        if let Some(image) = images.get(repository) {
            return Some(image.clone());
        }
        let image = Arc::new(Image::made(repository, guest)?);
        images.insert(repository.to_owned(), image.clone());
        Some(image)
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        // The head goes to its empty line; there is no body.
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let mut words = first.split(' ');
        let is_head = words.next() == Some("HEAD");
        let path = words.next().unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "v2", fault, guest, kind, what] = parts[..] else {
            return refuse(
                &mut stream,
                "404 Not Found",
                "",
                "NAME_UNKNOWN",
                "no such place",
            );
        };
        let fault = match self.is_healed.load(Ordering::Relaxed) {
            true => "none",
            false => fault,
        };
        match fault {
            "unauthorized" => {
                let more = "www-authenticate: Basic realm=\"faulty\"\r\n";
                return refuse(
                    &mut stream,
                    "401 Unauthorized",
                    more,
                    "UNAUTHORIZED",
                    "who are you?",
                );
            }
            "busy" => {
                let more = "retry-after: 1\r\n";
                let status = "429 Too Many Requests";
                return refuse(
                    &mut stream,
                    status,
                    more,
                    "TOOMANYREQUESTS",
                    "one after the other",
                );
            }
            "closed" => {
                let more = "retry-after: 7200\r\n";
                let status = "429 Too Many Requests";
                return refuse(
                    &mut stream,
                    status,
                    more,
                    "TOOMANYREQUESTS",
                    "enough for today",
                );
            }
            "broken" => {
                let status = "500 Internal Server Error";
                return refuse(&mut stream, status, "", "UNKNOWN", "the disk is gone");
            }
            _ => {}
        }
        let Some(image) = self.image(&format!("{}/{guest}", parts[2]), guest) else {
            return refuse(
                &mut stream,
                "404 Not Found",
                "",
                "NAME_UNKNOWN",
                "no such guest",
            );
        };
        let (body, media) = match (kind, what) {
            ("manifests", _) => (
                &image.manifest,
                "application/vnd.oci.image.manifest.v1+json",
            ),
            ("blobs", digest) if digest == Digest::of(&image.program).to_string() => {
                (&image.program, "application/octet-stream")
            }
            ("blobs", digest) if digest == Digest::of(&image.config).to_string() => {
                (&image.config, "application/octet-stream")
            }
            _ => {
                return refuse(
                    &mut stream,
                    "404 Not Found",
                    "",
                    "BLOB_UNKNOWN",
                    "no such blob",
                );
            }
        };
        let is_program = body.len() > PADDING;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-length: {}\r\ndocker-content-digest: {}\r\nconnection: close\r\n\r\n",
            body.len(),
            Digest::of(body),
        )?;
        if is_head {
            return stream.flush();
        }
        match fault {
            "truncated" if is_program => stream.write_all(&body[..body.len() / 2])?,
            "other-bytes" if is_program => stream.write_all(&changed(body))?,
            "other-manifest" if kind == "manifests" => stream.write_all(&changed(body))?,
            "slow" if is_program => {
                for byte in body {
                    if self.is_healed.load(Ordering::Relaxed) {
                        break;
                    }
                    stream.write_all(&[*byte])?;
                    stream.flush()?;
                    std::thread::sleep(SLOWLY);
                }
            }
            _ => stream.write_all(body)?,
        }
        stream.flush()
    }
}

impl Image {
    /// The guest as an artifact, with the repository's name in a section of its own.
    fn made(repository: &str, guest: &str) -> Option<Self> {
        let mut program = match guest {
            "tiny" => TINY.to_vec(),
            name if name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') =>
            {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/wasm");
                std::fs::read(folder.join(format!("{name}.wasm"))).ok()?
            }
            _ => return None,
        };
        let mut section = vec![u8::try_from(repository.len()).ok()?];
        section.extend_from_slice(repository.as_bytes());
        section.resize(PADDING, 0);
        program.push(0);
        program.extend(leb128(section.len()));
        program.extend(section);
        let config = json!({"architecture": "wasm", "os": "wasip1"}).to_string();
        let described = |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("application/vnd.wasm.config.v0+json", config.as_bytes()),
            "layers": [described("application/wasm", &program)],
        });
        Some(Self {
            program,
            config: config.into_bytes(),
            manifest: manifest.to_string().into_bytes(),
        })
    }
}

/// The same number of bytes, of which one is another.
fn changed(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    if let Some(last) = bytes.iter_mut().rev().find(|byte| **byte != b'}') {
        *last ^= 1;
    }
    bytes
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn refuse(
    stream: &mut TcpStream,
    status: &str,
    headers: &str,
    code: &str,
    message: &str,
) -> std::io::Result<()> {
    let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}
