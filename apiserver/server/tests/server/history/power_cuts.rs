//! Power cuts under clients: the disk keeps what was synced and a part of the rest, and the next server goes on from
//! there.

use coracle_clock::Clock;
use coracle_faults::{Disk, extent, seed};

use super::crowd::Crowd;
use super::judge::Figures;
use super::world::World;

const CUTS_PER_DISK: u64 = 20;

#[test]
fn power_cuts_under_clients_lose_nothing_that_was_answered() {
    let cuts = extent("CORACLE_API_POWER_CUTS", 40, 10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut figures = Figures::default();
    for number in 0..cuts.div_ceil(CUTS_PER_DISK) {
        let seed = seed().wrapping_mul(1_000_033).wrapping_add(number);
        let outcome = std::panic::catch_unwind(|| runtime.block_on(one_disk(seed)));
        figures += outcome.unwrap_or_else(|_| panic!("failed with the disk of seed {seed}"));
    }
    println!("{cuts} cuts: {figures:?}");
    // Cuts before anything was answered, or with nothing under way, would prove nothing.
    assert!(figures.answered as u64 > cuts, "{figures:?}");
    assert!(figures.unknown as u64 > cuts, "{figures:?}");
    assert!(figures.unknown_and_there > 0, "{figures:?}");
    assert!(figures.watched > figures.answered, "{figures:?}");
}

/// Cuts one disk many times under the same clients.
async fn one_disk(seed: u64) -> Figures {
    let clock = Clock::fake(seed);
    let disk = Disk::new(clock.clone());
    let (mut crowd, mut known) = (Crowd::new(clock.clone()), Vec::new());
    // A real file is made beside its place and moved there once it is complete, so a cut never leaves half of one.
    let made = World::open(&disk, &clock).await.expect("a fresh disk");
    made.close().await;
    for _ in 0..CUTS_PER_DISK {
        // Now and then the power goes again while the server starts.
        let starting = match clock.random_below(4) {
            0 => clock.random_below(40),
            _ => u64::MAX,
        };
        disk.power_on(starting);
        match World::open(&disk, &clock).await {
            Ok(world) if disk.is_off() => world.close().await,
            Ok(world) => {
                world.recall(&mut known).await;
                disk.power_on(clock.random_below(300));
                let watched = disk.clone();
                let goes_on = move |_| !watched.is_off();
                crowd.act(&world.api, goes_on).await;
                world.close().await;
            }
            Err(_) if disk.is_off() => {}
            Err(error) => panic!("the server doesn't start after a cut: {error}"),
        }
        disk.cut();
    }
    disk.power_on(u64::MAX);
    let world = World::open(&disk, &clock).await;
    let world = world.expect("the server starts after the last cut");
    world.recall(&mut known).await;
    crowd.finish(&world.api).await;
    world.recall(&mut known).await;
    world.close().await;
    crowd.judge(&known)
}
