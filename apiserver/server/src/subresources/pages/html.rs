//! The links of an HTML page, found and changed as the page goes by.
//!
//! ```text
//! text ──<name …>──▶ a tag: its links change ──▶ text, or raw text until </name
//!   ├───<!-- ──────▶ a comment, until -->
//!   └───</ <! <? ──▶ as it is, until >
//! ```
//!
//! All but the values that change stays as it was, byte for byte. What is cut in two by the pieces that a page comes in
//! is kept until the rest is there, up to [`MOST_KEPT`]; what there is of a longer tag goes by as it is.

use super::links::Links;

/// Most bytes that wait for the rest of a tag.
const MOST_KEPT: usize = 64 * 1024;

/// Attributes with links, by tag; as upstream's `atomsToAttrs`.
const WITH_LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Tags in which nothing is a tag but their own end.
const RAW: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];

/// A page on its way.
pub(crate) struct Page {
    links: Links,
    place: Place,
    kept: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Place {
    Text,
    Comment,
    /// Within one of [`RAW`].
    Raw(&'static str),
}

/// What to do with the beginning of what is there.
enum Next {
    /// So many bytes go by.
    Pass(usize),
    /// A tag of so many bytes.
    Tag(usize),
    /// More is needed to tell.
    More,
}

impl Page {
    /// The beginning of a page with links that are seen so.
    pub(crate) fn new(links: Links) -> Self {
        Self {
            links,
            place: Place::Text,
            kept: Vec::new(),
        }
    }

    /// Takes the next bytes, and adds to `out` what can be sent on.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.kept.extend_from_slice(bytes);
        let (kept, mut at) = (std::mem::take(&mut self.kept), 0);
        loop {
            let rest = &kept[at..];
            match self.next(rest) {
                Next::Pass(0) => break,
                Next::Pass(length) => {
                    out.extend_from_slice(&rest[..length]);
                    at += length;
                }
                Next::Tag(length) => {
                    let name = changed(&rest[..length], &self.links, out);
                    if let Some(name) = RAW.iter().find(|raw| name.eq_ignore_ascii_case(raw)) {
                        self.place = Place::Raw(name);
                    }
                    at += length;
                }
                Next::More if rest.len() < MOST_KEPT => break,
                Next::More => {
                    out.extend_from_slice(rest);
                    at = kept.len();
                }
            }
        }
        self.kept = kept[at..].to_vec();
    }

    /// Nothing follows.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.kept);
    }

    /// Looks at the beginning of `rest`, and moves on to another place where one begins.
    fn next(&mut self, rest: &[u8]) -> Next {
        match self.place {
            Place::Text => self.text(rest),
            Place::Comment => match find(rest, b"-->") {
                Some(at) => {
                    self.place = Place::Text;
                    Next::Pass(at + 3)
                }
                None => Next::Pass(rest.len().saturating_sub(2)),
            },
            Place::Raw(name) => match raw_end(rest, name) {
                Some(0) => {
                    self.place = Place::Text;
                    self.text(rest)
                }
                Some(at) => Next::Pass(at),
                None => Next::Pass(rest.len().saturating_sub(name.len() + 2)),
            },
        }
    }

