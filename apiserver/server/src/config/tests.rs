use std::path::Path;

use super::*;

const CA: &str = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----";

fn authentication(yaml: &str) -> Result<AuthenticationConfiguration, String> {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{yaml}"
    );
    let disallowed = ["https://own".to_owned()];
    AuthenticationConfiguration::parse(&text, &disallowed).map_err(|error| error.to_string())
}

/// One issuer with the parts that are not given.
fn jwt(issuer: &str, more: &str) -> String {
    let issuer = match issuer {
        "" => "{url: 'https://a', audiences: [x]}",
        issuer => issuer,
    };
    let mappings = match more.contains("claimMappings") {
        true => "",
        false => ", claimMappings: {username: {claim: sub, prefix: ''}}",
    };
    format!("jwt: [{{issuer: {issuer}{mappings}{more}}}]")
}

#[test]
fn issuers_are_judged_in_upstreams_words() {
    let ca = format!("{{url: 'https://a', audiences: [x], certificateAuthority: \"{CA}\"}}");
    for (issuer, why) in [
        ("{audiences: [x]}", "jwt[0].issuer.url: Required value"),
        (
            "{url: 'http://a', audiences: [x]}",
            "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https",
        ),
        (
            "{url: 'https://u:p@a?b#c', audiences: [x]}",
            "[jwt[0].issuer.url: Invalid value: \"https://u:p@a?b#c\": URL must not contain a username or password, \
             jwt[0].issuer.url: Invalid value: \"https://u:p@a?b#c\": URL must not contain a query, \
             jwt[0].issuer.url: Invalid value: \"https://u:p@a?b#c\": URL must not contain a fragment]",
        ),
        (
            "{url: '://a', audiences: [x]}",
            "jwt[0].issuer.url: Invalid value: \"://a\": parse \"://a\": missing protocol scheme",
        ),
        (
            "{url: 'https://own', audiences: [x]}",
            "jwt[0].issuer.url: Invalid value: \"https://own\": URL must not overlap with disallowed issuers: [https://own]",
        ),
        (
            "{url: 'https://a', discoveryURL: 'https://a/', audiences: [x]}",
            "jwt[0].issuer.discoveryURL: Invalid value: \"https://a/\": discoveryURL must be different from URL",
        ),
        (
            "{url: 'https://a'}",
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ),
        (
            "{url: 'https://a', audiences: ['', x, x]}",
            "[jwt[0].issuer.audiences[0]: Required value, jwt[0].issuer.audiences[2]: Duplicate value: \"x\", \
             jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences]",
        ),
        (
            "{url: 'https://a', audiences: [x], audienceMatchPolicy: All}",
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"All\": audienceMatchPolicy must be empty or MatchAny for single audience",
        ),
        (
            ca.as_str(),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA certificates",
        ),
        (
            "{url: 'https://a', audiences: [x], egressSelectorType: x}",
            "jwt[0].issuer.egressSelectorType: Invalid value: \"x\": egress selector must be either controlplane or cluster",
        ),
        (
            "{url: 'https://a', audiences: [x], egressSelectorType: cluster}",
            "jwt[0].issuer.egressSelectorType: Invalid value: \"cluster\": there are no egress selectors here: issuers are reached over the host's network",
        ),
    ] {
        assert_eq!(authentication(&jwt(issuer, "")).expect_err(issuer), why);
    }
    let two = "jwt: [&a {issuer: {url: 'https://a', discoveryURL: 'https://d', audiences: [x]}, \
               claimMappings: {username: {claim: sub, prefix: ''}}}, *a]";
    assert_eq!(
        authentication(two).expect_err("twice"),
        "[jwt[1].issuer.url: Duplicate value: \"https://a\", jwt[1].issuer.discoveryURL: Duplicate value: \"https://d\"]"
    );
}

