//! PEM blocks, and as much of DER as tells a certificate from noise.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// One `-----BEGIN …-----` block.
pub(super) struct Block {
    /// What the first line names, such as `CERTIFICATE`.
    pub label: String,
    /// Whether there are headers such as `Proc-Type: …`.
    pub headers: bool,
    /// The decoded content.
    pub bytes: Vec<u8>,
}

/// The well-formed blocks of `text`, in order; whatever stands between them is skipped, as Go's `pem.Decode` does.
pub(super) fn blocks(text: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(text);
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(label) = marker(line, "-----BEGIN ") else {
            continue;
        };
        let mut rest = lines.clone();
        let (mut content, mut headers, mut ended) = (String::new(), false, false);
        for line in rest.by_ref() {
            if let Some(end) = marker(line, "-----END ") {
                ended = end == label;
                break;
            }
            match line.contains(": ") {
                true => headers = true,
                false => content.push_str(line.trim()),
            }
        }
        if let (true, Ok(bytes)) = (ended, BASE64.decode(&content)) {
            found.push(Block {
                label: label.to_owned(),
                headers,
                bytes,
            });
            lines = rest;
        }
    }
    found
}

fn marker<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.trim_end().strip_prefix(begin)?.strip_suffix("-----")
}

/// The content of the DER sequence that `bytes` are, when they are one and nothing else.
pub(super) fn sequence(bytes: &[u8]) -> Result<&[u8], Shape> {
    let [tag, length, rest @ ..] = bytes else {
        return Err(Shape::Truncated);
    };
    let (length, content) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let count = usize::from(length & 0x7f);
            if rest.len() < count {
                return Err(Shape::Truncated);
            }
            let (digits, content) = rest.split_at(count);
            let length = digits
                .iter()
                .fold(0, |all, digit| all << 8 | usize::from(*digit));
            (length, content)
        }
        _ => return Err(Shape::Truncated),
    };
    if content.len() < length {
        return Err(Shape::Truncated);
    }
    if *tag != 0x30 {
        return Err(Shape::OtherTag { tag: *tag, length });
    }
    if content.len() > length {
        return Err(Shape::Trailing);
    }
    Ok(content)
}

/// Why bytes are not one DER sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// They end too early.
    Truncated,
    /// They are something else.
    OtherTag {
        /// The identifier octet.
        tag: u8,
        /// The length that it states.
        length: usize,
    },
    /// Something follows.
    Trailing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = b"hello\n-----BEGIN A-----\nMAA=\n-----END A-----\n-----BEGIN B-----\nx: y\n\nMAA=\n-----END B-----\n-----BEGIN C-----\n";
        let found = blocks(text);
        let shown: Vec<(&str, bool, &[u8])> = found
            .iter()
            .map(|block| (block.label.as_str(), block.headers, block.bytes.as_slice()))
            .collect();
        assert_eq!(
            shown,
            [("A", false, &[0x30, 0][..]), ("B", true, &[0x30, 0])]
        );
    }

    #[test]
    fn a_sequence_is_told_from_other_bytes() {
        assert_eq!(sequence(&[0x30, 1, 7]), Ok(&[7][..]));
        assert_eq!(sequence(&[0x30, 0x81, 1, 7]), Ok(&[7][..]));
        assert_eq!(sequence(&[0x30, 2, 7]), Err(Shape::Truncated));
        assert_eq!(sequence(&[0x30, 0, 7]), Err(Shape::Trailing));
        assert_eq!(
            sequence(&[4, 0]),
            Err(Shape::OtherTag { tag: 4, length: 0 })
        );
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x84],
            &[0x30, 0x80],
            &[0x30, 0x84, 255, 255, 255, 255],
        ] {
            assert_eq!(sequence(bytes), Err(Shape::Truncated));
        }
    }
}
