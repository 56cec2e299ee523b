//! Bodies that go on while they come in, with their trailers.

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{spawn_local, wit_future, wit_stream};

/// A body of so many bytes.
pub(crate) fn flood(bytes: u64) -> Response {
    let (mut body, stream) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(stream), ended);
    spawn_local(async move {
        let mut sent = 0;
        while sent < bytes {
            let n = (bytes - sent).min(4096);
            if !body.write_all(vec![b'x'; n as usize]).await.is_empty() {
                println!("broken writing");
                return;
            }
            sent += n;
            if sent % 65536 == 0 {
                println!("sent {sent}");
            }
        }
        drop(body);
        let _ = end.write(Ok(None)).await;
    });
    response
}

/// Begins a body, and traps.
pub(crate) fn half() -> Response {
    let (mut body, stream) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(stream), ended);
    spawn_local(async move {
        body.write_all(b"begin".to_vec()).await;
        let _end = end;
        panic!("asked to trap in the middle");
    });
    response
}

/// The header that HTTP/1 wants before trailers.
fn announced(headers: &Fields) -> Fields {
    let announced = Fields::new();
    let _ = announced.set("trailer", &headers.get("trailer"));
    announced
}

/// The body and the trailers of the request are those of the answer, as they come.
pub(crate) fn echo(request: Request) -> Response {
    let headers = announced(&request.get_headers());
    let (mut body, stream) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(stream), ended);
    spawn_local(async move {
        let (done, received) = wit_future::new(|| Ok(()));
        let (mut incoming, trailers) = Request::consume_body(request, received);
        loop {
            let (result, bytes) = incoming.read(Vec::with_capacity(4096)).await;
            if !body.write_all(bytes).await.is_empty() {
                println!("broken writing");
                return;
            }
            if matches!(result, wasip3::wit_bindgen::StreamResult::Dropped) {
                break;
            }
        }
        drop(body);
        drop(done);
        match trailers.await {
            Ok(trailers) => {
                let _ = end.write(Ok(trailers)).await;
                println!("streamed");
            }
            Err(code) => {
                println!("broken reading: {code:?}");
                let _ = end.write(Err(code)).await;
            }
        }
    });
    response
}

/// Hands the request on to `url`, and what is answered there back: the host moves both bodies.
pub(crate) async fn relay(request: Request, url: &str) -> Result<Response, ErrorCode> {
    let (scheme, rest) = match url.strip_prefix("https://") {
        Some(rest) => (Scheme::Https, rest),
        None => (Scheme::Http, url.trim_start_matches("http://")),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let headers = announced(&request.get_headers());
    let method = request.get_method();
    let (mut body, stream) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let (asked, _sent) = Request::new(headers, Some(stream), ended, None);
    let accepted = asked.set_method(&method).is_ok()
        && asked.set_scheme(Some(&scheme)).is_ok()
        && asked.set_authority(Some(authority)).is_ok()
        && asked.set_path_with_query(Some(path)).is_ok();
    if !accepted {
        return Err(ErrorCode::HttpRequestUriInvalid);
    }
    spawn_local(async move {
        let (done, received) = wit_future::new(|| Ok(()));
        let (mut incoming, trailers) = Request::consume_body(request, received);
        loop {
            let (result, bytes) = incoming.read(Vec::with_capacity(4096)).await;
            if !body.write_all(bytes).await.is_empty() {
                return;
            }
            if matches!(result, wasip3::wit_bindgen::StreamResult::Dropped) {
                break;
            }
        }
        drop(body);
        drop(done);
        let _ = end.write(trailers.await).await;
    });
    // The answer's body and trailers are handed on as they are.
    client::send(asked).await
}
