//! From claims to a user: pure, and in upstream's order.

use coracle_api::cel::eval::{COST_LIMIT, Program, Value as Cel, Variables};
use serde_json::{Map, Value, json};

use crate::authn::Identity;
use crate::config::{ClaimRule, JwtAuthenticator, Mapping, Rule};

/// The user that the claims of a good token make; the error is upstream's text.
pub(super) fn identity(
    configured: &JwtAuthenticator,
    claims: Map<String, Value>,
) -> Result<Identity, String> {
    let claims = Value::Object(claims);
    let user = username(&configured.username, &claims)?;
    let groups = groups(configured.groups.as_ref(), &claims)?;
    let uid = uid(configured.uid.as_ref(), &claims)?;
    let mut extra = Vec::new();
    for fact in &configured.extra {
        let values = evaluated(&fact.program, "claims", &claims)?;
        let values = texts(&values).map_err(|why| {
            format!(
                "oidc: error evaluating extra claim expression: {}: {why}",
                fact.program.source()
            )
        })?;
        if !values.is_empty() {
            extra.push((fact.key.clone(), values));
        }
    }
    for rule in &configured.claim_rules {
        if let ClaimRule::Required(name, value) = rule {
            required(name, value, &claims)?;
        }
    }
    let expressions = configured.claim_rules.iter().filter_map(|rule| match rule {
        ClaimRule::Expression(rule) => Some(rule),
        ClaimRule::Required(..) => None,
    });
    hold(expressions, "claims", &claims)
        .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?;
    if !configured.user_rules.is_empty() {
        let extra: Map<String, Value> = extra
            .iter()
            .map(|(key, values)| (key.clone(), json!(values)))
            .collect();
        let shown = json!({"username": user, "uid": uid, "groups": groups, "extra": extra});
        hold(configured.user_rules.iter(), "user", &shown)
            .map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
    }
    Ok(Identity {
        uid,
        extra,
        ..Identity::new(user, groups)
    })
}

fn username(mapping: &Mapping, claims: &Value) -> Result<String, String> {
    let user = match mapping {
        Mapping::Expression(program) => {
            let wrong =
                |why: String| format!("oidc: error evaluating username claim expression: {why}");
            let value = evaluated(program, "claims", claims).map_err(wrong)?;
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| wrong("username claim expression must return a string".to_owned()))?
        }
        Mapping::Claim(name, prefix) => {
            let text = text(claims, name);
            let text =
                text.map_err(|why| format!("oidc: parse username claims {name:?}: {why}"))?;
            if name == "email" {
                match claims.get("email_verified") {
                    None | Some(Value::Bool(true)) => {}
                    Some(Value::Bool(false)) => return Err("oidc: email not verified".to_owned()),
                    Some(other) => {
                        return Err(format!(
                            "oidc: parse 'email_verified' claim: {}",
                            mismatch(other, "bool")
                        ));
                    }
                }
            }
            match text.is_empty() {
                true => String::new(),
                false => format!("{prefix}{text}"),
            }
        }
    };
    match user.is_empty() {
        // Nobody may be without a name: a role for it would be one for whoever comes without.
        true => Err("oidc: the username is empty".to_owned()),
        false => Ok(user),
    }
}

fn groups(mapping: Option<&Mapping>, claims: &Value) -> Result<Vec<String>, String> {
    match mapping {
        None => Ok(Vec::new()),
        Some(Mapping::Expression(program)) => {
            let wrong =
                |why: String| format!("oidc: error evaluating group claim expression: {why}");
            let value = evaluated(program, "claims", claims).map_err(wrong)?;
            texts(&value).map_err(wrong)
        }
        Some(Mapping::Claim(name, prefix)) => {
            let wrong = |value: &Value| {
                let why = mismatch(value, "string");
                format!("oidc: parse groups claim {name:?}: {why}")
            };
            // One group may be a text alone.
            let found = match claims.get(name) {
                None | Some(Value::Null) => return Ok(Vec::new()),
                Some(Value::String(one)) => vec![one.as_str()],
                Some(Value::Array(all)) => {
                    let all = all.iter().map(|one| one.as_str().ok_or_else(|| wrong(one)));
                    all.collect::<Result<_, _>>()?
                }
                Some(other) => return Err(wrong(other)),
            };
            Ok(found
                .into_iter()
                .map(|group| format!("{prefix}{group}"))
                .collect())
        }
    }
}

