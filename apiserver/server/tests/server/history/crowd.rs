//! All clients and watchers of a history, over all servers that there are one after the other.

use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::client::Client;
use super::judge::{Figures, judge};
use super::notes::{Event, Floor, Notes, Outcome};
use super::watcher::{THE_END, Watcher};

const CLIENTS: usize = 8;
const WATCHERS: usize = 3;

/// How long the end of a history may take to be written and to come to all watchers. Only a watcher that misses it
/// waits as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everybody who notes something.
pub(super) struct Crowd {
    clock: Clock,
    floor: Floor,
    watchers: Vec<Watcher>,
    /// Of clients that are done.
    notes: Vec<Notes>,
    rounds: usize,
}

impl Crowd {
    /// `clock` is where their randomness comes from.
    pub(super) fn new(clock: Clock) -> Self {
        let floor = Floor::default();
        let watchers = (0..WATCHERS).map(|_| Watcher {
            clock: clock.clone(),
            floor: floor.clone(),
            position: None,
            notes: Notes::default(),
        });
        Self {
            watchers: watchers.collect(),
            clock,
            floor,
            notes: Vec::new(),
            rounds: 0,
        }
    }

    /// Lets clients use `api` as long as `goes_on` says, and watchers watch meanwhile.
    pub(super) async fn act(
        &mut self,
        api: &Arc<Api>,
        goes_on: impl Fn(u64) -> bool + Clone + Send + Sync + 'static,
    ) {
        self.rounds += 1;
        let stop = CancellationToken::new();
        let watchers = self.follow(api, &stop);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = self.client(api, format!("{}/{number}", self.rounds));
                tokio::spawn(client.run(goes_on.clone()))
            })
            .collect();
        for client in clients {
            self.notes
                .push(client.await.expect("a client does not panic"));
        }
        stop.cancel();
        self.gather(watchers).await;
    }

    /// Writes the last event, and waits until all watchers have seen it.
    pub(super) async fn finish(&mut self, api: &Arc<Api>) {
        let watchers = self.follow(api, &CancellationToken::new());
        let mut client = self.client(api, "end".to_owned());
        let written = async {
            for number in 0.. {
                let content = format!("end/{number}");
                let write = client.attempt(THE_END.to_owned(), None, Some(content));
                // A refusal says that one without an answer happened.
                if write.await != Outcome::Unknown {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, written).await;
        in_time.expect("the server takes no writes again");
        self.notes.push(client.notes);
        let seen = tokio::time::timeout(PATIENCE, self.gather(watchers)).await;
        seen.expect("a watcher misses the end of the history");
    }

    /// Compares all that was noted with the whole history of the store.
    pub(super) fn judge(self, history: &[Event]) -> Figures {
        judge(history, &self.into_notes())
    }

    /// All that was noted.
    pub(super) fn into_notes(mut self) -> Vec<Notes> {
        let watched = self.watchers.drain(..).map(|watcher| watcher.notes);
        self.notes.extend(watched);
        self.notes
    }

    fn client(&self, api: &Arc<Api>, id: String) -> Client {
        Client {
            api: api.clone(),
            clock: self.clock.clone(),
            id,
            floor: self.floor.clone(),
            notes: Notes::default(),
        }
    }

    fn follow(&mut self, api: &Arc<Api>, stop: &CancellationToken) -> Watching {
        let watchers = self.watchers.drain(..);
        watchers
            .map(|watcher| {
                let (api, stop) = (api.clone(), stop.clone());
                tokio::spawn(async move { watcher.follow(&api, stop).await })
            })
            .collect()
    }

    async fn gather(&mut self, watchers: Watching) {
        for watcher in watchers {
            self.watchers
                .push(watcher.await.expect("a watcher does not panic"));
        }
    }
}

type Watching = Vec<tokio::task::JoinHandle<Watcher>>;
