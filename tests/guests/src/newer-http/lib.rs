//! Answers with what was asked: a `wasi:http/service` 0.3.
//!
//! | path | effect |
//! |---|---|
//! | `/count` | how many requests this instance has had |
//! | `/asked` | scheme and authority of the request |
//! | `/sleep?MILLISECONDS` | answers after that time |
//! | `/call?HOST:PORT` | asks `http://HOST:PORT/` and hands its answer on, status and body |
//! | `/trailers` | a body with the trailer `x-last` |
//! | `/flood?BYTES` | a body of so many bytes; each 64 KiB are a line `sent BYTES` of the log |
//! | `/stream` | the body and the trailers of the request, as they come |
//! | `/relay?URL` | hands the request on, and the answer back, both as they come (`http://…`, `https://…`) |
//! | `/after?MILLISECONDS` | goes on for that time after the answer, then says `done` in the log |
//! | `/spin` | an endless loop |
//! | `/trap` | a trap before the answer |
//! | `/half` | begins an answer, sends `begin`, then traps |
//! | `/fail` | an error instead of an answer |
//! | any other | method, path and the body as it comes, with the request's `x-echo` header |

mod streams;

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Service);

struct Service;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        println!("{path}");
        match path {
            "/count" => Ok(text(format!("{count}\n"), Fields::new(), None)),
            "/asked" => {
                let (scheme, authority) = (request.get_scheme(), request.get_authority());
                Ok(text(format!("{scheme:?} {authority:?}\n"), Fields::new(), None))
            }
            "/sleep" => {
                let milliseconds: u64 = query.parse().unwrap_or(0);
                wait_for(milliseconds * 1_000_000).await;
                Ok(text("slept\n".to_owned(), Fields::new(), None))
            }
            "/call" => call(query).await,
            "/flood" => Ok(streams::flood(query.parse().unwrap_or(0))),
            "/stream" => Ok(streams::echo(request)),
            "/relay" => streams::relay(request, query).await,
            "/after" => {
                let milliseconds: u64 = query.parse().unwrap_or(0);
                spawn_local(async move {
                    wait_for(milliseconds * 1_000_000).await;
                    println!("done");
                });
                Ok(text("answered\n".to_owned(), Fields::new(), None))
            }
            "/spin" => loop {
                std::hint::black_box(count);
            },
            "/trailers" => {
                let trailers = Fields::new();
                let _ = trailers.set("x-last", &[b"here".to_vec()]);
                // HTTP/1 sends only those that were announced.
                let headers = Fields::new();
                let _ = headers.set("trailer", &[b"x-last".to_vec()]);
                Ok(text("with a trailer\n".to_owned(), headers, Some(trailers)))
            }
            "/half" => Ok(streams::half()),
            "/trap" => panic!("asked to trap"),
            "/fail" => Err(ErrorCode::InternalError(Some("asked to fail".to_owned()))),
            _ => Ok(echo(request, &target)),
        }
    }
}

/// A whole body, and what comes after it.
fn text(text: String, headers: Fields, trailers: Option<Fields>) -> Response {
    let (mut body, stream) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(stream), ended);
    spawn_local(async move {
        body.write_all(text.into_bytes()).await;
        drop(body);
        let _ = end.write(Ok(trailers)).await;
    });
    response
}

/// The body of the request is that of the answer, byte by byte as it comes.
fn echo(request: Request, target: &str) -> Response {
    let headers = Fields::new();
    let echoed = request.get_headers().get("x-echo");
    let _ = headers.set("x-echo", &echoed);
    let begin = format!("{:?} {target}\n", request.get_method());
    let (mut body, stream) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(stream), ended);
    spawn_local(async move {
        body.write_all(begin.into_bytes()).await;
        let (done, received) = wit_future::new(|| Ok(()));
        let (mut incoming, trailers) = Request::consume_body(request, received);
        loop {
            let (result, bytes) = incoming.read(Vec::with_capacity(4096)).await;
            if !body.write_all(bytes).await.is_empty() {
                break;
            }
            if matches!(result, wasip3::wit_bindgen::StreamResult::Dropped) {
                break;
            }
        }
        drop(body);
        drop(done);
        let _ = end.write(trailers.await).await;
    });
    response
}

async fn call(authority: &str) -> Result<Response, ErrorCode> {
    let (_, ended) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, ended, None);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some("/"));
    client::send(request).await
}
