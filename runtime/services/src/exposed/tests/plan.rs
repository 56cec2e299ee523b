//! Which doors are open, as values.

use super::*;

/// Nothing is open, nothing has failed, and there is room.
fn world(wanted: &BTreeMap<Exposure, Vec<ObjectKey>>) -> World<'_> {
    static NONE: BTreeMap<Door, Failed> = BTreeMap::new();
    World {
        wanted,
        hosts: &HOST,
        open: BTreeMap::new(),
        failed: &NONE,
        now: seconds(10),
        limit: 10,
    }
}

fn wanted<const N: usize>(all: [(Exposure, &str); N]) -> BTreeMap<Exposure, Vec<ObjectKey>> {
    let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (exposure, name) in all {
        wanted.entry(exposure).or_default().push(key(name));
    }
    wanted
}

fn opened(port: u16, service: &str) -> (Door, Exposure, ObjectKey) {
    (tcp(port), node_port(port), key(service))
}

fn left_out(door: Door, exposure: Exposure, service: &str, why: Why) -> LeftOut {
    LeftOut {
        door,
        exposure,
        service: key(service),
        why,
    }
}

fn busy(before: Option<&Failed>, service: &str, now: Duration) -> Failed {
    Failed::after(before, key(service), io::ErrorKind::AddrInUse, now)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn listeners_follow_the_ports_that_are_wanted() {
    let three = wanted([
        (node_port(30_001), "a"),
        (node_port(30_002), "b"),
        (node_port(30_003), "c"),
    ]);
    let busy = busy(None, "c", seconds(10));
    let failed = BTreeMap::from([(tcp(30_003), busy.clone()), (tcp(30_009), busy.clone())]);
    let open = [30_001, 30_004].map(|port| (tcp(port), node_port(port)));
    let mut world = World {
        open: open.into(),
        failed: &failed,
        ..world(&three)
    };
    let plan = reconcile(&world);
    assert_eq!(plan.close, [tcp(30_004)]);
    assert_eq!(plan.open, [opened(30_002, "b")]);
    assert_eq!(plan.forget, [tcp(30_009)]);
    assert_eq!(plan.next, Some(busy.due));

    world.now = busy.due;
    let plan = reconcile(&world);
    assert_eq!(plan.open, [opened(30_002, "b"), opened(30_003, "c")]);
    assert_eq!(plan.next, None);

    // Another Service took the port over: its first try is now.
    let new = wanted([(node_port(30_003), "new")]);
    world.wanted = &new;
    world.now = seconds(10);
    assert_eq!(reconcile(&world).open, [opened(30_003, "new")]);
}

#[test]
fn past_the_limit_what_is_open_stays_and_the_rest_is_told() {
    let three = wanted([
        (node_port(30_001), "a"),
        (node_port(30_002), "b"),
        (node_port(30_003), "c"),
    ]);
    let mut world = World {
        open: [(tcp(30_003), node_port(30_003))].into(),
        limit: 2,
        ..world(&three)
    };
    let plan = reconcile(&world);
    assert_eq!(plan.open, [opened(30_001, "a")]);
    assert!(plan.close.is_empty(), "{plan:?}");
    let full = left_out(tcp(30_002), node_port(30_002), "b", Why::Full);
    assert_eq!(plan.left_out, BTreeSet::from([full]));
    world.limit = 0;
    let plan = reconcile(&world);
    assert_eq!((plan.close, plan.left_out.len()), (vec![tcp(30_003)], 3));
}

#[test]
fn a_node_port_keeps_its_socket_and_an_outer_address_gets_it_when_it_goes() {
    let outer = Exposure::Outer(host(30_001), Transport::Tcp);
    let datagrams = Exposure::Outer(host(30_001), Transport::Udp);
    let mut wanted = wanted([
        (outer, "balanced"),
        (datagrams, "balanced"),
        (node_port(30_001), "web"),
    ]);
    let udp = Door {
        transport: Transport::Udp,
        ..tcp(30_001)
    };
    let plan = reconcile(&world(&wanted));
    let both = [opened(30_001, "web"), (udp, datagrams, key("balanced"))];
    assert_eq!(plan.open, both);
    let why = Why::Held(node_port(30_001), key("web"));
    let in_vain = left_out(tcp(30_001), outer, "balanced", why);
    assert_eq!(plan.left_out, BTreeSet::from([in_vain]));
    wanted.remove(&node_port(30_001));
    let plan = reconcile(&World {
        open: BTreeMap::from([(tcp(30_001), node_port(30_001)), (udp, datagrams)]),
        ..world(&wanted)
    });
    assert_eq!(plan.close, [tcp(30_001)]);
    assert_eq!(plan.open, [(tcp(30_001), outer, key("balanced"))]);
    assert!(plan.left_out.is_empty());
    // The same Service is in its own way.
    wanted.insert(node_port(30_001), vec![key("balanced")]);
    let plan = reconcile(&world(&wanted));
    assert!(plan.left_out.is_empty(), "{plan:?}");
}

#[test]
fn of_those_who_want_one_place_the_first_has_it_and_the_others_are_told() {
    let outer = Exposure::Outer(host(80), Transport::Tcp);
    let wanted = wanted([(outer, "given"), (outer, "naming"), (outer, "other")]);
    let plan = reconcile(&world(&wanted));
    assert_eq!(plan.open, [(tcp(80), outer, key("given"))]);
    let in_vain = |name| left_out(tcp(80), outer, name, Why::Held(outer, key("given")));
    let both = [in_vain("naming"), in_vain("other")];
    assert_eq!(plan.left_out, BTreeSet::from(both));
}

#[test]
fn waits_grow_to_a_bound_and_start_afresh_for_another_service() {
    let mut failed = busy(None, "a", seconds(0));
    assert_eq!(failed.due, Duration::from_millis(500));
    for _ in 0..20 {
        failed = busy(Some(&failed), "a", seconds(0));
    }
    assert_eq!(failed.due, seconds(30));
    let other = busy(Some(&failed), "b", seconds(0));
    assert_eq!(other.due, Duration::from_millis(500));
}
