//! `curl`.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::http::{self, Answer, Request, Target};
use super::{MOST_REDIRECTS, data, prefixed};
use crate::commands::{system, text};
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::options::Options;

const LETTERS: &str = "IX:d:H:o:OisSvfLw:u:A:m:kGg04e:b:x:1:2:35:6:7:8:9!%:&:#N";
const LONG: &[(&str, char)] = &[
    ("head", 'I'),
    ("request", 'X'),
    ("data", data::PLAIN),
    ("data-ascii", data::PLAIN),
    ("data-raw", data::RAW),
    ("data-binary", data::BINARY),
    ("data-urlencode", data::ENCODED),
    ("json", data::JSON),
    ("header", 'H'),
    ("output", 'o'),
    ("remote-name", 'O'),
    ("include", 'i'),
    ("silent", 's'),
    ("show-error", 'S'),
    ("verbose", 'v'),
    ("fail", 'f'),
    ("fail-with-body", '3'),
    ("location", 'L'),
    ("write-out", 'w'),
    ("user", 'u'),
    ("user-agent", 'A'),
    ("max-time", 'm'),
    ("connect-timeout", '1'),
    ("insecure", 'k'),
    ("get", 'G'),
    ("retry", '2'),
    ("retry-connrefused", '9'),
    ("retry-all-errors", '!'),
    ("retry-delay", '%'),
    ("retry-max-time", '&'),
    ("http1.1", 'g'),
    ("no-progress-meter", 's'),
    ("progress-bar", '#'),
    ("no-buffer", 'N'),
];

/// How long the first pause before another try is, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

pub fn curl(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, LETTERS, LONG)?;
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
    let request = request(cx, options, url)?;
    let mut tries = Tries::new(options)?;
    loop {
        let mut request = request.clone();
        let answered = asked(cx, options, &mut request);
        if let Some((why, pause)) = tries.next(&answered) {
            if !options.has('s') {
                let (seconds, left) = (pause.as_secs(), tries.left);
                cx.complain(
                    "curl",
                    &format!("{why}. Will retry in {seconds} seconds. {left} retries left."),
                );
            }
            std::thread::sleep(pause);
            continue;
        }
        return shown(cx, options, &request, answered?);
    }
}

