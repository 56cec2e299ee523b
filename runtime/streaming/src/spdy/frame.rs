//! Frames on the wire, in both directions, without any I/O.
//!
//! ```text
//! control: 1|version 15|type 16 | flags 8|length 24 | payload
//! data:    0|stream 31          | flags 8|length 24 | payload
//! ```
//!
//! Data comes in pieces as it arrives; a control frame is read whole, and bounded.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::headers::{Deflater, Inflater};

/// Names and values, in order.
pub type Headers = Vec<(String, String)>;

/// The version in control frames.
const VERSION: u16 = 3;
/// Most bytes of a control frame; every one that anybody sends is far below.
const MAX_CONTROL: usize = 64 << 10;
/// In the flags of several frames: nothing follows in this direction.
const FIN: u8 = 1;

/// What a peer said that is not SPDY.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// A control frame of another version.
    #[error("SPDY version {0} is not spoken here")]
    Version(u16),
    /// A control frame longer than any that makes sense.
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    /// A frame whose payload does not fit its type.
    #[error("a frame of type {0} is malformed")]
    Malformed(u16),
    /// Headers that cannot be read.
    #[error("headers cannot be read: {0}")]
    Headers(&'static str),
    /// The peer breaks a rule of the protocol.
    #[error("the peer {0}")]
    Protocol(&'static str),
}

/// Why a stream is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// A rule was broken.
    Protocol = 1,
    /// There is no such stream.
    InvalidStream = 2,
    /// It was refused before anything was done.
    Refused = 3,
    /// Its opener does not want it any more.
    Cancel = 5,
}

/// One frame, or one piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    SynStream {
        /// Its number; odd from clients.
        stream: u32,
        /// Its opener sends nothing but these headers.
        fin: bool,
        /// What it is for.
        headers: Headers,
    },
    /// A stream is taken on.
    SynReply {
        /// Which.
        stream: u32,
        /// Nothing follows in this direction.
        fin: bool,
        /// What there is to say about it.
        headers: Headers,
    },
    /// Further headers.
    Headers {
        /// Of which stream.
        stream: u32,
        /// Nothing follows in this direction.
        fin: bool,
        /// What there is to say about it.
        headers: Headers,
    },
    /// A stream is over in both directions.
    RstStream {
        /// Which.
        stream: u32,
        /// Why, as a number of [`Reset`] or another.
        status: u32,
    },
    /// Settings: number and value.
    Settings(Vec<(u32, u32)>),
    /// A question to be sent back as it is, or its answer.
    Ping(u32),
    /// No further streams are taken on.
    GoAway {
        /// The last one that was.
        last: u32,
        /// Why; zero is a good reason.
        status: u32,
    },
    /// So many more bytes may be sent.
    WindowUpdate {
        /// On which stream; zero is all of them together.
        stream: u32,
        /// Bytes.
        delta: u32,
    },
    /// Bytes of a stream.
    Data {
        /// Which.
        stream: u32,
        /// Nothing follows in this direction.
        fin: bool,
        /// The bytes, or the next of them.
        bytes: Bytes,
    },
}

/// Reads frames.
pub struct FrameDecoder {
    inflater: Inflater,
    /// The data frame that is on its way: stream, bytes to come, flags.
    data: Option<(u32, usize, u8)>,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self {
            inflater: Inflater::new(),
            data: None,
        }
    }
}

