//! What files are that are not WebAssembly.

/// Says what bytes are that are not wasm.
pub(super) fn describe(bytes: &[u8]) -> String {
    const KNOWN: &[(&[u8], &str)] = &[
        (
            b"\x7fELF",
            "a native program or library (ELF) or code compiled ahead of time (.cwasm); \
           give the .wasm that it was made from",
        ),
        (b"MZ", "a Windows program"),
        (b"\xcf\xfa\xed\xfe", "a macOS program (Mach-O)"),
        (b"\xca\xfe\xba\xbe", "a macOS program or Java class"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
        (
            b"version https://git-lfs",
            "a Git LFS pointer; run `git lfs pull` to get the file",
        ),
        (b"#!", "a script"),
    ];
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*what).to_owned();
    }
    let start = &bytes[..bytes.len().min(24)];
    let text = std::str::from_utf8(start).ok().filter(|text| {
        text.chars()
            .all(|c| !c.is_control() || c.is_ascii_whitespace())
    });
    match text {
        Some(text)
            if text.trim_start().starts_with("(module")
                || text.trim_start().starts_with("(component") =>
        {
            "WebAssembly in its text form; convert it with `wasm-tools parse`".to_owned()
        }
        Some(text) => format!("text that starts with {text:?}"),
        None => {
            let hex: Vec<_> = start
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("bytes that start with {}", hex.join(" "))
        }
    }
}
