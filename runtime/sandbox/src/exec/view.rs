//! Reading a file as the guest would: from its mounts, and never out of them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use cap_primitives::fs::{OpenOptions, open};

use crate::preopens::Preopens;

/// Largest program that is read from a container's files.
const MAX_BYTES: u64 = 64 << 20;

/// `path` as an absolute one, without `.` and `..`.
pub(super) fn absolute(working_dir: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{working_dir}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The bytes of the file at the absolute `path`; `None` when there is no file. Links that lead out of
/// the mount they are in are errors, as they are for guests.
pub(super) async fn read(preopens: &Preopens, path: &str) -> io::Result<Option<Vec<u8>>> {
    let Some((host, rest)) = preopens.locate(path) else {
        return Ok(None);
    };
    let reading = tokio::task::spawn_blocking(move || read_below(&host, &rest));
    match reading
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read,
    }
}

fn read_below(folder: &Path, rest: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = open_below(folder, rest)? else {
        return Ok(None);
    };
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(io::Error::other(format!(
            "the file has {length} bytes; programs may have {MAX_BYTES}"
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Opens a file to read, `None` if it is of another kind. Links that lead out of `folder` are errors,
/// also while a guest changes them.
pub(crate) fn open_below(folder: &Path, rest: &Path) -> io::Result<Option<File>> {
    let folder = File::open(folder)?;
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe must not hold up the node.
    #[cfg(unix)]
    {
        use cap_primitives::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = open(&folder, rest, &options)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (path, expected) in [
            ("a.wasm", "/srv/a.wasm"),
            ("./a/../b.wasm", "/srv/b.wasm"),
            ("../../../b.wasm", "/b.wasm"),
            ("/data//x", "/data/x"),
        ] {
            assert_eq!(absolute("/srv", path), expected);
        }
    }
}
