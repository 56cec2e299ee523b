//! What a guest cannot ask WASI: the pod's containers, address, sockets and mounts, as files that only
//! the toolbox sees, in `/.coracle`.
//!
//! Each file has a line per thing, its fields separated by tabs; the toolbox' `network.rs` reads them.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_cri::{ContainerState, ContainerStatus};
use coracle_network::NetworkNamespace;
use tokio::fs;

use crate::pod::Pod;
use crate::preopens::Preopens;

/// Where the toolbox finds them.
pub(super) const FOLDER: &str = "/.coracle";

/// How often they are brought up to date while a session lives.
const EVERY: Duration = Duration::from_secs(1);

/// The files of one session; removed when dropped.
pub(super) struct Facts {
    folder: PathBuf,
    pod: Arc<Pod>,
    mounts: Preopens,
    written: Vec<(&'static str, String)>,
}

impl Facts {
    /// Writes the files into the new `folder`.
    pub(super) async fn write(
        folder: PathBuf,
        pod: Arc<Pod>,
        mounts: Preopens,
    ) -> io::Result<Self> {
        fs::create_dir_all(&folder).await?;
        let mut facts = Self {
            folder,
            pod,
            mounts,
            written: Vec::new(),
        };
        facts.update().await?;
        Ok(facts)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps the files up to date; never ends.
    pub(super) async fn keep(mut self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.update().await {
                tracing::debug!(folder = %self.folder.display(), %error, "facts are out of date");
            }
        }
    }

    async fn update(&mut self) -> io::Result<()> {
        let mounts = self.mounts.clone();
        let mounts = tokio::task::spawn_blocking(move || mount_table(&mounts)).await;
        let namespace = &self.pod.namespace;
        let now = vec![
            ("version", format!("{}\n", env!("CARGO_PKG_VERSION"))),
            ("address", format!("{}\n", namespace.address())),
            ("containers", container_table(&self.pod.status().containers)),
            ("sockets", socket_table(namespace)),
            ("mounts", mounts.unwrap_or_default()),
        ];
        for (name, text) in &now {
            if !self.written.contains(&(*name, text.clone())) {
                // Written aside and renamed, so that nobody reads half of it.
                let aside = self.folder.join(".new");
                fs::write(&aside, text).await?;
                fs::rename(&aside, self.folder.join(name)).await?;
            }
        }
        self.written = now;
        Ok(())
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(folder = %self.folder.display(), %error, "facts are left behind");
        }
    }
}

/// Name, state, restarts, start in seconds since 1970, image, command.
fn container_table(containers: &[ContainerStatus]) -> String {
    let mut table = String::new();
    for container in containers {
        let (state, started) = match &container.state {
            ContainerState::Created => ("Waiting", None),
            ContainerState::Running { started_at, .. } => ("Running", Some(started_at)),
            ContainerState::Exited { started_at, .. } => ("Exited", Some(started_at)),
        };
        let started = started.map_or(0, |at| at.as_second());
        let image = &container.image.image;
        let program = image.rsplit('/').next().unwrap_or(image);
        let (name, restarts) = (&container.id.name, container.restart_count);
        let fields = [
            name,
            state,
            &restarts.to_string(),
            &started.to_string(),
            image,
            program,
        ];
        let line = fields
            .map(|field| field.replace(['\t', '\n'], " "))
            .join("\t");
        let _ = writeln!(table, "{line}");
    }
    table
}

/// Protocol, state, address.
fn socket_table(namespace: &NetworkNamespace) -> String {
    let mut table = String::new();
    for port in namespace.ports() {
        let (protocol, state) = match (port.tcp, port.listening) {
            (true, true) => ("tcp", "LISTEN"),
            (true, false) => ("tcp", "OPEN"),
            (false, _) => ("udp", "-"),
        };
        let _ = writeln!(table, "{protocol}\t{state}\t{}", port.address);
    }
    table
}

/// Path, `ro` or `rw`, bytes in all, used and free; without the last three where the system does not
/// tell.
fn mount_table(mounts: &Preopens) -> String {
    let mut table = String::new();
    for (guest, host, read_only) in mounts.list() {
        let mode = if read_only { "ro" } else { "rw" };
        let _ = write!(table, "{guest}\t{mode}");
        #[cfg(unix)]
        if let Ok(found) = rustix::fs::statvfs(host) {
            let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
            let used = found.f_blocks.saturating_sub(found.f_bfree);
            let _ = write!(
                table,
                "\t{}\t{}\t{}",
                bytes(found.f_blocks),
                bytes(used),
                bytes(found.f_bavail)
            );
        }
        #[cfg(not(unix))]
        let _ = host;
        table.push('\n');
    }
    table
}
