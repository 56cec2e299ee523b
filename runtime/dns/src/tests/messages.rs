//! Answers from the zone, and messages that are none.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, RData};
use proptest::prelude::*;

use super::*;

async fn ask(name: &str, kind: RecordType) -> Message {
    answer(&server(&[]), &question(name, kind, None), UDP).await
}

#[tokio::test]
async fn names_of_the_zone_are_answered_with_authority() {
    let cases: [(&str, RecordType, &[&str]); 6] = [
        ("web.test", RecordType::A, &["web.test. 5 IN A 192.0.2.1"]),
        ("WEB.Test", RecordType::A, &["WEB.Test. 5 IN A 192.0.2.1"]),
        ("text.test", RecordType::TXT, &["text.test. 5 IN TXT 1.1.0"]),
        (
            "_http._tcp.test",
            RecordType::SRV,
            &["_http._tcp.test. 5 IN SRV 0 100 80 web.test."],
        ),
        (
            "in.test",
            RecordType::A,
            &[
                "in.test. 5 IN CNAME web.test.",
                "web.test. 5 IN A 192.0.2.1",
            ],
        ),
        (
            "in.test",
            RecordType::CNAME,
            &["in.test. 5 IN CNAME web.test."],
        ),
    ];
    for (name, kind, expected) in cases {
        let reply = ask(name, kind).await;
        assert_eq!(shown(&reply), expected, "{name} {kind}");
        let head = &reply.metadata;
        assert_eq!(head.id, 4711);
        assert_eq!(head.response_code, ResponseCode::NoError);
        assert!(head.authoritative && head.recursion_available && head.recursion_desired);
        assert_eq!(reply.queries[0].name().to_ascii(), format!("{name}."));
        assert!(reply.edns.is_none(), "who does not speak EDNS gets none");
    }
}

/// Knows of one name, and notes what it is told.
#[derive(Default)]
struct OfOne(std::sync::Mutex<Vec<(String, Vec<IpAddr>)>>);

impl Asker for OfOne {
    fn may_ask(&self, name: &str) -> bool {
        name == "web.test"
    }

    fn told(&self, name: &str, addresses: &[IpAddr]) {
        let mut told = self.0.lock().expect("nobody panics with it");
        told.push((name.to_owned(), addresses.to_vec()));
    }
}

#[tokio::test]
async fn names_that_an_asker_may_not_know_do_not_exist_for_it() {
    let (server, asker) = (server(&[]), Arc::new(OfOne::default()));
    for (name, code) in [
        ("WEB.test", ResponseCode::NoError),
        ("many.test", ResponseCode::NXDomain),
        ("other.example", ResponseCode::NXDomain),
    ] {
        let bytes = question(name, RecordType::A, None)
            .to_vec()
            .expect("encoded");
        let Now::Reply(reply) = server.now_for(&bytes, UDP, Some(asker.clone())) else {
            panic!("{name}: no other server is asked")
        };
        let reply = Message::from_vec(&reply).expect("a message");
        assert_eq!(reply.metadata.response_code, code, "{name}");
    }
    let told = asker.0.lock().expect("nobody panics with it");
    let wanted = [
        ("web.test".to_owned(), vec![address(1)]),
        ("many.test".to_owned(), vec![]),
        ("other.example".to_owned(), vec![]),
    ];
    assert_eq!(*told, wanted);
}

#[tokio::test]
async fn a_services_hosts_come_along() {
    let reply = ask("_http._tcp.test", RecordType::SRV).await;
    let additional: Vec<_> = reply.additionals.iter().map(ToString::to_string).collect();
    assert_eq!(additional, ["web.test. 5 IN A 192.0.2.1"]);
}

