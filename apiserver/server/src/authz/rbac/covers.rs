//! Whether somebody's rules cover others, and how those that they don't are written down.
//!
//! Rules: `k8s.io/component-helpers/auth/rbac/validation.Covers`, `pkg/registry/rbac/validation.CompactRules`.

use super::Rule;
use super::rule::{has, has_or_all, url_covers};

/// The smallest parts of `wanted` that no rule of `held` covers. A part is one verb on one resource of one group (and one
/// name, if the rule has names), or one verb on one path: so each is covered by one rule or by none.
pub(super) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(parts);
    parts
        .filter(|part| !held.iter().any(|rule| covers(rule, part)))
        .collect()
}

fn parts(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part);
                    continue;
                }
                parts.extend(rule.resource_names.iter().map(|name| Rule {
                    resource_names: vec![name.clone()],
                    ..part.clone()
                }));
            }
        }
    }
    for url in &rule.urls {
        parts.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: vec![verb.clone()],
            urls: vec![url.clone()],
            ..Rule::default()
        }));
    }
    parts
}

fn covers(rule: &Rule, part: &Rule) -> bool {
    let names = &rule.resource_names;
    let all = |texts: &[String], held: &dyn Fn(&str) -> bool| texts.iter().all(|text| held(text));
    all(&part.verbs, &|verb| has_or_all(&rule.verbs, verb))
        && all(&part.api_groups, &|group| {
            has_or_all(&rule.api_groups, group)
        })
        && all(&part.resources, &|resource| {
            covers_resource(&rule.resources, resource)
        })
        && all(&part.urls, &|url| {
            rule.urls.iter().any(|held| url_covers(held, url))
        })
        && (names.is_empty()
            || !part.resource_names.is_empty() && all(&part.resource_names, &|n| has(names, n)))
}

fn covers_resource(held: &[String], resource: &str) -> bool {
    has_or_all(held, resource)
        || resource
            .split_once('/')
            .is_some_and(|(_, subresource)| has(held, &format!("*/{subresource}")))
}

/// Puts the verbs of parts on the same resource together, and leaves the rest as it is.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut compacted: Vec<Rule> = Vec::new();
    for part in parts {
        let same = |rule: &&mut Rule| {
            rule.urls.is_empty()
                && part.urls.is_empty()
                && rule.api_groups == part.api_groups
                && rule.resources == part.resources
                && rule.resource_names == part.resource_names
        };
        match compacted.iter_mut().find(same) {
            None => compacted.push(part),
            Some(rule) => {
                for verb in part.verbs {
                    if !has(&rule.verbs, &verb) {
                        rule.verbs.push(verb);
                    }
                }
            }
        }
    }
    compacted
}

/// What [`uncovered`] found, as refusals write it: a line for each resource, in order.
pub(super) fn describe(parts: Vec<Rule>) -> String {
    let mut lines: Vec<String> = compact(parts).iter().map(line).collect();
    lines.sort();
    lines.dedup();
    lines.join("\n")
}

fn line(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let said = fields
        .iter()
        .filter(|(_, texts)| !texts.is_empty())
        .map(|(field, texts)| format!("{field}:{}", quoted(texts)));
    format!("{{{}}}", said.collect::<Vec<_>>().join(", "))
}

/// A list as Go's `%q` writes it.
pub(super) fn quoted(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verbs groups resources names`, separated by `;`, or `verbs @ urls`.
    fn rule(text: &str) -> Rule {
        let mut fields = text.split(';').map(|field| {
            let words = field.split(',').filter(|word| !word.is_empty());
            let words = words.map(|word| if word == "core" { "" } else { word });
            words.map(str::to_owned).collect::<Vec<_>>()
        });
        let verbs = fields.next().unwrap_or_default();
        let second = fields.next().unwrap_or_default();
        let third = fields.next().unwrap_or_default();
        match second.first().map(String::as_str) {
            Some("@") => Rule {
                verbs,
                urls: third,
                ..Rule::default()
            },
            _ => Rule {
                verbs,
                api_groups: second,
                resources: third,
                resource_names: fields.next().unwrap_or_default(),
                urls: Vec::new(),
            },
        }
    }

    #[test]
    fn rules_cover_what_they_allow() {
        for (held, wanted, missing) in [
            (vec!["*;*;*"], vec!["get,list;core;pods", "x;y;z;n"], ""),
            (
                vec!["*;*;*"],
                vec!["get;@;/metrics"],
                "{NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}",
            ),
            (vec!["*;@;*"], vec!["get;@;/metrics,/x/*"], ""),
            (vec!["get;@;/x*"], vec!["get;@;/x/y*"], ""),
            (vec!["get;core;pods"], vec!["get;core;pods;a"], ""),
            (
                vec!["get;core;pods;a,b"],
                vec!["get;core;pods;a,c"],
                "{APIGroups:[\"\"], Resources:[\"pods\"], ResourceNames:[\"c\"], Verbs:[\"get\"]}",
            ),
            (
                vec!["get;core;pods;a"],
                vec!["get;core;pods"],
                "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}",
            ),
            (vec!["get;core;*/log"], vec!["get;core;pods/log"], ""),
            (
                vec!["get;core;pods", "list;core;pods"],
                vec!["get,list;core;pods"],
                "",
            ),
            (
                vec!["get;core;pods"],
                vec!["*;core;pods"],
                "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"*\"]}",
            ),
            (
                vec![],
                vec![
                    "get,list;core;secrets",
                    "update;core;secrets",
                    "*;apps;deployments",
                ],
                "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\" \"update\"]}\n{APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"*\"]}",
            ),
        ] {
            let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect::<Vec<_>>();
            let found = uncovered(&rules(&held), &rules(&wanted));
            assert_eq!(describe(found), missing, "{held:?} {wanted:?}");
        }
    }
}
