//! Image references: the text of `image:` in a manifest.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::Digest;

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A file of the node: `file:///absolute/path/app.wasm`. The path is taken literally, without
    /// percent-decoding.
    File(PathBuf),
    /// A name in the node's store or a registry.
    Named(Name),
}

/// A registry name in its full form: `app:dev` is `docker.io/library/app:dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Host and port of the registry.
    pub registry: String,
    /// Path within the registry.
    pub repository: String,
    /// Tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// Digest of the manifest, when the reference is pinned.
    pub digest: Option<Digest>,
}

/// The reference cannot be read. The text is shown to users as it is.
#[derive(Debug, Clone, thiserror::Error)]
#[error("couldn't parse image name \"{reference}\": {problem}")]
pub struct InvalidReference {
    /// The reference as it was given.
    pub reference: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let parsed = match text.strip_prefix("file:") {
            Some(rest) => file_path(rest).map(Reference::File),
            None => name(text).map(Reference::Named),
        };
        parsed.map_err(|problem| InvalidReference {
            reference: text.to_owned(),
            problem,
        })
    }
}

impl FromStr for Name {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        name(text).map_err(|problem| InvalidReference {
            reference: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn file_path(rest: &str) -> Result<PathBuf, String> {
    let path = match rest.strip_prefix("//") {
        Some(authority) => authority.strip_prefix("localhost/").map_or(authority, |_| {
            authority
                .strip_prefix("localhost")
                .expect("checked by the pattern before")
        }),
        None => rest,
    };
    if path.contains('\0') {
        return Err("a path has no NUL characters".to_owned());
    }
    if path.starts_with('/') && path.len() > 1 {
        return Ok(PathBuf::from(path));
    }
    Err(format!(
        "a file reference has an absolute path: write file:///absolute/path/app.wasm, not file:{rest}"
    ))
}

fn name(text: &str) -> Result<Name, String> {
    const FORMAT: &str = "invalid reference format";
    let invalid = || FORMAT.to_owned();
    if text.is_empty() || text.len() > 512 {
        return Err(invalid());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (
            rest,
            Some(digest.parse::<Digest>().map_err(|e| e.to_string())?),
        ),
        None => (text, None),
    };
    // A colon after the last slash starts the tag; one before it belongs to a port.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(invalid());
    }
    let (registry, repository) = match path.split_once('/') {
        Some((host, repository)) if is_registry(host) => (host, repository.to_owned()),
        Some(_) => ("docker.io", path.to_owned()),
        None => ("docker.io", format!("library/{path}")),
    };
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("{FORMAT}: repository name must be lowercase"));
    }
    if !repository.split('/').all(is_component) {
        return Err(invalid());
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some("latest".to_owned()),
    };
    Ok(Name {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// The first part names a registry only if it cannot be a plain repository name.
fn is_registry(host: &str) -> bool {
    (host == "localhost" || host.contains('.') || host.contains(':'))
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = part.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    matches!(bytes.len(), 1..=128)
        && !matches!(bytes[0], b'.' | b'-')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_names_get_their_registry_and_tag() {
        assert_eq!(full("app"), "docker.io/library/app:latest");
        assert_eq!(full("app:dev"), "docker.io/library/app:dev");
        assert_eq!(full("team/app"), "docker.io/team/app:latest");
        assert_eq!(full("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(full("ghcr.io/team/app:1.2"), "ghcr.io/team/app:1.2");
        let pinned = format!("ghcr.io/a/b@{}", Digest::of(b""));
        assert_eq!(full(&pinned), pinned);
    }

    #[test]
    fn file_references_are_absolute() {
        let path = Reference::File("/srv/app.wasm".into());
        for text in [
            "file:///srv/app.wasm",
            "file:/srv/app.wasm",
            "file://localhost/srv/app.wasm",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap(), path, "{text}");
        }
        let error = "file:app.wasm"
            .parse::<Reference>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("absolute path"), "{error}");
        assert!("file://host/app.wasm".parse::<Reference>().is_err());
        assert!("file:///".parse::<Reference>().is_err());
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in [
            "",
            "App",
            "app:",
            "app:a b",
            "a//b",
            "-app",
            "app@sha256:12",
            "a/../b",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
