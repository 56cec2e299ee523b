//! Writes and syncs that fail half-way under clients, while the server goes on.

use std::panic::AssertUnwindSafe;

use coracle_clock::Clock;
use coracle_faults::{Disk, extent, seed};
use coracle_store::Store;
use futures::FutureExt;
use futures::future::join_all;

use super::crowd::Crowd;
use super::judge::Figures;
use super::world::World;

/// How many disks fail side by side: each waits for seconds until writes are tried again.
const AT_ONCE: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_and_failed_writes_under_clients_lose_nothing_that_was_answered() {
    let failures = extent("CORACLE_FAILURES", 16, 400);
    let mut figures = Figures::default();
    let disks = (0..AT_ONCE).map(|number| async move {
        let seed = seed().wrapping_mul(1_000_037).wrapping_add(number);
        let outcome = AssertUnwindSafe(one_disk(seed, failures / AT_ONCE)).catch_unwind();
        let outcome = outcome.await;
        outcome.unwrap_or_else(|_| panic!("failed with the disk of seed {seed}"))
    });
    for more in join_all(disks).await {
        figures += more;
    }
    println!("{failures} failures: {figures:?}");
    assert!(figures.unknown as u64 > failures / 2, "{figures:?}");
    assert!(figures.answered > 0 && figures.watched > 0, "{figures:?}");
}

async fn one_disk(seed: u64, failures: u64) -> Figures {
    let clock = Clock::fake(seed);
    let disk = Disk::new(clock.clone());
    let (mut crowd, mut known) = (Crowd::new(clock.clone()), Vec::new());
    let world = World::open(&disk, &clock).await.expect("a fresh disk");
    for _ in 0..failures {
        disk.fail_after(clock.random_below(150));
        let watched = disk.clone();
        crowd.act(&world.api, move |_| watched.will_fail()).await;
        // And on until writes are taken again.
        let (store, enough) = (world.store.clone(), world.store.current_revision().0 + 20);
        let goes_on = move |_| store.current_revision().0 < enough;
        crowd.act(&world.api, goes_on).await;
        world.recall(&mut known).await;
    }
    crowd.finish(&world.api).await;
    world.recall(&mut known).await;
    world.close().await;
    // What was answered after a failure is on the disk as well as what was answered before.
    disk.cut();
    disk.power_on(u64::MAX);
    let world = World::open(&disk, &clock).await;
    let world = world.expect("the server starts after the cut");
    world.recall(&mut known).await;
    world.close().await;
    crowd.judge(&known)
}
