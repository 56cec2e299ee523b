//! What is read and written by hand has the same bytes, and is counted in the same way, as what is not.

use proptest::prelude::*;

use super::*;
use crate::plain;

/// The answer that is written by hand, if one is; checked against the other one.
fn by_hand(bytes: &[u8], via: Via) -> Option<Vec<u8>> {
    plain::read(bytes)?;
    let (one, other) = (server(&[]), server(&[]));
    let started = Clock::system().monotonic();
    let reply = one.plainly(bytes, via, started)?;
    let Now::Reply(expected) = other.generally(bytes, via, None, started) else {
        panic!("{bytes:?} is answered by hand alone");
    };
    assert_eq!(reply, expected, "{bytes:?}");
    let counted = |server: &Server| {
        let text = server.metrics();
        let lines = text.lines().filter(|line| line.contains("_total{"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(counted(&one), counted(&other));
    Some(reply)
}

fn asked(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let question = question(name, kind, payload);
    question.to_vec().expect("encoded")
}

#[test]
fn what_nearly_all_ask_is_answered_by_hand() {
    for payload in [None, Some(100), Some(1232), Some(4096)] {
        for (name, kind) in [
            ("web.test", RecordType::A),
            ("WEB.test", RecordType::A),
            ("Web.Test", RecordType::A),
            ("web.test", RecordType::AAAA),
            ("six.test", RecordType::AAAA),
            ("test", RecordType::A),
            ("few.test", RecordType::A),
            ("missing.test", RecordType::A),
            ("a.b.missing.test", RecordType::AAAA),
            ("_http._tcp.test", RecordType::A),
        ] {
            let bytes = asked(name, kind, payload);
            for via in [UDP, TCP] {
                let reply = by_hand(&bytes, via);
                assert!(reply.is_some(), "{name} {kind} {payload:?}");
            }
        }
    }
}

#[test]
fn what_is_unusual_is_left_to_others() {
    let broken = |change: fn(&mut Vec<u8>)| {
        let mut bytes = asked("web.test", RecordType::A, Some(1232));
        change(&mut bytes);
        bytes
    };
    let end = asked("web.test", RecordType::A, None).len();
    assert_eq!(end, 26, "where the record of EDNS begins");
    for (what, bytes) in [
        ("an alias", asked("in.test", RecordType::A, None)),
        (
            "a name elsewhere",
            asked("known.example", RecordType::A, None),
        ),
        ("another type", asked("text.test", RecordType::TXT, None)),
        (
            "an answer that is cut",
            asked("many.test", RecordType::A, None),
        ),
        (
            "a capital in the zone",
            asked("missing.Test", RecordType::A, None),
        ),
        (
            "an authority's names",
            asked("ns.dns.test", RecordType::A, None),
        ),
        (
            "an authority's names",
            asked("hostmaster.test", RecordType::A, None),
        ),
        ("the root", asked(".", RecordType::A, None)),
        ("an operation", broken(|bytes| bytes[2] |= 0x10)),
        ("an answer", broken(|bytes| bytes[2] |= 0x80)),
        ("no question", broken(|bytes| bytes[5] = 0)),
        ("an escape", broken(|bytes| bytes[13] = b'*')),
        ("a pointer", broken(|bytes| bytes[12] = 0xc0)),
        ("another class", broken(|bytes| bytes[25] = 3)),
        ("another version of EDNS", broken(|bytes| bytes[32] = 1)),
        ("options", broken(|bytes| bytes[36] = 4)),
        ("more", broken(|bytes| bytes.push(0))),
        ("less", broken(|bytes| bytes.truncate(30))),
    ] {
        assert_eq!(by_hand(&bytes, UDP), None, "{what}");
    }
    let many = asked("many.test", RecordType::A, None);
    assert_eq!(by_hand(&many, TCP), None, "more names than are remembered");
    assert!(by_hand(&broken(|_| {}), UDP).is_some());
}

/// Names of the test's zone and around it, in letters of any case.
fn names() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "web",
        "six",
        "few",
        "many",
        "text",
        "in",
        "out",
        "lost",
        "ping",
        "dns",
        "hostmaster",
        "_http._tcp",
    ]);
    let label = prop_oneof![known.prop_map(str::to_owned), "[a-zA-Z0-9_-]{1,63}"];
    let zone = prop::sample::select(vec![
        "test",
        "TEST",
        "tEst",
        "in-addr.arpa",
        "example",
        "ns.dns.test",
    ]);
    (prop::collection::vec(label, 0..4), zone).prop_map(|(mut labels, zone)| {
        labels.push(zone.to_owned());
        labels.join(".")
    })
}

proptest! {
    #[test]
    fn both_ways_give_the_same_answer(
        name in names(),
        kind in prop::sample::select(vec![RecordType::A, RecordType::AAAA]),
        payload in prop::option::of(any::<u16>()),
        flags in any::<[u8; 2]>(),
        dnssec_ok in any::<bool>(),
        tcp in any::<bool>(),
    ) {
        prop_assume!(Name::from_ascii(&name).is_ok());
        let mut message = question(&name, kind, payload);
        if let Some(edns) = &mut message.edns {
            edns.set_dnssec_ok(dnssec_ok);
        }
        let mut bytes = message.to_vec().expect("encoded");
        let via = if tcp { TCP } else { UDP };
        by_hand(&bytes, via);
        // Bits that are usually clear: of whoever writes them, or on the way.
        bytes[2] = flags[0] & 0x7f;
        bytes[3] = flags[1];
        by_hand(&bytes, via);
        bytes[2] &= 1;
        by_hand(&bytes, via);
    }

    #[test]
    fn damage_is_seen_in_the_same_way(
        name in names(),
        payload in prop::option::of(any::<u16>()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
        tcp in any::<bool>(),
    ) {
        prop_assume!(Name::from_ascii(&name).is_ok());
        let mut bytes = asked(&name, RecordType::A, payload);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let via = if tcp { TCP } else { UDP };
        by_hand(&bytes, via);
        bytes.truncate(cut.index(bytes.len() + 1));
        by_hand(&bytes, via);
    }

    /// Names of up to 127 labels, of which the encoder of all messages remembers a part only.
    #[test]
    fn long_names_are_no_exception(labels in prop::collection::vec("[a-z]", 40..125), payload in any::<Option<u16>>()) {
        let name = format!("{}.test", labels.join("."));
        prop_assume!(Name::from_ascii(&name).is_ok());
        by_hand(&asked(&name, RecordType::A, payload), UDP);
    }
}
