//! An issuer of OpenID Connect tokens of a script: it serves its keys over HTTPS, and signs whatever it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_server::authn::SigningKey;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What a client may take for its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// An issuer at `127.0.0.1`; its thread ends with the process.
pub(crate) struct Issuer {
    /// Its URL.
    pub(crate) url: String,
    /// Who vouches for it, in PEM form.
    pub(crate) authority: String,
    key: Arc<SigningKey>,
}

impl Issuer {
    /// Starts one.
    pub(crate) fn start() -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?;
        let url = format!("https://{port}");
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
        let made = made.map_err(|error| error.to_string())?;
        let own = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(own))
            .map_err(|error| error.to_string())?;
        let key = Arc::new(SigningKey::generate().map_err(|error| error.to_string())?);
        let (tls, shown, at) = (Arc::new(tls), Arc::clone(&key), url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(REQUEST_LIMIT));
                if let Ok(connection) = ServerConnection::new(Arc::clone(&tls)) {
                    // Who goes away in the middle is not this test's affair.
                    let _ = answer(StreamOwned::new(connection, stream), &at, &shown);
                }
            }
        });
        Ok(Self {
            url,
            authority: made.cert.pem(),
            key,
        })
    }

    /// A token with the claims, besides which it has an issuer and an end in an hour, or the end that they say in
    /// seconds from now.
    pub(crate) fn token(&self, claims: &str) -> Result<String, String> {
        let mut claims: Value = serde_json::from_str(claims).map_err(|error| error.to_string())?;
        let now = Clock::system().now().as_second();
        claims["iss"] = json!(self.url);
        claims["exp"] = json!(now + claims["exp"].as_i64().unwrap_or(3600));
        self.key.sign(&claims).map_err(|error| error.to_string())
    }
}

fn answer<S: std::io::Read + Write>(
    mut stream: S,
    url: &str,
    key: &SigningKey,
) -> std::io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(&mut stream);
    reader.read_line(&mut line)?;
    // The head goes to its empty line; there is no body.
    let mut rest = String::new();
    while reader.read_line(&mut rest)? > 2 {
        rest.clear();
    }
    let document = match line.split(' ').nth(1) {
        Some("/.well-known/openid-configuration") => {
            json!({"issuer": url, "jwks_uri": format!("{url}/keys")})
        }
        Some("/keys") => json!({"keys": [key.public().to_jwk()]}),
        _ => return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    };
    let body = document.to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}
