//! `coracle image`: the node's image store from the command line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use coracle_clock::Clock;
use coracle_image::{ImageStore, RegistryConfig};

use crate::cli;
use crate::data_dir;

/// Puts a `.wasm` file into the store under a name. Works while `up` runs on the same folder.
pub fn load(file: &Path, tag: &str, data: &cli::DataDir) -> Result<()> {
    check_is_wasm(file)?;
    let folder = data_dir::locate(data.data_dir.as_deref())?.join("images");
    // The clock needs no runtime: only the wall time of the entry is taken from it.
    let store = ImageStore::open(&folder, Clock::system())
        .with_context(|| format!("failed to open the image store {}", folder.display()))?;
    let (name, image) = store.load(file, tag)?;
    println!(
        "loaded {} as {tag} ({name}@{}, {} bytes)",
        file.display(),
        image.digest,
        image.size
    );
    println!("use it as the image of a container, for example: kubectl run app --image={tag}");
    Ok(())
}

/// How registries are reached from the data directory `data`: `certs.d` and `config.json` in it,
/// unless another folder of hosts is given.
pub fn registries(data: &Path, hosts: Option<&Path>) -> RegistryConfig {
    RegistryConfig {
        hosts: Some(hosts.map_or_else(|| data.join("certs.d"), Path::to_owned)),
        credentials: Some(data.join("config.json")),
        ..RegistryConfig::default()
    }
}

/// Every wasm module and component begins with the same four bytes (WebAssembly core specification,
/// binary format): anything else is refused here, where the file still has a name.
fn check_is_wasm(path: &Path) -> Result<()> {
    let mut file =
        File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut magic = [0; 4];
    let is_wasm = file.read_exact(&mut magic).is_ok() && &magic == b"\0asm";
    if !is_wasm {
        bail!(
            "{} is not WebAssembly: a module or component begins with the bytes 00 61 73 6d; build it for a wasm target first",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wasm_is_loaded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = cli::DataDir {
            data_dir: Some(folder.path().join("data")),
        };
        let (good, bad) = (folder.path().join("a.wasm"), folder.path().join("b.txt"));
        std::fs::write(&good, b"\0asm\x01\0\0\0").expect("written");
        std::fs::write(&bad, b"hello").expect("written");
        load(&good, "a:dev", &data).expect("loaded");
        let error = load(&bad, "b:dev", &data).expect_err("refused").to_string();
        assert!(error.contains("b.txt is not WebAssembly"), "{error}");
        assert!(load(&folder.path().join("none"), "c", &data).is_err());
    }
}
