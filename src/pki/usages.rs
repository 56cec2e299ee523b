//! The API's words for key usages, as certificates write them (`keyUsagesFromStrings` upstream).

/// The usages of one certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usages {
    /// Bits of the key usage; bit 0 is digitalSignature.
    pub(super) key: u16,
    /// Extended key usages: contents of object identifiers.
    pub(super) extended: Vec<&'static [u8]>,
}

const KEY: [(&str, u16); 10] = [
    ("signing", 1),
    ("digital signature", 1),
    ("content commitment", 1 << 1),
    ("key encipherment", 1 << 2),
    ("data encipherment", 1 << 3),
    ("key agreement", 1 << 4),
    ("cert sign", 1 << 5),
    ("crl sign", 1 << 6),
    ("encipher only", 1 << 7),
    ("decipher only", 1 << 8),
];

/// In Go's order, which is the order in a certificate.
const EXTENDED: [(&str, &[u8]); 13] = [
    ("any", &[0x55, 0x1d, 0x25, 0x00]),
    ("server auth", &purpose(1)),
    ("client auth", &purpose(2)),
    ("code signing", &purpose(3)),
    ("email protection", &purpose(4)),
    ("s/mime", &purpose(4)),
    ("ipsec end system", &purpose(5)),
    ("ipsec tunnel", &purpose(6)),
    ("ipsec user", &purpose(7)),
    ("timestamping", &purpose(8)),
    ("ocsp signing", &purpose(9)),
    (
        "microsoft sgc",
        &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x0a, 0x03, 0x03],
    ),
    (
        "netscape sgc",
        &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x42, 0x04, 0x01],
    ),
];

/// 1.3.6.1.5.5.7.3.x
const fn purpose(last: u8) -> [u8; 8] {
    [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, last]
}

/// The usages that these words stand for; the error names the words that stand for none.
pub(super) fn of(words: &[String]) -> Result<Usages, String> {
    let mut usages = Usages::default();
    let is_extended = |word: &str| EXTENDED.iter().any(|(known, _)| *known == word);
    let mut unknown = Vec::new();
    for word in words {
        match KEY.iter().find(|(known, _)| known == word) {
            Some((_, bit)) => usages.key |= bit,
            None if is_extended(word) => {}
            None => unknown.push(format!("{word:?}")),
        }
    }
    if !unknown.is_empty() {
        return Err(format!(
            "unrecognized usage values: [{}]",
            unknown.join(" ")
        ));
    }
    for (known, id) in EXTENDED {
        if words.iter().any(|word| word == known) && !usages.extended.contains(&id) {
            usages.extended.push(id);
        }
    }
    Ok(usages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMAIL: &[u8] = &purpose(4);

    #[test]
    fn words_become_bits_and_identifiers() {
        let of = |words: &[&str]| of(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let usages = of(&["s/mime", "email protection", "signing", "key encipherment"]);
        let wanted = Usages {
            key: 0b101,
            extended: vec![EMAIL],
        };
        assert_eq!(usages, Ok(wanted));
        assert_eq!(
            of(&["any", "x", "y"]),
            Err("unrecognized usage values: [\"x\" \"y\"]".to_owned())
        );
    }
}
