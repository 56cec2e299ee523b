//! One spelling for each path, so that no other spelling goes around a rule.

use std::borrow::Cow;

/// The path as it is compared: `.` and `..` are resolved, characters that need no percent sign have none, others have one,
/// with capital digits. `%2F` stays: it is no separator of elements. What is forwarded is the path that was sent.
pub(crate) fn normal(path: &str) -> Cow<'_, str> {
    let needs_work = |byte: u8| byte == b'%' || !is_path_byte(byte);
    if path.starts_with('/') && !path.bytes().any(needs_work) && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    Cow::Owned(without_dots(&decoded(path)))
}

fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        // `*` of OPTIONS, and the empty path of an Ingress.
        return "/".to_owned();
    }
    let mut at = 0;
    while at < bytes.len() {
        let encoded = bytes[at] == b'%';
        let hex = |offset: usize| {
            let digit = char::from(*bytes.get(at + offset)?);
            digit.to_digit(16)
        };
        let value = match (encoded, hex(1), hex(2)) {
            (true, Some(high), Some(low)) => {
                at += 2;
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            _ => bytes[at],
        };
        at += 1;
        let is_plain = match encoded {
            true => is_unreserved(value),
            false => is_path_byte(value) && value != b'%',
        };
        if is_plain {
            out.push(char::from(value));
        } else {
            out.push_str(&format!("%{value:02X}"));
        }
    }
    out
}

/// As RFC 3986, 5.2.4, for an absolute path.
fn without_dots(path: &str) -> String {
    let mut elements: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for element in path.split('/').skip(1) {
        ends_in_folder = false;
        match element {
            "." => ends_in_folder = true,
            ".." => {
                elements.pop();
                ends_in_folder = true;
            }
            other => elements.push(other),
        }
    }
    let mut out = String::with_capacity(path.len());
    for element in &elements {
        out.push('/');
        out.push_str(element);
    }
    if ends_in_folder || out.is_empty() {
        out.push('/');
    }
    out
}

/// Characters that mean the same with and without a percent sign.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Characters that may stand in a path.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,;=:@%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_has_one_spelling() {
        let cases = [
            ("/", "/"),
            ("", "/"),
            ("*", "/"),
            ("/a/b/", "/a/b/"),
            ("/a//b", "/a//b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/../../b", "/b"),
            ("/%2e%2e/b", "/b"),
            ("/a/%2E%2e/b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b", "/a%20b"),
            ("/a b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/%c3%a9", "/%C3%A9"),
            ("/100%", "/100%25"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
        ];
        for (path, wanted) in cases {
            assert_eq!(normal(path), wanted, "{path}");
        }
    }

    proptest! {
        #[test]
        fn normal_paths_stay_as_they_are(path in "(/[a-zA-Z0-9%./ é]{0,6}){0,5}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(normal(&once), once.as_str());
            prop_assert!(once.starts_with('/'));
            let no_dots = once.split('/').all(|element| element != "." && element != "..");
            prop_assert!(no_dots, "{}", once);
        }
    }
}
