//! Which representation an answer gets, and which format a body is in.
//!
//! Upstream decides twice, and so do we: its router compares the bare media types with what the route can produce
//! ([`acceptable`]), and the handler then reads the parameters and takes the first clause that it can serve
//! ([`output`]). The two refuse in different words.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

use crate::status::{ApiError, Result};

/// `application/json`.
pub(crate) const JSON: &str = "application/json";
/// `application/yaml`.
pub(crate) const YAML: &str = "application/yaml";
/// Kubernetes' protobuf envelope.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Watch events in protobuf.
pub(crate) const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What any answer can be written in.
const OBJECT_TYPES: &[&str] = &[JSON, YAML, PROTOBUF];
const STREAM_TYPES: &[&str] = &["application/json;stream=watch", PROTOBUF_STREAM];

/// Group, version and kind of what `/statusz` says, for programs.
const STATUSZ: [&str; 3] = ["config.k8s.io", "v1beta1", "Statusz"];

/// Group, version and kind of all of discovery at once.
const AGGREGATED: [&str; 3] = ["apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList"];

/// Clauses of `Accept` that are looked at; nobody needs more, and sorting them is quadratic.
const MAX_CLAUSES: usize = 64;

/// The bytes that an answer is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Protobuf.
    Protobuf,
}

impl Format {
    const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    fn subtype(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Protobuf => "vnd.kubernetes.protobuf",
        }
    }
}

/// What an answer shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object itself.
    Object,
    /// `meta.k8s.io` `Table`, in this version.
    Table(&'static str),
    /// `meta.k8s.io` `PartialObjectMetadata`, in this version; an answer that is a list is refused.
    PartialMetadata(&'static str),
    /// `meta.k8s.io` `PartialObjectMetadataList`, in this version; an answer that is no list is refused.
    PartialMetadataList(&'static str),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Bytes.
    pub format: Format,
    /// Content.
    pub shape: Shape,
    /// Whether lines are indented (`?pretty=1`, or a client that people read).
    pub pretty: bool,
}

impl Output {
    /// Plain JSON of the object.
    pub(crate) const PLAIN: Self = Self {
        format: Format::Json,
        shape: Shape::Object,
        pretty: false,
    };

    /// Whether stored bytes can be sent as they are.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::PLAIN
    }
}

/// The router's look at `Accept`: whether one of its media types, without parameters, is `*/*`, one of the usual
/// ones, or among `further`. `streams` adds the types of watches to those that a refusal lists.
pub(crate) fn acceptable(headers: &HeaderMap, further: &[&str], streams: bool) -> Result<()> {
    let accept = accept(headers);
    if accept.is_empty() {
        return Ok(());
    }
    let fits = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default().trim();
        media == "*/*" || OBJECT_TYPES.contains(&media) || further.contains(&media)
    };
    if accept.split(',').any(fits) {
        return Ok(());
    }
    let mut available = further.to_vec();
    available.extend(OBJECT_TYPES);
    if streams {
        available.extend(STREAM_TYPES);
    }
    Err(ApiError::not_acceptable(&available))
}

/// Chooses the representation of an answer from `Accept`; not every answer has `tables`.
pub(crate) fn output(headers: &HeaderMap, pretty: Option<&str>, tables: bool) -> Result<Output> {
    let fit = |format, parameters: &Parameters<'_>| {
        // A table has no protobuf form.
        let tables = tables && format != Format::Protobuf;
        shape(parameters).filter(|shape| tables || !matches!(shape, Shape::Table(_)))
    };
    let (output, shape) = choose(headers, pretty, fit).ok_or_else(no_object_type)?;
    Ok(Output { shape, ..output })
}

/// Chooses the representation of an answer that is not turned into anything, such as a document of discovery.
pub(crate) fn untransformed(headers: &HeaderMap, pretty: Option<&str>) -> Result<Output> {
    let fit = |_, parameters: &Parameters<'_>| parameters.transform().is_none().then_some(());
    let (output, ()) = choose(headers, pretty, fit).ok_or_else(no_object_type)?;
    Ok(output)
}

/// Chooses the representation of all of discovery at once; `None` if the client would rather have it piece by piece,
/// or accepts nothing that is served. As upstream's `DiscoveryEndpointRestrictions`, which has no `v2beta1` since 1.35.
pub(crate) fn aggregated(headers: &HeaderMap, pretty: Option<&str>) -> Option<Output> {
    let fit = |_, parameters: &Parameters<'_>| match parameters.transform() {
        None => Some(false),
        transform => (transform == Some(AGGREGATED)).then_some(true),
    };
    let (output, at_once) = choose(headers, pretty, fit)?;
    at_once.then_some(output)
}

