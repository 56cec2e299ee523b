//! What `wasi:sockets` lets a guest set that means nothing in memory.

/// Kept so that guests read what they wrote. Times are in nanoseconds, sizes in bytes.
#[derive(Clone, Copy)]
pub(super) struct TcpOptions {
    pub(super) keep_alive: bool,
    pub(super) idle_time: u64,
    pub(super) interval: u64,
    pub(super) count: u32,
    pub(super) hop_limit: u8,
    pub(super) receive_buffer: u64,
    pub(super) send_buffer: u64,
}

impl Default for TcpOptions {
    fn default() -> Self {
        // Linux's defaults.
        Self {
            keep_alive: false,
            idle_time: 7_200_000_000_000,
            interval: 75_000_000_000,
            count: 9,
            hop_limit: 64,
            receive_buffer: 128 * 1024,
            send_buffer: 128 * 1024,
        }
    }
}
