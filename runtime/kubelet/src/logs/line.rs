//! One line of a CRI log file: `<time> <stdout|stderr> <F|P> <content>`.

use coracle_clock::Timestamp;

/// A line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) time: &'a [u8],
    pub(super) stream: &'a [u8],
    /// More of the same line follows in the next one.
    pub(super) is_partial: bool,
    pub(super) content: &'a [u8],
}

impl<'a> Line<'a> {
    /// Without its line feed; `None` for something that is no log line.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut parts = bytes.splitn(4, |byte| *byte == b' ');
        let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
        let content = parts.next().unwrap_or_default();
        let is_partial = match tags.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        matches!(stream, b"stdout" | b"stderr").then_some(Self {
            time,
            stream,
            is_partial,
            content,
        })
    }

    /// Whether it was written at `since` or later.
    pub(super) fn is_since(&self, since: Timestamp) -> bool {
        let time = std::str::from_utf8(self.time)
            .ok()
            .and_then(|time| time.parse::<Timestamp>().ok());
        time.is_some_and(|time| time >= since)
    }
}