fn request(cx: &mut Cx, options: &Options, url: &str) -> Result<Request, Failure> {
    let mut body = data::read(cx, options)?;
    let mut url = url.to_owned();
    if options.has('G')
        && let Some(body) = body.take()
    {
        let sign = if url.contains('?') { '&' } else { '?' };
        url = format!("{url}{sign}{}", String::from_utf8_lossy(&body));
    }
    let method = match options.value('X') {
        Some(method) => method,
        None if options.has('I') => "HEAD",
        None if body.is_some() => "POST",
        None => "GET",
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut header = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    header("User-Agent", options.value('A').unwrap_or("curl/toolbox"));
    let json = options.has(data::JSON);
    header("Accept", if json { "application/json" } else { "*/*" });
    if json {
        header("Content-Type", "application/json");
    } else if body.is_some() {
        header("Content-Type", "application/x-www-form-urlencoded");
    }
    if let Some(user) = options.value('u') {
        let pair = http::base64(user.as_bytes());
        header("Authorization", &format!("Basic {pair}"));
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
    Ok(Request {
        method: method.to_owned(),
        target: Target::read(&url)?,
        headers,
        body,
        connect_patience: seconds(options, '1')?,
        patience: seconds(options, 'm')?,
    })
}

fn seconds(options: &Options, letter: char) -> Result<Option<Duration>, Failure> {
    options.value(letter).map(system::duration).transpose()
}

/// The answer at the end of the redirections.
fn asked(cx: &mut Cx, options: &Options, request: &mut Request) -> Result<Answer, Failure> {
    let verbose = options.has('v');
    let mut redirects = 0;
    loop {
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
            None => return Ok(answer),
        }
    }
}

/// Writes the answer where it belongs.
fn shown(
    cx: &mut Cx,
    options: &Options,
    request: &Request,
    mut answer: Answer,
) -> Result<(), Failure> {
    let failed = answer.status >= 400 && (options.has('f') || options.has('3'));
    let failure = || {
        let message = format!("The requested URL returned error: {}", answer.status);
        Failure { message, code: 22 }
    };
    let failure = failed.then(failure);
    if let Some(failure) = failure {
        if !options.has('3') {
            written(cx, options, request, &answer, 0)?;
            return Err(failure);
        }
        let size = copied(cx, options, request, &mut answer)?;
        written(cx, options, request, &answer, size)?;
        return Err(failure);
    }
    let size = copied(cx, options, request, &mut answer)?;
    written(cx, options, request, &answer, size)
}

fn copied(
    cx: &mut Cx,
    options: &Options,
    request: &Request,
    answer: &mut Answer,
) -> Result<u64, Failure> {
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
    let size = match request.method.as_str() {
        "HEAD" => 0,
        _ => answer.copy(&mut *out)?,
    };
    out.flush()?;
    Ok(size)
}

/// What `-w` asks for.
fn written(
    cx: &mut Cx,
    options: &Options,
    request: &Request,
    answer: &Answer,
    size: u64,
) -> Result<(), Failure> {
    let Some(format) = options.value('w') else {
        return Ok(());
    };
    let status = format!("{:03}", answer.status);
    let said = format
        .replace("%{http_code}", &status)
        .replace("%{response_code}", &status)
        .replace("%{size_download}", &size.to_string())
        .replace("%{url_effective}", &request.target.url())
        .replace(
            "%{content_type}",
            answer.header("content-type").unwrap_or_default(),
        );
    cx.out.write_all(text::unescape(&said).as_bytes())?;
    Ok(())
}

/// How often a request is tried again, and when.
struct Tries {
    left: u32,
    refused_too: bool,
    all: bool,
    fixed: Option<Duration>,
    pause: Duration,
    until: Option<Instant>,
}

impl Tries {
    fn new(options: &Options) -> Result<Self, Failure> {
        let longest = seconds(options, '&')?.filter(|longest| !longest.is_zero());
        Ok(Self {
            left: options.number('2')?.unwrap_or(0),
            refused_too: options.has('9'),
            all: options.has('!'),
            fixed: seconds(options, '%')?.filter(|pause| !pause.is_zero()),
            pause: PAUSES.0,
            until: longest.and_then(|longest| Instant::now().checked_add(longest)),
        })
    }

    /// Why it is worth another try, and after how long; `None` when it is not, or no try is left.
    fn next(&mut self, outcome: &Result<Answer, Failure>) -> Option<(String, Duration)> {
        let (why, asked_for) = match outcome {
            Ok(answer) if passes(answer.status) => {
                let after = answer
                    .header("retry-after")
                    .and_then(|after| after.parse().ok());
                (
                    "Problem: HTTP error".to_owned(),
                    after.map(Duration::from_secs),
                )
            }
            Ok(_) => return None,
            Err(failure) if self.is_worth_it(failure.code) => {
                (format!("Problem: {}", failure.message), None)
            }
            Err(_) => return None,
        };
        self.left = self.left.checked_sub(1)?;
        let pause = asked_for.or(self.fixed).unwrap_or(self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
        let in_time = self
            .until
            .is_none_or(|until| Instant::now() + pause < until);
        in_time.then_some((why, pause.min(PAUSES.1)))
    }

    fn is_worth_it(&self, code: u8) -> bool {
        match code {
            http::code::TIMEOUT | http::code::UNRESOLVED => true,
            http::code::UNCONNECTED => self.refused_too || self.all,
            http::code::UNSUPPORTED | http::code::MALFORMED => false,
            _ => self.all,
        }
    }
}

/// What a server may not say the next time.
fn passes(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 522 | 524)
}
