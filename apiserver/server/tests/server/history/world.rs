//! A store on a simulated disk, and the server over it.

use std::sync::Arc;

use coracle_clock::Clock;
use coracle_faults::Disk;
use coracle_server::{ApiServer, Config};
use coracle_store::{RedbStore, Store};

use super::api::Api;
use super::notes::{Event, history};

/// Starts a server over `store` with its namespaces.
pub(super) async fn serve(store: Arc<dyn Store>) -> Result<ApiServer, String> {
    let config = Config::new(store, Clock::system());
    let api = ApiServer::start(config).await;
    let api = api.map_err(|error| format!("{error:?}"))?;
    let made = api.bootstrap_namespaces().await;
    made.map_err(|error| format!("{error:?}"))?;
    Ok(api)
}

/// A server over a store on a simulated disk, until its end.
pub(super) struct World {
    pub(super) api: Arc<Api>,
    pub(super) store: Arc<RedbStore>,
}

impl World {
    /// Opens the store whose database and journal are the files of `disk`, with a checkpoint after 4 to 256 KiB.
    pub(super) async fn open(disk: &Disk, clock: &Clock) -> Result<Self, String> {
        let room = disk.clone();
        Self::open_with_room(disk, clock, move || room.room()).await
    }

    /// [`World::open`] with a store that is told of plenty of room, whatever there is.
    pub(super) async fn open_unaware(disk: &Disk, clock: &Clock) -> Result<Self, String> {
        Self::open_with_room(disk, clock, || u64::MAX).await
    }

    async fn open_with_room(
        disk: &Disk,
        clock: &Clock,
        room: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let bytes = 4096 << clock.random_below(7);
        let (database, journal) = (disk.clone(), disk.clone());
        let store = RedbStore::open_with_backends(
            move || database.file(0),
            move || journal.file(1),
            bytes,
            room,
            Clock::system(),
        );
        let store = Arc::new(store.map_err(|error| format!("{error:?}"))?);
        match serve(store.clone()).await {
            Ok(api) => Ok(Self {
                api: Arc::new(Api::Here(api)),
                store,
            }),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// Extends `known`, which is how the history begins, by what the store has since.
    pub(super) async fn recall(&self, known: &mut Vec<Event>) {
        let all = history(&*self.store, 1).await;
        let start = &all[..known.len().min(all.len())];
        assert_eq!(start, &known[..], "the history was written anew");
        *known = all;
    }

    /// Ends all watches, and the store's writer.
    pub(super) async fn close(self) {
        if let Api::Here(api) = &*self.api {
            api.stop();
        }
        self.store.close().await;
    }
}
