//! `AuthorizationConfiguration`: who decides on requests, in which order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_api::cel::eval::Program;
use coracle_api::cel::{Environment, ObjectType, Type};
use coracle_api::validation::names::dns1123_subdomain;
use coracle_api::{At, FieldErrors, duration};

use super::shape::Shape::{self, Bool, List, Object, Text};
use super::{ConfigError, decode, settled};

const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha1"];
/// Most conditions of one webhook.
const MOST_CONDITIONS: usize = 64;
/// The types that are served. Upstream has `ABAC` too.
const TYPES: &[&str] = &["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

const FIELDS: &[(&str, Shape)] = &[
    ("apiVersion", Text),
    ("kind", Text),
    (
        "authorizers",
        List(&Object(&[
            ("type", Text),
            ("name", Text),
            (
                "webhook",
                Object(&[
                    ("authorizedTTL", Text),
                    ("cacheAuthorizedRequests", Bool),
                    ("unauthorizedTTL", Text),
                    ("cacheUnauthorizedRequests", Bool),
                    ("timeout", Text),
                    ("subjectAccessReviewVersion", Text),
                    ("matchConditionSubjectAccessReviewVersion", Text),
                    ("failurePolicy", Text),
                    (
                        "connectionInfo",
                        Object(&[("type", Text), ("kubeConfigFile", Text)]),
                    ),
                    ("matchConditions", List(&Object(&[("expression", Text)]))),
                ]),
            ),
        ])),
    ),
];

/// Who decides, as a file says.
#[derive(Debug, Default)]
pub struct AuthorizationConfiguration {
    /// In order; never empty.
    pub authorizers: Vec<Authorizer>,
}

/// One that decides.
#[derive(Debug)]
pub enum Authorizer {
    /// Kubelets may do what their pods need.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Everybody may do everything.
    AlwaysAllow,
    /// Nobody may do anything.
    AlwaysDeny,
    /// A service is asked.
    Webhook(Box<WebhookAuthorizer>),
}

/// A service that is asked.
#[derive(Debug)]
pub struct WebhookAuthorizer {
    /// Its name, in metrics and logs.
    pub name: String,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long it counts that somebody may; zero: not at all.
    pub authorized: Duration,
    /// How long it counts that somebody may not; zero: not at all.
    pub unauthorized: Duration,
    /// The version of the question.
    pub version: String,
    /// Whether nobody may when it cannot be asked; else others are asked.
    pub denies_on_failure: bool,
    /// The kubeconfig file that says where it is.
    pub kubeconfig: PathBuf,
    /// It is asked only where all of these, over `request`, are true.
    pub conditions: Vec<Program>,
}

impl Authorizer {
    /// The type's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Rbac => "RBAC",
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::Webhook(_) => "Webhook",
        }
    }
}

impl AuthorizationConfiguration {
    /// Reads and judges a file. `look` says what is wrong with a path that should be a regular file.
    pub fn parse(text: &str, look: &dyn Fn(&Path) -> Option<String>) -> Result<Self, ConfigError> {
        let value = decode(text, "AuthorizationConfiguration", VERSIONS, FIELDS)?;
        let mut errors = FieldErrors::default();
        let authorizers = read(&At::root(&value, ""), look, &mut errors);
        settled(&errors)?;
        let configuration = Self { authorizers };
        configuration.check_names(&value)?;
        Ok(configuration)
    }

    /// The types besides webhooks.
    pub fn kinds(&self) -> BTreeSet<&'static str> {
        let kinds = self.authorizers.iter().map(Authorizer::kind);
        kinds.filter(|kind| *kind != "Webhook").collect()
    }

    /// What is no webhook has the name of its type. Upstream: `LoadAndValidateData`.
    fn check_names(&self, value: &serde_json::Value) -> Result<(), ConfigError> {
        let at = At::root(value, "").key("authorizers");
        let mut wrong = Vec::new();
        for at in at.items() {
            let (kind, name) = (at.key("type").str(), at.key("name").str());
            let expected = kind.to_lowercase();
            if kind != "Webhook" && name != expected {
                wrong.push(format!(
                    "expected name {expected} for authorizer {kind} instead of {name}"
                ));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::Invalid(crate::authz::together(&wrong))),
        }
    }
}

