//! `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions` and `ListOptions`: what the query (and a
//! deletion's body) asks besides the object.

use std::borrow::Cow;
use std::num::{IntErrorKind, ParseIntError};

use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, Object};
use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;

use crate::request_info::{Query, truthy};
use crate::selection::check_grammar;
use crate::status::{ApiError, Result};

/// Longest `fieldManager`.
const MAX_FIELD_MANAGER: usize = 128;

/// What happens to fields that the schema does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and a `Warning` header names them.
    Warn,
    /// They are an error.
    Strict,
}

/// The options that creations, updates and patches share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Who owns the fields written.
    pub field_manager: String,
    /// Unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Whether a configuration is applied, which settles who owns what by itself.
    pub applied: bool,
    /// Whether an applied configuration takes fields from their owners.
    pub force: bool,
}

impl WriteOptions {
    /// Reads the query; `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`, for messages.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self> {
        Self::read(query, kind, false)
    }

    /// Reads the query of a request that applies a configuration.
    pub(crate) fn parse_apply(query: &Query) -> Result<Self> {
        Self::read(query, "PatchOptions", true)
    }

    /// Who owns what the request writes: the stated manager, or the program that the client says it is.
    pub(crate) fn manager<'a>(&'a self, headers: &'a HeaderMap) -> Cow<'a, str> {
        if !self.field_manager.is_empty() {
            return Cow::Borrowed(&self.field_manager);
        }
        let agent = headers
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok());
        let program = agent
            .unwrap_or_default()
            .split('/')
            .next()
            .unwrap_or_default();
        let printable = program.chars().filter(|character| !character.is_control());
        printable.take(MAX_FIELD_MANAGER).collect()
    }

    fn read(query: &Query, kind: &str, applied: bool) -> Result<Self> {
        let mut errors = FieldErrors::default();
        let field_manager = query.get("fieldManager").unwrap_or_default().to_owned();
        if applied && field_manager.is_empty() {
            let detail = "is required for apply patch";
            errors.push(ErrorType::Required, "fieldManager", None, detail);
        }
        check_field_manager(&field_manager, &mut errors);
        let dry_run = dry_run(&dry_run_values(query), &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let detail = r#"supported values: "", "Ignore", "Strict", "Warn""#;
                errors.push(
                    ErrorType::NotSupported,
                    "fieldValidation",
                    Some(Value::from(other)),
                    detail,
                );
                FieldValidation::Warn
            }
        };
        let force = query.has("force") && truthy(query.get("force"));
        if kind == "PatchOptions" && force && !applied {
            errors.push(
                ErrorType::Forbidden,
                "force",
                None,
                "may not be specified for non-apply patch",
            );
        }
        finish(
            kind,
            errors,
            Self {
                dry_run,
                field_manager,
                field_validation,
                applied,
                force,
            },
        )
    }
}

/// How dependents are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They stay, without this owner.
    Orphan,
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
}

