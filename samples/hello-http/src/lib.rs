//! The smallest web pod: a `wasi:http/proxy` component that says hello and which pod it is.
//!
//! The node binds the container's port and calls [`handle`](Guest::handle) for each request; the guest itself never sees a socket.

use std::io::Write as _;

use wasip2::cli::environment::get_environment;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wasip2::http::proxy::export!(HelloHttp);

struct HelloHttp;

impl Guest for HelloHttp {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_else(|| "/".into());
        let greeting = env("GREETING").unwrap_or_else(|| "Hello".into());
        let pod = env("POD_NAME").unwrap_or_else(|| "a pod without a name".into());
        println!("{path}");

        let headers = Fields::new();
        let plain = b"text/plain; charset=utf-8".to_vec();
        headers
            .append("content-type", &plain)
            .expect("the header is well-formed and may be set");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));

        // A client that hangs up early is no reason to trap.
        if let Ok(mut stream) = body.write() {
            let _ = write!(stream, "{greeting} from {pod}, you asked for {path}\n");
        }
        let _ = OutgoingBody::finish(body, None);
    }
}

/// The variable that the manifest gave under this name.
fn env(name: &str) -> Option<String> {
    get_environment()
        .into_iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value)
}
