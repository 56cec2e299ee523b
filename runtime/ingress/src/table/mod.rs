//! Where a request goes: a pure function of its host and path.
//!
//! ```text
//! host ─▶ rules of that host ─▶ rules of *.its-domain ─▶ rules of every host ─▶ default backends ─▶ nobody
//!              └ in each: a path that is exactly it ─▶ expressions ─▶ the longest path that it lies below
//! ```
//!
//! The rules are those of the API's documentation: paths are compared element by element, the longest one counts, and of
//! two equal ones the exact one
//! (<https://kubernetes.io/docs/concepts/services-networking/ingress/#multiple-matches>); a wildcard stands for one
//! label, and a name goes before a wildcard. Of two Ingresses that claim the same path the older one has it, as
//! ingress-nginx has it.

mod path;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_client::ObjectKey;
use regex::Regex;

use crate::settings::Settings;

pub(crate) use path::normal;

/// What serves the requests of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A port of a Service, by name or number.
    Service {
        /// The Service.
        service: ObjectKey,
        /// The port's name, or its number in decimals.
        port: String,
    },
    /// An object of another kind, of which none is known here: its kind and name.
    Resource(String),
}

/// Where one path of one Ingress leads.
#[derive(Debug)]
pub(crate) struct Target {
    /// The Ingress; for the default of a class there is none.
    pub(crate) ingress: Option<ObjectKey>,
    /// The path as the Ingress has it; empty for a default backend.
    pub(crate) path: String,
    /// Who serves it.
    pub(crate) backend: Backend,
    /// What the annotations say.
    pub(crate) settings: Arc<Settings>,
    /// Whether the backend speaks HTTP/2 by prior knowledge.
    pub(crate) is_http2: bool,
    /// Whether the Ingress asks for TLS.
    pub(crate) has_tls: bool,
}

/// How a path is compared.
#[derive(Debug)]
pub(crate) enum Match {
    /// With the whole path.
    Exact,
    /// With its first elements. `ImplementationSpecific` means this, too.
    Prefix,
    /// As an expression for how it begins.
    Expression(Regex),
}

/// What was found for a request.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Where it goes.
    pub(crate) target: Arc<Target>,
    /// The path that is asked for instead, if the Ingress rewrites it.
    pub(crate) path: Option<String>,
}

/// The rules of all served Ingresses.
#[derive(Debug, Default)]
pub(crate) struct Table {
    hosts: HashMap<String, Rules>,
    /// By what comes after `*.`.
    wildcards: HashMap<String, Rules>,
    any: Rules,
    /// The default backend of the oldest Ingress that has one.
    default: Option<Arc<Target>>,
    /// The one of the class.
    class_default: Option<Arc<Target>>,
}

/// The paths of one host.
#[derive(Debug, Default)]
struct Rules {
    exact: HashMap<String, Arc<Target>>,
    /// Without a slash at the end, so that the root is empty.
    prefixes: HashMap<String, Arc<Target>>,
    /// The longest first.
    expressions: Vec<(Regex, Arc<Target>)>,
    /// The default backend of the oldest Ingress with a rule for the host.
    default: Option<Arc<Target>>,
}

impl Table {
    /// Adds a path of a host (in lower case; empty: of every host). Answers the target that has it already, which keeps it.
    pub(crate) fn add(
        &mut self,
        host: &str,
        how: Match,
        target: &Arc<Target>,
    ) -> Option<Arc<Target>> {
        self.rules_mut(host).add(how, target)
    }

    /// What is not matched by any path of a host with rules of this Ingress goes there, unless an older one says so, too.
    pub(crate) fn add_default(&mut self, hosts: &[String], target: &Arc<Target>) {
        for host in hosts {
            let rules = self.rules_mut(host);
            rules.default.get_or_insert_with(|| target.clone());
        }
        self.default.get_or_insert_with(|| target.clone());
    }

    /// What no Ingress wants goes there.
    pub(crate) fn set_class_default(&mut self, target: Target) {
        self.class_default = Some(Arc::new(target));
    }

