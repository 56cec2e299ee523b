//! `AuthenticationConfiguration`: issuers of tokens, and where strangers may go.

use std::collections::BTreeSet;

use coracle_api::cel::eval::Program;
use coracle_api::cel::{Environment, ObjectType, Type};
use coracle_api::validation::names::domain_prefixed_path;
use coracle_api::{At, FieldErrors};
use rustls::RootCertStore;

use super::shape::Shape::{self, Bool, List, Object, Text};
use super::{ConfigError, decode, settled, url};
use crate::outgoing::certificates_in;

const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha1"];
/// Most issuers.
const MOST: usize = 64;

const PREFIXED: Shape = Object(&[("claim", Text), ("prefix", Text), ("expression", Text)]);
const FIELDS: &[(&str, Shape)] = &[
    ("apiVersion", Text),
    ("kind", Text),
    (
        "jwt",
        List(&Object(&[
            (
                "issuer",
                Object(&[
                    ("url", Text),
                    ("discoveryURL", Text),
                    ("certificateAuthority", Text),
                    ("audiences", List(&Text)),
                    ("audienceMatchPolicy", Text),
                    ("egressSelectorType", Text),
                ]),
            ),
            (
                "claimValidationRules",
                List(&Object(&[
                    ("claim", Text),
                    ("requiredValue", Text),
                    ("expression", Text),
                    ("message", Text),
                ])),
            ),
            (
                "claimMappings",
                Object(&[
                    ("username", PREFIXED),
                    ("groups", PREFIXED),
                    ("uid", Object(&[("claim", Text), ("expression", Text)])),
                    (
                        "extra",
                        List(&Object(&[("key", Text), ("valueExpression", Text)])),
                    ),
                ]),
            ),
            (
                "userValidationRules",
                List(&Object(&[("expression", Text), ("message", Text)])),
            ),
        ])),
    ),
    (
        "anonymous",
        Object(&[
            ("enabled", Bool),
            ("conditions", List(&Object(&[("path", Text)]))),
        ]),
    ),
];

/// Whom to believe, as a file says.
#[derive(Debug, Default)]
pub struct AuthenticationConfiguration {
    /// Issuers of tokens, each with what their claims mean.
    pub jwt: Vec<JwtAuthenticator>,
    /// Who asks without credentials; `None`: as the flags say.
    pub anonymous: Option<Anonymous>,
}

/// Whether requests without credentials are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anonymous {
    /// Whether they are at all.
    pub enabled: bool,
    /// The paths where; none means everywhere.
    pub paths: Vec<String>,
}

/// One issuer, and what is made of its tokens.
#[derive(Debug)]
pub struct JwtAuthenticator {
    /// Who issues.
    pub issuer: Issuer,
    /// What tokens must say.
    pub claim_rules: Vec<ClaimRule>,
    /// The user's name.
    pub username: Mapping,
    /// The user's groups.
    pub groups: Option<Mapping>,
    /// The user's stable identifier.
    pub uid: Option<Mapping>,
    /// Further facts.
    pub extra: Vec<Extra>,
    /// What the user that comes of it must be.
    pub user_rules: Vec<Rule>,
}

/// Where an issuer is.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub url: String,
    /// Where its discovery document is, if not at the usual place below `url`.
    pub discovery_url: Option<String>,
    /// Who vouches for its host, if it is not one of the system's authorities.
    pub authorities: Option<RootCertStore>,
    /// The text of that.
    authority: String,
    /// Whom its tokens may be for; one suffices.
    pub audiences: Vec<String>,
}

/// A rule about claims.
#[derive(Debug)]
pub enum ClaimRule {
    /// A claim must have this value.
    Required(String, String),
    /// An expression over `claims` must be true.
    Expression(Rule),
}

/// An expression that must be true, and what to say if it is not.
#[derive(Debug)]
pub struct Rule {
    /// The expression.
    pub program: Program,
    /// What to say.
    pub message: String,
}

/// Where a property of the user comes from.
#[derive(Debug)]
pub enum Mapping {
    /// A claim, with a prefix.
    Claim(String, String),
    /// An expression over `claims`.
    Expression(Program),
}

/// A further fact: its key, and the expression of its values.
#[derive(Debug)]
pub struct Extra {
    /// The key.
    pub key: String,
    /// The values.
    pub program: Program,
}

