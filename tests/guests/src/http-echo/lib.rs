//! Answers with what was asked, or misbehaves as the path says: a `wasi:http/proxy` component.
//!
//! | path | effect |
//! |---|---|
//! | `/env` | the environment, sorted |
//! | `/call?URL` | asks the URL (`http://…`): its status and its body, or 502 and the host's error |
//! | `/status?CODE` | an answer with that status |
//! | `/flood?BYTES` | a body of so many bytes; each 64 KiB are a line `sent BYTES` of the log |
//! | `/stream` | the body and the trailers of the request, as they come |
//! | `/relay?URL` | hands the request on, and the answer back, both as they come (`http://…`, `https://…`) |
//! | `/after?MILLISECONDS` | goes on for that time after the answer, then says `done` in the log |
//! | `/sleep?MILLISECONDS` | answers after that time |
//! | `/count` | how many requests this instance has had: 1 when every request gets its own |
//! | `/spin` | an endless loop |
//! | `/trap` | a trap before the answer |
//! | `/half` | begins an answer of 100 bytes, sends 5, then traps |
//! | `/silent` | returns without an answer |
//! | `/hog` | takes memory for ever |
//! | `/grpc.health.v1.Health/Check` | that check of gRPC: SERVING, and NOT_SERVING for the service `down` |
//! | any other | pod (`POD_NAME`), method, path, authority, headers (sorted) and the body, one item a line |

mod streams;

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::cli::environment::get_environment;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::OutputStream;

wasip2::http::proxy::export!(HttpEcho);

struct HttpEcho;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

impl Guest for HttpEcho {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number = || query.parse::<u64>().unwrap_or(0);
        println!("{path}");
        match path {
            "/env" => reply(out, 200, &environment()),
            "/call" => match call(query) {
                Ok((status, body)) => reply(out, 200, &format!("{status}\n{body}")),
                Err(problem) => reply(out, 502, &format!("{problem}\n")),
            },
            "/status" => reply(out, number() as u16, ""),
            "/flood" => respond(out, 200, Fields::new(), |stream| {
                let block = [b'x'; 4096];
                let (all, mut sent) = (number(), 0);
                while sent < all {
                    let n = (all - sent).min(4096) as usize;
                    if stream.write_all(&block[..n]).is_err() {
                        return;
                    }
                    sent += n as u64;
                    if sent % 65536 == 0 {
                        println!("sent {sent}");
                    }
                }
            }),
            "/stream" => streams::echo(request, out),
            "/relay" => streams::relay(request, out, query),
            "/after" => {
                reply(out, 200, "answered\n");
                subscribe_duration(number() * 1_000_000).block();
                println!("done");
            }
            "/sleep" => {
                subscribe_duration(number() * 1_000_000).block();
                reply(out, 200, "slept\n");
            }
            "/count" => reply(out, 200, &format!("{count}\n")),
            "/spin" => loop {
                std::hint::black_box(count);
            },
            "/trap" => core::arch::wasm32::unreachable(),
            "/half" => {
                let headers = Fields::new();
                headers
                    .append("content-length", b"100")
                    .expect("a well-formed header");
                respond(out, 200, headers, |stream| {
                    let _ = stream.write_all(b"begin");
                    let _ = stream.blocking_flush();
                    core::arch::wasm32::unreachable()
                });
            }
            "/silent" => {}
            "/grpc.health.v1.Health/Check" => {
                let down = request.consume().is_ok_and(|body| read(&body).ends_with("down"));
                let headers = Fields::new();
                headers.append("content-type", b"application/grpc").expect("a well-formed header");
                let trailers = Fields::new();
                trailers.append("grpc-status", b"0").expect("a well-formed trailer");
                // A message of two bytes: field 1, a number.
                let frame = [0, 0, 0, 0, 2, 8, if down { 2 } else { 1 }];
                let write = |stream: &mut OutputStream| {
                    let _ = stream.write_all(&frame);
                };
                respond_with(out, 200, headers, write, Some(trailers));
            }
            "/hog" => {
                let mut taken = Vec::new();
                loop {
                    taken.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&taken);
                }
            }
            _ => {
                let text = describe(request, &target);
                reply(out, 200, &text);
            }
        }
    }
}

/// What came in, as text.
fn describe(request: IncomingRequest, target: &str) -> String {
    let pod = get_environment()
        .into_iter()
        .find(|(name, _)| name == "POD_NAME");
    let pod = pod.map_or_else(|| "unnamed".to_owned(), |(_, value)| value);
    let authority = request.authority().unwrap_or_default();
    let method = format!("{:?}", request.method());
    let method = method.trim_start_matches("Method::").to_ascii_uppercase();
    let mut text = format!("pod {pod}\nmethod {method}\npath {target}\nauthority {authority}\n");
    let mut headers = request.headers().entries();
    headers.sort();
    for (name, value) in headers {
        text.push_str(&format!(
            "header {name}: {}\n",
            String::from_utf8_lossy(&value)
        ));
    }
    let body = request
        .consume()
        .map_or_else(|()| String::new(), |body| read(&body));
    text.push_str(&format!("body {body}\n"));
    text
}

fn environment() -> String {
    let mut variables = get_environment();
    variables.sort();
    variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
}

/// Asks a URL of the form `http://authority/path`.
fn call(url: &str) -> Result<(u16, String), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("the URL must begin with http://")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let request = OutgoingRequest::new(Fields::new());
    let accepted = request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request
            .set_path_with_query(Some(if path.is_empty() { "/" } else { path }))
            .is_ok();
    if !accepted {
        return Err(format!("{url} is no URL"));
    }
    let body = request.body().expect("the body is taken once");
    let future = outgoing_handler::handle(request, None).map_err(|e| format!("{e:?}"))?;
    let _ = OutgoingBody::finish(body, None);
    future.subscribe().block();
    let response = future
        .get()
        .expect("the pollable was ready")
        .expect("the response is taken once");
    let response = response.map_err(|e| format!("{e:?}"))?;
    let body = response
        .consume()
        .map_err(|()| "the body was taken before")?;
    Ok((response.status(), read(&body)))
}

/// The body's first MiB as text.
fn read(body: &IncomingBody) -> String {
    let mut bytes = Vec::new();
    if let Ok(stream) = body.stream() {
        let _ = stream.take(1 << 20).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn reply(out: ResponseOutparam, status: u16, body: &str) {
    let headers = Fields::new();
    headers
        .append("content-type", b"text/plain; charset=utf-8")
        .expect("a well-formed header");
    respond(out, status, headers, |stream| {
        let _ = stream.write_all(body.as_bytes());
    });
}

fn respond(
    out: ResponseOutparam,
    status: u16,
    headers: Fields,
    write: impl FnOnce(&mut OutputStream),
) {
    respond_with(out, status, headers, write, None);
}

fn respond_with(
    out: ResponseOutparam,
    status: u16,
    headers: Fields,
    write: impl FnOnce(&mut OutputStream),
    trailers: Option<Fields>,
) {
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    if let Ok(mut stream) = body.write() {
        write(&mut stream);
        let _ = stream.flush();
    }
    let _ = OutgoingBody::finish(body, trailers);
}
