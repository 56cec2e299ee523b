//! Commands that read a stream and write another: they are fed, so that stages of a pipe run at the same time although
//! a guest has one thread.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use crate::context::{Cx, Out};
use crate::failure::Failure;

/// A stage that takes bytes as they come.
pub trait Filter {
    /// Takes the next bytes. `BrokenPipe` says that it wants no more.
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()>;

    /// The input has ended; the exit code.
    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8>;
}

/// Reads everything from `input` into the filter.
pub fn pump(input: &mut dyn Read, filter: &mut dyn Filter, out: &mut dyn Write) -> io::Result<u8> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let n = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match filter.feed(&buffer[..n], out) {
            Ok(()) => {}
            // The filter has enough, or nobody reads what it writes; `finish` finds out which.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error),
        }
    }
    filter.finish(out)
}

/// Runs a filter over files, or over the input when none is named; `-` is the input too.
pub fn over(
    cx: &mut Cx,
    name: &str,
    files: &[String],
    mut filter: impl FnMut(&mut Cx, Option<&str>) -> Result<Box<dyn Filter>, Failure>,
) -> Result<u8, Failure> {
    if files.is_empty() {
        let mut filter = filter(cx, None)?;
        return Ok(pump(&mut cx.input.clone(), &mut *filter, &mut cx.out)?);
    }
    let mut worst = 0;
    let mut best = u8::MAX;
    for file in files {
        let mut filter = filter(cx, Some(file))?;
        let done = if file == "-" {
            pump(&mut cx.input.clone(), &mut *filter, &mut cx.out)
        } else {
            match open(cx, file) {
                Ok(mut opened) => pump(&mut opened, &mut *filter, &mut cx.out),
                Err(error) => Err(error),
            }
        };
        match done {
            Ok(code) => {
                best = best.min(code);
                worst = worst.max(code);
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(error.into()),
            Err(error) => {
                cx.complain(name, &Failure::file(file, &error).message);
                worst = worst.max(if name == "grep" { 2 } else { 1 });
            }
        }
    }
    // grep is content when one file matches.
    Ok(if name == "grep" && worst < 2 {
        best
    } else {
        worst
    })
}

/// Opens a file for reading; folders are refused, as `read` would.
pub fn open(cx: &Cx, path: &str) -> io::Result<std::fs::File> {
    let path = cx.path(path);
    if std::fs::metadata(&path)?.is_dir() {
        return Err(io::Error::other("Is a directory"));
    }
    std::fs::File::open(path)
}

/// The output of one stage and the input of the next.
pub struct Stage {
    filter: Box<dyn Filter>,
    out: Out,
}

impl Stage {
    /// A stage that writes to `out`; what is written to the returned output feeds the filter.
    pub fn new(filter: Box<dyn Filter>, out: Out) -> (Out, Rc<RefCell<Stage>>) {
        let stage = Rc::new(RefCell::new(Self { filter, out }));
        (Out::shared(stage.clone()), stage)
    }

    pub fn finish(&mut self) -> io::Result<u8> {
        self.filter.finish(&mut self.out)
    }
}

impl Write for Stage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.filter.feed(bytes, &mut self.out)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Cuts a stream into lines for a function; the last line may lack its end.
#[derive(Default)]
pub struct Lines(Vec<u8>);

/// Longest line that is kept together.
const LONGEST: usize = 1 << 20;

impl Lines {
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut line: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.0.is_empty() {
                line(&bytes[..end])?;
            } else {
                self.0.extend_from_slice(&bytes[..end]);
                line(&std::mem::take(&mut self.0))?;
            }
            bytes = &bytes[end + 1..];
        }
        self.0.extend_from_slice(bytes);
        if self.0.len() > LONGEST {
            line(&std::mem::take(&mut self.0))?;
        }
        Ok(())
    }

    pub fn finish(&mut self, mut line: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            line(&std::mem::take(&mut self.0))
        }
    }
}