    /// Where a request for `path` (without its query) of `host` (in lower case, without a port) goes.
    pub(crate) fn route(&self, host: &str, path: &str) -> Option<Found> {
        let path = normal(path);
        let rules = self.rules(host);
        let found = rules.iter().find_map(|rules| rules.route(&path));
        found.or_else(|| {
            let of_hosts = rules.iter().find_map(|rules| rules.default.clone());
            let target = of_hosts
                .or_else(|| self.default.clone())
                .or_else(|| self.class_default.clone())?;
            Some(Found { target, path: None })
        })
    }

    /// Whether a rule, or the certificate of one, names the host or a wildcard that it matches.
    pub(crate) fn knows(&self, host: &str) -> bool {
        self.hosts.contains_key(host) || self.wildcard(host).is_some()
    }

    /// Whether there is nothing to route to.
    pub(crate) fn is_empty(&self) -> bool {
        let rules = self.hosts.values().chain(self.wildcards.values());
        let has_none = |rules: &Rules| rules.len() == 0 && rules.default.is_none();
        self.default.is_none()
            && self.class_default.is_none()
            && rules.chain([&self.any]).all(has_none)
    }

    /// The rules that a host's requests are compared with, in that order.
    fn rules(&self, host: &str) -> Vec<&Rules> {
        let mut all = Vec::with_capacity(3);
        all.extend(self.hosts.get(host));
        all.extend(self.wildcard(host));
        all.push(&self.any);
        all
    }

    fn wildcard(&self, host: &str) -> Option<&Rules> {
        let (label, domain) = host.split_once('.')?;
        self.wildcards.get(domain).filter(|_| !label.is_empty())
    }

    fn rules_mut(&mut self, host: &str) -> &mut Rules {
        match (host, host.strip_prefix("*.")) {
            ("", _) => &mut self.any,
            (_, Some(domain)) => self.wildcards.entry(domain.to_owned()).or_default(),
            (host, None) => self.hosts.entry(host.to_owned()).or_default(),
        }
    }
}

impl Rules {
    fn len(&self) -> usize {
        self.exact.len() + self.prefixes.len() + self.expressions.len()
    }

    fn add(&mut self, how: Match, target: &Arc<Target>) -> Option<Arc<Target>> {
        let path = normal(&target.path);
        // Exact paths may differ by the slash at their end, prefixes may not.
        let (paths, key) = match how {
            Match::Exact => (&mut self.exact, path.into_owned()),
            Match::Prefix => (&mut self.prefixes, path.trim_end_matches('/').to_owned()),
            Match::Expression(expression) => return self.add_expression(expression, target),
        };
        match paths.get(&key) {
            Some(there) => Some(there.clone()),
            None => {
                paths.insert(key, target.clone());
                None
            }
        }
    }

    fn add_expression(&mut self, expression: Regex, target: &Arc<Target>) -> Option<Arc<Target>> {
        let same = |(other, _): &&(Regex, Arc<Target>)| other.as_str() == expression.as_str();
        if let Some((_, there)) = self.expressions.iter().find(same) {
            return Some(there.clone());
        }
        let length = |target: &Arc<Target>| std::cmp::Reverse(target.path.len());
        let shorter = |(_, other): &(Regex, Arc<Target>)| length(other) <= length(target);
        let place = self.expressions.partition_point(shorter);
        self.expressions.insert(place, (expression, target.clone()));
        None
    }

    fn route(&self, path: &str) -> Option<Found> {
        if let Some(target) = self.exact.get(path) {
            return Some(Found::of(target));
        }
        for (expression, target) in &self.expressions {
            if let Some(captures) = expression.captures(path) {
                let rewritten = target.settings.rewrite.as_deref().map(|rewrite| {
                    let mut path = String::new();
                    captures.expand(rewrite, &mut path);
                    path
                });
                return Some(Found {
                    target: target.clone(),
                    path: rewritten,
                });
            }
        }
        if self.prefixes.is_empty() {
            return None;
        }
        let mut rest = path.trim_end_matches('/');
        loop {
            if let Some(target) = self.prefixes.get(rest) {
                return Some(Found::of(target));
            }
            rest = &rest[..rest.rfind('/')?];
        }
    }
}

impl Found {
    fn of(target: &Arc<Target>) -> Self {
        // Groups are an expression's, and there is none.
        let rewrite = target.settings.rewrite.as_ref();
        Self {
            path: rewrite.filter(|path| !path.contains('$')).cloned(),
            target: target.clone(),
        }
    }
}
