//! Credentials for registries, from documents in the form of Docker's `config.json`.
//!
//! Which entry fits which image is upstream's rule (`pkg/credentialprovider/keyring.go`): an entry
//! names a host, perhaps with `*` and `?` within its dots, perhaps a port, perhaps the beginning of a
//! path; all that fit are tried, the most specific first.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

/// Where Docker's own registry is meant, whatever it is called.
const DOCKER_HUB: &str = "index.docker.io";

/// Who one is to a registry. Never shown.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
    /// A refresh token, which stands for name and password at the token server.
    pub identity_token: String,
    /// A token that is sent to the registry as it is.
    pub registry_token: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A document of credentials that cannot be read. Says where, and nothing of what is in there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCredentials(String);

/// Credentials by where they are good for.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Pattern and credential, most specific pattern first.
    entries: Vec<(String, Credential)>,
}

#[derive(Deserialize)]
struct Document {
    auths: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, alias = "identityToken")]
    identitytoken: String,
    #[serde(default, alias = "registryToken")]
    registrytoken: String,
}

impl Keyring {
    /// Adds the entries of a `config.json`, which has them under `auths`.
    pub fn add_config(&mut self, text: &[u8]) -> Result<(), InvalidCredentials> {
        let document: Document = serde_json::from_slice(text).map_err(unreadable)?;
        self.add_auths(document.auths.unwrap_or_default())
    }

    /// Adds the entries of an older `.dockercfg`, which is the content of `auths` alone.
    pub fn add_dockercfg(&mut self, text: &[u8]) -> Result<(), InvalidCredentials> {
        self.add_auths(serde_json::from_slice(text).map_err(unreadable)?)
    }

    /// Adds one credential for a host, perhaps with a path.
    pub fn add(&mut self, place: &str, credential: Credential) {
        self.entries.push((pattern(place), credential));
        // Reverse order puts what is longer before what it begins with; stable, so that entries of
        // one pattern stay in the order in which they came.
        self.entries.sort_by(|a, b| b.0.cmp(&a.0));
    }

    fn add_auths(&mut self, auths: BTreeMap<String, Auth>) -> Result<(), InvalidCredentials> {
        for (place, auth) in auths {
            let credential = auth.credential().ok_or_else(|| {
                InvalidCredentials(format!(
                    "the entry {place:?} has an auth that is not base64 of name:password"
                ))
            })?;
            self.add(&place, credential);
        }
        Ok(())
    }

    /// What fits `repository`, such as `ghcr.io/team/app`, most specific first. Empty when nobody is
    /// known there.
    pub fn lookup(&self, repository: &str) -> Vec<Credential> {
        let mut found: Vec<Credential> = Vec::new();
        let mut take = |credential: &Credential| {
            if !found.contains(credential) {
                found.push(credential.clone());
            }
        };
        let fitting = self.entries.iter().filter(|(p, _)| fits(p, repository));
        fitting.for_each(|(_, credential)| take(credential));
        let host = repository.split('/').next().unwrap_or_default();
        if found.is_empty() && matches!(host, "docker.io" | DOCKER_HUB) {
            let hub = self.entries.iter().filter(|(p, _)| p == DOCKER_HUB);
            return hub.map(|(_, credential)| credential.clone()).collect();
        }
        found
    }

    /// Whether it has no entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Auth {
    fn credential(self) -> Option<Credential> {
        let (mut username, mut password) = (self.username, self.password);
        if !self.auth.is_empty() {
            let text = self.auth.trim_end_matches('=');
            let decoded = STANDARD_NO_PAD
                .decode(text)
                .or_else(|_| STANDARD.decode(&self.auth))
                .ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            let (user, secret) = decoded.split_once(':')?;
            // Some tools fill up with NUL characters.
            let secret = secret.trim_matches('\0');
            (username, password) = (user.to_owned(), secret.to_owned());
        }
        Some(Credential {
            username,
            password,
            identity_token: self.identitytoken,
            registry_token: self.registrytoken,
        })
    }
}

/// Without the cause's text, which may quote a password.
fn unreadable(error: serde_json::Error) -> InvalidCredentials {
    InvalidCredentials(format!(
        "not JSON in the form of Docker's config.json (line {}, column {})",
        error.line(),
        error.column()
    ))
}

/// An entry's key as host and path: without scheme and without the `/v1/` and `/v2/` of registries.
fn pattern(place: &str) -> String {
    let place = place
        .strip_prefix("https://")
        .or_else(|| place.strip_prefix("http://"))
        .unwrap_or(place);
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let path = match path.split_once('/') {
        Some(("v1" | "v2", rest)) => rest,
        None if matches!(path, "v1" | "v2") => "",
        _ => path,
    };
    match path.is_empty() {
        true => host.to_owned(),
        false => format!("{host}/{path}"),
    }
}

/// Whether `pattern` covers `repository`: same port, as many parts of the host, each of which fits,
/// and a path that begins alike.
fn fits(pattern: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (host, ""),
        };
        (name.to_owned(), port.to_owned(), path.to_owned())
    };
    let (want_host, want_port, want_path) = split(pattern);
    let (host, port, path) = split(repository);
    let (want, have): (Vec<_>, Vec<_>) =
        (want_host.split('.').collect(), host.split('.').collect());
    want_port == port
        && path.starts_with(&want_path)
        && want.len() == have.len()
        && want.iter().zip(have).all(|(glob, part)| {
            let (glob, part): (Vec<_>, Vec<_>) = (glob.chars().collect(), part.chars().collect());
            matches(&glob, &part)
        })
}

