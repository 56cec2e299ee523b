//! When a connection last carried anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time-outs of streams, as a kubelet has them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a connection may carry nothing in either direction.
    pub idle: Duration,
    /// How long a client may take to open the streams that it asked for.
    pub creation: Duration,
}

impl Default for Limits {
    /// Four hours and thirty seconds, as upstream.
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(4 * 3600),
            creation: Duration::from_secs(30),
        }
    }
}

/// How long the end of a connection waits for its peer.
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// How often a peer that we do not read from hears that we are there. Clients give up after 60 s.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// In how many steps the idle time is measured.
const STEPS: u32 = 8;

/// Counts what a connection carries; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Activity(Arc<AtomicU64>);

impl Activity {
    pub(crate) fn touch(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Completes once there was nothing for `limit`, give or take an eighth.
    pub(crate) async fn idle(&self, limit: Duration) {
        let mut quiet = 0;
        while quiet < STEPS {
            let before = self.0.load(Ordering::Relaxed);
            tokio::time::sleep(limit / STEPS).await;
            let same = self.0.load(Ordering::Relaxed) == before;
            quiet = if same { quiet + 1 } else { 0 };
        }
    }
}
