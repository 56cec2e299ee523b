//! How many files the process may have open: every file of a guest is one, every log, every connection.

/// Asks for as many as the system lets this process have. Many systems give 1024 and allow half a million to whoever
/// asks: the small number is for programs that use `select`.
///
/// That it cannot be had is no error. What needs a file later says that there is none.
#[cfg(unix)]
pub fn raise() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else {
        return;
    };
    // macOS says that there is no limit, and refuses more than this.
    let most = limit.maximum.unwrap_or(10_240);
    if current >= most {
        return;
    }
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(current, most, %error, "the limit of open files stays as it is");
    }
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub fn raise() {}

#[cfg(all(test, unix))]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn as_many_files_as_are_allowed() {
        super::raise();
        let limit = getrlimit(Resource::Nofile);
        assert!(limit.maximum.is_none() || limit.current == limit.maximum);
    }
}
