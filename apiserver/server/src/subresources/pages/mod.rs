//! Pages that a proxy shows: their links lead through it (upstream's pkg/util/proxy/transport.go).
//!
//! Upstream reads a page whole before it goes on. Here it streams, unpacked and packed again if it is compressed, with
//! some ten kilobytes held of each page.

mod html;
mod links;

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use http::header::{self, HeaderMap};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;

use crate::body::{Body, BoxError};
use html::Page;
pub(crate) use links::Links;

/// Most bytes that are looked at at a time.
const PIECE: usize = 16 * 1024;
/// The same of packed ones, which may become a thousand times as many.
const PACKED_PIECE: usize = 1024;

/// A body whose links are seen through `links`, if the headers say that it is a page that can be read; they then say no
/// length any more.
pub(crate) fn seen_through(links: Links, headers: &mut HeaderMap, body: Body) -> Body {
    let text = |name: header::HeaderName| {
        let value = headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or("?"))
    };
    let media = text(header::CONTENT_TYPE).split(';').next();
    if media.unwrap_or_default().trim() != "text/html" {
        return body;
    }
    let coding = match text(header::CONTENT_ENCODING) {
        "" => Coding::None,
        "gzip" => Coding::Gzip {
            from: GzDecoder::new(Vec::new()),
            to: GzEncoder::new(Vec::new(), Compression::fast()),
        },
        "deflate" => Coding::Deflate {
            from: DeflateDecoder::new(Vec::new()),
            to: DeflateEncoder::new(Vec::new(), Compression::fast()),
        },
        other => {
            tracing::debug!(
                coding = other,
                "the links of a proxied page stay as they are"
            );
            return body;
        }
    };
    headers.remove(header::CONTENT_LENGTH);
    let seen = Seen {
        body,
        page: Page::new(links),
        coding,
        waiting: Bytes::new(),
        began: false,
        ended: false,
    };
    seen.boxed_unsync()
}

enum Coding {
    None,
    Gzip {
        from: GzDecoder<Vec<u8>>,
        to: GzEncoder<Vec<u8>>,
    },
    Deflate {
        from: DeflateDecoder<Vec<u8>>,
        to: DeflateEncoder<Vec<u8>>,
    },
}

/// A page on its way to the client.
struct Seen {
    body: Body,
    page: Page,
    coding: Coding,
    /// What has come and was not looked at.
    waiting: Bytes,
    /// Whether anything has come: an answer to HEAD is not even an empty archive.
    began: bool,
    ended: bool,
}

impl Seen {
    /// Looks at the next piece of what has come.
    fn piece(&mut self) -> std::io::Result<Vec<u8>> {
        self.began = true;
        let most = match self.coding {
            Coding::None => PIECE,
            _ => PACKED_PIECE,
        };
        let piece = self.waiting.split_to(self.waiting.len().min(most));
        let mut out = Vec::new();
        match &mut self.coding {
            Coding::None => self.page.push(&piece, &mut out),
            Coding::Gzip { from, to } => {
                let plain = unpacked(from, &piece, GzDecoder::get_mut)?;
                self.page.push(&plain, &mut out);
                to.write_all(&out)?;
                out = std::mem::take(to.get_mut());
            }
            Coding::Deflate { from, to } => {
                let plain = unpacked(from, &piece, DeflateDecoder::get_mut)?;
                self.page.push(&plain, &mut out);
                to.write_all(&out)?;
                out = std::mem::take(to.get_mut());
            }
        }
        Ok(out)
    }

    /// What follows the last piece.
    fn end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        if !self.began {
            return Ok(out);
        }
        match std::mem::replace(&mut self.coding, Coding::None) {
            Coding::None => self.page.finish(&mut out),
            Coding::Gzip { from, mut to } => {
                self.page.push(&from.finish()?, &mut out);
                self.page.finish(&mut out);
                to.write_all(&out)?;
                out = to.finish()?;
            }
            Coding::Deflate { from, mut to } => {
                self.page.push(&from.finish()?, &mut out);
                self.page.finish(&mut out);
                to.write_all(&out)?;
                out = to.finish()?;
            }
        }
        Ok(out)
    }
}

/// What `piece` unpacks to.
fn unpacked<D: Write>(
    decoder: &mut D,
    piece: &[u8],
    out: impl Fn(&mut D) -> &mut Vec<u8>,
) -> std::io::Result<Vec<u8>> {
    decoder.write_all(piece)?;
    decoder.flush()?;
    Ok(std::mem::take(out(decoder)))
}

impl HttpBody for Seen {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if this.waiting.has_remaining() {
                let piece = this.piece()?;
                if !piece.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
                }
                continue;
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)?) {
                // Trailers would come before the end of the page, and nobody waits for them.
                Some(frame) => this.waiting = frame.into_data().unwrap_or_default(),
                None => {
                    this.ended = true;
                    let last = this.end()?;
                    if !last.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(last.into()))));
                    }
                }
            }
        }
    }
}
