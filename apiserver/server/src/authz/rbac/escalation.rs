//! Nobody gives rights that they don't have, neither to others nor to themselves.
//!
//! Runs after the admission steps that change objects and before validation, as upstream's `policybased` storages of
//! roles and bindings do. Administrators, whoever may `escalate` the role and whoever may `bind` to it are not asked.

use coracle_api::Object;
use serde_json::Value;

use super::covers::{describe, quoted, uncovered};
use super::{GROUP, RoleError, RoleRef, Rule};
use crate::authn::MASTERS;
use crate::authz::{Attributes, together};
use crate::call::Call;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// Refuses a role or binding that gives what the asker has not; other objects pass. `old` is what is there.
pub(crate) async fn check(
    server: &Server,
    call: &Call,
    new: &Object,
    old: Option<&Object>,
) -> Result<()> {
    let is_ours = call.resource.group == GROUP && call.subresource.is_none();
    if !is_ours
        || call.identity.is_in(MASTERS)
        || old.is_some_and(|old| changes_only_for_the_collector(new, old))
    {
        return Ok(());
    }
    match call.resource.plural {
        "roles" | "clusterroles" => role(server, call, new, old).await,
        "rolebindings" | "clusterrolebindings" => binding(server, call, new).await,
        _ => Ok(()),
    }
}

async fn role(server: &Server, call: &Call, new: &Object, old: Option<&Object>) -> Result<()> {
    let escalate = Attributes {
        namespace: call.namespace(),
        name: call.name().into(),
        ..Attributes::resource(&call.identity, "escalate", GROUP, call.resource.plural)
    };
    if server.authorization.allows(&escalate).await {
        return Ok(());
    }
    let rules = new.at("rules");
    let rules: Vec<Rule> = rules.items().map(|rule| Rule::read(&rule)).collect();
    confirm(server, call, new.name(), &rules)?;
    // An aggregation rule can gather anything, today or later.
    let gathers = |role: &Object| !role.at("aggregationRule.clusterRoleSelectors").is_empty();
    if gathers(new) || old.is_some_and(gathers) {
        let (held, _) = server.rbac.rules_for(&call.identity, call.namespace());
        if !uncovered(&held, &everything()).is_empty() {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(ApiError::forbidden(call.resource, new.name(), why));
        }
    }
    Ok(())
}

async fn binding(server: &Server, call: &Call, new: &Object) -> Result<()> {
    let role = RoleRef::read(&new.at("roleRef"));
    let resource = match role.kind.as_str() {
        "Role" => Some("roles"),
        "ClusterRole" => Some("clusterroles"),
        _ => None,
    };
    if let Some(resource) = resource {
        let bind = Attributes {
            namespace: call.namespace(),
            name: role.name.as_str().into(),
            ..Attributes::resource(&call.identity, "bind", &role.group, resource)
        };
        if server.authorization.allows(&bind).await {
            return Ok(());
        }
    }
    match server.rbac.rules_of(&role, call.namespace()) {
        Ok(rules) => confirm(server, call, new.name(), &rules),
        // Upstream's message names the resource of the request, not that of the role.
        Err(RoleError::Missing(role)) => Err(ApiError::not_found(call.resource, &role.name)),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Refuses `wanted` unless all of it is the asker's where they ask.
fn confirm(server: &Server, call: &Call, name: &str, wanted: &[Rule]) -> Result<()> {
    let identity = &call.identity;
    let (held, errors) = server.rbac.rules_for(identity, call.namespace());
    let missing = uncovered(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        identity.user,
        quoted(&identity.groups),
        describe(missing)
    );
    if !errors.is_empty() {
        let errors = errors.iter().map(|error| match error {
            RoleError::Missing(role) => {
                format!("{} {:?} not found", call.resource.qualified(), role.name)
            }
            other => other.to_string(),
        });
        let errors: Vec<String> = errors.collect();
        why.push_str(&format!("; resolution errors: [{}]", together(&errors)));
    }
    Err(ApiError::forbidden(call.resource, name, why))
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    let resources = Rule {
        verbs: all(),
        api_groups: all(),
        resources: all(),
        ..Rule::default()
    };
    let paths = Rule {
        verbs: all(),
        urls: all(),
        ..Rule::default()
    };
    [resources, paths]
}

/// Whether the objects differ in nothing but what the garbage collector writes so that the object can go.
fn changes_only_for_the_collector(new: &Object, old: &Object) -> bool {
    let bare = |object: &Object| {
        let mut object = object.clone();
        let metadata = object.metadata_mut();
        for field in ["ownerReferences", "finalizers", "managedFields", "selfLink"] {
            metadata.shift_remove(field);
        }
        metadata.retain(|_, value| !is_nothing(value));
        object.root_mut().retain(|_, value| !is_nothing(value));
        object.into_value()
    };
    bare(new) == bare(old)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
