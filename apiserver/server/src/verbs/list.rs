//! LIST: from the cache at one revision, in pages that belong together.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::cache::{Entry, Snapshot};
use crate::call::Call;
use crate::options::{ListOptions, VersionMatch, parse_revision};
use crate::pause::others_first;
use crate::selection::Selection;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// How long a read waits for a revision that does not exist yet.
const REVISION_WAIT: Duration = Duration::from_secs(3);

/// Objects read from the store at a time for a page of the past.
const STORE_PAGE: usize = 500;

/// Objects that are looked at in one go.
const SLICE: usize = 512;

/// One page.
pub(crate) struct Page {
    /// The objects.
    pub entries: Vec<Arc<Entry>>,
    /// The revision that the page shows.
    pub revision: u64,
    /// How to go on; empty at the end.
    pub continue_token: String,
    /// How many objects follow, when that is known cheaply.
    pub remaining: Option<u64>,
}

/// Answers with the objects that the path and the selectors name.
pub(crate) async fn list(server: &Server, call: &Call) -> Result<Answer> {
    let options = ListOptions::parse(&call.info.query, false)?;
    let selection = Selection::parse(&call.info.query, call.resource)?;
    let page = page(server, call, &options, &selection).await?;
    let now = server.clock().now();
    Ok(Answer::list(call, metadata(&page), page.entries, now).await)
}

