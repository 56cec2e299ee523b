//! A steady, bounded load, of which every failure counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::poll;
use crate::script::STATE_LIMIT;
use crate::tools::fetch;

/// Clients, each of which asks once at a time over a connection of its own.
const CLIENTS: usize = 4;
/// What a client rests after an answer, so that the load is bounded.
const REST: Duration = Duration::from_millis(10);

/// Clients that ask one URL until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Starts to ask; returns once the first answer with `text` has come.
    pub(crate) fn start(url: &str, text: &str) -> Result<Self, String> {
        let stop = Arc::<AtomicBool>::default();
        let answers = Arc::<AtomicU64>::default();
        let client = |_| {
            let (stop, answers) = (stop.clone(), answers.clone());
            let (url, text) = (url.to_owned(), text.to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    fetch("GET", &url, "", &text)?;
                    answers.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(REST);
                }
                Ok(())
            })
        };
        let load = Self {
            clients: (0..CLIENTS).map(client).collect(),
            stop: stop.clone(),
            answers: answers.clone(),
        };
        load.answered(1)?;
        Ok(load)
    }

    /// Waits for some more answers, then stops; one request without its answer is a failure.
    pub(crate) fn end(mut self) -> Result<(), String> {
        let after = self.answers.load(Ordering::Relaxed) + 1;
        let went_on = self.answered(after);
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in std::mem::take(&mut self.clients) {
            let ended = client
                .join()
                .unwrap_or_else(|_| Err("a client panicked".to_owned()));
            failures.extend(ended.err());
        }
        let answers = self.answers.load(Ordering::Relaxed);
        match failures.is_empty() {
            true => went_on,
            false => Err(format!(
                "{} of {CLIENTS} clients failed, after {answers} answers:\n{}",
                failures.len(),
                failures.join("\n")
            )),
        }
    }

    fn answered(&self, count: u64) -> Result<(), String> {
        poll(STATE_LIMIT, || match self.answers.load(Ordering::Relaxed) {
            answers if answers >= count => Ok(()),
            answers if self.clients.iter().all(JoinHandle::is_finished) => {
                Err(format!("all clients gave up after {answers} answers"))
            }
            answers => Err(format!("there were {answers} answers")),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
