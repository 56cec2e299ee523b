//! The table of built-in kinds, and what a descriptor of one says.

use std::collections::HashMap;

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::{
    At, Object, Strategy, admissionregistration, apiextensions, apiregistration, apps,
    authentication, authorization, autoscaling, batch, certificates, coordination, core, discovery,
    events, flowcontrol, metrics, networking, node, policy, rbac, resource, scheduling, storage,
};

/// One served resource: everything that the generic handlers, discovery, tables and selectors need.
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version, such as `v1`.
    pub version: &'static str,
    /// Kind, such as `Deployment`.
    pub kind: &'static str,
    /// Plural name in paths, such as `deployments`.
    pub plural: &'static str,
    /// Singular name, such as `deployment`.
    pub singular: &'static str,
    /// Names that kubectl accepts besides.
    pub short_names: &'static [&'static str],
    /// Categories such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
    /// Paths below an object.
    pub subresources: &'static [Subresource],
    /// Printed columns; `Strategy::cells` fills them.
    pub columns: &'static [Column],
    /// Which names are legal.
    pub name_rule: NameRule,
    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// Whether a PUT or a patch of an absent object creates it.
    pub create_on_update: bool,
    /// Whether an update without resourceVersion is accepted.
    pub unconditional_update: bool,
    /// The group, version and kind stored and served as one storage (events, autoscaling): the
    /// plural and group whose keys hold the objects.
    pub storage: Storage,
    /// Text for a `Warning` header on every request, when clients should move to another kind.
    pub deprecation: Option<&'static str>,
    /// The kind's rules.
    pub strategy: &'static dyn Strategy,
}

/// Where the objects of a resource are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Under the resource's own group and plural.
    Own,
    /// Under those of another served resource, whose version is the stored one (`group`, `plural`).
    SharedWith(&'static str, &'static str),
    /// Nowhere: reviews, metrics.
    None,
}

