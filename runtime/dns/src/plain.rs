//! Questions and answers in the form that nearly all have, read and written by hand.
//!
//! A program asks for the addresses of one name, with no more EDNS than how much it can take. Reading that and writing the answer
//! for any message costs as much as everything else that is done here for an answer. Nothing is refused here: whatever is
//! unusual about a question or its answer is left to [`message`](crate::message), which gives the same bytes for these, too.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;

use crate::message::{Carrier, HEADER, MAX_UDP, most_bytes};
use crate::zone::{Data, Found, Kind};

/// Bits of a header's third and fourth byte.
const RESPONSE: u8 = 0x80;
const AUTHORITATIVE: u8 = 0x04;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const CHECKING_DISABLED: u8 = 0x10;

/// A pointer to the name of the question.
const OWNER: [u8; 2] = [0xc0, HEADER as u8];
const CLASS_IN: [u8; 2] = [0, 1];
/// Types of records.
const A: u16 = 1;
const AAAA: u16 = 28;
const SOA: u16 = 6;
/// The longest name as text.
const LONGEST: usize = 253;
/// The most labels and records whose places the other encoder remembers for certain: past some hundred it writes the name of
/// a record in full.
const MOST_PLACES: usize = 60;

/// A question for the addresses of one name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    /// Of the message: its header, and the question as it was written.
    head: &'a [u8],
    /// Lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// How much fits into an answer, and whether DNSSEC is wanted, from who speaks EDNS.
    edns: Option<(u16, bool)>,
}

/// Reads a message if it is such a question.
pub(crate) fn read(bytes: &[u8]) -> Option<Question<'_>> {
    let (header, mut rest) = bytes.split_at_checked(HEADER)?;
    let [_, _, flags, _, 0, 1, 0, 0, 0, 0, 0, extra] = *header else {
        return None;
    };
    if flags & !RECURSION_DESIRED != 0 {
        return None;
    }
    let mut name = String::with_capacity(rest.len());
    loop {
        let (length, label) = rest.split_first()?;
        let (label, behind) = label.split_at_checked(usize::from(*length))?;
        rest = behind;
        if label.is_empty() {
            break;
        }
        if label.len() > 63 || !label.iter().all(|byte| is_plain(*byte)) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(
            label
                .iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
    }
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let (end, rest) = rest.split_at_checked(4)?;
    let (kind, class) = end.split_at(2);
    let kind = match u16::from_be_bytes([kind[0], kind[1]]) {
        A if class == CLASS_IN => Kind::A,
        AAAA if class == CLASS_IN => Kind::Aaaa,
        _ => return None,
    };
    let edns = match (extra, rest) {
        (0, []) => None,
        // No name, type OPT, how much fits, part of a code, version 0, flags, no options.
        (1, [0, 0, 41, high, low, _, 0, flags, _, 0, 0]) => {
            Some((u16::from_be_bytes([*high, *low]), flags & 0x80 != 0))
        }
        _ => return None,
    };
    Some(Question {
        head: &bytes[..bytes.len() - rest.len()],
        name,
        kind,
        edns,
    })
}

/// Letters, digits, `-` and `_`: what a name in text shows as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