/// Chooses how `/statusz` is written: as text, which is `None`, or as the object that a clause asks for.
pub(crate) fn statusz(headers: &HeaderMap, pretty: Option<&str>) -> Result<Option<Output>> {
    let accept = accept(headers);
    if accept.is_empty() {
        return Ok(None);
    }
    for clause in clauses(&accept) {
        let transform = clause.parameters.transform();
        let formats = [Format::Json, Format::Yaml].into_iter();
        let mut named = formats.filter(|format| clause.names("application", format.subtype()));
        if transform == Some(STATUSZ)
            && let Some(format) = named.next()
        {
            return Ok(Some(Output {
                format,
                shape: Shape::Object,
                pretty: is_pretty(headers, pretty) || clause.parameters.pretty,
            }));
        }
        if transform.is_none() && clause.names("text", "plain") {
            return Ok(None);
        }
    }
    Err(ApiError::only_accepted(&[
        JSON,
        YAML,
        PROTOBUF,
        "text/plain",
    ]))
}

fn no_object_type() -> ApiError {
    ApiError::only_accepted(OBJECT_TYPES)
}

/// Chooses the representation of a watch's events.
pub(crate) fn stream(headers: &HeaderMap, pretty: Option<&str>) -> Result<Output> {
    let output = output(headers, pretty, true)?;
    match output.format {
        Format::Yaml => Err(ApiError::only_accepted(STREAM_TYPES)),
        _ => Ok(Output {
            pretty: false,
            ..output
        }),
    }
}

/// Chooses the format of a failure; indented JSON where the client accepts nothing that fits.
pub(crate) fn failure(headers: &HeaderMap, pretty: Option<&str>) -> Output {
    untransformed(headers, pretty).unwrap_or(Output {
        pretty: true,
        ..Output::PLAIN
    })
}

/// The parameters of a clause that mean something.
#[derive(Default)]
struct Parameters<'a> {
    kind: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    pretty: bool,
}

impl<'a> Parameters<'a> {
    /// Group, version and kind of what the answer is to be turned into, if anything; what is not said is empty.
    fn transform(&self) -> Option<[&'a str; 3]> {
        let parts = [self.group, self.version, self.kind];
        let any = parts.iter().any(Option::is_some);
        any.then(|| parts.map(Option::unwrap_or_default))
    }
}

/// The first clause, in the order of preference, whose parameters `fit` takes for a format that the clause names; and
/// what `fit` makes of them.
fn choose<T>(
    headers: &HeaderMap,
    pretty: Option<&str>,
    fit: impl Fn(Format, &Parameters<'_>) -> Option<T>,
) -> Option<(Output, T)> {
    let pretty = is_pretty(headers, pretty);
    let accept = accept(headers);
    if accept.is_empty() {
        let output = Output {
            pretty,
            ..Output::PLAIN
        };
        return Some((output, fit(output.format, &Parameters::default())?));
    }
    for clause in clauses(&accept) {
        let formats = Format::ALL.into_iter();
        for format in formats.filter(|format| clause.names("application", format.subtype())) {
            let Some(found) = fit(format, &clause.parameters) else {
                continue;
            };
            let output = Output {
                format,
                shape: Shape::Object,
                pretty: pretty || clause.parameters.pretty,
            };
            return Some((output, found));
        }
    }
    None
}

/// What a clause's parameters ask an object to be turned into; `None` when that can't be.
fn shape(parameters: &Parameters<'_>) -> Option<Shape> {
    let Some([group, version, kind]) = parameters.transform() else {
        return Some(Shape::Object);
    };
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => "v1",
        ("meta.k8s.io", "v1beta1") => "v1beta1",
        _ => return None,
    };
    match kind {
        "Table" => Some(Shape::Table(version)),
        "PartialObjectMetadata" => Some(Shape::PartialMetadata(version)),
        "PartialObjectMetadataList" => Some(Shape::PartialMetadataList(version)),
        _ => None,
    }
}

/// One of the comma-separated parts of `Accept`.
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f64,
    parameters: Parameters<'a>,
}

impl Clause<'_> {
    /// Whether a media type is the one, or among those, that the clause names.
    fn names(&self, kind: &str, subtype: &str) -> bool {
        match (self.kind, self.subtype) {
            ("*", "*") => true,
            (own, "*") => own == kind,
            own => own == (kind, subtype),
        }
    }
}

/// The clauses in the order of preference, as Go's `goautoneg` sorts them.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut sorted: Vec<Clause<'_>> = Vec::new();
    for clause in accept.split(',').take(MAX_CLAUSES).filter_map(parse_clause) {
        let before = |a: &Clause<'_>, b: &Clause<'_>| {
            a.quality > b.quality
                || a.kind != "*" && b.kind == "*"
                || a.subtype != "*" && b.subtype == "*"
        };
        let mut at = sorted.len();
        while at > 0 && before(&clause, &sorted[at - 1]) {
            at -= 1;
        }
        sorted.insert(at, clause);
    }
    sorted
}