impl Issuer {
    /// Whether the other is found at the same place, by the same authorities.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        let place = |issuer: &Self| (issuer.url.clone(), issuer.discovery_url.clone());
        place(self) == place(other) && self.authority == other.authority
    }
}

impl AuthenticationConfiguration {
    /// Reads and judges a file. `disallowed`: issuers that are known otherwise, such as the cluster's own.
    pub fn parse(text: &str, disallowed: &[String]) -> Result<Self, ConfigError> {
        let value = decode(text, "AuthenticationConfiguration", VERSIONS, FIELDS)?;
        let root = At::root(&value, "");
        let mut errors = FieldErrors::default();
        let configuration = read(&root, disallowed, &mut errors);
        settled(&errors)?;
        Ok(configuration)
    }
}

fn read(
    root: &At<'_>,
    disallowed: &[String],
    errors: &mut FieldErrors,
) -> AuthenticationConfiguration {
    let mut configuration = AuthenticationConfiguration::default();
    let jwt = root.key("jwt");
    if jwt.len() > MOST {
        errors.too_many(&jwt, MOST);
        return configuration;
    }
    let (mut issuers, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
    for at in jwt.items() {
        configuration
            .jwt
            .extend(authenticator(&at, disallowed, errors));
        let issuer = at.key("issuer");
        let (url, discovery) = (issuer.key("url"), issuer.key("discoveryURL"));
        if !issuers.insert(url.str()) {
            errors.duplicate(&url);
        }
        if !discovery.str().is_empty() && !discoveries.insert(discovery.str()) {
            errors.duplicate(&discovery);
        }
    }
    let anonymous = root.key("anonymous");
    if anonymous.exists() {
        let (enabled, conditions) = (
            anonymous.key("enabled").is_true(),
            anonymous.key("conditions"),
        );
        if !enabled && !conditions.is_empty() {
            errors.invalid(
                &conditions,
                "enabled should be set to true when conditions are defined",
            );
        }
        configuration.anonymous = Some(Anonymous {
            enabled,
            paths: conditions
                .items()
                .map(|at| at.key("path").str().to_owned())
                .collect(),
        });
    }
    configuration
}

fn authenticator(
    at: &At<'_>,
    disallowed: &[String],
    errors: &mut FieldErrors,
) -> Option<JwtAuthenticator> {
    let issuer = issuer(&at.key("issuer"), disallowed, errors);
    let claim_rules = claim_rules(&at.key("claimValidationRules"), errors);
    let mappings = at.key("claimMappings");
    let username = mapping(&mappings.key("username"), true, errors);
    let groups = mapping(&mappings.key("groups"), false, errors);
    let uid = uid(&mappings.key("uid"), errors);
    let extra = extra(&mappings.key("extra"), errors);
    verified_email(&mappings, username.as_ref(), &extra, &claim_rules, errors);
    let user_rules = user_rules(&at.key("userValidationRules"), errors);
    Some(JwtAuthenticator {
        issuer,
        claim_rules,
        username: username?,
        groups,
        uid,
        extra,
        user_rules,
    })
}

fn issuer(at: &At<'_>, disallowed: &[String], errors: &mut FieldErrors) -> Issuer {
    let (url, discovery) = (at.key("url"), at.key("discoveryURL"));
    match url.str() {
        "" => errors.required(&url, ""),
        _ => check_url(&url, disallowed, errors),
    }
    if !discovery.str().is_empty() {
        let bare = |at: &At<'_>| at.str().trim_end_matches('/').to_owned();
        if !url.str().is_empty() && bare(&url) == bare(&discovery) {
            errors.invalid(&discovery, "discoveryURL must be different from URL");
        }
        check_url(&discovery, &[], errors);
    }
    check_audiences(at, errors);
    let authority = at.key("certificateAuthority");
    let mut authorities = None;
    if !authority.str().is_empty() {
        match certificates_in(authority.str().as_bytes()) {
            Ok(roots) => authorities = Some(roots),
            Err(error) => errors.invalid_as(&authority, "<omitted>".into(), error.to_string()),
        }
    }
    let egress = at.key("egressSelectorType");
    match egress.str() {
        "" => {}
        "controlplane" | "cluster" => errors.invalid(
            &egress,
            "there are no egress selectors here: issuers are reached over the host's network",
        ),
        _ => errors.invalid(
            &egress,
            "egress selector must be either controlplane or cluster",
        ),
    }
    Issuer {
        url: url.str().to_owned(),
        discovery_url: Some(discovery.str().to_owned()).filter(|url| !url.is_empty()),
        authorities,
        authority: authority.str().to_owned(),
        audiences: texts(&at.key("audiences")),
    }
}

fn texts(at: &At<'_>) -> Vec<String> {
    at.items().map(|item| item.str().to_owned()).collect()
}

fn check_url(at: &At<'_>, disallowed: &[String], errors: &mut FieldErrors) {
    if disallowed.iter().any(|issuer| issuer == at.str()) {
        let mut sorted: Vec<&str> = disallowed.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        errors.invalid(
            at,
            format!(
                "URL must not overlap with disallowed issuers: [{}]",
                sorted.join(" ")
            ),
        );
    }
    let url = match url::parse(at.str()) {
        Ok(url) => url,
        Err(why) => return errors.invalid(at, why),
    };
    let rules = [
        (url.scheme != "https", "URL scheme must be https"),
        (url.user, "URL must not contain a username or password"),
        (!url.query.is_empty(), "URL must not contain a query"),
        (!url.fragment.is_empty(), "URL must not contain a fragment"),
    ];
    for (broken, why) in rules {
        if broken {
            errors.invalid(at, why);
        }
    }
}

fn check_audiences(at: &At<'_>, errors: &mut FieldErrors) {
    let (audiences, policy) = (at.key("audiences"), at.key("audienceMatchPolicy"));
    let count = audiences.items().count();
    if count == 0 {
        let why = format!("at least one {} is required", audiences.path());
        return errors.required(&audiences, why);
    }
    let mut seen = BTreeSet::new();
    for audience in audiences.items() {
        if audience.str().is_empty() {
            errors.required(&audience, "");
        }
        if !seen.insert(audience.str()) {
            errors.duplicate(&audience);
        }
    }
    let is_any = policy.str() == "MatchAny";
    let shown = policy.str().into();
    if count > 1 && !is_any {
        let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
        errors.invalid_as(&policy, shown, why);
    } else if count == 1 && !policy.str().is_empty() && !is_any {
        let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
        errors.invalid_as(&policy, shown, why);
    }
}

fn claim_rules(at: &At<'_>, errors: &mut FieldErrors) -> Vec<ClaimRule> {
    let mut rules = Vec::new();
    let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
    for at in at.items() {
        let (claim, expression) = (at.key("claim"), at.key("expression"));
        let (message, value) = (at.key("message"), at.key("requiredValue"));
        match (claim.str(), expression.str()) {
            ("", "") => errors.required(&at, "claim or expression is required"),
            (name, "") => {
                if !message.str().is_empty() {
                    errors.invalid(&message, "may not be specified when claim is set");
                }
                if !claims.insert(name) {
                    errors.duplicate(&claim);
                }
                rules.push(ClaimRule::Required(name.to_owned(), value.str().to_owned()));
            }
            ("", text) => {
                if !value.str().is_empty() {
                    errors.invalid(&value, "may not be specified when expression is set");
                }
                if !expressions.insert(text) {
                    errors.duplicate(&expression);
                    continue;
                }
                let rule = rule(&at, &claims_environment(), errors);
                rules.extend(rule.map(ClaimRule::Expression));
            }
            (name, _) => {
                errors.invalid_as(&at, name.into(), "claim and expression can't both be set");
            }
        }
    }
    rules
}

fn user_rules(at: &At<'_>, errors: &mut FieldErrors) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut seen = BTreeSet::new();
    for at in at.items() {
        let expression = at.key("expression");
        if expression.str().is_empty() {
            errors.required(&expression, "");
        } else if !seen.insert(expression.str()) {
            errors.duplicate(&expression);
        } else {
            rules.extend(rule(&at, &user_environment(), errors));
        }
    }
    rules
}

fn rule(at: &At<'_>, environment: &Environment, errors: &mut FieldErrors) -> Option<Rule> {
    let program = compiled(
        &at.key("expression"),
        environment,
        Some(&[Type::Bool]),
        errors,
    )?;
    let message = at.key("message").str().to_owned();
    Some(Rule { program, message })
}

fn mapping(at: &At<'_>, required: bool, errors: &mut FieldErrors) -> Option<Mapping> {
    let (claim, prefix, expression) = (at.key("claim"), at.key("prefix"), at.key("expression"));
    match (claim.str(), expression.str()) {
        ("", "") => {
            if required {
                errors.required(at, "claim or expression is required");
            }
            None
        }
        ("", _) => {
            if prefix.exists() {
                errors.invalid(&prefix, "may not be specified when expression is set");
            }
            let program = compiled(&expression, &claims_environment(), None, errors);
            program.map(Mapping::Expression)
        }
        (name, "") => {
            if !prefix.exists() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.required(&prefix, why);
            }
            Some(Mapping::Claim(name.to_owned(), prefix.str().to_owned()))
        }
        _ => {
            errors.invalid_as(at, "".into(), "claim and expression can't both be set");
            None
        }
    }
}

