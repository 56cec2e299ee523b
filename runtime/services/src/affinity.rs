//! Which endpoint a client had last, for Services with `sessionAffinity: ClientIP`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_network::Protocol;
use parking_lot::Mutex;

/// How many clients are remembered; past it, the half that was seen longest ago is forgotten.
const CLIENTS: usize = 16_384;

/// One client of one port of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) service: ObjectKey,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

/// The endpoints that clients had last. Times are those of one monotonic clock.
#[derive(Default)]
pub(crate) struct Affinity {
    last: Mutex<HashMap<Client, Visit>>,
}

struct Visit {
    endpoint: SocketAddr,
    seen: Duration,
    until: Duration,
}

impl Affinity {
    /// The endpoint that `client` stays with at `now`: the one it had, if that is not too long ago
    /// and `still_there`; else `choice`. Either way it is remembered for `stay` from now.
    pub(crate) fn settle(
        &self,
        client: Client,
        now: Duration,
        stay: Duration,
        still_there: impl Fn(SocketAddr) -> bool,
        choice: SocketAddr,
    ) -> SocketAddr {
        let mut last = self.last.lock();
        let endpoint = match last.get(&client) {
            Some(visit) if now <= visit.until && still_there(visit.endpoint) => visit.endpoint,
            _ => choice,
        };
        if last.len() >= CLIENTS && !last.contains_key(&client) {
            forget_some(&mut last, now);
        }
        let visit = Visit {
            endpoint,
            seen: now,
            until: now + stay,
        };
        last.insert(client, visit);
        endpoint
    }
}

/// Makes room: whoever may be forgotten goes, and if that is not half of them, the longest unseen.
fn forget_some(last: &mut HashMap<Client, Visit>, now: Duration) {
    last.retain(|_, visit| now <= visit.until);
    if last.len() <= CLIENTS / 2 {
        return;
    }
    let mut seen: Vec<Duration> = last.values().map(|visit| visit.seen).collect();
    let (_, middle, _) = seen.select_nth_unstable(CLIENTS / 2);
    let middle = *middle;
    last.retain(|_, visit| visit.seen > middle);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const STAY: Duration = Duration::from_secs(60);

    fn client(number: u32) -> Client {
        Client {
            address: Ipv4Addr::from(number).into(),
            service: ObjectKey::new("default", "web"),
            port: 80,
            protocol: Protocol::Tcp,
        }
    }

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::new(10, 240, 0, last).into(), 80)
    }

    fn settle(affinity: &Affinity, seconds: u64, choice: u8) -> SocketAddr {
        let now = Duration::from_secs(seconds);
        affinity.settle(client(1), now, STAY, |_| true, endpoint(choice))
    }

    #[test]
    fn a_client_stays_until_it_was_away_too_long() {
        let affinity = Affinity::default();
        assert_eq!(settle(&affinity, 0, 1), endpoint(1));
        assert_eq!(settle(&affinity, 50, 2), endpoint(1));
        // Every visit counts anew.
        assert_eq!(settle(&affinity, 110, 2), endpoint(1));
        assert_eq!(settle(&affinity, 171, 2), endpoint(2));
    }

    #[test]
    fn an_endpoint_that_is_gone_holds_nobody() {
        let affinity = Affinity::default();
        settle(&affinity, 0, 1);
        let now = Duration::from_secs(1);
        let gone = |held| held != endpoint(1);
        assert_eq!(
            affinity.settle(client(1), now, STAY, gone, endpoint(2)),
            endpoint(2)
        );
    }

    #[test]
    fn the_table_does_not_grow_past_its_bound() {
        let affinity = Affinity::default();
        for number in 0..3 * CLIENTS as u32 {
            let now = Duration::from_millis(number.into());
            affinity.settle(client(number), now, STAY, |_| true, endpoint(1));
            assert!(affinity.last.lock().len() <= CLIENTS);
        }
        let newest = client(3 * CLIENTS as u32 - 1);
        assert!(affinity.last.lock().contains_key(&newest));
    }

    #[test]
    fn many_clients_at_one_moment_leave_room_too() {
        let affinity = Affinity::default();
        for number in 0..2 * CLIENTS as u32 {
            affinity.settle(client(number), STAY, STAY, |_| true, endpoint(1));
        }
        assert!(affinity.last.lock().len() <= CLIENTS);
    }
}
