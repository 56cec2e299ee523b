use super::*;

const QUEUING: Option<Queuing> = Some(Queuing {
    queues: 8,
    hand: 3,
    length: 2,
});

/// So many turns that only seats matter.
const MANY: Turns = Turns {
    reads: 1000,
    writes: 1000,
};

fn config(shares: u32, lendable: u32, queuing: Option<Queuing>) -> LevelConfig {
    LevelConfig {
        shares,
        lendable,
        borrowing: None,
        queuing,
    }
}

fn seats(total: u32, turns: Turns, configs: &[LevelConfig]) -> Seats<u32> {
    let mut seats = Seats::new(total, turns, 0.0);
    let named = configs.iter().enumerate();
    let named: Vec<_> = named.map(|(n, c)| (n.to_string(), c.clone())).collect();
    let places = seats.configure(&named, 0, 0.0);
    assert_eq!(places, (0..configs.len()).collect::<Vec<_>>());
    seats
}

fn ask(flow: u64) -> Asked {
    Asked {
        flow,
        width: 1,
        events: 0,
        kind: Kind::Read,
    }
}

/// The grants of as many requests as run at once.
fn fill(seats: &mut Seats<u32>, place: usize, flow: u64, now: f64) -> Vec<Grant> {
    let mut grants = Vec::new();
    while let Arrival::Runs { grant, .. } = seats.arrive(place, ask(flow), now, || 0) {
        grants.push(grant);
    }
    grants
}

fn end(seats: &mut Seats<u32>, grant: &Grant, now: f64) {
    seats.rest(grant.flow, grant.kind, now);
    seats.leave(grant, f64::from(grant.width) * 0.001, now);
}

#[test]
fn seats_are_shared_out_and_rounded_up() {
    let configs = [
        config(30, 33, None),
        config(20, 50, None),
        config(195, 0, None),
    ];
    let seats = seats(600, MANY, &configs);
    let found: Vec<_> = seats.levels().map(|l| (l.nominal, l.bounds)).collect();
    assert_eq!(
        found,
        [(74, (50, 674)), (49, (24, 649)), (478, (478, 1078))]
    );
}

#[test]
fn upstreams_defaults_get_upstreams_seats() {
    use super::super::{Part, defaults};
    let levels = defaults::all().into_iter();
    let levels = levels.filter(|d| d.part == Part::Levels && d.name != "exempt");
    let configs: Vec<_> = levels
        .map(|level| {
            let limited = &level.spec["limited"];
            let number = |field: &str| limited[field].as_u64().unwrap_or_default() as u32;
            let config = config(
                number("nominalConcurrencyShares"),
                number("lendablePercent"),
                None,
            );
            (level.name.to_owned(), config)
        })
        .collect();
    let mut seats: Seats<u32> = Seats::new(600, MANY, 0.0);
    seats.configure(&configs, 0, 0.0);
    let mut nominal: Vec<_> = seats
        .levels()
        .map(|l| (l.name.as_str(), l.nominal))
        .collect();
    nominal.sort_unstable();
    let expected = [
        ("catch-all", 13),
        ("global-default", 49),
        ("leader-election", 25),
        ("node-high", 98),
        ("system", 74),
        ("workload-high", 98),
        ("workload-low", 245),
    ];
    assert_eq!(nominal, expected);
}

#[test]
fn a_level_borrows_what_others_do_not_want_and_they_get_it_back() {
    let mut seats = seats(20, MANY, &[config(1, 50, QUEUING), config(1, 0, QUEUING)]);
    assert_eq!(fill(&mut seats, 1, 7, 0.0).len(), 10);
    // Its queues are full of requests, as far as its limit goes.
    for flow in 0..40 {
        seats.arrive(1, ask(flow), 0.0, || 0);
    }
    seats.settle(10.0);
    let limits: Vec<_> = seats.levels().map(|level| level.limit).collect();
    assert_eq!(limits, [5, 15]);
    let mut running = Vec::new();
    while let Some(next) = seats.dispatch(10.0) {
        running.push(next.grant);
    }
    assert_eq!(running.len(), 5);
    // Now the lender wants its own.
    for flow in 0..40 {
        seats.arrive(0, ask(flow), 10.0, || 0);
    }
    seats.settle(20.0);
    let limits: Vec<_> = seats.levels().map(|level| level.limit).collect();
    assert_eq!(limits, [10, 10]);
    assert_eq!(seats.dispatch(20.0).map(|next| next.grant.place), Some(0));
}