/// The verbs that every stored kind has, in discovery's order.
pub const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A path below an object, such as `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Its path segment.
    pub name: &'static str,
    /// Group, version and kind of its body, when they differ from the parent's.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
}

/// The verbs and shape of `status`, the same for every kind that has it.
pub const STATUS: Subresource = Subresource {
    name: "status",
    kind: None,
    verbs: &["get", "patch", "update"],
};

/// The verbs and shape of `scale`.
pub const SCALE: Subresource = Subresource {
    name: "scale",
    kind: Some(("autoscaling", "v1", "Scale")),
    verbs: &["get", "patch", "update"],
};

/// The verbs and shape of a Pod's `binding`, which puts it on a node.
pub const BINDING: Subresource = Subresource {
    name: "binding",
    kind: Some(("", "v1", "Binding")),
    verbs: &["create"],
};

/// The verbs and shape of a Pod's `eviction`, a deletion that budgets may refuse.
pub const EVICTION: Subresource = Subresource {
    name: "eviction",
    kind: Some(("policy", "v1", "Eviction")),
    verbs: &["create"],
};

/// The verbs and shape of a Namespace's `finalize`, the only way to change `spec.finalizers`.
pub const FINALIZE: Subresource = Subresource {
    name: "finalize",
    kind: None,
    verbs: &["update"],
};

/// The verbs and shape of a ServiceAccount's `token`, which makes tokens.
pub const TOKEN: Subresource = Subresource {
    name: "token",
    kind: Some(("authentication.k8s.io", "v1", "TokenRequest")),
    verbs: &["create"],
};

/// The verbs and shape of a CertificateSigningRequest's `approval`, where it is approved or denied.
pub const APPROVAL: Subresource = Subresource {
    name: "approval",
    kind: None,
    verbs: &["get", "patch", "update"],
};

/// The verbs and shape of a Pod's `log`.
pub const LOG: Subresource = Subresource {
    name: "log",
    kind: None,
    verbs: &["get"],
};

/// A path that ties the client to a container: `attach` or `exec`, or to a port of a Pod.
const fn stream(name: &'static str, options: &'static str) -> Subresource {
    Subresource {
        name,
        kind: Some(("", "v1", options)),
        verbs: &["create", "get"],
    }
}

/// The verbs and shape of a Pod's `attach`.
pub const ATTACH: Subresource = stream("attach", "PodAttachOptions");

/// The verbs and shape of a Pod's `exec`.
pub const EXEC: Subresource = stream("exec", "PodExecOptions");

/// The verbs and shape of a Pod's `portforward`.
pub const PORT_FORWARD: Subresource = stream("portforward", "PodPortForwardOptions");

/// The verbs and shape of a `proxy`, whose options are of the kind `options`.
pub const fn proxy(options: &'static str) -> Subresource {
    Subresource {
        name: "proxy",
        kind: Some(("", "v1", options)),
        verbs: &["create", "delete", "get", "patch", "update"],
    }
}

/// The verbs and shape of a Pod's `ephemeralcontainers`, the only way to add some.
pub const EPHEMERAL_CONTAINERS: Subresource = Subresource {
    name: "ephemeralcontainers",
    kind: None,
    verbs: &["get", "patch", "update"],
};

/// The verbs and shape of a Pod's `resize`, the only way to change what its containers may use.
pub const RESIZE: Subresource = Subresource {
    name: "resize",
    kind: None,
    verbs: &["get", "patch", "update"],
};

/// A column of the table form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, …
    pub kind: &'static str,
    /// OpenAPI format: `name` for the object's name, else mostly empty.
    pub format: &'static str,
    /// What it means.
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A column of text that is always shown.
    pub const fn string(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format: "",
            description,
            priority: 0,
        }
    }

    /// A column of whole numbers that is always shown.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "integer",
            format: "",
            description,
            priority: 0,
        }
    }

    /// A column of text that `-o wide` shows.
    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format: "",
            description,
            priority: 1,
        }
    }
}

/// The column of names that nearly every kind begins with.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some \
                  resources may allow a client to request the generation of an appropriate name automatically. \
                  Name is primarily intended for creation idempotence and configuration definition. Cannot be \
                  updated. More info: \
                  https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

/// The column of ages, filled by [`age`].
pub const AGE: Column = Column::string(
    "Age",
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
     guaranteed to be set in happens-before order across separate operations. Clients may not set this value. \
     It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. \
     More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

/// The columns of kinds that have none of their own.
pub const DEFAULT_COLUMNS: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        ..AGE
    },
];

/// Which names a kind accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, up to 253 characters.
    Subdomain,
    /// RFC 1123 label, up to 63 characters.
    Label,
    /// RFC 1035 label (Services before 1.34's relaxed rule), up to 63 characters.
    Label1035,
    /// Anything that can stand in a path segment (RBAC).
    PathSegment,
    /// An IP address in canonical form.
    Address,
}

/// The descriptor of a question to the server, which is answered and not stored. `names` are its plural and singular.
pub const fn review(
    group: &'static str,
    kind: &'static str,
    names: [&'static str; 2],
    namespaced: bool,
    strategy: &'static dyn Strategy,
) -> Resource {
    Resource {
        group,
        version: "v1",
        kind,
        plural: names[0],
        singular: names[1],
        short_names: &[],
        categories: &[],
        namespaced,
        verbs: &["create"],
        subresources: &[],
        columns: &[NAME, AGE],
        name_rule: NameRule::Subdomain,
        generation: false,
        create_on_update: false,
        unconditional_update: false,
        storage: Storage::None,
        deprecation: None,
        strategy,
    }
}

impl Resource {
    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `plural.group`, or the plural alone for the core group: how messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources
            .iter()
            .find(|subresource| subresource.name == name)
    }

    /// The prefix of its keys in the store: `/registry/<group or core>/<plural>/`.
    pub fn prefix(&self) -> String {
        let (group, plural) = match self.storage {
            Storage::SharedWith(group, plural) => (group, plural),
            _ => (self.group, self.plural),
        };
        format!(
            "/registry/{}/{plural}/",
            if group.is_empty() { "core" } else { group }
        )
    }
}

/// All served resources.
pub struct Registry {
    resources: Vec<&'static Resource>,
    /// By their plurals: every request asks for one.
    named: HashMap<&'static str, Vec<&'static Resource>>,
}

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Self {
        let mut registry = Self {
            resources: Vec::new(),
            named: HashMap::new(),
        };
        registry.add(RESOURCES);
        registry
    }

    fn add(&mut self, resources: &[&'static Resource]) {
        for resource in resources {
            self.resources.push(resource);
            self.named
                .entry(resource.plural)
                .or_default()
                .push(resource);
        }
    }

    /// The same, and the figures of nodes and pods. No API server has them by itself: they are for one that has
    /// nodes to ask.
    pub fn with_metrics(mut self) -> Self {
        self.add(&METRICS);
        self
    }

    /// Every resource, in discovery's order.
    pub fn iter(&self) -> impl Iterator<Item = &'static Resource> + '_ {
        self.resources.iter().copied()
    }

    /// By the segments of a path.
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        self.named(plural)
            .find(|r| r.group == group && r.version == version)
    }

    /// Those with this plural, in discovery's order.
    pub fn named(&self, plural: &str) -> impl Iterator<Item = &'static Resource> + '_ {
        self.named.get(plural).into_iter().flatten().copied()
    }

    /// The resource whose version the objects of `resource` are stored in: mostly itself.
    pub fn stored(&self, resource: &'static Resource) -> &'static Resource {
        let Storage::SharedWith(group, plural) = resource.storage else {
            return resource;
        };
        self.iter()
            .find(|r| r.group == group && r.plural == plural && r.storage == Storage::Own)
            .unwrap_or(resource)
    }

    /// By the type of an object.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
        self.iter()
            .find(|r| r.group == group && r.version == version && r.kind == kind)
    }
}

/// One line per served resource; everything else follows from its descriptor.
static RESOURCES: &[&Resource] = &[
    &core::v1::binding::RESOURCE,
    &core::v1::component_status::RESOURCE,
    &core::v1::config_map::RESOURCE,
    &core::v1::endpoints::RESOURCE,
    &core::v1::event::RESOURCE,
    &core::v1::limit_range::RESOURCE,
    &core::v1::namespace::RESOURCE,
    &core::v1::node::RESOURCE,
    &core::v1::persistent_volume::RESOURCE,
    &core::v1::persistent_volume_claim::RESOURCE,
    &core::v1::pod::RESOURCE,
    &core::v1::pod_template::RESOURCE,
    &core::v1::replication_controller::RESOURCE,
    &core::v1::resource_quota::RESOURCE,
    &core::v1::secret::RESOURCE,
    &core::v1::service::RESOURCE,
    &core::v1::service_account::RESOURCE,
    &apps::v1::controller_revision::RESOURCE,
    &apps::v1::daemon_set::RESOURCE,
    &apps::v1::deployment::RESOURCE,
    &apps::v1::replica_set::RESOURCE,
    &apps::v1::stateful_set::RESOURCE,
    &autoscaling::v1::horizontal_pod_autoscaler::RESOURCE,
    &autoscaling::v2::horizontal_pod_autoscaler::RESOURCE,
    &batch::v1::cron_job::RESOURCE,
    &batch::v1::job::RESOURCE,
    &coordination::v1::lease::RESOURCE,
    &discovery::v1::endpoint_slice::RESOURCE,
    &events::v1::event::RESOURCE,
    &networking::v1::ingress::RESOURCE,
    &networking::v1::ingress_class::RESOURCE,
    &networking::v1::ip_address::RESOURCE,
    &networking::v1::network_policy::RESOURCE,
    &networking::v1::service_cidr::RESOURCE,
    &node::v1::runtime_class::RESOURCE,
    &policy::v1::pod_disruption_budget::RESOURCE,
    &scheduling::v1::priority_class::RESOURCE,
    &storage::v1::csi_driver::RESOURCE,
    &storage::v1::csi_node::RESOURCE,
    &storage::v1::csi_storage_capacity::RESOURCE,
    &storage::v1::storage_class::RESOURCE,
    &storage::v1::volume_attachment::RESOURCE,
    &storage::v1::volume_attributes_class::RESOURCE,
    &certificates::v1::certificate_signing_request::RESOURCE,
    &flowcontrol::v1::flow_schema::RESOURCE,
    &flowcontrol::v1::priority_level_configuration::RESOURCE,
    &rbac::v1::cluster_role::RESOURCE,
    &rbac::v1::cluster_role_binding::RESOURCE,
    &rbac::v1::role::RESOURCE,
    &rbac::v1::role_binding::RESOURCE,
    &admissionregistration::v1::mutating_admission_policy::RESOURCE,
    &admissionregistration::v1::mutating_admission_policy_binding::RESOURCE,
    &admissionregistration::v1::mutating_webhook_configuration::RESOURCE,
    &admissionregistration::v1::validating_admission_policy::RESOURCE,
    &admissionregistration::v1::validating_admission_policy_binding::RESOURCE,
    &admissionregistration::v1::validating_webhook_configuration::RESOURCE,
    &resource::v1::device_class::RESOURCE,
    &resource::v1::resource_claim::RESOURCE,
    &resource::v1::resource_claim_template::RESOURCE,
    &resource::v1::resource_slice::RESOURCE,
    &authentication::v1::self_subject_review::RESOURCE,
    &authentication::v1::token_review::RESOURCE,
    &authorization::v1::local_subject_access_review::RESOURCE,
    &authorization::v1::self_subject_access_review::RESOURCE,
    &authorization::v1::self_subject_rules_review::RESOURCE,
    &authorization::v1::subject_access_review::RESOURCE,
    &apiextensions::v1::custom_resource_definition::RESOURCE,
    &apiregistration::v1::api_service::RESOURCE,
];

/// What [`Registry::with_metrics`] adds.
static METRICS: [&Resource; 2] = [
    &metrics::v1beta1::node_metrics::RESOURCE,
    &metrics::v1beta1::pod_metrics::RESOURCE,
];

/// The age of an object as kubectl prints it (`5s`, `3m20s`, `2d`), or `<unknown>`.
pub fn age(object: &Object, now: Timestamp) -> Value {
    since_text(object.metadata("creationTimestamp"), now)
}

/// The cells under [`DEFAULT_COLUMNS`].
pub fn default_cells(object: &Object) -> Vec<Value> {
    vec![
        object.name().into(),
        object.metadata("creationTimestamp").into(),
    ]
}

/// How long ago a written time was, or `<unknown>`.
pub fn since_text(time: &str, now: Timestamp) -> Value {
    Value::from(
        time.parse()
            .map_or_else(|_| "<unknown>".to_owned(), |time| since(time, now)),
    )
}

/// How long ago a time was.
pub fn since(time: Timestamp, now: Timestamp) -> String {
    human_duration(now.as_second() - time.as_second())
}

/// A label selector on one line, as columns show it: `app=web,tier in (a,b)`; `<none>` when empty.
pub fn selector_text(selector: &At<'_>) -> String {
    let mut parts: Vec<(String, String)> = Vec::new();
    for (key, value) in selector.key("matchLabels").entries() {
        parts.push((key.to_owned(), format!("{key}={}", value.str())));
    }
    for requirement in selector.key("matchExpressions").items() {
        let key = requirement.key("key").str();
        let mut values: Vec<&str> = requirement
            .key("values")
            .items()
            .filter_map(|v| v.as_str())
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match requirement.key("operator").str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    if texts.is_empty() {
        "<none>".to_owned()
    } else {
        texts.join(",")
    }
}

/// A map of labels on one line: `a=b,c=d`, sorted; `<none>` when empty.
pub fn labels_text(labels: &At<'_>) -> String {
    let mut parts: Vec<String> = labels
        .entries()
        .map(|(key, value)| format!("{key}={}", value.str()))
        .collect();
    parts.sort_unstable();
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

/// A duration in seconds as kubectl prints it (`k8s.io/apimachinery/pkg/util/duration`).
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{}d{}h", hours / 24, hours % 24),
        172_800..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 if hours / 24 % 365 != 0 => {
            format!("{}y{}d", hours / 24 / 365, hours / 24 % 365)
        }
        _ => format!("{}y", hours / 24 / 365),
    }
}
