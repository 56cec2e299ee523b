//! The format of messages: the one place that reads and writes them with `hickory-proto`.
//!
//! A question comes in as bytes and becomes a [`Request`]; an [`Outcome`] goes out as bytes that
//! fit what carries them. What a datagram does not hold is cut at a record's end and marked as
//! truncated, so that whoever asked comes again over TCP.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::zone::{Data, Kind};

/// The length of a header.
pub(crate) const HEADER: usize = 12;
/// What a datagram may hold when whoever asks says nothing (RFC 1035), and at least.
const PLAIN_UDP: u16 = 512;
/// What we put into a datagram at most, whatever is said: it is never fragmented on the way.
pub(crate) const MAX_UDP: u16 = 1232;
/// The length of a record without data, whose name is a pointer.
const SMALLEST_RECORD: usize = 12;
/// The longest message over TCP.
const MAX_TCP: u16 = u16::MAX;
/// The one version of EDNS.
const EDNS_VERSION: u8 = 0;

/// What carries a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Udp,
    Tcp,
}

/// A question that can be answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    metadata: Metadata,
    query: Query,
    edns: Option<(u16, bool)>,
    /// The name: lower case, without the last dot; bytes that are no letters are escaped.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// What arrived.
#[derive(Debug)]
pub(crate) enum Arrived {
    Request(Box<Request>),
    /// Something else, answered by these bytes.
    Wrong(ResponseCode, Vec<u8>),
    /// Nothing to be answered: too short, or an answer itself.
    Nothing,
}

/// A question for other name servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    /// Lower case, absolute.
    pub(crate) name: Name,
    kind: u16,
    dnssec: bool,
    checking_disabled: bool,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) authentic: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Outcome {
    pub(crate) fn of(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

/// Reads what somebody sent.
pub(crate) fn read(bytes: &[u8]) -> Arrived {
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return Arrived::Nothing;
    }
    let Ok(message) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        let code = OpCode::from_u8((bytes[2] >> 3) & 0xf);
        return wrong(Message::error_msg(id, code, ResponseCode::FormErr));
    };
    let mut reply = Message::error_msg(
        message.metadata.id,
        message.metadata.op_code,
        ResponseCode::NoError,
    );
    reply.metadata = Metadata::response_from_request(&message.metadata);
    // Several may be pointers to one name, and many times as long when they are written out.
    if let [query] = message.queries.as_slice() {
        reply.queries.push(query.clone());
    }
    if let Some(edns) = &message.edns {
        reply.set_edns(own_edns(edns.flags().dnssec_ok));
        if edns.version() > EDNS_VERSION {
            return refuse(reply, ResponseCode::BADVERS);
        }
    }
    if message.metadata.op_code != OpCode::Query {
        return refuse(reply, ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else {
        return refuse(reply, ResponseCode::FormErr);
    };
    let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if transfer || query.query_class() != DNSClass::IN {
        return refuse(reply, ResponseCode::Refused);
    }
    Arrived::Request(Box::new(Request {
        metadata: message.metadata,
        name: text(query.name()),
        kind: kind_of(query.query_type()),
        query: query.clone(),
        edns: message
            .edns
            .as_ref()
            .map(|edns| (edns.max_payload(), edns.flags().dnssec_ok)),
    }))
}

fn refuse(mut reply: Message, code: ResponseCode) -> Arrived {
    reply.metadata.response_code = code;
    wrong(reply)
}

fn wrong(reply: Message) -> Arrived {
    match reply.to_vec() {
        Ok(bytes) => Arrived::Wrong(reply.metadata.response_code, bytes),
        Err(_) => Arrived::Nothing,
    }
}

/// What we say of ourselves when somebody speaks EDNS.
fn own_edns(dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP).set_dnssec_ok(dnssec_ok);
    edns
}

impl Request {
    /// The record type's number.
    pub(crate) fn type_number(&self) -> u16 {
        self.query.query_type().into()
    }

    /// The same question about another name, for other name servers.
    pub(crate) fn asked(&self, name: &str) -> Option<Asked> {
        Some(Asked {
            name: parse(name)?,
            kind: self.type_number(),
            dnssec: self.edns.is_some_and(|(_, dnssec_ok)| dnssec_ok),
            checking_disabled: self.metadata.checking_disabled,
        })
    }

    /// The question's own name as it was written.
    pub(crate) fn owner(&self) -> Name {
        self.query.name().clone()
    }

    /// The answer's bytes: at most what the carrier, and who asks, can take.
    pub(crate) fn reply(&self, outcome: Outcome, carrier: Carrier) -> Option<Vec<u8>> {
        let mut message = Message::error_msg(self.metadata.id, OpCode::Query, outcome.code);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.response_code = outcome.code;
        message.metadata.recursion_available = true;
        message.metadata.authoritative = outcome.authoritative;
        message.metadata.authentic_data = outcome.authentic;
        message.queries = vec![self.query.clone()];
        message.answers = outcome.answers;
        message.authorities = outcome.authorities;
        message.additionals = outcome.additionals;
        message.edns = self.edns.map(|(_, dnssec_ok)| own_edns(dnssec_ok));
        fit(message, most_bytes(carrier, self.edns))
    }
}

/// The longest answer that the carrier, and who asks, can take.
pub(crate) fn most_bytes(carrier: Carrier, edns: Option<(u16, bool)>) -> usize {
    let limit = match (carrier, edns) {
        (Carrier::Tcp, _) => MAX_TCP,
        (Carrier::Udp, None) => PLAIN_UDP,
        (Carrier::Udp, Some((wanted, _))) => wanted.clamp(PLAIN_UDP, MAX_UDP),
    };
    usize::from(limit)
}

/// The message's bytes, without what does not fit: first additional records, which are a
/// courtesy, then answers, which is marked.
fn fit(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    // What cannot fit in any case is not encoded.
    let most = limit / SMALLEST_RECORD;
    if message.answers.len() > most {
        message.answers.truncate(most);
        message.additionals.clear();
        message.metadata.truncation = true;
    }
    // Most messages fit, and are not looked at twice.
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit && (bytes[2] & 0x02 != 0) == message.metadata.truncation {
        return Some(bytes);
    }
    message.additionals.clear();
    let bytes = message.to_vec().ok()?;
    // The encoder stops at what a length can say, and marks that.
    if bytes.len() <= limit && usize::from(answers_in(&bytes)) == message.answers.len() {
        return Some(bytes);
    }
    message.metadata.truncation = true;
    message.authorities.clear();
    let mut keep = message.answers.len();
    loop {
        let bytes = message.to_vec().ok()?;
        let written = usize::from(answers_in(&bytes));
        if keep == 0 || bytes.len() <= limit && written == keep {
            return Some(bytes);
        }
        let guess = match bytes.len() <= limit {
            // The encoder left the others out, and maybe what comes after them.
            true => written.saturating_sub(1),
            false => keep.saturating_mul(limit) / bytes.len(),
        };
        keep = guess.min(keep - 1);
        message.answers.truncate(keep);
    }
}

/// The number of answers that a message's header gives.
fn answers_in(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[6], bytes[7]])
}

