//! How the end of a session is told.

use serde_json::{Value, json};

use super::{Failure, Verb};
use crate::negotiate::Version;

/// What goes to the error stream: a `Status` in JSON from version 4 on; before, the words of a failure.
pub(super) fn text(verb: Verb, end: &Result<i32, Failure>, version: Version) -> String {
    let status = status(verb, end);
    if version >= Version::V4 {
        return status.to_string();
    }
    status["message"].as_str().unwrap_or_default().to_owned()
}

fn status(verb: Verb, end: &Result<i32, Failure>) -> Value {
    let code = match (verb, end) {
        // How the container ended is in its status.
        (Verb::Attach, Ok(_)) | (Verb::Exec, Ok(0)) => {
            return json!({"metadata": {}, "status": "Success"});
        }
        (Verb::Exec, Ok(code)) => Some(*code),
        (Verb::Exec, Err(Failure::Runtime(error))) => error.exit_code(),
        _ => None,
    };
    if let Some(code) = code {
        return json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        });
    }
    let why = match (verb, end) {
        (_, Err(Failure::Refused(why))) => format!("unable to upgrade connection: {why}"),
        (Verb::Exec, Err(Failure::Runtime(error))) => {
            format!("error executing command in container: {}", error)
        }
        (Verb::Attach, Err(Failure::Runtime(error))) => {
            format!("error attaching to container: {}", error)
        }
        (_, Ok(_)) => unreachable!("an end without a failure was told above"),
    };
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {why}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_cri::ExecError;

    fn told(verb: Verb, end: Result<i32, Failure>) -> (String, String) {
        (text(verb, &end, Version::V4), text(verb, &end, Version::V1))
    }

    #[test]
    fn ends_are_told_in_upstreams_words() {
        let success = r#"{"metadata":{},"status":"Success"}"#;
        for (verb, code) in [(Verb::Exec, 0), (Verb::Attach, 0), (Verb::Attach, 3)] {
            assert_eq!(told(verb, Ok(code)), (success.to_owned(), String::new()));
        }
        assert_eq!(
            told(Verb::Exec, Ok(3)),
            (
                "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: \
                 command terminated with exit code 3\",\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":\
                 [{\"reason\":\"ExitCode\",\"message\":\"3\"}]}}"
                    .to_owned(),
                "command terminated with non-zero exit code: command terminated with exit code 3".to_owned(),
            )
        );
        let refused = Failure::Refused("container not found (\"app\")".to_owned());
        let (status, words) = told(Verb::Exec, Err(refused));
        assert_eq!(
            words,
            "Internal error occurred: unable to upgrade connection: container not found (\"app\")"
        );
        assert!(
            status.contains("\"reason\":\"InternalError\"") && status.ends_with("\"code\":500}")
        );
    }

    #[test]
    fn a_command_that_is_not_there_ends_as_in_a_shell() {
        let missing = || ExecError::CommandNotFound("foo: not found".to_owned());
        let (status, _) = told(Verb::Exec, Err(Failure::Runtime(missing())));
        assert!(
            status.contains("\"ExitCode\",\"message\":\"127\""),
            "{status}"
        );
        let (status, _) = told(Verb::Attach, Err(Failure::Runtime(missing())));
        assert!(
            status.contains("error attaching to container: foo"),
            "{status}"
        );
    }
}
