//! What bounds a request: which ones may run for long, and how long the others may take.

use std::time::Duration;

use coracle_api::duration;

use crate::request_info::RequestInfo;
use crate::status::{ApiError, Result};

/// The longest that a request may take which is not long-running by nature; clients can ask for less.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Subresources whose requests last as long as the client likes.
const LONG_RUNNING: &[&str] = &["attach", "exec", "log", "portforward", "proxy"];

/// Whether the request is a watch, a log or a tunnel. These have places of their own and no deadline.
pub(crate) fn is_long_running(info: &RequestInfo) -> bool {
    info.is_resource && (info.verb == "watch" || LONG_RUNNING.contains(&info.subresource.as_str()))
}

/// How long the request may take: what `timeout` asks for, if that is less than the longest.
pub(crate) fn deadline(info: &RequestInfo) -> Result<Duration> {
    let Some(text) = info.query.get("timeout").filter(|text| !text.is_empty()) else {
        return Ok(REQUEST_TIMEOUT);
    };
    let nanos = duration::parse(text).map_err(|why| {
        ApiError::bad_request(format!(
            "invalid timeout specified in the request URL - {why}"
        ))
    })?;
    // Zero and negative ones mean "no wish".
    let asked = u64::try_from(nanos).ok().map(Duration::from_nanos);
    Ok(asked
        .filter(|asked| !asked.is_zero() && *asked < REQUEST_TIMEOUT)
        .unwrap_or(REQUEST_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn info(uri: &str) -> RequestInfo {
        RequestInfo::parse(&Method::GET, &uri.parse().expect("a uri"))
    }

    #[test]
    fn clients_can_ask_for_less_time() {
        for (text, expected) in [
            ("5s", 5.0),
            ("1m30s", 60.0),
            ("1.5s", 1.5),
            ("100ms", 0.1),
            ("0", 60.0),
            ("-1s", 60.0),
            ("", 60.0),
        ] {
            let deadline = deadline(&info(&format!("/api/v1/pods?timeout={text}")));
            assert_eq!(deadline.expect("legal").as_secs_f64(), expected, "{text}");
        }
        for text in ["5", "s", "1x", "1s5", "..s", "-"] {
            let error = deadline(&info(&format!("/api/v1/pods?timeout={text}")));
            assert_eq!(error.expect_err("illegal").code(), 400, "{text}");
        }
    }

    #[test]
    fn watches_and_tunnels_have_no_deadline() {
        assert!(is_long_running(&info("/api/v1/pods?watch=1")));
        assert!(is_long_running(&info("/api/v1/watch/pods")));
        assert!(is_long_running(&info("/api/v1/namespaces/a/pods/b/exec")));
        assert!(is_long_running(&info(
            "/api/v1/namespaces/a/services/b/proxy/x"
        )));
        assert!(!is_long_running(&info("/api/v1/namespaces/a/pods/b")));
        assert!(!is_long_running(&info("/healthz?watch=1")));
    }
}