#[tokio::test]
async fn no_name_and_no_data_differ_and_both_tell_who_says_so() {
    let cases = [
        ("missing.test", RecordType::A, ResponseCode::NXDomain),
        ("web.test", RecordType::AAAA, ResponseCode::NoError),
        ("web.test", RecordType::MX, ResponseCode::NoError),
        ("web.test", RecordType::ANY, ResponseCode::NoError),
        ("_http._tcp.test", RecordType::A, ResponseCode::NoError),
        ("test", RecordType::A, ResponseCode::NoError),
    ];
    for (name, kind, code) in cases {
        let reply = ask(name, kind).await;
        assert_eq!(reply.metadata.response_code, code, "{name} {kind}");
        assert!(reply.answers.is_empty() && reply.metadata.authoritative);
        let [soa] = reply.authorities.as_slice() else {
            panic!("{name} {kind}: {:?}", reply.authorities);
        };
        assert_eq!(soa.name.to_ascii(), "test.");
        assert!(matches!(&soa.data, RData::SOA(soa) if soa.minimum == 5));
    }
    let soa = ask("test", RecordType::SOA).await;
    assert_eq!(soa.answers.len(), 1);
    // An alias that leads to nothing shows where it led.
    let lost = ask("lost.test", RecordType::A).await;
    assert_eq!(lost.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(shown(&lost), ["lost.test. 5 IN CNAME missing.test."]);
}

#[tokio::test]
async fn names_that_lead_in_a_circle_fail() {
    let reply = ask("ping.test", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(
        server(&[]).addresses("ping.test").await,
        Err(LookupError::Failed)
    );
}

#[tokio::test]
async fn a_datagram_holds_what_the_client_takes_and_a_stream_all() {
    let server = server(&[]);
    let cases = [
        (None, UDP, 512),
        (Some(100), UDP, 512),
        (Some(800), UDP, 800),
        (Some(4096), UDP, 1232),
    ];
    for (payload, via, limit) in cases {
        let asked = question("many.test", RecordType::A, payload);
        let Now::Reply(bytes) = server.now(&asked.to_vec().expect("encoded"), via) else {
            panic!("the zone needs nobody");
        };
        assert!(bytes.len() <= limit, "{payload:?}: {}", bytes.len());
        let reply = Message::from_vec(&bytes).expect("whole records");
        assert!(reply.metadata.truncation);
        assert!(bytes.len() > limit - 64, "{payload:?}: {}", bytes.len());
        assert_eq!(reply.edns.is_some(), payload.is_some());
    }
    let all = answer(&server, &question("many.test", RecordType::A, None), TCP).await;
    assert_eq!((all.answers.len(), all.metadata.truncation), (200, false));
    // What no message can hold is marked, not dropped.
    let most = answer(
        &server,
        &question("huge.test", RecordType::A, Some(512)),
        TCP,
    )
    .await;
    assert!(most.metadata.truncation && most.answers.len() > 2000);
}

#[tokio::test]
async fn a_courtesy_that_does_not_fit_is_left_out_unmarked() {
    let mut asked = question("_http._tcp.test", RecordType::SRV, None);
    let reply = answer(&server(&[]), &asked, UDP).await;
    assert!(!reply.metadata.truncation);
    asked.add_query(asked.queries[0].clone());
    let two = answer(&server(&[]), &asked, UDP).await;
    assert_eq!(two.metadata.response_code, ResponseCode::FormErr);
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_its_code() {
    let server = server(&[]);
    let mut update = question("web.test", RecordType::A, None);
    update.metadata.op_code = OpCode::Notify;
    let mut chaos = question("version.bind", RecordType::TXT, None);
    chaos.queries[0].query_class = DNSClass::CH;
    let mut future = question("web.test", RecordType::A, Some(1232));
    future
        .edns
        .as_mut()
        .expect("asked with EDNS")
        .set_version(1);
    let mut none = question("web.test", RecordType::A, None);
    none.queries.clear();
    let cases = [
        (update, ResponseCode::NotImp),
        (chaos, ResponseCode::Refused),
        (
            question("test", RecordType::AXFR, None),
            ResponseCode::Refused,
        ),
        (future, ResponseCode::BADVERS),
        (none, ResponseCode::FormErr),
    ];
    for (asked, code) in cases {
        let reply = answer(&server, &asked, UDP).await;
        // One number has two names.
        let given = u16::from(reply.metadata.response_code);
        assert_eq!(given, u16::from(code));
        assert_eq!(reply.metadata.id, 4711);
    }
}

#[test]
fn garbage_behind_a_header_is_a_format_error_and_answers_are_nobodys_question() {
    let server = server(&[]);
    let mut bytes = question("web.test", RecordType::A, None)
        .to_vec()
        .expect("encoded");
    bytes.truncate(bytes.len() - 1);
    let Now::Reply(reply) = server.now(&bytes, UDP) else {
        panic!("an answer")
    };
    let reply = Message::from_vec(&reply).expect("a message");
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(reply.metadata.id, 4711);
    bytes[2] |= 0x80;
    assert!(matches!(server.now(&bytes, UDP), Now::Nothing));
    assert!(matches!(server.now(&bytes[..11], UDP), Now::Nothing));
    assert!(matches!(server.now(&[], UDP), Now::Nothing));
}

#[tokio::test]
async fn an_unfilled_zone_is_waited_for() {
    let zone = TestZone {
        unfilled: true.into(),
        never: false,
    };
    let config = UpstreamConfig {
        servers: Servers::Fixed(Vec::new()),
        stub_domains: Vec::new(),
    };
    let server = Server::new(Arc::new(zone), config.clone(), Clock::system());
    let reply = answer(&server, &question("missing.test", RecordType::A, None), UDP).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    let zone = TestZone {
        unfilled: true.into(),
        never: true,
    };
    let server = Server::new(Arc::new(zone), config, Clock::system());
    let reply = answer(&server, &question("missing.test", RecordType::A, None), UDP).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(
        server.addresses("missing.test").await,
        Err(LookupError::Again)
    );
    assert_eq!(server.addresses("web.test").await, Ok(vec![address(1)]));
}

#[tokio::test]
async fn the_counters_tell_types_codes_and_who_answered() {
    let server = server(&[]);
    answer(&server, &question("web.test", RecordType::A, None), UDP).await;
    answer(&server, &question("web.test", RecordType::A, None), TCP).await;
    answer(
        &server,
        &question("missing.test", RecordType::from(29), None),
        UDP,
    )
    .await;
    let _ = server.now(&[0; 12], UDP);
    server.addresses("web.test").await.expect("known");
    let text = server.metrics();
    for line in [
        r#"coredns_dns_requests_total{server="dns://host",zone="test.",view="",proto="udp",family="1",type="A"} 1"#,
        r#"coredns_dns_requests_total{server="dns://host",zone="test.",view="",proto="tcp",family="1",type="A"} 1"#,
        r#"coredns_dns_requests_total{server="dns://host",zone="test.",view="",proto="udp",family="1",type="other"} 1"#,
        r#"coredns_dns_responses_total{server="dns://host",zone="test.",view="",rcode="NOERROR",plugin="kubernetes"} 2"#,
        r#"coredns_dns_responses_total{server="dns://host",zone="test.",view="",rcode="NXDOMAIN",plugin="kubernetes"} 1"#,
        r#"coredns_dns_responses_total{server="dns://host",zone="dropped",view="",rcode="FORMERR",plugin=""} 1"#,
        r#"coracle_dns_lookups_total{found="true"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

proptest! {
    /// Whatever arrives, the answer is a message of the same number that says it is one, or silence.
    #[test]
    fn bytes_of_any_kind_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        tcp in any::<bool>(),
    ) {
        check(&bytes, tcp)?;
    }

    /// The same for messages that are almost right.
    #[test]
    fn damaged_questions_are_survived(
        kind in any::<u16>(),
        payload in prop::option::of(any::<u16>()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        tcp in any::<bool>(),
    ) {
        let mut bytes = question("a.many.test", RecordType::from(kind), payload).to_vec().expect("encoded");
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        check(&bytes, tcp)?;
        bytes.truncate(cut.index(bytes.len() + 1));
        check(&bytes, tcp)?;
    }

    /// And for what name servers answer.
    #[test]
    fn answers_of_any_kind_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), id in any::<u16>()) {
        let mut bytes = bytes;
        if bytes.len() > 2 {
            bytes[..2].copy_from_slice(&id.to_be_bytes());
        }
        let _ = read_addresses(id, "web.test", true, &bytes);
    }
}

fn check(bytes: &[u8], tcp: bool) -> Result<(), TestCaseError> {
    let server = server(&[]);
    if let Now::Reply(reply) = server.now(bytes, if tcp { TCP } else { UDP }) {
        prop_assert_eq!(&reply[..2], &bytes[..2]);
        prop_assert!(reply[2] & 0x80 != 0);
        prop_assert!(Message::from_vec(&reply).is_ok());
        prop_assert!(tcp || reply.len() <= 1232);
    }
    Ok(())
}
