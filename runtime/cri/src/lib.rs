//! The container runtime interface: everything that the kubelet knows of a pod runtime.
//!
//! The kubelet speaks to a [`PodRuntime`]; `coracle-sandbox` implements it with wasmtime, and
//! [`fake::FakeRuntime`] implements it without running anything, for tests of everything above it.
//! The shapes follow Kubernetes' CRI (`runtime.v1`), reduced to what a wasm runtime can mean, and
//! know no Kubernetes kinds: the kubelet translates.
//!
//! ```text
//! run_pod_sandbox ─▶ create + start_container … ─▶ stop_container … ─▶ stop_pod_sandbox
//!       │                       │
//!  address, hosts,        one instance per run; every change of state is announced
//!  pod files              on the channel of `subscribe`
//! ```

pub mod fake;
mod network;
mod session;
mod stats;
mod types;

pub use network::*;
pub use session::*;
pub use stats::*;
pub use types::*;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

/// Runs pods. All methods may be called at once from several tasks; calls about one container
/// must not overlap.
#[async_trait]
pub trait PodRuntime: Send + Sync + 'static {
    /// Makes the pod's network namespace and files. The sandbox outlives its containers' restarts
    /// and keeps its address until [`stop_pod_sandbox`](Self::stop_pod_sandbox).
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<(), RuntimeError>;

    /// Drops every container at once, then the network namespace. Stopping a sandbox that is not
    /// there succeeds.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Makes an image present according to `policy` and compiles it. Progress is announced as
    /// [`RuntimeEvent::ImageProgress`].
    async fn ensure_image(&self, request: ImageRequest) -> Result<ImageRef, ImageError>;

    /// Whether [`ensure_image`](Self::ensure_image) would take what the node has, without asking
    /// where the image is from.
    async fn has_image(&self, _request: &ImageRequest) -> bool {
        false
    }

    /// [`ensure_image`](Self::ensure_image) that also says how long the pull waited for its turn.
    async fn pull_image(&self, request: ImageRequest) -> Result<PulledImage, ImageError> {
        let image = self.ensure_image(request).await?;
        let waited = Duration::ZERO;
        Ok(PulledImage { image, waited })
    }

    /// Makes the files of an image present, whatever they are, for an `image` volume. Returns the
    /// image and a folder that nobody may write to.
    async fn image_files(&self, request: ImageRequest) -> Result<(ImageRef, PathBuf), ImageError> {
        Err(ImageError::Pull(format!(
            "image {}: this runtime gives no image as a volume",
            request.image
        )))
    }

    /// The images that the node keeps.
    async fn list_images(&self) -> Vec<ImageListing> {
        Vec::new()
    }

    /// How full the images' file system is; `None` when that is not known.
    async fn image_fs(&self) -> Option<ImageFs> {
        None
    }

    /// Removes an image with all its names. One that is not there counts as removed.
    async fn remove_image(&self, _digest: &str) -> Result<(), ImageError> {
        Ok(())
    }

    /// Removes what was left behind: files that belong to no image and to none of the digests in
    /// `used`, untouched for `age`. Returns the bytes that are free again.
    async fn sweep_images(&self, _used: &[String], _age: Duration) -> Result<u64, ImageError> {
        Ok(0)
    }

    /// Starts one run of a container. Fails when the container is running.
    async fn start_container(&self, config: ContainerConfig) -> Result<(), RuntimeError>;

    /// Counts bytes that a sandbox keeps in files which stand for memory, in place of those counted before:
    /// its guests get so much less. More than its limit ends nothing by itself.
    async fn charge_memory(&self, _id: &SandboxId, _bytes: u64) {}

    /// Ends a container: listeners stop accepting, requests in flight finish, then the instance is
    /// dropped, at the latest after `grace`. Returns when it has ended; its
    /// [`ContainerStatus`] says how. Stopping a container that is not running succeeds.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Changes what a running container, and its pod, may use. A lower limit of memory than what is in use is an
    /// error, and changes nothing. A container that does not run is not changed, which is no error.
    async fn resize_container(&self, id: &ContainerId, to: Resize) -> Result<(), RuntimeError>;

    /// Changes what the containers of a sandbox may use together. A lower limit of memory than what is in use is an
    /// error, and changes nothing.
    async fn resize_pod_sandbox(
        &self,
        id: &SandboxId,
        to: SandboxResize,
    ) -> Result<(), RuntimeError>;

    /// All sandboxes and, of each container, the latest run.
    async fn list(&self) -> Vec<SandboxStatus>;

    /// One sandbox, as [`list`](Self::list) shows it.
    async fn status(&self, id: &SandboxId) -> Option<SandboxStatus> {
        let all = self.list().await;
        all.into_iter().find(|sandbox| sandbox.id == *id)
    }

    /// What a sandbox uses now; `None` when there is no such sandbox.
    async fn pod_sandbox_stats(&self, _id: &SandboxId) -> Option<PodSandboxStats> {
        None
    }

    /// What all sandboxes use now, in the order of their ids.
    async fn list_pod_sandbox_stats(&self) -> Vec<PodSandboxStats> {
        let mut found = Vec::new();
        for sandbox in self.list().await {
            found.extend(self.pod_sandbox_stats(&sandbox.id).await);
        }
        found
    }

    /// The sockets of all sandboxes, in the order of their ids; none where the runtime can't tell.
    async fn list_pod_sandbox_networks(&self) -> Vec<PodSandboxNetwork> {
        Vec::new()
    }

    /// What the run of a container uses now; `None` when it is not up.
    async fn container_stats(&self, id: &ContainerId) -> Option<ContainerStats> {
        let stats = self.pod_sandbox_stats(&id.sandbox).await?;
        stats.containers.into_iter().find(|found| found.id == *id)
    }

    /// What the containers of a sandbox keep on disk. It is counted anew at each call, file by file:
    /// not for every few seconds.
    async fn disk_usage(&self, _id: &SandboxId) -> Vec<ContainerDisk> {
        Vec::new()
    }

    /// Changes of state from now on. A receiver that lags must call [`list`](Self::list).
    fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent>;

    /// Runs a command beside a running container, with its files, environment and network. It ends
    /// with its container, and when nobody waits for its end any more.
    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session, ExecError>;

    /// Joins the streams of a container's run, from here on. Standard output and error go to the log as
    /// well; several may be attached at once. None holds the container up: one that falls too far behind
    /// is detached, which is an error of its session. The exit code is that of the run.
    async fn attach(&self, id: &ContainerId, request: AttachRequest) -> Result<Session, ExecError>;

    /// Opens a TCP connection into the sandbox's namespace, as `localhost` of the pod
    /// (port-forward). Shutting its writing half down leaves the reading one open.
    async fn connect(&self, id: &SandboxId, port: u16) -> Result<BoxedStream, RuntimeError>;

    /// The same at the pod's address, where others reach it (probes): what listens at `localhost` alone refuses.
    async fn reach(&self, id: &SandboxId, port: u16) -> Result<BoxedStream, RuntimeError> {
        self.connect(id, port).await
    }
}