/// Go's `filepath.Match` without escapes: `*`, `?`, `[a-z]` and `[^a-z]`. Linear but for the last
/// `*`, to which it comes back.
fn matches(glob: &[char], text: &[char]) -> bool {
    let (mut g, mut t, mut back) = (0, 0, None);
    loop {
        if g < glob.len() && glob[g] == '*' {
            back = Some((g, t));
            g += 1;
        } else if t == text.len() {
            return g == glob.len();
        } else if let Some(width) = one(&glob[g..], text[t]) {
            (g, t) = (g + width, t + 1);
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            (g, t) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
}

/// How much of the pattern's beginning `found` fits.
fn one(glob: &[char], found: char) -> Option<usize> {
    match *glob.first()? {
        '?' => Some(1),
        '[' => {
            let end = glob.iter().position(|c| *c == ']')?;
            let (negated, set) = match glob.get(1) {
                Some('^') => (true, &glob[2..end]),
                _ => (false, &glob[1..end]),
            };
            let mut inside = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == '-' {
                    inside |= (set[at]..=set[at + 2]).contains(&found);
                    at += 3;
                } else {
                    inside |= set[at] == found;
                    at += 1;
                }
            }
            (inside != negated).then_some(end + 1)
        }
        literal => (literal == found).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(places: &[&str]) -> Keyring {
        let mut keyring = Keyring::default();
        for place in places {
            let username = (*place).to_owned();
            keyring.add(
                place,
                Credential {
                    username,
                    ..Credential::default()
                },
            );
        }
        keyring
    }

    fn names(keyring: &Keyring, repository: &str) -> Vec<String> {
        let found = keyring.lookup(repository);
        found.into_iter().map(|c| c.username).collect()
    }

    #[test]
    fn entries_fit_as_upstream_says() {
        for (place, repository, wanted) in [
            ("ghcr.io", "ghcr.io/team/app", true),
            ("https://ghcr.io/v2/", "ghcr.io/team/app", true),
            ("ghcr.io/team", "ghcr.io/team/app", true),
            ("ghcr.io/other", "ghcr.io/team/app", false),
            ("*.example.com", "a.example.com/app", true),
            ("*.example.com", "a.b.example.com/app", false),
            ("*.*.example.com", "a.b.example.com/app", true),
            ("reg*y.example.com", "registry.example.com/app", true),
            ("registry-?.example.com", "registry-1.example.com/app", true),
            (
                "registry-[0-9].example.com",
                "registry-1.example.com/app",
                true,
            ),
            (
                "registry-[^0-9].example.com",
                "registry-1.example.com/app",
                false,
            ),
            ("example.com", "example.com:5000/app", false),
            ("example.com:5000", "example.com:5000/app", true),
            ("*.example.com:5000", "a.example.com:5000/app", true),
            ("[", "a/b", false),
            ("127.0.0.1:5000", "127.0.0.1:5000/app", true),
        ] {
            let found = keyring(&[place]).lookup(repository);
            assert_eq!(!found.is_empty(), wanted, "{place} and {repository}");
        }
    }

    #[test]
    fn all_that_fit_are_given_the_most_specific_first() {
        let keyring = keyring(&["ghcr.io", "ghcr.io/team/app", "*.io", "ghcr.io/team"]);
        assert_eq!(
            names(&keyring, "ghcr.io/team/app"),
            ["ghcr.io/team/app", "ghcr.io/team", "ghcr.io", "*.io"]
        );
    }

    #[test]
    fn docker_hub_goes_by_its_old_name_too() {
        let keyring = keyring(&["https://index.docker.io/v1/"]);
        assert_eq!(names(&keyring, "docker.io/library/app").len(), 1);
        assert!(names(&keyring, "ghcr.io/app").is_empty());
    }

    #[test]
    fn documents_are_read_and_their_secrets_kept() {
        let mut keyring = Keyring::default();
        let auth = STANDARD.encode("jane:s3:cret");
        let text = format!(
            r#"{{"auths":{{"a.io":{{"auth":"{auth}"}},"b.io":{{"username":"u","password":"p"}}}},"credsStore":"x"}}"#
        );
        keyring.add_config(text.as_bytes()).unwrap();
        let found = keyring.lookup("a.io/app");
        assert_eq!(
            (&*found[0].username, &*found[0].password),
            ("jane", "s3:cret")
        );
        assert!(!format!("{keyring:?}").contains("cret"));
        let old = format!(r#"{{"c.io":{{"auth":"{auth}","email":"x"}}}}"#);
        keyring.add_dockercfg(old.as_bytes()).unwrap();
        assert_eq!(keyring.lookup("c.io/x").len(), 1);
        for text in [
            r#"{"auths":{"a.io":{"auth":"s3cret!"}}}"#,
            r#"{"auths":"s3cret"}"#,
        ] {
            let error = keyring.add_config(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