#[test]
fn borrowing_can_be_limited() {
    let mut mean = config(1, 0, QUEUING);
    mean.borrowing = Some(20);
    let mut seats = seats(20, MANY, &[config(1, 100, QUEUING), mean]);
    for flow in 0..60 {
        seats.arrive(1, ask(flow), 0.0, || 0);
    }
    seats.settle(10.0);
    let limits: Vec<_> = seats.levels().map(|level| level.limit).collect();
    assert_eq!(limits, [8, 12]);
}

#[test]
fn a_level_that_rejects_lets_nobody_wait_for_seats() {
    let mut seats = seats(2, MANY, &[config(1, 0, None)]);
    let grants = fill(&mut seats, 0, 7, 0.0);
    assert_eq!(grants.len(), 2);
    let refused = Arrival::Refused(Reason::ConcurrencyLimit);
    assert_eq!(seats.arrive(0, ask(7), 0.0, || 0), refused);
    end(&mut seats, &grants[0], 0.0);
    assert_eq!(fill(&mut seats, 0, 7, 0.0).len(), 1);
}

#[test]
fn a_level_that_rejects_lets_those_wait_for_turns_who_have_seats() {
    let few = Turns {
        reads: 1,
        writes: 1,
    };
    let mut seats = seats(3, few, &[config(1, 0, None)]);
    assert_eq!(fill(&mut seats, 0, 7, 0.0).len(), 1);
    // `fill` left one waiting.
    assert!(matches!(
        seats.arrive(0, ask(7), 0.0, || 0),
        Arrival::Waits { .. }
    ));
    let refused = Arrival::Refused(Reason::ConcurrencyLimit);
    assert_eq!(seats.arrive(0, ask(7), 0.0, || 0), refused);
}

#[test]
fn a_full_queue_refuses_one_flow_and_not_another() {
    let mut seats = seats(1, MANY, &[config(1, 0, QUEUING)]);
    let mut waits = 0;
    let refused = loop {
        match seats.arrive(0, ask(0), 0.0, || 0) {
            Arrival::Runs { .. } => {}
            Arrival::Waits { .. } => waits += 1,
            Arrival::Refused(why) => break why,
        }
    };
    // Three queues of two each: what a flow can have waiting is bounded.
    assert_eq!((waits, refused), (6, Reason::QueueFull));
    let other = seats.arrive(0, ask(2 + 7 * 8 * 4), 0.0, || 1);
    assert!(matches!(other, Arrival::Waits { .. }), "{other:?}");
}

#[test]
fn one_request_at_a_time_never_waits_for_a_flood() {
    let few = Turns {
        reads: 2,
        writes: 2,
    };
    let mut seats = seats(100, few, &[config(1, 0, QUEUING)]);
    let flood = fill(&mut seats, 0, 7, 0.0);
    assert_eq!(flood.len(), 2);
    let mut now = 0.0;
    for _ in 0..10 {
        now += 0.001;
        seats.arrive(0, ask(7), now, || 0);
        // Somebody waits, so it takes the way through the queue, and comes out at once.
        let quiet = seats.arrive(0, ask(8), now, || 1);
        assert!(matches!(quiet, Arrival::Waits { .. }), "{quiet:?}");
        let next = seats.dispatch(now).expect("its turn");
        assert_eq!((next.payload, next.grant.flow), (1, 8));
        assert!(seats.dispatch(now).is_none());
        end(&mut seats, &next.grant, now);
        assert!(
            seats.dispatch(now).is_none(),
            "a flood's turn is no quiet user's"
        );
    }
    end(&mut seats, &flood[0], now);
    assert_eq!(seats.dispatch(now).map(|next| next.grant.flow), Some(7));
}

#[test]
fn writes_and_reads_have_turns_of_their_own() {
    let few = Turns {
        reads: 1,
        writes: 2,
    };
    let mut seats = seats(100, few, &[config(1, 0, QUEUING)]);
    assert_eq!(fill(&mut seats, 0, 7, 0.0).len(), 1);
    let write = Asked {
        kind: Kind::Write,
        ..ask(7)
    };
    // Behind the read that waits, which is passed over: it cannot run.
    for _ in 0..3 {
        seats.arrive(0, write, 0.0, || 1);
    }
    let runs: Vec<_> = std::iter::from_fn(|| seats.dispatch(0.0)).collect();
    assert!(runs.iter().all(|next| next.payload == 1), "{runs:?}");
    assert_eq!(runs.len(), 2);
}

