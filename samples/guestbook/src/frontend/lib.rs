//! First tier of the guestbook: the web page, a `wasi:http/proxy` component.
//!
//! The node binds the container's port and calls [`Guest::handle`] for each request. The page's contents come from the
//! API, which is asked through `wasi:http/outgoing-handler` by its Service's name.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page; 502 with a page that says why, when the API doesn't answer |
//! | `POST /entries` (a form) | adds the entry, then 303 back to the page |
//! | `GET /healthz` | `ok` |

mod api;
mod form;
mod page;

use std::io::Write as _;

use wasip2::cli::environment::get_environment;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use api::Api;

wasip2::http::proxy::export!(Frontend);

struct Frontend;

/// Longest form that is taken.
const MAX_FORM: usize = 16 * 1024;

impl Guest for Frontend {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_else(|| "/".into());
        let path = target.split('?').next().unwrap_or("/").to_owned();
        let method = request.method();
        let name = method_name(&method);
        let reply = answer(&method, &path, request);
        println!("{name} {path} {}", reply.status);
        send(reply, out);
    }
}

/// An answer with its whole body.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Reply {
    fn html(status: u16, body: String) -> Self {
        let headers = vec![
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
        ];
        Self {
            status,
            headers,
            body,
        }
    }

    fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", "text/plain; charset=utf-8")],
            body: body.into(),
        }
    }
}

fn answer(method: &Method, path: &str, request: IncomingRequest) -> Reply {
    let pod = setting("POD_NAME").unwrap_or_else(|| "a pod without a name".into());
    let api = Api {
        authority: setting("API").unwrap_or_else(|| "guestbook-api".into()),
    };
    match (method, path) {
        (Method::Get | Method::Head, "/healthz") => Reply::text(200, "ok\n"),
        (Method::Get | Method::Head, "/") => match api.page() {
            Ok(contents) => Reply::html(200, page::guestbook(&contents, &pod)),
            Err(problem) => Reply::html(502, page::problem(&problem, &pod)),
        },
        (Method::Post, "/entries") => {
            let form = match api::read_body(request.consume(), MAX_FORM) {
                Ok(form) => form,
                Err(problem) => return Reply::html(400, page::problem(&problem, &pod)),
            };
            match api.add(&form::field(&form, "author"), &form::field(&form, "text")) {
                Ok(201) => Reply {
                    status: 303,
                    headers: vec![("location", "/")],
                    body: String::new(),
                },
                Ok(400) => Reply::html(
                    400,
                    page::problem("An entry needs a text of at most 500 characters.", &pod),
                ),
                Ok(status) => {
                    Reply::html(502, page::problem(&format!("The API said {status}."), &pod))
                }
                Err(problem) => Reply::html(502, page::problem(&problem, &pod)),
            }
        }
        (_, "/" | "/entries" | "/healthz") => {
            Reply::text(405, "this resource does not know that method\n")
        }
        _ => Reply::text(404, "there is only /\n"),
    }
}

fn send(reply: Reply, out: ResponseOutparam) {
    let headers = Fields::new();
    let length = reply.body.len().to_string();
    for (name, value) in reply
        .headers
        .into_iter()
        .chain([("content-length", length.as_str())])
    {
        headers
            .append(name, value.as_bytes())
            .expect("the header is well-formed and may be set");
    }
    let response = OutgoingResponse::new(headers);
    response
        .set_status_code(reply.status)
        .expect("the status code is a valid one");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));

    // A client that hangs up early is no reason to trap. A stream that isn't written to must be dropped all the same
    // before its body is finished.
    if let Ok(mut stream) = body.write() {
        let _ = stream.write_all(reply.body.as_bytes());
        let _ = stream.flush();
    }
    let _ = OutgoingBody::finish(body, None);
}

fn method_name(method: &Method) -> String {
    match method {
        Method::Other(name) => name.chars().filter(|c| !c.is_control()).take(16).collect(),
        known => format!("{known:?}")
            .trim_start_matches("Method::")
            .to_ascii_uppercase(),
    }
}

/// A variable of the environment that is set and not empty.
fn setting(name: &str) -> Option<String> {
    get_environment()
        .into_iter()
        .find(|(n, v)| n == name && !v.is_empty())
        .map(|(_, value)| value)
}
