//! Asks the API server as its pod's service account, with the files that every pod finds mounted: a `wasi:http/proxy`
//! component.
//!
//! | path | effect |
//! |---|---|
//! | `/as-account?URL` | asks `https://…` with the mounted token: the status and the body, or 502 and the host's error |
//! | `/as-nobody?URL` | the same without a token |
//! | `/as-liar?URL` | the same with the mounted token, of which one letter of the signature is another |
//! | `/files` | the names of the mounted files, the namespace, and how many authorities there are |
//!
//! Nothing but a request's own path makes it ask anything, so a test says who asks what, and when.

use std::io::{Read as _, Write as _};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

wasip2::http::proxy::export!(Account);

/// Where every container finds its account.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

struct Account;

impl Guest for Account {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let answer = match path {
            "/as-account" => file("token").and_then(|token| ask(query, Some(&token))),
            "/as-nobody" => ask(query, None),
            "/as-liar" => file("token").and_then(|token| ask(query, Some(&altered(&token)))),
            "/files" => files(),
            _ => Err(format!("there is nothing at {path}")),
        };
        match answer {
            Ok(text) => reply(out, 200, &text),
            Err(problem) => reply(out, 502, &format!("{problem}\n")),
        }
    }
}

fn file(name: &str) -> Result<String, String> {
    let path = format!("{FOLDER}/{name}");
    std::fs::read_to_string(&path).map_err(|error| format!("failed to read {path}: {error}"))
}

/// The token with another letter in the middle of its signature.
fn altered(token: &str) -> String {
    let begin = token.rfind('.').map_or(0, |dot| dot + 1);
    let at = begin + (token.len() - begin) / 2;
    let other = if token[at..].starts_with('A') { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

fn files() -> Result<String, String> {
    let entries = std::fs::read_dir(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let authorities = file("ca.crt")?;
    let begin = "-----BEGIN CERTIFICATE-----";
    Ok(format!(
        "{}\nnamespace {}\nauthorities {}\n",
        names.join(" "),
        file("namespace")?,
        authorities.lines().filter(|line| *line == begin).count()
    ))
}

/// Asks a URL of the form `https://authority/path`.
fn ask(url: &str, token: Option<&str>) -> Result<String, String> {
    let rest = url
        .strip_prefix("https://")
        .ok_or("the URL must begin with https://")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let headers = Fields::new();
    if let Some(token) = token {
        headers
            .append("authorization", format!("Bearer {token}").as_bytes())
            .map_err(|error| format!("the token is no header: {error:?}"))?;
    }
    let request = OutgoingRequest::new(headers);
    let accepted = request.set_scheme(Some(&Scheme::Https)).is_ok()
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
    Ok(format!("status {}\n{}", response.status(), read(&body)))
}

/// The body's first MiB as text.
fn read(body: &IncomingBody) -> String {
    let mut bytes = Vec::new();
    if let Ok(stream) = body.stream() {
        let _ = stream.take(1 << 20).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn reply(out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    if let Ok(mut stream) = body.write() {
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.flush();
    }
    let _ = OutgoingBody::finish(body, None);
}