fn read(
    root: &At<'_>,
    look: &dyn Fn(&Path) -> Option<String>,
    errors: &mut FieldErrors,
) -> Vec<Authorizer> {
    let at = root.key("authorizers");
    if at.items().next().is_none() {
        errors.required(&at, "at least one authorization mode must be defined");
    }
    let mut authorizers = Vec::new();
    let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
    for at in at.items() {
        let (kind, name, webhook) = (at.key("type"), at.key("name"), at.key("webhook"));
        if kind.str().is_empty() {
            errors.required(&kind, "");
            continue;
        }
        if !TYPES.contains(&kind.str()) {
            errors.not_supported(&kind, TYPES);
            continue;
        }
        if !types.insert(kind.str()) && kind.str() != "Webhook" {
            errors.duplicate(&kind);
            continue;
        }
        let illegal = dns1123_subdomain(name.str());
        if name.str().is_empty() {
            errors.required(&name, "");
        } else if names.contains(name.str()) {
            errors.duplicate(&name);
        } else if !illegal.is_empty() {
            let why = format!("authorizer name is invalid: {}", illegal.join(", "));
            errors.invalid(&name, why);
        }
        names.insert(name.str());
        if kind.str() == "Webhook" {
            match webhook.exists() {
                true => {
                    let read = read_webhook(&at, &webhook, name.str(), look, errors);
                    authorizers.extend(read.map(Box::new).map(Authorizer::Webhook));
                }
                false => errors.required(&webhook, "required when type=Webhook"),
            }
            continue;
        }
        if webhook.exists() {
            let why = "may only be specified when type=Webhook";
            errors.invalid_as(&webhook, "non-null".into(), why);
        }
        authorizers.push(match kind.str() {
            "Node" => Authorizer::Node,
            "RBAC" => Authorizer::Rbac,
            "AlwaysAllow" => Authorizer::AlwaysAllow,
            _ => Authorizer::AlwaysDeny,
        });
    }
    authorizers
}

/// Upstream's paths leave `webhook` out: `authorizers[0].timeout`.
fn read_webhook(
    authorizer: &At<'_>,
    webhook: &At<'_>,
    name: &str,
    look: &dyn Fn(&Path) -> Option<String>,
    errors: &mut FieldErrors,
) -> Option<WebhookAuthorizer> {
    let field = |name: &str| {
        let path = format!("{}.{name}", authorizer.path());
        At::maybe(webhook.key(name).value(), path)
    };
    let timeout = length(&field("timeout"), 0, errors)?;
    let long = Duration::from_secs(30).as_nanos() as i64;
    if timeout == 0 {
        errors.required(&field("timeout"), "");
    } else if timeout > long || timeout < 0 {
        let shown = duration::shown(timeout).into();
        errors.invalid_as(&field("timeout"), shown, "must be > 0s and <= 30s");
    }
    let mut lasting = |name: &str, default: i64| {
        let nanos = match length(&field(name), default, errors)? {
            0 => default,
            nanos => nanos,
        };
        if nanos < 0 {
            let shown = duration::shown(nanos).into();
            errors.invalid_as(&field(name), shown, "must be > 0s");
        }
        Some(nanos)
    };
    let second = 1_000_000_000;
    let authorized = lasting("authorizedTTL", 300 * second)?;
    let unauthorized = lasting("unauthorizedTTL", 30 * second)?;
    let version = field("subjectAccessReviewVersion");
    required_of(&version, &["v1", "v1beta1"], errors);
    let conditions = field("matchConditions");
    let condition_version = field("matchConditionSubjectAccessReviewVersion");
    match condition_version.str() {
        "" if !conditions.is_empty() => {
            errors.required(
                &condition_version,
                "required if match conditions are specified",
            );
        }
        "" | "v1" => {}
        _ => errors.not_supported(&condition_version, &["v1"]),
    }
    let policy = field("failurePolicy");
    required_of(&policy, &["NoOpinion", "Deny"], errors);
    let info = field("connectionInfo");
    connection(&info, look, errors);
    let conditions = read_conditions(&conditions, errors);
    let kept = |cached: &str, nanos: i64| match field(cached).as_bool() {
        Some(false) => Duration::ZERO,
        _ => positive(nanos),
    };
    Some(WebhookAuthorizer {
        name: name.to_owned(),
        timeout: positive(timeout),
        authorized: kept("cacheAuthorizedRequests", authorized),
        unauthorized: kept("cacheUnauthorizedRequests", unauthorized),
        version: version.str().to_owned(),
        denies_on_failure: policy.str() == "Deny",
        kubeconfig: PathBuf::from(info.key("kubeConfigFile").str()),
        conditions,
    })
}

