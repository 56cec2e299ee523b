//! A server of tokens for a registry, as the Docker Registry v2 token specification has it: jane may do everything with her
//! password, everybody else may pull what is below `public/`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use coracle_clock::Clock;
use rcgen::{CertifiedKey, KeyPair, SigningKey};
use serde_json::{Value, json};

/// What a client may take for its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// What `Authorization` says for jane.
const JANE: &str = "Basic amFuZTpzZWNyZXQ=";

/// A running server; its thread ends with the process.
pub(crate) struct Tokens {
    /// Where tokens are asked for.
    pub(crate) url: String,
    /// What its tokens are signed with, in PEM form.
    pub(crate) certificate: String,
}

impl Tokens {
    /// Starts one at `127.0.0.1`.
    pub(crate) fn start() -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let made = rcgen::generate_simple_self_signed(["tokens".to_owned()]);
        let made = made.map_err(|error| error.to_string())?;
        let certificate = made.cert.pem();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(REQUEST_LIMIT));
                // Who goes away in the middle is not this test's affair.
                let _ = answer(stream, &made);
            }
        });
        Ok(Self {
            url: format!("http://{address}/token"),
            certificate,
        })
    }
}

fn answer(mut stream: TcpStream, signer: &CertifiedKey<KeyPair>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut is_jane = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            is_jane |= name.eq_ignore_ascii_case("authorization") && value == JANE;
        }
    }
    let query = first
        .split(' ')
        .nth(1)
        .and_then(|target| target.split_once('?'));
    let pairs = query.map_or("", |(_, query)| query).split('&');
    let scopes = pairs.filter_map(|pair| pair.strip_prefix("scope="));
    let access: Vec<Value> = scopes.filter_map(|scope| allowed(scope, is_jane)).collect();
    let body = json!({"token": token(&access, signer).map_err(std::io::Error::other)?}).to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What of `repository:NAME:ACTIONS` is given.
fn allowed(scope: &str, is_jane: bool) -> Option<Value> {
    let scope = scope
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",");
    let mut parts = scope.splitn(3, ':');
    let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
    let given = |action: &&str| is_jane || (name.starts_with("public/") && *action == "pull");
    let actions: Vec<&str> = actions.split(',').filter(given).collect();
    Some(json!({"type": kind, "name": name, "actions": actions}))
}

fn token(access: &[Value], signer: &CertifiedKey<KeyPair>) -> Result<String, String> {
    let now = Clock::system().now().as_second();
    let chain = [BASE64_STANDARD.encode(signer.cert.der())];
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": chain});
    let claims = json!({
        "iss": "test", "aud": "test", "sub": "", "jti": "1",
        "nbf": now - 60, "iat": now, "exp": now + 300, "access": access,
    });
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = signer
        .signing_key
        .sign(signed.as_bytes())
        .map_err(|error| error.to_string())?;
    let signature = fixed(&signature).ok_or("a signature of another form")?;
    Ok(format!(
        "{signed}.{}",
        BASE64_URL_SAFE_NO_PAD.encode(signature)
    ))
}

/// The two numbers of an ECDSA signature in DER form, 32 bytes each, as JWTs have them.
fn fixed(der: &[u8]) -> Option<[u8; 64]> {
    // A sequence of two integers, each with its length.
    let mut rest = der.get(2..)?;
    let mut out = [0; 64];
    for half in out.chunks_mut(32) {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        rest = &rest[2 + length..];
        let start = number.iter().position(|byte| *byte != 0)?;
        let number = &number[start..];
        half.get_mut(32 - number.len()..)?.copy_from_slice(number);
    }
    Some(out)
}
