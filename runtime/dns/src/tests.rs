//! What clients see: bytes in, bytes out, and name servers that are ours.

mod forwarding;
mod messages;
mod plain;
mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use coracle_clock::Clock;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::*;

pub(super) const UDP: Via = Via {
    tcp: false,
    v6: false,
    host: true,
};
pub(super) const TCP: Via = Via { tcp: true, ..UDP };

/// `test`: a few names of every sort.
#[derive(Default)]
pub(super) struct TestZone {
    unfilled: AtomicBool,
    never: bool,
}

pub(super) fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

#[async_trait]
impl Zone for TestZone {
    fn lookup(&self, name: &str, kind: Kind) -> Lookup {
        let Some(below) = name.strip_suffix("test") else {
            return Lookup::Elsewhere;
        };
        if !(below.is_empty() || below.ends_with('.')) {
            return Lookup::Elsewhere;
        }
        let only = |wanted, data: Vec<Data>| match kind == wanted {
            true => Lookup::records(data),
            false => Lookup::no_data(),
        };
        match below {
            "" => Lookup::no_data(),
            "web." => only(Kind::A, vec![Data::Address(address(1))]),
            "six." => only(Kind::Aaaa, vec![Data::Address(Ipv6Addr::LOCALHOST.into())]),
            "few." => only(Kind::A, (0..20).map(address).map(Data::Address).collect()),
            "many." => only(Kind::A, (0..200).map(address).map(Data::Address).collect()),
            "huge." => {
                let all = (0..6000u32).map(|n| Data::Address(Ipv4Addr::from(n).into()));
                only(Kind::A, all.collect())
            }
            "text." => only(Kind::Txt, vec![Data::Text("1.1.0".into())]),
            "_http._tcp." if kind == Kind::Srv => {
                let record = Data::Service {
                    priority: 0,
                    weight: 100,
                    port: 80,
                    target: "web.test".into(),
                };
                Lookup::Found(Found {
                    records: vec![record],
                    additional: vec![("web.test".into(), address(1))],
                })
            }
            "_http._tcp." => Lookup::no_data(),
            "in." => Lookup::Alias("web.test".into()),
            "out." => Lookup::Alias("known.example".into()),
            "lost." => Lookup::Alias("missing.test".into()),
            "ping." => Lookup::Alias("pong.test".into()),
            "pong." => Lookup::Alias("ping.test".into()),
            "broken." => panic!("a name that the zone has not thought of"),
            _ if self.unfilled.load(Ordering::Relaxed) => Lookup::NotYet,
            _ => Lookup::NoName,
        }
    }

    fn apex(&self) -> &str {
        "test"
    }

    fn ttl(&self) -> u32 {
        5
    }

    async fn filled(&self) -> bool {
        self.unfilled.store(self.never, Ordering::Relaxed);
        !self.never
    }
}

/// A server of the test's zone and of the given servers for all else.
pub(super) fn server(upstreams: &[SocketAddr]) -> Server {
    let config = UpstreamConfig {
        servers: Servers::Fixed(upstreams.to_vec()),
        stub_domains: Vec::new(),
    };
    Server::new(Arc::new(TestZone::default()), config, Clock::system())
}

/// A question as dig asks it: with EDNS if `payload` says how much fits.
pub(super) fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).expect("a name");
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

/// The answer, whatever has to be waited for.
pub(super) async fn answer(server: &Server, question: &Message, via: Via) -> Message {
    let bytes = question.to_vec().expect("encoded");
    let reply = match server.now(&bytes, via) {
        Now::Reply(reply) => Some(reply),
        Now::Later(pending) => server.later(*pending).await,
        Now::Nothing => None,
    };
    Message::from_vec(&reply.expect("an answer")).expect("a message")
}

/// The answers' records as dig shows them.
pub(super) fn shown(message: &Message) -> Vec<String> {
    message.answers.iter().map(ToString::to_string).collect()
}
