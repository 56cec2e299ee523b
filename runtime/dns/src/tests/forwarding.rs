//! Other name servers: right, wrong, slow and silent ones.

use std::sync::atomic::AtomicUsize;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record, rdata};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// What a name server of the test does with a question.
type Behaviour = fn(Message) -> Vec<Message>;

/// A name server on a port of its own; counts its questions.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tasks: tokio::task::JoinSet<()>,
}

impl Upstream {
    async fn start(over_udp: Behaviour, over_tcp: Behaviour) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("bound");
        let udp = UdpSocket::bind(address).await.expect("the same port");
        let asked: Arc<AtomicUsize> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        let count = asked.clone();
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let Ok((length, peer)) = udp.recv_from(&mut buffer).await else {
                    continue;
                };
                count.fetch_add(1, Ordering::SeqCst);
                let question = Message::from_vec(&buffer[..length]).expect("a question");
                for reply in over_udp(question) {
                    let _ = udp.send_to(&reply.to_vec().expect("encoded"), peer).await;
                }
            }
        });
        tasks.spawn(async move {
            loop {
                let Ok((mut stream, _)) = tcp.accept().await else {
                    continue;
                };
                let length = stream.read_u16().await.expect("a length");
                let mut buffer = vec![0; length.into()];
                stream.read_exact(&mut buffer).await.expect("a question");
                for reply in over_tcp(Message::from_vec(&buffer).expect("a question")) {
                    let bytes = reply.to_vec().expect("encoded");
                    let length = u16::try_from(bytes.len()).expect("short");
                    let _ = stream.write_u16(length).await;
                    let _ = stream.write_all(&bytes).await;
                }
            }
        });
        Self {
            address,
            asked,
            tasks,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

fn reply_to(question: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.metadata.response_code = code;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&question.queries);
    reply
}

fn with_address(mut reply: Message, last: u8) -> Message {
    if reply.queries[0].query_type() == RecordType::A {
        let data = RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, last)));
        reply.add_answer(Record::from_rdata(
            reply.queries[0].name().clone(),
            300,
            data,
        ));
    }
    reply
}

/// `known.example` has an address, and nothing else exists there.
fn knows(question: Message) -> Vec<Message> {
    let name = question.queries[0].name().to_ascii();
    if name == "known.example." {
        return vec![with_address(reply_to(&question, ResponseCode::NoError), 9)];
    }
    let mut reply = reply_to(&question, ResponseCode::NXDomain);
    reply
        .authorities
        .extend(crate::message::authority("example", 60, "ns.example"));
    vec![reply]
}

fn silent(_question: Message) -> Vec<Message> {
    Vec::new()
}

fn fails(question: Message) -> Vec<Message> {
    vec![reply_to(&question, ResponseCode::ServFail)]
}

fn cuts_short(question: Message) -> Vec<Message> {
    let mut reply = reply_to(&question, ResponseCode::NoError);
    reply.metadata.truncation = true;
    vec![reply]
}

/// First answers to other questions, then the right one.
fn confused(question: Message) -> Vec<Message> {
    let mut other_number = with_address(reply_to(&question, ResponseCode::NoError), 66);
    other_number.metadata.id = question.metadata.id.wrapping_add(1);
    let mut other_name = with_address(reply_to(&question, ResponseCode::NoError), 67);
    other_name.queries[0].name = Name::from_ascii("other.example.").expect("a name");
    let right = with_address(reply_to(&question, ResponseCode::NoError), 9);
    vec![question, other_number, other_name, right]
}

async fn forwarded(server: &Server, name: &str) -> Message {
    answer(server, &question(name, RecordType::A, Some(1232)), UDP).await
}

