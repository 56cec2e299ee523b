//! How the system's allocator keeps memory that was freed.

/// From this size on an allocation has a mapping of its own, which goes back to the system when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_MAPPING_BYTES: i32 = 128 << 10;

/// What a heap keeps at its end for the next who ask: as much as four connections between pods hold at most, both ways. A
/// flood fills and empties such a queue over and over.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: i32 = 2 << 20;

/// Makes freed memory go back to the system. Call it before the process has other threads.
///
/// glibc gives every thread a heap of its own (`M_ARENA_MAX`, 8 for each core) and stops giving large blocks a mapping
/// once it has seen one freed (`M_MMAP_THRESHOLD`, up to 32 MiB). Compiling a module and loading a cluster's objects
/// then leave heaps behind that are nearly empty and stay resident: 15 of 85 MiB of an idle node. As many heaps as
/// cores and a threshold that stays where it is avoid that. What is free at a heap's end goes back from two MiB on
/// (`M_TRIM_THRESHOLD`; glibc's 128 KiB are less than a busy connection's queue, whose pages came and went). All three
/// are documented in mallopt(3). Other systems' allocators are left as they are.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        let heaps = i32::try_from(cores).unwrap_or(i32::MAX);
        set(libc::M_ARENA_MAX, heaps);
        set(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
        set(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Gives back what is free at this moment between blocks that are in use, which glibc keeps otherwise. It looks through
/// all heaps, some milliseconds: for once after a time of much work, such as the start.
pub fn give_back_now() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "no safe binding of malloc_trim exists")]
        // SAFETY: malloc_trim takes an integer, may be called at any time, and touches only memory that is free.
        let _gave_any = unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe binding of mallopt exists")]
fn set(parameter: i32, value: i32) {
    // SAFETY: mallopt takes two integers and may be called at any time; it refuses what it does not know.
    let accepted = unsafe { libc::mallopt(parameter, value) };
    debug_assert_eq!(accepted, 1, "mallopt refused {parameter}");
}
