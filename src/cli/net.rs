//! `coracle net` as it can be typed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DataDir;

/// The flags of `coracle net`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle net                       all pods and Services
  coracle net -n shop               those of the namespace shop
  coracle net -n shop cart-0        one pod
  coracle net -n shop -o json       the same figures for programs

Of each socket it shows what `ss` shows: of a listener, RECV-Q is how many connections wait to be
accepted and SEND-Q how many may; of a connection, the bytes that were not read yet, here and by the
peer. RECEIVED and SENT are what the pod has read and written. Counters of a pod begin with its
sandbox. Of each Service it shows how many connections came, how many nobody took and why, and how
long they waited on average until a pod accepted them.")]
pub struct NetArgs {
    /// The pod; without it, all of the namespace, and the Services
    pub pod: Option<String>,
    /// The namespace [default: all, or `default` for a pod]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Print JSON instead
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<NetFormat>,
    /// Ask the cluster of this kubeconfig
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the cluster is
    #[command(flatten)]
    pub data: DataDir,
}

/// How sockets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetFormat {
    /// One object with a list of pods
    Json,
}
