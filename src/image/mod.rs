//! `coracle image`: the node's image store from the command line. All of it works while `coracle up`
//! runs on the same folder.

mod show;
mod transfer;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use coracle_clock::Clock;
use coracle_image::{
    Build, ImageStore, Name, Reference, RegistryConfig, StoredImage, load_archive, save_archive,
};

use crate::cli::{self, BuildArgs, ImageCommand};
use crate::data_dir;

pub(crate) use show::bytes;
pub(crate) use transfer::MAX_IMAGE_BYTES;

/// Carries out a command.
pub fn run(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Build(args) => build(&args),
        ImageCommand::Load { file, tag, data } => load(&file, tag.as_deref(), &data),
        ImageCommand::Save {
            names,
            output,
            data,
        } => save(&names, &output, &data),
        ImageCommand::Pull {
            name,
            registry,
            data,
        } => transfer::pull(&name, &registry, &data),
        ImageCommand::Push {
            name,
            to,
            registry,
            data,
        } => transfer::push(&name, to.as_deref(), &registry, &data),
        ImageCommand::Ls {
            output,
            quiet,
            data,
        } => show::list(output, quiet, &data),
        ImageCommand::Rm { names, data } => remove(&names, &data),
        ImageCommand::Inspect { name, data } => show::inspect(&name, &data),
    }
}

/// Puts a `.wasm` file or an archive into the store.
pub fn load(file: &Path, tag: Option<&str>, data: &cli::DataDir) -> Result<()> {
    if !is_archive(file)? {
        check_is_wasm(file)?;
        let Some(tag) = tag else {
            bail!(
                "{} needs a name: coracle image load {} -t NAME:TAG",
                file.display(),
                file.display()
            );
        };
        let (name, image) = open(data)?.load(file, tag)?;
        println!(
            "loaded {} as {tag} ({name}@{}, {} bytes)",
            file.display(),
            image.digest,
            image.size
        );
        println!("use it as the image of a container, for example: kubectl run app --image={tag}");
        return Ok(());
    }
    let store = open(data)?;
    for loaded in load_archive(&store, file, tag)? {
        let StoredImage { digest, size } = loaded.image;
        println!("loaded {} ({digest}, {size} bytes)", familiar(&loaded.name));
        if let Err(why) = show::runnable(&store, &digest) {
            anstream::eprintln!(
                "warning: {} does not run here: {why}",
                familiar(&loaded.name)
            );
        }
    }
    Ok(())
}

fn build(args: &BuildArgs) -> Result<()> {
    let files = args
        .files
        .iter()
        .map(|file| place(file))
        .collect::<Result<_>>()?;
    let build = Build {
        program: args.program.clone(),
        files,
        env: args.env.clone(),
        entrypoint: args.entrypoint.clone(),
        cmd: args.cmd.clone(),
        working_dir: args.workdir.clone(),
    };
    let image = build.run(&open(&args.data)?, &args.tag)?;
    println!(
        "built {} ({}, {} bytes)",
        args.tag, image.digest, image.size
    );
    println!(
        "run it with kubectl run app --image={}, or give it to a registry with coracle image push {} \
         HOST/PATH:TAG",
        args.tag, args.tag
    );
    Ok(())
}

/// `PATH:PLACE`, or `PATH` for a place of the same name in the image's root.
fn place(text: &str) -> Result<(PathBuf, String)> {
    // The last colon, so that a path may have others; `C:\site` has none after it.
    if let Some((path, place)) = text
        .rsplit_once(':')
        .filter(|(_, place)| place.starts_with('/'))
    {
        return Ok((path.into(), place.to_owned()));
    }
    let path = PathBuf::from(text);
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        bail!("--file {text} has no name of its own: say where it goes with {text}:/PLACE");
    };
    let place = format!("/{name}");
    Ok((path, place))
}

fn save(names: &[String], output: &Path, data: &cli::DataDir) -> Result<()> {
    let store = open(data)?;
    let mut images = Vec::new();
    for name in names {
        let (full, image) = find(&store, name)?;
        let Reference::Named(name) = full else {
            bail!(
                "{name} is a file of this machine already; build or load it under a name to save it"
            );
        };
        images.push((name, image.digest));
    }
    if output == Path::new("-") {
        return Ok(save_archive(&store, &images, std::io::stdout().lock())?);
    }
    // Not under its name before it is whole.
    let folder = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .with_context(|| format!("failed to write {}", output.display()))?;
    save_archive(&store, &images, std::io::BufWriter::new(file.as_file_mut()))?;
    let size = file.as_file().metadata().map_or(0, |found| found.len());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
    }
    file.persist(output)
        .with_context(|| format!("failed to write {}", output.display()))?;
    println!(
        "saved {} to {} ({size} bytes)",
        names.join(", "),
        output.display()
    );
    Ok(())
}

fn remove(names: &[String], data: &cli::DataDir) -> Result<()> {
    let store = open(data)?;
    let mut missing = Vec::new();
    for name in names {
        let reference: Reference = name.parse()?;
        match store.remove_name(&reference.to_string())? {
            true => println!("removed {name}"),
            false => missing.push(name.as_str()),
        }
    }
    if !missing.is_empty() {
        bail!(
            "no image is called {}; see coracle image ls",
            missing.join(", ")
        );
    }
    Ok(())
}

/// The store of a data directory.
fn open(data: &cli::DataDir) -> Result<ImageStore> {
    let folder = data_dir::locate(data.data_dir.as_deref())?.join("images");
    // The clock needs no runtime: only the wall time of the entry is taken from it.
    ImageStore::open(&folder, Clock::system())
        .with_context(|| format!("failed to open the image store {}", folder.display()))
}

/// What `name` means in the store.
fn find(store: &ImageStore, name: &str) -> Result<(Reference, StoredImage)> {
    let reference: Reference = name.parse()?;
    match store.resolve(&reference.to_string())? {
        Some(image) => Ok((reference, image)),
        None => bail!("no image is called {name}; see coracle image ls"),
    }
}

/// A name as people type it: without what every short name gets.
fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short)
}

/// The name in a registry.
fn registry_name(text: &str) -> Result<Name> {
    match text.parse::<Reference>()? {
        Reference::Named(name) => Ok(name),
        Reference::File(_) => bail!("{text} is a file and in no registry"),
    }
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

/// Folders, tar archives and compressed files.
fn is_archive(path: &Path) -> Result<bool> {
    let mut file =
        File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    if path.is_dir() {
        return Ok(true);
    }
    let mut start = Vec::new();
    let read = Read::take(&mut file, 512).read_to_end(&mut start);
    read.with_context(|| format!("failed to read {}", path.display()))?;
    let is_compressed =
        start.starts_with(&[0x1f, 0x8b]) || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    Ok(is_compressed || start.get(257..262) == Some(b"ustar"))
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
        load(&good, Some("a:dev"), &data).expect("loaded");
        let error = load(&good, None, &data).expect_err("refused").to_string();
        assert!(error.contains("needs a name"), "{error}");
        let error = load(&bad, Some("b:dev"), &data)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("b.txt is not WebAssembly"), "{error}");
        assert!(load(&folder.path().join("none"), Some("c"), &data).is_err());
    }

    #[test]
    fn files_have_their_place_or_their_name() {
        for (text, path, wanted) in [
            ("public:/srv", "public", "/srv"),
            ("a:b:/srv", "a:b", "/srv"),
            ("dir/data.txt", "dir/data.txt", "/data.txt"),
        ] {
            let found = place(text).expect("a place");
            assert_eq!(found, (PathBuf::from(path), wanted.to_owned()));
        }
        assert!(place("..").is_err());
    }
}
