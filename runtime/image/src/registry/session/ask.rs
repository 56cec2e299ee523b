//! One request to one place: its token, its redirects, and what was said when it was refused.

use std::time::Duration;

use ::http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};
use ::http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::{Ask, Payload, Session};
use crate::keyring::Credential;
use crate::registry::auth::{self, Challenge};
use crate::registry::error::{RegistryError, words};
use crate::registry::hosts::{Endpoint, Trust, is_loopback};
use crate::registry::http::{Body, Place, empty, full};
use crate::registry::push;
use crate::spec::MAX_DOCUMENT_BYTES;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Bytes of an error that are read.
const MAX_ERROR_BYTES: u64 = 64 << 10;
impl Session {
    /// Sends a request, with a token if the place wants one, through redirects if it says so.
    pub(in crate::registry) async fn ask(
        &self,
        place: usize,
        ask: &Ask,
    ) -> Result<Response<Incoming>, RegistryError> {
        let answer = self.send(place, ask).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::of(challenges.iter().filter_map(|value| value.to_str().ok()));
        match self.authorize(place, challenge, ask.push).await? {
            Some(authorization) => {
                self.tokens.lock().insert((place, ask.push), authorization);
                self.send(place, ask).await
            }
            None => Ok(answer),
        }
    }

    /// The value of `Authorization` that satisfies `challenge`; `None` when there is nothing new to say.
    async fn authorize(
        &self,
        place: usize,
        challenge: Option<Challenge>,
        push: bool,
    ) -> Result<Option<String>, RegistryError> {
        let credential = self.credentials[place].as_ref();
        if let Some(token) = credential
            .map(|c| &c.registry_token)
            .filter(|t| !t.is_empty())
        {
            return Ok(Some(format!("Bearer {token}")));
        }
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(credential.map(auth::basic)),
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let actions = if push { "pull,push" } else { "pull" };
                let ours = format!("repository:{}:{actions}", self.repository);
                // What the registry names is what it will check.
                let scope = scope.unwrap_or(ours);
                let token = self
                    .token(place, &realm, service.as_deref(), &scope, credential)
                    .await?;
                Ok(Some(format!("Bearer {token}")))
            }
        }
    }

    async fn token(
        &self,
        place: usize,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
    ) -> Result<String, RegistryError> {
        let endpoint = &self.places[place];
        let wrong = |problem: String| RegistryError::Wrong {
            host: endpoint.authority.clone(),
            problem,
        };
        let (server, path) = target(realm, endpoint)
            .ok_or_else(|| wrong(format!("names the token server {realm:?}, which is no URL")))?;
        if credential.is_some() && !may_have_password(&server, endpoint) {
            return Err(wrong(format!(
                "names the token server {realm:?}, which has no TLS; no password is sent there"
            )));
        }
        let refresh = credential.filter(|c| !c.identity_token.is_empty());
        let request = match refresh {
            Some(credential) => {
                let form = auth::refresh_form(service, scope, &credential.identity_token);
                Request::post(path)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(full(form.into()))
            }
            None => {
                let query = auth::token_query(service, scope, credential);
                let joint = if path.contains('?') { '&' } else { '?' };
                let mut request = Request::get(format!("{path}{joint}{query}"));
                if let Some(credential) = credential {
                    request = request.header(AUTHORIZATION, auth::basic(credential));
                }
                request.body(empty())
            }
        };
        let request = request.map_err(|error| wrong(format!("token request: {error}")))?;
        let answer = self.http.send(&server, request).await?;
        let (head, body) = answer.into_parts();
        let host = server.authority;
        let body = self.http.read(&host, body, MAX_DOCUMENT_BYTES).await?;
        if !head.status.is_success() {
            return Err(RegistryError::Refused {
                host,
                status: head.status,
                words: words(&body),
                retry_after: retry_after(&head.headers),
            });
        }
        auth::token_of(&body).ok_or_else(|| RegistryError::Wrong {
            host,
            problem: "the token server answered without a token".to_owned(),
        })
    }

    /// Sends a request and follows redirects, which lose what only the registry may see.
    async fn send(&self, index: usize, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let endpoint = &self.places[index];
        let wrong = |problem: String| RegistryError::Wrong {
            host: endpoint.authority.clone(),
            problem,
        };
        let url = match ask.target.starts_with('/') {
            // Mirrors of several registries go by the query, as containerd has it.
            true if endpoint.mirror => {
                format!("{}{}?ns={}", endpoint.base, ask.target, self.registry)
            }
            true => format!("{}{}", endpoint.base, ask.target),
            false => ask.target.clone(),
        };
        let (mut place, mut path) = target(&url, endpoint)
            .ok_or_else(|| wrong(format!("names {url:?}, which is no URL")))?;
        if endpoint.tls && !place.tls {
            return Err(wrong(format!(
                "names {url:?}, which has no TLS although the registry has"
            )));
        }
        let authorization = self.tokens.lock().get(&(index, ask.push)).cloned();
        for _ in 0..=REDIRECTS {
            let is_home = place.authority == endpoint.authority && place.tls == endpoint.tls;
            let mut request = Request::builder()
                .method(ask.method.clone())
                .uri(&path)
                .header(USER_AGENT, concat!("coracle/", env!("CARGO_PKG_VERSION")));
            for (name, value) in &ask.headers {
                request = request.header(name, value);
            }
            if is_home {
                for (name, value) in &endpoint.headers {
                    request = request.header(name, value);
                }
                if let Some(value) = &authorization {
                    let mut value = HeaderValue::from_str(value)
                        .map_err(|_| wrong("the credential cannot be sent".to_owned()))?;
                    value.set_sensitive(true);
                    request = request.header(AUTHORIZATION, value);
                }
            }
            let body = payload(&ask.body).await?;
            let request = request
                .body(body)
                .map_err(|error| wrong(format!("request: {error}")))?;
            let answer = self.http.send(&place, request).await?;
            let is_read = matches!(ask.method, Method::GET | Method::HEAD);
            if !is_read || !answer.status().is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let Some(location) = location else {
                return Ok(answer);
            };
            let (next, next_path) = follow(location, &place, endpoint)
                .ok_or_else(|| wrong(format!("redirects to {location:?}, which is no URL")))?;
            if place.tls && !next.tls {
                return Err(wrong(format!("redirects from TLS to {location:?} without")));
            }
            (place, path) = (next, next_path);
        }
        Err(wrong(format!("more than {REDIRECTS} redirects")))
    }

    /// The answer, if it is one of success; otherwise what the registry said.
    pub(in crate::registry) async fn check(
        &self,
        place: usize,
        answer: Response<Incoming>,
    ) -> Result<Response<Incoming>, RegistryError> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let host = self.places[place].authority.clone();
        let (head, body) = answer.into_parts();
        // Words are a courtesy: without them there is still the status.
        let body = self.http.read(&host, body, MAX_ERROR_BYTES).await;
        let mut said = words(&body.unwrap_or_default());
        let retry_after = retry_after(&head.headers);
        if let Some(pause) = retry_after {
            said.push_str(&format!(" (asks for a pause of {}s)", pause.as_secs()));
        }
        Err(RegistryError::Refused {
            host,
            status: head.status,
            words: said,
            retry_after,
        })
    }
}

