//! Pages of the program's own file: what only a start needed does not stay resident.
//!
//! Code and constants come into memory as they are used, 64 KiB at a time, and stay until the system runs short. After a
//! start most of them have had their only use: compilers, the reading of manifests, the making of keys. They are
//! unmapped here and stay in the system's page cache; what is used again comes back at its next use, without the disk.

use std::io::{self, BufRead};
use std::ops::Range;

/// Unmaps all pages of the program that hold exactly what its file holds. Takes a millisecond; the pages that are used
/// from then on come back one by one, some microseconds each.
pub fn give_back_now() {
    #[cfg(target_os = "linux")]
    match pages() {
        Ok(pages) => pages.into_iter().for_each(unmap),
        Err(error) => tracing::debug!(%error, "the program's pages stay as they are"),
    }
}

#[cfg(target_os = "linux")]
fn pages() -> io::Result<Vec<Range<usize>>> {
    let program = std::env::current_exe()?;
    let mappings = std::fs::File::open("/proc/self/smaps")?;
    unchanged(io::BufReader::new(mappings), &program.to_string_lossy())
}

/// The mappings of `program` that nobody may write to and nobody has, as `/proc/PID/smaps` (proc(5)) describes them:
/// the loader has filled in addresses in some, and a debugger may have put breakpoints into others.
///
/// They are the first of a process, and no more is read than is needed: there are thousands.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn unchanged(smaps: impl BufRead, program: &str) -> io::Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    // The mapping that is being described, if it is one of ours.
    let mut current = None;
    let mut seen = false;
    for line in smaps.lines() {
        let line = line?;
        match Line::parse(&line) {
            Line::Mapping { pages, mode, path } => {
                let is_ours = path == program;
                if seen && !is_ours {
                    break;
                }
                seen |= is_ours;
                current = Some(pages).filter(|_| is_ours && matches!(mode, "r--p" | "r-xp"));
            }
            Line::Changed(kibibytes) => {
                found.extend(current.take().filter(|_| kibibytes == 0));
            }
            Line::Other => {}
        }
    }
    Ok(found)
}

/// A line of `/proc/PID/smaps`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
enum Line<'a> {
    /// The first one of a mapping.
    Mapping {
        pages: Range<usize>,
        mode: &'a str,
        path: &'a str,
    },
    /// How many KiB of the mapping are not the file's any more.
    Changed(u64),
    Other,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        if let Some(size) = line.strip_prefix("Anonymous:") {
            let size = size.trim().trim_end_matches(" kB").parse();
            // What cannot be read may be anything.
            return Self::Changed(size.unwrap_or(u64::MAX));
        }
        let mapping = || {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let address = |text| usize::from_str_radix(text, 16).ok();
            let mode = rest.get(..4)?;
            // The offset, the device and the inode stand before the path, which is padded with spaces.
            let path = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim_start();
            Some(Self::Mapping {
                pages: address(start)?..address(end)?,
                mode,
                path,
            })
        };
        mapping().unwrap_or(Self::Other)
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe binding of madvise exists")]
fn unmap(pages: Range<usize>) {
    let address = std::ptr::with_exposed_provenance_mut(pages.start);
    // SAFETY: the pages are a private mapping of a file, read-only and without a change of ours, and the file is that of a
    // program which runs, so that nobody can write to it: whoever reads them afterwards reads the same bytes.
    let failed = unsafe { libc::madvise(address, pages.len(), libc::MADV_DONTNEED) };
    if failed != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "pages of the program stay as they are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d4e0000000-55d4e1000000 r--p 00000000 fe:00 1234                       /usr/bin/coracle it
Size:              16384 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
55d4e1000000-55d4e5000000 r-xp 01000000 fe:00 1234                       /usr/bin/coracle it
Anonymous:             0 kB
55d4e5000000-55d4e5200000 r--p 05000000 fe:00 1234                       /usr/bin/coracle it
Anonymous:          2044 kB
55d4e5200000-55d4e5210000 rw-p 05200000 fe:00 1234                       /usr/bin/coracle it
Anonymous:             0 kB
55d4e5210000-55d4e5220000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7f0000000000-7f0000010000 r--p 00000000 fe:00 1234                       /usr/bin/coracle it
Anonymous:             0 kB
";

    #[test]
    fn only_what_is_as_in_the_file_is_given_back() {
        let found = unchanged(SMAPS.as_bytes(), "/usr/bin/coracle it").expect("it is text");
        let expected = [
            0x55d4_e000_0000..0x55d4_e100_0000,
            0x55d4_e100_0000..0x55d4_e500_0000,
        ];
        assert_eq!(found, expected);
        let found = unchanged(SMAPS.as_bytes(), "/usr/bin/other").expect("it is text");
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn damaged_descriptions_are_passed_over() {
        let damaged = SMAPS.replace("Anonymous:             0 kB", "Anonymous: many");
        let found = unchanged(damaged.as_bytes(), "/usr/bin/coracle it").expect("it is text");
        assert!(found.is_empty(), "{found:?}");
        let found = unchanged(&b"\n- r\nx-y r--p\n1-2 \xc3\xa4\xc3\xb6\n"[..], "");
        assert!(found.expect("it is text").is_empty());
    }

    /// That this very program has such pages, and goes on without them.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_program_goes_on_without_its_pages() {
        assert!(!pages().expect("proc(5) is there").is_empty());
        give_back_now();
        assert_eq!(format!("{:>4}", 7), "   7");
    }
}
