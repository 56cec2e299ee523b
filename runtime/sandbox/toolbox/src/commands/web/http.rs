//! One request by HTTP/1.1 and its answer.

use std::io::{self, Write};
use std::time::Duration;

use crate::failure::{Failure, why};
use crate::tcp::{Deadline, Stream};

/// Longest head of an answer.
const LONGEST_HEAD: usize = 256 << 10;

/// The exit codes of curl.
pub mod code {
    pub const UNSUPPORTED: u8 = 1;
    pub const MALFORMED: u8 = 3;
    pub const UNRESOLVED: u8 = 6;
    pub const UNCONNECTED: u8 = 7;
    pub const PARTIAL: u8 = 18;
    pub const TIMEOUT: u8 = 28;
    pub const EMPTY: u8 = 52;
    pub const BROKEN: u8 = 56;
}

/// The scheme of a URL that names one, and what follows it. A URL in the query of another is none of its parts.
pub fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (!scheme.is_empty() && scheme.bytes().all(fits)).then_some((scheme, rest))
}

/// Where a request goes.
#[derive(Clone)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl Target {
    /// Reads a URL; without a scheme it is http.
    pub fn read(url: &str) -> Result<Self, Failure> {
        let rest = match scheme(url) {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(Failure {
                    message:
                        "https: the toolbox has no TLS; use http, or a program of your own image"
                            .to_owned(),
                    code: code::UNSUPPORTED,
                });
            }
            Some((scheme, _)) => {
                let message = format!("Protocol \"{scheme}\" not supported");
                return Err(Failure {
                    message,
                    code: code::UNSUPPORTED,
                });
            }
            None => url,
        };
        let malformed = || Failure {
            message: format!("{url}: malformed URL"),
            code: code::MALFORMED,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(malformed)?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            None | Some("") => 80,
            Some(port) => port.parse().map_err(|_| malformed())?,
        };
        if host.is_empty() || path.contains([' ', '\r', '\n']) {
            return Err(malformed());
        }
        let path = if path.starts_with('?') {
            format!("/{path}")
        } else {
            path.to_owned()
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            path,
        })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == 80 {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}{}", self.authority(), self.path)
    }
}

#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub target: Target,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub connect_patience: Option<Duration>,
    pub patience: Option<Duration>,
}

impl Request {
    /// The lines before the body.
    pub fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target.path);
        let given = |name: &str| {
            self.headers
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        if !given("host") {
            head.push_str(&format!("Host: {}\r\n", self.target.authority()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("Connection: close\r\n\r\n");
        head
    }

    /// Sends it and reads the head of the answer.
    pub fn send(&self) -> Result<Answer, Failure> {
        let (host, port) = (&self.target.host, self.target.port);
        let deadline = Deadline::after(self.patience);
        let patience = self.connect_patience.into_iter().chain(self.patience).min();
        let stream =
            Stream::connect(host, port, Deadline::after(patience)).map_err(|error| match error
                .kind()
            {
                io::ErrorKind::TimedOut => timed_out(),
                io::ErrorKind::NotFound => Failure {
                    message: format!("Could not resolve host: {host}"),
                    code: code::UNRESOLVED,
                },
                _ => Failure {
                    message: format!("Failed to connect to {host} port {port}: {}", why(&error)),
                    code: code::UNCONNECTED,
                },
            })?;
        let connection = Connection {
            stream,
            buffer: Vec::new(),
            deadline,
        };
        let mut bytes = self.head().into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        match connection.stream.write_all(&bytes, deadline) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(timed_out()),
            // A server may answer and hang up before it has read everything; what it says counts.
            _ => {}
        }
        Answer::read(connection)
    }

    /// Turns to where an answer points.
    pub fn follow(&mut self, to: &str, status: u16) -> Result<(), Failure> {
        let url = if scheme(to).is_some() {
            to.to_owned()
        } else if to.starts_with('/') {
            format!("http://{}{to}", self.target.authority())
        } else {
            let path = self.target.path.split('?').next().unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("http://{}{folder}/{to}", self.target.authority())
        };
        let target = Target::read(&url)?;
        if target.host != self.target.host || target.port != self.target.port {
            // What was meant for one host is not for another.
            self.headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        }
        self.target = target;
        if matches!(status, 301..=303) && self.method != "HEAD" {
            self.method = "GET".to_owned();
            self.body = None;
        }
        Ok(())
    }
}

struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    deadline: Deadline,
}

