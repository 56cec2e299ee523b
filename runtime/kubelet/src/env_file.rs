//! Files of variables that containers write for those after them (`fileKeyRef`, KEP-3721).
//!
//! ```text
//! # a comment
//! NAME='value, which may
//! span lines'
//! ```
//!
//! A part of what a POSIX shell reads: values stand between single quotes and mean themselves.

/// The most bytes of a file that are read.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// The value of `key` in `text`. A line that is no variable is an error, which names it, even if `key`
/// stands before it: half a file is not what its writer meant.
pub(crate) fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut found = None;
    let (mut rest, mut line) = (text, 1);
    loop {
        let ignored = rest.len() - rest.trim_start().len();
        line += lines(&rest[..ignored]);
        rest = &rest[ignored..];
        if rest.is_empty() {
            return Ok(found);
        }
        if rest.starts_with('#') {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        let invalid = || format!("invalid environment variable format at line {line}");
        let (name, after) = rest.split_once('=').ok_or_else(invalid)?;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\'') {
            return Err(invalid());
        }
        let quoted = after.strip_prefix('\'').ok_or_else(invalid)?;
        let (value, after) = quoted.split_once('\'').ok_or_else(invalid)?;
        let (left, next) = after.split_at(after.find('\n').unwrap_or(after.len()));
        let left_over = left.trim();
        let is_comment = left_over.starts_with('#') && left.starts_with(char::is_whitespace);
        if !left_over.is_empty() && !is_comment {
            return Err(invalid());
        }
        if name == key && found.is_none() {
            found = Some(value.to_owned());
        }
        line += lines(value);
        rest = next;
    }
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_between_single_quotes_and_mean_themselves() {
        let text = "\n# first\nA='1'\n  B='two words'  # why\nC='a\nb $A \\n'\nA='2'\nE=''\n";
        for (key, expected) in [
            ("A", Some("1")),
            ("B", Some("two words")),
            ("C", Some("a\nb $A \\n")),
            ("D", None),
            ("E", Some("")),
        ] {
            let found = value(text, key).expect("well-formed");
            assert_eq!(found.as_deref(), expected, "{key}");
        }
        assert_eq!(value("", "A"), Ok(None));
    }

    #[test]
    fn what_is_no_variable_is_named_by_its_line() {
        for (text, line) in [
            ("A=1", 1),
            ("A='1'\nB=\"2\"", 2),
            ("A='1\n2'\n\nB", 4),
            ("A='1", 1),
            ("A='1'2", 1),
            ("A='1'#no", 1),
            ("='1'", 1),
            ("A B='1'", 1),
        ] {
            let expected = format!("invalid environment variable format at line {line}");
            assert_eq!(value(text, "A"), Err(expected), "{text:?}");
        }
    }
}
