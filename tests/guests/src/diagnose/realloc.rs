//! Where the component's adapter gets its memory.
//!
//! The adapter from WASI 0.1 to 0.2 takes its memory through the export `cabi_realloc`, which programs with generated
//! bindings have anyway. A program without it sees the adapter grow the memory by itself, and the `malloc` of a
//! wasi-libc from before 2023 then takes those pages for its own.

use std::alloc::{Layout, alloc, handle_alloc_error, realloc};

/// Gives memory as the canonical ABI wants it: `old` is null for a new block.
///
/// # Safety
///
/// `old` is null, or a block of `old_size` bytes and this alignment that this function gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    if new_size == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    let size = if old_size == 0 { new_size } else { old_size };
    let layout = Layout::from_size_align(size, align).expect("the host keeps to the canonical ABI");
    // SAFETY: the size is not zero; a block that is there came from here with the same layout.
    let block = unsafe {
        if old_size == 0 {
            alloc(layout)
        } else {
            realloc(old, layout, new_size)
        }
    };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    block
}