/// The options of a deletion.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DeleteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Seconds until a graceful deletion is enforced.
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy`, or what the older `orphanDependents` means.
    pub propagation: Option<Propagation>,
    /// `orphanDependents: false` was sent: dependents follow by whatever finalizers there are.
    pub orphan_dependents: Option<bool>,
    /// Only an object of this identity.
    pub uid: Option<String>,
    /// Only an object at this revision.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the query, or the body when there is one.
    pub(crate) fn parse(query: &Query, body: Option<&Object>) -> Result<Self> {
        let mut errors = FieldErrors::default();
        let mut options = Self::default();
        let (policy, dry_runs) = match body {
            Some(body) => {
                options.grace_period_seconds = body.at("gracePeriodSeconds").as_i64();
                options.orphan_dependents = body.at("orphanDependents").as_bool();
                options.uid = body.at("preconditions.uid").as_str().map(str::to_owned);
                options.resource_version = body
                    .at("preconditions.resourceVersion")
                    .as_str()
                    .map(str::to_owned);
                let dry_runs = body
                    .at("dryRun")
                    .items()
                    .map(|item| item.str().to_owned())
                    .collect();
                (
                    body.at("propagationPolicy").as_str().map(str::to_owned),
                    dry_runs,
                )
            }
            None => {
                options.grace_period_seconds = match query
                    .get("gracePeriodSeconds")
                    .filter(|text| !text.is_empty())
                {
                    Some(text) => Some(parse_int(text).map_err(ApiError::bad_request)?),
                    None => None,
                };
                let orphan = query
                    .get("orphanDependents")
                    .filter(|text| !text.is_empty());
                options.orphan_dependents = orphan.map(|text| truthy(Some(text)));
                // Flat here, and next to the `resourceVersion` of a collection's list: both are preconditions upstream.
                let given = |key: &str| query.get(key).filter(|text| !text.is_empty());
                options.uid = given("uid").map(str::to_owned);
                options.resource_version = given("resourceVersion").map(str::to_owned);
                (
                    query.get("propagationPolicy").map(str::to_owned),
                    dry_run_values(query),
                )
            }
        };
        if options
            .grace_period_seconds
            .is_some_and(|seconds| seconds < 0)
        {
            options.grace_period_seconds = Some(1);
        }
        if let (Some(policy), Some(_)) = (&policy, options.orphan_dependents) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(
                ErrorType::Invalid,
                "propagationPolicy",
                Some(Value::from(policy.as_str())),
                detail,
            );
        }
        options.propagation = match policy.as_deref() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let detail = r#"supported values: "Foreground", "Background", "Orphan", "nil""#;
                errors.push(
                    ErrorType::NotSupported,
                    "propagationPolicy",
                    Some(Value::from(other)),
                    detail,
                );
                None
            }
        };
        options.dry_run = dry_run(&dry_runs, &mut errors);
        finish("DeleteOptions", errors, options)
    }
}

fn dry_run_values(query: &Query) -> Vec<String> {
    query.all("dryRun").map(str::to_owned).collect()
}

fn dry_run(values: &[String], errors: &mut FieldErrors) -> bool {
    if values.iter().any(|value| value != "All") {
        let shown = Value::from(values.to_vec());
        errors.push(
            ErrorType::NotSupported,
            "dryRun",
            Some(shown),
            r#"supported values: "All""#,
        );
    }
    !values.is_empty()
}

fn check_field_manager(manager: &str, errors: &mut FieldErrors) {
    if manager.len() > MAX_FIELD_MANAGER {
        let detail = format!("may not be more than {MAX_FIELD_MANAGER} bytes");
        errors.push(ErrorType::TooLong, "fieldManager", None, detail);
    }
    for (at, character) in manager.char_indices() {
        if character.is_control() {
            let detail = format!(
                "invalid character U+{:04X} (at position {at})",
                character as u32
            );
            errors.push(
                ErrorType::Invalid,
                "fieldManager",
                Some(Value::from(manager)),
                detail,
            );
        }
    }
}

fn finish<T>(kind: &str, errors: FieldErrors, options: T) -> Result<T> {
    if errors.is_empty() {
        return Ok(options);
    }
    Err(ApiError::invalid_as(
        "meta.k8s.io",
        kind,
        &format!("{kind}.meta.k8s.io"),
        "",
        &errors,
    ))
}

/// How `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    /// At this revision or a later one.
    NotOlderThan,
    /// At exactly this revision.
    Exact,
}

