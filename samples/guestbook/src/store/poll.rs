//! `poll_oneoff` of WASI 0.1: waits for descriptors and a clock.

use std::io;
use std::time::Duration;

use wasip1::{
    CLOCKID_MONOTONIC, EVENTTYPE_CLOCK, EVENTTYPE_FD_READ, EVENTTYPE_FD_WRITE, Event, Subscription,
    SubscriptionClock, SubscriptionFdReadwrite, SubscriptionU, SubscriptionUU, poll_oneoff,
};

/// The user data of the clock's subscription; descriptors are smaller.
const CLOCK: u64 = u64::MAX;

#[derive(Clone, Copy)]
pub enum Interest {
    Read,
    Write,
}

/// The descriptors among `interests` that can go on, or none when `pause` is over. A descriptor with an error counts:
/// the next read or write tells what it is.
pub fn wait(interests: &[(i32, Interest)], pause: Option<Duration>) -> io::Result<Vec<i32>> {
    let descriptors = interests.iter().map(|(fd, interest)| {
        let file_descriptor = *fd as u32;
        let readwrite = SubscriptionFdReadwrite { file_descriptor };
        let u = match interest {
            Interest::Read => SubscriptionU {
                tag: EVENTTYPE_FD_READ.raw(),
                u: SubscriptionUU { fd_read: readwrite },
            },
            Interest::Write => SubscriptionU {
                tag: EVENTTYPE_FD_WRITE.raw(),
                u: SubscriptionUU {
                    fd_write: readwrite,
                },
            },
        };
        Subscription {
            userdata: u64::from(file_descriptor),
            u,
        }
    });
    let clock = pause.map(|pause| {
        let timeout = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        let clock = SubscriptionClock {
            id: CLOCKID_MONOTONIC,
            timeout,
            precision: 0,
            flags: 0,
        };
        Subscription {
            userdata: CLOCK,
            u: SubscriptionU {
                tag: EVENTTYPE_CLOCK.raw(),
                u: SubscriptionUU { clock },
            },
        }
    });
    let subscriptions: Vec<Subscription> = descriptors.chain(clock).collect();
    let mut events: Vec<Event> = Vec::with_capacity(subscriptions.len());
    // SAFETY: the host reads `len` subscriptions and writes at most as many events, for which there is room; it
    // returns how many it wrote.
    unsafe {
        let written = poll_oneoff(
            subscriptions.as_ptr(),
            events.as_mut_ptr(),
            subscriptions.len(),
        )
        .map_err(|e| io::Error::other(format!("poll_oneoff: {e}")))?;
        events.set_len(written.min(subscriptions.len()));
    }
    Ok(events
        .iter()
        .filter(|event| event.userdata != CLOCK)
        .map(|event| event.userdata as i32)
        .collect())
}
