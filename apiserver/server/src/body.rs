//! Bodies: what answers are made of, and how requests are read within bounds.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

use crate::status::{ApiError, Result};

/// What can go wrong while a body is sent or read.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: a block of bytes, or a stream such as a watch or a log.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The largest request body, as upstream's `MaxRequestBodyBytes`.
pub(crate) const MAX_REQUEST_BODY: usize = 3 * 1024 * 1024;

/// How much of a body that is too large is read before the refusal.
const MAX_DRAINED: usize = 8 * 1024 * 1024;

/// How much of a body is read that the answer didn't need, and for how long.
const MAX_FINISHED: usize = 256 * 1024;
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

/// A body of `bytes`.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A body without bytes.
pub(crate) fn empty() -> Body {
    Empty::new()
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A request body as it arrives, for whoever hands it on.
pub(crate) fn streamed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Reads a request body of up to [`MAX_REQUEST_BODY`] bytes.
pub(crate) async fn read<B>(body: B) -> Result<Bytes>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    if body.size_hint().lower() >= MAX_REQUEST_BODY as u64 {
        drain(body).await;
        return Err(ApiError::too_large(MAX_REQUEST_BODY));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(data) = next_data(body.as_mut()).await? {
        if first.len() + rest.len() + data.len() >= MAX_REQUEST_BODY {
            drain(body).await;
            return Err(ApiError::too_large(MAX_REQUEST_BODY));
        }
        match (first.is_empty(), rest.is_empty()) {
            (true, true) => first = data,
            (false, true) => {
                rest.extend_from_slice(&first);
                rest.extend_from_slice(&data);
                first = Bytes::new();
            }
            _ => rest.extend_from_slice(&data),
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

/// Reads what is left of a body that the answer didn't need, if it is little and soon there: a connection whose
/// request was not read to its end can't be used again.
pub(crate) async fn finish<B: HttpBody<Data = Bytes>>(mut body: std::pin::Pin<&mut B>) {
    let mut left = MAX_FINISHED;
    let rest = async {
        while !body.is_end_stream()
            && let Some(Ok(frame)) = body.frame().await
        {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Who sends slower than that has to connect again.
    let _ = tokio::time::timeout(FINISH_TIMEOUT, rest).await;
}

/// The next bytes of a body; `None` at its end.
async fn next_data<B>(mut body: std::pin::Pin<&mut B>) -> Result<Option<Bytes>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("failed to read the body: {}", error.into()))
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Reads on for a while without keeping anything: many clients look for the answer only when all is sent.
async fn drain<B: HttpBody<Data = Bytes>>(mut body: std::pin::Pin<&mut B>) {
    let mut left = MAX_DRAINED;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else {
            return;
        };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_at_the_limit_are_refused() {
        let fits = Full::new(Bytes::from(vec![b'x'; MAX_REQUEST_BODY - 1]));
        assert_eq!(read(fits).await.expect("fits").len(), MAX_REQUEST_BODY - 1);
        let large = Full::new(Bytes::from(vec![b'x'; MAX_REQUEST_BODY]));
        assert_eq!(read(large).await.expect_err("too large").code(), 413);
    }
}