#[test]
fn mappings_and_rules_are_judged_in_upstreams_words() {
    for (more, why) in [
        (
            ", claimMappings: {}",
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
        (
            ", claimMappings: {username: {claim: sub}}",
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ),
        (
            ", claimMappings: {username: {claim: sub, prefix: '', expression: claims.sub}}",
            "jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set",
        ),
        (
            ", claimMappings: {username: {expression: claims.sub, prefix: 'a'}}",
            "jwt[0].claimMappings.username.prefix: Invalid value: \"a\": may not be specified when expression is set",
        ),
        (
            ", claimMappings: {username: {expression: claim.sub}}",
            "jwt[0].claimMappings.username.expression: Invalid value: \"claim.sub\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'claim' (in container '')\n | claim.sub\n | ^",
        ),
        (
            ", claimMappings: {username: {expression: claims.email}}",
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
        ),
        (
            ", claimMappings: {username: {claim: sub, prefix: ''}, uid: {claim: a, expression: claims.a}}",
            "jwt[0].claimMappings.uid: Invalid value: \"\": claim and expression can't both be set",
        ),
        (
            ", claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: a.k8s.io/B, valueExpression: claims.a}]}",
            "[jwt[0].claimMappings.extra[0].key: Invalid value: \"a.k8s.io/B\": must be lowercase, jwt[0].claimMappings.extra[0].key: Invalid value: \"a.k8s.io/B\": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use]",
        ),
        (
            ", claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: foo}]}",
            "[jwt[0].claimMappings.extra[0].key: Invalid value: \"foo\": must be a domain-prefixed path (such as \"acme.io/foo\"), jwt[0].claimMappings.extra[0].valueExpression: Required value]",
        ),
        (
            ", claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: e.org/a, valueExpression: claims.a}, {key: e.org/a, valueExpression: claims.b}]}",
            "jwt[0].claimMappings.extra[1].key: Duplicate value: \"e.org/a\"",
        ),
        (
            ", claimValidationRules: [{}]",
            "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
        ),
        (
            ", claimValidationRules: [{claim: a, expression: claims.a == 'b'}]",
            "jwt[0].claimValidationRules[0]: Invalid value: \"a\": claim and expression can't both be set",
        ),
        (
            ", claimValidationRules: [{claim: a, message: m}, {claim: a}]",
            "[jwt[0].claimValidationRules[0].message: Invalid value: \"m\": may not be specified when claim is set, jwt[0].claimValidationRules[1].claim: Duplicate value: \"a\"]",
        ),
        (
            ", claimValidationRules: [{expression: claims.a, requiredValue: v}]",
            "[jwt[0].claimValidationRules[0].requiredValue: Invalid value: \"v\": may not be specified when expression is set, jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.a\": must evaluate to bool]",
        ),
        (
            ", userValidationRules: [{}, {expression: user.name == ''}]",
            "[jwt[0].userValidationRules[0].expression: Required value, jwt[0].userValidationRules[1].expression: Invalid value: \"user.name == ''\": compilation failed: ERROR: <input>:1:5: undefined field 'name'\n | user.name == ''\n | ....^]",
        ),
    ] {
        assert_eq!(authentication(&jwt("", more)).expect_err(more), why);
    }
    let verified = ", claimMappings: {username: {expression: claims.email}}, claimValidationRules: [{expression: 'claims.?email_verified.orValue(true) == true'}]";
    assert!(authentication(&jwt("", verified)).is_ok());
}

#[test]
fn what_is_no_such_file_is_refused() {
    let why = |text: &str| {
        AuthenticationConfiguration::parse(text, &[])
            .expect_err(text)
            .to_string()
    };
    assert_eq!(why(" "), "empty config data");
    assert_eq!(why("a: b"), "Object 'Kind' is missing");
    let other = why("apiVersion: apiserver.config.k8s.io/v2\nkind: AuthenticationConfiguration");
    assert!(
        other.starts_with("no kind \"AuthenticationConfiguration\" is registered for version"),
        "{other}"
    );
    assert_eq!(
        authentication("jwt: [{issuer: {uri: x}}]\nfoo: 1").expect_err("unknown fields"),
        "strict decoding error: unknown field \"jwt[0].issuer.uri\", unknown field \"foo\""
    );
    assert_eq!(
        authentication("jwt: [{issuer: {url: 1}}]").expect_err("a number"),
        "jwt[0].issuer.url: cannot read a number as a string"
    );
    let twice = authentication("anonymous: {enabled: true, enabled: false}").expect_err("twice");
    assert!(
        twice.contains("strict decoding error: line 3: key \"enabled\" already set in map"),
        "{twice}"
    );
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/{version}\nkind: AuthenticationConfiguration\n"
        );
        assert!(
            AuthenticationConfiguration::parse(&text, &[]).is_ok(),
            "{version}"
        );
    }
}

#[test]
fn anonymous_access_is_configured() {
    let parsed =
        authentication("anonymous: {enabled: true, conditions: [{path: /livez}]}").expect("good");
    let anonymous = Anonymous {
        enabled: true,
        paths: vec!["/livez".to_owned()],
    };
    assert_eq!(parsed.anonymous, Some(anonymous));
    assert_eq!(authentication("jwt: []").expect("good").anonymous, None);
    let wrong = authentication("anonymous: {enabled: false, conditions: [{path: /livez}]}")
        .expect_err("wrong");
    assert!(
        wrong.ends_with("enabled should be set to true when conditions are defined"),
        "{wrong}"
    );
}