impl Asked {
    /// The name for comparing: lower case, without the last dot.
    pub(crate) fn text(&self) -> String {
        text(&self.name)
    }

    /// The bytes to be sent to a name server.
    pub(crate) fn bytes(&self, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.query());
        message.set_edns(own_edns(self.dnssec));
        message.to_vec().ok()
    }

    fn query(&self) -> Query {
        Query::query(self.name.clone(), RecordType::from(self.kind))
    }

    /// Reads a name server's answer; nothing if it answers something else.
    pub(crate) fn read_reply(&self, id: u16, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_vec(bytes).ok()?;
        let own = self.query();
        let same = message.queries.iter().all(|query| {
            query.name() == own.name()
                && query.query_type() == own.query_type()
                && query.query_class() == own.query_class()
        });
        let is_reply = message.metadata.message_type == MessageType::Response;
        if !is_reply || message.metadata.id != id || !same {
            return None;
        }
        // Servers that cannot read a question may leave it out of their answer.
        let code = message.metadata.response_code;
        if message.queries.is_empty()
            && matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
        {
            return None;
        }
        Some(Reply {
            truncated: message.metadata.truncation,
            size: bytes.len(),
            outcome: Outcome {
                code,
                authoritative: false,
                authentic: message.metadata.authentic_data,
                answers: message.answers,
                authorities: message.authorities,
                additionals: message.additionals,
            },
        })
    }
}

/// What a name server answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) truncated: bool,
    /// Bytes of the message.
    pub(crate) size: usize,
    pub(crate) outcome: Outcome,
}

impl Reply {
    /// Seconds for which it may be kept: the shortest life of its records, or for a name or
    /// records that are not there what the zone says (RFC 2308); nothing for failures.
    pub(crate) fn life(&self) -> Option<u32> {
        let outcome = &self.outcome;
        let shortest = outcome.answers.iter().map(|record| record.ttl).min();
        match outcome.code {
            ResponseCode::NoError if shortest.is_some() => shortest,
            ResponseCode::NoError | ResponseCode::NXDomain => {
                let denied = outcome
                    .authorities
                    .iter()
                    .find_map(|record| match &record.data {
                        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                        _ => None,
                    })?;
                Some(shortest.map_or(denied, |shortest| shortest.min(denied)))
            }
            _ => None,
        }
    }