fn parse_clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';');
    let media = parts.next().unwrap_or_default();
    let (kind, subtype) = match media.split_once('/') {
        Some((kind, subtype)) if !subtype.contains('/') => (kind.trim(), subtype.trim()),
        None if media.trim() == "*" => ("*", "*"),
        _ => return None,
    };
    let mut clause = Clause {
        kind,
        subtype,
        quality: 1.0,
        parameters: Parameters::default(),
    };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        let (key, value) = (key.trim(), value.trim());
        match key {
            "q" => clause.quality = value.parse().unwrap_or(0.0),
            "as" => clause.parameters.kind = Some(value),
            "g" => clause.parameters.group = Some(value),
            "v" => clause.parameters.version = Some(value),
            "pretty" => clause.parameters.pretty = value == "1",
            _ => {}
        }
    }
    Some(clause)
}

fn accept(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    values.join(",").trim().to_owned()
}

/// Whether answers are for eyes: the query says so, or else the program is one that people use by hand.
fn is_pretty(headers: &HeaderMap, asked: Option<&str>) -> bool {
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| {
        ["curl", "Wget", "Mozilla/5.0"]
            .iter()
            .any(|program| agent.starts_with(program))
    })
}

/// The format of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Protobuf in the `k8s\0` envelope.
    Protobuf,
}

/// The format that `Content-Type` names; nothing means JSON.
pub(crate) fn input(headers: &HeaderMap) -> Result<Input> {
    match media_type(headers) {
        "" | "application/json" => Ok(Input::Json),
        "application/yaml" => Ok(Input::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Input::Protobuf),
        _ => Err(ApiError::unsupported_media_type(OBJECT_TYPES)),
    }
}

/// `Content-Type` without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        headers
    }

    fn chosen(accept: &str) -> Option<(Format, Shape)> {
        let output = output(&headers(accept), None, true).ok()?;
        Some((output.format, output.shape))
    }

    #[test]
    fn kubectl_gets_tables() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(chosen(accept), Some((Format::Json, Shape::Table("v1"))));
    }

    #[test]
    fn the_first_clause_that_can_be_served_wins() {
        let object = |format| Some((format, Shape::Object));
        for (accept, expected) in [
            (
                "application/vnd.kubernetes.protobuf,application/json",
                object(Format::Protobuf),
            ),
            (
                "application/json,application/vnd.kubernetes.protobuf",
                object(Format::Json),
            ),
            (
                "application/json;q=0.5,application/yaml",
                object(Format::Yaml),
            ),
            ("*/*,application/yaml", object(Format::Yaml)),
            ("text/html,*/*;q=0.8", object(Format::Json)),
            (
                "application/json;as=Table;v=v2;g=meta.k8s.io,application/json",
                object(Format::Json),
            ),
            (
                "application/yaml;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Some((Format::Yaml, Shape::PartialMetadata("v1"))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
                None,
            ),
            ("application/json;as=Table", None),
            ("application/json;as=Chair;v=v1;g=meta.k8s.io", None),
            ("application/cbor", None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept}");
        }
    }

    #[test]
    fn the_router_compares_bare_types() {
        let refusal = |accept: &str| acceptable(&headers(accept), &[], false).err();
        assert!(refusal("application/json;as=Chair").is_none());
        assert!(refusal("text/html, */*").is_none());
        let error = refusal("application/*").expect("not acceptable");
        assert_eq!(error.code(), 406);
        assert!(
            error.to_string().ends_with(
                "application/json, application/yaml, application/vnd.kubernetes.protobuf"
            )
        );
    }

    #[test]
    fn watches_are_not_written_in_yaml() {
        let error = stream(&headers("application/yaml"), None).expect_err("not a stream");
        assert_eq!(
            error.to_string(),
            "only the following media types are accepted: application/json;stream=watch, \
             application/vnd.kubernetes.protobuf;stream=watch"
        );
        let output = stream(&headers(PROTOBUF_STREAM), None).expect("protobuf streams");
        assert_eq!(output.format, Format::Protobuf);
    }

    #[test]
    fn failures_are_never_transformed() {
        let table = headers("application/json;as=Table;v=v1;g=meta.k8s.io");
        assert_eq!(failure(&table, None).shape, Shape::Object);
        assert_eq!(failure(&headers(PROTOBUF), None).format, Format::Protobuf);
        assert_eq!(
            failure(&headers("application/xml"), None).format,
            Format::Json
        );
    }

    #[test]
    fn people_get_indented_answers() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "curl/8.5.0".parse().expect("a header"));
        assert!(is_pretty(&headers, None));
        assert!(!is_pretty(&headers, Some("false")));
        assert!(is_pretty(&HeaderMap::new(), Some("1")));
        assert!(!is_pretty(&HeaderMap::new(), Some("yes")));
    }
}
