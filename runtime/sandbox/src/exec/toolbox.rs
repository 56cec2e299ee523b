//! The toolbox: one small guest of ours for the commands that people type first.

/// The guest; its pages are read from the binary when it is compiled, once, and not before.
pub(super) static WASM: &[u8] = include_bytes!("../../toolbox/wasm/toolbox.wasm");

/// Its name in messages.
pub(super) const NAME: &str = "toolbox";

/// Folders of which programs are asked for by their whole path.
const BINARIES: &[&str] = &[
    "/bin/",
    "/usr/bin/",
    "/sbin/",
    "/usr/sbin/",
    "/usr/local/bin/",
];

/// What it answers to, in the order of the alphabet.
pub(super) const COMMANDS: &[&str] = &[
    "[",
    "ash",
    "base64",
    "basename",
    "bash",
    "busybox",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "clear",
    "cp",
    "curl",
    "cut",
    "date",
    "df",
    "dirname",
    "du",
    "echo",
    "egrep",
    "env",
    "false",
    "find",
    "getent",
    "grep",
    "head",
    "help",
    "hostname",
    "id",
    "ip",
    "ll",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mktemp",
    "mount",
    "mv",
    "nc",
    "netcat",
    "netstat",
    "nslookup",
    "printenv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "ss",
    "stat",
    "tail",
    "tar",
    "tee",
    "test",
    "toolbox",
    "touch",
    "tr",
    "true",
    "uname",
    "uniq",
    "wc",
    "wget",
    "which",
    "whoami",
];

/// The command that `name` means, be it a plain name or `/bin/name`.
pub(super) fn command(name: &str) -> Option<&str> {
    let plain = BINARIES
        .iter()
        .find_map(|folder| name.strip_prefix(folder))
        .unwrap_or(name);
    COMMANDS.binary_search(&plain).ok().map(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted_and_found_by_their_paths() {
        assert!(COMMANDS.is_sorted());
        assert_eq!(command("ls"), Some("ls"));
        assert_eq!(command("/bin/sh"), Some("sh"));
        assert_eq!(command("/srv/sh"), None);
        assert_eq!(command("systemctl"), None);
    }

    #[test]
    fn the_toolbox_is_what_its_checksum_says() {
        let sums = include_str!("../../toolbox/wasm/SHA256SUMS");
        let digest = coracle_image::Digest::of(WASM);
        assert_eq!(sums.split_whitespace().next(), Some(digest.hex().as_str()));
    }
}
