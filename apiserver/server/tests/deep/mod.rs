//! Threads for tests that bring objects that nest.

use coracle_api::schema::{STACK_SIZE, on_deep_stack};

/// Runs a test under a paused clock, on threads whose stacks are as the server's.
pub(crate) fn deep<T: Send>(test: impl AsyncFnOnce() -> T + Send) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .thread_stack_size(STACK_SIZE)
        .build()
        .expect("a runtime");
    on_deep_stack("deep", || runtime.block_on(test())).expect("room for a thread")
}