#[test]
fn who_waits_for_its_client_has_seats_and_no_turn() {
    let few = Turns {
        reads: 1,
        writes: 1,
    };
    let mut seats = seats(2, few, &[config(1, 0, QUEUING)]);
    let slow = fill(&mut seats, 0, 7, 0.0).remove(0);
    seats.rest(slow.flow, slow.kind, 0.0);
    let next = seats.dispatch(0.0).expect("the turn is free");
    // Back again, it waits as those do who have no seats yet.
    seats.arrive(0, ask(7), 0.0, || 1);
    assert!(seats.resume(&slow, 0.0, || 2).is_some());
    assert!(seats.dispatch(0.0).is_none());
    end(&mut seats, &next.grant, 0.0);
    let mut all: Vec<_> = std::iter::from_fn(|| {
        let next = seats.dispatch(0.0)?;
        end(&mut seats, &next.grant, 0.0);
        Some((next.payload, next.seated))
    })
    .collect();
    all.sort_unstable();
    assert_eq!(all, [(1, false), (2, true)]);
    assert_eq!(seats.levels().map(|level| level.used).sum::<u32>(), 0);
}

#[test]
fn a_flow_in_a_hurry_is_told_from_one_that_waits_for_its_answers() {
    let mut seats = seats(10, MANY, &[config(1, 0, QUEUING)]);
    let hurries = |now: f64, seats: &mut Seats<u32>| match seats.arrive(0, ask(7), now, || 0) {
        Arrival::Runs { grant, hurry } => {
            end(seats, &grant, now);
            hurry
        }
        other => panic!("{other:?}"),
    };
    assert!(!hurries(1.0, &mut seats));
    assert!(!hurries(1.000_05, &mut seats));
    assert!(hurries(1.000_06, &mut seats));
}

#[test]
fn a_server_is_crowded_while_somebody_waits_or_two_take_turns() {
    let turns = Turns {
        reads: 1,
        writes: 1,
    };
    let mut seats = seats(100, turns, &[config(1, 0, QUEUING)]);
    assert!(!seats.is_crowded(0.0));
    let grants = fill(&mut seats, 0, 1, 0.0);
    assert!(seats.is_crowded(0.0), "one waits");
    for grant in &grants {
        end(&mut seats, grant, 0.1);
    }
    let next = seats.dispatch(0.1).expect("it waits no more");
    end(&mut seats, &next.grant, 0.1);
    assert!(!seats.is_crowded(0.1), "all were of one flow");
    seats.pass(2, 1.0);
    assert!(seats.is_crowded(1.0) && seats.is_crowded(1.0 + MIXED / 2.0));
    assert!(!seats.is_crowded(1.0 + MIXED));
    seats.pass(2, 2.0);
    assert!(!seats.is_crowded(2.0), "the other is gone");
}

#[test]
fn events_cost_seats_after_the_answer_and_many_of_them_cost_time() {
    let mut seats = seats(12, MANY, &[config(1, 0, QUEUING)]);
    for (events, width, after) in [(0, 1, 0.0), (3, 3, 0.005), (8, 4, 0.01)] {
        let asked = Asked { events, ..ask(7) };
        let Arrival::Runs { grant, .. } = seats.arrive(0, asked, 0.0, || 0) else {
            panic!("there is room");
        };
        assert_eq!((grant.width, grant.after), (width, after));
        end(&mut seats, &grant, 0.0);
    }
}

#[test]
fn a_level_that_is_gone_drains_and_leaves_its_place() {
    let mut seats = seats(2, MANY, &[config(1, 0, QUEUING), config(1, 0, QUEUING)]);
    let grant = fill(&mut seats, 1, 7, 0.0).remove(0);
    let kept = [("0".to_owned(), config(1, 0, QUEUING))];
    assert_eq!(seats.configure(&kept, 0, 0.0), [0]);
    end(&mut seats, &grant, 0.0);
    let next = seats.dispatch(0.0).expect("it drains");
    assert_eq!(next.grant.place, 1);
    let more = [kept[0].clone(), ("new".to_owned(), config(1, 0, QUEUING))];
    assert_eq!(seats.configure(&more, 0, 0.0), [0, 2]);
    end(&mut seats, &next.grant, 0.0);
    let more = [
        more[0].clone(),
        more[1].clone(),
        ("newer".to_owned(), config(1, 0, None)),
    ];
    assert_eq!(seats.configure(&more, 0, 0.0), [0, 2, 1]);
}