    /// Whether it says that something is not there.
    pub(crate) fn is_denial(&self) -> bool {
        self.outcome.code != ResponseCode::NoError || self.outcome.answers.is_empty()
    }
}

impl Outcome {
    /// The same after `seconds`.
    pub(crate) fn aged(mut self, seconds: u32) -> Self {
        let records = self.answers.iter_mut().chain(&mut self.authorities);
        for record in records.chain(&mut self.additionals) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        self
    }

    /// No record says that it lives longer than `most` seconds.
    pub(crate) fn capped(mut self, most: u32) -> Self {
        let records = self.answers.iter_mut().chain(&mut self.authorities);
        for record in records.chain(&mut self.additionals) {
            record.ttl = record.ttl.min(most);
        }
        self
    }

    /// The addresses among the answers, in order.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let address = |record: &Record| match &record.data {
            RData::A(A(address)) => Some(IpAddr::V4(*address)),
            RData::AAAA(AAAA(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        };
        self.answers.iter().filter_map(address).collect()
    }
}

/// The record `owner` with this data; nothing if a name in it is none.
pub(crate) fn record(owner: Name, ttl: u32, data: &Data) -> Option<Record> {
    let data = match data {
        Data::Address(IpAddr::V4(address)) => RData::A(A(*address)),
        Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
        Data::NameServer(name) => RData::NS(NS(parse(name)?)),
        Data::Pointer(name) => RData::PTR(PTR(parse(name)?)),
        Data::Service {
            priority,
            weight,
            port,
            target,
        } => RData::SRV(SRV::new(*priority, *weight, *port, parse(target)?)),
        Data::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
    };
    Some(Record::from_rdata(owner, ttl, data))
}

/// That `owner` stands for `target`.
pub(crate) fn alias(owner: Name, ttl: u32, target: &str) -> Option<Record> {
    Some(Record::from_rdata(
        owner,
        ttl,
        RData::CNAME(CNAME(parse(target)?)),
    ))
}

/// The start of authority of a zone whose answers that something is not there live for `ttl`.
pub(crate) fn authority(apex: &str, ttl: u32, server: &str) -> Option<Record> {
    let hostmaster = parse(&format!("hostmaster.{apex}"))?;
    let soa = SOA::new(parse(server)?, hostmaster, 1, 7200, 1800, 86_400, ttl);
    Some(Record::from_rdata(parse(apex)?, ttl, RData::SOA(soa)))
}

/// An absolute name.
pub(crate) fn parse(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name.to_lowercase())
}

fn text(name: &Name) -> String {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn kind_of(number: RecordType) -> Kind {
    match number {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::CNAME => Kind::Cname,
        RecordType::NS => Kind::Ns,
        RecordType::PTR => Kind::Ptr,
        RecordType::SOA => Kind::Soa,
        RecordType::SRV => Kind::Srv,
        RecordType::TXT => Kind::Txt,
        other => Kind::Other(other.into()),
    }
}

/// A request for the addresses of one family, as a program would make it: for lookups in process.
pub(crate) fn request(name: &str, kind: Kind) -> Option<Request> {
    let number = match kind {
        Kind::Aaaa => RecordType::AAAA,
        _ => RecordType::A,
    };
    let owner = parse(name)?;
    Some(Request {
        metadata: Metadata::new(0, MessageType::Query, OpCode::Query),
        name: text(&owner),
        kind: kind_of(number),
        query: Query::query(owner, number),
        edns: None,
    })
}

/// The bytes of a question for the IPv4 (else IPv6) addresses of an absolute name, for who carries
/// them to a name server over sockets of their own; nothing if that is no name.
pub fn address_query(id: u16, name: &str, v4: bool) -> Option<Vec<u8>> {
    let kind = if v4 { Kind::A } else { Kind::Aaaa };
    let request = request(name, kind)?;
    request.asked(name)?.bytes(id)
}

/// What a name server says of a name's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupReply {
    /// Its addresses; none if it has none of the family.
    Addresses(Vec<IpAddr>),
    /// It does not exist.
    NoName,
    /// The server cannot say.
    Failed,
    /// The answer did not fit: ask again over TCP.
    Truncated,
}

/// Reads the answer to [`address_query`]; nothing if the bytes are not the answer to that question.
pub fn read_addresses(id: u16, name: &str, v4: bool, bytes: &[u8]) -> Option<LookupReply> {
    let kind = if v4 { Kind::A } else { Kind::Aaaa };
    let reply = request(name, kind)?.asked(name)?.read_reply(id, bytes)?;
    Some(match reply.outcome.code {
        _ if reply.truncated => LookupReply::Truncated,
        ResponseCode::NoError => LookupReply::Addresses(reply.outcome.addresses()),
        ResponseCode::NXDomain => LookupReply::NoName,
        _ => LookupReply::Failed,
    })
}