/// A length of time that is not negative.
fn positive(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// A length of time; `default` if there is none.
fn length(at: &At<'_>, default: i64, errors: &mut FieldErrors) -> Option<i64> {
    if at.str().is_empty() {
        return Some(default);
    }
    duration::parse(at.str())
        .map_err(|why| errors.invalid(at, why))
        .ok()
}

fn required_of(at: &At<'_>, known: &[&str], errors: &mut FieldErrors) {
    match at.str() {
        "" => errors.required(at, ""),
        text if known.contains(&text) => {}
        _ => errors.not_supported(at, known),
    }
}

fn connection(info: &At<'_>, look: &dyn Fn(&Path) -> Option<String>, errors: &mut FieldErrors) {
    let (kind, file) = (info.key("type"), info.key("kubeConfigFile"));
    match kind.str() {
        "" => errors.required(&kind, ""),
        "InClusterConfig" => {
            if file.exists() {
                errors.invalid(&file, "can only be set when type=KubeConfigFile");
            }
            // Upstream's documentation forbids it here, where the cluster's API is this server.
            errors.invalid(&kind, "not allowed for the API server itself");
        }
        "KubeConfigFile" => {
            let path = Path::new(file.str());
            if file.str().is_empty() {
                errors.required(&file, "");
            } else if !path.is_absolute() {
                errors.invalid(&file, "must be an absolute path");
            } else if let Some(why) = look(path) {
                errors.invalid(&file, why);
            }
        }
        _ => errors.not_supported(&kind, &["InClusterConfig", "KubeConfigFile"]),
    }
}

fn read_conditions(at: &At<'_>, errors: &mut FieldErrors) -> Vec<Program> {
    if at.len() > MOST_CONDITIONS {
        errors.too_many(at, MOST_CONDITIONS);
        return Vec::new();
    }
    let mut programs = Vec::new();
    let mut seen = BTreeSet::new();
    for at in at.items() {
        let expression = at.key("expression");
        if expression.str().trim().is_empty() {
            errors.required(&expression, "");
            continue;
        }
        if !seen.insert(expression.str()) {
            errors.duplicate(&expression);
            continue;
        }
        match Program::compile(expression.str(), &environment()) {
            Err(error) => errors.invalid(&expression, error.to_string()),
            Ok(program) if !matches!(program.result(), Type::Bool | Type::Unknown) => {
                let why = format!("must evaluate to bool but got {}", program.result());
                errors.invalid(&expression, why);
            }
            Ok(program) => programs.push(program),
        }
    }
    programs
}

/// What conditions see: the `spec` of a SubjectAccessReview. Upstream: `buildRequestType`.
fn environment() -> Environment {
    let texts = || Type::list(Type::String);
    let requirement = ObjectType::new(
        "kubernetes.SelectorRequirement",
        [
            ("key", Type::String),
            ("operator", Type::String),
            ("values", texts()),
        ],
    );
    let selector = |name: &str| {
        let requirements = Type::list(Type::from(requirement.clone()));
        let fields = [
            ("rawSelector", Type::String),
            ("requirements", requirements),
        ];
        Type::from(ObjectType::new(name, fields))
    };
    let text = [
        "namespace",
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "name",
    ];
    let selectors = [
        (
            "fieldSelector",
            selector("kubernetes.FieldSelectorAttributes"),
        ),
        (
            "labelSelector",
            selector("kubernetes.LabelSelectorAttributes"),
        ),
    ];
    let resource = ObjectType::new(
        "kubernetes.ResourceAttributes",
        text.map(|name| (name, Type::String))
            .into_iter()
            .chain(selectors),
    );
    let other = ObjectType::new(
        "kubernetes.NonResourceAttributes",
        [("path", Type::String), ("verb", Type::String)],
    );
    let spec = ObjectType::new(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("resourceAttributes", resource.into()),
            ("nonResourceAttributes", other.into()),
            ("user", Type::String),
            ("groups", texts()),
            ("extra", Type::map(texts())),
            ("uid", Type::String),
        ],
    );
    Environment::default().with("request", spec)
}