fn uid(mapping: Option<&Mapping>, claims: &Value) -> Result<String, String> {
    match mapping {
        None => Ok(String::new()),
        Some(Mapping::Claim(name, _)) => {
            text(claims, name).map_err(|why| format!("oidc: parse uid claim {name:?}: {why}"))
        }
        Some(Mapping::Expression(program)) => {
            let wrong = |why: String| format!("oidc: error evaluating uid claim expression: {why}");
            let value = evaluated(program, "claims", claims).map_err(wrong)?;
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| wrong("uid claim expression must return a string".to_owned()))
        }
    }
}

fn required(name: &str, value: &str, claims: &Value) -> Result<(), String> {
    if claims.get(name).is_none() {
        return Err(format!(
            "oidc: required claim {name} not present in ID token"
        ));
    }
    let found = text(claims, name).map_err(|why| format!("oidc: parse claim {name}: {why}"))?;
    match found == value {
        true => Ok(()),
        false => Err(format!(
            "oidc: required claim {name} value does not match. Got = {found}, want = {value}"
        )),
    }
}

fn text(claims: &Value, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err("claim not present".to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        // Go reads null as nothing.
        Some(Value::Null) => Ok(String::new()),
        Some(other) => Err(mismatch(other, "string")),
    }
}

/// What Go's decoder says of a value of a wrong type.
fn mismatch(value: &Value, wanted: &str) -> String {
    let found = kind(value);
    format!("json: cannot unmarshal {found} into Go value of type {wanted}")
}

/// What Go's decoder calls a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn evaluated<'a>(program: &'a Program, name: &'a str, value: &'a Value) -> Result<Cel<'a>, String> {
    let variables = Variables::default().with(name, value);
    let evaluated = program.evaluate(&variables, COST_LIMIT);
    evaluated.map_err(|error| {
        format!(
            "expression '{}' resulted in error: {error}",
            program.source()
        )
    })
}

/// Whether all rules are true.
fn hold<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    name: &str,
    value: &Value,
) -> Result<(), String> {
    for rule in rules {
        let found = evaluated(&rule.program, name, value)?;
        match found.as_bool() {
            Some(true) => {}
            Some(false) => {
                let (source, message) = (rule.program.source(), &rule.message);
                return Err(format!(
                    "validation expression '{source}' failed: {message}"
                ));
            }
            None => return Err("validation expression must return a boolean".to_owned()),
        }
    }
    Ok(())
}

