//! Heads of archive members: ustar, with the long names of PAX and of GNU tar.

use std::io;

/// The unit of an archive.
pub const BLOCK: usize = 512;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    HardLink,
    /// Says something about the next member: PAX.
    Pax,
    /// PAX for all members.
    PaxGlobal,
    LongName,
    LongLink,
    /// Devices and pipes, which a guest cannot have.
    Other(u8),
}

/// One head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub kind: Kind,
    pub size: u64,
    /// Seconds since 1970.
    pub modified: u64,
    pub target: String,
}

impl Header {
    /// Reads a block; `None` for one of zeros, which ends an archive.
    pub fn read(block: &[u8; BLOCK]) -> io::Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                u64::from(if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                })
            })
            .sum();
        if number(&block[148..156])? != sum {
            return Err(io::Error::other(
                "this is not a tar archive, or it is damaged",
            ));
        }
        let mut name = text(&block[..100]);
        let prefix = text(&block[345..500]);
        if &block[257..262] == b"ustar" && block[262] == 0 && !prefix.is_empty() {
            name = format!("{prefix}/{name}");
        }
        let kind = match block[156] {
            // Whether its name ends as a folder's is known when a longer name has been read.
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Link,
            b'5' => Kind::Folder,
            b'x' => Kind::Pax,
            b'g' => Kind::PaxGlobal,
            b'L' => Kind::LongName,
            b'K' => Kind::LongLink,
            other => Kind::Other(other),
        };
        let size = match kind {
            Kind::Folder | Kind::Link | Kind::HardLink => 0,
            _ => number(&block[124..136])?,
        };
        Ok(Some(Self {
            name,
            kind,
            size,
            modified: number(&block[136..148])?,
            target: text(&block[157..257]),
        }))
    }

    /// The blocks of the head: one, with PAX blocks before it when a name is too long or a file too large for it.
    pub fn blocks(&self) -> Vec<u8> {
        let mut records = String::new();
        let split = split(&self.name);
        if split.is_none() {
            records.push_str(&record("path", &self.name));
        }
        if self.target.len() > 100 {
            records.push_str(&record("linkpath", &self.target));
        }
        if self.size > LARGEST {
            records.push_str(&record("size", &self.size.to_string()));
        }
        let mut blocks = Vec::new();
        if !records.is_empty() {
            let pax = Self {
                name: "PaxHeaders/member".to_owned(),
                kind: Kind::Pax,
                size: records.len() as u64,
                modified: self.modified,
                target: String::new(),
            };
            blocks.extend_from_slice(&pax.block("", &pax.name));
            blocks.extend_from_slice(records.as_bytes());
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        let (prefix, name) = split.unwrap_or(("", &self.name));
        blocks.extend_from_slice(&self.block(prefix, name));
        blocks
    }

    fn block(&self, prefix: &str, name: &str) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block[..100], name);
        let (mode, kind) = match self.kind {
            Kind::Folder => ("0000755", b'5'),
            Kind::Link => ("0000777", b'2'),
            Kind::HardLink => ("0000644", b'1'),
            Kind::Pax => ("0000644", b'x'),
            _ => ("0000644", b'0'),
        };
        put(&mut block[100..107], mode);
        put(&mut block[108..115], "0000000");
        put(&mut block[116..123], "0000000");
        put(
            &mut block[124..135],
            &format!("{:011o}", self.size.min(LARGEST)),
        );
        put(
            &mut block[136..147],
            &format!("{:011o}", self.modified.min(LARGEST)),
        );
        block[156] = kind;
        put(&mut block[157..257], &self.target);
        put(&mut block[257..263], "ustar\0");
        put(&mut block[263..265], "00");
        put(&mut block[345..500], prefix);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block[148..155], &format!("{sum:06o}\0"));
        block
    }
}

/// The largest number of eleven octal digits.
const LARGEST: u64 = 0o77_777_777_777;

/// A name as prefix and name of ustar, if it fits.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    let cuts = name
        .char_indices()
        .filter(|(_, c)| *c == '/')
        .map(|(at, _)| (&name[..at], &name[at + 1..]));
    cuts.into_iter()
        .find(|(prefix, rest)| prefix.len() <= 155 && rest.len() <= 100 && !rest.is_empty())
}

/// Cuts what is too long; a PAX record has the whole then.
fn put(field: &mut [u8], text: &str) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

/// The records of a PAX member that matter: names and values.
pub fn records(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut records = Vec::new();
    while let Some(space) = bytes.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&bytes[..space])
            .ok()
            .and_then(|digits| digits.parse::<usize>().ok());
        let Some(record) = length.and_then(|length| bytes.get(space + 1..length)) else {
            break;
        };
        let record = String::from_utf8_lossy(record);
        if let Some((key, value)) = record.trim_end_matches('\n').split_once('=') {
            records.push((key.to_owned(), value.to_owned()));
        }
        bytes = &bytes[length.unwrap_or(bytes.len())..];
    }
    records
}

fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// Octal digits, or GNU's binary form.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let bytes = &field[field.len() - 8..];
        return Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let digits: String = text(field).trim_matches([' ', '\0']).to_owned();
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(&digits, 8)
        .map_err(|_| io::Error::other("this is not a tar archive, or it is damaged"))
}
