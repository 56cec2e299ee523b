//! Answers with what was asked: a `wasi:http/service` 0.3.
//!
//! | path | effect |
//! |---|---|
//! | `/count` | how many requests this instance has had |
//! | `/sleep?MILLISECONDS` | answers after that time |
//! | `/call?HOST:PORT` | asks `http://HOST:PORT/` and hands its answer on, status and body |
//! | `/trailers` | a body with the trailer `x-last` |
//! | `/trap` | a trap before the answer |
//! | `/fail` | an error instead of an answer |
//! | any other | method, path and the body as it comes, with the request's `x-echo` header |

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
        match path {
            "/count" => Ok(text(format!("{count}\n"), Fields::new(), None)),
            "/sleep" => {
                let milliseconds: u64 = query.parse().unwrap_or(0);
                wait_for(milliseconds * 1_000_000).await;
                Ok(text("slept\n".to_owned(), Fields::new(), None))
            }
            "/call" => call(query).await,
            "/trailers" => {
                let trailers = Fields::new();
                let _ = trailers.set("x-last", &[b"here".to_vec()]);
                // HTTP/1 sends only those that were announced.
                let headers = Fields::new();
                let _ = headers.set("trailer", &[b"x-last".to_vec()]);
                Ok(text("with a trailer\n".to_owned(), headers, Some(trailers)))
            }
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
