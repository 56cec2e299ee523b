//! What a guest does that is broken or means harm.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// Asks the host for next to nothing, as often as it can.
pub fn call() -> ! {
    loop {
        black_box(Instant::now());
    }
}

/// Gives its turn away as often as it can.
pub fn give_way() -> ! {
    loop {
        std::thread::yield_now();
    }
}

/// Waits for a moment that is over, as often as it can.
pub fn nap() -> ! {
    loop {
        std::thread::sleep(Duration::from_nanos(1));
    }
}

/// Opens its root until the host refuses, closes all of it, and begins again.
pub fn hoard(rounds: u64) -> io::Result<()> {
    for _ in 0..rounds {
        let mut held = Vec::new();
        let refusal = loop {
            match File::open("/") {
                Ok(file) => held.push(file),
                Err(error) => break error,
            }
        };
        println!("{} descriptors: {refusal}", held.len());
        if held.is_empty() {
            return Err(refusal);
        }
    }
    Ok(())
}

/// What lies on every host, none of which a guest may see.
const OUTSIDE: [&str; 4] = ["etc/passwd", "proc/self/environ", "proc/version", "bin/sh"];

/// Looks for ways out of its folders, again and again; says of each what it met. A way out is a failure.
pub fn escape(rounds: u64) -> io::Result<()> {
    let folder = Path::new("/tmp/escape");
    fs::create_dir_all(folder)?;
    let up = "../".repeat(16);
    for round in 0..rounds {
        for outside in OUTSIDE {
            let mut ways = vec![
                PathBuf::from(format!("/{up}{outside}")),
                folder.join(format!("{up}{outside}")),
                PathBuf::from(format!("/tmp/./..//../{up}{outside}")),
            ];
            for (name, target) in [
                ("absolute", format!("/{outside}")),
                ("relative", format!("{up}{outside}")),
                ("root", "/".to_owned()),
                ("folder", up.clone()),
            ] {
                let link = folder.join(name);
                let _ = fs::remove_file(&link);
                if let Err(error) = link_to(&target, &link) {
                    tell(round, &format!("link to {target}"), &error);
                    continue;
                }
                ways.push(match name {
                    "root" | "folder" => link.join(outside),
                    _ => link,
                });
            }
            for way in ways {
                match fs::read(&way) {
                    Ok(bytes) => {
                        let path = way.display();
                        let found = format!("{path} leads out: {} bytes", bytes.len());
                        return Err(io::Error::other(found));
                    }
                    Err(error) => tell(round, &way.display().to_string(), &error),
                }
                // Beside a link in its own folder it may write.
                let beside = way.with_file_name("coracle-was-here");
                if way.parent() != Some(folder) && fs::write(&beside, "out").is_ok() {
                    let path = beside.display();
                    return Err(io::Error::other(format!(
                        "{path} leads out: it was written"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Once; a million times the same is a flood.
fn tell(round: u64, what: &str, error: &io::Error) {
    if round == 0 {
        println!("{what}: {error}");
    }
}

/// A symbolic link, which Rust's library makes on WASI by a function that is not stable.
fn link_to(target: &str, link: &Path) -> io::Result<()> {
    let text = |path: &str| std::ffi::CString::new(path).map_err(io::Error::other);
    let (target, link) = (text(target)?, text(&link.to_string_lossy())?);
    unsafe extern "C" {
        fn symlink(target: *const core::ffi::c_char, link: *const core::ffi::c_char) -> i32;
    }
    // SAFETY: both are strings that end with a zero.
    match unsafe { symlink(target.as_ptr(), link.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