/// The options of lists and watches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ListOptions {
    /// `resourceVersion` as sent; empty when absent.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub version_match: Option<VersionMatch>,
    /// Most items per page; 0 means all.
    pub limit: usize,
    /// Where the last page ended.
    pub continue_token: String,
    /// Seconds after which a watch ends.
    pub timeout_seconds: Option<u64>,
    /// Whether a watch gets bookmarks.
    pub bookmarks: bool,
    /// Whether a watch begins with the present objects.
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads the query of a list or (with `watch`) a watch.
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<Self> {
        let get = |key: &str| query.get(key).unwrap_or_default();
        let number = |key: &str| -> Result<Option<i64>> {
            let text = get(key);
            if text.is_empty() {
                return Ok(None);
            }
            parse_int(text).map(Some).map_err(ApiError::bad_request)
        };
        let mut errors = FieldErrors::default();
        let matched = get("resourceVersionMatch");
        let mut options = Self {
            resource_version: get("resourceVersion").to_owned(),
            version_match: match matched {
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                "Exact" => Some(VersionMatch::Exact),
                _ => None,
            },
            limit: number("limit")?.map_or(0, |limit| limit.max(0) as usize),
            continue_token: get("continue").to_owned(),
            timeout_seconds: number("timeoutSeconds")?
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|s| *s > 0),
            bookmarks: truthy(query.get("allowWatchBookmarks")),
            send_initial_events: query
                .get("sendInitialEvents")
                .map(|text| truthy(Some(text))),
        };
        // In upstream's order: numbers, the selectors' grammar, how the options go together, the selectors' fields.
        check_grammar(query)?;
        if query.get("sendInitialEvents") == Some("") {
            options.send_initial_events = None;
        }
        if watch {
            options.check_watch(matched, &mut errors);
        } else {
            options.check_list(matched, &mut errors);
        }
        finish("ListOptions", errors, options)
    }

    fn check_watch(&self, matched: &str, errors: &mut FieldErrors) {
        let forbidden = |errors: &mut FieldErrors, field: &str, detail: &str| {
            errors.push(ErrorType::Forbidden, field, None, detail);
        };
        match (self.send_initial_events, matched) {
            (Some(_), matched) => {
                if matched != "NotOlderThan" {
                    let detail =
                        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                    forbidden(errors, "resourceVersionMatch", detail);
                }
                if !matches!(matched, "" | "NotOlderThan") {
                    let value = Some(Value::from(matched));
                    errors.push(
                        ErrorType::NotSupported,
                        "resourceVersionMatch",
                        value,
                        r#"supported values: "NotOlderThan""#,
                    );
                }
            }
            (None, "") => {}
            (None, _) => {
                let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                forbidden(errors, "resourceVersionMatch", detail);
            }
        }
        if !self.continue_token.is_empty() {
            forbidden(errors, "continue", "continue is forbidden for watch");
        }
    }

    fn check_list(&self, matched: &str, errors: &mut FieldErrors) {
        let mut forbidden =
            |field: &str, detail: &str| errors.push(ErrorType::Forbidden, field, None, detail);
        if self.send_initial_events.is_some() {
            forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        if matched.is_empty() {
            return;
        }
        if self.resource_version.is_empty() {
            forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if !self.continue_token.is_empty() {
            forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        match matched {
            "Exact" if self.resource_version == "0" => {
                forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
            "Exact" | "NotOlderThan" => {}
            other => {
                let detail = r#"supported values: "Exact", "NotOlderThan", """#;
                errors.push(
                    ErrorType::NotSupported,
                    "resourceVersionMatch",
                    Some(Value::from(other)),
                    detail,
                );
            }
        }
    }
}

/// A revision as a client sends it; empty and `0` are `None`.
pub(crate) fn parse_revision(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    match parse_uint(text) {
        Ok(0) => Ok(None),
        Ok(revision) => Ok(Some(revision)),
        Err(why) => Err(ApiError::unclassified(format!(
            "resourceVersion: Invalid value: {text:?}: {why}"
        ))),
    }
}

/// A number as Go's `strconv.ParseInt` reads it.
pub(crate) fn parse_int(text: &str) -> std::result::Result<i64, String> {
    let parsed = text.parse::<i64>();
    parsed.map_err(|error| not_a_number("ParseInt", text, error))
}

/// A number as Go's `strconv.ParseUint` reads it: without a sign.
pub(crate) fn parse_uint(text: &str) -> std::result::Result<u64, String> {
    let unsigned = text.strip_prefix('+').map_or(text, |_| "");
    let parsed = unsigned.parse::<u64>();
    parsed.map_err(|error| not_a_number("ParseUint", text, error))
}

fn not_a_number(function: &str, text: &str, error: ParseIntError) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        assert_eq!((parse_int("+5"), parse_int("-5")), (Ok(5), Ok(-5)));
        let why = |function: &str, text: &str, why: &str| {
            Err(format!("strconv.{function}: parsing {text:?}: {why}"))
        };
        let big = "99999999999999999999";
        assert_eq!(
            parse_int(big),
            why("ParseInt", big, "value out of range").map(|()| 0)
        );
        assert_eq!(
            parse_uint(big),
            why("ParseUint", big, "value out of range").map(|()| 0)
        );
        assert_eq!(
            parse_uint("+5"),
            why("ParseUint", "+5", "invalid syntax").map(|()| 0)
        );
        assert_eq!(
            parse_int(""),
            why("ParseInt", "", "invalid syntax").map(|()| 0)
        );
    }

    #[test]
    fn bad_options_are_worded_as_upstream_words_them() {
        let error =
            WriteOptions::parse(&Query::parse("dryRun=Bad"), "CreateOptions").expect_err("refused");
        assert_eq!(
            error.to_string(),
            r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Bad"]: supported values: "All""#
        );
        let error = ListOptions::parse(
            &Query::parse("sendInitialEvents=true&resourceVersionMatch=Exact"),
            true,
        );
        assert_eq!(
            error.expect_err("refused").to_string(),
            r#"ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]"#
        );
    }

    #[test]
    fn deletions_read_the_query_or_the_body() {
        let query = Query::parse("gracePeriodSeconds=3&propagationPolicy=Foreground");
        let options = DeleteOptions::parse(&query, None).expect("legal");
        assert_eq!(
            (options.grace_period_seconds, options.propagation),
            (Some(3), Some(Propagation::Foreground))
        );
        let body = serde_json::json!({"preconditions": {"uid": "u"}, "dryRun": ["All"]});
        let body = Object::from_value(body).expect("an object");
        let options = DeleteOptions::parse(&query, Some(&body)).expect("legal");
        assert_eq!(
            (options.uid.as_deref(), options.dry_run, options.propagation),
            (Some("u"), true, None)
        );
    }

    #[test]
    fn revisions_are_numbers() {
        assert_eq!(parse_revision("").expect("absent"), None);
        assert_eq!(parse_revision("0").expect("any"), None);
        assert_eq!(parse_revision("7").expect("a number"), Some(7));
        assert_eq!(parse_revision("x").expect_err("not a number").code(), 500);
    }
}