    fn text(&mut self, rest: &[u8]) -> Next {
        match rest.iter().position(|byte| *byte == b'<') {
            None => return Next::Pass(rest.len()),
            Some(0) => {}
            Some(at) => return Next::Pass(at),
        }
        match rest.get(1) {
            None => Next::More,
            Some(letter) if letter.is_ascii_alphabetic() => match tag_end(rest) {
                Some(end) => Next::Tag(end),
                None => Next::More,
            },
            Some(b'!') if rest.starts_with(b"<!--") => {
                // `<!-->` and `<!--->` are whole comments.
                for whole in [&b"<!-->"[..], b"<!--->"] {
                    if rest.starts_with(whole) {
                        return Next::Pass(whole.len());
                    }
                }
                if rest.len() < b"<!--->".len() {
                    return Next::More;
                }
                self.place = Place::Comment;
                Next::Pass(4)
            }
            Some(b'!') if b"<!--".starts_with(rest) => Next::More,
            Some(b'!' | b'/' | b'?') => match rest.iter().position(|byte| *byte == b'>') {
                Some(at) => Next::Pass(at + 1),
                None => Next::More,
            },
            Some(_) => Next::Pass(1),
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

/// Where the end tag of `name` begins.
fn raw_end(text: &[u8], name: &str) -> Option<usize> {
    let length = name.len() + 2;
    let ends = |at: &usize| {
        let part = &text[*at..at + length];
        part.starts_with(b"</")
            && part[2..].eq_ignore_ascii_case(name.as_bytes())
            && matches!(
                text[at + length],
                b'>' | b'/' | b' ' | b'\t' | b'\n' | b'\r' | 0x0c
            )
    };
    (0..text.len().saturating_sub(length)).find(ends)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

/// How long the tag is that `text` begins with.
fn tag_end(text: &[u8]) -> Option<usize> {
    let mut tag = Tag::new(text);
    while tag.attribute().is_some() {}
    (text.get(tag.at) == Some(&b'>')).then_some(tag.at + 1)
}

/// Copies a whole tag to `out` with its links as they are seen, and answers its name.
fn changed<'a>(text: &'a [u8], links: &Links, out: &mut Vec<u8>) -> &'a str {
    let mut tag = Tag::new(text);
    let name = std::str::from_utf8(&text[1..tag.at]).unwrap_or_default();
    let with_links = WITH_LINKS
        .iter()
        .find(|(other, _)| name.eq_ignore_ascii_case(other));
    let mut copied = 0;
    if let Some((_, attributes)) = with_links {
        while let Some(Attribute { key, value }) = tag.attribute() {
            let is = |other: &&str| key.eq_ignore_ascii_case(other.as_bytes());
            let link = match std::str::from_utf8(&text[value.clone()]) {
                Ok(link) if attributes.iter().any(is) => unescaped(link),
                _ => continue,
            };
            let Some(seen) = links.seen(&link).filter(|seen| *seen != link) else {
                continue;
            };
            out.extend_from_slice(&text[copied..value.start]);
            let quoted = matches!(text[value.start - 1], b'"' | b'\'');
            let seen = escaped(&seen);
            match quoted {
                true => out.extend_from_slice(seen.as_bytes()),
                false => out.extend_from_slice(format!("\"{seen}\"").as_bytes()),
            }
            copied = value.end;
        }
    }
    out.extend_from_slice(&text[copied..]);
    name
}

/// A tag that is read attribute by attribute.
struct Tag<'a> {
    text: &'a [u8],
    at: usize,
}

struct Attribute<'a> {
    key: &'a [u8],
    /// Where its value is, without quotes.
    value: std::ops::Range<usize>,
}

impl<'a> Tag<'a> {
    fn new(text: &'a [u8]) -> Self {
        let mut tag = Self { text, at: 1 };
        tag.skip(|byte| !is_space(byte) && byte != b'/' && byte != b'>');
        tag
    }

    fn skip(&mut self, goes_on: impl Fn(u8) -> bool) {
        let rest = self.text[self.at..].iter();
        self.at += rest.take_while(|byte| goes_on(**byte)).count();
    }

    /// The next attribute; `None` at the end of the tag, or of what is there of it.
    fn attribute(&mut self) -> Option<Attribute<'a>> {
        self.skip(|byte| is_space(byte) || byte == b'/');
        if matches!(self.text.get(self.at), None | Some(b'>')) {
            return None;
        }
        let start = self.at;
        // An equals sign that comes first belongs to the name.
        self.at += 1;
        self.skip(|byte| !is_space(byte) && !matches!(byte, b'/' | b'>' | b'='));
        let key = &self.text[start..self.at];
        self.skip(is_space);
        if self.text.get(self.at) != Some(&b'=') {
            let value = self.at..self.at;
            return Some(Attribute { key, value });
        }
        self.at += 1;
        self.skip(is_space);
        let value = match self.text.get(self.at) {
            Some(quote @ (b'"' | b'\'')) => {
                let start = self.at + 1;
                self.at = start;
                self.skip(|byte| byte != *quote);
                let value = start..self.at;
                // Without its other quote the tag has no end.
                self.at = (self.at + 1).min(self.text.len());
                value
            }
            _ => {
                let start = self.at;
                self.skip(|byte| !is_space(byte) && byte != b'>');
                start..self.at
            }
        };
        Some(Attribute { key, value })
    }
}

