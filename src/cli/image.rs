//! `coracle image` as it can be typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DataDir;

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image of a .wasm file, with files and settings if it needs any
    #[command(after_help = "\
Examples:
  coracle image build app.wasm -t app:dev
      a WASI artifact: the program and nothing else
  coracle image build app.wasm -t site:dev --file public:/srv -e PORT=8080 -w /srv
      an image with files: the folder public is /srv in there
  coracle image build tool.wasm -t tool:dev --entrypoint /tool.wasm --entrypoint serve

The same files always make the same digest.")]
    Build(BuildArgs),
    /// Put a .wasm file or an archive of images into the node's image store
    #[command(after_help = "\
Examples:
  coracle image load target/wasm32-wasip2/release/app.wasm -t app:dev
  kubectl run app --image=app:dev

  coracle image load images.tar          what `image save` and `docker save` write, or a folder
                                         with an OCI image layout; names come with it

The name works while `coracle up` runs and after; loading again replaces what it stands for.
Pods that already run keep the code they started with. No registry is asked for such a name.")]
    Load {
        /// A WASI 0.1 module, a component, an archive (.tar, .tar.gz) or a folder with a layout
        file: PathBuf,
        /// The name that manifests use; archives may bring their own
        #[arg(short, long, value_name = "NAME:TAG")]
        tag: Option<String>,
        /// Where the node's images are
        #[command(flatten)]
        data: DataDir,
    },
    /// Write images into an archive: an OCI image layout that other tools read too
    #[command(after_help = "\
Example:
  coracle image save app:dev tool:dev -o images.tar
  skopeo copy oci-archive:images.tar:dev docker://registry.example.com/app:dev")]
    Save {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// The archive, or - for standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Where the node's images are
        #[command(flatten)]
        data: DataDir,
    },
    /// Fetch an image from a registry into the node's store
    #[command(after_help = "\
Example:
  coracle image pull ghcr.io/team/app:1.2

Credentials are those of `docker login` (~/.docker/config.json and its helpers). Pods need no
pull secret for an image that was fetched like this.")]
    Pull {
        /// Its name: HOST/PATH:TAG or HOST/PATH@sha256:…
        name: String,
        /// How the registry is reached
        #[command(flatten)]
        registry: RegistryArgs,
        /// Where the node's images are
        #[command(flatten)]
        data: DataDir,
    },
    /// Give an image to a registry
    #[command(after_help = "\
Examples:
  coracle image push localhost:5000/team/app:1.2
  coracle image push app:dev ghcr.io/team/app:1.2     under another name

Credentials are those of `docker login` (~/.docker/config.json and its helpers). Registries on
this machine are asked without TLS; for others see `coracle up --help` at --registry-hosts.")]
    Push {
        /// The image's name in the store
        name: String,
        /// Its name in the registry, when that is another
        to: Option<String>,
        /// How the registry is reached
        #[command(flatten)]
        registry: RegistryArgs,
        /// Where the node's images are
        #[command(flatten)]
        data: DataDir,
    },
    /// List the images of the node's store
    #[command(visible_alias = "list")]
    Ls {
        /// Print JSON instead
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<ListFormat>,
        /// Print the names alone
        #[arg(short, long, conflicts_with = "output")]
        quiet: bool,
        /// Where the node's images are
        #[command(flatten)]
        data: DataDir,
    },
    /// Take names out of the node's store, and images that have no name left
    #[command(after_help = "\
Pods that run keep running. The files of an image go with its last name; a node that runs removes
pulled images by itself when its disk is full.")]
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Where the node's images are
        #[command(flatten)]
        data: DataDir,
    },
    /// Show what an image is made of, as JSON
    Inspect {
        /// Its name
        name: String,
        /// Where the node's images are
        #[command(flatten)]
        data: DataDir,
    },
}

/// What an image is made of.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The program: a WASI 0.1 module or a component
    pub program: PathBuf,
    /// The image's name
    #[arg(short, long, value_name = "NAME:TAG")]
    pub tag: String,
    /// A file or folder, and its path in the image [default: /NAME]; repeatable
    #[arg(long = "file", value_name = "PATH[:PLACE]")]
    pub files: Vec<String>,
    /// A variable of the environment; repeatable
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<String>,
    /// The program's path in the image, then its first arguments; repeatable
    /// [default: / and the name of the file]
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,
    /// An argument that a pod's args replace; repeatable
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    /// The folder in the image that the program starts in
    #[arg(
        short,
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    pub workdir: String,
    /// Where the node's images are
    #[command(flatten)]
    pub data: DataDir,
}

/// How registries are reached.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// Folder with HOST:PORT/hosts.toml: mirrors, authorities, plain HTTP
    /// [default: certs.d in the data directory]
    #[arg(long, value_name = "DIR")]
    pub registry_hosts: Option<PathBuf>,
}

/// How images are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// One object with a list of images
    Json,
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
