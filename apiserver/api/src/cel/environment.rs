//! What an expression may name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Type;

/// An object type: its name in messages, and its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectType {
    name: String,
    fields: BTreeMap<String, Type>,
}

impl ObjectType {
    /// A type of that name and those fields.
    pub fn new<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Type)>) -> Self {
        let fields = fields.into_iter();
        Self {
            name: name.to_owned(),
            fields: fields
                .map(|(name, found)| (name.to_owned(), found))
                .collect(),
        }
    }

    /// The name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of a field.
    pub fn field(&self, name: &str) -> Option<&Type> {
        self.fields.get(name)
    }
}

impl From<ObjectType> for Type {
    fn from(object: ObjectType) -> Self {
        Self::Object(Arc::new(object))
    }
}

/// The variables and struct types that an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(String, Type)>,
    structs: Vec<&'static str>,
}

impl Environment {
    /// With one more variable; its name may have dots.
    #[must_use]
    pub fn with(mut self, name: &str, found: impl Into<Type>) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), found.into()));
        self
    }

    /// With struct types that expressions may make: this name, and all names below it (`Object.spec`).
    #[must_use]
    pub fn with_struct(mut self, name: &'static str) -> Self {
        self.structs.push(name);
        self
    }

    /// The type of a variable.
    pub(super) fn variable(&self, name: &str) -> Option<&Type> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, found)| found)
    }

    /// The type that a struct literal of that name has.
    pub(super) fn structure(&self, name: &str) -> Option<Type> {
        let known = self.structs.iter().any(|known| {
            let below = name.strip_prefix(known);
            below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
        });
        known.then(|| Type::Named(name.to_owned()))
    }

    /// What policies and webhooks see of a request: `object`, `oldObject`, `request`, and, where it is asked for,
    /// the authorizer and parameters.
    ///
    /// Upstream: `k8s.io/apiserver/pkg/admission/plugin/cel`.
    pub fn admission(params: bool, authorizer: bool) -> Self {
        let mut environment = Self::default()
            .with("object", Type::Dyn)
            .with("oldObject", Type::Dyn)
            .with("request", admission_request());
        if authorizer {
            environment = environment
                .with("authorizer", Type::Unknown)
                .with("authorizer.requestResource", Type::Unknown);
        }
        if params {
            environment = environment.with("params", Type::Dyn);
        }
        environment
    }

    /// What the selectors of devices see.
    ///
    /// Upstream: `k8s.io/dynamic-resource-allocation/cel`.
    pub fn device() -> Self {
        let values = |value| Type::map(Type::map(value));
        let device = ObjectType::new(
            "kubernetes.DRADevice",
            [
                ("driver", Type::String),
                ("attributes", values(Type::Dyn)),
                (
                    "capacity",
                    values(Type::Named("kubernetes.Quantity".into())),
                ),
                ("allowMultipleAllocations", Type::Bool),
            ],
        );
        Self::default().with("device", device)
    }
}

fn admission_request() -> ObjectType {
    let names = |name: &str, last: &'static str| {
        let fields = ["group", "version", last].map(|field| (field, Type::String));
        Type::from(ObjectType::new(name, fields))
    };
    let kind = names("kubernetes.GroupVersionKind", "kind");
    let resource = names("kubernetes.GroupVersionResource", "resource");
    let user = ObjectType::new(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::list(Type::String))),
        ],
    );
    ObjectType::new(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::String),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user.into()),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}
