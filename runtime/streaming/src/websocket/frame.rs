//! Frames on the wire (RFC 6455), in both directions, without any I/O.
//!
//! The payload of a message comes in pieces as it arrives, whatever its size and its fragments;
//! control frames are read whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// What a peer said that is not WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// Bits that mean something only in extensions, of which there are none.
    #[error("a frame uses an extension that was not agreed on")]
    Extension,
    /// Clients mask what they send, servers do not.
    #[error("a frame is masked that must not be, or is not and must be")]
    Mask,
    /// An opcode that means nothing.
    #[error("a frame has the unknown opcode {0}")]
    Opcode(u8),
    /// A control frame that is too long or in fragments.
    #[error("a control frame is longer than 125 bytes or in fragments")]
    Control,
    /// A message begins within another, or goes on without one.
    #[error("the fragments of a message are out of order")]
    Fragments,
    /// A length of more than 63 bits.
    #[error("a frame is too long")]
    TooLong,
}

/// A codec has one type for what the peer got wrong and for what the connection did.
impl From<WebSocketError> for std::io::Error {
    fn from(error: WebSocketError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that was connected to.
    Server,
    /// The one that connected.
    Client,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of a message.
    Data {
        /// The first piece of its message.
        first: bool,
        /// The last piece of its message.
        last: bool,
        /// Its bytes; none in an empty message.
        bytes: Bytes,
    },
    /// A question whether one is there.
    Ping(Bytes),
    /// The answer to one.
    Pong(Bytes),
    /// The peer is done: its code, if it gave one.
    Close(Option<u16>),
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message of bytes.
    Binary(Bytes),
    /// A whole message that is text.
    Text(Bytes),
    /// A question whether the peer is there.
    Ping(Bytes),
    /// The answer to one; also without a question.
    Pong(Bytes),
    /// The end: a code and its reason.
    Close(u16, &'static str),
}

/// The data frame that is on its way.
#[derive(Clone, Copy)]
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// How many bytes were unmasked before.
    offset: usize,
    first: bool,
    fin: bool,
}

/// Reads frames.
pub struct FrameDecoder {
    role: Role,
    payload: Option<Payload>,
    /// A message has begun and has not ended.
    in_message: bool,
}

impl FrameDecoder {
    /// A decoder for this end of the connection.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            payload: None,
            in_message: false,
        }
    }

    /// The next event of what has arrived.
    pub fn next(&mut self, source: &mut BytesMut) -> Result<Option<Event>, WebSocketError> {
        if let Some(payload) = self.payload {
            return Ok(self.piece(payload, source));
        }
        let Some(head) = Head::parse(source, self.role)? else {
            return Ok(None);
        };
        if head.opcode < 8 {
            let is_continuation = head.opcode == 0;
            if is_continuation != self.in_message {
                return Err(WebSocketError::Fragments);
            }
            source.advance(head.size);
            self.in_message = !head.fin;
            let payload = Payload {
                left: head.length,
                mask: head.mask,
                offset: 0,
                first: !is_continuation,
                fin: head.fin,
            };
            return Ok(self.piece(payload, source));
        }
        // At most 125 bytes, as the head says.
        let length = head.length as usize;
        if source.len() < head.size + length {
            source.reserve(head.size + length - source.len());
            return Ok(None);
        }
        source.advance(head.size);
        let mut bytes = source.split_to(length);
        unmask(&mut bytes, head.mask, 0);
        let bytes = bytes.freeze();
        Ok(Some(match head.opcode {
            8 => Event::Close(bytes.first_chunk().map(|code| u16::from_be_bytes(*code))),
            9 => Event::Ping(bytes),
            _ => Event::Pong(bytes),
        }))
    }

    /// As much of the payload as is there.
    fn piece(&mut self, mut payload: Payload, source: &mut BytesMut) -> Option<Event> {
        if source.is_empty() && payload.left > 0 {
            self.payload = Some(payload);
            return None;
        }
        let length =
            usize::try_from(payload.left).map_or(source.len(), |left| left.min(source.len()));
        let mut bytes = source.split_to(length);
        unmask(&mut bytes, payload.mask, payload.offset);
        let first = payload.first;
        payload.left -= length as u64;
        payload.offset = (payload.offset + length) % 4;
        payload.first = false;
        let ended = payload.left == 0;
        self.payload = (!ended).then_some(payload);
        Some(Event::Data {
            first,
            last: ended && payload.fin,
            bytes: bytes.freeze(),
        })
    }
}

impl Decoder for FrameDecoder {
    type Item = Event;
    type Error = std::io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Event>, std::io::Error> {
        Ok(self.next(source)?)
    }
}

/// What precedes a payload.
struct Head {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    length: u64,
    /// Bytes of the head itself.
    size: usize,
}

