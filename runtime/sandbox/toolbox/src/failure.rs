//! Why a command failed, and how it is told.

use std::io;

/// A message for stderr, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// Empty when there is nothing to say: the reader of the output has gone.
    pub message: String,
    pub code: u8,
}

/// The end of a command: its exit code, or why it failed.
pub type Outcome = Result<u8, Failure>;

/// 128 + SIGPIPE.
const NOBODY_READS: u8 = 141;

impl Failure {
    /// A failure with code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
        }
    }

    /// Arguments that make no sense: code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 2,
        }
    }

    /// What happened to the file `path`.
    pub fn file(path: &str, error: &io::Error) -> Self {
        Self::new(format!("{path}: {}", why(error)))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                message: String::new(),
                code: NOBODY_READS,
            };
        }
        Self::new(why(&error))
    }
}

/// The words of an error without its number.
pub fn why(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    match error.raw_os_error() {
        // NOTCAPABLE, and PERM for links out of a folder: what the sandbox says to paths that leave it.
        Some(76) => "Not permitted: the path leads out of its folder".to_owned(),
        Some(63) => "Operation not permitted by the sandbox".to_owned(),
        _ => text[..end].to_owned(),
    }
}
