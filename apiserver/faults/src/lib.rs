//! What the tests of reliability share: a disk that loses, tears and refuses writes, and how long the tests go on.
//!
//! ```text
//! store's tests ──┐                       ┌─ power that goes at a random change
//!                 ├──▶ RedbStore ──▶ Disk ┼─ writes and syncs that fail half-way
//! server's tests ─┘                       └─ a bound on its bytes
//! ```
//!
//! Tests alone depend on this; it is in no binary. It knows bytes and files, and neither stores nor servers.

mod disk;

pub use disk::{Disk, DiskFile};

/// Whether the long form of the tests was asked for, with `CORACLE_LONG=1`.
pub fn is_long() -> bool {
    std::env::var("CORACLE_LONG").is_ok_and(|value| value == "1")
}

/// How much of something a test does: the number in the environment variable `name`, or else what the short or the
/// long form does. Panics where the variable has no number, so that a slip is not taken for the default.
pub fn extent(name: &str, short: u64, long: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) if is_long() => long,
        Err(_) => short,
    }
}

/// Where randomness starts: `CORACLE_SEED`, or 1.
pub fn seed() -> u64 {
    extent("CORACLE_SEED", 1, 1)
}
