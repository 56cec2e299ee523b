//! Speaks TLS itself, over a socket, with the files that every pod finds mounted: what a program does that knows nothing of
//! `wasi:http`.
//!
//! | arguments | effect |
//! |---|---|
//! | `HOST PATH…` | asks `https://HOST` for each path with the mounted token, and prints what was answered, a line each: status, a space, the body on one line |
//!
//! It believes the mounted authority and nobody else. A failure is a line on stderr and code 1; arguments that make no sense
//! are code 2.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use guestbook_net::executor::block_on;
use guestbook_net::tcp::TcpStream;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Where every container finds its account.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

type Failure = Box<dyn std::error::Error>;

unsafe extern "C" {
    /// Made by the linker: what runs before the program.
    safe fn __wasm_call_ctors();
}

fn main() -> ExitCode {
    // Once it is called here, the linker does not call it in every export; in `cabi_realloc` it would ask the host for the
    // folders while the host waits for memory, which traps.
    __wasm_call_ctors();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((host, paths)) = args.split_first().filter(|(_, paths)| !paths.is_empty()) else {
        eprintln!("needs a host and paths");
        return ExitCode::from(2);
    };
    for path in paths {
        match block_on(ask(host, path)) {
            Ok(answer) => println!("{answer}"),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn config() -> Result<ClientConfig, Failure> {
    let bundle = std::fs::read(format!("{FOLDER}/ca.crt"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(builder.with_no_client_auth())
}

async fn ask(host: &str, path: &str) -> Result<String, Failure> {
    let token = std::fs::read_to_string(format!("{FOLDER}/token"))?;
    let name = ServerName::try_from(host.to_owned())?;
    let mut tls = ClientConnection::new(Arc::new(config()?), name)?;
    let mut stream = TcpStream::connect(host, 443).await?;
    write!(
        tls.writer(),
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    )?;
    let mut answer = Vec::new();
    loop {
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
        }
        let bytes = stream.read(16 << 10).await?;
        let ended = bytes.is_empty();
        let mut bytes = bytes.as_slice();
        loop {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets()?;
            match tls.reader().read_to_end(&mut answer) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                // The other side has said that it has said all.
                Ok(_) => return Ok(shown(&answer)),
                Err(_) => {}
            }
            if bytes.is_empty() {
                break;
            }
        }
        if ended {
            return Ok(shown(&answer));
        }
    }
}

/// Status and body of an answer.
fn shown(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or("none");
    let body: Vec<&str> = body.lines().map(str::trim).collect();
    format!("{status} {}", body.concat())
}