impl Head {
    fn parse(source: &[u8], role: Role) -> Result<Option<Self>, WebSocketError> {
        let &[first, second, ref rest @ ..] = source else {
            return Ok(None);
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(WebSocketError::Extension);
        }
        if !matches!(opcode, 0..=2 | 8..=10) {
            return Err(WebSocketError::Opcode(opcode));
        }
        let masked = second & 0x80 != 0;
        if masked != (role == Role::Server) {
            return Err(WebSocketError::Mask);
        }
        let short = second & 0x7f;
        if opcode >= 8 && (short > 125 || !fin) {
            return Err(WebSocketError::Control);
        }
        let (length, more) = match short {
            126 => match rest.first_chunk::<2>() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        if length >> 63 != 0 {
            return Err(WebSocketError::TooLong);
        }
        let mask = match masked {
            true => match rest[more..].first_chunk::<4>() {
                Some(mask) => *mask,
                None => return Ok(None),
            },
            false => [0; 4],
        };
        Ok(Some(Self {
            fin,
            opcode,
            mask,
            length,
            size: 2 + more + if masked { 4 } else { 0 },
        }))
    }
}

impl Frame {
    /// Appends the frame to what is to be sent; clients give a mask.
    pub fn encode(&self, mask: Option<[u8; 4]>, target: &mut BytesMut) {
        let mut close = BytesMut::new();
        let (opcode, payload): (u8, &[u8]) = match self {
            Self::Text(bytes) => (1, bytes),
            Self::Binary(bytes) => (2, bytes),
            Self::Ping(bytes) => (9, bytes),
            Self::Pong(bytes) => (10, bytes),
            Self::Close(code, reason) => {
                close.put_u16(*code);
                close.extend_from_slice(reason.as_bytes());
                (8, &close)
            }
        };
        target.reserve(payload.len() + 14);
        target.put_u8(0x80 | opcode);
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..=125 => target.put_u8(masked | length as u8),
            length @ 126..=0xffff => {
                target.put_u8(masked | 126);
                target.put_u16(length as u16);
            }
            length => {
                target.put_u8(masked | 127);
                target.put_u64(length as u64);
            }
        }
        if let Some(mask) = mask {
            target.extend_from_slice(&mask);
        }
        let start = target.len();
        target.extend_from_slice(payload);
        unmask(&mut target[start..], mask.unwrap_or_default(), 0);
    }
}

/// Applies the mask to bytes that begin at `offset` of their frame.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], offset: usize) {
    if mask == [0; 4] {
        return;
    }
    mask.rotate_left(offset % 4);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes =
            |most: usize| proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from);
        prop_oneof![
            bytes(300).prop_map(Frame::Binary),
            bytes(300).prop_map(Frame::Text),
            (65_530_usize..65_540).prop_map(|length| Frame::Binary(vec![7; length].into())),
            bytes(126).prop_map(Frame::Ping),
            bytes(126).prop_map(Frame::Pong),
            Just(Frame::Close(1000, "bye")),
        ]
    }

    /// What a receiver makes of the frames, with the pieces of messages joined.
    fn received(decoder: &mut FrameDecoder, wire: &[u8], cut: usize) -> Vec<Event> {
        let (mut source, mut events) = (BytesMut::new(), Vec::<Event>::new());
        for piece in wire.chunks(cut) {
            source.extend_from_slice(piece);
            while let Some(event) = decoder.next(&mut source).expect("well-formed") {
                match (events.last_mut(), event) {
                    (
                        Some(Event::Data {
                            last: end,
                            bytes: kept,
                            ..
                        }),
                        Event::Data {
                            first: false,
                            last,
                            bytes,
                        },
                    ) => {
                        *kept = [kept.as_ref(), bytes.as_ref()].concat().into();
                        *end = last;
                    }
                    (_, event) => events.push(event),
                }
            }
        }
        assert!(source.is_empty());
        events
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(
            sent in proptest::collection::vec(frames(), 0..8),
            cut in 1_usize..5000,
            mask in proptest::option::of(any::<[u8; 4]>()),
        ) {
            let mut wire = BytesMut::new();
            for frame in &sent {
                frame.encode(mask, &mut wire);
            }
            let role = if mask.is_some() { Role::Server } else { Role::Client };
            let expected: Vec<Event> = sent.into_iter().map(|frame| match frame {
                Frame::Binary(bytes) | Frame::Text(bytes) =>
                    Event::Data { first: true, last: true, bytes },
                Frame::Ping(bytes) => Event::Ping(bytes),
                Frame::Pong(bytes) => Event::Pong(bytes),
                Frame::Close(code, _) => Event::Close(Some(code)),
            }).collect();
            prop_assert_eq!(received(&mut FrameDecoder::new(role), &wire, cut), expected);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for role in [Role::Server, Role::Client] {
                let mut decoder = FrameDecoder::new(role);
                let mut source = BytesMut::from(&bytes[..]);
                while let Ok(Some(_)) = decoder.next(&mut source) {}
            }
        }
    }

    #[test]
    fn a_message_may_come_in_fragments_with_a_ping_between() {
        let mut decoder = FrameDecoder::new(Role::Client);
        let wire = [0x02, 1, b'a', 0x89, 0, 0x80, 1, b'b'];
        assert_eq!(
            received(&mut decoder, &wire, 1),
            [
                Event::Data {
                    first: true,
                    last: false,
                    bytes: "a".into()
                },
                Event::Ping(Bytes::new()),
                Event::Data {
                    first: false,
                    last: true,
                    bytes: "b".into()
                },
            ]
        );
    }

    #[test]
    fn what_is_not_websocket_is_refused() {
        for (wire, error) in [
            (&[0xc2, 0x80][..], WebSocketError::Extension),
            (&[0x83, 0x80], WebSocketError::Opcode(3)),
            (&[0x82, 0x00], WebSocketError::Mask),
            (&[0x09, 0x80], WebSocketError::Control),
            (&[0x89, 0xfe], WebSocketError::Control),
            (&[0x80, 0x80, 0, 0, 0, 0], WebSocketError::Fragments),
            (
                &[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
                WebSocketError::TooLong,
            ),
        ] {
            let mut decoder = FrameDecoder::new(Role::Server);
            assert_eq!(decoder.next(&mut BytesMut::from(wire)), Err(error));
        }
    }
}