async fn payload(payload: &Payload) -> Result<Body, RegistryError> {
    match payload {
        Payload::Nothing => Ok(empty()),
        Payload::Bytes(bytes) => Ok(full(bytes.clone())),
        Payload::File(path, size) => push::file(path, *size).await.map_err(|error| {
            RegistryError::Local(format!("failed to read {}: {error}", path.display()))
        }),
    }
}

/// Whether a token server that the registry at `endpoint` names gets the password. In the clear it
/// crosses a network only to a registry that was itself configured to be reached so.
fn may_have_password(server: &Place, endpoint: &Endpoint) -> bool {
    let is_registry = !endpoint.tls && server.authority.eq_ignore_ascii_case(&endpoint.authority);
    server.tls || is_registry || is_loopback(&server.authority)
}

/// Place and path of a URL, or of a path at `endpoint`.
fn target(url: &str, endpoint: &Endpoint) -> Option<(Place, String)> {
    let home = Place {
        tls: endpoint.tls,
        authority: endpoint.authority.clone(),
        trust: endpoint.trust.clone(),
    };
    follow(url, &home, endpoint)
}

/// Where `location`, said by `from`, leads. Authorities and certificates of files count for their
/// host alone.
fn follow(location: &str, from: &Place, endpoint: &Endpoint) -> Option<(Place, String)> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let place = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) => {
            let is_home = authority.as_str() == endpoint.authority;
            Place {
                tls: scheme == "https",
                authority: authority.as_str().to_owned(),
                trust: match is_home {
                    true => endpoint.trust.clone(),
                    false => Trust {
                        client: None,
                        skip_verify: false,
                        ..endpoint.trust.clone()
                    },
                },
            }
        }
        (None, None) if path.starts_with('/') => from.clone(),
        _ => return None,
    };
    Some((place, path.to_owned()))
}

/// Seconds; the form with a date is rare and not worth a clock.
fn retry_after(headers: &::http::HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::hosts::parse;

    #[test]
    fn passwords_go_in_the_clear_to_the_registry_itself_at_most() {
        let endpoint = |url: &str| {
            let text = format!("server = \"{url}\"");
            let folder = std::path::Path::new("/");
            let endpoints = parse(&text, folder, "r.example").unwrap();
            endpoints.into_iter().next_back().unwrap()
        };
        for (registry, realm, expected) in [
            ("https://r.example", "https://auth.example/token", true),
            ("https://r.example", "http://r.example/token", false),
            ("https://r.example", "http://127.0.0.1:5000/token", true),
            ("http://r.example", "https://auth.example/token", true),
            ("http://r.example", "http://auth.example/token", false),
            ("http://r.example", "http://r.example:81/token", false),
            ("http://r.example:5000", "http://R.example:5000/token", true),
            ("http://r.example:5000", "/token", true),
            ("http://r.example", "http://localhost:5000/token", true),
            ("http://127.0.0.1:5000", "http://auth.example/token", false),
        ] {
            let endpoint = endpoint(registry);
            let (server, _) = target(realm, &endpoint).unwrap();
            let may = may_have_password(&server, &endpoint);
            assert_eq!(may, expected, "{registry} names {realm}");
        }
    }
}
