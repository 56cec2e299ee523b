//! `sha256sum` and `base64`.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::filter::{Filter, open, over, pump};
use crate::options::Options;

struct Sum {
    state: Sha256,
    name: String,
}

impl Filter for Sum {
    fn feed(&mut self, bytes: &[u8], _out: &mut dyn Write) -> io::Result<()> {
        self.state.update(bytes);
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        writeln!(
            out,
            "{}  {}",
            hex(std::mem::take(&mut self.state)),
            self.name
        )?;
        Ok(0)
    }
}

fn hex(state: Sha256) -> String {
    state
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub fn sha256sum(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(
        args,
        "cbtq",
        &[("check", 'c'), ("quiet", 'q'), ("status", 'q')],
    )?;
    if options.has('c') {
        return check(cx, &options);
    }
    over(cx, "sha256sum", &options.operands, |_, file| {
        let name = file.unwrap_or("-").to_owned();
        Ok(Box::new(Sum {
            state: Sha256::new(),
            name,
        }))
    })
}

pub fn sha256_filter(_cx: &Cx, args: &[String]) -> Result<Option<Box<dyn Filter>>, Failure> {
    let sum = Sum {
        state: Sha256::new(),
        name: "-".to_owned(),
    };
    Ok(if args.is_empty() {
        Some(Box::new(sum))
    } else {
        None
    })
}

fn check(cx: &mut Cx, options: &Options) -> Outcome {
    let mut list = String::new();
    match options.operands.first().filter(|name| *name != "-") {
        Some(name) => open(cx, name).and_then(|mut file| file.read_to_string(&mut list)),
        None => cx.input.clone().read_to_string(&mut list),
    }?;
    let mut failed = 0;
    for line in list.lines() {
        let Some((digest, name)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let name = name.trim_start_matches([' ', '*']);
        let mut sum = Sum {
            state: Sha256::new(),
            name: String::new(),
        };
        let read = open(cx, name).and_then(|mut file| pump_sum(&mut file, &mut sum));
        let holds = read.is_ok() && hex(sum.state) == digest.to_ascii_lowercase();
        failed += u32::from(!holds);
        if !holds || !options.has('q') {
            writeln!(cx.out, "{name}: {}", if holds { "OK" } else { "FAILED" })?;
        }
    }
    Ok(u8::from(failed > 0))
}

fn pump_sum(file: &mut dyn Read, sum: &mut Sum) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => sum.state.update(&buffer[..n]),
        }
    }
}

pub fn no_md5(_cx: &mut Cx, _args: &[String]) -> Outcome {
    Err(Failure::new("not in the toolbox; use sha256sum"))
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Three bytes to four letters, in lines.
struct Encode {
    rest: Vec<u8>,
    column: usize,
    width: usize,
}

impl Encode {
    fn write(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        for group in bytes.chunks(3) {
            let word = group
                .iter()
                .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
                << (8 * (3 - group.len()));
            for at in 0..4 {
                let letter = if at > group.len() {
                    b'='
                } else {
                    LETTERS[(word >> (18 - 6 * at)) as usize & 63]
                };
                out.write_all(&[letter])?;
                self.column += 1;
                if self.column == self.width {
                    out.write_all(b"\n")?;
                    self.column = 0;
                }
            }
        }
        Ok(())
    }
}

impl Filter for Encode {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() - self.rest.len() % 3;
        let group: Vec<u8> = self.rest.drain(..whole).collect();
        self.write(&group, out)
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        let rest = std::mem::take(&mut self.rest);
        self.write(&rest, out)?;
        if self.column > 0 && self.width > 0 {
            out.write_all(b"\n")?;
        }
        Ok(0)
    }
}

#[derive(Default)]
struct Decode {
    word: u32,
    letters: u32,
    ended: bool,
}

impl Filter for Decode {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut decoded = Vec::with_capacity(bytes.len() * 3 / 4 + 3);
        for byte in bytes {
            if byte.is_ascii_whitespace() {
                continue;
            }
            if *byte == b'=' {
                self.ended = true;
                continue;
            }
            let value = LETTERS
                .iter()
                .position(|letter| letter == byte)
                .filter(|_| !self.ended);
            let value = value.ok_or_else(|| io::Error::other("invalid input"))?;
            self.word = self.word << 6 | value as u32;
            self.letters += 1;
            if self.letters == 4 {
                decoded.extend_from_slice(&self.word.to_be_bytes()[1..]);
                (self.word, self.letters) = (0, 0);
            }
        }
        out.write_all(&decoded)
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        match self.letters {
            0 => Ok(0),
            1 => Err(io::Error::other("invalid input")),
            letters => {
                let word = self.word << (6 * (4 - letters));
                out.write_all(&word.to_be_bytes()[1..letters as usize])?;
                Ok(0)
            }
        }
    }
}

const BASE64: &str = "dw:i";

pub fn base64(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, BASE64, &[("decode", 'd'), ("wrap", 'w')])?;
    if options.operands.is_empty() {
        return Ok(pump(
            &mut cx.input.clone(),
            &mut *coder(&options)?,
            &mut cx.out,
        )?);
    }
    over(cx, "base64", &options.operands, |_, _| coder(&options))
}

pub fn base64_filter(_cx: &Cx, args: &[String]) -> Result<Option<Box<dyn Filter>>, Failure> {
    let options = Options::read(args, BASE64, &[("decode", 'd'), ("wrap", 'w')])?;
    Ok(if options.operands.is_empty() {
        Some(coder(&options)?)
    } else {
        None
    })
}

fn coder(options: &Options) -> Result<Box<dyn Filter>, Failure> {
    if options.has('d') {
        return Ok(Box::new(Decode::default()));
    }
    let width = options.number('w')?.unwrap_or(76);
    Ok(Box::new(Encode {
        rest: Vec::new(),
        column: 0,
        width,
    }))
}

/// base64 without line ends.
pub fn encoder() -> Box<dyn Filter> {
    Box::new(Encode {
        rest: Vec::new(),
        column: 0,
        width: 0,
    })
}