/// A codec has one type for what the peer got wrong and for what the connection did.
impl From<SpdyError> for std::io::Error {
    fn from(error: SpdyError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = std::io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, std::io::Error> {
        Ok(self.next(source)?)
    }
}

impl FrameDecoder {
    /// The next frame of what has arrived, if it is complete.
    pub fn next(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some((stream, left, flags)) = self.data {
                if source.is_empty() && left > 0 {
                    return Ok(None);
                }
                let bytes = source.split_to(left.min(source.len())).freeze();
                let left = left - bytes.len();
                self.data = (left > 0).then_some((stream, left, flags));
                let fin = left == 0 && flags & FIN != 0;
                return Ok(Some(Frame::Data { stream, fin, bytes }));
            }
            let Some(head) = source.first_chunk::<8>() else {
                return Ok(None);
            };
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let flags = head[4];
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if first >> 31 == 0 {
                source.advance(8);
                self.data = Some((first, length, flags));
                continue;
            }
            let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
            if version != VERSION {
                return Err(SpdyError::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(SpdyError::TooLong(length));
            }
            if source.len() < 8 + length {
                source.reserve(8 + length - source.len());
                return Ok(None);
            }
            source.advance(8);
            let payload = source.split_to(length);
            if let Some(frame) = self.control(kind, flags, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// A control frame; `None` for types that nobody needs to know.
    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        payload: &[u8],
    ) -> Result<Option<Frame>, SpdyError> {
        let malformed = || SpdyError::Malformed(kind);
        let number = |at: usize| -> Result<u32, SpdyError> {
            let bytes = payload.get(at..at + 4).ok_or_else(malformed)?;
            Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
        };
        let stream = || Ok(number(0)? & 0x7fff_ffff);
        let fin = flags & FIN != 0;
        let mut headers = |at: usize| {
            let block = payload.get(at..).ok_or_else(malformed)?;
            self.inflater.inflate(block)
        };
        Ok(Some(match kind {
            1 => Frame::SynStream {
                stream: stream()?,
                fin,
                headers: headers(10)?,
            },
            2 => Frame::SynReply {
                stream: stream()?,
                fin,
                headers: headers(4)?,
            },
            3 => Frame::RstStream {
                stream: stream()?,
                status: number(4)?,
            },
            4 => {
                let (entries, rest) = payload.get(4..).ok_or_else(malformed)?.as_chunks::<8>();
                if !rest.is_empty() || entries.len() != number(0)? as usize {
                    return Err(malformed());
                }
                let entry = |entry: &[u8; 8]| {
                    let [_, a, b, c, value @ ..] = *entry;
                    (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes(value))
                };
                Frame::Settings(entries.iter().map(entry).collect())
            }
            6 => Frame::Ping(number(0)?),
            7 => Frame::GoAway {
                last: stream()?,
                status: number(4)?,
            },
            8 => Frame::Headers {
                stream: stream()?,
                fin,
                headers: headers(4)?,
            },
            9 => Frame::WindowUpdate {
                stream: stream()?,
                delta: number(4)? & 0x7fff_ffff,
            },
            _ => return Ok(None),
        }))
    }
}

/// Writes frames.
pub struct FrameEncoder(Deflater);

impl Default for FrameEncoder {
    fn default() -> Self {
        Self(Deflater::new())
    }
}

impl FrameEncoder {
    /// Appends `frame` to what is to be sent. Fails on headers that are too long for a frame, and on
    /// more data than one frame holds (16 MiB).
    pub fn encode(&mut self, frame: &Frame, target: &mut BytesMut) -> Result<(), SpdyError> {
        let flags = |fin: bool| if fin { FIN } else { 0 };
        let mut control = |kind: u16, flags: u8, payload: &[u8]| {
            target.put_u16(0x8000 | VERSION);
            target.put_u16(kind);
            head(target, flags, payload)
        };
        let numbers = |first: u32, second: u32| {
            let mut payload = [0; 8];
            payload[..4].copy_from_slice(&first.to_be_bytes());
            payload[4..].copy_from_slice(&second.to_be_bytes());
            payload
        };
        match frame {
            Frame::SynStream {
                stream,
                fin,
                headers,
            } => {
                let mut payload = stream.to_be_bytes().to_vec();
                // No stream that it belongs to, no priority, no certificate.
                payload.extend_from_slice(&[0; 6]);
                payload.extend(self.0.deflate(headers)?);
                control(1, flags(*fin), &payload)
            }
            Frame::SynReply {
                stream,
                fin,
                headers,
            } => {
                let mut payload = stream.to_be_bytes().to_vec();
                payload.extend(self.0.deflate(headers)?);
                control(2, flags(*fin), &payload)
            }
            Frame::Headers {
                stream,
                fin,
                headers,
            } => {
                let mut payload = stream.to_be_bytes().to_vec();
                payload.extend(self.0.deflate(headers)?);
                control(8, flags(*fin), &payload)
            }
            Frame::RstStream { stream, status } => control(3, 0, &numbers(*stream, *status)),
            Frame::Settings(entries) => {
                let mut payload = (entries.len() as u32).to_be_bytes().to_vec();
                for (number, value) in entries {
                    payload.extend_from_slice(&numbers(number & 0xff_ffff, *value));
                }
                control(4, 0, &payload)
            }
            Frame::Ping(number) => control(6, 0, &number.to_be_bytes()),
            Frame::GoAway { last, status } => control(7, 0, &numbers(*last, *status)),
            Frame::WindowUpdate { stream, delta } => control(9, 0, &numbers(*stream, *delta)),
            Frame::Data { stream, fin, bytes } => {
                target.put_u32(stream & 0x7fff_ffff);
                head(target, flags(*fin), bytes)
            }
        }
    }
}

/// Flags, length and payload.
fn head(target: &mut BytesMut, flags: u8, payload: &[u8]) -> Result<(), SpdyError> {
    if payload.len() > 0xff_ffff {
        return Err(SpdyError::TooLong(payload.len()));
    }
    target.put_u32(u32::from(flags) << 24 | payload.len() as u32);
    target.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let headers = || proptest::collection::vec(("[a-z]{1,9}", "[ -~]{0,20}"), 0..4);
        let stream = || 1_u32..0x7fff_ffff;
        prop_oneof![
            (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| {
                Frame::SynStream {
                    stream,
                    fin,
                    headers,
                }
            }),
            (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| {
                Frame::SynReply {
                    stream,
                    fin,
                    headers,
                }
            }),
            (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| {
                Frame::Headers {
                    stream,
                    fin,
                    headers,
                }
            }),
            (stream(), any::<u32>())
                .prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            proptest::collection::vec((0_u32..1 << 24, any::<u32>()), 0..4)
                .prop_map(Frame::Settings),
            any::<u32>().prop_map(Frame::Ping),
            (stream(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (stream(), 0_u32..1 << 31)
                .prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
            (
                stream(),
                any::<bool>(),
                proptest::collection::vec(any::<u8>(), 0..300)
            )
                .prop_map(|(stream, fin, bytes)| Frame::Data {
                    stream,
                    fin,
                    bytes: bytes.into()
                }),
        ]
    }

    /// Joins the pieces of data frames: bytes of a stream mean the same in pieces.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut joined: Vec<Frame> = Vec::new();
        for frame in frames {
            match (joined.last_mut(), frame) {
                (
                    Some(Frame::Data {
                        stream: before,
                        fin: last,
                        bytes: kept,
                    }),
                    Frame::Data { stream, fin, bytes },
                ) if *before == stream && !*last => {
                    *kept = [kept.as_ref(), bytes.as_ref()].concat().into();
                    *last = fin;
                }
                (_, frame) => joined.push(frame),
            }
        }
        joined
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(
            sent in proptest::collection::vec(frames(), 0..12),
            cut in 1_usize..64,
        ) {
            let (mut encoder, mut decoder) = (FrameEncoder::default(), FrameDecoder::default());
            let mut wire = BytesMut::new();
            for frame in &sent {
                encoder.encode(frame, &mut wire).unwrap();
            }
            let (mut source, mut received) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                source.extend_from_slice(piece);
                while let Some(frame) = decoder.next(&mut source).unwrap() {
                    received.push(frame);
                }
            }
            prop_assert!(source.is_empty());
            prop_assert_eq!(joined(received), joined(sent));
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u8..12) {
            let mut decoder = FrameDecoder::default();
            let mut source = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.next(&mut source) {}
            // A control frame of every type with these bytes for a payload.
            let mut source = BytesMut::from(&[0x80, 3, 0, kind, 0, 0, 0, bytes.len().min(255) as u8][..]);
            source.extend_from_slice(&bytes);
            let mut decoder = FrameDecoder::default();
            while let Ok(Some(_)) = decoder.next(&mut source) {}
        }
    }

    #[test]
    fn what_is_not_spdy_is_refused() {
        for (wire, error) in [
            (&[0x80, 2, 0, 1, 0, 0, 0, 0][..], SpdyError::Version(2)),
            (&[0x80, 3, 0, 1, 0, 1, 0, 1], SpdyError::TooLong(0x1_0001)),
            (&[0x80, 3, 0, 6, 0, 0, 0, 1, 0], SpdyError::Malformed(6)),
            (
                &[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
                SpdyError::Malformed(4),
            ),
        ] {
            let mut decoder = FrameDecoder::default();
            assert_eq!(decoder.next(&mut BytesMut::from(wire)), Err(error));
        }
    }
}
