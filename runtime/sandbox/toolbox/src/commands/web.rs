//! `curl` and `wget`: HTTP/1.1 over the pod's network. There is no TLS in here, and the error says so.

mod http;

use std::fs::File;
use std::io::{self, Read, Write};

use http::{Answer, Request, Target};

use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::options::Options;

/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 20;

const CURL: &str = "IX:d:H:o:OisSvfLw:u:A:m:kGg04e:b:x:1:2:#N";
const CURL_LONG: &[(&str, char)] = &[
    ("head", 'I'),
    ("request", 'X'),
    ("data", 'd'),
    ("data-raw", 'd'),
    ("data-binary", 'd'),
    ("header", 'H'),
    ("output", 'o'),
    ("remote-name", 'O'),
    ("include", 'i'),
    ("silent", 's'),
    ("show-error", 'S'),
    ("verbose", 'v'),
    ("fail", 'f'),
    ("fail-with-body", 'f'),
    ("location", 'L'),
    ("write-out", 'w'),
    ("user", 'u'),
    ("user-agent", 'A'),
    ("max-time", 'm'),
    ("connect-timeout", '1'),
    ("insecure", 'k'),
    ("get", 'G'),
    ("retry", '2'),
    ("http1.1", 'g'),
    ("no-progress-meter", 's'),
    ("progress-bar", '#'),
    ("no-buffer", 'N'),
];

pub fn curl(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, CURL, CURL_LONG)?;
    if options.operands.is_empty() {
        return Err(Failure::usage("needs a URL"));
    }
    let mut code = 0;
    for url in &options.operands {
        match one(cx, &options, url) {
            Ok(()) => {}
            Err(failure) if options.has('s') && !options.has('S') => code = failure.code,
            Err(failure) => {
                cx.complain("curl", &format!("({}) {}", failure.code, failure.message));
                code = failure.code;
            }
        }
    }
    Ok(code)
}

fn one(cx: &mut Cx, options: &Options, url: &str) -> Result<(), Failure> {
    let mut body = Vec::new();
    for data in options.values('d') {
        if !body.is_empty() {
            body.push(b'&');
        }
        match data.strip_prefix('@') {
            Some("-") => {
                cx.input.clone().read_to_end(&mut body)?;
            }
            Some(file) => {
                let mut file =
                    crate::filter::open(cx, file).map_err(|error| Failure::file(file, &error))?;
                file.read_to_end(&mut body)?;
            }
            None => body.extend_from_slice(data.as_bytes()),
        }
    }
    let has_data = options.value('d').is_some();
    let mut url = url.to_owned();
    if options.has('G') && has_data {
        url = format!(
            "{url}{}{}",
            if url.contains('?') { '&' } else { '?' },
            String::from_utf8_lossy(&body)
        );
        body.clear();
    }
    let sends = has_data && !options.has('G');
    let method = match options.value('X') {
        Some(method) => method,
        None if options.has('I') => "HEAD",
        None if sends => "POST",
        None => "GET",
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    headers.push((
        "User-Agent".to_owned(),
        options.value('A').unwrap_or("curl/toolbox").to_owned(),
    ));
    headers.push(("Accept".to_owned(), "*/*".to_owned()));
    if sends {
        headers.push((
            "Content-Type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        ));
    }
    if let Some(user) = options.value('u') {
        headers.push((
            "Authorization".to_owned(),
            format!("Basic {}", http::base64(user.as_bytes())),
        ));
    }
    for header in options.values('H') {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Failure::usage(format!("{header}: not a header")))?;
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        if !value.trim().is_empty() {
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    let seconds = |letter: char| {
        options
            .value(letter)
            .map(super::system::duration)
            .transpose()
    };
    let mut request = Request {
        method: method.to_owned(),
        target: Target::read(&url)?,
        headers,
        body: sends.then_some(body),
        connect_patience: seconds('1')?,
        patience: seconds('m')?,
    };
    let verbose = options.has('v');
    let mut redirects = 0;
    let mut answer = loop {
        if verbose {
            let _ = write!(cx.err, "{}", prefixed("> ", &request.head()));
        }
        let answer = request.send()?;
        if verbose {
            let _ = write!(cx.err, "{}", prefixed("< ", &answer.head));
        }
        match answer.redirect().filter(|_| options.has('L')) {
            Some(to) => {
                redirects += 1;
                if redirects > MOST_REDIRECTS {
                    return Err(Failure {
                        message: "too many redirects".to_owned(),
                        code: 47,
                    });
                }
                request.follow(&to, answer.status)?;
            }
            None => break answer,
        }
    };
    if options.has('f') && answer.status >= 400 {
        let message = format!("The requested URL returned error: {}", answer.status);
        return Err(Failure { message, code: 22 });
    }
    let name = match (options.value('o'), options.has('O')) {
        (Some(name), _) => Some(name.to_owned()),
        (None, true) => Some(crate::base_name(&request.target.path).to_owned()),
        (None, false) => None,
    };
    let mut out: Box<dyn Write> = match name.as_deref() {
        None | Some("-") => Box::new(cx.out.clone()),
        Some("/dev/null") => Box::new(io::sink()),
        Some(name) => {
            Box::new(File::create(cx.path(name)).map_err(|error| Failure::file(name, &error))?)
        }
    };
    if options.has('i') || options.has('I') {
        out.write_all(answer.head.as_bytes())?;
    }
    let size = if method == "HEAD" {
        0
    } else {
        answer.copy(&mut *out)?
    };
    out.flush()?;
    if let Some(format) = options.value('w') {
        let text = format
            .replace("%{http_code}", &format!("{:03}", answer.status))
            .replace("%{response_code}", &format!("{:03}", answer.status))
            .replace("%{size_download}", &size.to_string())
            .replace("%{url_effective}", &request.target.url())
            .replace(
                "%{content_type}",
                answer.header("content-type").unwrap_or_default(),
            );
        cx.out.write_all(super::text::unescape(&text).as_bytes())?;
    }
    Ok(())
}

fn prefixed(prefix: &str, head: &str) -> String {
    head.lines()
        .map(|line| format!("{prefix}{line}\n"))
        .collect()
}

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
    let url = if url.contains("://") {
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
    let patience = options
        .value('T')
        .map(super::system::duration)
        .transpose()?;
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