/// The characters that a link may have written as references.
const REFERENCES: &[(&str, &str)] = &[
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&#34;", "\""),
    ("&#39;", "'"),
    ("&apos;", "'"),
    ("&#47;", "/"),
    ("&#x2f;", "/"),
    ("&#x2F;", "/"),
    ("&sol;", "/"),
    ("&colon;", ":"),
    ("&#58;", ":"),
    ("&#x3a;", ":"),
    ("&amp;", "&"),
];

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = REFERENCES
            .iter()
            .find(|(reference, _)| rest.starts_with(reference));
        let (reference, character) = known.copied().unwrap_or(("&", "&"));
        plain.push_str(character);
        rest = &rest[reference.len()..];
    }
    plain.push_str(rest);
    plain
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::links::test_links;
    use super::*;

    fn seen_in_pieces(page: &[u8], size: usize) -> String {
        let (mut state, mut out) = (Page::new(test_links()), Vec::new());
        for piece in page.chunks(size.max(1)) {
            state.push(piece, &mut out);
        }
        state.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn links_change_and_everything_else_stays() {
        for (page, seen) in [
            (
                r#"<a href="/x">/x</a>"#,
                r#"<a href="/api/p/proxy/x">/x</a>"#,
            ),
            (
                "<IMG class=y  SRC = '/x?a&amp;b' alt='/y'/>",
                "<IMG class=y  SRC = '/api/p/proxy/x?a&amp;b' alt='/y'/>",
            ),
            ("<a href=/x>y</a>", "<a href=\"/api/p/proxy/x\">y</a>"),
            (
                r#"<form action="http://10.1.2.3/do"><input src=/i formaction="next">"#,
                r#"<form action="/api/p/proxy/do"><input src="/api/p/proxy/i" formaction="next">"#,
            ),
            (
                "<script src=\"/s.js\">if (a < b) { x = '<a href=\"/no\">' }</SCRIPT ><a href='/y'>",
                "<script src=\"/api/p/proxy/s.js\">if (a < b) { x = '<a href=\"/no\">' }</SCRIPT ><a href='/api/p/proxy/y'>",
            ),
            (
                "<!DOCTYPE html><!-- <a href=\"/no\"> --><a href=\"/y\">",
                "<!DOCTYPE html><!-- <a href=\"/no\"> --><a href=\"/api/p/proxy/y\">",
            ),
            ("<!--><a href='/y'>", "<!--><a href='/api/p/proxy/y'>"),
            (
                "<title><a href='/no'></title><video poster='/p' src='/v'>",
                "<title><a href='/no'></title><video poster='/api/p/proxy/p' src='/api/p/proxy/v'>",
            ),
            (
                "<a title=\">\" href=\"&#47;x&quot;\">",
                "<a title=\">\" href=\"/api/p/proxy/x&#34;\">",
            ),
            ("<p href='/x'><b src='/x'>", "<p href='/x'><b src='/x'>"),
            ("a < b <a href='/x", "a < b <a href='/x"),
            ("<a =href='/x' href>", "<a =href='/x' href>"),
            ("<", "<"),
            ("", ""),
        ] {
            for size in [1, 2, 3, 7, 1000] {
                assert_eq!(
                    seen_in_pieces(page.as_bytes(), size),
                    seen,
                    "{size}: {page}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_html_goes_by_as_it_is() {
        let bytes: Vec<u8> = (0..200_000_u32)
            .map(|n| ((n * 7919) >> 3) as u8 | 0x80)
            .collect();
        let (mut state, mut out) = (Page::new(test_links()), Vec::new());
        for piece in bytes.chunks(5000) {
            state.push(piece, &mut out);
        }
        state.finish(&mut out);
        assert_eq!(out, bytes);
    }

    #[test]
    fn a_tag_without_an_end_is_not_kept_for_ever() {
        let (mut state, mut out) = (Page::new(test_links()), Vec::new());
        let mut sent = b"<a href='/x' b='".to_vec();
        for _ in 0..100 {
            sent.extend([b'y'; 4096]);
        }
        for piece in sent.chunks(4096) {
            state.push(piece, &mut out);
            assert!(state.kept.len() <= MOST_KEPT);
        }
        state.finish(&mut out);
        assert_eq!(out, sent);
    }

    proptest::proptest! {
        #[test]
        fn a_page_is_the_same_in_any_pieces(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "<a ", "href=", "'/x'", "\"/y\"", "/z", ">", "<", "</a>", "<script>", "</script>", "<!--", "-->", "--", "<!",
                "<title", "</title", " ", "=", "/", "x", "&amp;", "<img src=/i>",
            ]), 0..24),
            size in 1_usize..9,
        ) {
            let page = parts.concat();
            proptest::prop_assert_eq!(seen_in_pieces(page.as_bytes(), size), seen_in_pieces(page.as_bytes(), 4096));
        }
    }
}
