//! Fills the guestbook with its first entries, then ends with code 0: what a Job would run.
//!
//! It finds the API by its names alone: the Service's short name, which the search domains of the pod complete, and the
//! full name. Until the API answers it tries again, so the order in which pods start doesn't matter.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use guestbook_net::executor::{block_on, sleep};
use guestbook_net::http::post_json;
use guestbook_net::names::lookup;

/// When to give up.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// The names of the API, and what is posted to each.
const ENTRIES: [(&str, &str); 3] = [
    (
        "guestbook-api",
        r#"{"author": "Ada", "text": "Hello from a WebAssembly pod."}"#,
    ),
    (
        "guestbook-api.default",
        r#"{"author": "Grace", "text": "Found you by a shorter name."}"#,
    ),
    (
        "guestbook-api.default.svc.cluster.local",
        r#"{"author": "Edsger", "text": "And by the full one."}"#,
    ),
];

fn main() -> ExitCode {
    match block_on(seed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn seed() -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    for (host, json) in ENTRIES {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match add(host, json).await {
                Ok(entry) => {
                    println!("{entry} (attempt {attempts})");
                    break;
                }
                Err(problem) if Instant::now() >= deadline => {
                    return Err(format!("gave up after {attempts} attempts: {problem}"));
                }
                Err(problem) => {
                    if attempts == 1 {
                        println!("waiting: {problem}");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
    println!("added {} entries", ENTRIES.len());
    Ok(())
}

/// Looks the name up and posts an entry to it.
async fn add(host: &str, json: &str) -> Result<String, String> {
    let addresses = lookup(host)
        .await
        .map_err(|e| format!("{host} was not found: {e}"))?;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    match post_json(host, 80, "/entries", json).await {
        Ok((201, entry)) => Ok(format!("{host} is {addresses} and took {entry}")),
        Ok((status, answer)) => Err(format!("{host} is {addresses} and said {status}: {answer}")),
        Err(e) => Err(format!("{host} is {addresses} but does not answer: {e}")),
    }
}
