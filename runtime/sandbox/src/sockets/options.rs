//! What guests may set of a socket that means nothing in memory. Values are wishes, as they are to a
//! kernel: those out of bounds are moved to the nearest that can be, and are read back so.

use coracle_network::Limits;

const SECOND: u64 = 1_000_000_000;
/// The longest time that Linux takes, in seconds.
const MAX_SECONDS: u64 = 32_767;
/// The most probes that Linux takes.
const MAX_COUNT: u32 = 127;
/// What a connection holds when its pod is past its budget.
const MIN_BUFFER: u64 = Limits::MIN_STREAM_BUFFER as u64;
/// What a connection holds.
const MAX_BUFFER: u64 = Limits::STREAM_BUFFER as u64;

/// Options of a TCP socket. Kept so that guests read what they wrote. Times are in nanoseconds, sizes in bytes.
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
            receive_buffer: MAX_BUFFER,
            send_buffer: MAX_BUFFER,
        }
    }
}

/// Options of a UDP socket. Sizes are in bytes.
#[derive(Clone, Copy)]
pub(super) struct UdpOptions {
    pub(super) hop_limit: u8,
    pub(super) receive_buffer: u64,
    pub(super) send_buffer: u64,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            hop_limit: 64,
            receive_buffer: MAX_BUFFER,
            send_buffer: MAX_BUFFER,
        }
    }
}

/// A time in nanoseconds after which, or between which, probes are sent.
pub(super) fn probe_time(nanoseconds: u64) -> u64 {
    nanoseconds.clamp(SECOND, MAX_SECONDS * SECOND)
}

/// A number of probes.
pub(super) fn probe_count(count: u32) -> u32 {
    count.clamp(1, MAX_COUNT)
}

/// A size of a buffer.
pub(super) fn buffer_size(bytes: u64) -> u64 {
    bytes.clamp(MIN_BUFFER, MAX_BUFFER)
}
