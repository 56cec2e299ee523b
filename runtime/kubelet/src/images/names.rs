//! What images are called in statuses.

/// The `imageID` of a container: the image's digest in its repository, as container runtimes have it.
/// A file is named with its path.
pub(crate) fn image_id(image: &str, digest: &str) -> String {
    format!("{}@{digest}", repository(image))
}

/// The names of an image of the node: by digest, then as it was asked for.
pub(super) fn node_names(names: &[String], digest: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let by_digest = names.iter().map(|name| image_id(name, digest));
    for name in by_digest.chain(names.iter().cloned()) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all.truncate(MOST_NAMES);
    all
}

/// Whether a reference of a manifest may mean the image with those full names and that digest. Rather one too many.
pub(super) fn may_be(asked: &str, names: &[String], digest: &str) -> bool {
    if asked.ends_with(digest) {
        return true;
    }
    let wanted = repository(asked);
    names.iter().any(|name| repository(name) == wanted)
}

/// Names per image that a Node shows (`MaxNamesPerImageInNodeStatus`).
const MOST_NAMES: usize = 5;

/// A reference without tag and digest, its registry written out.
fn repository(image: &str) -> String {
    if image.starts_with("file:") {
        return image.to_owned();
    }
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        // A colon before the last slash belongs to a port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_a_manifest_may_mean_is_known() {
        let names = ["docker.io/library/app:dev".to_owned()];
        for (asked, expected) in [
            ("app:dev", true),
            ("app", true),
            ("r.io/other@sha256:1", true),
            ("r.io/app:dev", false),
            ("other", false),
        ] {
            assert_eq!(may_be(asked, &names, "sha256:1"), expected, "{asked}");
        }
        let file = ["file:///srv/app.wasm".to_owned()];
        assert!(may_be("file:///srv/app.wasm", &file, "sha256:1"));
    }

    #[test]
    fn ids_name_the_repository() {
        for (image, id) in [
            ("app", "docker.io/library/app@d"),
            ("app:dev", "docker.io/library/app@d"),
            ("team/app:1", "docker.io/team/app@d"),
            ("localhost:5000/app", "localhost:5000/app@d"),
            ("ghcr.io/team/app:1@sha256:00", "ghcr.io/team/app@d"),
            ("file:///srv/app.wasm", "file:///srv/app.wasm@d"),
        ] {
            assert_eq!(image_id(image, "d"), id);
        }
    }

    #[test]
    fn nodes_show_digests_first() {
        let names = ["r.io/a:1".to_owned(), "r.io/a:2".to_owned()];
        assert_eq!(
            node_names(&names, "d"),
            ["r.io/a@d", "r.io/a:1", "r.io/a:2"]
        );
    }
}
