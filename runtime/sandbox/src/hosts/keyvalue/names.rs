//! Keys and buckets as names of files.
//!
//! Lower-case letters, digits and `-_.` stand for themselves, all else is `%` with two digits: upper
//! case too, since some file systems do not tell it from lower case. No name begins with a dot; so
//! those of unfinished files can.

use super::{Failure, Outcome, other};

/// Longest name of a file that every file system takes.
const MAX_NAME: usize = 240;

/// The name of `key`'s file, or why there can be none.
pub(super) fn encode(key: &str) -> Outcome<String> {
    // The empty key has a name that no other has.
    if key.is_empty() {
        return Ok("%".to_owned());
    }
    let mut name = String::with_capacity(key.len());
    for (at, byte) in key.bytes().enumerate() {
        let plain = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if plain || (byte == b'.' && at > 0) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
        if name.len() > MAX_NAME {
            return Err(too_long(key));
        }
    }
    Ok(name)
}

fn too_long(key: &str) -> Failure {
    other(format!(
        "a name of {} bytes is too long: {MAX_NAME} are kept, and those that are no lower-case letter \
         or digit count three times",
        key.len()
    ))
}

/// The key of the file called `name`; `None` when it is no such file.
pub(super) fn decode(name: &str) -> Option<String> {
    if name == "%" {
        return Some(String::new());
    }
    if name.starts_with('.') {
        return None;
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let key = String::from_utf8(bytes).ok()?;
    // Files that a guest made itself may have names that no key gets.
    (encode(&key).ok()? == name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_name_and_every_name_one_key() {
        for (key, name) in [
            ("", "%"),
            ("plain-key_1.txt", "plain-key_1.txt"),
            (".hidden", "%2ehidden"),
            ("..", "%2e."),
            ("a/b", "a%2fb"),
            ("User:7", "%55ser%3a7"),
            ("ü", "%c3%bc"),
            ("%", "%25"),
        ] {
            assert_eq!(encode(key).unwrap(), name);
            assert_eq!(decode(name).as_deref(), Some(key));
        }
        for name in [".tmp", "A", "%4", "%zz", "%2E", "%ff", "a b"] {
            assert_eq!(decode(name), None, "{name}");
        }
        assert!(encode(&"x".repeat(240)).is_ok());
        assert!(encode(&"x".repeat(241)).is_err());
        assert!(encode(&"/".repeat(81)).is_err());
    }
}
