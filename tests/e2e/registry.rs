//! Registries of a script: Debian's `docker-registry`, with a password, with TLS, or with a server of tokens.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::tokens::Tokens;

/// The user `jane` with the password `secret`, as `htpasswd -B` writes it.
const USERS: &str = "jane:$2y$05$CoracleTestRegistrySaecYlLw0yqj4/Iw0sXl6qmF49443DhgkG\n";

/// How a registry is reached, and whom it lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Without TLS, for who has the password.
    Password,
    /// With TLS, for everybody.
    Tls,
    /// Without TLS, for who has a token, which another server gives out for the password.
    Token,
}

impl Kind {
    /// The kind of the script's word.
    pub(crate) fn named(word: Option<&str>) -> Result<Self, String> {
        match word {
            None => Ok(Self::Password),
            Some("tls") => Ok(Self::Tls),
            Some("token") => Ok(Self::Token),
            Some(other) => Err(format!("there is no registry of the kind {other}")),
        }
    }

    /// The variable that says where such a registry listens.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Password => "REGISTRY",
            Self::Tls => "TLS_REGISTRY",
            Self::Token => "TOKEN_REGISTRY",
        }
    }
}

/// A running registry, killed when dropped.
pub(crate) struct Registry {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// Who vouches for it, where it has TLS.
    pub(crate) authority: Option<PathBuf>,
}

/// Whether it is installed.
pub(crate) fn is_installed() -> bool {
    let version = Command::new("docker-registry")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

impl Registry {
    /// Starts one with its files in a folder below `work`.
    pub(crate) fn start(work: &Path, kind: Kind) -> Result<Self, String> {
        let folder = work.join(kind.variable().to_lowercase());
        let failed = |error: std::io::Error| format!("failed to start a registry: {error}");
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let (storage, users) = (folder.join("storage"), folder.join("users"));
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        let mut config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        match kind {
            Kind::Password => {
                std::fs::write(&users, USERS).map_err(failed)?;
                let users = users.display();
                config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {users}\n");
            }
            Kind::Tls => {
                let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
                let made = made.map_err(|error| error.to_string())?;
                std::fs::write(&certificate, made.cert.pem()).map_err(failed)?;
                std::fs::write(&key, made.signing_key.serialize_pem()).map_err(failed)?;
                let (certificate, key) = (certificate.display(), key.display());
                config += &format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
            }
            Kind::Token => {
                let tokens = Tokens::start()?;
                std::fs::write(&certificate, &tokens.certificate).map_err(failed)?;
                config += &format!(
                    "auth:\n  token:\n    realm: {}\n    service: test\n    issuer: test\n    rootcertbundle: {}\n",
                    tokens.url,
                    certificate.display()
                );
            }
        }
        std::fs::write(folder.join("config.yml"), config).map_err(failed)?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
            Some(rest[..end.unwrap_or(rest.len())].to_owned())
        });
        // Whatever it says further must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut registry = Self {
            child,
            address: String::new(),
            authority: (kind == Kind::Tls).then_some(certificate),
        };
        registry.address = address.ok_or("the registry did not say where it listens")?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