/// A text or a list of them; empty ones do not count.
fn texts(value: &Cel<'_>) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let mut all = match value {
        Cel::Null => Vec::new(),
        Cel::String(text) => vec![text.as_str().to_owned()],
        Cel::List(list) => {
            let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    all.retain(|text| !text.is_empty());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthenticationConfiguration;

    /// The user that comes of claims with such a configuration of an issuer.
    fn user(mappings: &str, claims: Value) -> Result<Identity, String> {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
             jwt: [{{issuer: {{url: 'https://a', audiences: [x]}}, {mappings}}}]"
        );
        let mut parsed = AuthenticationConfiguration::parse(&text, &[]).expect("good");
        let Value::Object(claims) = claims else {
            panic!("claims are an object");
        };
        identity(&parsed.jwt.remove(0), claims)
    }

    #[test]
    fn claims_become_a_user() {
        let claims = json!({"sub": "jane", "groups": ["a", "b"], "id": "7", "team": "x", "n": 5});
        let plain = "claimMappings: {username: {claim: sub, prefix: 'o:'}, groups: {claim: groups, prefix: 'g:'}, uid: {claim: id}}";
        let found = user(plain, claims.clone()).expect("a user");
        assert_eq!(
            found,
            Identity {
                uid: "7".to_owned(),
                ..Identity::new("o:jane", ["g:a", "g:b"])
            }
        );
        let expressions = "claimMappings: {username: {expression: \"'o:' + claims.sub\"}, \
            groups: {expression: \"claims.groups.filter(g, g != 'a')\"}, uid: {expression: 'string(claims.n)'}, \
            extra: [{key: e.org/team, valueExpression: claims.team}, {key: e.org/none, valueExpression: \"''\"}]}, \
            claimValidationRules: [{claim: team, requiredValue: x}, {expression: claims.n < 6, message: few}], \
            userValidationRules: [{expression: \"!user.username.startsWith('system:') && user.extra['e.org/team'] == ['x']\", message: m}]";
        let found = user(expressions, claims).expect("a user");
        let extra = vec![("e.org/team".to_owned(), vec!["x".to_owned()])];
        assert_eq!(
            found,
            Identity {
                uid: "5".to_owned(),
                extra,
                ..Identity::new("o:jane", ["b"])
            }
        );
        let one = user(plain, json!({"sub": "a", "groups": "b", "id": "1"})).expect("a user");
        assert!(one.is_in("g:b"));
    }

    #[test]
    fn what_does_not_make_a_user_is_told_in_upstreams_words() {
        let by_sub = "claimMappings: {username: {claim: sub, prefix: ''}, groups: {claim: groups, prefix: ''}}";
        let by_email = "claimMappings: {username: {claim: email, prefix: ''}}";
        let by_expression = "claimMappings: {username: {expression: claims.name}, groups: {expression: 'claims.?groups.orValue([])'}}";
        let ruled = |rules: &str| {
            format!("claimMappings: {{username: {{claim: sub, prefix: ''}}}}, {rules}")
        };
        let jane = json!({"sub": "jane"});
        for (mappings, claims, why) in [
            (
                by_sub,
                json!({}),
                "oidc: parse username claims \"sub\": claim not present",
            ),
            (
                by_sub,
                json!({"sub": 5}),
                "oidc: parse username claims \"sub\": json: cannot unmarshal number into Go value of type string",
            ),
            (by_sub, json!({"sub": ""}), "oidc: the username is empty"),
            (
                by_sub,
                json!({"sub": "a", "groups": [1]}),
                "oidc: parse groups claim \"groups\": json: cannot unmarshal number into Go value of type string",
            ),
            (
                by_email,
                json!({"email": "a@b", "email_verified": false}),
                "oidc: email not verified",
            ),
            (
                by_expression,
                json!({"name": 5}),
                "oidc: error evaluating username claim expression: username claim expression must return a string",
            ),
            (
                by_expression,
                json!({}),
                "oidc: error evaluating username claim expression: expression 'claims.name' resulted in error: no such key: name",
            ),
            (
                by_expression,
                json!({"name": "a", "groups": [1]}),
                "oidc: error evaluating group claim expression: expression must return a string or a list of strings",
            ),
            (
                &ruled("claimValidationRules: [{claim: hd, requiredValue: x}]"),
                jane.clone(),
                "oidc: required claim hd not present in ID token",
            ),
            (
                &ruled("claimValidationRules: [{claim: sub, requiredValue: x}]"),
                jane.clone(),
                "oidc: required claim sub value does not match. Got = jane, want = x",
            ),
            (
                &ruled(
                    "claimValidationRules: [{expression: \"claims.sub == 'joe'\", message: 'only joe'}]",
                ),
                jane.clone(),
                "oidc: error evaluating claim validation expression: validation expression 'claims.sub == 'joe'' failed: only joe",
            ),
            (
                &ruled(
                    "userValidationRules: [{expression: \"user.username != 'jane'\", message: 'not jane'}]",
                ),
                jane.clone(),
                "oidc: error evaluating user info validation rule: validation expression 'user.username != 'jane'' failed: not jane",
            ),
        ] {
            assert_eq!(user(mappings, claims).expect_err(why), why);
        }
    }
}
