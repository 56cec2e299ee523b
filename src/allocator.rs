//! The process's allocator, and how it keeps memory that was freed.

use std::ffi::c_long;

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use mimalloc::MiMalloc;

/// Threads of the control plane allocate trees of JSON that other threads free. mimalloc has no lock there, where glibc's
/// heaps, one for each core, made threads wait for each other.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay`: milliseconds until pages that became free go back to the system. The crate names it for
/// version 2 of mimalloc alone; the number is that of `mimalloc.h`, where it is the same in version 3.
const PURGE_DELAY: mi_option_t = 15;

/// Makes freed pages go back to the system at once. Call it before the process has other threads.
///
/// mimalloc waits for a second, and then for a thread that asks it for something. An idle node has none, so what a burst of work
/// freed would stay resident.
pub fn give_back_freed_memory() {
    let at_once: c_long = 0;
    #[expect(unsafe_code, reason = "the allocator has no safe binding for it")]
    // SAFETY: the option exists, is an integer, and is an atomic of the allocator's own.
    unsafe {
        mi_option_set(PURGE_DELAY, at_once);
    }
}

/// Gives back what this thread's heap keeps for the next who ask, and what threads that have ended left behind: for once
/// after a time of much work, such as the start.
pub fn give_back_now() {
    let all = true;
    #[expect(unsafe_code, reason = "the allocator has no safe binding for it")]
    // SAFETY: it takes a flag, may be called at any time, and touches only memory that is free.
    unsafe {
        mi_collect(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge_delay() -> c_long {
        #[expect(unsafe_code, reason = "the allocator has no safe binding for it")]
        // SAFETY: it reads an atomic of the allocator's own.
        unsafe {
            libmimalloc_sys::mi_option_get(PURGE_DELAY)
        }
    }

    #[test]
    fn the_number_is_that_of_the_delay() {
        // No other option has this default; another version might count them otherwise.
        assert_eq!(purge_delay(), 1000);
        give_back_freed_memory();
        assert_eq!(purge_delay(), 0);
    }
}
