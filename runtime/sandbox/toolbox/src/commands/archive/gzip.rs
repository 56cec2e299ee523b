//! gzip around an archive. The whole is packed, and unpacked, in pieces.

use std::io::{self, Read, Write};

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// Packs what is written to it.
pub struct Packer<W> {
    to: W,
    state: Box<CompressorOxide>,
    sum: u32,
    length: u32,
    begun: bool,
}

impl<W: Write> Packer<W> {
    pub fn new(to: W) -> Self {
        // Level 6 and no zlib head.
        let flags = create_comp_flags_from_zip_params(6, -15, 0);
        let mut state = Box::new(CompressorOxide::new(flags));
        state.set_format_and_level(DataFormat::Raw, 6);
        Self {
            to,
            state,
            sum: 0,
            length: 0,
            begun: false,
        }
    }

    fn push(&mut self, mut bytes: &[u8], flush: TDEFLFlush) -> io::Result<()> {
        let mut packed = [0; 8 << 10];
        loop {
            let (status, taken, made) = compress(&mut self.state, bytes, &mut packed, flush);
            self.to.write_all(&packed[..made])?;
            bytes = &bytes[taken..];
            match status {
                TDEFLStatus::Done => return Ok(()),
                TDEFLStatus::Okay if bytes.is_empty() && flush == TDEFLFlush::None => return Ok(()),
                TDEFLStatus::Okay => {}
                _ => return Err(io::Error::other("failed to compress")),
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.to
                .write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.begin()?;
        self.push(&[], TDEFLFlush::Finish)?;
        self.to.write_all(&self.sum.to_le_bytes())?;
        self.to.write_all(&self.length.to_le_bytes())?;
        self.to.flush()
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin()?;
        self.sum = crc32(self.sum, bytes);
        self.length = self.length.wrapping_add(bytes.len() as u32);
        self.push(bytes, TDEFLFlush::None)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The unpacked form of `from` when it begins as gzip does, else `from` itself.
pub fn open(mut from: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    let mut start = Vec::new();
    (&mut from).take(2).read_to_end(&mut start)?;
    let zipped = start == [0x1f, 0x8b];
    let whole = Box::new(io::Cursor::new(start).chain(from));
    if !zipped {
        return Ok(whole);
    }
    let mut from: Box<dyn Read> = whole;
    let mut head = [0; 10];
    from.read_exact(&mut head)?;
    let flags = head[3];
    if flags & 4 != 0 {
        let mut length = [0; 2];
        from.read_exact(&mut length)?;
        io::copy(
            &mut (&mut from).take(u64::from(u16::from_le_bytes(length))),
            &mut io::sink(),
        )?;
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let mut byte = [1];
            while byte != [0] {
                from.read_exact(&mut byte)?;
            }
        }
    }
    if flags & 2 != 0 {
        from.read_exact(&mut [0; 2])?;
    }
    Ok(Box::new(Unpacker {
        from,
        state: InflateState::new_boxed(DataFormat::Raw),
        input: Vec::new(),
        at: 0,
        ended: false,
        sum: 0,
    }))
}

struct Unpacker {
    from: Box<dyn Read>,
    state: Box<InflateState>,
    input: Vec<u8>,
    at: usize,
    ended: bool,
    sum: u32,
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            if self.at == self.input.len() {
                self.input.resize(16 << 10, 0);
                let n = self.from.read(&mut self.input)?;
                self.input.truncate(n);
                self.at = 0;
                if n == 0 {
                    return Err(io::Error::other("the compressed archive ends too early"));
                }
            }
            let done = inflate(
                &mut self.state,
                &self.input[self.at..],
                buffer,
                MZFlush::None,
            );
            self.at += done.bytes_consumed;
            self.sum = crc32(self.sum, &buffer[..done.bytes_written]);
            match done.status {
                Ok(MZStatus::StreamEnd) => {
                    self.ended = true;
                    self.check()?;
                }
                Ok(_) => {}
                Err(_) if done.bytes_written > 0 || self.at == self.input.len() => {}
                Err(_) => return Err(io::Error::other("the compressed archive is damaged")),
            }
            if done.bytes_written > 0 {
                return Ok(done.bytes_written);
            }
        }
        Ok(0)
    }
}

impl Unpacker {
    fn check(&mut self) -> io::Result<()> {
        let mut tail = self.input[self.at..].to_vec();
        (&mut self.from)
            .take(8u64.saturating_sub(tail.len() as u64))
            .read_to_end(&mut tail)?;
        let sum = tail
            .get(..4)
            .map(|sum| u32::from_le_bytes(sum.try_into().expect("four bytes")));
        if sum == Some(self.sum) {
            Ok(())
        } else {
            Err(io::Error::other(
                "the compressed archive is damaged: its checksum differs",
            ))
        }
    }
}

/// CRC-32 of IEEE 802.3, bit by bit: archives here are small, and a table is not.
fn crc32(sum: u32, bytes: &[u8]) -> u32 {
    let mut sum = !sum;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}