#[tokio::test]
async fn names_elsewhere_are_asked_once_and_then_known() {
    let upstream = Upstream::start(knows, silent).await;
    let server = server(&[upstream.address]);
    for round in 0..3 {
        let reply = forwarded(&server, "known.example").await;
        assert_eq!(reply.answers.len(), 1, "round {round}");
        assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
        // Kept for half a minute at most, so nobody is told that it lives longer.
        assert!(round == 0 || reply.answers[0].ttl <= 30);
        let missing = forwarded(&server, "missing.example").await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(missing.authorities.len(), 1);
    }
    assert_eq!(upstream.asked(), 2);
    let text = server.metrics();
    for line in [
        r#"coredns_cache_hits_total{type="success",zones="."} 2"#,
        r#"coredns_cache_hits_total{type="denial",zones="."} 2"#,
        r#"coredns_cache_misses_total{zones="."} 2"#,
        r#"coredns_cache_entries{type="denial",zones="."} 1"#,
        &format!(
            "coredns_forward_requests_total{{to=\"{}\"}} 2",
            upstream.address
        ),
        r#"coredns_dns_responses_total{server="dns://host",zone=".",view="",rcode="NXDOMAIN",plugin="cache"} 2"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[tokio::test]
async fn an_alias_to_elsewhere_brings_the_others_answer_along() {
    let upstream = Upstream::start(knows, silent).await;
    let server = server(&[upstream.address]);
    let expected = [
        "out.test. 5 IN CNAME known.example.",
        "known.example. 300 IN A 192.0.2.9",
    ];
    assert_eq!(shown(&forwarded(&server, "out.test").await), expected);
    assert_eq!(server.addresses("out.test").await, Ok(vec![address(9)]));
    assert_eq!(
        server.addresses("known.example").await,
        Ok(vec![address(9)])
    );
    assert_eq!(
        server.addresses("missing.example").await,
        Err(LookupError::NotFound)
    );
}

#[tokio::test]
async fn what_a_datagram_does_not_hold_is_fetched_over_tcp() {
    let upstream = Upstream::start(cuts_short, knows).await;
    let reply = forwarded(&server(&[upstream.address]), "known.example").await;
    assert_eq!(shown(&reply), ["known.example. 300 IN A 192.0.2.9"]);
}

#[tokio::test]
async fn answers_to_other_questions_are_nobodys() {
    let upstream = Upstream::start(confused, silent).await;
    let reply = forwarded(&server(&[upstream.address]), "known.example").await;
    assert_eq!(shown(&reply), ["known.example. 300 IN A 192.0.2.9"]);
}

#[tokio::test]
async fn a_server_that_fails_or_is_gone_is_passed_over_and_avoided() {
    let failing = Upstream::start(fails, silent).await;
    let gone = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let nobody = gone.local_addr().expect("bound");
    drop(gone);
    let good = Upstream::start(knows, silent).await;
    let server = server(&[nobody, failing.address, good.address]);
    let reply = forwarded(&server, "known.example").await;
    assert_eq!(shown(&reply), ["known.example. 300 IN A 192.0.2.9"]);
    assert_eq!((failing.asked(), good.asked()), (1, 1));
    let error = format!("coracle_dns_upstream_errors_total{{to=\"{nobody}\"}} 1");
    assert!(server.metrics().lines().any(|line| line == error));
    forwarded(&server, "missing.example").await;
    assert!(
        server.metrics().lines().any(|line| line == error),
        "not asked again at once"
    );
}

#[tokio::test]
async fn without_any_answer_the_client_is_told_so() {
    let failing = Upstream::start(fails, silent).await;
    let server = server(&[failing.address]);
    let reply = forwarded(&server, "known.example").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(
        server.addresses("known.example").await,
        Err(LookupError::Again)
    );
    let alone = super::server(&[]);
    let reply = forwarded(&alone, "out.test").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(shown(&reply), ["out.test. 5 IN CNAME known.example."]);
    assert_eq!(
        alone.addresses("known.example").await,
        Err(LookupError::NoServers("known.example".into()))
    );
}

#[tokio::test]
async fn silence_ends() {
    let mute = Upstream::start(silent, silent).await;
    let good = Upstream::start(knows, silent).await;
    let server = server(&[mute.address, good.address]);
    let reply = forwarded(&server, "known.example").await;
    assert_eq!(shown(&reply), ["known.example. 300 IN A 192.0.2.9"]);
    assert_eq!(mute.asked(), 1);
}

#[tokio::test]
async fn what_is_known_is_still_answered_when_the_server_is_gone() {
    let mut upstream = Upstream::start(knows, silent).await;
    let server = server(&[upstream.address]);
    forwarded(&server, "known.example").await;
    forwarded(&server, "missing.example").await;
    upstream.tasks.shutdown().await;
    let reply = forwarded(&server, "known.example").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(reply.answers.len(), 1);
    let missing = forwarded(&server, "missing.example").await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    // Nothing stands in for what was not asked before, and who asks is told so again and again.
    for _ in 0..3 {
        let reply = forwarded(&server, "other.example").await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(
            server.addresses("other.example").await,
            Err(LookupError::Again)
        );
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_bounded_time_and_is_a_failure() {
    let mute = Upstream::start(silent, silent).await;
    let server = server(&[mute.address]);
    // That this comes to an end is what is tested; how long it takes is in `forward.rs`.
    let reply = forwarded(&server, "known.example").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(mute.asked() >= 1);
}