fn uid(at: &At<'_>, errors: &mut FieldErrors) -> Option<Mapping> {
    let expression = at.key("expression");
    match (at.key("claim").str(), expression.str()) {
        ("", "") => None,
        (name, "") => Some(Mapping::Claim(name.to_owned(), String::new())),
        ("", _) => {
            let program = compiled(&expression, &claims_environment(), None, errors);
            program.map(Mapping::Expression)
        }
        _ => {
            errors.invalid_as(at, "".into(), "claim and expression can't both be set");
            None
        }
    }
}

fn extra(at: &At<'_>, errors: &mut FieldErrors) -> Vec<Extra> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for at in at.items() {
        let (key, value) = (at.key("key"), at.key("valueExpression"));
        domain_prefixed_path(&key, errors);
        if key.str() != key.str().to_lowercase() {
            errors.invalid(&key, "must be lowercase");
        }
        let domain = key.str().split_once('/').map_or("", |(domain, _)| domain);
        let reserved = ["kubernetes.io", "k8s.io"].iter().any(|reserved| {
            let before = domain.strip_suffix(reserved);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        });
        if reserved {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.invalid(&key, why);
        }
        if !seen.insert(key.str()) {
            errors.duplicate(&key);
            continue;
        }
        if value.str().is_empty() {
            errors.required(&value, "");
            continue;
        }
        let program = compiled(&value, &claims_environment(), None, errors);
        all.extend(program.map(|program| Extra {
            key: key.str().to_owned(),
            program,
        }));
    }
    all
}

