//! UIDs as caches hold them: of each object several.

/// A UID in the 16 bytes that it stands for, if it is one of the usual form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Uid {
    Usual([u8; 16]),
    Other(Box<str>),
}

impl Uid {
    /// The UID that is written so.
    pub(crate) fn of(text: &str) -> Self {
        Self::usual(text).unwrap_or_else(|| Self::Other(text.into()))
    }

    fn usual(text: &str) -> Option<Self> {
        let (mut bytes, mut digits) = ([0; 16], 0);
        for (at, byte) in text.bytes().enumerate() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                b'-' if matches!(at, 8 | 13 | 18 | 23) => continue,
                _ => return None,
            };
            let place: &mut u8 = bytes.get_mut(digits / 2)?;
            *place = *place << 4 | digit;
            digits += 1;
        }
        (text.len() == 36 && digits == 32).then_some(Self::Usual(bytes))
    }

    /// The UID as it was written.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Other(text) => text.to_string(),
            Self::Usual(bytes) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
                parts.map(|part| &digits[part]).join("-")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_come_back_as_they_were() {
        for text in [
            "0b7d1f4e-93a5-4c1e-8d2f-00ff10a2b3c4",
            "0B7D1F4E-93A5-4C1E-8D2F-00FF10A2B3C4",
            "0b7d1f4e93a54c1e8d2f00ff10a2b3c4",
            "0b7d1f4e-93a5-4c1e-8d2f-00ff10a2b3c",
            "0b7d1f4e93a54c1e8d2f00ff10a2b3c4----",
            "uid-one",
            "",
        ] {
            assert_eq!(Uid::of(text).text(), text);
        }
        assert!(Uid::usual("0b7d1f4e-93a5-4c1e-8d2f-00ff10a2b3c4").is_some());
        assert_eq!(size_of::<Uid>(), 24);
    }
}
