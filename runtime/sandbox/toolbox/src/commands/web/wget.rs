//! `wget`.

use std::fs::File;
use std::io::Write;

use super::http::{Answer, Request, Target, scheme};
use super::{MOST_REDIRECTS, prefixed};
use crate::commands::system;
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::options::Options;

const WGET: &str = "O:qST:t:U:cn3:4:5:6";
const WGET_LONG: &[(&str, char)] = &[
    ("output-document", 'O'),
    ("quiet", 'q'),
    ("server-response", 'S'),
    ("timeout", 'T'),
    ("tries", 't'),
    ("user-agent", 'U'),
    ("header", '3'),
    ("post-data", '4'),
    ("spider", '6'),
    ("no-check-certificate", 'n'),
    ("no-verbose", 'q'),
];

pub fn wget(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, WGET, WGET_LONG)?;
    let [url] = &options.operands[..] else {
        return Err(Failure::usage("needs one URL"));
    };
    let url = if scheme(url).is_some() {
        url.clone()
    } else {
        format!("http://{url}")
    };
    let mut headers = vec![(
        "User-Agent".to_owned(),
        options.value('U').unwrap_or("Wget").to_owned(),
    )];
    for header in options.values('3') {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Failure::usage(format!("{header}: not a header")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let data = options.value('4').map(|data| data.as_bytes().to_vec());
    if data.is_some() {
        headers.push((
            "Content-Type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        ));
    }
    let patience = options.value('T').map(system::duration).transpose()?;
    let mut request = Request {
        method: if data.is_some() { "POST" } else { "GET" }.to_owned(),
        target: Target::read(&url)?,
        headers,
        body: data,
        connect_patience: patience,
        patience,
    };
    let mut redirects = 0;
    let mut answer: Answer = loop {
        let answer = request
            .send()
            .map_err(|failure| Failure::new(failure.message))?;
        if options.has('S') {
            let _ = write!(cx.err, "{}", prefixed("  ", &answer.head));
        }
        match answer.redirect() {
            Some(to) if redirects < MOST_REDIRECTS => {
                redirects += 1;
                request.follow(&to, answer.status)?;
            }
            _ => break answer,
        }
    };
    if answer.status >= 400 {
        let line = answer.head.lines().next().unwrap_or_default();
        return Err(Failure::new(format!("server returned error: {line}")));
    }
    if options.has('6') {
        return Ok(0);
    }
    let name = match options.value('O') {
        Some(name) => name.to_owned(),
        None => match crate::base_name(request.target.path.split('?').next().unwrap_or_default()) {
            "" | "/" => "index.html".to_owned(),
            name => name.to_owned(),
        },
    };
    if name == "-" {
        answer.copy(&mut cx.out)?;
        return Ok(0);
    }
    let mut file = File::create(cx.path(&name)).map_err(|error| Failure::file(&name, &error))?;
    let size = answer
        .copy(&mut file)
        .map_err(|failure| Failure::new(failure.message))?;
    if !options.has('q') {
        let _ = writeln!(cx.err, "'{name}' saved [{size}]");
    }
    Ok(0)
}
