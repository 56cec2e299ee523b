//! What `curl` sends, as `-d` and its like say.

use std::io::Read;

use crate::context::Cx;
use crate::failure::Failure;
use crate::options::Options;

/// `-d`: files lose their line ends.
pub const PLAIN: char = 'd';
/// `--data-raw`: an `@` is text.
pub const RAW: char = '5';
/// `--data-binary`: files as they are.
pub const BINARY: char = '6';
/// `--data-urlencode`.
pub const ENCODED: char = '7';
/// `--json`: as binary, and several make one text.
pub const JSON: char = '8';

/// All that is sent, in the order of the options; `None` without any of them.
pub fn read(cx: &mut Cx, options: &Options) -> Result<Option<Vec<u8>>, Failure> {
    let mut body: Option<Vec<u8>> = None;
    for (kind, value) in options.of(&[PLAIN, RAW, BINARY, ENCODED, JSON]) {
        let mut piece = match (kind, value.strip_prefix('@')) {
            (ENCODED, _) => encoded(cx, value)?,
            (PLAIN | BINARY | JSON, Some(name)) => file(cx, name)?,
            _ => value.as_bytes().to_vec(),
        };
        if kind == PLAIN && value.starts_with('@') {
            piece.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        }
        match &mut body {
            None => body = Some(piece),
            Some(body) => {
                if kind != JSON {
                    body.push(b'&');
                }
                body.append(&mut piece);
            }
        }
    }
    Ok(body)
}

/// The contents of a file; `-` is the standard input.
fn file(cx: &mut Cx, name: &str) -> Result<Vec<u8>, Failure> {
    let mut contents = Vec::new();
    if name == "-" {
        cx.input.clone().read_to_end(&mut contents)?;
        return Ok(contents);
    }
    let opened = crate::filter::open(cx, name);
    let mut opened = opened.map_err(|error| Failure::file(name, &error))?;
    opened.read_to_end(&mut contents)?;
    Ok(contents)
}

/// `content`, `=content`, `name=content`, `@file` or `name@file`.
fn encoded(cx: &mut Cx, value: &str) -> Result<Vec<u8>, Failure> {
    let (name, contents) = match value.find(['=', '@']) {
        None => ("", value.as_bytes().to_vec()),
        Some(at) => {
            let (name, rest) = (&value[..at], &value[at + 1..]);
            match value.as_bytes()[at] {
                b'@' => (name, file(cx, rest)?),
                _ => (name, rest.as_bytes().to_vec()),
            }
        }
    };
    let mut text = name.to_owned();
    if !name.is_empty() {
        text.push('=');
    }
    for byte in contents {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(byte as char);
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(text.into_bytes())
}