impl Connection {
    /// Reads more into the buffer; false at the end.
    fn more(&mut self) -> Result<bool, Failure> {
        let bytes =
            self.stream
                .read(32 << 10, self.deadline)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::TimedOut => timed_out(),
                    _ => Failure {
                        message: format!("Recv failure: {}", why(&error)),
                        code: code::BROKEN,
                    },
                })?;
        self.buffer.extend_from_slice(&bytes);
        Ok(!bytes.is_empty())
    }

    /// A line without its end.
    fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.buffer.len() > LONGEST_HEAD || !self.more()? {
                return Err(partial());
            }
        }
    }

    /// Copies exactly so many bytes.
    fn copy(&mut self, mut bytes: u64, out: &mut dyn Write) -> Result<(), Failure> {
        while bytes > 0 {
            if self.buffer.is_empty() && !self.more()? {
                return Err(partial());
            }
            let n = self
                .buffer
                .len()
                .min(usize::try_from(bytes).unwrap_or(usize::MAX));
            out.write_all(&self.buffer[..n])?;
            out.flush()?;
            self.buffer.drain(..n);
            bytes -= n as u64;
        }
        Ok(())
    }
}

fn timed_out() -> Failure {
    Failure {
        message: "Operation timed out".to_owned(),
        code: code::TIMEOUT,
    }
}

fn partial() -> Failure {
    Failure {
        message: "transfer closed with data remaining to read".to_owned(),
        code: code::PARTIAL,
    }
}

pub struct Answer {
    pub status: u16,
    /// All lines of the head, the empty one included.
    pub head: String,
    headers: Vec<(String, String)>,
    connection: Connection,
}

impl Answer {
    fn read(mut connection: Connection) -> Result<Self, Failure> {
        loop {
            if connection.buffer.is_empty() && !connection.more()? {
                return Err(Failure {
                    message: "Empty reply from server".to_owned(),
                    code: code::EMPTY,
                });
            }
            let first = connection.line()?;
            let mut words = first.split_whitespace();
            let status = match (
                words.next(),
                words.next().and_then(|code| code.parse().ok()),
            ) {
                (Some(version), Some(status)) if version.starts_with("HTTP/1.") => status,
                _ => {
                    return Err(Failure {
                        message: "the server does not speak HTTP/1.1".to_owned(),
                        code: code::UNSUPPORTED,
                    });
                }
            };
            let mut head = format!("{first}\r\n");
            let mut headers = Vec::new();
            loop {
                let line = connection.line()?;
                head.push_str(&line);
                head.push_str("\r\n");
                if line.is_empty() {
                    break;
                }
                if head.len() > LONGEST_HEAD {
                    return Err(Failure {
                        message: "the head is too long".to_owned(),
                        code: code::BROKEN,
                    });
                }
                if let Some((name, value)) = line.split_once(':') {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
            }
            // 100 Continue and its like come before the answer.
            if status >= 200 {
                return Ok(Self {
                    status,
                    head,
                    headers,
                    connection,
                });
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Where the answer points, if it does.
    pub fn redirect(&self) -> Option<String> {
        let redirects = matches!(self.status, 301 | 302 | 303 | 307 | 308);
        self.header("location")
            .filter(|_| redirects)
            .map(str::to_owned)
    }

    /// Copies the body; the number of bytes.
    pub fn copy(&mut self, out: &mut dyn Write) -> Result<u64, Failure> {
        if matches!(self.status, 204 | 304) {
            return Ok(0);
        }
        let chunked = self
            .header("transfer-encoding")
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        if chunked {
            return self.chunks(out);
        }
        if let Some(length) = self
            .header("content-length")
            .and_then(|length| length.parse().ok())
        {
            self.connection.copy(length, out)?;
            return Ok(length);
        }
        let mut total = 0;
        loop {
            total += self.connection.buffer.len() as u64;
            out.write_all(&self.connection.buffer)?;
            out.flush()?;
            self.connection.buffer.clear();
            if !self.connection.more()? {
                return Ok(total);
            }
        }
    }

    fn chunks(&mut self, out: &mut dyn Write) -> Result<u64, Failure> {
        let mut total = 0;
        loop {
            let line = self.connection.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| Failure {
                message: "a chunk is malformed".to_owned(),
                code: code::BROKEN,
            })?;
            if size == 0 {
                // Trailers, up to the empty line.
                while !self.connection.line()?.is_empty() {}
                return Ok(total);
            }
            self.connection.copy(size, out)?;
            self.connection.line()?;
            total += size;
        }
    }
}

/// For `Authorization`.
pub fn base64(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let mut coder = crate::commands::digest::encoder();
    // Writing to memory does not fail.
    let _ = coder.feed(bytes, &mut text);
    let _ = coder.finish(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
