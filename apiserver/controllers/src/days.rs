//! Days as labels write them: `2026-11-28`, in UTC.

use coracle_clock::Timestamp;

/// The day of a moment.
pub(crate) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// The first moment of a day; `None` when the text is none.
pub(crate) fn midnight(text: &str) -> Option<Timestamp> {
    let at: Timestamp = format!("{text}T00:00:00Z").parse().ok()?;
    // The parser takes more forms than upstream's.
    (day(at) == text).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_one_form() {
        let first = midnight("2026-11-28").expect("a day");
        assert_eq!(day(first), "2026-11-28");
        for text in [
            "",
            "2026-11-31",
            "20261128",
            "2026-1-1",
            "+002026-11-28",
            "x",
        ] {
            assert_eq!(midnight(text), None, "{text:?}");
        }
    }
}
