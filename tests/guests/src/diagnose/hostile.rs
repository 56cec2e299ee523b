//! What a guest does that is broken or means harm.

use std::hint::black_box;
use std::io::{self, Write};

const MEBIBYTE: usize = 1 << 20;

/// Never ends and never calls the host.
pub fn spin() -> ! {
    let mut n: u64 = 1;
    loop {
        n = black_box(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// Takes memory and writes to all of it, a line per MiB.
pub fn hog(mebibytes: u64) -> io::Result<()> {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for n in 1..=mebibytes {
        let mut block = Vec::new();
        block
            .try_reserve_exact(MEBIBYTE)
            .map_err(|e| io::Error::new(io::ErrorKind::OutOfMemory, e))?;
        block.resize(MEBIBYTE, n as u8);
        taken.push(black_box(block));
        println!("{n} MiB");
    }
    Ok(())
}

/// Grows the linear memory without touching it.
pub fn grow() {
    while core::arch::wasm32::memory_grow::<0>(1024) != usize::MAX {}
    println!(
        "refused at {} MiB",
        core::arch::wasm32::memory_size::<0>() / 16
    );
}

/// Bytes on stdout, in lines of 80 bytes with their end.
pub fn flood(bytes: u64) -> io::Result<()> {
    let mut line = [b'x'; 80];
    line[79] = b'\n';
    let mut out = io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let n = left.min(80) as usize;
        out.write_all(&line[..n])?;
        left -= n as u64;
    }
    out.flush()
}

/// Bytes on stdout without an end of line.
pub fn line(bytes: u64) -> io::Result<()> {
    let block = [b'x'; 4096];
    let mut out = io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let n = left.min(4096) as usize;
        out.write_all(&block[..n])?;
        left -= n as u64;
    }
    out.flush()
}

/// Recurses on the host's stack: the frames keep nothing in linear memory.
pub fn recurse(depth: u64) {
    println!("came back with {}", deeper(depth));
}

#[inline(never)]
fn deeper(left: u64) -> u64 {
    if left == 0 {
        return 1;
    }
    // Two different operations after the call, so that no compiler makes a loop of it.
    deeper(left - 1).wrapping_mul(31) ^ left
}

/// Three functions whose names a backtrace shall show.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn outer() {
    middle(black_box(3));
    black_box(());
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn middle(n: u32) {
    innermost(black_box(n));
    black_box(());
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn innermost(n: u32) {
    if black_box(n) == 3 {
        core::arch::wasm32::unreachable()
    }
}
