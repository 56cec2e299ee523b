//! The server's side of HTTP/1.1: requests with a bounded head and body, keep-alive, no chunked bodies.

use std::io;

use guestbook_net::tcp::TcpStream;
use serde::Serialize;

const MAX_HEAD: usize = 8 * 1024;
const MAX_BODY: usize = 16 * 1024;
const MAX_HEADERS: usize = 48;

/// A request that was read completely.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub method: String,
    /// The path without the query.
    pub path: String,
    pub body: Vec<u8>,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
}

/// Why there is no request.
pub enum ReadError {
    /// The connection broke.
    Io(io::Error),
    /// The client gets this answer, and the connection ends.
    Refused(Response),
}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// The next request of the connection, or `None` when the client has closed it. Bytes of a further request stay in
/// `buffer`.
pub async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<Option<Request>, ReadError> {
    let (head, head_length) = loop {
        if let Some(found) = parse_head(buffer).map_err(ReadError::Refused)? {
            break found;
        }
        if buffer.len() >= MAX_HEAD {
            return Err(ReadError::Refused(Response::error(
                431,
                "the head is too long",
            )));
        }
        if !fill(stream, buffer).await? {
            if buffer.is_empty() {
                return Ok(None);
            }
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    let end = head_length + head.content_length;
    while buffer.len() < end {
        if !fill(stream, buffer).await? {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    let body = buffer[head_length..end].to_vec();
    buffer.drain(..end);
    Ok(Some(Request {
        method: head.method,
        path: head.path,
        body,
        keep_alive: head.keep_alive,
    }))
}

/// Reads some more bytes; false at the end.
async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let bytes = stream.read(4096).await?;
    buffer.extend_from_slice(&bytes);
    Ok(!bytes.is_empty())
}

struct Head {
    method: String,
    path: String,
    content_length: usize,
    keep_alive: bool,
}

/// The head and its length once it is complete, or the answer for a client that sends nonsense.
fn parse_head(buffer: &[u8]) -> Result<Option<(Head, usize)>, Response> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(buffer) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(length)) => length,
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Response::error(431, "too many headers"));
        }
        Err(e) => return Err(Response::error(400, &e.to_string())),
    };
    let mut content_length = None;
    let mut keep_alive = request.version == Some(1);
    for header in request.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            // Digits only: `parse` would take a sign.
            let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
            let parsed = if digits { value.parse().ok() } else { None };
            let Some(number) = parsed.filter(|n| content_length.is_none_or(|known| known == *n))
            else {
                return Err(Response::error(400, "the content length makes no sense"));
            };
            content_length = Some(number);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Response::error(411, "send the body with a content length"));
        } else if header.name.eq_ignore_ascii_case("connection") {
            for token in value.split(',').map(str::trim) {
                if token.eq_ignore_ascii_case("close") {
                    keep_alive = false;
                } else if token.eq_ignore_ascii_case("keep-alive") {
                    keep_alive = true;
                }
            }
        }
    }
    let content_length = content_length.unwrap_or(0);
    if content_length > MAX_BODY {
        return Err(Response::error(413, "the body is too long"));
    }
    let target = request.path.unwrap_or("/");
    let path = target.split('?').next().unwrap_or(target).to_owned();
    let method = request.method.unwrap_or("GET").to_owned();
    Ok(Some((
        Head {
            method,
            path,
            content_length,
            keep_alive,
        },
        length,
    )))
}

/// An answer with its whole body.
pub struct Response {
    pub status: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
}

impl Response {
    pub fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: text.into(),
        }
    }

    pub fn json(status: u16, value: &impl Serialize) -> Self {
        let body =
            serde_json::to_vec(value).expect("the API's types are plain structs with string keys");
        Self {
            status,
            content_type: "application/json",
            body,
        }
    }

    pub fn error(status: u16, error: &str) -> Self {
        Self::json(status, &Problem { error })
    }

    pub fn to_bytes(&self, keep_alive: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            201 => "Created",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            411 => "Length Required",
            413 => "Content Too Large",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "",
        };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len(),
        )
        .into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
