//! Blocks of headers: names and values, compressed with a dictionary that both sides know.
//!
//! A block is `count (name-length name value-length value)*` with lengths of 32 bits. All blocks of one
//! direction are one zlib stream, flushed after each block.

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::{Headers, SpdyError};

/// Most bytes of a block once it is decompressed.
const MAX_BLOCK: usize = 64 << 10;

/// The words that the dictionary begins with, each after its length.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// What follows the words, as it is.
const TAIL: &str = concat!(
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505",
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request",
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented",
    "503 Service Unavailable",
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT",
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,",
    "text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch",
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

/// The dictionary of SPDY/3 (draft 3, 2.6.10.1).
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS {
        dictionary.extend_from_slice(&(word.len() as u32).to_be_bytes());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

/// Compresses the blocks that are sent.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&DICTIONARY)
            .expect("a new stream takes a dictionary");
        Self(compress)
    }

    pub(super) fn deflate(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for (name, value) in headers {
            for part in [name, value] {
                plain.extend_from_slice(&(part.len() as u32).to_be_bytes());
                plain.extend_from_slice(part.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let status = self
                .0
                .compress_vec(&plain[done..], &mut block, FlushCompress::Sync)
                .map_err(|_| SpdyError::Headers("they cannot be compressed"))?;
            // With room to spare, the flush is complete.
            if status == Status::Ok && block.len() < block.capacity() {
                return Ok(block);
            }
            if status == Status::BufError {
                return Ok(block);
            }
            block.reserve(1024);
        }
    }
}

/// Decompresses the blocks that are received.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn inflate(&mut self, mut block: &[u8]) -> Result<Headers, SpdyError> {
        let mut plain = Vec::with_capacity(1024);
        while !block.is_empty() || plain.len() == plain.capacity() {
            if plain.len() == plain.capacity() {
                plain.reserve(1024);
            }
            let before = (self.0.total_in(), plain.len());
            let outcome = self
                .0
                .decompress_vec(block, &mut plain, FlushDecompress::Sync);
            block = &block[(self.0.total_in() - before.0) as usize..];
            match outcome {
                Ok(Status::Ok) => {}
                // Nothing more comes of what is there.
                Ok(Status::BufError) if block.is_empty() => break,
                Ok(_) => return Err(SpdyError::Headers("the compressed stream ends")),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| SpdyError::Headers("they need another dictionary"))?;
                }
                Err(_) => return Err(SpdyError::Headers("they cannot be decompressed")),
            }
            if plain.len() > MAX_BLOCK {
                return Err(SpdyError::Headers("there are too many"));
            }
        }
        parse(&plain).ok_or(SpdyError::Headers("a length leads past their end"))
    }
}

/// Reads a block; several values of one name stay one value with NULs.
fn parse(mut plain: &[u8]) -> Option<Headers> {
    let count = number(&mut plain)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut plain)?;
        headers.push((name, text(&mut plain)?));
    }
    plain.is_empty().then_some(headers)
}

fn number(plain: &mut &[u8]) -> Option<u32> {
    let (first, rest) = plain.split_first_chunk::<4>()?;
    *plain = rest;
    Some(u32::from_be_bytes(*first))
}

fn text(plain: &mut &[u8]) -> Option<String> {
    let length = number(plain)? as usize;
    let (text, rest) = plain.split_at_checked(length)?;
    *plain = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(DICTIONARY.len(), 1423);
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn a_block_of_another_implementation_is_read() {
        // By Python's zlib, with its highest level.
        let block = [
            0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xe5, 0x0e, 0x70, 0x3a, 0x2b, 0x29, 0x4a,
            0x4d, 0xcc, 0x45, 0x2a, 0x4a, 0x12, 0x21, 0xa5, 0x72, 0x11, 0x38, 0x03, 0x58, 0x18,
            0x58, 0x18, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff,
        ];
        assert_eq!(
            Inflater::new().inflate(&block).unwrap(),
            headers(&[("streamtype", "data"), ("port", "8080")])
        );
        assert!(Inflater::new().inflate(&block[..20]).is_err(), "cut short");
    }

    #[test]
    fn blocks_of_one_direction_share_their_history() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let first = headers(&[
            ("streamtype", "error"),
            ("port", "8080"),
            ("requestid", "0"),
        ]);
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let block = deflater.deflate(&first).unwrap();
            sizes.push(block.len());
            assert_eq!(inflater.inflate(&block).unwrap(), first);
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
        assert_eq!(
            inflater
                .inflate(&deflater.deflate(&Headers::new()).unwrap())
                .unwrap(),
            Headers::new()
        );
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let bomb = headers(&[("a", &"x".repeat(1 << 20))]);
        let block = Deflater::new().deflate(&bomb).unwrap();
        assert!(block.len() < 32 << 10, "it fits a frame");
        let error = Inflater::new().inflate(&block).unwrap_err();
        assert_eq!(error, SpdyError::Headers("there are too many"));
    }

    proptest! {
        #[test]
        fn blocks_come_back(blocks in proptest::collection::vec(
            proptest::collection::vec(("[a-z-]{0,20}", ".{0,300}"), 0..8), 0..4,
        )) {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            for block in blocks {
                let sent = deflater.deflate(&block).unwrap();
                prop_assert_eq!(inflater.inflate(&sent).unwrap(), block);
            }
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Inflater::new().inflate(&bytes);
            let mut framed = vec![0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
            framed.extend(&bytes);
            let _ = Inflater::new().inflate(&framed);
            let _ = parse(&bytes);
        }
    }
}
