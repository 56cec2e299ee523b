//! `curl` and `wget`: HTTP/1.1 over the pod's network. There is no TLS in here, and the error says so.

mod curl;
mod data;
mod http;
mod wget;

pub use curl::curl;
pub use wget::wget;

/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 20;

fn prefixed(prefix: &str, head: &str) -> String {
    head.lines()
        .map(|line| format!("{prefix}{line}\n"))
        .collect()
}
