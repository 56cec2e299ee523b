//! Whom a request is given: the endpoints in turn, over connections that rested or are new.

use std::net::SocketAddr;
use std::time::Duration;

use coracle_network::NetError;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::body::{RequestBody, Trouble, Upload};
use super::pool::Lease;
use super::refusal::Refusal;
use super::{Proxy, of, too_large};
use crate::table::{Backend, Target};

impl Proxy {
    /// Sends the request to the first endpoint that takes it, and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        target: &Target,
        endpoints: Vec<SocketAddr>,
        mut request: Request<RequestBody>,
        upload: &Upload,
    ) -> Result<(Response<Incoming>, Lease, SocketAddr), Refusal> {
        let is_question = request.body().is_empty()
            && matches!(
                *request.method(),
                Method::GET | Method::HEAD | Method::OPTIONS
            )
            && !request.headers().contains_key(header::UPGRADE);
        let mut endpoints = endpoints.into_iter();
        let mut next = endpoints.next();
        let mut may_use_resting = true;
        let mut last = Unreached::default();
        while let Some(endpoint) = next {
            let resting = match may_use_resting {
                true => self.pool.take(endpoint, target.is_http2),
                false => None,
            };
            let mut lease = match resting {
                Some(lease) => lease,
                None => match self.connect(endpoint, target).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        self.metrics.unreached();
                        last = error;
                        next = endpoints.next();
                        continue;
                    }
                },
            };
            let again = (lease.is_used && is_question).then(|| copy(&request));
            let sending = lease.send(request);
            let Some(sent) = self
                .in_time(sending, upload, target.settings.read_timeout)
                .await
            else {
                let text = format!("{endpoint} of {} did not answer in time", of(target));
                return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, text));
            };
            let mut error = match sent {
                Ok(response) => return Ok((response, lease, endpoint)),
                Err(error) => error,
            };
            match (upload.trouble(), error.take_message(), again) {
                (Some(Trouble::TooLarge), ..) => {
                    return Err(too_large(target.settings.body_limit.unwrap_or_default()));
                }
                (Some(Trouble::Slow), ..) => {
                    let text = "the body of the request did not come in time";
                    return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, text));
                }
                (Some(Trouble::Gone), ..) => {
                    let text = "the body of the request was broken off";
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
                }
                // Nothing was sent: the endpoint may serve on a new connection, or another one may.
                (None, Some(back), _) => {
                    request = back;
                    last = Unreached::of(endpoint, &error.into_error());
                    if !lease.is_used {
                        next = endpoints.next();
                    }
                    may_use_resting = false;
                }
                (None, None, Some(again)) => {
                    request = again;
                    may_use_resting = false;
                }
                (None, None, None) => {
                    let error = error.into_error();
                    tracing::debug!(%endpoint, %error, "a backend broke off");
                    let text = format!("{endpoint} of {} broke off: {error}", of(target));
                    return Err(Refusal::new(StatusCode::BAD_GATEWAY, text));
                }
            }
        }
        let text = format!(
            "no endpoint of {} could be reached: {}",
            of(target),
            last.text
        );
        Err(match last.is_late {
            true => Refusal::new(StatusCode::GATEWAY_TIMEOUT, text),
            false => Refusal::later(text),
        })
    }

    async fn connect(&self, endpoint: SocketAddr, target: &Target) -> Result<Lease, Unreached> {
        let Backend::Service { service, .. } = &target.backend else {
            return Err(Unreached::default()); // it has no endpoints to be tried
        };
        let dial = async {
            let stream = self.network.dial(service, endpoint).await;
            let stream = stream.map_err(|error| Unreached {
                is_late: matches!(error, NetError::TimedOut(_)),
                text: error.to_string(),
            })?;
            let begun = self.pool.begin(endpoint, stream, target.is_http2).await;
            begun.map_err(|error| Unreached::of(endpoint, &error))
        };
        let limited = tokio::time::timeout(target.settings.connect_timeout, dial).await;
        limited.unwrap_or_else(|_| {
            Err(Unreached {
                is_late: true,
                text: format!("connecting to {endpoint} timed out"),
            })
        })
    }

    /// What comes before the backend was silent for `patience` after the last part of the body was sent.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = T>,
        upload: &Upload,
        patience: Duration,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let left = patience.saturating_sub(upload.rests_for());
            if left.is_zero() {
                return None;
            }
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.clock.sleep(left) => {}
            }
        }
    }
}

/// Why the last endpoint that was tried took no request.
#[derive(Default)]
struct Unreached {
    is_late: bool,
    text: String,
}

impl Unreached {
    fn of(endpoint: SocketAddr, error: &hyper::Error) -> Self {
        Self {
            is_late: false,
            text: format!("{endpoint} closed the connection: {error}"),
        }
    }
}

/// The same request, which has no body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    *copy.version_mut() = request.version();
    copy
}