impl Question<'_> {
    /// The record type's number.
    pub(crate) fn type_number(&self) -> u16 {
        match self.kind {
            Kind::Aaaa => AAAA,
            _ => A,
        }
    }

    /// The answer's bytes, with the zone's authority, if it is written here: addresses only, and all of them.
    pub(crate) fn found(
        &self,
        found: &Found,
        apex: &str,
        ttl: u32,
        carrier: Carrier,
    ) -> Option<Vec<u8>> {
        if !found.additional.is_empty() {
            return None;
        }
        if found.records.is_empty() {
            return self.nothing(ResponseCode::NoError, apex, ttl, carrier);
        }
        let most = most_bytes(carrier, self.edns);
        // Checked before anything is written, as there may be thousands.
        let most_records = most / (OWNER.len() + 14);
        if found.records.len() > most_records.min(MOST_PLACES.saturating_sub(self.labels())) {
            return None;
        }
        let count = u16::try_from(found.records.len()).ok()?;
        let mut reply = self.begin(ResponseCode::NoError, [count, 0]);
        for data in &found.records {
            match (data, self.kind) {
                (Data::Address(IpAddr::V4(address)), Kind::A) => {
                    record(&mut reply, OWNER, A, ttl, &address.octets());
                }
                (Data::Address(IpAddr::V6(address)), Kind::Aaaa) => {
                    record(&mut reply, OWNER, AAAA, ttl, &address.octets());
                }
                _ => return None,
            }
        }
        self.end(reply, most)
    }

    /// The answer that there is no such name, or nothing of this type, with who says so.
    pub(crate) fn nothing(
        &self,
        code: ResponseCode,
        apex: &str,
        ttl: u32,
        carrier: Carrier,
    ) -> Option<Vec<u8>> {
        let at = self.place_of(apex)?;
        let mut authority = Vec::with_capacity(38);
        authority.extend(b"\x02ns\x03dns");
        authority.extend(at);
        authority.extend(b"\x0ahostmaster");
        authority.extend(at);
        let numbers = [1, 7200, 1800, 86_400, ttl];
        authority.extend(numbers.iter().flat_map(|number: &u32| number.to_be_bytes()));
        let mut reply = self.begin(code, [0, 1]);
        record(&mut reply, at, SOA, ttl, &authority);
        self.end(reply, most_bytes(carrier, self.edns))
    }

    /// A pointer to the zone's name at the end of the question's, where no other name of an authority's record ends, too.
    fn place_of(&self, apex: &str) -> Option<[u8; 2]> {
        let below = self.name.strip_suffix(apex)?;
        let last = match below {
            "" => "",
            _ => below.strip_suffix('.')?.rsplit('.').next()?,
        };
        let is_simple = !matches!(last, "dns" | "hostmaster") && !apex.ends_with("arpa");
        if !is_simple || self.labels() > MOST_PLACES {
            return None;
        }
        // Each dot is a length, and there is one more in front of and one behind all.
        let end = self.head.len() - 4;
        let start = end - (apex.len() + 2);
        // The other encoder tells letters apart by their case.
        if self.head[start..end].iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let place = u16::try_from(start).ok()?;
        Some((0xc000 | place).to_be_bytes())
    }

    fn labels(&self) -> usize {
        self.name.split('.').count()
    }

    /// Header and question of an answer with so many answers and authorities.
    fn begin(&self, code: ResponseCode, [answers, authorities]: [u16; 2]) -> Vec<u8> {
        let mut reply = Vec::with_capacity(512);
        reply.extend(self.head);
        reply[2] = RESPONSE | AUTHORITATIVE | (self.head[2] & RECURSION_DESIRED);
        reply[3] = RECURSION_AVAILABLE | (self.head[3] & CHECKING_DISABLED) | code.low();
        reply[6..8].copy_from_slice(&answers.to_be_bytes());
        reply[8..10].copy_from_slice(&authorities.to_be_bytes());
        reply
    }

    /// The whole answer, if it fits.
    fn end(&self, mut reply: Vec<u8>, most: usize) -> Option<Vec<u8>> {
        if let Some((_, dnssec_ok)) = self.edns {
            let [high, low] = MAX_UDP.to_be_bytes();
            reply.extend([0, 0, 41, high, low, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
        }
        (reply.len() <= most).then_some(reply)
    }
}

/// Appends a record whose name is elsewhere in the message.
fn record(reply: &mut Vec<u8>, name: [u8; 2], kind: u16, ttl: u32, data: &[u8]) {
    reply.extend(name);
    reply.extend(kind.to_be_bytes());
    reply.extend(CLASS_IN);
    reply.extend(ttl.to_be_bytes());
    reply.extend([0, data.len() as u8]);
    reply.extend(data);
}
