//! Text as Go's `%q` writes it, which programs that read labels and annotations from files take apart again.

use std::fmt::Write as _;

/// `text` between quotation marks, with what cannot be printed escaped (Go's `strconv.Quote`).
pub(crate) fn quoted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push('"');
    for letter in text.chars() {
        match letter {
            '"' => shown.push_str("\\\""),
            '\\' => shown.push_str("\\\\"),
            '\x07' => shown.push_str("\\a"),
            '\x08' => shown.push_str("\\b"),
            '\x0c' => shown.push_str("\\f"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\x0b' => shown.push_str("\\v"),
            _ if is_printable(letter) => shown.push(letter),
            _ => {
                let code = u32::from(letter);
                let written = match code {
                    0..0x80 => write!(shown, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(shown, "\\u{code:04x}"),
                    _ => write!(shown, "\\U{code:08x}"),
                };
                written.expect("a String takes everything");
            }
        }
    }
    shown.push('"');
    shown
}

/// Whether Go prints it as it is. Rust's `Debug` agrees, but for marks that begin a text.
fn is_printable(letter: char) -> bool {
    let after_another = ['x', letter].iter().collect::<String>();
    matches!(letter, ' '..='~') || after_another.escape_debug().nth(1) == Some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        for (text, expected) in [
            ("", r#""""#),
            ("it's \"so\"\\", r#""it's \"so\"\\""#),
            ("a\tb\r\n", r#""a\tb\r\n""#),
            ("\0\x07\x08\x0b\x0c\x1b\x7f", r#""\x00\a\b\v\f\x1b\x7f""#),
            ("\u{a0}\u{200d}\u{e000}", r#""\u00a0\u200d\ue000""#),
            ("\u{e0001}", r#""\U000e0001""#),
            // Accents that are letters of their own are printed, also as the first one.
            ("\u{301}e\u{301}é 語 🎉", "\"\u{301}e\u{301}é 語 🎉\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
