//! The second tier, asked over `wasi:http/outgoing-handler`.

use std::io::Write as _;

use serde::{Deserialize, Serialize};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme,
};
use wasip2::io::streams::StreamError;

/// Longest answer that is taken.
const MAX_ANSWER: usize = 512 * 1024;
/// How long the API may take to begin its answer, in nanoseconds.
const PATIENCE: u64 = 10_000_000_000;

/// Where the API is: a host, or a host and a port.
pub struct Api {
    pub authority: String,
}

/// What the API has to show.
#[derive(Deserialize)]
pub struct Contents {
    pub greeting: String,
    pub entries: Vec<Entry>,
}

#[derive(Deserialize)]
pub struct Entry {
    pub id: u64,
    pub author: String,
    pub text: String,
}

#[derive(Serialize)]
struct NewEntry<'a> {
    author: &'a str,
    text: &'a str,
}

impl Api {
    /// The greeting and the entries.
    pub fn page(&self) -> Result<Contents, String> {
        let (status, body) = self.ask(Method::Get, None)?;
        if status != 200 {
            return Err(format!(
                "{} said {status}: {}",
                self.authority,
                String::from_utf8_lossy(&body)
            ));
        }
        serde_json::from_slice(&body)
            .map_err(|e| format!("{} answered nonsense: {e}", self.authority))
    }

    /// Adds an entry; gives the API's status code.
    pub fn add(&self, author: &str, text: &str) -> Result<u16, String> {
        let json =
            serde_json::to_vec(&NewEntry { author, text }).expect("two strings make valid JSON");
        self.ask(Method::Post, Some(json)).map(|(status, _)| status)
    }

    fn ask(&self, method: Method, json: Option<Vec<u8>>) -> Result<(u16, Vec<u8>), String> {
        let request = self.request(method, json.as_deref())?;
        let body = request.body().expect("the body is taken once");
        let options = RequestOptions::new();
        // A host may not support all time-outs; then its own hold.
        let _ = options.set_connect_timeout(Some(PATIENCE));
        let _ = options.set_first_byte_timeout(Some(PATIENCE));
        let failed = |e: &dyn std::fmt::Debug| format!("{} does not answer: {e:?}", self.authority);

        let future = outgoing_handler::handle(request, Some(options)).map_err(|e| failed(&e))?;
        if let (Some(json), Ok(mut stream)) = (json, body.write()) {
            // If this fails, the answer says why.
            let _ = stream.write_all(&json);
            let _ = stream.flush();
        }
        let _ = OutgoingBody::finish(body, None);

        let pollable = future.subscribe();
        pollable.block();
        drop(pollable);
        let response: IncomingResponse = future
            .get()
            .expect("the pollable was ready")
            .expect("the response is taken once")
            .map_err(|e| failed(&e))?;
        let status = response.status();
        Ok((status, read_body(response.consume(), MAX_ANSWER)?))
    }

    fn request(&self, method: Method, json: Option<&[u8]>) -> Result<OutgoingRequest, String> {
        let headers = Fields::new();
        let set = |name: &str, value: &str| {
            headers
                .append(name, value.as_bytes())
                .map_err(|e| format!("header {name}: {e:?}"))
        };
        if let Some(json) = json {
            set("content-type", "application/json")?;
            set("content-length", &json.len().to_string())?;
        }
        let request = OutgoingRequest::new(headers);
        let accepted = request.set_method(&method).is_ok()
            && request.set_scheme(Some(&Scheme::Http)).is_ok()
            && request.set_authority(Some(&self.authority)).is_ok()
            && request.set_path_with_query(Some("/entries")).is_ok();
        if accepted {
            Ok(request)
        } else {
            Err(format!("{:?} is no place to ask", self.authority))
        }
    }
}

/// The whole of a body that has at most `max` bytes.
pub fn read_body(body: Result<IncomingBody, ()>, max: usize) -> Result<Vec<u8>, String> {
    let body = body.map_err(|()| "the body was taken before")?;
    let stream = body.stream().map_err(|()| "the body was read before")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(16 * 1024) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(e)) => {
                return Err(format!("the body broke off: {}", e.to_debug_string()));
            }
        }
        if bytes.len() > max {
            return Err(format!("the body has more than {max} bytes"));
        }
    }
}
