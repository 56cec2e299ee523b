//! Addresses in the web as Go's `url.Parse` takes them apart, and what it says of those that it does not take.

/// The parts that rules look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) scheme: String,
    pub(super) user: bool,
    pub(super) query: &'a str,
    pub(super) fragment: &'a str,
}

/// Takes an address apart; the error is Go's text.
pub(super) fn parse(text: &str) -> Result<Url<'_>, String> {
    let wrong = |why: &str| {
        Err(format!(
            "parse {}: {why}",
            coracle_api::field_errors::go_quote(text)
        ))
    };
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return wrong("net/url: invalid control character in URL");
    }
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = match split_scheme(before) {
        Ok(parts) => parts,
        Err(why) => return wrong(why),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url {
        scheme: scheme.to_ascii_lowercase(),
        user: false,
        query,
        fragment,
    };
    let Some(authority) = rest.strip_prefix("//") else {
        let first = rest.split('/').next().unwrap_or_default();
        if scheme.is_empty() && first.contains(':') {
            return wrong("first path segment in URL cannot contain colon");
        }
        return Ok(url);
    };
    let authority = authority.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => {
            url.user = true;
            host
        }
        None => authority,
    };
    let name = match host.rsplit_once(']') {
        Some((_, after)) if host.starts_with('[') => after,
        None if host.starts_with('[') => return wrong("missing ']' in host"),
        _ => host,
    };
    if let Some((_, port)) = name.rsplit_once(':')
        && !port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return wrong(&format!("invalid port \":{port}\" after host"));
    }
    if let Some(character) = host.chars().find(|c| " <>\"{}|\\^`".contains(*c)) {
        return wrong(&format!("invalid character \"{character}\" in host name"));
    }
    Ok(url)
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, character) in text.char_indices() {
        match character {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}
