//! Bodies that go on while they come in, with their trailers.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// The most that is read at once.
const CHUNK: u64 = 16 << 10;

/// One direction: what comes in goes out.
struct Pipe {
    from: InputStream,
    body: IncomingBody,
    to: OutputStream,
    out: OutgoingBody,
}

impl Pipe {
    fn new(body: IncomingBody, out: OutgoingBody) -> Option<Self> {
        let (from, to) = (body.stream().ok()?, out.write().ok()?);
        Some(Self { from, body, to, out })
    }

    /// Moves what is there; false at the end.
    fn step(&self) -> Result<bool, String> {
        match self.from.read(CHUNK) {
            Ok(bytes) => {
                for part in bytes.chunks(4096) {
                    let written = self.to.blocking_write_and_flush(part);
                    written.map_err(|error| format!("writing: {error:?}"))?;
                }
                Ok(true)
            }
            Err(StreamError::Closed) => Ok(false),
            Err(StreamError::LastOperationFailed(error)) => {
                Err(format!("reading: {}", error.to_debug_string()))
            }
        }
    }

    /// Hands the trailers on.
    fn finish(self) -> Result<(), String> {
        drop((self.from, self.to));
        let trailers = IncomingBody::finish(self.body);
        trailers.subscribe().block();
        let trailers = trailers.get().expect("the pollable was ready");
        let trailers = trailers.expect("the trailers are taken once");
        let trailers = trailers.map_err(|code| format!("trailers: {code:?}"))?;
        let trailers = trailers.map(|trailers| {
            let copy = Fields::new();
            for (name, value) in trailers.entries() {
                let _ = copy.append(&name, &value);
            }
            copy
        });
        OutgoingBody::finish(self.out, trailers).map_err(|code| format!("finishing: {code:?}"))
    }
}

/// The header that HTTP/1 wants before trailers.
fn announced(headers: &Fields) -> Fields {
    let announced = Fields::new();
    for value in headers.get("trailer") {
        let _ = announced.append("trailer", &value);
    }
    announced
}

/// The body and the trailers of the request are those of the answer, as they come.
pub(crate) fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let response = OutgoingResponse::new(announced(&request.headers()));
    let body = response.body().expect("the body is taken once");
    let incoming = request.consume().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let pipe = Pipe::new(incoming, body).expect("streams are taken once");
    let moved = loop {
        pipe.from.subscribe().block();
        match pipe.step() {
            Ok(true) => {}
            Ok(false) => break pipe.finish(),
            Err(problem) => break Err(problem),
        }
    };
    match moved {
        Ok(()) => println!("streamed"),
        Err(problem) => println!("broken {problem}"),
    }
}

/// Hands the request on to `url`, and what is answered there back, both as they come.
pub(crate) fn relay(request: IncomingRequest, out: ResponseOutparam, url: &str) {
    if let Err(problem) = try_relay(request, out, url) {
        println!("broken {problem}");
    }
}

fn try_relay(request: IncomingRequest, out: ResponseOutparam, url: &str) -> Result<(), String> {
    let (scheme, rest) = match url.strip_prefix("https://") {
        Some(rest) => (Scheme::Https, rest),
        None => (Scheme::Http, url.trim_start_matches("http://")),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let asked = OutgoingRequest::new(announced(&request.headers()));
    let accepted = asked.set_method(&request.method()).is_ok()
        && asked.set_scheme(Some(&scheme)).is_ok()
        && asked.set_authority(Some(authority)).is_ok()
        && asked.set_path_with_query(Some(path)).is_ok();
    if !accepted {
        return Err(format!("{url} is no URL"));
    }
    let upstream = asked.body().expect("the body is taken once");
    let incoming = request.consume().expect("the body is taken once");
    let answer = outgoing_handler::handle(asked, None).map_err(|code| format!("{code:?}"))?;
    let mut up = Pipe::new(incoming, upstream);
    let mut out = Some(out);
    let mut down: Option<(Pipe, IncomingResponse)> = None;
    loop {
        let mut waits: Vec<Pollable> = Vec::new();
        let sending = up.as_ref().map(|pipe| waits.push(pipe.from.subscribe()));
        match &down {
            Some((pipe, _)) => waits.push(pipe.from.subscribe()),
            None => waits.push(answer.subscribe()),
        }
        let ready = poll(&waits.iter().collect::<Vec<_>>());
        let last = u32::try_from(waits.len() - 1).expect("two at most");
        drop(waits);
        if sending.is_some()
            && ready.contains(&0)
            && let Some(pipe) = up.take()
        {
            match pipe.step()? {
                true => up = Some(pipe),
                false => pipe.finish()?,
            }
        }
        if !ready.contains(&last) {
            continue;
        }
        if let Some((pipe, response)) = down.take() {
            match pipe.step()? {
                true => down = Some((pipe, response)),
                false => return pipe.finish(),
            }
        } else if let Some(result) = answer.get() {
            let result = result.expect("the answer is taken once");
            let out = out.take().expect("there is one answer");
            match result {
                Ok(response) => {
                    let head = OutgoingResponse::new(announced(&response.headers()));
                    let _ = head.set_status_code(response.status());
                    let body = head.body().expect("the body is taken once");
                    ResponseOutparam::set(out, Ok(head));
                    let incoming = response.consume().expect("the body is taken once");
                    let pipe = Pipe::new(incoming, body).expect("streams are taken once");
                    down = Some((pipe, response));
                }
                Err(code) => {
                    let problem = format!("{code:?}");
                    ResponseOutparam::set(out, Err(code));
                    return Err(problem);
                }
            }
        }
    }
}
