//! As much of DER as a certificate is made of. rcgen's names hold each attribute once, and a user has many groups.

use coracle_clock::Timestamp;

pub(super) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// One value: its tag, its length, its content.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length => {
            let digits = length.to_be_bytes();
            let leading = digits.iter().take_while(|digit| **digit == 0).count();
            out.push(0x80 | (digits.len() - leading) as u8);
            out.extend_from_slice(&digits[leading..]);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A SEQUENCE of encoded values.
pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    value(SEQUENCE, &parts.concat())
}

/// An OBJECT IDENTIFIER, given by its encoded content.
pub(super) fn oid(content: &[u8]) -> Vec<u8> {
    value(OID, content)
}

/// An INTEGER of big-endian bytes, which make a positive number without leading zeros.
pub(super) fn integer(bytes: &[u8]) -> Vec<u8> {
    value(INTEGER, bytes)
}

/// A BIT STRING of whole bytes.
pub(super) fn bits(bytes: &[u8]) -> Vec<u8> {
    value(BIT_STRING, &[&[0], bytes].concat())
}

/// A BIT STRING of named bits, of which bit 0 is the first.
pub(super) fn named_bits(set: u16) -> Vec<u8> {
    let reversed = set.reverse_bits().to_be_bytes();
    let count = 16 - set.leading_zeros();
    let bytes = count.div_ceil(8) as usize;
    let unused = (bytes * 8) as u8 - count as u8;
    value(BIT_STRING, &[&[unused], &reversed[..bytes]].concat())
}

/// A moment as certificates write it: two digits for the year until 2049.
pub(super) fn time(at: Timestamp) -> Vec<u8> {
    let text = at.strftime("%Y%m%d%H%M%SZ").to_string();
    match text.as_str() < "2050" {
        true => value(UTC_TIME, &text.as_bytes()[2..]),
        false => value(GENERALIZED_TIME, text.as_bytes()),
    }
}

/// An extension of a certificate.
pub(super) fn extension(id: &[u8], critical: bool, content: &[u8]) -> Vec<u8> {
    let mut parts = vec![oid(id)];
    if critical {
        parts.push(vec![0x01, 0x01, 0xff]);
    }
    parts.push(value(OCTET_STRING, content));
    sequence(&parts)
}

/// A distinguished name of attributes: the last byte of `2.5.4.x`, and the text.
pub(super) fn name(attributes: &[(u8, String)]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(attribute, text)| {
            let pair = sequence(&[
                oid(&[0x55, 0x04, *attribute]),
                value(UTF8_STRING, text.as_bytes()),
            ]);
            value(SET, &pair)
        })
        .collect();
    sequence(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_bytes_they_need() {
        assert_eq!(value(4, &[7]), [4, 1, 7]);
        assert_eq!(value(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(value(4, &[0; 256])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn named_bits_end_with_the_last_that_is_set() {
        assert_eq!(named_bits(1), [3, 2, 7, 0x80]);
        assert_eq!(named_bits(0b101), [3, 2, 5, 0xa0]);
        assert_eq!(named_bits(1 << 8), [3, 3, 7, 0, 0x80]);
    }

    #[test]
    fn years_have_two_digits_until_2049() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a moment");
        assert_eq!(
            time(at("2049-12-31T23:59:59Z")),
            value(UTC_TIME, b"491231235959Z")
        );
        assert_eq!(
            time(at("2050-01-01T00:00:00Z")),
            value(GENERALIZED_TIME, b"20500101000000Z")
        );
    }
}