/// Numbers that are the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Requests of all kinds come, wait, give up, rest and end in any order.
#[test]
fn no_level_passes_its_limit_and_no_flow_starves() {
    for seed in 1..40 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let turns = Turns {
            reads: 2,
            writes: 3,
        };
        let configs = [
            config(2, 50, QUEUING),
            config(1, 25, QUEUING),
            config(1, 0, None),
        ];
        let mut seats = seats(16, turns, &configs);
        let mut running: Vec<(Grant, bool)> = Vec::new();
        let mut waiting: HashMap<u64, (usize, u32, u64)> = HashMap::new();
        let mut now = 0.0;
        for _ in 0..2000 {
            now += random.below(100) as f64 / 1000.0;
            match random.below(5) {
                0..=2 => {
                    let place = random.below(3) as usize;
                    let asked = Asked {
                        flow: random.below(4) * 0x1234_5678_9abc + place as u64,
                        width: random.below(6) as u32,
                        events: random.below(3) as u32,
                        kind: match random.below(2) {
                            0 => Kind::Read,
                            _ => Kind::Write,
                        },
                    };
                    match seats.arrive(place, asked, now, || 0) {
                        Arrival::Runs { grant, .. } => running.push((grant, true)),
                        Arrival::Waits { queue, id } => {
                            waiting.insert(id, (place, queue, asked.flow));
                        }
                        Arrival::Refused(_) => {}
                    }
                }
                3 if !running.is_empty() => {
                    let at = random.below(running.len() as u64) as usize;
                    let (grant, has_turn) = running.swap_remove(at);
                    if has_turn {
                        seats.rest(grant.flow, grant.kind, now);
                    }
                    seats.leave(&grant, f64::from(grant.width) * 0.01, now);
                }
                _ => {
                    let id = waiting.keys().min().copied();
                    if let Some((place, queue, _)) = id.and_then(|id| waiting.remove(&id)) {
                        seats.give_up(place, queue, id.expect("just found"), now);
                    }
                }
            }
            while let Some(next) = seats.dispatch(now) {
                assert!(!next.seated);
                running.push((next.grant, true));
            }
            let flows: std::collections::HashSet<u64> =
                running.iter().map(|(g, _)| g.flow).collect();
            for level in seats.levels() {
                // A limit that was just lowered takes effect as requests end.
                assert!(level.used <= level.bounds.1, "seed {seed}");
                assert!(level.queues.waiting() <= 8 * 2 + 16, "seed {seed}");
            }
            let reads = running.iter().filter(|(g, _)| g.kind == Kind::Read).count();
            assert_eq!(seats.reading as usize, reads, "seed {seed}");
            assert!(reads <= 2 + flows.len(), "seed {seed}: {reads}");
        }
        // Without newcomers, everybody who waits gets their turn.
        let mut left = seats.waiting;
        while let Some((grant, _)) = running.pop() {
            now += 0.001;
            end(&mut seats, &grant, now);
            while let Some(next) = seats.dispatch(now) {
                left -= 1;
                running.push((next.grant, true));
            }
        }
        assert_eq!((left, seats.waiting), (0, 0), "seed {seed}");
        assert!(
            seats
                .levels()
                .all(|level| level.used == 0 && level.running == 0)
        );
        assert_eq!((seats.reading, seats.writing), (0, 0));
    }
}

/// A flood that never stops does not keep others of its level waiting, and gets its share itself.
#[test]
fn flows_that_all_flood_get_the_same() {
    let queuing = Some(Queuing {
        queues: 64,
        hand: 4,
        length: 50,
    });
    let few = Turns {
        reads: 2,
        writes: 2,
    };
    let mut seats = seats(100, few, &[config(1, 0, queuing)]);
    let flows: Vec<u64> = (1..=4)
        .map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let mut served: HashMap<u64, u32> = HashMap::new();
    let mut running = Vec::new();
    let mut now = 0.0;
    for round in 0..4000 {
        now += 0.001;
        for flow in &flows {
            // The first comes with ten times as many.
            let times = if *flow == flows[0] { 10 } else { 1 };
            for _ in 0..times {
                if let Arrival::Runs { grant, .. } = seats.arrive(0, ask(*flow), now, || 0) {
                    running.push(grant);
                }
            }
        }
        while let Some(next) = seats.dispatch(now) {
            running.push(next.grant);
        }
        if round % 4 != 0 {
            continue;
        }
        for grant in std::mem::take(&mut running) {
            *served.entry(grant.flow).or_default() += 1;
            end(&mut seats, &grant, now);
        }
    }
    let counts: Vec<u32> = flows.iter().map(|flow| served[flow]).collect();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    assert!(
        least.zip(most).is_some_and(|(a, b)| *b <= a + a / 5),
        "{counts:?}"
    );
}
