//! The third tier as this one sees it: a connection per command, one line each way, and the entries as JSON.
//! The protocol is described in the store's source.

use std::fmt;
use std::io;
use std::time::Duration;

use guestbook_net::executor::within;
use guestbook_net::tcp::TcpStream;
use serde::{Deserialize, Serialize};

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 512 * 1024;
const MAX_AUTHOR: usize = 64;
const MAX_TEXT: usize = 500;

/// What a visitor wrote. The number is the store's; an entry that comes in has none.
#[derive(Deserialize, Serialize)]
pub struct Entry {
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    author: String,
    text: String,
}

impl Entry {
    /// Reads and checks what a client sent.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut entry: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        entry.author = entry.author.trim().to_owned();
        entry.text = entry.text.trim().to_owned();
        if entry.author.is_empty() {
            entry.author = "somebody".into();
        }
        let author = entry.author.chars().count();
        let text = entry.text.chars().count();
        match () {
            () if text == 0 => Err("an entry needs a text".into()),
            () if text > MAX_TEXT => Err(format!(
                "the text has {text} characters, {MAX_TEXT} are allowed"
            )),
            () if author > MAX_AUTHOR => Err(format!(
                "the author has {author} characters, {MAX_AUTHOR} are allowed"
            )),
            () => Ok(entry),
        }
    }
}

/// Where the store is.
pub struct Store {
    host: String,
    port: u16,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Store {
    /// From `host:port`, or a host with the store's usual port.
    pub fn from_authority(authority: &str) -> Self {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
        Self {
            host: host.to_owned(),
            port: port.parse().unwrap_or(7000),
        }
    }

    /// All entries, the oldest first.
    pub async fn list(&self) -> io::Result<Vec<Entry>> {
        let answer = self.ask("LIST").await?;
        let mut lines = answer.lines();
        let count = lines
            .next()
            .and_then(|line| line.strip_prefix("ENTRIES ")?.parse::<usize>().ok());
        let entries = lines.map(parse_line).collect::<Option<Vec<_>>>();
        match (count, entries) {
            (Some(count), Some(entries)) if count == entries.len() => Ok(entries),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Adds an entry and gives it its number.
    pub async fn add(&self, entry: &mut Entry) -> io::Result<()> {
        let json = serde_json::to_string(entry).expect("an entry is a plain struct");
        let answer = self.ask(&format!("ADD {json}")).await?;
        let id = answer
            .trim_end()
            .strip_prefix("OK ")
            .and_then(|id| id.parse().ok());
        entry.id = Some(id.ok_or_else(|| unexpected(&answer))?);
        Ok(())
    }

    /// Sends one command and reads to the end of the connection.
    async fn ask(&self, command: &str) -> io::Result<String> {
        let conversation = async {
            let mut stream = TcpStream::connect(&self.host, self.port).await?;
            stream
                .write_all(format!("{command}\nQUIT\n").as_bytes())
                .await?;
            let mut answer = Vec::new();
            loop {
                let bytes = stream.read(16 * 1024).await?;
                if bytes.is_empty() {
                    return String::from_utf8(answer)
                        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
                }
                answer.extend(bytes);
                if answer.len() > MAX_ANSWER {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the answer is too long",
                    ));
                }
            }
        };
        within(PATIENCE, conversation)
            .await
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// An entry from `<id> <json>`.
fn parse_line(line: &str) -> Option<Entry> {
    let (id, json) = line.split_once(' ')?;
    let mut entry: Entry = serde_json::from_str(json).ok()?;
    entry.id = Some(id.parse().ok()?);
    Some(entry)
}

fn unexpected(answer: &str) -> io::Error {
    let line = answer.lines().next().unwrap_or_default();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected answer {line:?}"),
    )
}