/// Whoever takes a user's name from an address that nobody has verified lets users choose their names.
fn verified_email(
    mappings: &At<'_>,
    username: Option<&Mapping>,
    extra: &[Extra],
    rules: &[ClaimRule],
    errors: &mut FieldErrors,
) {
    let Some(Mapping::Expression(name)) = username else {
        return;
    };
    let checks = |program: &Program| program.selects(Some("claims"), "email_verified");
    let checked = checks(name)
        || extra.iter().any(|extra| checks(&extra.program))
        || rules.iter().any(|rule| match rule {
            ClaimRule::Expression(rule) => checks(&rule.program),
            ClaimRule::Required(..) => false,
        });
    if name.selects(Some("claims"), "email") && !checked {
        errors.invalid(
            &mappings.key("username").key("expression"),
            "claims.email_verified must be used in claimMappings.username.expression or \
             claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
             claimMappings.username.expression",
        );
    }
}

/// The expression, which has to result in one of `accepted`, if that is said.
fn compiled(
    at: &At<'_>,
    environment: &Environment,
    accepted: Option<&[Type]>,
    errors: &mut FieldErrors,
) -> Option<Program> {
    let program = match accepted {
        Some(accepted) => Program::compile_result(at.str(), environment, accepted, "bool"),
        None => Program::compile(at.str(), environment),
    };
    program
        .map_err(|error| errors.invalid(at, error.to_string()))
        .ok()
}

fn claims_environment() -> Environment {
    Environment::default().with("claims", Type::map(Type::Dyn))
}

fn user_environment() -> Environment {
    let texts = || Type::list(Type::String);
    let user = ObjectType::new(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts()),
            ("extra", Type::map(texts())),
        ],
    );
    Environment::default().with("user", user)
}