/// `metadata` of a list.
pub(crate) fn metadata(page: &Page) -> Value {
    let mut metadata = Map::new();
    metadata.insert(
        "resourceVersion".to_owned(),
        page.revision.to_string().into(),
    );
    if !page.continue_token.is_empty() {
        metadata.insert("continue".to_owned(), page.continue_token.clone().into());
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(metadata)
}

/// Reads one page.
pub(crate) async fn page(
    server: &Server,
    call: &Call,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Page> {
    // "Any state will do" is answered from the cache as a whole, as upstream does.
    let any = options.resource_version == "0" && options.version_match != Some(VersionMatch::Exact);
    let limit = if any && options.continue_token.is_empty() {
        0
    } else {
        options.limit
    };
    let scope = call.scope();
    let (at, after) = if options.continue_token.is_empty() {
        let asked = parse_revision(&options.resource_version)
            .map_err(|error| ApiError::bad_request(format!("invalid resource version: {error}")))?;
        let at = match (asked, options.version_match) {
            (Some(revision), Some(VersionMatch::Exact)) => {
                reach(server, revision).await?;
                Some(revision)
            }
            (Some(revision), _) => {
                reach(server, revision).await?;
                // A page at an old revision without a match rule is exact too.
                (options.version_match.is_none() && options.limit > 0).then_some(revision)
            }
            (None, _) => None,
        };
        (at, None)
    } else {
        let token = ContinueToken::decode(&options.continue_token)?;
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let after = token.start.trim_end_matches('\0').to_owned();
        if let Some(revision) = token.revision()
            && revision < server.storage.compacted()
        {
            return Err(expired(&after));
        }
        (token.revision(), Some(after))
    };
    let progress = server.storage.catch_up().await;
    let cache = server.storage.cache(call.resource)?;
    let below = after.as_ref().map(|after| format!("{scope}{after}"));
    let snapshot = match at {
        None => Some(cache.snapshot(&scope, below.as_deref(), progress).await),
        Some(revision) => cache.snapshot_at(&scope, below.as_deref(), revision).await,
    };
    match (snapshot, at) {
        (Some(snapshot), _) => {
            let Snapshot { entries, revision } = snapshot;
            Ok(cut(entries, revision, limit, &scope, selection).await)
        }
        (None, Some(revision)) => {
            past(server, call, &scope, revision, after, limit, selection).await
        }
        (None, None) => unreachable!("a list of the present always has a snapshot"),
    }
}

/// The first `limit` selected entries, and how to go on. Others have their turn while many are looked at.
async fn cut(
    entries: Vec<Arc<Entry>>,
    revision: u64,
    limit: usize,
    scope: &str,
    selection: &Selection,
) -> Page {
    let everything = selection.is_everything();
    let limit = if limit == 0 { usize::MAX } else { limit };
    let total = entries.len();
    if everything && total <= limit {
        return Page {
            entries,
            revision,
            continue_token: String::new(),
            remaining: None,
        };
    }
    let mut chosen = Vec::new();
    let mut more = false;
    let mut seen = 0usize;
    for entry in entries {
        if chosen.len() == limit {
            more = true;
            break;
        }
        seen += 1;
        if everything || selection.matches(&entry) {
            chosen.push(entry);
        }
        if seen.is_multiple_of(SLICE) {
            others_first().await;
        }
    }
    // A selector hides how many of the rest would match, so there is a next page when anything is left at all.
    let token = match chosen.last() {
        Some(last) if more => ContinueToken::new(revision, scope, &last.key).encode(),
        _ => String::new(),
    };
    let remaining = (more && everything).then_some((total - seen) as u64);
    Page {
        entries: chosen,
        revision,
        continue_token: token,
        remaining,
    }
}

/// A page of the past, from the store.
async fn past(
    server: &Server,
    call: &Call,
    scope: &str,
    revision: u64,
    after: Option<String>,
    limit: usize,
    selection: &Selection,
) -> Result<Page> {
    let mut chosen: Vec<Arc<Entry>> = Vec::new();
    let continues = after.is_some();
    let mut after = after.map(|after| format!("{scope}{after}"));
    loop {
        let read = server
            .storage
            .page(call.resource, scope, revision, after.as_deref(), STORE_PAGE)
            .await;
        let (entries, more) = match read {
            Ok(page) => page,
            Err(coracle_store::Error::Compacted { .. }) if !continues => {
                let message = "The resourceVersion for the provided list is too old.";
                return Err(ApiError::expired(message));
            }
            Err(coracle_store::Error::Compacted { .. }) => {
                let after = after.unwrap_or_default();
                return Err(expired(after.strip_prefix(scope).unwrap_or_default()));
            }
            Err(error) => return Err(error.into()),
        };
        after = entries.last().map(|entry| entry.key.to_string());
        let full = |chosen: &Vec<_>| limit > 0 && chosen.len() == limit;
        let mut rest = entries.into_iter();
        while !full(&chosen) {
            match rest.next() {
                Some(entry) if selection.matches(&entry) => chosen.push(entry),
                Some(_) => {}
                None => break,
            }
        }
        let left = rest.len();
        if full(&chosen) && (left > 0 || more) {
            let last = chosen
                .last()
                .map(|entry| entry.key.to_string())
                .unwrap_or_default();
            let continue_token = ContinueToken::new(revision, scope, &last).encode();
            let remaining = (selection.is_everything() && !more).then_some(left as u64);
            return Ok(Page {
                entries: chosen,
                revision,
                continue_token,
                remaining,
            });
        }
        if !more || after.is_none() {
            return Ok(Page {
                entries: chosen,
                revision,
                continue_token: String::new(),
                remaining: None,
            });
        }
    }
}

/// Waits for `revision`, for a while.
pub(crate) async fn reach(server: &Server, revision: u64) -> Result<()> {
    let caches = server.storage.caches();
    if tokio::time::timeout(REVISION_WAIT, caches.wait_for(revision))
        .await
        .is_err()
    {
        return Err(ApiError::revision_too_large(revision, caches.revision()));
    }
    Ok(())
}

fn expired(start: &str) -> ApiError {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                   new list without the continue parameter, or use the continue token in this response to retrieve \
                   the remainder of the results. Continuing with the provided token results in an inconsistent list \
                   - objects that were created, modified, or deleted between the time the first chunk was returned \
                   and now may show up in the list.";
    let token = ContinueToken {
        v: TOKEN_VERSION.to_owned(),
        rv: -1,
        start: format!("{start}\0"),
    };
    ApiError::expired(message).with_continue(token.encode())
}

/// As lenient as Go's decoder: stray bits at the end are ignored.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on, encoded as upstream encodes it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ContinueToken {
    v: String,
    rv: i64,
    start: String,
}

impl ContinueToken {
    fn new(revision: u64, scope: &str, last: &str) -> Self {
        let start = format!("{}\0", last.strip_prefix(scope).unwrap_or(last));
        Self {
            v: TOKEN_VERSION.to_owned(),
            rv: i64::try_from(revision).unwrap_or(i64::MAX),
            start,
        }
    }

    /// The revision of the list; `None` for a token that goes on inconsistently.
    fn revision(&self) -> Option<u64> {
        u64::try_from(self.rv).ok()
    }

    fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).expect("a token can always be written"))
    }

    fn decode(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = BASE64
            .decode(text)
            .map_err(|error| invalid(&error.to_string()))?;
        coracle_api::schema::parse_json(&bytes).map_err(|error| invalid(&error.to_string()))?;
        let token: Self =
            serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if token.v != TOKEN_VERSION {
            return Err(invalid(&format!(
                "server does not recognize this encoded version {}",
                token.v
            )));
        }
        if token.rv == 0 {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        let path = std::path::Path::new(&token.start);
        let steps_up = path
            .components()
            .any(|part| part == std::path::Component::ParentDir);
        if token.start.is_empty() || token.start.starts_with('/') || steps_up {
            return Err(invalid(&token.start));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_survive_the_round_trip() {
        let token = ContinueToken::new(42, "kt/", "kt/cm1");
        assert_eq!(token.start, "cm1\0");
        assert_eq!(
            ContinueToken::decode(&token.encode()).expect("our own"),
            token
        );
    }

    #[test]
    fn bad_tokens_are_worded_as_upstream_words_them() {
        for (token, why) in [
            ("e30", "server does not recognize this encoded version "),
            (
                "eyJ2IjoidjkiLCJydiI6MSwic3RhcnQiOiJ4In0",
                "server does not recognize this encoded version v9",
            ),
        ] {
            let error = ContinueToken::decode(token)
                .expect_err("refused")
                .to_string();
            assert_eq!(
                error,
                format!("invalid continue token: continue key is not valid: {why}")
            );
        }
    }
}