fn authorization(yaml: &str) -> Result<AuthorizationConfiguration, String> {
    let text =
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n{yaml}");
    let look = |path: &Path| {
        (path == Path::new("/missing")).then(|| "error loading file: gone".to_owned())
    };
    AuthorizationConfiguration::parse(&text, &look).map_err(|error| error.to_string())
}

const GOOD: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /file}";

fn webhook(fields: &str) -> String {
    format!("authorizers: [{{type: Webhook, name: hook, webhook: {{{fields}}}}}]")
}

#[test]
fn authorizers_are_judged_in_upstreams_words() {
    for (yaml, why) in [
        (
            "authorizers: []",
            "authorizers: Required value: at least one authorization mode must be defined",
        ),
        (
            "authorizers: [{name: a}]",
            "authorizers[0].type: Required value",
        ),
        (
            "authorizers: [{type: Foo, name: foo}]",
            "authorizers[0].type: Unsupported value: \"Foo\": supported values: \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"",
        ),
        (
            "authorizers: [{type: RBAC, name: rbac}, {type: RBAC, name: x}]",
            "authorizers[1].type: Duplicate value: \"RBAC\"",
        ),
        (
            "authorizers: [{type: RBAC}]",
            "authorizers[0].name: Required value",
        ),
        (
            "authorizers: [{type: RBAC, name: x}]",
            "expected name rbac for authorizer RBAC instead of x",
        ),
        (
            "authorizers: [{type: Webhook, name: a}]",
            "authorizers[0].webhook: Required value: required when type=Webhook",
        ),
        (
            "authorizers: [{type: RBAC, name: rbac, webhook: {timeout: 1s}}]",
            "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
        ),
    ] {
        assert_eq!(authorization(yaml).expect_err(yaml), why);
    }
    for (fields, why) in [
        (
            GOOD.replace("3s", "0s"),
            "authorizers[0].timeout: Required value",
        ),
        (
            GOOD.replace("3s", "1m1s"),
            "authorizers[0].timeout: Invalid value: \"1m1s\": must be > 0s and <= 30s",
        ),
        (
            format!("{GOOD}, authorizedTTL: -1s"),
            "authorizers[0].authorizedTTL: Invalid value: \"-1s\": must be > 0s",
        ),
        (
            GOOD.replace("v1", "v2"),
            "authorizers[0].subjectAccessReviewVersion: Unsupported value: \"v2\": supported values: \"v1\", \"v1beta1\"",
        ),
        (
            GOOD.replace("Deny", "Allow"),
            "authorizers[0].failurePolicy: Unsupported value: \"Allow\": supported values: \"NoOpinion\", \"Deny\"",
        ),
        (
            GOOD.replace("/file", "file"),
            "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"file\": must be an absolute path",
        ),
        (
            GOOD.replace("/file", "/missing"),
            "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"/missing\": error loading file: gone",
        ),
        (
            GOOD.replace(
                "type: KubeConfigFile, kubeConfigFile: /file",
                "type: InClusterConfig",
            ),
            "authorizers[0].connectionInfo.type: Invalid value: \"InClusterConfig\": not allowed for the API server itself",
        ),
        (
            format!("{GOOD}, matchConditions: [{{expression: request.user == 'a'}}]"),
            "authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
        ),
        (
            format!(
                "{GOOD}, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{{expression: ' '}}, {{expression: request.user}}, {{expression: request.usr == ''}}]"
            ),
            "[authorizers[0].matchConditions[0].expression: Required value, authorizers[0].matchConditions[1].expression: Invalid value: \"request.user\": must evaluate to bool but got string, authorizers[0].matchConditions[2].expression: Invalid value: \"request.usr == ''\": compilation failed: ERROR: <input>:1:8: undefined field 'usr'\n | request.usr == ''\n | .......^]",
        ),
    ] {
        assert_eq!(authorization(&webhook(&fields)).expect_err(&fields), why);
    }
}

#[test]
fn webhooks_have_upstreams_defaults() {
    let parsed = authorization(&webhook(GOOD)).expect("good");
    let [Authorizer::Webhook(hook)] = &parsed.authorizers[..] else {
        panic!("one webhook");
    };
    assert_eq!(
        (hook.authorized.as_secs(), hook.unauthorized.as_secs()),
        (300, 30)
    );
    assert!(hook.denies_on_failure);
    let fields = format!("{GOOD}, cacheAuthorizedRequests: false, unauthorizedTTL: 1m30s");
    let parsed = authorization(&webhook(&fields)).expect("good");
    let [Authorizer::Webhook(hook)] = &parsed.authorizers[..] else {
        panic!("one webhook");
    };
    assert_eq!(
        (hook.authorized.as_secs(), hook.unauthorized.as_secs()),
        (0, 90)
    );
}
