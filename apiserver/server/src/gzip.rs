//! Answers compressed while they are sent, in slices like everything that takes long.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::held::Rest;

/// Answers above this size are compressed for clients that accept it.
const ABOVE: usize = 128 * 1024;
/// Bytes that are compressed in one go: about 50 µs.
const SLICE: usize = 16 * 1024;
/// Compressed bytes that are sent together.
const PIECE: usize = 16 * 1024;

/// Whether an answer of `size` bytes is compressed for a client that sent this `Accept-Encoding`.
pub(crate) fn is_wanted(accept_encoding: Option<&str>, size: usize) -> bool {
    size > ABOVE
        && accept_encoding.is_some_and(|header| {
            header.split(',').any(|coding| {
                let mut parts = coding.split(';').map(str::trim);
                matches!(parts.next(), Some("gzip" | "*"))
                    && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
            })
        })
}

/// Bytes on their way through the compressor, at its fastest level.
pub(crate) struct Gzip {
    from: Rest,
    encoder: GzEncoder<Vec<u8>>,
}

impl Gzip {
    pub(crate) fn new(from: Rest) -> Self {
        let encoder = GzEncoder::new(Vec::with_capacity(2 * PIECE), Compression::fast());
        Self { from, encoder }
    }

    /// Compresses a slice. The answer is what can be sent, which may be nothing, and whether that was all.
    pub(crate) fn take(&mut self) -> (Bytes, bool) {
        let (piece, last) = self.from.take(SLICE);
        let written = self.encoder.write_all(&piece);
        written.expect("writing to memory");
        if last {
            self.encoder.try_finish().expect("writing to memory");
        }
        let out = self.encoder.get_mut();
        let ready = last || out.len() >= PIECE;
        let full = ready.then(|| std::mem::replace(out, Vec::with_capacity(2 * PIECE)));
        (full.map(Bytes::from).unwrap_or_default(), last)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_make_a_whole() {
        let numbers =
            (0..100_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
        for text in [
            numbers.collect::<Vec<u8>>(),
            vec![b'x'; 1_000_000],
            Vec::new(),
        ] {
            let mut gzip = Gzip::new(Rest::Bytes(text.clone().into()));
            let (mut sent, mut pieces) = (Vec::new(), 0);
            loop {
                let (piece, last) = gzip.take();
                pieces += usize::from(!piece.is_empty());
                sent.extend_from_slice(&piece);
                if last {
                    break;
                }
            }
            let mut read = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&sent[..]);
            decoder.read_to_end(&mut read).expect("gzip");
            assert_eq!(read, text);
            assert!(pieces > 2 || sent.len() < 4 * PIECE, "{pieces} pieces");
        }
    }

    #[test]
    fn small_answers_stay_plain() {
        assert!(!is_wanted(Some("gzip"), 1000));
        assert!(is_wanted(Some("br, gzip"), 200_000));
        assert!(!is_wanted(Some("gzip;q=0"), 200_000));
        assert!(!is_wanted(None, 200_000));
    }
}
